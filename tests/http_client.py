"""A raw-socket HTTP/1.1 client: it sends exactly what a test asks for and hides nothing of the answer.

`http.client` normalises targets, refuses odd headers and cannot leave in the middle, so the suite
brings its own.  It reads while it sends, because a web server may answer before it has the body.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HTTPRequest:
    """One request as a browser would make it.

    `body` as a list is a chunked upload, one chunk a piece.  `abort` leaves early: "upload" sends
    the head and the body given (announce more than that in Content-Length) and is gone, "answer"
    is gone at the first byte of the answer's body.  `hold`, where given, is called just before
    leaving: it returns once the far side is known to have noticed the request.  `expect` sends
    `Expect: 100-continue` and keeps the body back until the interim answer came.
    """

    method: str = "GET"
    target: bytes = b"/"
    headers: list[tuple[str, str | bytes]] = field(default_factory=list)
    body: bytes | list[bytes] = b""
    abort: str = ""
    expect: bool = False
    hold: Callable[[], None] | None = None

    @property
    def chunked(self) -> bool:
        return isinstance(self.body, list)

    @property
    def payload(self) -> bytes:
        """The body without its framing."""
        return b"".join(self.body) if isinstance(self.body, list) else self.body

    def has(self, name: str) -> bool:
        return any(sent.lower() == name.lower() for sent, _ in self.headers)

    def all_headers(self) -> list[tuple[str, bytes]]:
        """The headers as bytes, with those that HTTP/1.1 needs where the test gave none."""
        headers = [(name, _latin1(value)) for name, value in self.headers]
        if not self.has("Host"):
            headers.insert(0, ("Host", b"suite.example:8080"))
        if self.chunked:
            headers.append(("Transfer-Encoding", b"chunked"))
        elif self.body and not self.has("Content-Length"):
            headers.append(("Content-Length", str(len(self.body)).encode()))
        if self.expect:
            headers.append(("Expect", b"100-continue"))
        return headers


@dataclass
class HTTPAnswer:
    """What came back.

    `complete` is false when the connection ended before the answer's own framing said so.  The
    body is without its framing.  `status` is 0 when no head came at all.  `interim` holds the
    status of each 1xx answer.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool
    interim: list[int] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of one header, in order."""
        return [value for sent, value in self.headers if sent.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of a header that came once, None where it is absent."""
        values = self.all(name)
        if len(values) > 1:
            raise AssertionError(f"{name} came {len(values)} times: {values}")
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


def nothing() -> HTTPAnswer:
    """The answer of a request that was given up before one came."""
    return HTTPAnswer(0, "", [], b"", False)


def http_exchange(host: str, port: int, request: HTTPRequest, timeout: float = 30.0) -> HTTPAnswer:
    """Make one request on a new connection and return its answer.

    Raises TimeoutError when the exchange is not over within `timeout` seconds in all, OSError
    when nothing listens.  A connection that is reset or closed early is no error but an answer
    that is not `complete`.
    """
    deadline = time.monotonic() + timeout
    with socket.create_connection((host, port), timeout) as sock:
        return _Exchange(sock, request, deadline).run()


def head_of(request: HTTPRequest) -> bytes:
    """The bytes of the request line and headers."""
    headers = request.all_headers()
    if not request.has("Connection"):
        headers.append(("Connection", b"close"))
    lines = [request.method.encode() + b" " + request.target + b" HTTP/1.1"]
    lines += [name.encode() + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def body_of(request: HTTPRequest) -> bytes:
    """The bytes of the body with its framing."""
    if not isinstance(request.body, list):
        return request.body
    chunks = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in request.body if chunk]
    end = b"" if request.abort == "upload" else b"0\r\n\r\n"
    return b"".join(chunks) + end


class _Exchange:
    """Sends and receives at once until the answer's framing is satisfied or the peer is gone."""

    def __init__(self, sock: socket.socket, request: HTTPRequest, deadline: float) -> None:
        self.sock = sock
        self.request = request
        self.deadline = deadline
        self.reader = AnswerReader(request.method)
        self.unsent = memoryview(head_of(request))
        self.kept_back = memoryview(body_of(request))
        # RFC 9110 §10.1.1: a client does not wait for ever for the interim answer.
        self.body_due = time.monotonic() + (3.0 if request.expect else 0.0)

    def run(self) -> HTTPAnswer:
        self.sock.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            while not self.reader.ended:
                self._release_body()
                if self.request.abort == "upload" and not self.unsent and not self.kept_back:
                    return self._leave()
                if self.request.abort == "answer" and self.reader.body:
                    return self._leave()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
                selector.modify(self.sock, wanted)
                self._turn(selector)
        return self.reader.answer()

    def _release_body(self) -> None:
        waiting = time.monotonic() < self.body_due and not self.reader.interim
        if self.kept_back and not self.unsent and not (self.request.expect and waiting):
            self.unsent, self.kept_back = self.kept_back, memoryview(b"")

    def _turn(self, selector: selectors.BaseSelector) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no complete answer in time; so far {self.reader.answer()!r:.500}")
        for _, mask in selector.select(min(left, 0.1 if self.kept_back else left)):
            if mask & selectors.EVENT_WRITE:
                self._send()
            if mask & selectors.EVENT_READ:
                self._receive()

    def _send(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent[:262144]) :]
        except BlockingIOError:
            pass
        except OSError:
            # The server closed while we were sending; its answer may still be there to be read.
            self.unsent = self.kept_back = memoryview(b"")

    def _receive(self) -> None:
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.reader.receive(data)

    def _leave(self) -> HTTPAnswer:
        if self.request.hold is not None:
            self.request.hold()
        answer = self.reader.answer()
        answer.complete = False
        return answer


class AnswerReader:
    """Takes an HTTP/1.x answer apart as its bytes come (RFC 9112 §6)."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.pending = bytearray()
        self.status = 0
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        self.interim: list[int] = []
        self.body = bytearray()
        self.framing = "head"
        self.left = 0
        self.ended = False
        self.complete = False

    def receive(self, data: bytes) -> None:
        """Take bytes; b"" is the end of the connection."""
        self.pending += data
        while not self.ended and self._step():
            pass
        if not data and not self.ended:
            self.complete = self.framing == "close"
            self.ended = True

    def answer(self) -> HTTPAnswer:
        return HTTPAnswer(
            self.status, self.reason, self.headers, bytes(self.body), self.complete, self.interim
        )

    def _step(self) -> bool:
        if self.framing == "head":
            return self._head()
        if self.framing in ("chunk-size", "chunk-end", "trailer"):
            return self._line()
        if not self.pending:
            return False
        taken = self.pending[: self.left] if self.framing != "close" else bytes(self.pending)
        self.body += taken
        del self.pending[: len(taken)]
        if self.framing == "close":
            return False
        self.left -= len(taken)
        if not self.left and self.framing == "length":
            self._finish()
        elif not self.left:
            self.framing = "chunk-end"
        return True

    def _head(self) -> bool:
        end = self.pending.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self.pending[:end].decode("latin-1").split("\r\n")
        del self.pending[: end + 4]
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1."):
            raise AssertionError(f"not an HTTP answer: {lines[0]!r}")
        status, _, self.reason = rest.partition(" ")
        self.status = int(status)
        self.headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise AssertionError(f"not a header line: {line!r}")
            self.headers.append((name, value.strip(" \t")))
        if 100 <= self.status < 200:
            self.interim.append(self.status)
            self.status = 0
            return True
        self._frame()
        return True

    def _frame(self) -> None:
        values = {name.lower(): value for name, value in self.headers}
        if self.method == "HEAD" or self.status in (204, 304):
            self._finish()
        elif values.get("transfer-encoding", "").lower() == "chunked":
            self.framing = "chunk-size"
        elif "content-length" in values:
            self.framing = "length"
            self.left = int(values["content-length"])
            if not self.left:
                self._finish()
        else:
            self.framing = "close"

    def _line(self) -> bool:
        end = self.pending.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self.pending[:end])
        del self.pending[: end + 2]
        if self.framing == "chunk-size":
            self.left = int(line.split(b";")[0], 16)
            self.framing = "chunk" if self.left else "trailer"
        elif self.framing == "chunk-end":
            self.framing = "chunk-size"
        elif not line:
            self._finish()
        return True

    def _finish(self) -> None:
        self.complete = True
        self.ended = True


def _latin1(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")
