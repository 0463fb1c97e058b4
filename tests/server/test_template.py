"""Template processes: the application loaded once, and every way in which their story can go wrong.

Each test runs a real daemon, and `daemon` sees to it that none of its processes is left.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    run,
    session,
    templates,
    wait_for_workers,
    workers_of,
    write,
)

SAY_LOADED = "\nos.write(2, b'loaded by %d\\n' % os.getpid())\n"
"""In one write, since the test reads the log meanwhile."""

HANG = "\ntime.sleep(100)\n"


def loaders(folder: Path) -> list[int]:
    """Return the processes that have loaded the application."""
    return [int(pid) for pid in re.findall(r"^loaded by (\d+)\n", log_of(folder), re.MULTILINE)]


def wait_until_loading(folder: Path, count: int = 1) -> None:
    """Wait until the application's code has begun to run for the `count`th time."""
    eventually(lambda: len(loaders(folder)) == count, f"{count} loads have begun")


# What it is for.


def test_the_application_is_loaded_once_and_not_by_the_master(short_path: Path) -> None:
    with daemon(short_path, PID + SAY_LOADED, workers=3) as process:
        workers = wait_for_workers(process, short_path, 3)
        assert set(loaders(short_path)) == templates(process)
        assert len(loaders(short_path)) == 1
        assert int(ask(short_path)) in workers


def test_lazy_loads_it_in_each_worker(short_path: Path) -> None:
    with daemon(short_path, PID + SAY_LOADED, workers=3, lazy=True) as process:
        workers = wait_for_workers(process, short_path, 3)
        assert sorted(loaders(short_path)) == sorted(workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_collector_leaves_alone_what_was_loaded(short_path: Path, workers: int) -> None:
    frozen = PID.replace("os.getpid()", "gc.get_freeze_count()") + "\nimport gc\n"
    with daemon(short_path, frozen, workers=workers):
        eventually(lambda: ask(short_path) != b"", "an answer")
        assert int(ask(short_path)) > 1000


def test_handlers_that_the_application_has_set_are_the_workers(short_path: Path) -> None:
    said = "\nimport signal\nsignal.signal(signal.SIGHUP, lambda *_: os.write(2, b'heard\\n'))\n"
    with daemon(short_path, PID + said) as process:
        os.kill(min(wait_for_workers(process, short_path, 2)), signal.SIGHUP)
        logged(short_path, "heard")


# Threads and forks.


def test_threads_that_were_left_running_refuse_the_start(short_path: Path) -> None:
    thread = "\nimport threading\nthreading.Thread(target=time.sleep, args=(100,), name='ticker', daemon=True).start()\n"
    with daemon(short_path, PID + thread) as process:
        assert process.wait(PATIENCE) == 2
    log = log_of(short_path)
    assert 'left threads running: "ticker";' in log
    assert "--lazy" in log
    assert "Traceback" not in log
    assert "serving" not in log


def test_threads_of_which_the_interpreter_does_not_know_count(short_path: Path) -> None:
    thread = "\nimport _thread\n_thread.start_new_thread(time.sleep, (100,))\n"
    with daemon(short_path, PID + thread) as process:
        assert process.wait(PATIENCE) == 2
    assert "left threads running: 1 that C code has started;" in log_of(short_path)


def test_threads_that_are_ending_are_waited_for(short_path: Path) -> None:
    thread = "\nimport threading\nthreading.Thread(target=time.sleep, args=(0.2,)).start()\n"
    with daemon(short_path, PID + thread) as process:
        assert wait_for_workers(process, short_path, 2)


def test_threads_refuse_a_reload_and_the_old_workers_go_on(short_path: Path) -> None:
    thread = "\nimport threading\nthreading.Thread(target=time.sleep, args=(100,)).start()\n"
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        write(short_path, NEW_PID + thread)
        process.send_signal(signal.SIGHUP)
        logged(short_path, "the old workers go on")
        assert "left threads running" in log_of(short_path)
        eventually(lambda: workers_of(process) == old, "the old workers alone")
        assert int(ask(short_path)) in old


def test_a_program_with_threads_is_refused_by_serve(short_path: Path) -> None:
    program = f"""
import gateways, threading, time
threading.Thread(target=time.sleep, args=(100,), name="metrics", daemon=True).start()
try:
    gateways.serve(lambda environ, start_response: [], {str(short_path / "app.sock")!r}, workers=2)
except gateways.ConfigurationError as error:
    raise SystemExit(str(error))
"""
    with run(short_path, program) as process:
        assert process.wait(PATIENCE) == 1
    assert 'this program has threads running: "metrics";' in log_of(short_path)
    assert not (short_path / "app.sock").exists()


def test_a_callable_is_served_by_workers_that_SIGHUP_replaces(short_path: Path) -> None:
    program = f"{PID}\nimport gateways\ngateways.serve(application, {str(short_path / 'app.sock')!r}, workers=2, threads=1)"
    with run(short_path, program) as process:
        old = wait_for_workers(process, short_path, 2)
        assert int(ask(short_path)) in old
        process.send_signal(signal.SIGHUP)
        new = wait_for_workers(process, short_path, 4)
        eventually(lambda: not old & workers_of(process), "the old workers are gone")
        assert int(ask(short_path)) in new - old


# Stops, at every moment.


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_ends_an_import_that_hangs(
    short_path: Path, number: signal.Signals, lazy: bool
) -> None:
    with daemon(short_path, PID + SAY_LOADED + HANG, lazy=lazy) as process:
        wait_until_loading(short_path)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        assert not (short_path / "app.sock").exists()
    assert "ERROR" not in log_of(short_path)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_stop_ends_an_import_that_hangs_and_ignores_signals(short_path: Path, lazy: bool) -> None:
    deaf = (
        "\nimport signal\nfor number in (1, 2, 3, 15, 29): signal.signal(number, signal.SIG_IGN)\n"
    )
    with daemon(short_path, PID + deaf + SAY_LOADED + HANG, lazy=lazy) as process:
        wait_until_loading(short_path)
        process.terminate()
        assert process.wait(PATIENCE) == 0


BEFORE_THE_FIRST_LINE = """
import os, signal, time
master = os.getpid()
def wait():
    if (os.getppid() == master) == {in_template}:
        open({flag!r}, "w").close()
        deadline = time.monotonic() + 2
        while not signal.sigpending() and time.monotonic() < deadline:
            time.sleep(0.01)
os.register_at_fork(after_in_child=wait)
"""


@pytest.mark.parametrize("lazy", [False, True], ids=["the template", "a worker"])
def test_a_stop_before_the_first_line_of_a_child_is_not_forgotten(
    short_path: Path, lazy: bool
) -> None:
    flag = short_path / "forked"
    before = BEFORE_THE_FIRST_LINE.format(flag=str(flag), in_template=not lazy)
    with daemon(short_path, PID + SAY_LOADED, before=before, lazy=lazy) as process:
        eventually(flag.exists, "the child has been forked")
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert not loaders(short_path)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process do nothing, not even end."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: _state(pid) == "T", "the process is stopped")
    yield


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


SOON = "import gateways.server.generation as generation\ngeneration.KILL_SECONDS = 0.5\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_that_does_not_end_is_killed(short_path: Path, number: signal.Signals) -> None:
    with daemon(short_path, before=SOON, graceful_timeout=0.2) as process:
        workers = wait_for_workers(process, short_path, 2)
        with stopped(min(workers)):
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
        assert not any(is_alive(pid) for pid in workers)
    assert f"killing worker {min(workers)}:" in log_of(short_path)


def test_a_template_that_does_not_end_is_killed_with_its_workers(short_path: Path) -> None:
    with daemon(short_path, before=SOON, graceful_timeout=0.2) as process:
        wait_for_workers(process, short_path, 2)
        with stopped(min(templates(process))):
            process.terminate()
            assert process.wait(PATIENCE) == 0
            eventually(lambda: not session(process.pid), "no process is left")


def test_an_old_worker_that_does_not_end_after_a_reload_is_killed(short_path: Path) -> None:
    with daemon(short_path, before=SOON, graceful_timeout=0.2) as process:
        old = wait_for_workers(process, short_path, 2)
        with stopped(min(old)):
            process.send_signal(signal.SIGHUP)
            eventually(lambda: not old & workers_of(process), "the old workers are gone")
            eventually(lambda: len(templates(process)) == 1, "the old template is gone")


# Masters that are killed.


@pytest.mark.parametrize("lazy", [False, True])
def test_nothing_that_is_loading_outlives_the_master(short_path: Path, lazy: bool) -> None:
    with daemon(short_path, PID + SAY_LOADED + HANG, lazy=lazy) as process:
        wait_until_loading(short_path)
        process.kill()
        eventually(lambda: not session(process.pid), "no process is left")


def test_no_worker_outlives_its_master_and_template(short_path: Path) -> None:
    with daemon(short_path) as process:
        wait_for_workers(process, short_path, 2)
        for pid in [*templates(process), process.pid]:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not session(process.pid), "no process is left")


# Templates that are killed.


class Visitors:
    """Somebody who asks all the time, each time on a new connection."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[bytes] = []
        self._folder = folder
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._enough.is_set():
            self.answers.append(ask(self._folder))

    def __enter__(self) -> Visitors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()


NO_PIDFD = """
import os
def refuse(pid, flags=0):
    raise PermissionError(1, "as some containers say")
os.pidfd_open = refuse
"""


@pytest.mark.parametrize("before", ["", NO_PIDFD], ids=["pidfd", "no pidfd"])
def test_the_workers_of_a_killed_template_serve_until_others_do(
    short_path: Path, before: str
) -> None:
    with daemon(short_path, before=before) as process:
        old = wait_for_workers(process, short_path, 2)
        (template,) = templates(process)
        with Visitors(short_path) as visitors:
            os.kill(template, signal.SIGKILL)
            logged(short_path, f"template process {template} was killed by SIGKILL")
            new = wait_for_workers(process, short_path, 4) - old
            eventually(lambda: not old & workers_of(process), "the old workers are gone")
            eventually(lambda: int(visitors.answers[-1] or 0) in new, "the new workers answer")
        if not before:  # without pidfds the old ones end in the middle of what they do
            assert b"" not in visitors.answers
        assert len(templates(process)) == 1


def test_what_orphans_have_begun_they_finish(short_path: Path) -> None:
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        with Peer(str(short_path / "app.sock")) as peer:
            peer.get("/slow")
            os.kill(min(templates(process)), signal.SIGKILL)
            assert int(peer.answer()) in old


def test_orphans_go_on_while_the_application_cannot_be_loaded_and_end_when_told_to(
    short_path: Path,
) -> None:
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        write(short_path, "import nonexistent_module\n")
        os.kill(min(templates(process)), signal.SIGKILL)
        logged(short_path, "the old workers go on")
        assert int(ask(short_path)) in old
        eventually(
            lambda: log_of(short_path).count("the old workers go on") > 1, "it is tried again"
        )
        os.kill(min(old), signal.SIGKILL)
        logged(short_path, f"worker {min(old)} has ended")
        write(short_path, NEW_PID)
        eventually(lambda: ask(short_path).startswith(b"new "), "it is loaded in the end")
        eventually(lambda: not old & workers_of(process), "the old workers are gone")


def test_a_stop_reaches_orphans(short_path: Path) -> None:
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        write(short_path, PID + SAY_LOADED + HANG)
        os.kill(min(templates(process)), signal.SIGKILL)
        wait_until_loading(short_path)
        with Peer(str(short_path / "app.sock")) as peer:
            peer.get("/slow")
            eventually(lambda: ask(short_path) != b"", "a later request is answered")
            process.terminate()
            assert int(peer.answer()) in old
        assert process.wait(PATIENCE) == 0


def test_a_stop_that_a_killed_template_has_not_passed_on_reaches_its_workers(
    short_path: Path,
) -> None:
    with daemon(short_path) as process:
        workers = wait_for_workers(process, short_path, 2)
        (template,) = templates(process)
        with Peer(str(short_path / "app.sock")) as peer, stopped(template):
            peer.get("/slow")
            process.terminate()
            logged(short_path, "stopping once running requests are answered")
            os.kill(template, signal.SIGKILL)
            assert int(peer.answer()) in workers
        assert process.wait(PATIENCE) == 0


DIES_AFTER_FORK = """
import os, signal
master = os.getpid()
def die():
    if os.getpid() != master and os.path.exists({flag!r}):
        os.unlink({flag!r})
        os.kill(os.getpid(), signal.SIGKILL)
os.register_at_fork(after_in_parent=die)
"""


def test_a_worker_of_which_a_killed_template_has_not_reported_ends(short_path: Path) -> None:
    flag = short_path / "die"
    with daemon(short_path, before=DIES_AFTER_FORK.format(flag=str(flag))) as process:
        old = wait_for_workers(process, short_path, 2)
        flag.touch()
        os.kill(min(old), signal.SIGKILL)
        logged(short_path, "its workers go on")
        eventually(lambda: not old & workers_of(process), "the old workers are gone")
        eventually(lambda: len(session(process.pid)) == 4, "master, template and two workers")


def test_a_template_that_is_killed_while_it_loads_ends_the_start(short_path: Path) -> None:
    with daemon(short_path, PID + SAY_LOADED + HANG) as process:
        wait_until_loading(short_path)
        os.kill(loaders(short_path)[0], signal.SIGKILL)
        assert process.wait(PATIENCE) == 2
    assert "was killed by SIGKILL while it loaded the application" in log_of(short_path)


def test_a_template_that_is_killed_before_its_first_worker_is_ready_ends_the_start(
    short_path: Path,
) -> None:
    with daemon(short_path, PID + SAY_LOADED + HANG, lazy=True) as process:
        wait_until_loading(short_path)
        os.kill(min(templates(process)), signal.SIGKILL)
        assert process.wait(PATIENCE) == 2
        eventually(lambda: not session(process.pid), "no process is left")
    assert "was killed by SIGKILL before its first worker was ready" in log_of(short_path)


def test_an_application_that_closes_all_descriptors_ends_the_start(short_path: Path) -> None:
    with daemon(short_path, PID + "\nos.closerange(3, 1000)\n" + HANG) as process:
        assert process.wait(PATIENCE) == 2
    assert "while it loaded the application" in log_of(short_path)


# Reloads.


def test_a_reload_takes_the_place_of_one_that_hangs(short_path: Path) -> None:
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        write(short_path, PID + SAY_LOADED + HANG)
        process.send_signal(signal.SIGHUP)
        wait_until_loading(short_path)
        assert int(ask(short_path)) in old
        write(short_path, NEW_PID)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: ask(short_path).startswith(b"new "), "the new application answers")
        eventually(lambda: not is_alive(loaders(short_path)[0]), "the one that hangs is gone")
        eventually(lambda: len(workers_of(process)) == 2, "two workers")


def test_workers_that_die_during_a_reload_are_replaced(short_path: Path) -> None:
    with daemon(short_path) as process:
        old = wait_for_workers(process, short_path, 2)
        write(short_path, PID + SAY_LOADED + HANG)
        process.send_signal(signal.SIGHUP)
        wait_until_loading(short_path)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        wait_for_workers(process, short_path, 4)
        eventually(lambda: ask(short_path) != b"", "an answer")
        assert int(ask(short_path)) not in old


def test_reloads_leave_no_descriptors(short_path: Path) -> None:
    def reload() -> None:
        ready = log_of(short_path).count("worker ready")
        process.send_signal(signal.SIGHUP)
        wait_for_workers(process, short_path, ready + 2)
        eventually(lambda: len(session(process.pid)) == 4, "master, template and two workers")

    def open_in(pid: int) -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    with daemon(short_path, threads=1) as process:
        wait_for_workers(process, short_path, 2)
        reload()
        before = open_in(process.pid), open_in(min(templates(process)))
        workers = sorted(map(open_in, workers_of(process)))
        for _ in range(3):
            reload()
        eventually(
            lambda: (open_in(process.pid), open_in(min(templates(process)))) == before,
            "the master's and the template's descriptors are as many as before",
        )
        eventually(lambda: sorted(map(open_in, workers_of(process))) == workers, "and the workers'")


# Forks that fail, workers that die young.

NO_FORKS = """
import errno, os
fork, failures = os.fork, {failures}
master = os.getpid()
def failing():
    global failures
    if (os.getpid() == master) == {in_master} and failures and not os.path.exists({unless!r}):
        failures -= 1
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
    return fork()
os.fork = failing
"""


@pytest.mark.parametrize(
    ("in_master", "text"),
    [
        (True, "cannot start a process to load the application: Resource temporarily unavailable"),
        (False, "cannot start a worker: Resource temporarily unavailable; trying again in 0.2 s"),
    ],
)
def test_a_fork_that_fails_is_tried_again(short_path: Path, in_master: bool, text: str) -> None:
    before = NO_FORKS.format(failures=3, in_master=in_master, unless="/nowhere")
    with daemon(short_path, before=before) as process:
        wait_for_workers(process, short_path, 2)
        assert ask(short_path) != b""
    assert text in log_of(short_path)


def test_a_reload_whose_fork_fails_is_tried_again(short_path: Path) -> None:
    flag = short_path / "start"
    flag.touch()
    before = NO_FORKS.format(failures=2, in_master=True, unless=str(flag))
    with daemon(short_path, before=before) as process:
        wait_for_workers(process, short_path, 2)
        flag.unlink()
        write(short_path, NEW_PID)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: ask(short_path).startswith(b"new "), "the new application answers")
    assert log_of(short_path).count("cannot start a process to load the application") == 2


DIES_YOUNG = """
import os
from gateways.server.worker import Worker
really_run = Worker.run
def run(self, ready):
    if os.path.exists({flag!r}):
        os.kill(os.getpid(), 11)
    really_run(self, ready)
Worker.run = run
"""


def test_a_worker_that_dies_before_it_is_ready_ends_the_start(short_path: Path) -> None:
    flag = short_path / "die"
    flag.touch()
    with daemon(short_path, before=DIES_YOUNG.format(flag=str(flag))) as process:
        assert process.wait(PATIENCE) == 2
    assert log_of(short_path).count("was killed by SIGSEGV before it was ready") == 1


def test_a_worker_that_dies_before_it_is_ready_ends_a_reload(short_path: Path) -> None:
    flag = short_path / "die"
    with daemon(short_path, before=DIES_YOUNG.format(flag=str(flag))) as process:
        old = wait_for_workers(process, short_path, 2)
        flag.touch()
        process.send_signal(signal.SIGHUP)
        logged(short_path, "the old workers go on")
        assert "was killed by SIGSEGV before it was ready" in log_of(short_path)
        eventually(lambda: len(templates(process)) == 1, "the old template alone")
        assert workers_of(process) == old


def test_a_worker_that_dies_before_it_is_ready_is_replaced_where_others_serve(
    short_path: Path,
) -> None:
    flag = short_path / "die"
    with daemon(short_path, before=DIES_YOUNG.format(flag=str(flag))) as process:
        old = wait_for_workers(process, short_path, 2)
        flag.touch()
        os.kill(min(old), signal.SIGKILL)
        logged(short_path, "was killed by SIGSEGV; starting another in 0.")
        flag.unlink()
        wait_for_workers(process, short_path, 3)
        assert max(old) in workers_of(process)


# The watchdog.

QUICK_WATCH = "import gateways.server.master as master\nmaster.WATCHDOG_SECONDS = 1.5\n"


def test_a_long_request_on_the_only_thread_is_logged(short_path: Path) -> None:
    with daemon(short_path, before=QUICK_WATCH, threads=1) as process:
        workers = wait_for_workers(process, short_path, 2)
        with Peer(str(short_path / "app.sock")) as peer:
            peer.get("/endless")
            logged(short_path, "has been in one request for ")
            log = log_of(short_path)
            stuck = [pid for pid in workers if f"worker {pid} has been in one request" in log]
            assert len(stuck) == 1
            os.kill(stuck[0], signal.SIGKILL)


def test_idle_workers_are_not_logged(short_path: Path) -> None:
    with daemon(short_path, before=QUICK_WATCH, threads=1) as process:
        wait_for_workers(process, short_path, 2)
        subprocess.run(["sleep", "4"], check=True)
    assert "in one request" not in log_of(short_path)
