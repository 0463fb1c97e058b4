"""Every wait has an end: heads, bodies, readers, and the stop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from gateways import events
from gateways.server import connection as connection_module
from gateways.server import worker as worker_module
from gateways.server.connection import Connection
from gateways.server.worker import Worker
from tests.server.live import PATIENCE, Peer, eventually, plain, post, request, running

Environ = dict[str, Any]
Start = Callable[..., Any]

THREADS = pytest.mark.parametrize("threads", [1, 8])


@THREADS
@pytest.mark.parametrize(
    "begun", [b"", b"\x01\x01\x00\x01\x00\x08", b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01"]
)
def test_a_head_that_does_not_come_to_its_end_is_cut_off(
    socket_path: Path, caplog: pytest.LogCaptureFixture, threads: int, begun: bytes
) -> None:
    with (
        running(plain, socket_path, threads=threads, head_timeout=0.2) as live,
        live.peer() as peer,
    ):
        peer.sock.sendall(begun)
        assert peer.sock.recv(100) == b""
        eventually(lambda: "head_timeout, 0.2 s" in caplog.text, "the log names the limit")


@THREADS
def test_a_head_sent_a_byte_at_a_time_is_cut_off_all_the_same(
    socket_path: Path, threads: int
) -> None:
    """The deadline is for the whole head: a byte now and then does not move it."""
    with (
        running(plain, socket_path, threads=threads, head_timeout=0.5) as live,
        live.peer() as peer,
    ):
        data = peer.bytes_of(request("/"), events.EndOfRequest(1))
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            for byte in data:
                peer.sock.sendall(bytes((byte,)))
                time.sleep(0.05)
            raise AssertionError("the whole head could be sent")
        assert time.monotonic() - began < PATIENCE


def test_heads_that_overlap_have_the_whole_time_each(socket_path: Path) -> None:
    """There is always one on its way, and each is complete in time."""
    with (
        running(plain, socket_path, threads=2, head_timeout=1000) as live,
        live.peer() as peer,
    ):
        ends = [_begin_head(peer, 1)]
        connection = live.connection()
        for number in range(1, 6):
            ends.append(_begin_head(peer, number + 1))
            pass_time(connection, 400)
            peer.sock.sendall(ends[number - 1])
            assert peer.answer(number) == f"/{number}".encode()


def test_a_head_that_begins_before_another_is_complete_is_cut_off_when_its_own_time_is_over(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        running(plain, socket_path, threads=2, head_timeout=1000) as live,
        live.peer() as peer,
    ):
        end = _begin_head(peer, 1)
        _begin_head(peer, 2)
        connection = live.connection()
        pass_time(connection, 900)
        peer.sock.sendall(end)
        assert peer.answer(1) == b"/1"
        pass_time(connection, 900)
        peer.get("/3", 3)
        assert peer.answer(3) == b"/3"
        eventually(lambda: not connection._active, "nothing runs any more")
        pass_time(connection, 200)
        ends = [each for each in peer.wait_closed() if isinstance(each, events.EndOfResponse)]
        assert ends == []
        assert "head_timeout, 1000 s" in caplog.text


def _begin_head(peer: Peer, request_id: int) -> bytes:
    """Send the head of a request but for its end; return that, and the end of the request."""
    head = peer.bytes_of(request(f"/{request_id}", request_id))
    peer.sock.sendall(head[:-8])  # the record that ends FCGI_PARAMS
    return head[-8:] + peer.bytes_of(events.EndOfRequest(request_id))


def pass_time(connection: Connection, seconds: float) -> None:
    """Have the head that is on its way be so much older, and the time looked at."""
    eventually(lambda: connection.codec.head_pending > 0, "a head is on its way")
    connection.deadline -= seconds
    connection.check(time.monotonic())


@THREADS
def test_a_kept_connection_may_be_idle_for_longer_than_a_head_may_take(
    socket_path: Path, threads: int
) -> None:
    """Closing first would race with the web server's reuse and cost requests."""
    with (
        running(plain, socket_path, threads=threads, head_timeout=0.2) as live,
        live.peer() as peer,
    ):
        peer.get("/1")
        assert peer.answer() == b"/1"
        time.sleep(2.5)  # two ticks of the timer and more: long enough to be noticed
        peer.get("/2")
        assert peer.answer() == b"/2"


@THREADS
@pytest.mark.parametrize("interval", [0.0, 0.05])
def test_a_body_that_comes_too_slowly_gives_the_application_an_error(
    socket_path: Path, caplog: pytest.LogCaptureFixture, threads: int, interval: float
) -> None:
    """Whether it stops altogether or comes a byte now and then: those do not move the deadline."""
    outcome: list[OSError] = []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            outcome.append(error)
            raise
        raise AssertionError("the body was complete")

    with (
        running(
            application, socket_path, threads=threads, stream_requests=True, rate_window=0.5
        ) as live,
        live.peer() as peer,
    ):
        peer.send(request("/", method="POST", length=1000), events.RequestBody(1, b"x"))
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while interval and not outcome and time.monotonic() < began + PATIENCE:
                peer.send(events.RequestBody(1, b"x"))
                time.sleep(interval)
        eventually(lambda: len(outcome) == 1, "the error")
        assert time.monotonic() - began < PATIENCE
        eventually(lambda: "min_rate" in caplog.text, "the log names the limit")
        eventually(lambda: live.connections() == 0, "the connection is closed")


@THREADS
def test_a_small_body_that_stops_arriving_holds_no_thread_and_ends(
    socket_path: Path, caplog: pytest.LogCaptureFixture, threads: int
) -> None:
    ran = []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        ran.append(environ["PATH_INFO"])
        return plain(environ, start_response)

    with (
        running(application, socket_path, threads=threads, rate_window=0.2) as live,
        live.peer() as slow,
        live.peer() as other,
    ):
        slow.send(request("/slow", method="POST", length=10), events.RequestBody(1, b"x"))
        other.get("/other")
        assert other.answer() == b"/other"
        heads = [each.status for each in slow.wait_closed() if isinstance(each, events.Response)]
        assert heads in ([], ["408 Request Timeout"])
        eventually(lambda: "min_rate" in caplog.text, "the log names the limit")
    assert ran == ["/other"]


@THREADS
def test_a_byte_that_comes_at_the_last_look_does_not_excuse_a_slow_body(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Who sends a byte often enough always has one there: what counts is what came in the window."""
    look, sending = Connection.pump, threading.Event()

    def pump(self: Connection, *, to_the_end: bool = False) -> list[Any]:
        if to_the_end and sending.is_set():
            peer.send(events.RequestBody(1, b"x"))
        return look(self, to_the_end=to_the_end)

    monkeypatch.setattr(Connection, "pump", pump)
    with (
        running(plain, socket_path, threads=threads, rate_window=0.2) as live,
        live.peer() as peer,
    ):
        peer.send(request("/", method="POST", length=1000), events.RequestBody(1, b"x"))
        sending.set()
        peer.read_until(lambda: peer.ended(1))
        heads = [each.status for each in peer.seen if isinstance(each, events.Response)]
        assert heads in ([], ["408 Request Timeout"])


@THREADS
def test_a_body_that_nobody_waits_for_is_no_fault_of_the_peer(
    socket_path: Path, threads: int
) -> None:
    """While the application does something else, the peer cannot send: that is not its slowness."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        time.sleep(1.5)  # several windows, and a tick of the timer
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(len(environ["wsgi.input"].read())).encode()]

    with (
        running(
            application, socket_path, threads=threads, stream_requests=True, rate_window=0.3
        ) as live,
        live.peer() as peer,
    ):
        sender = threading.Thread(target=peer.send, args=post("/", b"x" * 3_000_000))
        sender.start()
        assert peer.answer() == b"3000000"
        sender.join(PATIENCE)


@THREADS
def test_an_answer_may_take_longer_than_any_window_to_be_made(
    socket_path: Path, threads: int
) -> None:
    """What there is of it is taken at once: an event stream may last for ever."""

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(4):
            yield b"tick "
            time.sleep(0.5)

    with (
        running(application, socket_path, threads=threads, rate_window=0.1) as live,
        live.peer() as peer,
    ):
        peer.get()
        assert peer.answer() == b"tick " * 4


@THREADS
@pytest.mark.parametrize("taking", [False, True])
def test_a_reader_that_takes_too_little_is_cut_off(
    socket_path: Path, caplog: pytest.LogCaptureFixture, threads: int, taking: bool
) -> None:
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x" * 65536

        def close(self) -> None:
            closed.set()

    def application(environ: Environ, start_response: Start) -> Endless:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Endless()

    with (
        running(application, socket_path, threads=threads, rate_window=0.5) as live,
        live.peer() as peer,
    ):
        peer.get()
        began = time.monotonic()
        while not closed.wait(0.05) and time.monotonic() < began + PATIENCE:
            if taking:
                peer.sock.recv(10)
        assert closed.is_set()
        eventually(lambda: "min_rate" in caplog.text, "the log names the limit")
        eventually(lambda: live.connections() == 0, "the connection is closed")


# The stop.


@THREADS
def test_a_running_request_is_answered_before_the_server_stops(
    socket_path: Path, threads: int
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        inside.set()
        assert go_on.wait(PATIENCE)
        return plain(environ, start_response)

    with running(application, socket_path, threads=threads) as live, live.peer() as peer:
        peer.get("/last")
        assert inside.wait(PATIENCE)
        live.stop()
        if threads > 1:
            eventually(lambda: not socket_path.exists(), "the socket's path is gone")
            assert not live.wait_stopped(0.2)
        go_on.set()
        assert peer.answer() == b"/last"
        assert live.wait_stopped()


@THREADS
def test_an_idle_kept_connection_does_not_hold_up_the_stop(socket_path: Path, threads: int) -> None:
    with running(plain, socket_path, threads=threads) as live, live.peer() as peer:
        peer.get("/1")
        assert peer.answer() == b"/1"
        began = time.monotonic()
        live.stop()
        assert live.wait_stopped()
        assert time.monotonic() - began < 5
        assert peer.sock.recv(1) == b""


@THREADS
def test_connections_that_wait_to_be_accepted_are_answered_before_the_stop(
    socket_path: Path, threads: int
) -> None:
    inside, go_on = threading.Semaphore(0), threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        inside.release()
        assert go_on.wait(PATIENCE)
        return plain(environ, start_response)

    with running(application, socket_path, threads=threads) as live:
        peers = [live.peer() for _ in range(threads)]
        for peer in peers:
            peer.get("/running")
        for _ in peers:
            assert inside.acquire(timeout=PATIENCE)
        late = [live.peer() for _ in range(5)]  # every thread is busy: these wait in the kernel
        for peer in late:
            peer.get("/late")
        live.stop()
        go_on.set()
        assert [peer.answer() for peer in late] == [b"/late"] * 5
        assert live.wait_stopped()
        for peer in peers + late:
            peer.close()


@THREADS
def test_a_connection_that_waits_to_be_accepted_and_says_nothing_does_not_hold_up_the_stop(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(connection_module, "FIRST_WORD_SECONDS", 0.2)
    monkeypatch.setattr(worker_module, "TICK_SECONDS", 0.05)
    inside, go_on = threading.Semaphore(0), threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        inside.release()
        assert go_on.wait(PATIENCE)
        return plain(environ, start_response)

    with (
        running(application, socket_path, threads=threads, graceful_timeout=3600) as live,
        ExitStack() as stack,
    ):
        peers = [stack.enter_context(live.peer()) for _ in range(threads)]
        for peer in peers:
            peer.get("/running")
        for _ in peers:
            assert inside.acquire(timeout=PATIENCE)
        silent = stack.enter_context(live.peer())
        live.stop()
        go_on.set()
        assert silent.wait_closed() == []
        silent.close()
        assert live.wait_stopped()


@pytest.mark.parametrize("speaks", [True, False])
def test_a_connection_that_is_accepted_as_the_stop_begins_is_answered_or_closed(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    """One thread has taken it out of the kernel and not yet made it known; another begins to stop."""
    monkeypatch.setattr(connection_module, "FIRST_WORD_SECONDS", 0.2)
    monkeypatch.setattr(worker_module, "TICK_SECONDS", 0.05)
    looked, outcome = threading.Event(), []
    check_drained = Worker._check_drained

    def check(self: Worker, now: float) -> None:
        check_drained(self, now)
        looked.set()

    monkeypatch.setattr(Worker, "_check_drained", check)
    with running(plain, socket_path, threads=2, graceful_timeout=3600) as live:

        def stop() -> None:
            live.stop()
            assert looked.wait(PATIENCE)
            outcome.append(live.worker._stopped)

        lock: Any = LockOfAcceptors(live.worker._accept_lock)
        live.worker._accept_lock = lock
        monkeypatch.setattr(Worker, "_accept_one", lock.noted(Worker._accept_one))
        lock.then = stop
        with live.peer() as peer:
            if speaks:
                peer.get("/late")
                assert peer.answer() == b"/late"
            assert peer.wait_closed() == []
        assert live.wait_stopped()
        assert outcome == [False]  # while it was not yet known


def test_a_thread_that_comes_to_accept_after_the_stop_has_begun_finds_no_fault(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever stops the worker has answered the connection, and closed the listener."""
    accept, drain = Worker._accept, Worker._drain
    drained, left = threading.Event(), [1]

    def begin_to_stop(self: Worker) -> None:
        drain(self)
        drained.set()

    def come_late(self: Worker, *arguments: Any) -> bool:
        if left:
            left.pop()
            self.stop()
            assert drained.wait(PATIENCE)
        return accept(self, *arguments)

    monkeypatch.setattr(Worker, "_drain", begin_to_stop)
    monkeypatch.setattr(Worker, "_accept", come_late)
    with running(plain, socket_path, threads=2) as live:
        with live.peer() as peer:
            peer.get("/late")
            assert peer.answer() == b"/late"
        assert live.wait_stopped()
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []


class LockOfAcceptors:
    """A lock; a thread that has accepted a connection does `then`, once, when it lets go of it."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.then: Callable[[], None] | None = None
        self.accepted = False

    def noted(self, accept_one: Callable[..., Connection | None]) -> Callable[..., Any]:
        """Return `accept_one`, which notes that there was one to accept."""

        def noting(worker: Worker, listener: Any) -> Connection | None:
            connection = accept_one(worker, listener)
            self.accepted = connection is not None
            return connection

        return noting

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        then = self.then if self.accepted else None
        if then is not None:
            self.then = None
        self.lock.release()
        if then is not None:
            then()


@THREADS
def test_the_stop_has_an_end_even_if_an_application_has_none(
    socket_path: Path, threads: int
) -> None:
    inside = threading.Event()
    release = threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        inside.set()
        release.wait(PATIENCE if threads > 1 else 1.0)
        return plain(environ, start_response)

    with (
        running(application, socket_path, threads=threads, graceful_timeout=0.1) as live,
        live.peer() as peer,
    ):
        peer.get()
        assert inside.wait(PATIENCE)
        live.stop()
        assert live.wait_stopped()
        release.set()


@THREADS
def test_past_max_connections_the_idle_connection_used_longest_ago_is_closed(
    socket_path: Path, threads: int
) -> None:
    with running(plain, socket_path, threads=threads, max_connections=2) as live:
        first, second = live.peer(), live.peer()
        for peer in (second, first):
            peer.get("/in")
            assert peer.answer() == b"/in"
            time.sleep(0.05)  # an answer is read a moment before its connection counts as idle
        third = live.peer()
        third.get("/third")
        assert third.answer() == b"/third"
        assert second.wait_closed() == []
        first.get("/again")
        assert first.answer() == b"/again"
        for peer in (first, second, third):
            peer.close()


def test_a_body_split_over_many_small_records_arrives_in_time_linear_in_its_size(
    socket_path: Path,
) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        lines = list(environ["wsgi.input"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{len(lines)} {len(lines[0])}".encode()]

    with running(application, socket_path) as live, live.peer() as peer:
        size = 3_000_000
        peer.send(request("/", method="POST", length=size))
        sender = threading.Thread(target=_send_in_records_of, args=(peer.sock, size, 100))
        sender.start()
        assert peer.answer() == f"1 {size}".encode()
        sender.join(PATIENCE)


def _send_in_records_of(sock: socket.socket, size: int, each: int) -> None:
    from gateways import fastcgi

    record = fastcgi.Record(fastcgi.STDIN, 1, b"x" * each).encode()
    sock.sendall(record * (size // each) + fastcgi.Record(fastcgi.STDIN, 1).encode())


def test_post_without_a_body_has_an_empty_one(socket_path: Path) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ.get("CONTENT_LENGTH", "none").encode(), environ["wsgi.input"].read()]

    with running(application, socket_path) as live, live.peer() as peer:
        peer.send(*post("/", b""))
        assert peer.answer() == b"0"
