"""What a script printed, as a WSGI answer (RFC 3875 §6)."""

from __future__ import annotations

import time
from collections.abc import Iterator

from gateways.cgi import ClientConnection
from gateways.cgihost.head import Broken, Head
from gateways.cgihost.run import Overdue, Run
from gateways.errors import ApplicationError, RemoteProtocolError
from gateways.events import Event, RequestAborted, Response, ResponseBody

MAX_DISCARDED = 1024 * 1024
"""Bytes that nobody wants and a script may still write; then it is ended."""

SKIP_SECONDS = 0.1
"""How long they are read for; then nobody reads them, and the script may work on, as after its end."""

GATHER_SECONDS = 0.002
"""How long a head waits for the end of a short answer, so that both go out at once, with the length."""

GATHER_BYTES = 65536

_BODILESS = ("204", "304")


class Answer:
    """The answer of one run: first `read_head`, then an iterable of the body's pieces as they come."""

    status = ""
    headers: list[tuple[str, str]]

    def __init__(
        self, run: Run, connection: ClientConnection, *, nph: bool, head_only: bool
    ) -> None:
        self._run = run
        self._connection = connection
        self._nph = nph
        self._head_only = head_only
        self._pieces: list[bytes] = []
        self._left = float("inf")

    def read_head(self) -> None:
        """Read up to the end of the head.

        Raises Broken, Overdue, and whatever wsgi.input raises.
        """
        begun = b""
        while True:
            data = self._run.read()
            if self._nph and len(begun) < 5:
                begun += data[:5]
                if not b"HTTP/".startswith(begun[:5]):
                    raise Broken("an nph- script begins with an HTTP status line (RFC 3875 5)")
            if self._take(data):
                return

    def _take(self, data: bytes) -> bool:
        try:
            events: list[Event] = self._connection.receive_data(data)
        except RemoteProtocolError as error:
            raise Broken(str(error)) from None
        for event in events:
            if isinstance(event, Response):
                self._take_head(event)
            elif isinstance(event, ResponseBody):
                self._pieces.append(event.data)
            elif isinstance(event, RequestAborted):
                status = self._run.finish()
                how = "" if status is None else f"; {_exit(status)}"
                raise Broken(f"{event.error}{how}")
        return bool(self.status)

    def _take_head(self, told: Response) -> None:
        head = Head(told, status_given=self._connection.status_given)
        self.status, self.headers = head.status, head.headers
        if head.length is not None:
            self._left = head.length
        if self._head_only or self.status[:3] in _BODILESS:
            self._left = 0

    @property
    def local_redirect(self) -> str:
        """The path and query to answer instead, "" for none (RFC 3875 §6.2.2).

        It is one where there is no Status, and no field but Content-Type beside Location: a
        cookie, for example, would be lost, and browsers understand a path as well.
        """
        if self._nph or self._connection.status_given:
            return ""
        fields = {name.lower(): value for name, value in self.headers}
        target = fields.get("location", "")
        # Two slashes begin the name of another host.
        if not target.startswith("/") or target.startswith("//") or "#" in target:
            return ""
        return "" if fields.keys() - {"location", "content-type"} else target

    def gather(self) -> list[bytes] | None:
        """Return the whole body where it ends right away, None where it is to be iterated over.

        With a body the script is done with, and there is nothing to close.  Raises Broken where a
        signal ended it, Overdue, and whatever wsgi.input raises.
        """
        if not self._left:
            return None
        until = time.monotonic() + GATHER_SECONDS
        size = sum(map(len, self._pieces))
        while size < GATHER_BYTES:
            data = self._run.read(until)
            if data:
                self._take(data)
                size += len(data)
            elif not self._run.ended:
                return None
            else:
                status = self._run.finish()
                if status is not None and status < 0:
                    raise Broken(_exit(status))
                self._end()
                self._run.close(complete=True)
                body = b"".join(self._pieces)
                return [body if len(body) <= self._left else body[: int(self._left)]]
        return None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # What a script writes beyond its Content-Length is dropped, in close(): the visitor does not
        # wait for it.
        piece = self._next() if self._left else b""
        if not piece:
            if self._left:
                self._end()
            raise StopIteration
        if len(piece) > self._left:
            piece = piece[: int(self._left)]
        self._left -= len(piece)
        return piece

    def _next(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        try:
            data = self._run.read()
        except Overdue as error:
            raise ApplicationError(f"the answer of a CGI script is cut: {error}") from None
        for event in self._connection.receive_data(data):
            if isinstance(event, ResponseBody):
                return event.data
        return b""

    def discard(self) -> None:
        """Close it, and let the script come to its own end: nobody wants more of it."""
        self._left = 0
        self.close()

    def _skip(self) -> bool:
        """Read for a moment what nobody wants; return whether the script may run on."""
        until = time.monotonic() + SKIP_SECONDS
        discarded = 0
        try:
            while not self._run.ended and time.monotonic() < until:
                discarded += len(self._run.read(until))
                if discarded >= MAX_DISCARDED:
                    return False
        except Overdue:
            return False
        return True

    def _end(self) -> None:
        """Make a death by a signal visible: what such a script has printed is hardly all of it."""
        status = self._run.finish()
        if status is not None and status < 0:
            raise ApplicationError(f"the answer of a CGI script is cut: {_exit(status)}")
        if status:
            self._run.log(f"its exit status was {status}")

    def close(self) -> None:
        """End the script, where its answer was not taken to the end."""
        complete = False
        try:
            complete = not self._left and self._skip()
            if self._run.ended:
                complete = True
                self._run.finish()
        finally:
            self._run.close(complete=complete)


def _exit(status: int) -> str:
    return f"its exit status was {status}" if status >= 0 else f"signal {-status} ended it"
