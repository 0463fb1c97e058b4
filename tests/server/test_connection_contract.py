"""Each line of the connection contract (gateways.server.connection), over real sockets."""

from __future__ import annotations

import gzip
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import events, fastcgi
from tests.server.live import (
    PATIENCE,
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

THREADS = pytest.mark.parametrize("threads", [1, 2, 8])


def echo_length(environ: Environ, start_response: Start) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(body)).encode()]


# Reading.


@THREADS
@pytest.mark.parametrize("size", [65536 - 400, 65536, 65537, 2 * 65536, 3 * 65536 + 1])
def test_a_request_of_any_size_around_the_receive_size_is_read_whole(
    socket_path: Path, threads: int, size: int
) -> None:
    """A recv that filled its buffer is repeated: an edge comes only once."""
    with running(echo_length, socket_path, threads=threads) as live, live.peer() as peer:
        for cut in (0, 1):
            data = peer.bytes_of(*post("/", b"x" * (size - cut)))
            peer.sock.sendall(data)
            assert peer.answer() == str(size - cut).encode()


@THREADS
def test_a_request_and_the_end_of_file_may_come_in_one_edge(
    socket_path: Path, threads: int
) -> None:
    """A peer that shuts its side down after the request still gets the answer."""
    with running(echo_length, socket_path, threads=threads) as live:
        for size in (0, 10, 65536, 200_000):
            with live.peer() as peer:
                peer.send(*post("/", b"x" * size, keep=False))
                peer.sock.shutdown(socket.SHUT_WR)
                assert peer.answer() == str(size).encode()
        eventually(lambda: live.connections() == 0, "the connections are closed")


def test_requests_sent_together_on_one_connection_run_at_the_same_time(socket_path: Path) -> None:
    """Complete requests beyond the first from one read go to free threads."""
    together = threading.Barrier(4)

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        together.wait(PATIENCE)
        return plain(environ, start_response)

    with running(application, socket_path, threads=4) as live, live.peer() as peer:
        data = b"".join(
            peer.bytes_of(request(f"/{number}", number), events.EndOfRequest(number))
            for number in (1, 2, 3, 4)
        )
        peer.sock.sendall(data)
        assert [peer.answer(number) for number in (1, 2, 3, 4)] == [b"/1", b"/2", b"/3", b"/4"]


@THREADS
def test_requests_one_after_another_under_the_same_id_are_all_answered(
    socket_path: Path, threads: int
) -> None:
    """The peer may open an id anew before this side has cleaned up after the last request."""
    with running(plain, socket_path, threads=threads) as live, live.peer() as peer:
        for number in range(2000):
            peer.get(f"/{number}")
            assert peer.answer() == f"/{number}".encode()


@THREADS
def test_a_thread_that_waits_for_a_body_reads_the_socket_itself(
    socket_path: Path, threads: int
) -> None:
    """Every thread is inside an application, so nobody is left at the epoll."""
    inside = threading.Semaphore(0)

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        inside.release()
        return echo_length(environ, start_response)

    with running(application, socket_path, threads=threads, stream_requests=True) as live:
        peers = [live.peer() for _ in range(threads)]
        for peer in peers:
            peer.send(request("/", method="POST", length=6))
        for _ in peers:
            assert inside.acquire(timeout=PATIENCE)
        for peer in peers:
            peer.send(events.RequestBody(1, b"abc"))
        for peer in peers:
            peer.send(events.RequestBody(1, b"def"), events.EndOfRequest(1))
            assert peer.answer() == b"6"
            peer.close()


def test_threads_that_wait_for_bodies_on_one_connection_read_for_each_other(
    socket_path: Path,
) -> None:
    inside = threading.Semaphore(0)

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        inside.release()
        return echo_length(environ, start_response)

    with (
        running(application, socket_path, threads=3, stream_requests=True) as live,
        live.peer() as peer,
    ):
        for number in (1, 2, 3):
            peer.send(request("/", number, method="POST", length=number * 1000))
        for _ in range(3):
            assert inside.acquire(timeout=PATIENCE)
        for number in (3, 1, 2):
            peer.send(events.RequestBody(number, b"x" * 1000 * number), events.EndOfRequest(number))
        assert [peer.answer(number) for number in (2, 3, 1)] == [b"2000", b"3000", b"1000"]


def _send_without_waiting(sock: socket.socket, data: bytes, limit: int) -> int:
    """Send until the peer takes no more for half a second, or `limit` bytes have gone."""
    sock.settimeout(0.5)
    sent = 0
    try:
        while sent < limit:
            sent += sock.send(data)
    except TimeoutError:
        pass
    sock.settimeout(PATIENCE)
    return sent


@THREADS
def test_a_body_that_nobody_reads_stops_being_received(socket_path: Path, threads: int) -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        assert go_on.wait(PATIENCE)
        return echo_length(environ, start_response)

    size = 64 * 1024 * 1024
    options: dict[str, Any] = {"threads": threads, "stream_requests": True}
    with running(application, socket_path, **options) as live, live.peer() as peer:
        record = fastcgi.Record(fastcgi.STDIN, 1, b"x" * 32768).encode()
        peer.send(request("/", method="POST", length=size))
        taken = _send_without_waiting(peer.sock, record, size)
        assert taken < 4 * 1024 * 1024
        go_on.set()
        rest = size // 32768 * len(record) - taken
        stream = memoryview(record * (rest // len(record) + 2))
        start = taken % len(record)
        peer.sock.sendall(stream[start : start + rest])
        peer.sock.sendall(fastcgi.Record(fastcgi.STDIN, 1).encode())
        peer.read_until(lambda: peer.ended(1))
        bodies = [each.data for each in peer.seen if isinstance(each, events.ResponseBody)]
        assert b"".join(bodies) == str(size).encode()


def test_a_body_that_nobody_reads_does_not_hold_up_other_requests_of_its_connection(
    socket_path: Path,
) -> None:
    """FastCGI has no flow control per request: what is too much for memory waits in a file."""
    go_on = threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            assert go_on.wait(PATIENCE)
            return echo_length(environ, start_response)
        return plain(environ, start_response)

    with running(application, socket_path, threads=4) as live, live.peer() as peer:
        size = 10_000_000
        peer.send(request("/other", 2, method="POST", length=3))
        peer.send(request("/slow", 1, method="POST", length=size))
        peer.send(events.RequestBody(1, b"x" * size), events.EndOfRequest(1))
        peer.get("/quick", 3)
        assert peer.answer(3) == b"/quick"
        peer.send(events.RequestBody(2, b"abc"), events.EndOfRequest(2))
        assert peer.answer(2) == b"/other"
        go_on.set()
        assert peer.answer(1) == str(size).encode()


# Aborts and peers that leave.


@THREADS
def test_an_abort_wakes_the_application_that_reads_the_body(
    socket_path: Path, threads: int
) -> None:
    """FCGI_ABORT_REQUEST is seen while the application runs; the connection goes on."""
    inside, outcome = threading.Event(), []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/next":
            return plain(environ, start_response)
        inside.set()
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            outcome.append(str(error))
            raise
        raise AssertionError("the body was complete")

    with (
        running(application, socket_path, threads=threads, stream_requests=True) as live,
        live.peer() as peer,
    ):
        peer.send(request("/", method="POST", length=1000), events.RequestBody(1, b"x" * 10))
        assert inside.wait(PATIENCE)
        peer.send(events.RequestAborted(1))
        peer.read_until(lambda: peer.ended(1))
        assert outcome == ["the web server aborted the request"]
        peer.seen.clear()
        peer.get("/next", 1)
        assert peer.answer() == b"/next"


@THREADS
def test_an_abort_of_a_body_that_is_being_collected_ends_the_request(
    socket_path: Path, threads: int
) -> None:
    """FastCGI 5.4: an aborted request is ended, also before its application has started."""
    with running(plain, socket_path, threads=threads) as live, live.peer() as peer:
        peer.send(request("/", method="POST"), events.RequestBody(1, b"x" * 100_000))
        peer.send(events.RequestAborted(1))
        peer.read_until(lambda: peer.ended(1))
        peer.seen.clear()
        peer.get("/next", 1)
        assert peer.answer() == b"/next"


@THREADS
def test_a_peer_that_vanishes_in_an_upload_wakes_the_application(
    socket_path: Path, threads: int
) -> None:
    inside, outcome = threading.Event(), []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        inside.set()
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            outcome.append(error)
            raise
        raise AssertionError("the body was complete")

    with running(application, socket_path, threads=threads, stream_requests=True) as live:
        with live.peer() as peer:
            peer.send(request("/", method="POST", length=1000), events.RequestBody(1, b"x" * 10))
            assert inside.wait(PATIENCE)
        eventually(lambda: bool(outcome), "the application gets an error from wsgi.input")
        eventually(lambda: live.connections() == 0, "the connection is closed")


@THREADS
def test_a_peer_that_stops_reading_and_leaves_ends_the_application(
    socket_path: Path, threads: int
) -> None:
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x" * 10000

        def close(self) -> None:
            closed.set()

    def application(environ: Environ, start_response: Start) -> Endless:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Endless()

    with running(application, socket_path, threads=threads) as live:
        with live.peer() as peer:
            peer.get()
            assert peer.sock.recv(1000)
        assert closed.wait(PATIENCE)
        eventually(lambda: live.connections() == 0, "the connection is closed")


# Writing.


@THREADS
def test_an_answer_that_nobody_reads_stops_being_produced(socket_path: Path, threads: int) -> None:
    produced = 0

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        nonlocal produced
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(1000):
            produced += 1
            yield b"x" * 65536

    with running(application, socket_path, threads=threads) as live, live.peer() as peer:
        peer.get()
        eventually(lambda: produced > 0, "the answer begins")
        before = -1
        while before != produced:  # until it produces no more
            before = produced
            threading.Event().wait(0.3)
        assert produced < 50
        assert len(peer.answer()) == 1000 * 65536


def test_answers_on_one_connection_never_mix_within_a_record(socket_path: Path) -> None:
    """The write lock keeps the bytes of each send together; the client end checks every record."""

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for size in range(1, 300):
            yield environ["PATH_INFO"][-1:].encode() * size * 50

    expected = sum(size * 50 for size in range(1, 300))
    with running(application, socket_path, threads=8) as live, live.peer() as peer:
        for number in range(1, 9):
            peer.get(f"/{number}", number)
        for number in range(1, 9):
            assert peer.answer(number) == str(number).encode() * expected


def _gzipped(folder: Path) -> Any:
    with gzip.open(folder / "file.gz", "wb") as file:
        file.write(b"what was compressed " * 1000)
    return gzip.open(folder / "file.gz")


def _of_the_system(folder: Path) -> Any:
    return open("/proc/self/cmdline", "rb")


def _from_the_middle(folder: Path) -> Any:
    file = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115 (whoever sends it closes it)
    file.write(b"not this, but this")
    file.seek(10)
    return file


@THREADS
@pytest.mark.parametrize("opened", [_gzipped, _of_the_system, _from_the_middle])
def test_a_wrapped_file_is_sent_as_reading_it_would_give_it(
    socket_path: Path, tmp_path: Path, threads: int, opened: Callable[[Path], Any]
) -> None:
    """It may have a descriptor whose bytes, or whose size, are others."""
    with opened(tmp_path) as file:
        expected = file.read()
    assert expected

    def application(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](opened(tmp_path))

    with running(application, socket_path, threads=threads) as live, live.peer() as peer:
        for _ in range(2):
            peer.get()
            peer.read_until(lambda: peer.ended(1))
            (head,) = [each for each in peer.seen if isinstance(each, events.Response)]
            length = dict(head.headers).get("Content-Length", str(len(expected)))
            assert length == str(len(expected))
            assert peer.answer() == expected


@THREADS
def test_values_are_told_while_an_application_runs(socket_path: Path, threads: int) -> None:
    """Bytes that the protocol owes go out although a request is being answered."""
    inside, go_on = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"begun"
        inside.set()
        while not go_on.wait(0.01):
            yield b"."

    with running(application, socket_path, threads=threads) as live, live.peer() as peer:
        peer.get()
        assert inside.wait(PATIENCE)
        peer.codec.get_values()
        peer.sock.sendall(peer.codec.data_to_send())
        if threads == 1:
            go_on.set()  # the only thread is in the application: it answers afterwards
        peer.read_until(lambda: len(peer.codec.values) == 3)
        go_on.set()
        assert peer.codec.values["FCGI_MPXS_CONNS"] == ("0" if threads == 1 else "1")
        assert peer.answer().startswith(b"begun")


@THREADS
def test_a_peer_that_asks_and_never_reads_is_not_read_any_more(
    socket_path: Path, threads: int
) -> None:
    question = fastcgi.Record(
        fastcgi.GET_VALUES, content=fastcgi.encode_pairs([(b"FCGI_MAX_CONNS", b"")])
    ).encode()
    with running(plain, socket_path, threads=threads) as live, live.peer() as peer:
        sent = _send_without_waiting(peer.sock, question * 1000, 64 * 1024 * 1024)
        assert sent < 4 * 1024 * 1024
        with live.peer() as other:
            other.get("/alive")
            assert other.answer() == b"/alive"
        # Once it reads, everything it asked is answered.
        remainder = len(question) - sent % len(question)
        reader = threading.Thread(target=peer.read_until, args=(lambda: peer.ended(1),))
        reader.start()
        peer.sock.sendall((question * 2)[len(question) - remainder : len(question)])
        peer.sock.sendall(Peer.bytes_of(peer, request("/", 1), events.EndOfRequest(1)))
        reader.join(PATIENCE)
        assert peer.answer() == b"/"


# Closing.


def test_an_answer_given_before_the_body_has_arrived_reaches_the_peer(socket_path: Path) -> None:
    """Closing over unread bytes would reset the connection and lose the answer."""
    for protocol in ("fcgi", "scgi"):
        path = socket_path.with_suffix(f".{protocol}")
        with running(plain, path, protocol=protocol, stream_requests=True) as live:
            if protocol == "scgi":
                head = b"CONTENT_LENGTH\x0050000000\x00SCGI\x001\x00REQUEST_METHOD\x00POST\x00PATH_INFO\x00/early\x00"
                answer = _talk_slowly(str(path), b"%d:%s," % (len(head), head))
            else:
                codec = fastcgi.ClientConnection()
                codec.send(request("/early", method="POST", length=50_000_000, keep=False))
                answer = _talk_slowly(str(path), codec.data_to_send())
            assert b"/early" in answer
            eventually(lambda live=live: live.connections() == 0, "the connection is closed")  # type: ignore[misc]  # bound now, as ruff asks


def _talk_slowly(path: str, head: bytes) -> bytes:
    """Send a head and 100 KiB of body, read the answer, go on sending, then look at what came."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        piece = fastcgi.Record(fastcgi.STDIN, 1, b"x" * 32768).encode()
        sock.sendall(head + piece * 3)
        answer = sock.recv(65536)
        sock.sendall(piece * 3)
        while data := sock.recv(65536):
            answer += data
        return answer


@THREADS
@pytest.mark.parametrize("before", [0, 1, 2])
def test_an_answer_that_breaks_off_ends_with_a_reset(
    socket_path: Path, threads: int, before: int
) -> None:
    """nginx takes a clean end of file for the end of the answer, on a kept connection as well."""

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        yield from plain(environ, start_response)
        if environ["PATH_INFO"] == "/half":
            raise ValueError("planted")

    with running(application, socket_path, tcp=True, threads=threads) as live, live.peer() as peer:
        for _ in range(before):
            peer.get("/whole")
            assert peer.answer() == b"/whole"
        peer.get("/half")
        assert _ends_with_a_reset(peer.sock)


def _ends_with_a_reset(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


@THREADS
def test_nothing_is_left_behind_after_many_connections(socket_path: Path, threads: int) -> None:
    with running(plain, socket_path, threads=threads) as live:
        with live.peer() as peer:
            peer.get("/first")
            peer.answer()
        eventually(lambda: live.connections() == 0, "the first connection is closed")
        before = len(os.listdir("/proc/self/fd"))
        for number in range(200):
            with live.peer() as peer:
                if number % 4 == 0:
                    peer.get(keep=number % 8 == 0)
                    assert peer.answer() == b"/"
                elif number % 4 == 1:
                    peer.sock.sendall(b"\x01\x01\x00\x01")
                elif number % 4 == 2:
                    peer.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        eventually(lambda: live.connections() == 0, "all connections are closed")
        eventually(
            lambda: len(os.listdir("/proc/self/fd")) <= before, "as many descriptors as before"
        )


@THREADS
def test_a_fault_ends_only_its_own_connection(socket_path: Path, threads: int) -> None:
    with running(plain, socket_path, threads=threads) as live, live.peer() as kept:
        kept.get("/before")
        assert kept.answer() == b"/before"
        for junk in (b"\x02" + bytes(7), b"\x00" * 100, b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 70000):
            assert raw(live.path, junk) == b""
        kept.get("/after")
        assert kept.answer() == b"/after"


def test_a_malformed_scgi_request_is_answered_with_400(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(plain, socket_path, protocol="scgi") as live:
        answer = raw(live.path, b"9:CONTENT_L,")
        assert answer.startswith(b"Status: 400 Bad Request\r\n")
        assert b"SCGI" in caplog.records[-1].getMessage().encode()
        assert scgi_get(live.path, b"/alive").endswith(b"\r\n\r\n/alive")


def test_bad_params_are_answered_with_the_status_of_the_fault(socket_path: Path) -> None:
    with running(plain, socket_path, max_variables=10) as live, live.peer() as peer:
        many = request("/")
        many.variables.extend((b"X%d" % number, b"") for number in range(20))
        peer.send(many, events.EndOfRequest(1))
        peer.read_until(lambda: peer.ended(1))
        (response,) = [each for each in peer.seen if isinstance(each, events.Response)]
        assert response.status == "431 Request Header Fields Too Large"
        peer.seen.clear()
        peer.get("/next")
        assert peer.answer() == b"/next"


# Roles.


def test_an_authorizer_starts_when_its_params_end(socket_path: Path) -> None:
    """FastCGI 6.3: an authorizer has no body to wait for."""
    seen: list[Environ] = []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        seen.append(environ)
        assert environ["wsgi.input"].read() == b""
        start_response("200 OK", [("Variable-AUTH_METHOD", "guess")])
        return []

    with running(application, socket_path) as live, live.peer() as peer:
        # lighttpd announces the length of the body that only the responder will get.
        peer.send(request("/", role=events.AUTHORIZER, method="POST", length=100))
        peer.send(events.EndOfRequest(1))
        peer.read_until(lambda: peer.ended(1))
        (response,) = [each for each in peer.seen if isinstance(each, events.Response)]
        assert ("Variable-AUTH_METHOD", "guess") in response.headers


def test_a_filter_gets_both_streams(socket_path: Path) -> None:
    """FastCGI 6.4."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        body, data = environ["wsgi.input"].read(), environ["fastcgi.data"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body + b"|" + data]

    for streamed in (False, True):
        path = socket_path.with_suffix(f".{streamed}")
        with running(application, path, stream_requests=streamed) as live, live.peer() as peer:
            peer.send(request("/", role=events.FILTER, method="POST", length=4))
            peer.send(events.RequestBody(1, b"body"), events.FilterData(1, b"file's "))
            peer.send(events.FilterData(1, b"data"), events.EndOfRequest(1))
            assert peer.answer() == b"body|file's data"


# The body.


@THREADS
def test_a_body_of_unknown_length_gets_one(socket_path: Path, threads: int) -> None:
    """Frameworks read only CONTENT_LENGTH bytes; Apache and caddy send none for a chunked upload."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        length = environ.get("CONTENT_LENGTH", "none")
        body = environ["wsgi.input"].read()
        environ["wsgi.input"].seek(0)
        assert environ["wsgi.input"].read() == body
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{length} {len(body)}".encode()]

    with running(application, socket_path, threads=threads) as live, live.peer() as peer:
        for size in (5, 65536, 3_000_000):
            peer.send(request("/", method="POST"), events.RequestBody(1, b"x" * size))
            peer.send(events.EndOfRequest(1))
            assert peer.answer() == f"{size} {size}".encode()
        peer.send(request("/"), events.EndOfRequest(1))
        assert peer.answer() == b"none 0"


@pytest.mark.parametrize("sent", [3, 200_000, 400_000])
def test_a_body_that_is_longer_or_shorter_than_its_length_is_an_error(
    socket_path: Path, sent: int
) -> None:
    """RFC 3875 4.2; the application that is reading by then gets an OSError."""
    with running(echo_length, socket_path) as live:
        for declared in (sent + 1, sent - 1):
            with live.peer() as peer:
                peer.send(request("/", method="POST", length=declared, keep=False))
                peer.send(events.RequestBody(1, b"x" * sent), events.EndOfRequest(1))
                peer.read_until(lambda peer=peer: peer.ended(1))  # type: ignore[misc]  # bound now, as ruff asks
                heads = [each for each in peer.seen if isinstance(each, events.Response)]
                assert [each.status for each in heads] in ([], ["400 Bad Request"])


def test_errors_go_to_the_web_server_when_asked(socket_path: Path) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        print("beware", file=environ["wsgi.errors"])
        return plain(environ, start_response)

    with running(application, socket_path, error_stream="web-server") as live, live.peer() as peer:
        peer.get("/x")
        peer.read_until(lambda: peer.ended(1))
        said = [each.data for each in peer.seen if isinstance(each, events.ErrorOutput)]
        assert b"".join(said) == b"beware\n"
        assert peer.answer() == b"/x"


@pytest.mark.parametrize("length", [5_000, 150_000])
def test_a_body_that_came_whole_keeps_to_body_memory_as_well(
    socket_path: Path, length: int
) -> None:
    """There is no room for it in memory, and none in the spool."""
    options: dict[str, Any] = {"body_memory": 4096, "spool_size": 0}
    with running(plain, socket_path, threads=2, **options) as live, live.peer() as peer:
        sent = [events.RequestBody(1, bytes(length)), events.EndOfRequest(1)]
        peer.send(request("/", method="POST", length=length), *sent)
        assert peer.answer().startswith(b"503")
