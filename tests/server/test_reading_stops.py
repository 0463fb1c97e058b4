"""Reading stops where a body, or what the peer does not read, waits; whoever makes room reads on.

While it stops the peer cannot be blamed for what does not come, and no wake-up may be lost.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import events, fastcgi
from gateways.server import body as body_module
from gateways.server import worker as worker_module
from gateways.server.connection import MAX_OWED, Connection
from tests.server.live import PATIENCE, Live, Peer, eventually, plain, post, request, running

Environ = dict[str, Any]
Start = Callable[..., Any]

THREADS = pytest.mark.parametrize("threads", [1, 2])


def make_bodies_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have 16 KiB of a body fill what there is for one, and one read bring no more."""
    monkeypatch.setattr(worker_module, "BODY_SIZE", 16384)
    monkeypatch.setattr(body_module, "HIGH_WATER", 10_000)


# The next request.


class Begun:
    """An application that reads the beginning of /first's body, once all of it has been sent.

    It answers /stream with a stream that is larger than what the kernel holds for a connection.
    """

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.sent = threading.Event()

    def __call__(self, environ: Environ, start_response: Start) -> list[bytes] | Iterator[bytes]:
        answer = plain(environ, start_response)
        if environ["PATH_INFO"] == "/stream":
            return iter([b"x" * 65536] * 50)
        if environ["PATH_INFO"] == "/first":
            self.inside.set()
            assert self.sent.wait(PATIENCE)
            assert environ["wsgi.input"].read(1) == b"x"
        return answer

    def be_asked(self, live: Live, peer: Peer, behind: bytes = b"") -> None:
        """Send /first, with so much of a body that reading stops, and what comes behind it."""
        peer.send(request("/first", method="POST", length=100_000))
        assert self.inside.wait(PATIENCE)
        body = peer.bytes_of(events.RequestBody(1, b"x" * 100_000), events.EndOfRequest(1))
        peer.sock.sendall(body + behind)
        if live.worker.options.threads > 1:  # otherwise nobody reads before the application does
            eventually(lambda: live.connection()._paused, "reading stops")
        self.sent.set()


@THREADS
def test_what_lies_behind_a_body_that_filled_up_is_read_when_its_request_has_ended(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """No event tells of it any more: it was there before."""
    make_bodies_small(monkeypatch)
    application = Begun()
    options: dict[str, Any] = {"threads": threads, "stream_requests": True}
    with running(application, socket_path, **options) as live, live.peer() as peer:
        behind = peer.bytes_of(request("/second", 2), events.EndOfRequest(2))
        application.be_asked(live, peer, behind)
        assert peer.answer(1) == b"/first"
        assert peer.answer(2) == b"/second"


def test_after_a_body_that_filled_up_the_next_answer_does_not_stop_reading(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer sends before it reads: who waits for it with the answer has to read meanwhile."""
    make_bodies_small(monkeypatch)
    application = Begun()
    with (
        running(application, socket_path, threads=1, stream_requests=True) as live,
        live.peer() as peer,
    ):
        application.be_asked(live, peer)
        assert peer.answer() == b"/first"
        # To be ignored, since no request has this id; and more than the kernel holds.
        junk = fastcgi.Record(fastcgi.STDIN, 9, b"x" * 32768).encode() * 100
        peer.get("/stream")
        assert peer.sock.recv(1, socket.MSG_PEEK)  # the answer is under way
        peer.sock.sendall(junk)
        assert len(peer.answer()) == 50 * 65536


def test_room_that_is_made_while_reading_is_about_to_stop_is_not_overlooked(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread has found the body full and the other takes it before the first has said so."""
    make_bodies_small(monkeypatch)
    must_wait, made_room = Connection._must_wait, Connection.made_room
    found_full, taken, second = threading.Event(), threading.Event(), threading.Event()
    inside = threading.Event()

    def find(self: Connection) -> bool:
        full = must_wait(self)
        if full and not found_full.is_set():
            found_full.set()
            assert taken.wait(PATIENCE)
        return full

    def take(self: Connection) -> None:
        if self._paused:
            taken.set()  # from here on it may wait for the thread that has found the body full
        made_room(self)
        taken.set()

    monkeypatch.setattr(Connection, "_must_wait", find)
    monkeypatch.setattr(Connection, "made_room", take)

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/second":
            second.set()
        else:
            inside.set()
            assert found_full.wait(PATIENCE)
            assert environ["wsgi.input"].read(1) == b"x"  # which takes all that there is
            assert second.wait(PATIENCE)
        return plain(environ, start_response)

    with (
        running(application, socket_path, threads=2, stream_requests=True) as live,
        live.peer() as peer,
    ):
        one_read = 16384 - 8
        peer.send(request("/first", 1, method="POST", length=one_read))
        assert inside.wait(PATIENCE)
        # In one piece, so that no event comes after the first read.
        peer.send(
            events.RequestBody(1, b"x" * one_read),
            events.EndOfRequest(1),
            request("/second", 2),
            events.EndOfRequest(2),
        )
        assert peer.answer(2) == b"/second"
        assert peer.answer(1) == b"/first"


def _is_full(connection: Connection) -> bool:
    return any(each.body.full for each in list(connection._exchanges.values()))


# What the peer does not read.


def test_what_is_owed_is_sent_while_the_only_thread_waits_for_a_body(socket_path: Path) -> None:
    """Nothing is read until the peer has read what it asked for; only the application is there to
    send it."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["wsgi.input"].read()]

    names = [(fastcgi.FCGI_MAX_CONNS.encode(), b"")]
    question = fastcgi.Record(fastcgi.GET_VALUES, content=fastcgi.encode_pairs(names)).encode()
    with (
        running(application, socket_path, threads=1, stream_requests=True) as live,
        live.peer() as peer,
    ):
        data = peer.bytes_of(request("/", method="POST", length=6)) + question * 30_000
        data += peer.bytes_of(events.RequestBody(1, b"abcdef"), events.EndOfRequest(1))
        sender = threading.Thread(target=peer.sock.sendall, args=(data,), daemon=True)
        sender.start()
        eventually(lambda: live.connection()._paused, "reading stops")
        assert peer.answer() == b"abcdef"
        sender.join(PATIENCE)


def _large(environ: Environ, start_response: Start) -> list[bytes]:
    answer = plain(environ, start_response)
    return [b"x" * 900_000] if environ["PATH_INFO"] == "/large" else answer


def test_a_head_that_cannot_be_read_for_an_unread_answer_is_not_late(socket_path: Path) -> None:
    """Its rest has long been there; and the time that it has begins anew."""
    options: dict[str, Any] = {"head_timeout": 1000, "rate_window": 86400}
    with running(_large, socket_path, threads=2, **options) as live, live.peer() as peer:
        large = peer.bytes_of(request("/large", 1), events.EndOfRequest(1))
        second = peer.bytes_of(request("/second", 2), events.EndOfRequest(2))
        peer.sock.sendall(large + second[:30])
        connection = live.connection()
        eventually(lambda: _is_left_to_the_loop(connection), "the rest waits for the peer")
        peer.sock.sendall(second[30:])
        eventually(lambda: connection._paused, "reading stops")
        connection.check(time.monotonic() + 1001)
        assert connection.deadline > time.monotonic() + 1001
        assert peer.answer(1) == b"x" * 900_000
        assert peer.answer(2) == b"/second"


def _is_left_to_the_loop(connection: Connection) -> bool:
    return connection._is_tail and not connection._active


def test_a_head_that_cannot_be_read_for_a_full_body_is_not_late(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bodies_small(monkeypatch)
    go_on = threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/first":
            assert go_on.wait(PATIENCE)
            assert len(environ["wsgi.input"].read()) == 12_000
        return plain(environ, start_response)

    options: dict[str, Any] = {"stream_requests": True, "head_timeout": 1000}
    with running(application, socket_path, threads=2, **options) as live, live.peer() as peer:
        peer.send(request("/first", 1, method="POST", length=12_000))
        connection = live.connection()
        eventually(lambda: bool(connection._active), "the application runs")
        second = peer.bytes_of(request("/second", 2), events.EndOfRequest(2))
        body = peer.bytes_of(events.RequestBody(1, b"x" * 12_000))
        begin = 16  # FCGI_BEGIN_REQUEST, after which another request's record may come
        peer.sock.sendall(second[:begin] + body)
        eventually(lambda: _is_full(connection), "the body is full")
        peer.sock.sendall(second[begin:])
        peer.send(events.EndOfRequest(1))
        eventually(lambda: connection._paused, "reading stops")
        connection.check(time.monotonic() + 1001)
        go_on.set()
        assert peer.answer(1) == b"/first"
        assert peer.answer(2) == b"/second"


def test_a_body_that_cannot_be_read_for_an_unread_answer_is_not_slow(socket_path: Path) -> None:
    """It has long been there; the reader is slow, but not too slow."""
    options: dict[str, Any] = {"min_rate": 1, "rate_window": 1000}
    with running(_large, socket_path, threads=2, **options) as live, live.peer() as peer:
        large = peer.bytes_of(request("/large", 1), events.EndOfRequest(1))
        head, *rest = post("/second", b"abcdef", 2)
        peer.sock.sendall(large + peer.bytes_of(head))
        connection = live.connection()
        eventually(lambda: _is_left_to_the_loop(connection), "the rest waits for the peer")
        peer.send(*rest)
        eventually(lambda: connection._paused, "reading stops")
        read = 0
        while read < 150_000:
            data = peer.sock.recv(65536)
            read += len(data)
            peer.seen += peer.codec.receive_data(data)
        connection.check(time.monotonic() + 1001)
        backlog = connection._backlog
        assert backlog is not None
        assert backlog.waiting > MAX_OWED
        assert peer.answer(1) == b"x" * 900_000
        assert peer.answer(2) == b"/second"
