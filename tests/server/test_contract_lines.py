"""The lines of the worker's contract that depend on who does what when, each at its critical point.

Where two threads have to meet, a method is wrapped: at that point the wrapper does the other
thread's step, or waits until another thread has done it.  tests.server.test_planted_faults shows
that each of these tests fails where its line is not kept.
"""

from __future__ import annotations

import gc
import itertools
import os
import select
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateways import events, fastcgi, scgi
from gateways.server import worker as worker_module
from gateways.server.backlog import Backlog
from gateways.server.body import Body
from gateways.server.connection import Connection
from gateways.server.exchange import Exchange
from gateways.server.seats import Seat
from gateways.server.sending import Sending
from gateways.server.shares import Shares
from gateways.server.worker import Worker
from tests.server.live import (
    PATIENCE,
    Live,
    Peer,
    eventually,
    plain,
    post,
    raw,
    request,
    running,
    scgi_get,
)

Environ = dict[str, Any]
Start = Callable[..., Any]

IN_AND_RDHUP = select.EPOLLIN | select.EPOLLRDHUP


class Gate:
    """An application whose `/gate` waits until the gate is opened; others are answered at once."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/gate":
            self.inside.release()
            assert self.opened.wait(PATIENCE)
        elif environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(len(body)).encode()]
        return plain(environ, start_response)

    @contextmanager
    def held(self, live: Live, threads: int = 1) -> Iterator[list[Peer]]:
        """Keep that many threads inside the application until the block ends."""
        peers = [live.peer() for _ in range(threads)]
        try:
            for peer in peers:
                peer.get("/gate")
                assert self.inside.acquire(timeout=PATIENCE)
            yield peers
        finally:
            self.opened.set()
        for peer in peers:
            assert peer.answer() == b"/gate"
            peer.close()


def greet(live: Live, peer: Peer) -> None:
    """Make the connection one that is kept and idle, with no job of it under way."""
    peer.get("/greeting")
    assert peer.answer() == b"/greeting"
    eventually(lambda: _is_idle(live.worker), "all threads are at the epoll")


def _is_idle(worker: Worker) -> bool:
    return not worker._ready and all(seat.connection is None for seat in worker._seats)


# Reading.


def test_a_read_that_filled_its_buffer_is_repeated(socket_path: Path) -> None:
    """All of it is there before the only thread looks, and is reported by one edge."""
    gate = Gate()
    with running(gate, socket_path, threads=1) as live, live.peer() as peer:
        greet(live, peer)
        with gate.held(live):
            peer.send(*post("/", b"x" * 100_000))
        assert peer.answer() == b"100000"


def test_a_read_that_filled_the_buffer_for_bodies_is_repeated(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BODY_SIZE", 16384)
    gate = Gate()
    with running(gate, socket_path, threads=1) as live, live.peer() as peer:
        peer.send(request("/", method="POST", length=100_000))
        eventually(lambda: bool(live.connection()._exchanges), "the head has been read")
        with gate.held(live):
            peer.send(events.RequestBody(1, b"x" * 100_000), events.EndOfRequest(1))
        assert peer.answer() == b"100000"


def test_data_and_the_hang_up_behind_it_in_one_edge(socket_path: Path) -> None:
    gate = Gate()
    with running(gate, socket_path, threads=1) as live, live.peer() as peer:
        greet(live, peer)
        with gate.held(live):
            peer.get("/last")
            peer.sock.shutdown(socket.SHUT_WR)
        assert peer.answer() == b"/last"
        peer.wait_closed()


def test_a_hang_up_that_comes_while_another_thread_reads(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that holds the read lock reads on for the one that saw the event."""
    with running(plain, socket_path, threads=2) as live, live.peer() as peer:
        greet(live, peer)
        connection = live.connection()

        def hang_up() -> None:
            peer.get("/last")
            peer.sock.shutdown(socket.SHUT_WR)
            eventually(lambda: connection._pending, "the other thread has seen it")

        _once_after(monkeypatch, "_read", hang_up)
        live.worker.submit(connection.pump())
        assert peer.answer() == b"/last"
        peer.wait_closed()


def _once_after(
    monkeypatch: pytest.MonkeyPatch, name: str, what: Callable[[], None], *, before: bool = False
) -> None:
    """Do `what` when a method of Connection returns, or is called, for the first time."""
    original = getattr(Connection, name)
    left = [what]

    def wrapper(self: Connection, *arguments: Any, **named: Any) -> Any:
        if before and left:
            left.pop()()
        result = original(self, *arguments, **named)
        if left:
            left.pop()()
        return result

    monkeypatch.setattr(Connection, name, wrapper)


def test_bytes_that_come_before_the_read_lock_is_let_go_are_read(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(plain, socket_path, threads=2) as live, live.peer() as peer:
        greet(live, peer)
        connection = live.connection()

        def arrive() -> None:
            peer.get("/late")
            eventually(lambda: connection._pending, "another thread was told of it")

        _once_after(monkeypatch, "_read", arrive)
        live.worker.submit(connection.pump())
        assert peer.answer() == b"/late"


def test_bytes_that_come_before_the_first_request_is_handed_out_are_read(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where one whole request was read in the short way."""
    with running(plain, socket_path, threads=2) as live, live.peer() as peer:
        greet(live, peer)
        connection = live.connection()

        def arrive() -> None:
            peer.get("/late", 2)
            eventually(lambda: connection._pending, "another thread was told of it")

        _once_after(monkeypatch, "_read_request", arrive)
        peer.get("/early", 1)
        assert peer.answer(1) == b"/early"
        assert peer.answer(2) == b"/late"


def test_bytes_that_come_while_the_close_is_considered_are_read(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks whether the connection is over holds the read lock as well."""
    with running(plain, socket_path, threads=2) as live, live.peer() as peer:
        greet(live, peer)
        connection = live.connection()

        def arrive() -> None:
            peer.get("/late")
            eventually(lambda: connection._pending, "another thread was told of it")

        _once_after(monkeypatch, "_end_if_over", arrive)
        # The late event of an earlier connection with this number: only a look at the socket tells.
        connection.serve(IN_AND_RDHUP)
        assert peer.answer() == b"/late"


def test_requests_are_read_while_an_application_runs_for_the_same_connection(
    socket_path: Path,
) -> None:
    gate = Gate()
    with running(gate, socket_path, threads=2) as live, live.peer() as peer:
        peer.get("/gate", 1)
        assert gate.inside.acquire(timeout=PATIENCE)
        peer.get("/meanwhile", 2)
        assert peer.answer(2) == b"/meanwhile"
        gate.opened.set()
        assert peer.answer(1) == b"/gate"


def test_who_makes_room_reads_again(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a body that has filled its memory lies another request."""
    monkeypatch.setattr(worker_module, "BODY_SIZE", 65536)
    inside, paused, second = threading.Event(), threading.Event(), threading.Event()
    outcome: list[bool] = []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/second":
            second.set()
        else:
            inside.set()
            assert paused.wait(PATIENCE)
            environ["wsgi.input"].read(262144)  # less than is there: this does not wait
            outcome.append(second.wait(PATIENCE))
        return plain(environ, start_response)

    with (
        running(application, socket_path, threads=2, stream_requests=True) as live,
        live.peer() as peer,
    ):
        body = events.RequestBody(1, b"x" * 400_000)
        peer.send(request("/first", 1, method="POST", length=400_001))
        assert inside.wait(PATIENCE)
        data = peer.bytes_of(body)
        data += peer.bytes_of(request("/second", 2), events.EndOfRequest(2))
        sender = threading.Thread(target=peer.sock.sendall, args=(data,), daemon=True)
        sender.start()
        eventually(lambda: live.connection()._paused, "reading stops")
        paused.set()
        assert peer.answer(2) == b"/second"
        sender.join(PATIENCE)
        peer.read_until(lambda: peer.ended(1))
        assert outcome == [True]


@pytest.mark.parametrize("threads", [1, 2])
def test_who_waits_for_a_body_waits_on_the_socket(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Every thread waits for a body, and nobody is left at the epoll."""
    waiting: list[Connection] = []
    wait_readable = Connection._wait_readable

    def note(self: Connection, *arguments: Any) -> None:
        waiting.append(self)
        wait_readable(self, *arguments)

    monkeypatch.setattr(Connection, "_wait_readable", note)
    with (
        running(Gate(), socket_path, threads=threads, stream_requests=True) as live,
        ExitStack() as stack,
    ):
        peers = [stack.enter_context(live.peer()) for _ in range(threads)]
        for peer in peers:
            peer.send(request("/", method="POST", length=6))
        eventually(lambda: len(set(waiting)) == threads, "all of them wait")
        for size, peer in enumerate(peers, 1):
            peer.send(events.RequestBody(1, b"x" * size))
        for size, peer in enumerate(peers, 1):
            peer.send(events.RequestBody(1, b"x" * (6 - size)), events.EndOfRequest(1))
            assert peer.answer() == b"6"


def test_who_waits_for_a_body_hears_of_it_from_who_read_it(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing left on the descriptor when the thread begins to wait."""
    gate = Gate()
    with (
        running(gate, socket_path, threads=2, stream_requests=True) as live,
        live.peer() as peer,
    ):
        greet(live, peer)
        connection = live.connection()

        def arrive() -> None:
            peer.send(events.RequestBody(1, b"abcdef"), events.EndOfRequest(1))
            live.worker.submit(connection.pump())
            (exchange,) = connection._exchanges.values()
            eventually(lambda: exchange.body.ended, "somebody has read it")

        _once_after(monkeypatch, "_wait_readable", arrive, before=True)
        peer.send(request("/", method="POST", length=6))
        assert peer.answer() == b"6"


def test_bodies_that_share_a_connection_wait_in_files(socket_path: Path) -> None:
    gate = Gate()
    with (
        running(gate, socket_path, threads=2, stream_requests=True) as live,
        live.peer() as peer,
    ):
        peer.send(request("/other", 2, method="POST", length=3))
        peer.send(request("/gate", 1, method="POST", length=3_000_000))
        assert gate.inside.acquire(timeout=PATIENCE)
        peer.send(events.RequestBody(1, b"x" * 3_000_000), events.EndOfRequest(1))
        eventually(lambda: live.worker.spool.used > 2_500_000, "the body is on the disk")
        peer.send(events.RequestBody(2, b"abc"), events.EndOfRequest(2))
        assert peer.answer(2) == b"3"
        gate.opened.set()
        assert peer.answer(1) == b"/gate"
        eventually(lambda: live.worker.spool.used == 0, "and gone when the request is over")


# What two threads do at the same moment.


def test_an_answer_may_end_while_another_thread_looks_for_bodies(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    ended: list[Callable[[], None]] = []

    def look(self: Body) -> bool:
        if ended and threading.current_thread() is threading.main_thread():
            ended.pop()()
        return bool(self.__dict__["ended"])

    def note(self: Body, value: bool) -> None:
        self.__dict__["ended"] = value

    with (
        running(gate, socket_path, threads=2, stream_requests=True) as live,
        live.peer() as peer,
    ):
        peer.send(request("/gate", 1, method="POST", length=6))
        assert gate.inside.acquire(timeout=PATIENCE)
        peer.send(request("/other", 2, method="POST", length=6))
        connection = live.connection()
        eventually(lambda: len(connection._active) == 2, "both run")
        monkeypatch.setattr(Body, "ended", property(look, note), raising=False)

        def end() -> None:
            gate.opened.set()
            eventually(lambda: 1 not in connection._exchanges, "the first is answered")

        ended.append(end)
        live.worker.submit(connection.pump())
        assert not ended
        peer.send(events.RequestBody(2, b"abcdef"), events.EndOfRequest(2))
        assert peer.answer(1) == b"/gate"
        assert peer.answer(2) == b"6"
    assert "internal error" not in caplog.text


def test_a_reset_that_is_read_while_the_last_bytes_leave_closes_the_connection(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that sends takes back that the connection is special; the other says that it is."""
    hooks: list[Callable[[], None]] = []
    is_special = Connection._is_special

    def compute(self: Connection) -> bool:
        result = is_special(self)
        if hooks and not result:
            hooks.pop()()
        return result

    monkeypatch.setattr(Connection, "_is_special", compute)
    with running(_large, socket_path, threads=2) as live, live.peer() as peer:
        peer.get("/large")
        connection = live.connection()
        eventually(lambda: connection._is_tail, "the rest waits for the peer")
        eventually(lambda: _is_idle(live.worker), "all threads are at the epoll")

        def reset() -> None:
            # What a thread that reads does, which needs no more than the read lock for it.
            connection._has_nothing(ConnectionResetError())

        hooks.append(reset)
        assert peer.answer() == b"x" * 900_000
        eventually(lambda: not hooks, "both have met")
        eventually(lambda: live.connections() == 0, "the connection is closed")


def test_a_request_that_comes_while_its_connection_is_considered_for_eviction_is_answered(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(plain, socket_path, threads=2) as live, live.peer() as peer:
        greet(live, peer)
        connection = live.connection()

        def arrive() -> None:
            peer.get("/late")
            eventually(lambda: connection._pending, "another thread was told of it")

        _once_after(monkeypatch, "is_idle", arrive, before=True)
        assert not connection.evict()
        assert peer.answer() == b"/late"


def test_a_request_under_the_id_of_a_late_one_is_not_refused_in_its_place(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer aborts the one whose body is late, and begins another, as the timer looks."""
    with running(plain, socket_path, threads=2) as live, live.peer() as peer:
        peer.send(request("/late", method="POST", length=100))
        connection = live.connection()
        eventually(lambda: bool(connection._exchanges), "it has been read")
        eventually(lambda: _is_idle(live.worker), "all threads are at the epoll")

        def begin_anew() -> None:
            peer.send(events.RequestAborted(1))
            peer.read_until(lambda: peer.ended(1))
            peer.seen.clear()
            peer.send(request("/new", method="POST", length=3))

        monkeypatch.setattr(Exchange, "is_too_slow", lambda self, now: True)
        _once_after(monkeypatch, "pump", begin_anew, before=True)
        connection._check_bodies(time.monotonic())
        peer.send(events.RequestBody(1, b"abc"), events.EndOfRequest(1))
        assert peer.answer() == b"/new"


def test_values_that_are_not_read_from_the_first_moment_on(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A new connection may have to be registered for its output before it is for its input."""
    flush = Backlog.flush
    full = [True]
    monkeypatch.setattr(
        Backlog, "flush", lambda self, sock: bool(full and full.pop()) or flush(self, sock)
    )
    gate = Gate()
    with running(gate, socket_path, threads=1) as live, gate.held(live), live.peer() as peer:
        peer.codec.get_values()
        peer.sock.sendall(peer.codec.data_to_send())
        peer.get("/behind")
        gate.opened.set()
        assert peer.answer() == b"/behind"
        assert len(peer.codec.values) == 3
    assert full == []
    assert "internal error" not in caplog.text


def test_who_was_refused_for_want_of_room_is_served_when_there_is_room(socket_path: Path) -> None:
    gate = Gate()
    with running(gate, socket_path, threads=4, max_connections=1) as live, live.peer() as busy:
        busy.get("/gate")
        assert gate.inside.acquire(timeout=PATIENCE)
        with live.peer() as peer:
            peer.get("/refused")
            peer.wait_closed()  # so that the web server opens another, which may find room
            statuses = [each.status for each in peer.seen if isinstance(each, events.Response)]
            assert statuses == ["503 Service Unavailable"]
        gate.opened.set()
        assert busy.answer() == b"/gate"
        busy.close()
        eventually(lambda: live.connections() == 0, "all have gone")
        with live.peer() as peer:
            greet(live, peer)


# Registering.


class Epoll:
    """An epoll where something may happen just before and just after a connection is registered."""

    def __init__(self, real: select.epoll) -> None:
        self.real = real
        self.before: Callable[[int], None] = lambda descriptor: None
        self.after: Callable[[int], None] = lambda descriptor: None

    def register(self, descriptor: int, mask: int) -> None:
        if mask != worker_module.WATCHED:
            self.real.register(descriptor, mask)
            return
        before, self.before = self.before, lambda descriptor: None
        after, self.after = self.after, lambda descriptor: None
        before(descriptor)
        self.real.register(descriptor, mask)
        after(descriptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("first", ["whole", "half"])
def test_an_edge_before_the_connection_can_be_found_is_not_lost(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    lost = threading.Event()
    on_other = Worker._on_other

    def note(self: Worker, descriptor: int, seat: Seat) -> None:
        on_other(self, descriptor, seat)
        if descriptor in expected:
            lost.set()

    monkeypatch.setattr(Worker, "_on_other", note)
    expected: list[int] = []
    begun = threading.Event()
    with running(plain, socket_path, threads=2) as live:
        epoll: Any = Epoll(live.worker._epoll)
        live.worker._epoll = epoll

        def arrive(descriptor: int) -> None:
            assert begun.wait(PATIENCE)
            expected.append(descriptor)
            peer.sock.sendall((one + two)[cut:])
            assert lost.wait(PATIENCE)

        epoll.after = arrive
        with live.peer() as peer:
            one = peer.bytes_of(request("/1", 1), events.EndOfRequest(1))
            two = peer.bytes_of(request("/2", 2), events.EndOfRequest(2))
            cut = len(one) if first == "whole" else 20
            peer.sock.sendall(one[:cut])
            begun.set()
            assert peer.answer(1) == b"/1"
            assert peer.answer(2) == b"/2"


def test_nobody_finds_a_connection_before_it_is_registered(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A late event of an earlier connection with its number would have it closed half-way."""
    peers: list[Peer] = []
    closed = threading.Event()
    with running(plain, socket_path, threads=2) as live:

        def late(descriptor: int) -> None:
            eventually(lambda: bool(peers), "the peer is there")
            peers[0].close()
            found = live.worker._connections.get(descriptor)
            if found is not None:
                found.serve(IN_AND_RDHUP)
            closed.set()

        epoll: Any = Epoll(live.worker._epoll)
        epoll.before = late
        live.worker._epoll = epoll
        peers.append(live.peer())
        assert closed.wait(PATIENCE)
        eventually(lambda: live.connections() == 0, "the connection is closed")
        with live.peer() as other:
            greet(live, other)
    assert "internal error" not in caplog.text


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_only_connections_that_stay_are_registered(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """One that brings a whole request and does not stay is read, answered and closed."""
    registered: list[Connection] = []
    register = Worker.register

    def note(self: Worker, connection: Connection) -> None:
        registered.append(connection)
        register(self, connection)

    monkeypatch.setattr(Worker, "register", note)
    codec = fastcgi.ClientConnection() if protocol == "fcgi" else scgi.ClientConnection()
    number = 1 if protocol == "fcgi" else 0
    codec.send(request("/", number, length=0, keep=False))
    codec.send(events.EndOfRequest(number))
    whole = codec.data_to_send()
    gate = Gate()
    with running(gate, socket_path, threads=1, protocol=protocol) as live, ExitStack() as stack:
        codec = fastcgi.ClientConnection() if protocol == "fcgi" else scgi.ClientConnection()
        codec.send(request("/gate", number, length=0, keep=False))
        codec.send(events.EndOfRequest(number))
        holder = threading.Thread(target=raw, args=(live.path, codec.data_to_send()))
        holder.start()
        assert gate.inside.acquire(timeout=PATIENCE)
        before = len(registered)  # the first may have been accepted before it had said anything
        socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(5)]
        for sock in socks:
            sock.settimeout(PATIENCE)
            sock.connect(live.path)
            sock.sendall(whole)
        gate.opened.set()
        for sock in socks:
            assert sock.recv(1000)
        assert len(registered) == before
        holder.join(PATIENCE)


def test_a_kept_connection_is_registered_once(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Connection] = []
    register = Worker.register

    def note(self: Worker, connection: Connection) -> None:
        registered.append(connection)
        register(self, connection)

    monkeypatch.setattr(Worker, "register", note)
    with running(plain, socket_path, threads=2) as live, live.peer() as peer:
        greet(live, peer)
        greet(live, peer)
        assert len(registered) == 1


# Closing.


def test_nothing_is_done_on_a_number_that_belongs_to_another_connection(
    socket_path: Path,
) -> None:
    with running(plain, socket_path, threads=2) as live:
        with live.peer() as peer:
            greet(live, peer)
            first = live.connection()
        eventually(lambda: live.connections() == 0, "the first is closed")
        with live.peer() as peer:
            greet(live, peer)
            second = live.connection()
            assert second.descriptor == first.descriptor
            first.deadline = 1.0
            first.check(time.monotonic())  # the timer was about to look at it
            first.give_up()
            peer.get("/second")
            assert peer.answer() == b"/second"


def test_a_connection_is_closed_under_both_its_locks(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So neither a read nor the timer's shutdown can meet a number that is somebody else's."""
    free: list[tuple[bool, bool]] = []
    close = Connection._close

    def note(self: Connection) -> None:
        # The locks are held where no other thread gets them.
        free.append((self._lock.acquire(False), self._read_lock.acquire(False)))
        close(self)

    monkeypatch.setattr(Connection, "_close", note)
    with running(plain, socket_path, threads=2) as live:
        with live.peer() as peer:
            greet(live, peer)
        eventually(lambda: live.connections() == 0, "the connection is closed")
        assert free == [(False, False)]


# Answers.


def test_writing_is_watched_only_while_a_tail_waits(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[bool] = []
    watch_output = Worker.watch_output

    def note(self: Worker, connection: Any, wanted: bool) -> None:
        watch_output(self, connection, wanted)
        watched.append(wanted)

    monkeypatch.setattr(Worker, "watch_output", note)
    with running(_large, socket_path, threads=2) as live, live.peer() as peer:
        peer.get("/small")
        assert peer.answer() == b"/small"
        assert watched == []
        peer.get("/large")
        eventually(lambda: watched == [True], "the loop waits for room")
        assert peer.answer() == b"x" * 900_000
        eventually(lambda: watched == [True, False], "and no longer than it has to")


def _large(environ: Environ, start_response: Start) -> list[bytes]:
    answer = plain(environ, start_response)
    return [b"x" * 900_000] if environ["PATH_INFO"] == "/large" else answer


def test_a_finished_answer_that_is_not_read_holds_no_thread(socket_path: Path) -> None:
    with (
        running(_large, socket_path, threads=1) as live,
        live.peer() as slow,
        live.peer() as other,
    ):
        slow.get("/large")
        assert slow.sock.recv(1, socket.MSG_PEEK)  # its answer is under way
        other.get("/other")
        assert other.answer() == b"/other"
        assert slow.answer() == b"x" * 900_000


def test_a_reader_that_takes_the_rest_as_it_is_chosen_to_be_cut_goes_on(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no room for the second answer; the reader of the first makes some just then."""
    pace = Sending.pace
    waiting: list[Peer] = []
    read: list[bytes] = []
    options: dict[str, Any] = {"answer_memory": 1_048_576, "spool_size": 0}

    def read_all(self: Sending, now: float) -> float:
        found = pace(self, now)
        if waiting and self is first:
            read.append(waiting.pop().answer())
            eventually(lambda: self._backlog is None, "the loop has sent everything")
        return found

    monkeypatch.setattr(Sending, "pace", read_all)
    with (
        running(_large, socket_path, threads=2, **options) as live,
        live.peer() as peer,
        live.peer() as other,
    ):
        peer.get("/large")
        (first,) = _tails(live, 1)
        waiting.append(peer)
        other.get("/large")
        eventually(lambda: bool(read), "the first is chosen")
        assert read == [b"x" * 900_000]
        assert other.answer() == b"x" * 900_000
        greet(live, peer)  # it is kept
    assert "cut" not in caplog.text


def test_who_has_read_for_a_while_is_slower_than_who_has_just_come(
    socket_path: Path,
) -> None:
    """There is no room for the second answer; the first reader has had its time."""
    options: dict[str, Any] = {"answer_memory": 1_048_576, "spool_size": 0}
    with (
        running(_large, socket_path, threads=2, **options) as live,
        live.peer() as slow,
        live.peer() as fast,
    ):
        slow.get("/large")
        (first,) = _tails(live, 1)
        slow.read_until(lambda: len(slow.seen) > 3)
        # What the kernel takes counts for both, so that a newcomer is fast unless the server's thread
        # is kept waiting just then: the first has to be slow by far.
        eventually(lambda: first.pace(time.monotonic()) < 400_000, "the first has had its time")
        fast.get("/large")
        eventually(lambda: first.is_cut, "room is made")
        assert fast.answer() == b"x" * 900_000
        assert not any(isinstance(each, events.EndOfResponse) for each in slow.wait_closed())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_leaves_its_events_to_the_others(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something raised what no thread survives; it was the one that takes all requests."""
    serve = Connection.serve
    raised: list[str] = []

    def end_the_thread(self: Connection, mask: int) -> None:
        if not raised:
            raised.append(threading.current_thread().name)
            raise SystemExit
        serve(self, mask)

    with running(plain, socket_path, threads=3) as live:
        with live.peer() as peer:
            greet(live, peer)
            monkeypatch.setattr(Connection, "serve", end_the_thread)
            peer.get("/lost")
            eventually(lambda: bool(raised), "a thread ends")
        with live.peer() as other:
            greet(live, other)


def test_a_stopping_worker_looks_at_its_connections_ten_times_a_second_at_most(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[float] = []
    tick = Worker._tick

    def count(self: Worker, now: float) -> None:
        if self.draining:
            ticks.append(now)
        tick(self, now)

    monkeypatch.setattr(Worker, "_tick", count)
    with running(Gate(), socket_path, threads=3) as live, live.peer() as peer:
        peer.send(request("/", method="POST", length=1000))
        live.stop()
        eventually(lambda: live.worker.draining, "the worker is stopping")
        for _ in range(60):
            peer.send(events.RequestBody(1, b"x"))
            time.sleep(0.005)
        gaps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
        assert min(gaps) >= 0.09


def _tails(live: Live, count: int) -> list[Connection]:
    """Return the connections on which finished answers wait, once there are so many."""

    def found() -> list[Connection]:
        return [each for each in list(live.worker._connections.values()) if each._is_tail]

    eventually(lambda: len(found()) == count, f"{count} answers wait")
    return found()


@pytest.mark.parametrize("size", [0, 1, 7000])
@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_a_short_answer_leaves_in_one_write(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, protocol: str
) -> None:
    written: list[int] = []
    write, flush = os.write, Backlog.flush

    def note(descriptor: int, data: Any) -> int:
        # A write of one zero byte calls the main thread.
        if threading.current_thread().name.startswith("gateways-") and data != b"\0":
            written.append(len(data))
        return write(descriptor, data)

    def note_flush(self: Backlog, sock: socket.socket) -> bool:
        written.append(self.waiting)
        return flush(self, sock)

    monkeypatch.setattr(os, "write", note)
    monkeypatch.setattr(Backlog, "flush", note_flush)

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x" * size]

    with running(application, socket_path, threads=2, protocol=protocol) as live:
        if protocol == "scgi":
            answer = scgi_get(live.path)
        else:
            with live.peer() as peer:
                answer = raw(live.path, peer.bytes_of(request(keep=False), events.EndOfRequest(1)))
        assert written == [len(answer)]


def test_an_answer_waits_for_the_rest_of_another_ones_record(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes half of a record; then another thread has something to send."""
    inside, halfway, done = threading.Event(), threading.Event(), threading.Event()
    write = os.write

    def half(descriptor: int, data: Any) -> int:
        if b"/first" not in bytes(data[:200]) or halfway.is_set():
            return write(descriptor, data)
        count = write(descriptor, data[: len(data) // 2])
        halfway.set()
        done.wait(0.3)  # whoever keeps the contract is not done before this returns
        return count

    monkeypatch.setattr(os, "write", half)

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        plain(environ, start_response)
        if environ["PATH_INFO"] == "/first":
            assert inside.wait(PATIENCE)
            yield b"/first" * 100
        else:
            inside.set()
            assert halfway.wait(PATIENCE)
            yield b"/second" * 100
            done.set()

    with running(application, socket_path, threads=2) as live, live.peer() as peer:
        peer.get("/first", 1)
        peer.get("/second", 2)
        assert peer.answer(2) == b"/second" * 100
        assert peer.answer(1) == b"/first" * 100


def test_a_file_is_sent_by_the_kernel(
    socket_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 10_000)
    sent: list[int] = []
    sendfile = os.sendfile

    def note(out: int, source: int, offset: int, count: int) -> int:
        sent.append(sendfile(out, source, offset, count))
        return sent[-1]

    monkeypatch.setattr(os, "sendfile", note)

    def application(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

    with running(application, socket_path, threads=2) as live, live.peer() as peer:
        for _ in range(2):
            peer.get()
            assert peer.answer() == bytes(range(256)) * 10_000
        assert sum(sent) == 2 * 2_560_000


@pytest.mark.parametrize("threads", [1, 2])
def test_a_file_that_becomes_shorter_does_not_pass_for_a_whole_one(
    socket_path: Path, tmp_path: Path, threads: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    os.truncate(path, 8_000_000)

    def application(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with running(application, socket_path, threads=threads) as live, live.peer() as peer:
        peer.get()
        assert peer.sock.recv(1, socket.MSG_PEEK)
        os.truncate(path, 0)
        ends = [each for each in peer.wait_closed() if isinstance(each, events.EndOfResponse)]
        assert ends == []


def test_an_empty_file_is_an_empty_answer(socket_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    def application(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

    with running(application, socket_path, threads=2) as live, live.peer() as peer:
        peer.get()
        assert peer.answer() == b""
        greet_again = b"still there"
        peer.get("/2")
        assert peer.answer() == b"", greet_again


def test_values_are_told_to_who_asks(socket_path: Path) -> None:
    with (
        running(plain, socket_path, threads=2, max_connections=77) as live,
        live.peer() as peer,
    ):
        peer.codec.get_values()
        peer.sock.sendall(peer.codec.data_to_send())
        peer.read_until(lambda: len(peer.codec.values) == 3)
        assert peer.codec.values[fastcgi.FCGI_MPXS_CONNS] == "1"


# The main thread.


def test_a_late_head_is_noticed_while_every_thread_sleeps(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "TICK_SECONDS", 0.05)
    with (
        running(plain, socket_path, threads=2, head_timeout=0.2) as live,
        live.peer() as peer,
    ):
        peer.sock.sendall(b"\x01\x01\x00\x01")
        peer.wait_closed()


def test_that_all_threads_are_busy_is_logged_once_with_what_they_do(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "TICK_SECONDS", 0.05)
    gate = Gate()
    ticks: list[float] = []
    tick = Worker._tick

    def note(self: Worker, now: float) -> None:
        tick(self, now)
        ticks.append(now)

    monkeypatch.setattr(Worker, "_tick", note)
    with running(gate, socket_path, threads=2) as live, gate.held(live, 2):
        eventually(lambda: "threads are busy" in caplog.text, "it is logged")
        before = len(ticks)
        eventually(lambda: len(ticks) > before + 4, "it goes on for some time")
        lines = [each.getMessage() for each in caplog.records if "busy" in each.getMessage()]
        assert len(lines) == 1
        assert lines[0].startswith("all 2 threads are busy")
        assert lines[0].count("GET /gate") == 2


def test_who_has_more_than_its_share_leaves_connections_to_others_and_closes_none(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "YIELD_SECONDS", 600.0)
    shares = Shares(2)
    other = shares.share(1)
    other.join(time.monotonic())
    other.connections = 9
    with running(plain, socket_path, threads=2, share=shares.share(0)) as live:
        peers = [live.peer() for _ in range(3)]
        for peer in peers:
            greet(live, peer)
        other.connections = 0
        peers.append(live.peer())
        peers[3].get("/left to others")
        eventually(lambda: live.worker._yielded, "it accepts no more")
        for peer in peers[:3]:
            greet(live, peer)
        assert live.connections() == 3
        other.connections = 9
        other.call_others()
        assert peers[3].answer() == b"/left to others"
        for peer in peers:
            peer.close()


def test_a_draining_worker_answers_what_arrives_and_then_closes(socket_path: Path) -> None:
    gate = Gate()
    with running(gate, socket_path, threads=2) as live, live.peer() as peer:
        peer.get("/gate", 1)
        assert gate.inside.acquire(timeout=PATIENCE)
        live.stop()
        eventually(lambda: live.worker.draining, "it is told to stop")
        peer.get("/late", 2)
        assert peer.answer(2) == b"/late"
        gate.opened.set()
        assert peer.answer(1) == b"/gate"
        assert live.wait_stopped(PATIENCE)
        assert peer.sock.recv(1) == b""


# Memory.


@pytest.mark.parametrize("keep", [False, True])
def test_requests_leave_nothing_to_the_garbage_collector(socket_path: Path, keep: bool) -> None:
    """Circles would be freed late, in bulk, and in the middle of somebody's request."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        environ["wsgi.input"].read()
        print("a line", end="", file=environ["wsgi.errors"])
        return plain(environ, start_response)

    with running(application, socket_path, threads=2) as live, live.peer() as peer:
        greet(live, peer)
        with live.peer() as other:
            whole = other.bytes_of(*post("/", b"x" * 10, keep=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what earlier tests have left is theirs
            gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                if keep:
                    peer.send(*post("/", b"x" * 10))
                    assert peer.answer() == b"/"
                else:
                    assert raw(live.path, whole)
            assert gc.collect() < 100
        finally:
            gc.enable()
