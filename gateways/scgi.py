"""SCGI, both ends, without I/O.

Implements Neil Schemenauer's "SCGI: A Simple Common Gateway Interface alternative" (2008-06-23),
cited as SCGI 2 and SCGI 3, and the part of Bernstein's netstrings that it uses.  The answer, which
that text leaves open, is a CGI response (RFC 3875 §6); it and the body are document.py's.

The headers wait in a bounded buffer until their netstring is complete, are split once at their
NULs, and become one Request.  What came in one piece has a short cut, `receive_whole`.  What the
variables mean is left to environ.py.
"""

from __future__ import annotations

from gateways.buffer import ReceiveBuffer
from gateways.document import DocumentServer, Table, read_content_length
from gateways.documentclient import DocumentClient
from gateways.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from gateways.events import (
    RESPONDER,
    EndOfRequest,
    Event,
    Request,
    RequestAborted,
    RequestBody,
    repeated_names,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from _typeshed.wsgi import WSGIApplication

    from gateways.events import PlainText

# What a server end has until the first bytes: one whose request came whole needs no other.
_NO_BUFFER = ReceiveBuffer()


class Limits:
    """The options of a server end, shared by all its connections."""

    __slots__ = ("max_variables", "max_variable_bytes", "max_digits")

    def __init__(self, max_variables: int, max_variable_bytes: int) -> None:
        self.max_variables = max_variables
        self.max_variable_bytes = max_variable_bytes
        self.max_digits = len(str(max_variable_bytes))

    def connection(self) -> ServerConnection:
        """Return the server end of a new connection."""
        connection = ServerConnection.__new__(ServerConnection)
        connection._start_with(self)
        return connection


class ServerConnection(DocumentServer):
    """The end that receives the request; the SCGI text calls it the SCGI server.

    `max_variables` bounds the number of headers, `max_variable_bytes` the length of their
    netstring; both are checked before anything of that size is held.

    A fault in the headers ends the connection, since there is no other request on it; after the
    RemoteProtocolError an answer (a Response and what follows it) may still be sent.
    """

    protocol = "SCGI"
    _rule = "SCGI 2"
    _body_rule = "SCGI 3"

    RECEIVED: Table = {
        "HEAD": {Request: "BODY"},
        "BODY": {RequestBody: "BODY", EndOfRequest: "COMPLETE", RequestAborted: "COMPLETE"},
        "COMPLETE": {},
    }

    __slots__ = ("_limits", "_buffer", "_headers_end")

    def __init__(self, *, max_variables: int = 1000, max_variable_bytes: int = 131072) -> None:
        self._start_with(Limits(max_variables, max_variable_bytes))

    @staticmethod
    def factory(
        *, max_variables: int = 1000, max_variable_bytes: int = 131072
    ) -> Callable[[], ServerConnection]:
        """Return a function that makes connections with these options, cheaper than the class does."""
        return Limits(max_variables, max_variable_bytes).connection

    def _start_with(self, limits: Limits) -> None:
        self._start("IDLE", "HEAD")
        self._limits = limits
        self._buffer = _NO_BUFFER
        self._headers_end = 0  # bytes that the headers and their comma take, 0 while unknown

    def receive_whole(self, data: bytes, /) -> tuple[Request, bytes] | None:
        """Take a whole plain request; return it and its body, or None.

        Plain are headers whose names come once and do not begin with "wsgi.", with a body exactly
        as long as announced.  With None nothing has changed: `receive_data` takes the same bytes.
        """
        if self._receiving != "HEAD" or self._buffer is not _NO_BUFFER:
            return None
        limits = self._limits
        colon = data.find(b":", 1, limits.max_digits + 1)
        digits = data[:colon]
        # A length that begins with "0" is 0 or wrong.
        if colon < 0 or not digits.isdigit() or digits[0] == 48:
            return None
        start = colon + 1
        end = start + int(digits)
        block = data[start:end]
        body = data[end + 1 :]
        if len(block) > limits.max_variable_bytes or data[end : end + 1] != b",":
            return None
        plain = plain_text(block, limits.max_variables)
        if plain is None:
            return None
        text, repeated = plain
        if text["CONTENT_LENGTH"] != str(len(body)):
            return None
        self._receiving = "COMPLETE"
        self._sending = "HEAD"
        self._content_length = len(body)
        return Request(0, (_pairs, block), RESPONDER, False, False, text, repeated), body

    def receive_data(self, data: bytes | memoryview, /) -> list[Event]:
        """Take what was received, b"" at end of file; return the events it completed.

        Raises RemoteProtocolError (LimitExceeded, TruncatedMessage) for headers that break SCGI 3.
        Whatever comes after such a fault, after the body or after end of file is ignored.
        """
        events: list[Event] = []
        try:
            if self._receiving == "HEAD":
                self._receive_head(data, events)
            elif self._receiving == "BODY":
                self._receive_body(data, events)
        except RemoteProtocolError:
            # Only the head has faults, and no event comes before it: the error's events are none.
            self._receiving = "COMPLETE"
            self._sending = "HEAD"
            self._must_close = True
            self._buffer = _NO_BUFFER
            raise
        # Bytes past the body are no fault: nginx with request buffering off announces the bytes
        # it holds at that time and then sends the rest of the body as well.
        return events

    @property
    def head_pending(self) -> int:
        """-1 while the headers have begun to arrive and are not complete, else 0."""
        begun = self._receiving == "HEAD" and (self._headers_end or len(self._buffer)) > 0
        return -1 if begun else 0

    def _receive_head(self, data: bytes | memoryview, events: list[Event]) -> None:
        """Read the netstring of the headers; the bytes behind it are the body's."""
        if not data:
            self._end_of_head()
            return
        if self._buffer is _NO_BUFFER:
            self._buffer = ReceiveBuffer()
        buffer = self._buffer
        buffer.append(data)
        if not self._headers_end:
            self._receive_length()
        if not self._headers_end or len(buffer) < self._headers_end:
            return
        netstring = buffer.take(self._headers_end)
        if not netstring.endswith(b","):
            raise RemoteProtocolError(
                f"the headers end with {netstring[-1:]!r}, expected ','", rule="SCGI 3"
            )
        block = netstring[:-1]
        body = buffer.take(len(buffer))
        plain = self._plain_text(block)
        if plain is None:
            variables, content_length = self._parse_headers(block)
            self._receive_request(variables, content_length, body, events)
        else:
            length = plain[0]["CONTENT_LENGTH"].encode("latin-1")
            content_length = read_content_length(length, rule="SCGI 3")
            self._receive_request((_pairs, block), content_length, body, events, *plain)

    def _plain_text(self, block: bytes) -> PlainText | None:
        return plain_text(block, self._limits.max_variables)

    def _receive_length(self) -> None:
        """Read "LENGTH:" where it is complete, and refuse it at the first byte that is wrong.

        Stopping at the first wrong byte, and naming no other, makes the fault the same however
        the bytes were cut.
        """
        prefix = self._buffer.peek(self._limits.max_digits + 1)
        digits, colon, _ = prefix.partition(b":")
        # A netstring's length begins with '0' only when it is 0.
        if digits[:1] == b"0" and digits[1:2].isdigit():
            raise RemoteProtocolError("the netstring's length begins with '0'", rule="SCGI 3")
        wrong = (digits or prefix).lstrip(b"0123456789")[:1]
        if wrong:
            raise RemoteProtocolError(
                f"the netstring's length has {wrong!r} where an ASCII digit belongs", rule="SCGI 3"
            )
        # The number of digits is bounded first: a length is never even computed from more.
        if len(digits) > self._limits.max_digits or (
            colon and int(digits) > self._limits.max_variable_bytes
        ):
            raise LimitExceeded(
                f"the headers are over {self._limits.max_variable_bytes} bytes", rule="SCGI 3"
            )
        if colon:
            self._buffer.skip(len(digits) + 1)
            self._headers_end = int(digits) + 1

    def _parse_headers(self, headers: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
        """Return the headers as pairs, and the length of the body."""
        if not headers.endswith(b"\0"):
            raise RemoteProtocolError(
                "the headers are empty or end without NUL, expected name NUL value NUL",
                rule="SCGI 3",
            )
        count = headers.count(b"\0")
        if count > 2 * self._limits.max_variables:
            raise LimitExceeded(f"over {self._limits.max_variables} headers", rule="SCGI 3")
        if count % 2:
            raise RemoteProtocolError("the last header has a name and no value", rule="SCGI 3")
        variables = _pairs(headers)
        names = [name for name, _ in variables]
        if b"" in names:
            raise RemoteProtocolError("a header has an empty name", rule="SCGI 3")
        if names[0] != b"CONTENT_LENGTH":
            raise RemoteProtocolError(
                f"the first header is {names[0][:40]!r}, expected CONTENT_LENGTH", rule="SCGI 3"
            )
        # The text forbids every repeated name, but nginx passes each of two Cookie lines on as
        # its own HTTP_COOKIE; environ.py joins those.  These two must not be ambiguous.
        for name in (b"CONTENT_LENGTH", b"SCGI"):
            if names.count(name) > 1:
                raise RemoteProtocolError(f"{name.decode()} is there twice", rule="SCGI 3")
        content_length = read_content_length(variables[0][1], rule="SCGI 3")
        if (b"SCGI", b"1") not in variables:
            raise RemoteProtocolError("there is no header SCGI with the value 1", rule="SCGI 3")
        return variables, content_length

    def _end_of_head(self) -> None:
        # A connection that closes without a byte is a probe, or one opened ahead of need.
        if self.head_pending:
            raise TruncatedMessage("end of file inside the headers", rule="SCGI 3")
        self._receiving = "COMPLETE"
        self._must_close = True


def _pairs(headers: bytes) -> list[tuple[bytes, bytes]]:
    """Return headers, of which there is a whole number, as pairs."""
    strings = iter(headers.split(b"\0"))
    # The last header's NUL has left an empty string behind.
    return list(zip(strings, strings, strict=False))


def plain_text(block: bytes, max_variables: int) -> PlainText | None:
    """Return the headers that `block` consists of as Request's `text` and `repeated`, where it may have one.

    None where they break SCGI 3 or are too many, and where a name may begin with "wsgi.", as the
    server's own do: the general reader tells what is wrong then, if anything is.  What CONTENT_LENGTH
    holds is left to the caller.
    """
    text = block.decode("latin-1")
    strings = text.split("\0")
    # The last header's NUL has left an empty string behind.
    if strings.pop() or len(strings) > 2 * max_variables:
        return None
    each = iter(strings)
    headers = dict(zip(each, each))  # noqa: B905 - an odd one out is found below
    if headers.get("SCGI") != "1" or strings[0] != "CONTENT_LENGTH":
        return None
    if "" in headers or "wsgi." in text:
        return None
    if 2 * len(headers) == len(strings):
        return headers, ()
    if len(strings) % 2:
        return None
    repeated = repeated_names(strings[0::2], len(headers))
    # These two must not be ambiguous.
    if "CONTENT_LENGTH" in repeated or "SCGI" in repeated:
        return None
    return headers, repeated


class ClientConnection(DocumentClient):
    """The end that makes the request; the SCGI text calls it the SCGI client, the web server.

    The headers are sent as CONTENT_LENGTH (added as 0 where the Request has none, or an empty
    one, RFC 3875 §4.1.2), SCGI, and then the others in their order.  Other repeated names pass:
    nginx sends them too.  The answer's head is bounded to 64 KiB.
    """

    protocol = "SCGI"
    _rule = "SCGI 2"
    _body_rule = "SCGI 3"

    __slots__ = ()

    def _send_request(self, request: Request) -> None:
        first: dict[bytes, bytes] = {}
        others: list[tuple[bytes, bytes]] = []
        for name, value in request.variables:
            if not name or b"\0" in name or b"\0" in value:
                raise LocalProtocolError(
                    f"SCGI cannot carry the variable {name[:40]!r}: NUL or an empty name",
                    rule="SCGI 3",
                )
            if name not in (b"CONTENT_LENGTH", b"SCGI"):
                others.append((name, value))
            elif name in first:
                raise LocalProtocolError(f"{name.decode()} is there twice", rule="SCGI 3")
            else:
                first[name] = value
        content_length = first.get(b"CONTENT_LENGTH") or b"0"
        if first.get(b"SCGI", b"1") != b"1":
            raise LocalProtocolError(f"SCGI is {first[b'SCGI'][:40]!r}, not 1", rule="SCGI 3")
        self._announce_body(content_length, "SCGI 3")
        pairs = [(b"CONTENT_LENGTH", content_length), (b"SCGI", b"1"), *others]
        headers = b"".join([b"%b\0%b\0" % pair for pair in pairs])
        self._outbox.append(b"%d:%b," % (len(headers), headers))


def serve(application: WSGIApplication | str, *addresses: str, **options: Any) -> None:
    """Serve `application` over SCGI until stopped: `gateways.serve` with SCGI as the protocol.

    A bare HOST:PORT, unix:/path or /path means SCGI.  Without an address this is `gateways.run`
    with SCGI as the protocol.  `options` and errors are those of `gateways.serve`.
    """
    from gateways import server

    server.serve(application, *addresses, default_protocol="scgi", **options)
