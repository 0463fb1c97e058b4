"""A daemon of several processes for tests: how to start it, and what its processes are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.server.live import PATIENCE, Peer, eventually

ROOT = Path(__file__).parents[2]

PID = """
import os, time
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/flags":
        flags = [environ["wsgi." + name] for name in ("multithread", "multiprocess", "run_once")]
        return [repr(flags).encode()]
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    if environ["PATH_INFO"] == "/endless":
        time.sleep(60)
    return [str(os.getpid()).encode()]
"""

NEW_PID = PID.replace("str(os.getpid())", "('new %d' % os.getpid())")


@contextmanager
def daemon(
    folder: Path,
    source: str = PID,
    *,
    before: str = "",
    workers: int = 2,
    threads: int = 2,
    **options: object,
) -> Iterator[subprocess.Popen[str]]:
    """Run `gateways.serve` on folder/app.sock with the application that `source` defines.

    `before` are statements that its program runs first.  In the end it is told to stop, and
    nothing that it has started may be left.
    """
    write(folder, source)
    arguments = {"workers": workers, "threads": threads, **options}
    program = (
        f"{before}\nimport gateways\ngateways.serve({str(folder / 'pid_app.py')!r},"
        f" {str(folder / 'app.sock')!r}, **{arguments!r})"
    )
    with run(folder, program) as process:
        yield process


@contextmanager
def run(folder: Path, program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that serves, in a session of its own; see `daemon`."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
            eventually(lambda: not session(process.pid), "no process is left")
        finally:
            process.kill()
            process.wait()
            for pid in session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def write(folder: Path, source: str) -> None:
    """Write the application; in one go, since a process may be about to read it."""
    (folder / "new_app").write_text(source)
    (folder / "new_app").rename(folder / "pid_app.py")


def ask(folder: Path, path: str = "/") -> bytes:
    """Ask on a new connection; b"" when nobody serves."""
    try:
        with Peer(str(folder / "app.sock")) as peer:
            peer.get(path, keep=False)
            return peer.answer()
    except OSError:
        return b""


def log_of(folder: Path) -> str:
    """Return what the daemon has logged."""
    return (folder / "log").read_text()


def logged(folder: Path, text: str) -> None:
    """Wait until the daemon has logged a text."""
    eventually(lambda: text in log_of(folder), f"the log says: {text}")


def _fields(pid: int | str) -> list[str]:
    """Return what /proc/PID/stat says from the state on; state X of a process that does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0", "0", "0"]


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    return _fields(pid)[0] not in "XZ"


def session(leader: int) -> set[int]:
    """Return the processes of the session that are alive."""
    pids = [each.name for each in Path("/proc").iterdir() if each.name.isdigit()]
    found = {int(pid): _fields(pid) for pid in pids}
    return {pid for pid, each in found.items() if each[3] == str(leader) and each[0] not in "XZ"}


def children(pid: int) -> set[int]:
    """Return the process's children."""
    return {each for each in session(os.getsid(pid)) if _fields(each)[1] == str(pid)}


def templates(process: subprocess.Popen[str]) -> set[int]:
    """Return the daemon's template processes."""
    return children(process.pid)


def workers_of(process: subprocess.Popen[str]) -> set[int]:
    """Return the daemon's workers, those that have lost their template included."""
    return session(process.pid) - templates(process) - {process.pid}


def wait_for_workers(process: subprocess.Popen[str], folder: Path, count: int) -> set[int]:
    """Wait until that many workers have got ready since the start; return those that are there."""
    eventually(lambda: log_of(folder).count("worker ready") >= count, f"{count} workers")
    return workers_of(process)
