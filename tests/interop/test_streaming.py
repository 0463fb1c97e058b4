"""Answers reach the client while they are made, uploads the application while they arrive."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.servers import Daemon, wait_until
from tests.suite import write_record

# The server, the port of the configuration, and the query that its streaming needs.
STREAMING = [
    pytest.param("nginx", 8084, "", id="nginx-fastcgi-streaming"),
    pytest.param("nginx", 8081, "?unbuffered", id="nginx-fastcgi-X-Accel-Buffering"),
    pytest.param("nginx", 8083, "?unbuffered", id="nginx-fastcgi-keepalive-X-Accel-Buffering"),
    pytest.param("nginx", 8087, "?unbuffered", id="nginx-scgi-X-Accel-Buffering"),
    pytest.param("apache", 8091, "", id="apache-mod_cgid"),
    pytest.param("apache", 8092, "", id="apache-proxy_fcgi-location"),
    pytest.param("apache", 8093, "", id="apache-proxy_fcgi-alias"),
    pytest.param("apache", 8094, "", id="apache-proxy_scgi"),
    pytest.param("lighttpd", 8096, "", id="lighttpd-cgi"),
    pytest.param("lighttpd", 8097, "", id="lighttpd-fastcgi-spawned"),
    pytest.param("lighttpd", 8098, "", id="lighttpd-fastcgi"),
    pytest.param("lighttpd", 8099, "", id="lighttpd-scgi"),
]
BUFFERED = [
    pytest.param("nginx", 8081, id="nginx-fastcgi"),
    pytest.param("nginx", 8087, id="nginx-scgi"),
    pytest.param("apache", 8095, id="apache-mod_fcgid"),
]
UPLOADS = [
    pytest.param("nginx", 8084, id="nginx-fastcgi-streaming"),
    pytest.param("apache", 8091, id="apache-mod_cgid"),
    pytest.param("apache", 8092, id="apache-proxy_fcgi-location"),
    pytest.param("apache", 8093, id="apache-proxy_fcgi-alias"),
]


class Client:
    """A connection that sends and reads piece by piece."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.read = b""

    def until(self, words: bytes, seconds: float = 10.0) -> None:
        """Read on until `words` have come; AssertionError when they do not."""
        deadline = time.monotonic() + seconds
        while words not in self.read:
            self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                data = b""
            if not data:
                raise AssertionError(f"no {words!r} within {seconds} s, only {self.read!r}")
            self.read += data


@contextmanager
def _client(port: int) -> Iterator[Client]:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        yield Client(sock)


@pytest.mark.parametrize(("server", "port", "query"), STREAMING)
def test_an_event_arrives_before_the_next_is_made(
    server: str,
    port: int,
    query: str,
    daemon: Daemon,
    state: Path,
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue(server)
    daemon.with_options()
    case = uuid.uuid4().hex
    with _client(port) as client:
        client.sock.sendall(_get(f"/events{query}", case))
        client.until(b"data: first\n\n")
        write_record(state / case, "seen")
        client.until(b"data: second\n\n")


@pytest.mark.parametrize(("server", "port"), BUFFERED)
def test_without_that_the_web_server_holds_events_back(
    server: str, port: int, daemon: Daemon, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(server)
    daemon.with_options()
    with _client(port) as client:
        client.sock.sendall(_get("/events?impatient", uuid.uuid4().hex))
        client.until(b"data: nobody saw the first event\n\n")


def _get(target: str, case: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Case: {case}\r\nConnection: close\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("server", "port"), UPLOADS)
def test_an_upload_is_read_while_it_arrives(
    server: str,
    port: int,
    chunked: bool,
    daemon: Daemon,
    state: Path,
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue(server)
    daemon.with_options("--stream-requests")
    case = uuid.uuid4().hex
    first, rest = b"the first line\n", b"x" * 100000
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {15 + len(rest)}"
    head = f"POST /arrivals HTTP/1.1\r\nHost: localhost\r\nX-Case: {case}\r\n{framing}\r\n\r\n"
    with _client(port) as client:
        client.sock.sendall(head.encode() + (b"f\r\n%s\r\n" % first if chunked else first))
        record = state / case
        wait_until(record.exists, "the application has read the first line")
        wait_until(lambda: record.read_text() == "first the first line\n", "it has recorded it")
        client.sock.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest) if chunked else rest)
        client.until(b"100000 more")
