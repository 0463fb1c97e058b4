"""Several worker processes and the one that watches over them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.server.live import PATIENCE, Peer, eventually
from tests.server.processes import (
    NEW_PID,
    PID,
    ask,
    daemon,
    is_alive,
    log_of,
    logged,
    templates,
    wait_for_workers,
    workers_of,
    write,
)


def test_a_killed_worker_is_replaced(short_path: Path) -> None:
    with daemon(short_path) as process:
        first = wait_for_workers(process, short_path, 2)
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(workers_of(process) - {victim}) == 2, "another worker in its place")
        assert int(ask(short_path)) in workers_of(process)
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
    with daemon(short_path) as process:
        workers = wait_for_workers(process, short_path, 2)
        with Peer(str(short_path / "app.sock")) as peer:
            peer.get("/endless")
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
        write(short_path, NEW_PID)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: not old & workers_of(process), "the old workers are gone")
        eventually(lambda: ask(short_path).startswith(b"new "), "the new application answers")
        eventually(lambda: len(workers_of(process)) == 2, "two workers")
        eventually(lambda: len(templates(process)) == 1, "the old template is gone")


def test_sighup_keeps_the_old_workers_when_the_application_cannot_be_loaded_any_more(
    short_path: Path,
) -> None:
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        write(short_path, "import nonexistent_module\n")
        process.send_signal(signal.SIGHUP)
        logged(short_path, "the old workers go on")
        eventually(lambda: workers_of(process) == old, "the old workers alone")
        eventually(lambda: len(templates(process)) == 1, "the old template alone")
        assert int(ask(short_path)) in old


@pytest.mark.parametrize("lazy", [False, True])
def test_an_application_that_cannot_be_loaded_says_so_once_and_the_exit_status_is_2(
    short_path: Path, lazy: bool
) -> None:
    with daemon(short_path, "import nonexistent_module\n", workers=4, lazy=lazy) as process:
        assert process.wait(PATIENCE) == 2
        log = log_of(short_path)
        assert log.count("Traceback") == 1, log
        assert "gateways/" not in log, log
        assert not (short_path / "app.sock").exists()


@pytest.mark.parametrize(
    "how", ["os._exit(7)", "os.kill(os.getpid(), 11)", "raise KeyboardInterrupt"]
)
@pytest.mark.parametrize("lazy", [False, True])
def test_an_application_that_kills_its_process_while_it_loads_ends_the_start(
    short_path: Path, how: str, lazy: bool
) -> None:
    with daemon(short_path, f"import os\n{how}\n", lazy=lazy) as process:
        assert process.wait(PATIENCE) == 2
        assert "while it loaded the application" in log_of(short_path)
        assert "serving" not in log_of(short_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_that_the_application_left_do_not_hold_up_the_end(
    short_path: Path, workers: int
) -> None:
    thread = "\nimport threading\nthreading.Thread(target=time.sleep, args=(100,)).start()\n"
    with daemon(short_path, PID + thread, workers=workers, lazy=True) as process:
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
    with daemon(short_path, dying, lazy=True) as process:
        time.sleep(3)
        assert log_of(short_path).count("starting another") < 20
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
