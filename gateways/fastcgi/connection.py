"""What the two ends of a connection share (§3.3, §5.1): requests, their states, the outbox.

Records of a request go to `_receive_application`, the others to `_receive_management`; the ends
have those.  What a record or an event does to its request is a look-up in the end's tables; a
missing key is the error.  Content is handed on as it comes; only records of fixed layout and the
values of §4.1 are gathered first.
"""

from __future__ import annotations

from gateways.errors import RemoteProtocolError, TruncatedMessage
from gateways.events import Event, FileRange, RequestAborted
from gateways.fastcgi.records import (
    BEGIN_REQUEST,
    CONTENT_SIZE,
    DATA,
    FCGI_VERSION_1,
    HEADER,
    RecordReader,
    local_fault,
    remote_fault,
    type_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.events import PlainText
    from gateways.fastcgi.pairs import PairReader
    from gateways.headparser import HeadParser


class Exchange:
    """A request and its answer while the id is active (§3.3), as either end knows them.

    `received` and `sent` are states of that end's tables.  `pairs`, `block`, `plain` and
    `has_errors` are the server end's, `head` and `errors_ended` the client end's.  `plain` is what
    `plain_text` makes of PARAMS where all of it was in one record, `block`; otherwise the stream
    goes through `pairs`.
    """

    __slots__ = (
        "request_id",
        "role",
        "keep_conn",
        "received",
        "sent",
        "pairs",
        "block",
        "plain",
        "has_errors",
        "head",
        "errors_ended",
    )

    head: HeadParser

    def __init__(
        self, request_id: int, role: str, keep_conn: bool, *, received: str, sent: str
    ) -> None:
        self.request_id = request_id
        self.role = role
        self.keep_conn = keep_conn
        self.received = received
        self.sent = sent
        self.pairs: PairReader | None = None
        self.block = b""
        self.plain: PlainText | None = None
        self.has_errors = False
        self.errors_ended = False


# What a connection has until the first bytes: one that carries a single request, which came whole,
# never needs a reader of its own.
_NO_READER = RecordReader()


class Connection:
    """What the two ends share.  In the tables a type with a minus sign is an empty record."""

    __slots__ = (
        "_reader",
        "_gathered",
        "_requests",
        "_events",
        "_outbox",
        "_at_end",
        "_close_when_idle",
        "_closed",
    )

    protocol = "FastCGI"

    SENT: dict[str, dict[type[Event], str]]
    STATUS_HINT = 0  # of every fault of the peer, 0 to leave it to the error

    def __init__(self) -> None:
        self._open_connection()

    def _open_connection(self) -> None:
        self._reader = _NO_READER
        self._gathered: bytearray | None = None
        self._requests: dict[int, Exchange] = {}
        self._events: list[Event] = []
        self._outbox: list[bytes | memoryview | FileRange] = []
        self._at_end = False
        self._close_when_idle = False
        self._closed = False

    def receive_data(self, data: bytes | memoryview, /) -> list[Event]:
        """Take what was received, b"" at end of file; return the events it completed.

        Raises RemoteProtocolError for a fault that ends the connection.  Whatever comes after
        that, after end of file or once `must_close` is true is ignored.  Of a memoryview nothing is
        kept: what it shows may change afterwards.
        """
        events: list[Event] = []
        if self._at_end or self._is_over():
            return events
        self._events = events
        try:
            if data:
                self._receive(data)
            else:
                self._at_end = True
                self._receive_end()
        except RemoteProtocolError as error:
            self._closed = True
            error.events = events
            error.status_hint = self.STATUS_HINT or error.status_hint
            raise
        finally:
            self._events = []  # an idle connection holds on to nobody's body
        return events

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
        """True after a fault of the connection; and, once no request is open, after one without
        FCGI_KEEP_CONN (§5.1) and after end of file."""
        return self._is_over()

    def _is_over(self) -> bool:
        return self._closed or ((self._close_when_idle or self._at_end) and not self._requests)

    def _receive(self, data: bytes | memoryview) -> None:
        if self._reader is _NO_READER:
            self._reader = RecordReader()
        # Slices of a memoryview copy nothing: what is kept of them is copied when it is known.
        for record_type, request_id, content, last in self._reader.read(memoryview(data)):
            if request_id:
                self._receive_application(record_type, request_id, content, last)
                if self._close_when_idle and not self._requests:
                    return  # what follows is ignored, just as if it came in a later call
            elif BEGIN_REQUEST <= record_type <= DATA:
                message = (
                    f"{type_name(record_type)} with request id 0, which is for management records"
                )
                raise remote_fault(message, "3.3")
            else:
                self._receive_management(record_type, bytes(content), last)

    def _receive_end(self) -> None:
        if self._reader.inside and not self._requests:
            # With requests open the cut shows in those it hurts, and others can be answered.
            raise remote_fault("end of file inside a record", "3.3", kind=TruncatedMessage)

    def _receive_management(self, record_type: int, content: bytes, last: bool) -> None:
        raise NotImplementedError

    def _receive_application(
        self, record_type: int, request_id: int, content: memoryview, last: bool
    ) -> None:
        raise NotImplementedError

    def _gather(self, content: bytes | memoryview, last: bool) -> bytes | None:
        """Return a record's content once it is whole; its length field bounds it to 65,535."""
        if self._gathered is None:
            if last:
                return bytes(content)
            self._gathered = bytearray()
        self._gathered += content
        if not last:
            return None
        whole = bytes(self._gathered)
        self._gathered = None
        return whole

    def _check_size(self, record_type: int, section: str) -> None:
        size = self._reader.content_length
        if size != 8:
            # A peer whose fixed records differ speaks something else, whatever the version says.
            raise remote_fault(f"{type_name(record_type)} holds {size} bytes, must be 8", section)

    def _enter(
        self,
        request: Exchange,
        record_type: int,
        empty: bool,
        states: dict[str, dict[int, str]],
    ) -> bool:
        """Move to the state that a record leads to; where it leads to none the request fails.

        That is so for an unknown type, too: FCGI_UNKNOWN_TYPE answers management records only
        (§4.2), and what the record was meant to do for its request cannot be guessed.
        """
        after = states[request.received].get(-record_type if empty else record_type)
        if after is None:
            what = f"{'an empty ' if empty else ''}{type_name(record_type)} in state {request.received}"
            self._fail(request, remote_fault(what, "6.1", request.request_id))
            return False
        request.received = after
        return True

    def _fail(self, request: Exchange, error: RemoteProtocolError) -> None:
        request.received = "FAILED"
        error.status_hint = self.STATUS_HINT or error.status_hint
        self._events.append(RequestAborted(request.request_id, error))

    def _next_sent(self, event: Event) -> tuple[Exchange, str]:
        """Return the request of an event that is to be sent, and the state it leads to."""
        request_id, name = event.request_id, type(event).__name__
        request = self._requests.get(request_id)
        if request is None:
            raise local_fault(
                f"{name} for request {request_id}, which is not open", "3.3", request_id
            )
        after = self.SENT[request.sent].get(type(event))
        if after is None:
            raise local_fault(f"{name} cannot be sent in state {request.sent}", "6.1", request_id)
        return request, after

    def _write(self, record_type: int, request_id: int, data: bytes | memoryview) -> None:
        """Put records into the outbox; none for b"", since an empty record ends the stream."""
        outbox = self._outbox
        size = len(data)
        if 0 < size <= CONTENT_SIZE:
            outbox.append(HEADER.pack(FCGI_VERSION_1, record_type, request_id, size, 0))
            outbox.append(data)
            return
        view = memoryview(data)
        for start in range(0, size, CONTENT_SIZE):
            piece = view[start : start + CONTENT_SIZE]
            outbox.append(HEADER.pack(FCGI_VERSION_1, record_type, request_id, len(piece), 0))
            outbox.append(piece)

    def _write_empty(self, record_type: int, request_id: int) -> None:
        self._outbox.append(HEADER.pack(FCGI_VERSION_1, record_type, request_id, 0, 0))
