"""Several worker processes and the one that watches over them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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
    return [str(os.getpid()).encode()]
"""


@contextmanager
def daemon(
    folder: Path, source: str = PID, *, workers: int = 2, threads: int = 2
) -> Iterator[subprocess.Popen[str]]:
    """Run `gateways.serve` on folder/app.sock with the application that `source` defines."""
    (folder / "pid_app.py").write_text(source)
    program = (
        f"import gateways; gateways.serve({str(folder / 'pid_app.py')!r}, {str(folder / 'app.sock')!r},"
        f" workers={workers}, threads={threads})"
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=log, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


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


def children(pid: int) -> set[int]:
    """Return the process's children."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return {int(each) for each in path.read_text().split()} if path.exists() else set()


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_workers(process: subprocess.Popen[str], folder: Path, count: int) -> set[int]:
    """Wait until that many workers run and one answers; return their process ids."""
    eventually(lambda: log_of(folder).count("worker ready") == count, f"{count} workers")
    return children(process.pid)


def test_a_killed_worker_is_replaced(short_path: Path) -> None:
    with daemon(short_path) as process:
        first = wait_for_workers(process, short_path, 2)
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: len(children(process.pid) - {victim}) == 2, "another worker in its place"
        )
        assert int(ask(short_path)) in children(process.pid)
        assert f"worker {victim} was killed by SIGKILL" in log_of(short_path)


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_the_flags_tell_the_truth(short_path: Path, workers: int, threads: int) -> None:
    """PEP 3333 "environ Variables": wsgi.multithread, wsgi.multiprocess, wsgi.run_once."""
    with daemon(short_path, workers=workers, threads=threads):
        eventually(lambda: ask(short_path) != b"", "an answer")
        assert ask(short_path, "/flags") == repr([threads > 1, workers > 1, False]).encode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_stop_answers_what_runs_and_leaves_nothing(
    short_path: Path, number: signal.Signals
) -> None:
    with daemon(short_path) as process:
        workers = wait_for_workers(process, short_path, 2)
        with Peer(str(short_path / "app.sock")) as peer:
            peer.get("/slow")
            time.sleep(0.1)  # the request is under way
            process.send_signal(number)
            assert int(peer.answer()) in workers
        assert process.wait(PATIENCE) == 0
        assert not any(is_alive(pid) for pid in workers)
        assert not (short_path / "app.sock").exists()
        assert "Traceback" not in log_of(short_path)


def test_a_second_signal_stops_at_once(short_path: Path) -> None:
    endless = PID.replace("time.sleep(0.5)", "time.sleep(60)")
    with daemon(short_path, endless) as process:
        workers = wait_for_workers(process, short_path, 2)
        with Peer(str(short_path / "app.sock")) as peer:
            peer.get("/slow")
            time.sleep(0.1)  # the request is under way
            process.send_signal(signal.SIGTERM)
            eventually(lambda: not (short_path / "app.sock").exists(), "the stop has begun")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        assert not any(is_alive(pid) for pid in workers)


def test_workers_end_when_their_master_is_killed(short_path: Path) -> None:
    with daemon(short_path) as process:
        workers = wait_for_workers(process, short_path, 2)
        process.kill()
        eventually(lambda: not any(is_alive(pid) for pid in workers), "no orphans")


def test_sighup_replaces_the_workers_with_ones_that_load_the_application_anew(
    short_path: Path,
) -> None:
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        new_source = PID.replace("str(os.getpid())", "('new %d' % os.getpid())")
        (short_path / "pid_app.py").write_text(new_source)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: not old & children(process.pid), "the old workers are gone")
        eventually(lambda: ask(short_path).startswith(b"new "), "the new application answers")
        assert len(children(process.pid)) == 2


def test_sighup_keeps_the_old_workers_when_the_application_cannot_be_loaded_any_more(
    short_path: Path,
) -> None:
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        (short_path / "pid_app.py").write_text("import nonexistent_module\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "the old workers go on" in log_of(short_path), "the failure is told")
        eventually(lambda: children(process.pid) == old, "the old workers alone")
        assert int(ask(short_path)) in old


def test_an_application_that_cannot_be_loaded_says_so_once_and_the_exit_status_is_2(
    short_path: Path,
) -> None:
    with daemon(short_path, "import nonexistent_module\n", workers=4) as process:
        assert process.wait(PATIENCE) == 2
        log = log_of(short_path)
        assert log.count("Traceback") == 1, log
        assert "gateways/" not in log, log
        assert not (short_path / "app.sock").exists()


@pytest.mark.parametrize(
    "how", ["os._exit(7)", "os.kill(os.getpid(), 11)", "raise KeyboardInterrupt"]
)
def test_an_application_that_kills_its_worker_while_it_loads_ends_the_start(
    short_path: Path, how: str
) -> None:
    with daemon(short_path, f"import os\n{how}\n") as process:
        assert process.wait(PATIENCE) == 2
        assert "while it loaded the application" in log_of(short_path)
        assert "serving" not in log_of(short_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_that_the_application_left_do_not_hold_up_the_end(
    short_path: Path, workers: int
) -> None:
    thread = "\nimport threading\nthreading.Thread(target=time.sleep, args=(100,)).start()\n"
    with daemon(short_path, PID + thread, workers=workers) as process:
        eventually(lambda: ask(short_path) != b"", "an answer")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_the_applications_exit_functions_run_in_each_worker(short_path: Path) -> None:
    said = "\nimport atexit, sys\natexit.register(lambda: print('farewell', file=sys.stderr))\n"
    with daemon(short_path, PID + said) as process:
        wait_for_workers(process, short_path, 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert log_of(short_path).count("farewell") == 2


def test_a_worker_that_dies_at_once_is_not_replaced_in_a_frenzy(short_path: Path) -> None:
    """CVE-2015-9253's lesson: a crash loop must flood neither the processor nor the log."""
    dying = PID + "\nimport threading\nthreading.Timer(1.0, lambda: os._exit(1)).start()\n"
    with daemon(short_path, dying) as process:
        time.sleep(3)
        assert log_of(short_path).count("starting another") < 20
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
