"""What CGI, SCGI and later uwsgi share: one request, then one response document (RFC 3875 §6), on a connection of its own.

The request's body is counted against its CONTENT_LENGTH and handed on as it arrives, never held.
The answer is a CGI response, whose head response.py writes and reads; its end is the end of file.

A protocol module makes its two ends from `DocumentServer` and `DocumentClient`.  It adds the head
of the request, and decides from the variables how long the body is.

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
    RESPONDER,
    EndOfRequest,
    EndOfResponse,
    ErrorOutput,
    Event,
    FileRange,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
    ResponseFile,
    WholeAnswer,
)
from gateways.response import write_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateways.events import Undecoded

Table = dict[str, dict[type[Event], str]]
"""State → event → the next state.  A missing key is the error; the first state is the beginning."""

JOINED_SIZE = 8192
"""Up to this size a whole body is one buffer with its head: copying costs less than another buffer."""

# Eighteen digits are an exabyte.  The digits are counted before they become an int, because the
# value may be as long as all variables together and int() of it would be quadratic.
MAX_CONTENT_LENGTH_DIGITS = 18


def read_content_length(value: bytes, *, rule: str, protocol: str = "") -> int:
    """Return the length that a peer announced; `rule` and `protocol` are for its errors.

    Raises RemoteProtocolError for anything but ASCII digits, LimitExceeded for too many of them.
    """
    # bytes.isdigit knows the ASCII digits only, where int() would take '+1', '1_0' and ' 1'.
    if not value.isdigit():
        raise RemoteProtocolError(
            f"CONTENT_LENGTH is {value[:40]!r}, expected ASCII digits", protocol=protocol, rule=rule
        )
    if len(value) > MAX_CONTENT_LENGTH_DIGITS:
        raise LimitExceeded(
            f"CONTENT_LENGTH has {len(value)} digits, the most is {MAX_CONTENT_LENGTH_DIGITS}",
            protocol=protocol,
            rule=rule,
            status_hint=413,
        )
    return int(value)


class DocumentConnection:
    """Abstract: what the two ends share.

    Each end of a protocol names it, and the sections that its errors cite: `_rule` for what may
    be sent when, `_body_rule` for the length of the request's body.
    """

    protocol: str
    _rule: str
    _body_rule: str

    SENT: Table
    RECEIVED: Table

    __slots__ = (
        "_sending",
        "_receiving",
        "_content_length",
        "_remaining",
        "_outbox",
        "_must_close",
        "_aborted",
    )

    def _start(self, sending: str, receiving: str) -> None:
        """Begin in the first states of the two tables."""
        self._sending = sending
        self._receiving = receiving
        # Bytes of the request's body that were announced, and those that are still missing, None
        # when unknown.
        self._content_length = 0
        self._remaining: int | None = 0
        self._outbox: list[bytes | memoryview | FileRange] = []
        self._must_close = False
        self._aborted = False

    def data_to_send(self) -> bytes:
        """Empty the outbox.

        Raises TypeError, and leaves the outbox as it is, where it holds a FileRange: that is for
        `buffers_to_send`.
        """
        data = b"".join(self._outbox)  # type: ignore[arg-type]  # a FileRange is the TypeError
        self._outbox.clear()
        return data

    def buffers_to_send(self) -> list[bytes | memoryview | FileRange]:
        """Empty the outbox, as buffers for a gathered write.  Large data in it is not copied."""
        outbox = self._outbox
        self._outbox = []
        return outbox

    @property
    def must_close(self) -> bool:
        """True once the connection can carry nothing more.

        That is when the answer has ended or this end gave up, after a fault of the connection,
        and when the peer left before a request.
        """
        return self._must_close

    def _next_state(self, event: Event) -> str:
        following = self.SENT[self._sending].get(type(event))
        if following is None or event.request_id:
            raise self._refusal(event, following)
        return following

    def _refusal(self, event: Event, following: str | None) -> LocalProtocolError:
        if following is None:
            message = f"{type(event).__name__} cannot be sent in the state {self._sending}"
        else:
            message = (
                f"request id {event.request_id}, but {self.protocol} has no request ids: use 0"
            )
        return LocalProtocolError(message, protocol=self.protocol, rule=self._rule)

    def _emit(self, event: Event, events: list[Event]) -> None:
        self._receiving = self.RECEIVED[self._receiving][type(event)]
        events.append(event)


class DocumentServer(DocumentConnection):
    """Abstract: the end that receives the request.

    The protocol reads the request's head and calls `_receive_request`; in the state BODY it calls
    `_receive_body`.
    """

    SENT: Table = {
        "IDLE": {},
        "HEAD": {
            Response: "BODY",
            ErrorOutput: "HEAD",
            WholeAnswer: "ENDED",
            RequestAborted: "ENDED",
        },
        "BODY": {
            ResponseBody: "BODY",
            ResponseFile: "BODY",
            ErrorOutput: "BODY",
            EndOfResponse: "ENDED",
            RequestAborted: "ENDED",
        },
        "ENDED": {},
    }

    __slots__ = ()

    _body_name = "body"  # the specification's word

    def send(self, event: Event, /) -> None:
        """Put the bytes of `event` into the outbox.

        Raises LocalProtocolError when the event is not allowed now, or for a head that cannot be
        written.  ErrorOutput is dropped, since the answer is the only stream.  RequestAborted ends
        the answer where it stands: see `aborted`.
        """
        state = self.SENT[self._sending].get(type(event))
        if state is None or event.request_id:
            raise self._refusal(event, state)
        outbox = self._outbox
        if isinstance(event, WholeAnswer):
            head = event.head or write_head(event.status, event.headers)
            data = event.data
            if len(data) <= JOINED_SIZE:
                outbox.append(head + data)
            else:
                outbox += (head, data)
        elif isinstance(event, Response):
            outbox.append(event.head or write_head(event.status, event.headers))
        elif isinstance(event, ResponseBody):
            outbox.append(event.data)
        elif isinstance(event, ResponseFile):
            outbox.append(FileRange(event.descriptor, event.offset, event.count))
        elif isinstance(event, RequestAborted):
            self._aborted = True
        self._sending = state
        if state == "ENDED":
            self._must_close = True

    def want_body(self, request_id: int, /) -> None:
        """Do nothing: the body comes unasked."""

    @property
    def aborted(self) -> bool:
        """True once the answer was given up: end it so that the peer cannot take it for complete.

        The end of file says nothing, since it ends every answer.  A script exits with a status
        that is not 0; a connection is reset.
        """
        return self._aborted

    def _receive_request(
        self,
        variables: list[tuple[bytes, bytes]] | Undecoded,
        content_length: int | None,
        body: bytes,
        events: list[Event],
        text: dict[str, str] | None = None,
        repeated: Sequence[str] = (),
    ) -> None:
        """Take a complete head and the bytes behind it; None is a body up to the end of file.

        `variables`, `text` and `repeated` are Request's.
        """
        self._sending = "HEAD"
        self._remaining = content_length
        self._content_length = content_length or 0
        delimited = content_length is None
        request = Request(0, variables, RESPONDER, delimited, False, text, repeated)
        self._emit(request, events)
        # An empty body is complete with the head, without another byte.
        if content_length == 0:
            self._emit(EndOfRequest(0), events)
        elif body:
            self._receive_body(body, events)

    def _receive_body(self, data: bytes | memoryview, events: list[Event]) -> None:
        """Take bytes of the body, b"" at end of file; bytes past it are ignored."""
        # bytes() copies what a memoryview shows, and nothing where the data are bytes.
        if self._remaining is None:
            self._emit(RequestBody(0, bytes(data)) if data else EndOfRequest(0), events)
        elif data:
            data = bytes(data[: self._remaining])
            self._remaining -= len(data)
            self._emit(RequestBody(0, data), events)
            if not self._remaining:
                self._emit(EndOfRequest(0), events)
        else:
            received = self._content_length - self._remaining
            error = TruncatedMessage(
                f"end of file after {received} of {self._content_length} bytes of the {self._body_name}",
                protocol=self.protocol,
                rule=self._body_rule,
            )
            self._emit(RequestAborted(0, error), events)
