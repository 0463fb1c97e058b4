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

from tests.server.live import PATIENCE, Peer, eventually, plain, running
from tests.server.processes import NEW_PID, PID, ROOT, ask, daemon, log_of, write


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
def _on_descriptor_0(folder: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    write(folder, PID)
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
