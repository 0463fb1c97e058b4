"""Starts a server, waits until it answers, and ends it with everything that it started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks import contenders
from benchmarks.contenders import Contender

START_SECONDS = 30
STOP_SECONDS = 10


class ServerFailed(Exception):
    """A server did not start, or ended by itself; the text is the end of what it said."""


Where = Path | tuple[str, int]
"""A unix socket's path, or a host and a port."""


class RunningServer:
    """`pid` of the process that was started, `socket` where it listens."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.socket = socket

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it politely, then by force, and whatever is left of its session."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        # It leads a session, and so a process group, of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


def wait_ready(process: subprocess.Popen[bytes], where: Where, log: Path, seconds: float) -> None:
    """Wait until it accepts a connection; ServerFailed when it ends or that takes too long."""
    end = time.monotonic() + seconds
    while not accepts(where):
        failed = process.poll() is not None
        if failed or time.monotonic() > end:
            said = log.read_text(errors="replace")[-2000:]
            how = f"ended with {process.returncode}" if failed else f"not ready after {seconds} s"
            raise ServerFailed(f"{process.args!r} {how}:\n{said}")
        time.sleep(0.01)


def accepts(where: Where) -> bool:
    """Whether somebody listens at a unix socket, or at a host and port."""
    family = socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET
    with socket.socket(family) as trial:
        try:
            trial.connect(str(where) if isinstance(where, Path) else where)
        except OSError:
            return False
    return True


@contextlib.contextmanager
def serving(
    contender: Contender,
    app: str,
    *,
    under: list[str] | None = None,
    seconds: float = START_SECONDS,
    extra_environment: dict[str, str] | None = None,
) -> Iterator[RunningServer]:
    """Run a contender with `app`; `under` is a command to put in front, such as valgrind's."""
    environment = {"PYTHONPATH": f"{contender.tree}:{contenders.HERE}", **(extra_environment or {})}
    # A server under valgrind needs its time to write down what it counted.
    stop_seconds = max(seconds, STOP_SECONDS) if under else STOP_SECONDS
    with listening(
        lambda where: [*(under or []), *contenders.command(contender, app, where)],
        environment,
        seconds=seconds,
        stop_seconds=stop_seconds,
    ) as server:
        yield server


@contextlib.contextmanager
def listening(
    command: Callable[[Path], list[str]],
    extra_environment: Mapping[str, str],
    *,
    seconds: float = START_SECONDS,
    stop_seconds: float = STOP_SECONDS,
) -> Iterator[RunningServer]:
    """Run what `command` makes of a unix socket's path, in a folder of its own."""
    # Short, since a unix socket's path is at most 107 bytes long.
    folder = Path(tempfile.mkdtemp(prefix="gwb-"))
    where, log = folder / "s", folder / "log"
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ
    }
    environment.update(extra_environment)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(where),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    server = RunningServer(process, where)
    try:
        wait_ready(process, where, log, seconds)
        yield server
    finally:
        server.stop(stop_seconds)
        shutil.rmtree(folder, ignore_errors=True)
