"""A worker in a thread of the test's own process, and raw peers to talk to it.

The application is a function of the test, so that it can wait for the test's events; what goes
over the socket is real.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateways import addresses, events, fastcgi, scgi
from gateways.addresses import Address
from gateways.server.connection import Connection
from gateways.server.listeners import open_listener
from gateways.server.options import Options
from gateways.server.shares import Share
from gateways.server.worker import Worker

Application = Callable[..., Iterable[bytes]]

PATIENCE = 10.0
"""Seconds that a test waits for something that happens at once on an idle machine."""


class Live:
    """A running worker: where it listens, and how to stop it."""

    def __init__(self, address: Address, worker: Worker, thread: threading.Thread) -> None:
        self.address = address
        self.path = address.path
        self.worker = worker
        self.thread = thread

    def stop(self) -> None:
        """Ask for a graceful stop."""
        self.worker.stop()

    def wait_stopped(self, seconds: float = PATIENCE) -> bool:
        """Return whether the worker ended in time."""
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def peer(self) -> Peer:
        """Return a new connection to the worker."""
        if self.address.family == "tcp":
            return Peer((self.address.host, self.address.port))
        return Peer(self.path)

    def connections(self) -> int:
        """Return how many connections the worker holds."""
        return len(self.worker._connections)

    def connection(self) -> Connection:
        """Return the only connection that the worker holds, once it is there."""
        eventually(lambda: self.connections() == 1, "there is one connection")
        (connection,) = self.worker._connections.values()
        return connection


@contextmanager
def running(
    application: Application,
    path: Path,
    *,
    protocol: str = "fcgi",
    tcp: bool = False,
    share: Share | None = None,
    **options: Any,
) -> Iterator[Live]:
    """Serve `application` on a unix socket at `path`, or over TCP, until the block ends."""
    chosen = Options(**options)
    where = f"{protocol}://127.0.0.1:0" if tcp else f"{protocol}+unix:{path}"
    listener = open_listener(addresses.parse(where), chosen)
    worker = Worker(application, [listener], chosen, share=share)
    ready = threading.Event()
    thread = threading.Thread(target=worker.run, args=(ready.set,), daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    live = Live(listener.address, worker, thread)
    try:
        yield live
    finally:
        worker.stop()
        worker.stop()  # the second one does not wait
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the worker did not stop"


class Peer:
    """A web server's side of one FastCGI connection, with the socket in the test's hands."""

    def __init__(self, where: str | tuple[str, int]) -> None:
        self.sock = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(where)
        except OSError:
            self.sock.close()
            raise
        self.codec = fastcgi.ClientConnection()
        self.seen: list[events.Event] = []
        self.closed = False

    def send(self, *what: events.Event) -> None:
        """Send events at once, in one piece."""
        self.sock.sendall(self.bytes_of(*what))

    def bytes_of(self, *what: events.Event) -> bytes:
        """Return the bytes of events without sending them."""
        for event in what:
            self.codec.send(event)
        return self.codec.data_to_send()

    def get(self, path: str = "/", request_id: int = 1, *, keep: bool = True) -> None:
        """Send a whole GET."""
        self.send(request(path, request_id, keep=keep), events.EndOfRequest(request_id))

    def answer(self, request_id: int = 1) -> bytes:
        """Read until that request's answer is complete; return its body."""
        self.read_until(lambda: self.ended(request_id))
        found = [each for each in self.seen if each.request_id == request_id]
        self.seen = [each for each in self.seen if each.request_id != request_id]
        return b"".join(each.data for each in found if isinstance(each, events.ResponseBody))

    def ended(self, request_id: int) -> bool:
        """Return whether the end of that request's answer has been read."""
        ends = (events.EndOfResponse, events.RequestAborted)
        return any(each.request_id == request_id and isinstance(each, ends) for each in self.seen)

    def read_until(self, enough: Callable[[], bool]) -> None:
        """Read until `enough()` or the end of file; TimeoutError when neither comes."""
        while not enough() and not self.closed:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            self.closed = not data
            self.seen += self.codec.receive_data(data)

    def wait_closed(self) -> list[events.Event]:
        """Read to the end of file; return all events."""
        self.read_until(lambda: False)
        return self.seen

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request(
    path: str = "/",
    request_id: int = 1,
    *,
    method: str = "GET",
    length: int | None = None,
    keep: bool = True,
    role: str = events.RESPONDER,
) -> events.Request:
    """Return a request's head as nginx sends it."""
    variables = [
        (b"REQUEST_METHOD", method.encode()),
        (b"SCRIPT_NAME", b""),
        (b"PATH_INFO", path.encode()),
        (b"QUERY_STRING", b""),
        (b"CONTENT_LENGTH", b"" if length is None else str(length).encode()),
        (b"SERVER_PROTOCOL", b"HTTP/1.1"),
        (b"SERVER_NAME", b"localhost"),
        (b"SERVER_PORT", b"80"),
    ]
    return events.Request(request_id, variables, role, role != events.AUTHORIZER, keep)


def post(path: str, body: bytes, request_id: int = 1, *, keep: bool = True) -> list[events.Event]:
    """Return the events of a whole POST."""
    head = request(path, request_id, method="POST", length=len(body), keep=keep)
    return [
        head,
        *([events.RequestBody(request_id, body)] if body else []),
        events.EndOfRequest(request_id),
    ]


def scgi_get(path: str, target: bytes = b"/") -> bytes:
    """Send a GET over SCGI; return the bytes of the answer."""
    codec = scgi.ClientConnection()
    codec.send(
        events.Request(
            0, [(b"CONTENT_LENGTH", b"0"), (b"REQUEST_METHOD", b"GET"), (b"PATH_INFO", target)]
        )
    )
    codec.send(events.EndOfRequest(0))
    return raw(path, codec.data_to_send())


def raw(path: str, data: bytes, *, then_shut: bool = False) -> bytes:
    """Send bytes on a new connection; return all that comes back."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        sock.sendall(data)
        if then_shut:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := _receive(sock):
            answer += piece
        return answer


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition()`; fail with `what` when it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.01)


def plain(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The simplest application: it answers the path it was asked for."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    path: str = environ["PATH_INFO"]
    return [path.encode("latin-1")]
