"""CGI (RFC 3875), both ends, without I/O.

`ServerConnection` is the script's end: the meta-variables arrive whole (§4.1), the message-body as
bytes of standard input (§4.2), and the answer goes out as a CGI response (§6).  `ClientConnection`
is the web server's end: it makes a child's environment and standard input, and reads its standard
output.  Both keep the contract of interface.py, as FastCGI and SCGI do.

The head of the answer is response.py's; what the variables mean is left to environ.py.  Reading
the real environment and the real files is left to the edges.  NPH scripts (§5) and the command
line of an indexed query (§4.4) are not implemented.

Every CGI request pays for this import, so it imports only what costs nothing.
"""

from __future__ import annotations

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

# Eighteen digits are an exabyte.  The digits are counted before they become an int, because int()
# of a value as long as an environment would be quadratic.
MAX_CONTENT_LENGTH_DIGITS = 18


class ServerConnection:
    """The end that receives the request; RFC 3875 calls it the script.

    Call `receive_variables` once, then `receive_data` with bytes of standard input while
    `wants_data`, never reading more than `remaining` of them.
    """

    protocol = "CGI"

    RECEIVED: dict[str, dict[type[Event], str]] = {
        "VARIABLES": {Request: "BODY", RequestAborted: "COMPLETE"},
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

    def __init__(self) -> None:
        self._receiving = "VARIABLES"
        self._sending = "IDLE"
        self._content_length = 0
        self._remaining: int | None = 0
        self._outbox: list[bytes] = []
        self._aborted = False

    def receive_variables(self, pairs: list[tuple[bytes, bytes]], /) -> list[Event]:
        """Take the meta-variables (RFC 3875 §4.1) and return the events they complete.

        That is a Request, and EndOfRequest with it where there is no message-body.  A
        CONTENT_LENGTH that is no length is RequestAborted alone, so that no application starts;
        the answer to it may be sent.  Raises LocalProtocolError when called twice.
        """
        if self._receiving != "VARIABLES":
            raise LocalProtocolError("the meta-variables were received before", rule="RFC 3875 4.1")
        events: list[Event] = []
        self._sending = "HEAD"
        try:
            self._remaining = _body_length(pairs)
        except RemoteProtocolError as error:
            self._emit(RequestAborted(0, error), events)
            return events
        self._content_length = self._remaining or 0
        self._emit(Request(0, pairs, body_delimited=self._remaining is None), events)
        if self._remaining == 0:
            self._emit(EndOfRequest(0), events)
        return events

    def receive_data(self, data: bytes, /) -> list[Event]:
        """Take bytes of standard input, b"" at end of file; return the events they complete.

        Extension data past the message-body is ignored (§4.2).  Raises LocalProtocolError before
        `receive_variables`, and nothing else.
        """
        if self._receiving == "VARIABLES":
            raise LocalProtocolError("the meta-variables come first", rule="RFC 3875 4.1")
        events: list[Event] = []
        if self._receiving == "BODY":
            if not data:
                self._end_of_file(events)
            else:
                self._receive_body(data, events)
        return events

    def send(self, event: Event, /) -> None:
        """Put the bytes of `event` into the outbox, which is for standard output.

        Raises LocalProtocolError when the event is not allowed now, or for a head that cannot be
        written.  ErrorOutput is dropped: standard error is the edge's own.  RequestAborted ends
        the answer where it stands: see `aborted`.
        """
        state = _next_state(self.SENT, self._sending, event)
        if type(event) is Response:
            self._outbox.append(write_head(event.status, event.headers))
        elif type(event) is ResponseBody:
            self._outbox.append(event.data)
        elif type(event) is RequestAborted:
            self._aborted = True
        self._sending = state

    def data_to_send(self) -> bytes:
        """Empty the outbox."""
        data = b"".join(self._outbox)
        self._outbox.clear()
        return data

    def want_body(self, request_id: int, /) -> None:
        """Do nothing: standard input is there to be read."""

    @property
    def head_pending(self) -> bool:
        """False: the meta-variables arrive whole."""
        return False

    @property
    def wants_data(self) -> bool:
        """True while bytes of the message-body are missing: otherwise standard input is not read.

        A script need not be given an end of file after the body, nor any standard input without
        one, so that reading could wait for ever.
        """
        return self._receiving == "BODY"

    @property
    def remaining(self) -> int | None:
        """The most bytes that may be read from standard input now (§4.2); None is until its end."""
        return self._remaining if self._receiving == "BODY" else 0

    @property
    def must_close(self) -> bool:
        """True once the answer has been sent or given up."""
        return self._sending == "ENDED"

    @property
    def aborted(self) -> bool:
        """True once the answer was given up: exit in a way that says so, with a status not 0."""
        return self._aborted

    def _emit(self, event: Event, events: list[Event]) -> None:
        self._receiving = self.RECEIVED[self._receiving][type(event)]
        events.append(event)

    def _receive_body(self, data: bytes, events: list[Event]) -> None:
        if self._remaining is None:
            self._emit(RequestBody(0, data), events)
            return
        data = data[: self._remaining]
        self._remaining -= len(data)
        self._emit(RequestBody(0, data), events)
        if not self._remaining:
            self._emit(EndOfRequest(0), events)

    def _end_of_file(self, events: list[Event]) -> None:
        if self._remaining is None:
            self._emit(EndOfRequest(0), events)
            return
        received = self._content_length - self._remaining
        error = TruncatedMessage(
            f"end of file after {received} of {self._content_length} bytes of the message-body",
            protocol="CGI",
            rule="RFC 3875 4.2",
        )
        self._emit(RequestAborted(0, error), events)


class ClientConnection:
    """The end that makes the request; RFC 3875 calls it the server.

    Sending a Request makes `environment`; the bytes of the message-body come out of
    `data_to_send` for the child's standard input, which is closed after EndOfRequest.  Then
    `receive_data` takes its standard output.  The answer's head is bounded to 64 KiB.

    Setting the meta-variables that §4.1 asks for is left to the caller.
    """

    protocol = "CGI"

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
        self.environment: dict[bytes, bytes] = {}
        self._sending = "IDLE"
        self._receiving = "IDLE"
        self._remaining: int | None = 0  # bytes of the body still to be sent, None when unknown
        self._head = HeadParser()
        self._outbox: list[bytes] = []
        self._must_close = False

    def send(self, event: Event, /) -> None:
        """Put the bytes of `event` into the outbox, or the variables into `environment`.

        Raises LocalProtocolError when the event is not allowed now, for variables that no
        environment can carry, and for a body that is longer or shorter than CONTENT_LENGTH.
        RequestAborted sends nothing: end the child.
        """
        state = _next_state(self.SENT, self._sending, event)
        if type(event) is Request:
            self._send_request(event)
        elif type(event) is RequestBody:
            self._send_body(event.data)
        elif type(event) is EndOfRequest and self._remaining:
            raise LocalProtocolError(
                f"the body is {self._remaining} bytes shorter than CONTENT_LENGTH",
                protocol="CGI",
                rule="RFC 3875 4.2",
            )
        elif type(event) is RequestAborted:
            self._receiving = "ENDED"
            self._must_close = True
        self._sending = state

    def receive_data(self, data: bytes, /) -> list[Event]:
        """Take bytes of standard output, b"" at end of file; return the events they complete.

        End of file after the head is the end of the answer; before it, RequestAborted.  Raises
        RemoteProtocolError for a head that breaks §6, or bytes before a request was sent.
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
        environment: dict[bytes, bytes] = {}
        for name, value in request.variables:
            if not name or b"=" in name or b"\0" in name or b"\0" in value:
                raise LocalProtocolError(
                    f"no environment can carry the variable {name[:40]!r}: NUL, '=' or an empty name",
                    protocol="CGI",
                    rule="RFC 3875 4.1",
                )
            if name in environment:
                # §4.1.18 has the server make one variable of repeated header fields.
                raise LocalProtocolError(
                    f"{name[:40]!r} is there twice", protocol="CGI", rule="RFC 3875 4.1.18"
                )
            environment[name] = value
        # The Proxy header of a client would name the proxy of every HTTP library in the child
        # (httpoxy, CVE-2016-5385); §4.1.18 lets a server leave header fields out.
        environment.pop(b"HTTP_PROXY", None)
        content_length = environment.get(b"CONTENT_LENGTH", b"")
        if content_length:
            if not content_length.isdigit() or len(content_length) > MAX_CONTENT_LENGTH_DIGITS:
                raise LocalProtocolError(
                    f"CONTENT_LENGTH is {content_length[:40]!r}, expected ASCII digits",
                    protocol="CGI",
                    rule="RFC 3875 4.1.2",
                )
            self._remaining = int(content_length)
        elif request.body_delimited:
            self._remaining = None
        self.environment = environment
        self._receiving = "HEAD"

    def _send_body(self, data: bytes) -> None:
        if self._remaining is not None:
            if len(data) > self._remaining:
                raise LocalProtocolError(
                    f"{len(data)} bytes of the body, CONTENT_LENGTH leaves {self._remaining}",
                    protocol="CGI",
                    rule="RFC 3875 4.2",
                )
            self._remaining -= len(data)
        self._outbox.append(data)

    def _emit(self, event: Event, events: list[Event]) -> None:
        self._receiving = self.RECEIVED[self._receiving][type(event)]
        events.append(event)

    def _receive_head(self, data: bytes, events: list[Event]) -> None:
        if self._receiving == "IDLE":
            raise RemoteProtocolError(
                "an answer before a request was sent",
                protocol="CGI",
                rule="RFC 3875 6",
                status_hint=502,
            )
        response, body = self._head.receive(data)
        if response is not None:
            self._emit(response, events)
        if body:
            self._emit(ResponseBody(0, body), events)

    def _end_of_file(self, events: list[Event]) -> None:
        if self._receiving == "HEAD":
            error = TruncatedMessage(
                "end of file before the answer's head was complete",
                protocol="CGI",
                rule="RFC 3875 6",
                status_hint=502,
            )
            self._emit(RequestAborted(0, error), events)
        elif self._receiving == "BODY":
            self._emit(EndOfResponse(0), events)
        elif self._receiving == "IDLE":
            # The child has closed, so that a request sent now could not be answered.
            self._receiving = self._sending = "ENDED"
        self._must_close = True


def _next_state(table: dict[str, dict[type[Event], str]], state: str, event: Event) -> str:
    try:
        following = table[state][type(event)]
    except KeyError:
        raise LocalProtocolError(
            f"{type(event).__name__} cannot be sent in the state {state}",
            protocol="CGI",
            rule="RFC 3875 6",
        ) from None
    if event.request_id:
        raise LocalProtocolError(
            f"request id {event.request_id}, but CGI has no request ids: use 0",
            protocol="CGI",
            rule="RFC 3875 6",
        )
    return following


def _body_length(variables: list[tuple[bytes, bytes]]) -> int | None:
    """The length of the message-body (§4.1.2), None where only the end of file tells it."""
    lengths = {value for name, value in variables if name == b"CONTENT_LENGTH" and value}
    if len(lengths) > 1:
        raise RemoteProtocolError(
            "two different CONTENT_LENGTHs", protocol="CGI", rule="RFC 3875 4.1.2"
        )
    for value in lengths:
        return _parse_content_length(value)
    # Apache decodes a chunked upload and passes it on without buffering it first, so that no
    # length is known and standard input ends where the body does.
    for name, value in variables:
        if name == b"HTTP_TRANSFER_ENCODING":
            return None if value.lower().rpartition(b",")[2].strip() == b"chunked" else 0
    return 0


def _parse_content_length(value: bytes) -> int:
    # bytes.isdigit knows the ASCII digits only, where int() would take '+1', '1_0' and ' 1'.
    if not value.isdigit():
        raise RemoteProtocolError(
            f"CONTENT_LENGTH is {value[:40]!r}, expected ASCII digits",
            protocol="CGI",
            rule="RFC 3875 4.1.2",
        )
    if len(value) > MAX_CONTENT_LENGTH_DIGITS:
        raise LimitExceeded(
            f"CONTENT_LENGTH has {len(value)} digits, the most is {MAX_CONTENT_LENGTH_DIGITS}",
            protocol="CGI",
            rule="RFC 3875 4.1.2",
            status_hint=413,
        )
    return int(value)


def run(application: WSGIApplication, **options: Any) -> None:
    """Answer the one CGI request in the environment; options are those of `gateways.server.cgi.run`."""
    from gateways.server.cgi import run as run_cgi

    run_cgi(application, **options)
