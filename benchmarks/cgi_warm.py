"""What a warm CGI request costs in all: the stub that the web server starts, and the daemon's share.

Each stub is written by `gateways warm`, one in C and one in Python, and started as a web server would
start it, one after the other; the first request starts the daemon and is not counted.  The stub's
CPU is the kernel's account of the child (os.wait4), the daemon's its CPU clock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import accounting, environment
from benchmarks.cgi_startup import ANSWER, HELLO, REQUEST
from benchmarks.load import LoadFailed
from benchmarks.ratios import interval

IN_C, IN_PYTHON = "c", "python"
KINDS = {IN_C: ("the C stub", ()), IN_PYTHON: ("the Python stub", ("--python-stub",))}

REQUESTS = 40
"""In a round, of each kind."""

START_SECONDS = 10


def measure(tree: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Kind of stub → `stub` and `daemon`: milliseconds of CPU for one request, round by round."""
    found: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        running = {kind: stack.enter_context(_warm(kind, tree)) for kind in KINDS}
        for _ in range(rounds):
            for kind, (stub, daemon) in running.items():
                before = accounting.process_seconds(daemon)
                taken = [_once(stub) for _ in range(REQUESTS)]
                share = 1000 * (accounting.process_seconds(daemon) - before) / REQUESTS
                columns = found.setdefault(kind, {"stub": [], "daemon": []})
                columns["stub"].append(round(statistics.fmean(taken), 3))
                columns["daemon"].append(round(share, 3))
    return found


@contextlib.contextmanager
def _warm(kind: str, tree: Path) -> Iterator[tuple[Path, int]]:
    """Write a stub and have it start its daemon; give the stub's path and the daemon's process id."""
    folder = Path(tempfile.mkdtemp(prefix="gwb-"))
    application, stub = folder / "app.py", folder / "app.cgi"
    application.write_text(HELLO)
    (folder / "run").mkdir(mode=0o700)
    command = [str(environment.PYTHON), "-m", "gateways", "warm", str(application), "-o", str(stub)]
    command += ["--runtime-dir", str(folder / "run"), *KINDS[kind][1]]
    pid = 0
    try:
        variables = {"PATH": os.defpath, "PYTHONPATH": str(tree)}
        written = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        if written.returncode:
            raise LoadFailed(f"gateways warm: {written.stderr}")
        if kind == IN_C and stub.read_bytes()[:4] != b"\x7fELF":
            raise LoadFailed(f"gateways warm wrote no C stub: {written.stdout}")
        _once(stub)
        pid = _daemon(folder)
        for _ in range(REQUESTS):
            _once(stub)
        yield stub, pid
    finally:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _daemon(folder: Path) -> int:
    """The process whose command line names the folder and the daemon."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = entry.read_bytes()
                if b"gateways.warm.daemon" in words and os.fsencode(folder) in words:
                    return int(entry.parent.name)
        time.sleep(0.05)
    raise LoadFailed("the stub has started no daemon")


def _once(stub: Path) -> float:
    """Answer one request by the stub; return its milliseconds of CPU."""
    output = stub.with_suffix(".out")
    opened = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    variables = {**REQUEST, "PATH": os.defpath}
    pid = os.posix_spawn(stub, [str(stub)], variables, file_actions=opened)
    _, status, usage = os.wait4(pid, 0)
    if status or not output.read_bytes().endswith(ANSWER):
        raise LoadFailed(f"{stub} exit {status}: {output.read_bytes()!r}")
    return (usage.ru_utime + usage.ru_stime) * 1000


def in_all(columns: dict[str, list[float]]) -> list[float]:
    """The stub's and the daemon's together, round by round."""
    return [sum(pair) for pair in zip(columns["stub"], columns["daemon"], strict=True)]


HEAD = ("one warm CGI request", "stub ms", "daemon ms", "in all", "its interval")


def rows(found: dict[str, Any]) -> list[list[str]]:
    told = []
    for kind, columns in found.items():
        whole = interval(in_all(columns))
        parts = [f"{statistics.median(columns[part]):.2f}" for part in ("stub", "daemon")]
        ends = f"{whole.low:.2f} to {whole.high:.2f}"
        told.append([KINDS[kind][0], *parts, f"{whole.median:.2f}", ends])
    return told
