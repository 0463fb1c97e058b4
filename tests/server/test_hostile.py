"""What a full disk, a stalled neighbour or a stranger on the machine may not do."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import events
from gateways.errors import ConfigurationError, RequestAborted
from gateways.server import body as bodies
from gateways.server import listeners
from gateways.server.options import Options
from gateways.server.spool import Spool
from tests.server.live import PATIENCE, Peer, eventually, plain, request, running
from tests.server.processes import ask, daemon, log_of, wait_for_workers, workers_of
from tests.server.test_listeners import _open

Environ = dict[str, Any]
Start = Callable[..., Any]


def _no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_the_misfortune_of_the_request_that_needed_it(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else notices, and the application does not see a body with a hole."""
    monkeypatch.setattr(os, "pwrite", _no_space)
    ran = []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        ran.append(environ["PATH_INFO"])
        return plain(environ, start_response)

    with running(application, socket_path) as live:
        with live.peer() as peer:
            peer.send(request("/waits", 2, method="POST", length=3))
            peer.send(request("/large", 1, method="POST", length=1_000_000))
            peer.send(events.RequestBody(1, b"x" * 1_000_000), events.EndOfRequest(1))
            peer.send(events.RequestBody(2, b"abc"), events.EndOfRequest(2))
            assert peer.answer(2) == b"/waits"
            peer.read_until(lambda: peer.ended(1))
            heads = [each.status for each in peer.seen if isinstance(each, events.Response)]
            assert heads == ["503 Service Unavailable"]
        assert ran == ["/waits"]
        eventually(lambda: live.connections() == 0, "the connection is closed")


def test_a_disk_that_fills_up_while_a_body_streams_breaks_the_body_off(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that could not be stored are never missing silently."""
    monkeypatch.setattr(os, "pwrite", _no_space)
    go_on = threading.Event()
    outcome: list[object] = []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/large":
            assert go_on.wait(PATIENCE)
            try:
                outcome.append(len(environ["wsgi.input"].read()))
            except OSError as error:
                outcome.append(type(error))
                raise
        return plain(environ, start_response)

    with running(application, socket_path, stream_requests=True) as live:
        with live.peer() as peer:
            peer.send(request("/waits", 2, method="POST", length=3))
            peer.send(request("/large", 1, method="POST", length=1_000_000))
            peer.send(events.RequestBody(1, b"x" * 1_000_000), events.EndOfRequest(1))
            peer.send(events.RequestBody(2, b"abc"), events.EndOfRequest(2))
            assert peer.answer(2) == b"/waits"
            go_on.set()
            peer.read_until(lambda: peer.ended(1))
        assert outcome == [RequestAborted]
        eventually(lambda: live.connections() == 0, "the connection is closed")


def test_a_full_disk_is_a_503_for_an_upload_of_unknown_length(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", _no_space)
    with running(plain, socket_path) as live:
        with live.peer() as peer:
            peer.send(request("/", method="POST"), events.RequestBody(1, b"x" * 200_000))
            peer.send(events.EndOfRequest(1))
            peer.read_until(lambda: peer.ended(1))
            heads = [each.status for each in peer.seen if isinstance(each, events.Response)]
            assert heads == ["503 Service Unavailable"]
        eventually(lambda: live.connections() == 0, "the connection is closed")


def test_a_stored_body_takes_no_more_disk_than_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SEGMENT", 1_000_000)
    spool = Spool(4_000_000)
    body = bodies.Body(spool, Options(), None)
    body.start()
    body.feed(b"x" * 300_000, spill=True)
    for _ in range(100):  # were nothing given back, five times the spool would not do
        body.feed(b"y" * 200_000, spill=True)
        taken = 0
        while taken < 200_000:
            taken += len(body.take() or b"")
    assert body.error is None
    assert spool.used > 0
    body.close()
    assert spool.used == 0


@pytest.mark.parametrize("begun", ["head", "body"])
def test_a_request_that_stalls_takes_no_answer_from_its_neighbours(
    socket_path: Path, begun: str
) -> None:
    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(12):
            time.sleep(0.25)
            yield b"piece "

    options = {"head_timeout": 0.3, "rate_window": 0.3}
    with running(application, socket_path, **options) as live, live.peer() as peer:  # type: ignore[arg-type]  # options by name
        peer.get("/", 1)
        stalled = peer.bytes_of(request("/", 2, method="POST", length=10))
        peer.sock.sendall(stalled[:30] if begun == "head" else stalled)
        assert peer.answer(1) == b"piece " * 12


def test_waiting_for_bodies_leaves_no_descriptors_behind(socket_path: Path) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(environ["wsgi.input"].read()))
        reader.start()
        reader.join(PATIENCE)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return found

    with running(application, socket_path, stream_requests=True) as live:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            with live.peer() as peer:
                peer.send(request("/", method="POST", length=2), events.RequestBody(1, b"a"))
                peer.send(events.RequestBody(1, b"b"), events.EndOfRequest(1))
                assert peer.answer() == b"ab"
        eventually(lambda: live.connections() == 0, "all connections are closed")
        assert len(os.listdir("/proc/self/fd")) < before + 20


def test_whoever_locks_the_folder_holds_up_neither_the_start_nor_the_stop(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody who can read a folder can lock it."""
    monkeypatch.setattr(listeners, "LOCK_SECONDS", 0.1)
    with running(plain, socket_path) as live:
        stranger = os.open(socket_path.parent, os.O_RDONLY)
        fcntl.flock(stranger, fcntl.LOCK_EX)
        try:
            with pytest.raises(ConfigurationError, match="another process holds the lock"):
                _open(str(socket_path.with_name("other.sock")))
            live.stop()
            assert live.wait_stopped()
        finally:
            os.close(stranger)


def test_nobody_can_connect_to_a_server_that_is_stopping(socket_path: Path) -> None:
    """A connection that is taken and never answered would keep the web server from going elsewhere."""
    inside, go_on = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        inside.set()
        assert go_on.wait(PATIENCE)
        return plain(environ, start_response)

    with running(application, socket_path) as live, live.peer() as peer:
        peer.get("/last")
        assert inside.wait(PATIENCE)
        second_name = socket_path.with_name("same.sock")
        os.link(socket_path, second_name)  # the path that is gone at once is not what refuses
        live.stop()
        eventually(lambda: _is_refused(str(second_name)), "connections are refused")
        go_on.set()
        assert peer.answer() == b"/last"


def _is_refused(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        return False


def test_a_worker_killed_by_a_signal_without_a_name_is_replaced(short_path: Path) -> None:
    with daemon(short_path) as process:
        first = wait_for_workers(process, short_path, 2)
        os.kill(min(first), 40)
        eventually(lambda: len(workers_of(process) - {min(first)}) == 2, "another worker")
        assert "was killed by signal 40" in log_of(short_path)
        assert ask(short_path) != b""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_application_that_never_comes_back_does_not_outlive_the_second_signal(
    short_path: Path, workers: int
) -> None:
    """With one thread nobody but the signal itself, or the master, can end it."""
    stuck = "import time\ndef application(environ, start_response):\n    while True:\n        time.sleep(60)\n"
    with daemon(short_path, stuck, workers=workers, threads=1) as process:
        eventually(lambda: "serving" in log_of(short_path), "the start")
        with Peer(str(short_path / "app.sock")) as peer:
            peer.get("/", 1)
            time.sleep(0.3)  # the request is under way
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)  # two signals at once would be one
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
