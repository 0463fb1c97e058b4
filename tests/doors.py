"""The doors without a web server: a pair in memory, our own client's codec and server, a CGI process.

There is no HTTP here, so `variables_of` makes of a request what nginx makes of it with the
configuration that the documentation recommends.
"""

from __future__ import annotations

import io
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

from gateways import environ, errors, events, wsgi
from gateways.events import Event
from gateways.server.input import Input
from gateways.testing.pair import Cut, Pair, whole
from gateways.testing.strategies import AnyClient, client_end, server_end
from tests.http_client import HTTPAnswer, HTTPRequest

ROOT = Path(__file__).parent.parent
STATE = "GATEWAYS_SUITE_STATE"


def variables_of(request: HTTPRequest, *, announced: bool = True) -> list[tuple[bytes, bytes]]:
    """The meta-variables of a request, as nginx sends them.

    Without `announced` a chunked upload has no CONTENT_LENGTH, as Apache has it; nginx, which
    buffers, knows the length.
    """
    path, _, query = request.target.partition(b"?")
    headers = {name.lower(): value for name, value in request.all_headers()}
    length = b"%d" % len(request.payload) if request.chunked else headers.get("content-length", b"")
    pairs = [
        (b"CONTENT_LENGTH", length),
        (b"SCGI", b"1"),
        (b"QUERY_STRING", query),
        (b"REQUEST_METHOD", request.method.encode()),
        (b"CONTENT_TYPE", headers.get("content-type", b"")),
        (b"REQUEST_URI", request.target),
        (b"DOCUMENT_URI", unquote_to_bytes(path)),
        (b"DOCUMENT_ROOT", b"/var/www/html"),
        (b"SERVER_PROTOCOL", b"HTTP/1.1"),
        (b"REQUEST_SCHEME", b"http"),
        (b"GATEWAY_INTERFACE", b"CGI/1.1"),
        (b"SERVER_SOFTWARE", b"suite"),
        (b"REMOTE_ADDR", b"127.0.0.1"),
        (b"REMOTE_PORT", b"40000"),
        (b"SERVER_ADDR", b"127.0.0.1"),
        (b"SERVER_PORT", b"8080"),
        (b"SERVER_NAME", b"suite.example"),
        (b"SCRIPT_NAME", b""),
        (b"PATH_INFO", unquote_to_bytes(path)),
    ]
    for name, value in request.all_headers():
        pairs.append((b"HTTP_" + name.upper().replace("-", "_").encode(), value))
    if request.chunked and not announced:
        pairs = [pair for pair in pairs if pair[0] != b"CONTENT_LENGTH"]
    return pairs


def joined(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The variables as an environment can hold them: each name once, as Apache joins them."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return [(name, b", ".join(each)) for name, each in values.items()]


def request_events(
    request: HTTPRequest, protocol: str, *, announced: bool = True, keep_conn: bool = False
) -> list[Event]:
    """What a client end sends for a request; no EndOfRequest where the client leaves its upload."""
    variables = variables_of(request, announced=announced)
    if protocol == "CGI":
        variables = joined(variables)
    request_id = 1 if protocol == "FastCGI" else 0
    head = events.Request(
        request_id,
        variables,
        body_delimited=protocol == "FastCGI" or (request.chunked and not announced),
        keep_conn=keep_conn,
    )
    payload = request.payload
    sent: list[Event] = [head]
    for start in range(0, len(payload), 65536):
        sent.append(events.RequestBody(request_id, payload[start : start + 65536]))
    if request.abort != "upload":
        sent.append(events.EndOfRequest(request_id))
    return sent


def answer_of(request: HTTPRequest, received: Iterable[Event], ended: bool = True) -> HTTPAnswer:
    """The HTTP answer that a web server would make of what it received.

    `ended` false means that the client left; a body that is longer than its Content-Length, or
    there where none may be, is an AssertionError, since web servers differ about it.
    """
    head: events.Response | None = None
    end: events.EndOfResponse | None = None
    body = bytearray()
    aborted = False
    for event in received:
        if isinstance(event, events.Response):
            head = event
        elif isinstance(event, events.ResponseBody):
            body += event.data
        elif isinstance(event, events.EndOfResponse):
            end = event
        elif isinstance(event, events.RequestAborted):
            aborted = True
    if head is None:
        return HTTPAnswer(0, "", [], b"", False)
    status, _, reason = head.status.partition(" ")
    clean = end is not None and not (end.app_status or end.protocol_status) and not aborted
    answer = HTTPAnswer(int(status), reason, head.headers, bytes(body), clean and ended)
    if request.method == "HEAD" or answer.status in (204, 304):
        if body:
            raise AssertionError(f"{len(body)} bytes of body where there is none: {answer!r:.500}")
        return answer
    length = answer.header("Content-Length")
    if length is not None:
        if len(body) > int(length):
            raise AssertionError(f"{len(body)} bytes of body, Content-Length is {length}")
        answer.complete = answer.complete and len(body) == int(length)
    return answer


class Teasing:
    """A cut that is bytewise where heads are, and then in pieces that fit no buffer."""

    def __init__(self, bytewise: int = 300, size: int = 8191) -> None:
        self.bytewise = bytewise
        self.size = size

    def __call__(self, data: bytes) -> Iterator[bytes]:
        for at in range(min(self.bytewise, len(data))):
            yield data[at : at + 1]
        for at in range(self.bytewise, len(data), self.size):
            yield data[at : at + self.size]


class MemoryServer:
    """What a server does with one connection, without one: events to environ, application, events.

    `more` asks for more events of the same request: it returns false when nothing can come.
    """

    def __init__(self, application: WSGIApplication, send: Callable[[Event], object]) -> None:
        self.application = application
        self.send = send
        self.faults: list[Exception] = []
        self.errors = io.StringIO()

    def run(self, request: events.Request, take: Callable[[], bytes]) -> None:
        """Answer one request, whose body `take` returns piece by piece."""
        base: dict[str, object] = {
            "wsgi.version": (1, 0),
            "wsgi.input": Input(take),
            "wsgi.errors": self.errors,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": wsgi.FileWrapper,
        }
        try:
            built, _ = environ.build(request, base=base)
        except errors.RemoteProtocolError as error:
            self.refuse(request.request_id, error)
            return
        wsgi.run(
            self.application,
            built,
            self._send,
            request_id=request.request_id,
            report=self._report,
        )

    def refuse(self, request_id: int, error: Exception | None) -> None:
        """Answer a request that cannot be run."""
        status = getattr(error, "status_hint", 400)
        self.send(events.Response(request_id, f"{status} Refused", []))
        self.send(events.EndOfResponse(request_id))

    def _send(self, event: Event) -> None:
        self.send(event)

    def _report(self, error: Exception) -> str:
        self.faults.append(error)
        return "reference"


@dataclass
class MemoryDoor:
    """A client end and a server end in memory; the application runs in the test's own thread."""

    name: str
    protocol: str
    application: WSGIApplication
    state: Path
    cut: Cut = whole
    announced: bool = True
    """Whether a chunked upload comes with its length."""

    @property
    def traits(self) -> frozenset[str]:
        traits = {"streams-requests"}
        if self.protocol != "FastCGI":
            traits.add("cut-looks-complete")
        if self.protocol == "CGI":
            traits.add("joins-cookies-with-comma")
        return frozenset(traits)

    def exchange(self, request: HTTPRequest) -> HTTPAnswer:
        os.environ[STATE] = str(self.state)
        return _MemoryExchange(self, request).run()


class _ClientLeft(BrokenPipeError):
    """What a server meets when it sends to a client that has left."""


class _MemoryExchange:
    def __init__(self, door: MemoryDoor, request: HTTPRequest) -> None:
        protocol = door.protocol
        self.request = request
        self.pair = Pair(client_end(protocol), server_end(protocol), cut=door.cut)
        self.unsent = request_events(request, protocol, announced=door.announced)
        self.arrived: list[Event] = []
        self.server = MemoryServer(door.application, self._send)
        self.left = False

    def run(self) -> HTTPAnswer:
        while not self.arrived and self._step():
            pass
        first = self.arrived.pop(0)
        if isinstance(first, events.Request):
            try:
                self.server.run(first, self._take)
            except _ClientLeft:
                self.left = True
        else:
            assert isinstance(first, events.RequestAborted)
            self.server.refuse(first.request_id, first.error)
        return answer_of(self.request, self.pair.client_events, ended=not self.left)

    def _take(self) -> bytes:
        while True:
            while self.arrived:
                event = self.arrived.pop(0)
                if isinstance(event, events.RequestBody):
                    return event.data
                if isinstance(event, events.EndOfRequest):
                    self.arrived.append(event)
                    return b""
                if isinstance(event, events.RequestAborted):
                    self.arrived.append(event)
                    raise errors.RequestAborted(str(event.error))
            if not self._step():
                return b""

    def _step(self) -> bool:
        """Let the client send its next event, or leave; false when it has nothing more to do."""
        if self.unsent:
            self.arrived += self.pair.to_server(self.unsent.pop(0))
            return True
        if self.request.abort == "upload" and not self.left:
            self.left = True
            if self.request.hold is not None:
                self.request.hold()
            self.arrived += self.pair.client_closes()
            return True
        return False

    def _send(self, event: Event) -> None:
        if self.left:
            raise _ClientLeft
        received = self.pair.to_client(event)
        if self.request.abort == "answer" and any(
            isinstance(each, events.ResponseBody) for each in received
        ):
            self.left = True
            if self.request.hold is not None:
                self.request.hold()


# A server in a process of its own.


@dataclass
class LiveServer:
    """A running `gateways serve`, ready for connections."""

    process: subprocess.Popen[bytes]
    address: str
    where: str | tuple[str, int]
    log: Path

    @property
    def protocol(self) -> str:
        return "SCGI" if self.address.startswith("scgi") else "FastCGI"

    def connect(self, timeout: float = 30.0) -> socket.socket:
        """A new connection; OSError when the server takes none."""
        return connect(self.where, timeout)

    def log_text(self) -> str:
        """Everything the server has said so far."""
        return self.log.read_text(errors="replace")

    def stop(self, seconds: float = 15.0) -> int:
        """Ask the server to stop and return its exit status; kill it when it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop:\n{self.log_text()}") from None


def connect(where: str | tuple[str, int], timeout: float) -> socket.socket:
    if isinstance(where, tuple):
        return socket.create_connection(where, timeout)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(where)
    except OSError:
        sock.close()
        raise
    return sock


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def live_server(
    folder: Path,
    *options: str,
    application: str = "tests.suite_app:application",
    protocol: str = "FastCGI",
    tcp: bool = False,
    environment: dict[str, str] | None = None,
    interpreter: tuple[str, ...] = (),
) -> Iterator[LiveServer]:
    """Run `gateways serve APPLICATION` in a subprocess until the block ends.

    `interpreter` are options of Python's.  The block begins when the server takes connections.
    AssertionError, with its log, when it does not within 20 seconds, ends by itself, or does not
    stop with status 0 when asked.
    """
    scheme = {"FastCGI": "fcgi", "SCGI": "scgi"}[protocol]
    where: str | tuple[str, int] = ("127.0.0.1", free_port()) if tcp else str(folder / "app.sock")
    address = f"{scheme}://127.0.0.1:{where[1]}" if tcp else f"{scheme}+unix:{where}"
    log = folder / "server.log"
    python = [sys.executable, *interpreter]
    command = [*python, "-m", "gateways", "serve", application, "-b", address, *options]
    variables = {**os.environ, STATE: str(folder), "PYTHONUNBUFFERED": "1", **(environment or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    server = LiveServer(process, address, where, log)
    try:
        _await_connections(server)
        yield server
        if process.poll() is not None:
            raise AssertionError(
                f"the server ended by itself: {process.poll()}\n{server.log_text()}"
            )
        status = server.stop()
        if status != 0:
            raise AssertionError(f"the server stopped with status {status}\n{server.log_text()}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _await_connections(server: LiveServer, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            server.connect().close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(
        f"the server does not listen (exit status {server.process.poll()}):\n{server.log_text()}"
    )


@dataclass
class DirectDoor:
    """The client end's codec on a socket, straight to a live server; a new connection each time.

    With `kept` the connection is kept as long as the server leaves it open (FastCGI §5.1); `cut`
    is how the request is cut into sends.
    """

    name: str
    server: LiveServer
    state: Path
    traits: frozenset[str]
    announced: bool = True
    kept: bool = False
    cut: Cut = whole
    connections: int = 0
    _kept: tuple[socket.socket, AnyClient] | None = field(default=None, repr=False)

    def exchange(self, request: HTTPRequest) -> HTTPAnswer:
        sock, client = self._kept or self._connect()
        self._kept = None
        answer, reusable = SocketExchange(sock, client, request, self).run()
        if self.kept and reusable:
            self._kept = (sock, client)
        else:
            sock.close()
        return answer

    def close(self) -> None:
        """Let go of the connection that is kept."""
        if self._kept is not None:
            self._kept[0].close()

    def _connect(self) -> tuple[socket.socket, AnyClient]:
        self.connections += 1
        return self.server.connect(), client_end(self.server.protocol)


class SocketExchange:
    """One request and its answer over a socket, sending and receiving at once."""

    def __init__(
        self, sock: socket.socket, client: AnyClient, request: HTTPRequest, door: DirectDoor
    ) -> None:
        self.sock = sock
        self.client = client
        self.request = request
        for event in request_events(
            request, client.protocol, announced=door.announced, keep_conn=door.kept
        ):
            client.send(event)
        self.pieces = iter(door.cut(client.data_to_send()))
        self.unsent = memoryview(next(self.pieces, b""))
        self.received: list[Event] = []
        self.closed = False
        self.reset = False

    def run(self, seconds: float = 30.0) -> tuple[HTTPAnswer, bool]:
        """Return the answer, and whether the connection can be used again."""
        deadline = time.monotonic() + seconds
        self.sock.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            while not self._ended():
                if self._leaves():
                    if self.request.hold is not None:
                        self.request.hold()
                    return answer_of(self.request, self.received, ended=False), False
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
                selector.modify(self.sock, wanted)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"no end of the answer; so far {self.received!r:.500}")
                for _, mask in selector.select(left):
                    self._turn(mask)
        reusable = not (self.closed or self.client.must_close or self.unsent)
        return answer_of(self.request, self.received, ended=not self.reset), reusable

    def _ended(self) -> bool:
        last = self.received[-1] if self.received else None
        over = isinstance(last, events.EndOfResponse | events.RequestAborted)
        # On a kept connection the rest of a request is sent even when its answer came early.
        return self.closed or (over and not (self.unsent and not self.client.must_close))

    def _leaves(self) -> bool:
        if self.request.abort == "upload":
            return not self.unsent
        return self.request.abort == "answer" and any(
            isinstance(event, events.ResponseBody) for event in self.received
        )

    def _turn(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._send()
        if mask & selectors.EVENT_READ:
            try:
                data = self.sock.recv(262144)
            except BlockingIOError:
                return
            except OSError:
                # A reset is how SCGI, whose answers have no end of their own, gives one up.
                self.reset = self.closed = True
                return
            self.closed = not data
            self.received += self.client.receive_data(data)

    def _send(self) -> None:
        try:
            sent = self.sock.send(self.unsent[:262144])
        except BlockingIOError:
            return
        except OSError:
            # The server closed while we were sending; its answer may still be there.
            self.pieces = iter(())
            self.unsent = memoryview(b"")
            return
        self.unsent = self.unsent[sent:] or memoryview(next(self.pieces, b""))


@dataclass
class CGIDoor:
    """A process for each request, with the variables in its environment and the body on stdin."""

    name: str
    command: list[str]
    state: Path
    announced: bool = True
    traits: frozenset[str] = frozenset(
        {"streams-requests", "joins-cookies-with-comma", "cut-looks-complete"}
    )

    def exchange(self, request: HTTPRequest) -> HTTPAnswer:
        client = client_end("CGI")
        sent = request_events(request, "CGI", announced=self.announced)
        client.send(sent[0])
        process = self._start(getattr(client, "environment", {}))
        try:
            return self._exchange(process, client, request, sent[1:])
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            if process.poll() is None:
                process.kill()
            process.wait()

    def _start(self, variables: dict[bytes, bytes]) -> subprocess.Popen[bytes]:
        own = {b"PATH": os.environb[b"PATH"], STATE.encode(): str(self.state).encode()}
        return subprocess.Popen(
            self.command,
            cwd=ROOT,
            env={**variables, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        client: AnyClient,
        request: HTTPRequest,
        sent: list[Event],
    ) -> HTTPAnswer:
        assert process.stdin is not None
        assert process.stdout is not None
        for event in sent:
            client.send(event)
        unsent = memoryview(client.data_to_send())
        received: list[Event] = []
        deadline = time.monotonic() + 30
        with selectors.DefaultSelector() as selector:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            while not isinstance(received[-1] if received else None, events.EndOfResponse):
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TimeoutError(f"no end of the answer; so far {received!r:.500}")
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        unsent = self._feed(process, unsent)
                        if not unsent:
                            if request.abort == "upload" and request.hold is not None:
                                request.hold()
                            selector.unregister(process.stdin)
                            process.stdin.close()
                        continue
                    received += client.receive_data(os.read(process.stdout.fileno(), 262144))
                    if received and isinstance(received[-1], events.RequestAborted):
                        return answer_of(request, received)
                    if request.abort == "answer" and any(
                        isinstance(event, events.ResponseBody) for event in received
                    ):
                        if request.hold is not None:
                            request.hold()
                        return self._leave(process, request, received)
        # A script that gave its answer up says so with its exit status, which a web server logs.
        healthy = process.wait(10) == 0
        return answer_of(request, received, ended=healthy and request.abort != "upload")

    def _feed(self, process: subprocess.Popen[bytes], unsent: memoryview) -> memoryview:
        assert process.stdin is not None
        try:
            return unsent[os.write(process.stdin.fileno(), unsent[:65536]) :] if unsent else unsent
        except BrokenPipeError:
            return memoryview(b"")

    def _leave(
        self, process: subprocess.Popen[bytes], request: HTTPRequest, received: list[Event]
    ) -> HTTPAnswer:
        # The web server closes the pipe; the script may then end in its own time.
        assert process.stdout is not None
        process.stdout.close()
        process.wait(20)
        return answer_of(request, received, ended=False)


def cgi_command(*extra: str) -> list[str]:
    """The command that answers one CGI request with the suite's application."""
    return [sys.executable, *extra, str(ROOT / "tests" / "suite_app.py")]


def memory_doors(application: WSGIApplication, state: Path) -> list[Any]:
    """Every pair in memory: each protocol, whole and cut, with and without announced lengths."""
    made = []
    for protocol in ("FastCGI", "SCGI", "CGI"):
        made.append(MemoryDoor(f"{protocol}-whole", protocol, application, state))
        made.append(MemoryDoor(f"{protocol}-cut", protocol, application, state, Teasing()))
        if protocol != "SCGI":
            name = f"{protocol}-unannounced"
            made.append(MemoryDoor(name, protocol, application, state, announced=False))
    return made
