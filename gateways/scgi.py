"""SCGI, both ends, without I/O.

Implements Neil Schemenauer's "SCGI: A Simple Common Gateway Interface alternative" (2008-06-23),
cited as SCGI 2 and SCGI 3, and the part of Bernstein's netstrings that it uses.  The answer, which
that text leaves open, is a CGI response (RFC 3875 §6): response.py writes and reads its head.

The headers wait in a bounded buffer until their netstring is complete, are split once at their
NULs, and become one Request.  The body is counted against CONTENT_LENGTH and handed on as it
arrives, never held.  One connection carries one request; the end of the answer is the end of the
connection.  What the variables mean is left to environ.py.
"""

from __future__ import annotations

from gateways.buffer import ReceiveBuffer
from gateways.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from gateways.events import (
    EndOfRequest,
    EndOfResponse,
    ErrorOutput,
    Event,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
)
from gateways.response import HeadParser, write_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from _typeshed.wsgi import WSGIApplication

DEFAULT_ADDRESS = "scgi://127.0.0.1:4000"

# Eighteen digits are an exabyte.  The digits are counted before they become an int, because the
# value of a header may be as long as all headers together and int() of it would be quadratic.
MAX_CONTENT_LENGTH_DIGITS = 18


class ServerConnection:
    """The end that receives the request; the SCGI text calls it the SCGI server.

    `max_variables` bounds the number of headers, `max_variable_bytes` the length of their
    netstring; both are checked before anything of that size is held.

    A fault in the headers ends the connection, since there is no other request on it; after the
    RemoteProtocolError an answer (a Response and what follows it) may still be sent.
    """

    protocol = "SCGI"

    RECEIVED: dict[str, dict[type[Event], str]] = {
        "HEAD": {Request: "BODY"},
        "BODY": {RequestBody: "BODY", EndOfRequest: "COMPLETE", RequestAborted: "COMPLETE"},
        "COMPLETE": {},
    }

    SENT: dict[str, dict[type[Event], str]] = {
        "IDLE": {},
        "HEAD": {Response: "BODY", ErrorOutput: "HEAD", RequestAborted: "ENDED"},
        "BODY": {
            ResponseBody: "BODY",
            ErrorOutput: "BODY",
            EndOfResponse: "ENDED",
            RequestAborted: "ENDED",
        },
        "ENDED": {},
    }

    def __init__(self, *, max_variables: int = 1000, max_variable_bytes: int = 131072) -> None:
        self._max_variables = max_variables
        self._max_variable_bytes = max_variable_bytes
        self._max_digits = len(str(max_variable_bytes))
        self._receiving = "HEAD"
        self._sending = "IDLE"
        self._buffer = ReceiveBuffer()
        self._headers_end = 0  # bytes that the headers and their comma take, 0 while unknown
        self._content_length = 0
        self._remaining = 0  # bytes of the body still to come
        self._outbox: list[bytes] = []
        self._must_close = False
        self._aborted = False

    def receive_data(self, data: bytes, /) -> list[Event]:
        """Take what was received, b"" at end of file; return the events it completed.

        Raises RemoteProtocolError (LimitExceeded, TruncatedMessage) for headers that break SCGI 3.
        Whatever comes after such a fault, after the body or after end of file is ignored.
        """
        events: list[Event] = []
        try:
            if self._receiving == "HEAD":
                data = self._receive_head(data, events)
                # An empty body is complete with the head, without another byte.
                if self._receiving == "BODY":
                    self._receive_body(data, events)
            elif self._receiving == "BODY":
                if data:
                    self._receive_body(data, events)
                else:
                    self._truncated_body(events)
        except RemoteProtocolError:
            # Only the head has faults, and no event comes before it: the error's events are none.
            self._receiving = "COMPLETE"
            self._sending = "HEAD"
            self._must_close = True
            self._buffer = ReceiveBuffer()
            raise
        # Bytes past the body are no fault: nginx with request buffering off announces the bytes
        # it holds at that time and then sends the rest of the body as well.
        return events

    def send(self, event: Event, /) -> None:
        """Put the bytes of `event` into the outbox.

        Raises LocalProtocolError when the event is not allowed now, or for a head that cannot be
        written.  ErrorOutput is dropped, since SCGI has no such stream.  RequestAborted ends the
        answer where it stands: see `aborted`.
        """
        state = _next_state(self.SENT, self._sending, event)
        if type(event) is Response:
            self._outbox.append(write_head(event.status, event.headers))
        elif type(event) is ResponseBody:
            self._outbox.append(event.data)
        elif type(event) is RequestAborted:
            self._aborted = True
        self._sending = state
        if state == "ENDED":
            self._must_close = True

    def data_to_send(self) -> bytes:
        """Empty the outbox."""
        data = b"".join(self._outbox)
        self._outbox.clear()
        return data

    def want_body(self, request_id: int, /) -> None:
        """Do nothing: the web server sends the body unasked."""

    @property
    def head_pending(self) -> bool:
        """True while the headers have begun to arrive and are not complete."""
        return self._receiving == "HEAD" and (self._headers_end or len(self._buffer)) > 0

    @property
    def must_close(self) -> bool:
        """True once the answer has been sent, after a fault, and when the peer left before a request."""
        return self._must_close

    @property
    def aborted(self) -> bool:
        """True once the answer was given up: close in a way that the peer cannot take for its end.

        The end of an SCGI answer is the end of the connection, so only a reset tells them apart.
        """
        return self._aborted

    def _emit(self, event: Event, events: list[Event]) -> None:
        self._receiving = self.RECEIVED[self._receiving][type(event)]
        events.append(event)

    def _receive_head(self, data: bytes, events: list[Event]) -> bytes:
        """Read the netstring of the headers; return the bytes behind it."""
        buffer = self._buffer
        if not data:
            self._end_of_head()
            return b""
        buffer.append(data)
        if not self._headers_end:
            self._receive_length()
        if not self._headers_end or len(buffer) < self._headers_end:
            return b""
        netstring = buffer.take(self._headers_end)
        if not netstring.endswith(b","):
            raise RemoteProtocolError(
                f"the headers end with {netstring[-1:]!r}, expected ','", rule="SCGI 3"
            )
        variables = self._parse_headers(netstring[:-1])
        self._content_length = self._remaining = int(variables[0][1])
        self._sending = "HEAD"
        self._emit(Request(0, variables), events)
        return buffer.take(len(buffer))

    def _receive_length(self) -> None:
        """Read "LENGTH:" where it is complete, and refuse it at the first byte that is wrong.

        Stopping at the first wrong byte, and naming no other, makes the fault the same however
        the bytes were cut.
        """
        prefix = self._buffer.peek(self._max_digits + 1)
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
        if len(digits) > self._max_digits or (colon and int(digits) > self._max_variable_bytes):
            raise LimitExceeded(
                f"the headers are over {self._max_variable_bytes} bytes", rule="SCGI 3"
            )
        if colon:
            self._buffer.skip(len(digits) + 1)
            self._headers_end = int(digits) + 1

    def _parse_headers(self, headers: bytes) -> list[tuple[bytes, bytes]]:
        if not headers.endswith(b"\0"):
            raise RemoteProtocolError(
                "the headers are empty or end without NUL, expected name NUL value NUL",
                rule="SCGI 3",
            )
        count = headers.count(b"\0")
        if count > 2 * self._max_variables:
            raise LimitExceeded(f"over {self._max_variables} headers", rule="SCGI 3")
        if count % 2:
            raise RemoteProtocolError("the last header has a name and no value", rule="SCGI 3")
        strings = headers.split(b"\0")
        strings.pop()
        names = strings[0::2]
        variables = list(zip(names, strings[1::2], strict=True))
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
        _check_content_length(variables[0][1])
        if (b"SCGI", b"1") not in variables:
            raise RemoteProtocolError("there is no header SCGI with the value 1", rule="SCGI 3")
        return variables

    def _receive_body(self, data: bytes, events: list[Event]) -> None:
        body = data[: self._remaining]
        if body:
            self._remaining -= len(body)
            self._emit(RequestBody(0, body), events)
        if not self._remaining:
            self._emit(EndOfRequest(0), events)

    def _end_of_head(self) -> None:
        # A connection that closes without a byte is a probe, or one opened ahead of need.
        if self.head_pending:
            raise TruncatedMessage("end of file inside the headers", rule="SCGI 3")
        self._receiving = "COMPLETE"
        self._must_close = True

    def _truncated_body(self, events: list[Event]) -> None:
        received = self._content_length - self._remaining
        error = TruncatedMessage(
            f"end of file after {received} of {self._content_length} bytes of the body",
            rule="SCGI 3",
        )
        self._emit(RequestAborted(0, error), events)


class ClientConnection:
    """The end that makes the request; the SCGI text calls it the SCGI client, the web server.

    The headers are sent as CONTENT_LENGTH (added as 0 where the Request has none, or an empty
    one, RFC 3875 §4.1.2), SCGI, and then the others in their order.  Other repeated names pass:
    nginx sends them too.  The answer's head is bounded to 64 KiB.
    """

    protocol = "SCGI"

    SENT: dict[str, dict[type[Event], str]] = {
        "IDLE": {Request: "BODY"},
        "BODY": {RequestBody: "BODY", EndOfRequest: "COMPLETE", RequestAborted: "ENDED"},
        "COMPLETE": {RequestAborted: "ENDED"},
        "ENDED": {},
    }

    RECEIVED: dict[str, dict[type[Event], str]] = {
        "IDLE": {},
        "HEAD": {Response: "BODY", RequestAborted: "ENDED"},
        "BODY": {ResponseBody: "BODY", EndOfResponse: "ENDED"},
        "ENDED": {},
    }

    def __init__(self) -> None:
        self._sending = "IDLE"
        self._receiving = "IDLE"
        self._remaining = 0  # bytes of the body still to be sent
        self._head = HeadParser()
        self._outbox: list[bytes] = []
        self._must_close = False

    def send(self, event: Event, /) -> None:
        """Put the bytes of `event` into the outbox.

        Raises LocalProtocolError when the event is not allowed now, for variables that SCGI cannot
        carry, and for a body that is longer or shorter than CONTENT_LENGTH.  RequestAborted sends
        nothing: SCGI aborts by closing the connection.
        """
        state = _next_state(self.SENT, self._sending, event)
        if type(event) is Request:
            self._send_request(event)
        elif type(event) is RequestBody:
            self._send_body(event.data)
        elif type(event) is EndOfRequest:
            self._check_complete()
        elif type(event) is RequestAborted:
            self._receiving = "ENDED"
            self._must_close = True
        self._sending = state

    def receive_data(self, data: bytes, /) -> list[Event]:
        """Take what was received, b"" at end of file; return the events it completed.

        End of file after the head is the end of the answer; before it, RequestAborted.  Raises
        RemoteProtocolError for a head that breaks RFC 3875 §6, or bytes before a request was sent.
        Whatever comes after such a fault or after an abort is ignored.
        """
        events: list[Event] = []
        if not data:
            self._end_of_file(events)
        elif self._receiving == "BODY":
            self._emit(ResponseBody(0, data), events)
        elif self._receiving != "ENDED":
            try:
                self._receive_head(data, events)
            except RemoteProtocolError:
                # Only the head has faults, and no event comes before it.
                self._receiving = "ENDED"
                self._must_close = True
                if self._sending == "IDLE":
                    self._sending = "ENDED"
                raise
        return events

    def data_to_send(self) -> bytes:
        """Empty the outbox."""
        data = b"".join(self._outbox)
        self._outbox.clear()
        return data

    @property
    def must_close(self) -> bool:
        """True once the answer has ended, the request was aborted, or a fault was seen."""
        return self._must_close

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
        if not content_length.isdigit() or len(content_length) > MAX_CONTENT_LENGTH_DIGITS:
            raise LocalProtocolError(
                f"CONTENT_LENGTH is {content_length[:40]!r}, expected ASCII digits", rule="SCGI 3"
            )
        pairs = [(b"CONTENT_LENGTH", content_length), (b"SCGI", b"1"), *others]
        headers = b"".join([b"%b\0%b\0" % pair for pair in pairs])
        self._outbox.append(b"%d:%b," % (len(headers), headers))
        self._remaining = int(content_length)
        self._receiving = "HEAD"

    def _send_body(self, data: bytes) -> None:
        if len(data) > self._remaining:
            raise LocalProtocolError(
                f"{len(data)} bytes of the body, CONTENT_LENGTH leaves {self._remaining}",
                rule="SCGI 3",
            )
        self._remaining -= len(data)
        self._outbox.append(data)

    def _check_complete(self) -> None:
        if self._remaining:
            raise LocalProtocolError(
                f"the body is {self._remaining} bytes shorter than CONTENT_LENGTH", rule="SCGI 3"
            )

    def _emit(self, event: Event, events: list[Event]) -> None:
        self._receiving = self.RECEIVED[self._receiving][type(event)]
        events.append(event)

    def _receive_head(self, data: bytes, events: list[Event]) -> None:
        if self._receiving == "IDLE":
            raise RemoteProtocolError("an answer before a request was sent", rule="SCGI 2")
        response, body = self._head.receive(data)
        if response is not None:
            self._emit(response, events)
        if body:
            self._emit(ResponseBody(0, body), events)

    def _end_of_file(self, events: list[Event]) -> None:
        if self._receiving == "HEAD":
            error = TruncatedMessage(
                "end of file before the answer's head was complete",
                protocol="SCGI",
                rule="RFC 3875 6",
                status_hint=502,
            )
            self._emit(RequestAborted(0, error), events)
        elif self._receiving == "BODY":
            self._emit(EndOfResponse(0), events)
        elif self._receiving == "IDLE":
            # The peer has closed, so that a request sent now could not be answered.
            self._receiving = self._sending = "ENDED"
        self._must_close = True


def _next_state(table: dict[str, dict[type[Event], str]], state: str, event: Event) -> str:
    try:
        following = table[state][type(event)]
    except KeyError:
        raise LocalProtocolError(
            f"{type(event).__name__} cannot be sent in the state {state}", rule="SCGI 2"
        ) from None
    if event.request_id:
        raise LocalProtocolError(
            f"request id {event.request_id}, but SCGI has no request ids: use 0", rule="SCGI 2"
        )
    return following


def _check_content_length(value: bytes) -> None:
    # bytes.isdigit knows the ASCII digits only, where int() would take '+1', '1_0' and ' 1'.
    if not value.isdigit():
        raise RemoteProtocolError(
            f"CONTENT_LENGTH is {value[:40]!r}, expected ASCII digits", rule="SCGI 3"
        )
    if len(value) > MAX_CONTENT_LENGTH_DIGITS:
        raise LimitExceeded(
            f"CONTENT_LENGTH has {len(value)} digits, the most is {MAX_CONTENT_LENGTH_DIGITS}",
            rule="SCGI 3",
            status_hint=413,
        )


def serve(application: WSGIApplication | str, *addresses: str, **options: Any) -> None:
    """Serve `application` over SCGI until stopped: `gateways.serve` with SCGI as the protocol.

    A bare HOST:PORT, unix:/path or /path means SCGI; the default address is
    scgi://127.0.0.1:4000.  `options` and errors are those of `gateways.serve`.
    """
    from gateways import server

    server.serve(
        application, *(addresses or (DEFAULT_ADDRESS,)), default_protocol="scgi", **options
    )
