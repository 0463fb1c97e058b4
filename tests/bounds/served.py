"""A `gateways serve` process for the swarm, what its processes take of the machine, and its log."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bounds import application, watch

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 20.0
"""Seconds that are waited for what happens at once on an idle machine."""

Where = str | tuple[str, int]


@dataclass
class Served:
    """A running server: how to reach it, its processes, its log."""

    process: subprocess.Popen[bytes]
    protocol: str
    where: Where
    folder: Path
    threads: int
    options: dict[str, object] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def log_text(self) -> str:
        """Everything the server has said so far."""
        return self.log.read_text(errors="replace")

    def lines(self, *words: str) -> int:
        """Return how many lines of the log have all these words, in either case."""
        return sum(
            all(word.lower() in line.lower() for word in words)
            for line in self.log_text().splitlines()
        )

    def await_lines(self, count: int, *words: str) -> int:
        """Wait a moment for so many lines with all these words; return how many there are."""
        deadline = time.monotonic() + 2.0
        while (found := self.lines(*words)) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def look(self) -> dict[str, int]:
        """Return what the processes take just now, as watch.py says it."""
        return watch.look(self.process.pid)

    def settled(self, descriptors: int, seconds: float) -> dict[str, int]:
        """Wait until no more than so many descriptors are open; return what the processes take."""
        deadline = time.monotonic() + seconds
        while (found := self.look())["descriptors"] > descriptors and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def cpu_seconds(self) -> float:
        """Return the processor time that the processes have had."""
        spent = 0
        for pid in watch.family(self.process.pid):
            for task in os.listdir(f"/proc/{pid}/task"):
                spent += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        return spent / 1e9

    def release(self, name: str) -> None:
        """Let go the requests that are held under this name."""
        (self.folder / name).touch()

    def dump(self) -> str:
        """Have every process write what its threads are doing; return the log with it."""
        for pid in watch.family(self.process.pid):
            if _catches(pid, application.DUMP):  # it would end a master, which has no application
                os.kill(pid, application.DUMP)
        time.sleep(0.5)  # faulthandler writes at once, each process by itself
        return self.log_text()

    def has_ended(self) -> bool:
        """Whether the server has ended although nobody asked it to."""
        return self.process.poll() is not None


@contextmanager
def served(
    folder: Path,
    *,
    protocol: str = "fcgi",
    threads: int = 8,
    tcp: bool = False,
    python: str = sys.executable,
    **options: Any,
) -> Iterator[Served]:
    """Serve the application of this package from a folder of its own until the block ends.

    AssertionError, with the log, when the server does not start, ends by itself, does not stop when
    asked, or reports a fault of its own.
    """
    where: Where = ("127.0.0.1", _free_port()) if tcp else str(folder / "app.sock")
    address = f"{protocol}://127.0.0.1:{where[1]}" if tcp else f"{protocol}+unix:{where}"
    (folder / application.FILE).write_bytes(application.pattern(*application.FILE_PATTERN))
    program = Path(application.__file__)
    command = [python, "-m", "gateways", "serve", str(program), "-b", address]
    for name, value in {"threads": threads, **options}.items():
        flag = name.replace("_", "-")
        command += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    variables = {**os.environ, application.FOLDER: str(folder), "PYTHONUNBUFFERED": "1"}
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    server = Served(process, protocol, where, folder, threads, dict(options))
    try:
        until(lambda: " serving " in server.log_text() or server.has_ended(), server.log_text)
        workers = int(str(options.get("workers", 1)))
        if workers > 1:
            until(lambda: server.lines("worker", "ready") >= workers, server.log_text)
        # They are still being started when the server says that it serves.
        busy = workers * (threads + (threads > 1))
        until(lambda: server.has_ended() or server.look()["threads"] >= busy, server.log_text)
        assert not server.has_ended(), server.log_text()
        yield server
        assert not server.has_ended(), server.log_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, server.log_text()
        assert "internal error" not in server.log_text(), server.log_text()
    finally:
        process.kill()
        process.wait()


@contextmanager
def watched(server: Served, interval: float = 0.2) -> Iterator[dict[str, int]]:
    """Watch a server while the block lasts; then the dictionary holds the maxima."""
    command = [sys.executable, "-S", "-E", watch.__file__, str(server.process.pid), str(interval)]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    most: dict[str, int] = {}
    try:
        yield most
    finally:
        output, _ = watcher.communicate(timeout=PATIENCE)
        most.update(json.loads(output))


def until(
    condition: Callable[[], bool], otherwise: Callable[[], object], seconds: float = PATIENCE
) -> None:
    """Wait until `condition()`; AssertionError with what `otherwise` tells when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {otherwise()}")
        time.sleep(0.02)


def _catches(pid: int, number: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
