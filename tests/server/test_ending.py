"""A server that ends, or loads its application anew, of its own accord: idle, touched, changed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import gateways
from gateways import events
from gateways.errors import ConfigurationError
from gateways.server.shares import Shares
from gateways.server.watching import Watch
from tests.server.live import PATIENCE, Peer, eventually, plain, request, running
from tests.server.processes import NEW_PID, PID, ROOT, ask, daemon, log_of, write

pytestmark = pytest.mark.load  # servers look once a second, and so each test waits


@pytest.mark.parametrize("threads", [1, 2])
def test_a_server_that_nobody_asks_ends(tmp_path: Path, threads: int) -> None:
    with running(plain, tmp_path / "s", threads=threads, idle_exit=0.05) as live:
        assert live.wait_stopped()
        assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_request_under_way_is_no_idleness(tmp_path: Path, threads: int) -> None:
    go_on = threading.Event()

    def slow(environ: dict[str, object], start_response: object) -> list[bytes]:
        assert go_on.wait(PATIENCE)
        return plain(environ, start_response)  # type: ignore[arg-type]  # it is what plain takes

    with running(slow, tmp_path / "s", threads=threads, idle_exit=0.05) as live:
        with live.peer() as peer:
            peer.get("/x", keep=False)
            assert not live.wait_stopped(0.3)
            go_on.set()
            assert peer.answer() == b"/x"
        assert live.wait_stopped()


def test_nobody_is_lost_between_the_last_request_and_the_idle_end(tmp_path: Path) -> None:
    """Whoever connects is answered, or refused by the kernel before it has said anything."""
    for _ in range(5):
        with running(plain, tmp_path / "s", threads=1, idle_exit=0.02) as live:
            answered = 0
            while True:
                try:
                    peer = live.peer()
                except (ConnectionRefusedError, FileNotFoundError):
                    break
                with peer:
                    peer.get("/x", keep=False)
                    assert peer.answer() == b"/x"
                answered += 1
                if answered % 5 == 0:
                    # Sooner or later that is just as long as it takes to be idle.
                    live.thread.join(0.02 + answered / 1000)
            assert live.wait_stopped()


def test_a_request_that_was_opened_before_the_end_is_waited_for(tmp_path: Path) -> None:
    """What the stub of warm CGI builds on: it opens a request, hears that we live, and sends the rest."""
    with running(plain, tmp_path / "s", threads=2) as live, live.peer() as peer:
        head = peer.bytes_of(request("/x", keep=False), events.EndOfRequest(1))
        get_values = b"\1\x09\0\0\0\x11\0\0\x0f\0FCGI_MPXS_CONNS"
        peer.sock.sendall(get_values + head[:16])
        assert peer.sock.recv(100)[1] == 10
        live.stop()
        eventually(lambda: not (tmp_path / "s").exists(), "it is about to end")
        assert not live.wait_stopped(0.3)
        peer.sock.sendall(head[16:])
        assert peer.answer() == b"/x"
        assert live.wait_stopped()


def test_all_workers_of_a_master_end_when_idle(tmp_path: Path) -> None:
    with daemon(tmp_path, idle_exit=0.2) as process:
        assert process.wait(PATIENCE) == 0
        assert "no request for 0.2 s" in log_of(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_touching_a_file_loads_the_application_anew(tmp_path: Path, workers: int) -> None:
    touched = tmp_path / "restart.txt"
    with daemon(tmp_path, PID, workers=workers, touch_reload=[str(touched)]):
        eventually(lambda: ask(tmp_path).isdigit(), "it serves")
        write(tmp_path, NEW_PID)
        assert ask(tmp_path).isdigit()  # nothing says that it should be read
        touched.touch()
        eventually(lambda: ask(tmp_path).startswith(b"new"), "the new one answers")


def test_a_changed_module_loads_the_application_anew_and_a_broken_one_changes_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "part.py").write_text("VALUE = 1\n")
    # The module's name is the test's own, so that nothing else can have imported it.
    source = PID.replace("import os, time", "import os, time, part") + "\nassert part.VALUE\n"
    with daemon(tmp_path, source, workers=1, reload_on_change=True) as process:
        eventually(lambda: ask(tmp_path).isdigit(), "it serves")
        first = ask(tmp_path)
        (tmp_path / "part.py").write_text("VALUE = 0  # broken\n")
        eventually(lambda: "the old workers go on" in log_of(tmp_path), "it was tried")
        assert ask(tmp_path) == first
        (tmp_path / "part.py").write_text("VALUE = 2  # mended again\n")
        eventually(lambda: ask(tmp_path) not in (first, b""), "the mended one answers")
        assert process.poll() is None


@contextmanager
def _on_descriptor_0(
    folder: Path, source: str = PID, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    write(folder, source)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "app.sock"))
        listening.listen(64)
        arguments = {"threads": 2, **options}
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import gateways; gateways.serve("
                f"{str(folder / 'pid_app.py')!r}, 'fcgi+fd:0', **{arguments!r})",
            ],
            stdin=listening.fileno(),
            cwd=ROOT,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stderr=subprocess.PIPE,
        )
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def test_a_single_process_on_descriptor_0_ends_when_a_file_is_touched(tmp_path: Path) -> None:
    touched = tmp_path / "restart.txt"
    with _on_descriptor_0(tmp_path, touch_reload=[str(touched)]) as process:
        assert ask(tmp_path) == str(process.pid).encode()
        touched.touch()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert f"{touched} has changed" in process.stderr.read().decode()


def test_the_same_file_uploaded_again_with_its_time_kept_is_a_touch(tmp_path: Path) -> None:
    touched = tmp_path / "restart.txt"
    touched.write_text("Upload this file again\n")
    times = touched.stat()
    with _on_descriptor_0(tmp_path, touch_reload=[str(touched)]) as process:
        assert ask(tmp_path) == str(process.pid).encode()
        touched.write_text("Upload this file again\n")
        os.utime(touched, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert process.wait(PATIENCE) == 0


TOUCHES_WHILE_LOADED = """
import pathlib, sys
print("LOADING", file=sys.stderr, flush=True)
restart = pathlib.Path({touched!r})
if not restart.exists():
    restart.touch()
"""


def test_a_touch_while_the_application_is_loaded_ends_the_process(tmp_path: Path) -> None:
    touched = tmp_path / "restart.txt"
    source = TOUCHES_WHILE_LOADED.format(touched=str(touched)) + PID
    with _on_descriptor_0(tmp_path, source, touch_reload=[str(touched)]) as process:
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("lazy", [False, True])
def test_a_touch_while_the_application_is_loaded_has_it_loaded_again(
    tmp_path: Path, lazy: bool
) -> None:
    touched = tmp_path / "restart.txt"
    source = TOUCHES_WHILE_LOADED.format(touched=str(touched)) + PID
    with daemon(tmp_path, source, workers=1, lazy=lazy, touch_reload=[str(touched)]):
        eventually(lambda: log_of(tmp_path).count("LOADING") == 2, "it is loaded again")


def test_one_change_is_one_reload_whoever_sees_it_and_when(tmp_path: Path) -> None:
    touched = tmp_path / "restart.txt"
    watches = [Watch([str(touched)], False) for _ in range(3)]
    shares = Shares(3)
    taken: list[bool] = []
    for _ in range(2):
        touched.write_text("x" * (len(taken) + 1))
        for index, watch in enumerate(watches):
            assert watch.changed() == str(touched)
            assert not watch.changed()
            shares.share(index).be_stale(watch.state)
            taken.append(shares.take_stale())
    assert taken == [True, False, False] * 2
    del watch, watches
    shares.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_stands_among_the_modules_ends_no_server(tmp_path: Path, workers: int) -> None:
    source = (
        """
import sys, types
class Lazy(types.ModuleType):
    def __getattr__(self, name):
        raise ImportError("it is not installed")
sys.modules["of_the_test_lazy"] = Lazy("of_the_test_lazy")
sys.modules["of_the_test_nul"] = types.ModuleType("of_the_test_nul")
sys.modules["of_the_test_nul"].__file__ = "a\\0b"
sys.modules["of_the_test_object"] = 17
"""
        + PID
    )
    _changes_are_still_seen(tmp_path, source, workers)


def test_a_look_for_changes_that_fails_ends_no_server(tmp_path: Path) -> None:
    source = (
        """
import os
stat, failures = os.stat, [1, 2]
def broken(*given, **more):
    if failures and str(given[0]).endswith("restart.txt"):
        raise RuntimeError("mocked %d" % failures.pop())
    return stat(*given, **more)
os.stat = broken
"""
        + PID
    )
    said = _changes_are_still_seen(tmp_path, source, 0)
    assert said.count("cannot see whether files have changed") == 1


def _changes_are_still_seen(folder: Path, source: str, workers: int) -> str:
    """Assert that the application is served, and loaded anew; return a single process's log."""
    touched = folder / "restart.txt"
    options: dict[str, Any] = {"touch_reload": [str(touched)], "reload_on_change": True}
    if workers:
        with daemon(folder, source, workers=workers, **options):
            eventually(lambda: ask(folder).isdigit(), "it serves")
            write(folder, source.replace("str(os.getpid())", "('new %d' % os.getpid())"))
            eventually(lambda: ask(folder).startswith(b"new"), "the new one answers")
            return ""
    with _on_descriptor_0(folder, source, **options) as process:
        assert ask(folder) == str(process.pid).encode()
        touched.touch()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        return process.stderr.read().decode()


def test_relative_paths_are_meant_from_where_the_server_was_started(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    source = f"import os\nos.chdir({str(tmp_path / 'elsewhere')!r})\n" + PID.replace(
        'environ["PATH_INFO"] == "/slow"', 'environ["PATH_INFO"] == "/fault" and 1 / 0'
    )
    options: dict[str, Any] = {
        "touch_reload": [os.path.relpath(tmp_path / "restart.txt", ROOT)],
        "crash_log": os.path.relpath(tmp_path / "crash.log", ROOT),
    }
    with _on_descriptor_0(tmp_path, source, **options) as process:
        assert ask(tmp_path) == str(process.pid).encode()
        ask(tmp_path, "/fault")
        assert "ZeroDivisionError" in (tmp_path / "crash.log").read_text()
        (tmp_path / "restart.txt").touch()
        assert process.wait(PATIENCE) == 0


def test_an_object_that_would_have_to_be_loaded_anew_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give its name instead"):
        gateways.serve(plain, str(tmp_path / "s"), reload_on_change=True)
    assert not (tmp_path / "s").exists()


STOPS_AS_A_REQUEST_COMES = """
import logging, pathlib, time
class Waits(logging.Handler):
    def emit(self, record):
        if "no request for" in record.getMessage():
            pathlib.Path({folder!r}, "deciding").touch()
            while not pathlib.Path({folder!r}, "sent").exists():
                time.sleep(0.01)
logging.getLogger("gateways").addHandler(Waits())
"""


@pytest.mark.parametrize(("workers", "threads"), [(1, 2), (2, 1), (2, 2)])
def test_the_request_that_comes_as_idleness_ends_the_server_has_all_its_time(
    tmp_path: Path, workers: int, threads: int
) -> None:
    before = STOPS_AS_A_REQUEST_COMES.format(folder=str(tmp_path))
    # Longer than the end waits in any case for threads, and for a main thread that is busy.
    source = PID.replace("time.sleep(0.5)", "time.sleep(2)")
    options: dict[str, Any] = {"idle_exit": 0.1, "graceful_timeout": 0.0}
    with daemon(
        tmp_path, source, before=before, workers=workers, threads=threads, **options
    ) as process:
        eventually((tmp_path / "deciding").exists, "it is about to end")
        with Peer(str(tmp_path / "app.sock")) as peer:
            peer.get("/slow", keep=False)
            (tmp_path / "sent").touch()
            assert peer.answer().isdigit()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_gives_an_idle_end_its_deadline(tmp_path: Path, workers: int) -> None:
    before = STOPS_AS_A_REQUEST_COMES.format(folder=str(tmp_path))
    options: dict[str, Any] = {"idle_exit": 0.1, "graceful_timeout": 0.1}
    with daemon(tmp_path, before=before, workers=workers, **options) as process:
        eventually((tmp_path / "deciding").exists, "it is about to end")
        with Peer(str(tmp_path / "app.sock")) as peer:
            peer.get("/endless", keep=False)
            (tmp_path / "sent").touch()
            eventually(lambda: not (tmp_path / "app.sock").exists() or workers > 1, "it ends")
            process.terminate()
            assert process.wait(PATIENCE) == 0


def test_the_request_that_runs_while_it_ends_is_answered_and_others_are_refused(
    tmp_path: Path,
) -> None:
    touched = tmp_path / "restart.txt"
    options: dict[str, Any] = {"touch_reload": [str(touched)], "exclusive": True}
    with _on_descriptor_0(tmp_path, **options) as process:
        pid = ask(tmp_path)
        with Peer(str(tmp_path / "app.sock")) as peer:
            refused = False
            while not refused:
                peer.get("/slow")
                touched.touch()
                assert peer.answer() == pid
                try:
                    Peer(str(tmp_path / "app.sock")).close()
                except ConnectionRefusedError:
                    refused = True
                if peer.closed:
                    break
        assert process.wait(PATIENCE) == 0


def test_who_shares_the_listening_socket_goes_on(tmp_path: Path) -> None:
    """Without the option exclusive, the end of one process shuts nobody out."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as shared:
        shared.bind(path)
        shared.listen(8)
        program = (
            "import gateways, tests.server.live as l;"
            " gateways.serve(l.plain, 'fcgi+fd:0', threads=1, idle_exit=0.05)"
        )
        subprocess.run(
            [sys.executable, "-c", program],
            stdin=shared.fileno(),
            cwd=ROOT,
            check=True,
            timeout=PATIENCE * 2,
        )
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(path)  # it waits for the next process that accepts
