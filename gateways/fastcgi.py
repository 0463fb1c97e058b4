"""FastCGI 1.0, the whole specification, both ends, without I/O.

Bytes become records (§3.3), records become events, and the other way round.  RecordReader is the
only code that knows what a record looks like; both ends and `read_records` use it.  It hands
content over as it arrives, so that a record of 64 KiB waits for nothing; only records of fixed
layout are gathered first.  What a record means for its request is a lookup in a table; a missing
key is the error.

Whose fault ends what: a fault that leaves the framing and the other requests sound (bad pairs, a
limit, a record out of order) is an event, RequestAborted(id, error), and that request can still be
answered.  What puts in doubt which bytes belong to what (another version, an application record
without a request id, a BEGIN_REQUEST for an open id, a fixed record of another size) ends the
connection with RemoteProtocolError.

Left to others: what variables and heads mean (environ, response), deadlines and the size of the
outbox (the server).
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from gateways.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from gateways.events import (
    AUTHORIZER,
    FILTER,
    RESPONDER,
    EndOfRequest,
    EndOfResponse,
    ErrorOutput,
    Event,
    FilterData,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
)
from gateways.response import HeadParser, write_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from _typeshed.wsgi import WSGIApplication

DEFAULT_ADDRESS = "fcgi://127.0.0.1:9000"

FCGI_LISTENSOCK_FILENO = 0
FCGI_VERSION_1 = 1
FCGI_HEADER_LEN = 8
FCGI_MAX_LENGTH = 0xFFFF
FCGI_NULL_REQUEST_ID = 0
FCGI_KEEP_CONN = 1
FCGI_MAX_CONNS = "FCGI_MAX_CONNS"
FCGI_MAX_REQS = "FCGI_MAX_REQS"
FCGI_MPXS_CONNS = "FCGI_MPXS_CONNS"


class RecordType(IntEnum):
    """What a record is for (§8); the names are the specification's without FCGI_."""

    BEGIN_REQUEST = 1
    ABORT_REQUEST = 2
    END_REQUEST = 3
    PARAMS = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7
    DATA = 8
    GET_VALUES = 9
    GET_VALUES_RESULT = 10
    UNKNOWN_TYPE = 11


class Role(IntEnum):
    """What the application is asked to be (§5.1)."""

    RESPONDER = 1
    AUTHORIZER = 2
    FILTER = 3


class ProtocolStatus(IntEnum):
    """Why a request ended (§5.5)."""

    REQUEST_COMPLETE = 0
    CANT_MPX_CONN = 1
    OVERLOADED = 2
    UNKNOWN_ROLE = 3


# Plain names for what every record is compared with: a member costs a look-up in its class.
BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT = tuple(RecordType)[:6]
STDERR, DATA, GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = tuple(RecordType)[6:]

ROLES = {Role.RESPONDER: RESPONDER, Role.AUTHORIZER: AUTHORIZER, Role.FILTER: FILTER}
"""The words that events use for the roles."""

_HEADER = Struct(">BBHHBx")
_BEGIN_BODY = Struct(">HB5x")
_END_BODY = Struct(">LB3x")
_UNKNOWN_BODY = Struct(">B7x")

# The largest content below 65,535 that is a multiple of eight: §3.3 recommends that records stay
# aligned, and so they do without padding.
_CONTENT_SIZE = 65528


def _remote(
    message: str,
    section: str,
    request_id: int = 0,
    kind: type[RemoteProtocolError] = RemoteProtocolError,
) -> RemoteProtocolError:
    return kind(message, rule=f"FastCGI {section}", request_id=request_id)


def _local(message: str, section: str, request_id: int = 0) -> LocalProtocolError:
    return LocalProtocolError(message, rule=f"FastCGI {section}", request_id=request_id)


def _name(record_type: int) -> str:
    known = record_type in RecordType.__members__.values()
    return f"FCGI_{RecordType(record_type).name}" if known else f"record type {record_type}"


class Record:
    """One record (§3.3): content of up to 65,535 bytes, padding of up to 255.

    `offset` tells where the record began in what was read.
    """

    __slots__ = ("type", "request_id", "content", "padding_length", "offset")

    def __init__(
        self,
        type: int,
        request_id: int = FCGI_NULL_REQUEST_ID,
        content: bytes = b"",
        padding_length: int = 0,
        offset: int = 0,
    ) -> None:
        self.type = type
        self.request_id = request_id
        self.content = content
        self.padding_length = padding_length
        self.offset = offset

    def encode(self) -> bytes:
        """Return the bytes; LocalProtocolError where a field does not fit into its place."""
        numbers = (self.type, self.request_id, len(self.content), self.padding_length)
        limits = (0xFF, 0xFFFF, FCGI_MAX_LENGTH, 0xFF)
        if not all(0 <= number <= limit for number, limit in zip(numbers, limits, strict=True)):
            raise _local(f"{self!r} does not fit into a record", "3.3")
        return _HEADER.pack(FCGI_VERSION_1, *numbers) + self.content + bytes(self.padding_length)

    def __repr__(self) -> str:
        return (
            f"<Record {_name(self.type)} id={self.request_id} content={len(self.content)} bytes"
            f" padding={self.padding_length} offset={self.offset}>"
        )


class RecordReader:
    """Cuts bytes into records, wherever the bytes themselves were cut (§3.3).

    It keeps nothing but an incomplete header.  `record_type`, `content_length` and
    `padding_length` are those of the record being read, `record_type` 0 inside its header.
    """

    def __init__(self) -> None:
        self.record_type = self.content_length = self.padding_length = 0
        self._request_id = self._content = self._padding = 0
        self._header = b""

    @property
    def inside(self) -> bool:
        """Whether what was read ends inside a record."""
        return bool(self._header or self._content or self._padding)

    def read(self, data: bytes) -> Iterator[tuple[int, int, bytes, bool]]:
        """Yield (record type, request id, content, last), at least once for each record.

        `content` is what there is of the record's content, `last` tells that it is the rest.
        RemoteProtocolError for a version other than 1.
        """
        position, end = 0, len(data)
        while position < end:
            if self._content:
                content = data[position : position + self._content]
                position += len(content)
                self._content -= len(content)
                yield self.record_type, self._request_id, content, not self._content
            elif self._padding:
                skipped = min(self._padding, end - position)
                position += skipped
                self._padding -= skipped
            else:
                self.record_type = 0
                missing = FCGI_HEADER_LEN - len(self._header)
                self._header += data[position : position + missing]
                position += missing
                if position <= end:
                    self._start()
                    if not self._content:
                        yield self.record_type, self._request_id, b"", True

    def _start(self) -> None:
        header, self._header = self._header, b""
        version, record_type, self._request_id, length, padding = _HEADER.unpack(header)
        self.record_type = record_type
        self.content_length = self._content = length
        self.padding_length = self._padding = padding
        if version != FCGI_VERSION_1:
            # Another version may lay out everything after this byte differently, so there is no
            # telling where the next record begins.
            raise _remote(
                f"record version is {version}, must be 1; the header is {header!r}", "3.3"
            )


def read_records(data: bytes) -> Iterator[Record]:
    """Yield each record in `data` with its offset, whatever its type.

    After the whole ones: RemoteProtocolError at a version other than 1, TruncatedMessage where the
    last record is cut.
    """
    reader = RecordReader()
    offset = 0
    contents: list[bytes] = []
    for record_type, request_id, content, last in reader.read(data):
        contents.append(content)
        end = offset + FCGI_HEADER_LEN + reader.content_length + reader.padding_length
        if last and end <= len(data):
            whole = b"".join(contents)
            yield Record(record_type, request_id, whole, reader.padding_length, offset)
            contents.clear()
            offset = end
    if reader.inside:
        cut = f"the data ends {len(data) - offset} bytes into the record at offset {offset}"
        raise _remote(cut, "3.3", kind=TruncatedMessage)


def encode_pair(name: bytes, value: bytes) -> bytes:
    """Return a name-value pair as bytes (§3.4); LocalProtocolError for a length of 2 GiB."""
    return _encode_length(len(name)) + _encode_length(len(value)) + name + value


def _encode_length(length: int) -> bytes:
    if length < 128:
        return bytes((length,))
    if length > 0x7FFFFFFF:
        raise _local("a name or value is 2 GiB or longer", "3.4")
    return (length | 0x80000000).to_bytes(4, "big")


def encode_pairs(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return name-value pairs as bytes, in their order (§3.4)."""
    return b"".join([encode_pair(name, value) for name, value in pairs])


def decode_pairs(
    data: bytes, *, max_variables: int = 65536, max_variable_bytes: int = 1 << 24
) -> list[tuple[bytes, bytes]]:
    """Return the name-value pairs that `data` consists of, repeated names kept (§3.4).

    LimitExceeded past a limit, TruncatedMessage where the last pair is cut, RemoteProtocolError
    for an empty name.
    """
    reader = PairReader(max_variables, max_variable_bytes)
    reader.receive(data)
    reader.end()
    return reader.pairs


class PairReader:
    """Reads a stream of name-value pairs, cut anywhere, within limits (§3.4).

    A length is refused before its bytes are waited for, and only bytes that came are kept.
    """

    __slots__ = ("pairs", "_max_variables", "_max_bytes", "_request_id", "_size", "_rest", "_need")

    def __init__(self, max_variables: int, max_bytes: int, request_id: int = 0) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []
        self._max_variables = max_variables
        self._max_bytes = max_bytes
        self._request_id = request_id
        self._size = 0
        self._rest = bytearray()  # of a pair that is not complete
        self._need = 0  # the size of `_rest` below which decoding it again is in vain

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the stream; errors as `decode_pairs`."""
        # What lies within the limit is decoded first, so that which of two faults is found does
        # not depend on how the stream is cut.
        room = self._max_bytes - self._size
        within = data[:room]
        self._size += len(within)
        if not self._rest:
            self._rest += within[self._decode(within) :]
        else:
            self._rest += within
            if len(self._rest) >= self._need:
                del self._rest[: self._decode(bytes(self._rest))]
        if len(data) > room:
            raise self._too_long()

    def end(self) -> None:
        """Take the end of the stream; TruncatedMessage inside a pair."""
        if self._rest:
            cut = f"name-value pair {len(self.pairs) + 1} is cut by the end of its stream"
            raise _remote(cut, "3.4", self._request_id, TruncatedMessage)

    def _decode(self, data: bytes) -> int:
        """Decode the whole pairs and return where they end; set what the next one needs."""
        # Where the stream's limit stands, counted from the front of `data`.
        limit = self._max_bytes - self._size + len(data)
        start, end = 0, len(data)
        while start < end:
            name_length = data[start]
            position = start + 1
            if name_length > 127:
                position = start + 4
                name_length = int.from_bytes(data[start:position], "big") & 0x7FFFFFFF
            self._need = position + 1 - start
            if position >= end:
                return start
            value_length = data[position]
            name = position + 1
            if value_length > 127:
                name = position + 4
                value_length = int.from_bytes(data[position:name], "big") & 0x7FFFFFFF
                self._need = name - start
                if name > end:
                    return start
            value = name + name_length
            after = value + value_length
            self._need = after - start
            if not name_length or after > limit or len(self.pairs) >= self._max_variables:
                raise self._refusal(name_length, after > limit)
            if after > end:
                return start
            self.pairs.append((data[name:value], data[value:after]))
            start = after
        return start

    def _refusal(self, name_length: int, too_long: bool) -> RemoteProtocolError:
        if not name_length:
            message = f"name-value pair {len(self.pairs) + 1} has an empty name"
            return _remote(message, "3.4", self._request_id)
        if too_long:
            return self._too_long()
        message = f"more than {self._max_variables} name-value pairs"
        return _remote(message, "3.4", self._request_id, LimitExceeded)

    def _too_long(self) -> RemoteProtocolError:
        message = f"name-value pairs of more than {self._max_bytes} bytes"
        return _remote(message, "3.4", self._request_id, LimitExceeded)


class _Exchange:
    """A request and its answer while the id is active (§3.3), as either end knows them.

    `received` and `sent` are states of that end's tables.  `pairs` and `has_errors` are the
    server end's, `head` and `errors_ended` the client end's.
    """

    __slots__ = (
        "request_id",
        "role",
        "keep_conn",
        "received",
        "sent",
        "pairs",
        "has_errors",
        "head",
        "errors_ended",
    )

    pairs: PairReader
    head: HeadParser

    def __init__(
        self, request_id: int, role: str, keep_conn: bool, *, received: str, sent: str
    ) -> None:
        self.request_id = request_id
        self.role = role
        self.keep_conn = keep_conn
        self.received = received
        self.sent = sent
        self.has_errors = False
        self.errors_ended = False


class _Connection:
    """What the two ends share.  In the tables a type with a minus sign is an empty record."""

    protocol = "FastCGI"

    SENT: dict[str, dict[type[Event], str]]
    STATUS_HINT = 0  # of every fault of the peer, 0 to leave it to the error

    def __init__(self) -> None:
        self._reader = RecordReader()
        self._gathered = bytearray()
        self._requests: dict[int, _Exchange] = {}
        self._events: list[Event] = []
        self._outbox: list[bytes | memoryview] = []
        self._at_end = False
        self._close_when_idle = False
        self._closed = False

    def receive_data(self, data: bytes, /) -> list[Event]:
        """Take what was received, b"" at end of file; return the events it completed.

        Raises RemoteProtocolError for a fault that ends the connection.  Whatever comes after
        that, after end of file or once `must_close` is true is ignored.
        """
        events: list[Event] = []
        self._events = events
        if self._at_end or self.must_close:
            return events
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
        """Empty the outbox."""
        outbox = self._outbox
        data = bytes(outbox[0]) if len(outbox) == 1 else b"".join(outbox)
        outbox.clear()
        return data

    @property
    def must_close(self) -> bool:
        """True after a fault of the connection; and, once no request is open, after one without
        FCGI_KEEP_CONN (§5.1) and after end of file."""
        return self._closed or ((self._close_when_idle or self._at_end) and not self._requests)

    def _receive(self, data: bytes) -> None:
        for record_type, request_id, content, last in self._reader.read(data):
            if request_id:
                self._receive_application(record_type, request_id, content, last)
                if self._close_when_idle and not self._requests:
                    return  # what follows is ignored, just as if it came in a later call
            elif BEGIN_REQUEST <= record_type <= DATA:
                message = f"{_name(record_type)} with request id 0, which is for management records"
                raise _remote(message, "3.3")
            else:
                self._receive_management(record_type, content, last)

    def _receive_end(self) -> None:
        if self._reader.inside and not self._requests:
            # With requests open the cut shows in those it hurts, and others can be answered.
            raise _remote("end of file inside a record", "3.3", kind=TruncatedMessage)

    def _receive_management(self, record_type: int, content: bytes, last: bool) -> None:
        raise NotImplementedError

    def _receive_application(
        self, record_type: int, request_id: int, content: bytes, last: bool
    ) -> None:
        raise NotImplementedError

    def _gather(self, content: bytes, last: bool) -> bytes | None:
        """Return a record's content once it is whole; its length field bounds it to 65,535."""
        if last and not self._gathered:
            return content
        self._gathered += content
        if not last:
            return None
        whole = bytes(self._gathered)
        self._gathered.clear()
        return whole

    def _check_size(self, record_type: int, section: str) -> None:
        size = self._reader.content_length
        if size != 8:
            # A peer whose fixed records differ speaks something else, whatever the version says.
            raise _remote(f"{_name(record_type)} holds {size} bytes, must be 8", section)

    def _enter(
        self, request: _Exchange, record_type: int, states: dict[str, dict[int, str]]
    ) -> bool:
        """Move to the state that a record leads to; where it leads to none the request fails.

        That is so for an unknown type, too: FCGI_UNKNOWN_TYPE answers management records only
        (§4.2), and what the record was meant to do for its request cannot be guessed.
        """
        empty = not self._reader.content_length
        after = states[request.received].get(-record_type if empty else record_type)
        if after is None:
            what = f"{'an empty ' if empty else ''}{_name(record_type)} in state {request.received}"
            self._fail(request, _remote(what, "6.1", request.request_id))
            return False
        request.received = after
        return True

    def _fail(self, request: _Exchange, error: RemoteProtocolError) -> None:
        request.received = "FAILED"
        error.status_hint = self.STATUS_HINT or error.status_hint
        self._events.append(RequestAborted(request.request_id, error))

    def _next_sent(self, event: Event) -> tuple[_Exchange, str]:
        """Return the request of an event that is to be sent, and the state it leads to."""
        request_id, name = event.request_id, type(event).__name__
        request = self._requests.get(request_id)
        if request is None:
            raise _local(f"{name} for request {request_id}, which is not open", "3.3", request_id)
        after = self.SENT[request.sent].get(type(event))
        if after is None:
            raise _local(f"{name} cannot be sent in state {request.sent}", "6.1", request_id)
        return request, after

    def _write(self, record_type: int, request_id: int, data: bytes) -> None:
        """Put records into the outbox; none for b"", since an empty record ends the stream."""
        outbox = self._outbox
        size = len(data)
        if 0 < size <= _CONTENT_SIZE:
            outbox.append(_HEADER.pack(FCGI_VERSION_1, record_type, request_id, size, 0))
            outbox.append(data)
            return
        view = memoryview(data)
        for start in range(0, size, _CONTENT_SIZE):
            piece = view[start : start + _CONTENT_SIZE]
            outbox.append(_HEADER.pack(FCGI_VERSION_1, record_type, request_id, len(piece), 0))
            outbox.append(piece)

    def _write_empty(self, record_type: int, request_id: int) -> None:
        self._outbox.append(_HEADER.pack(FCGI_VERSION_1, record_type, request_id, 0, 0))


def _refusal(reason: str) -> bytes:
    headers = [("Content-Type", "text/plain"), ("Retry-After", "1")]
    return write_head("503 Service Unavailable", headers) + reason.encode()


class ServerConnection(_Connection):
    """The end that receives requests; the FastCGI specification calls it the application.

    `max_variables` and `max_variable_bytes` bound the PARAMS stream of each request,
    `max_open_requests` the requests open at once; past it they are refused with FCGI_OVERLOADED.
    `max_conns`, `max_reqs` and `mpxs_conns` are the answers to FCGI_GET_VALUES; where `mpxs_conns`
    is false a second request is refused while one is open.  Roles outside `roles` are refused.

    A RequestAborted that is received with an error leaves the request open: answer it, or give it
    up.  Without an error the peer aborted it: end it, unless its Request never came, since then
    this object has ended it already.  After a fault of the connection the answers to open requests
    may still be sent.
    """

    RECEIVED = {
        RESPONDER: {
            "PARAMS": {-ABORT_REQUEST: "ABORTED", PARAMS: "PARAMS", -PARAMS: "STDIN"},
            "STDIN": {-ABORT_REQUEST: "ABORTED", STDIN: "STDIN", -STDIN: "READ"},
            "READ": {-ABORT_REQUEST: "ABORTED"},
        },
        AUTHORIZER: {
            "PARAMS": {-ABORT_REQUEST: "ABORTED", PARAMS: "PARAMS", -PARAMS: "READ"},
            # An authorizer has no STDIN (§6.3), yet lighttpd ends one: what comes is ignored.
            "READ": {-ABORT_REQUEST: "ABORTED", STDIN: "READ", -STDIN: "READ"},
        },
        FILTER: {
            "PARAMS": {-ABORT_REQUEST: "ABORTED", PARAMS: "PARAMS", -PARAMS: "STDIN"},
            "STDIN": {-ABORT_REQUEST: "ABORTED", STDIN: "STDIN", -STDIN: "DATA"},
            "DATA": {-ABORT_REQUEST: "ABORTED", DATA: "DATA", -DATA: "READ"},
            "READ": {-ABORT_REQUEST: "ABORTED"},
        },
    }
    """Role, state, record → state.  FCGI_BEGIN_REQUEST enters PARAMS.  In ABORTED (by the peer)
    and FAILED (by a fault of the request) every record of the request is ignored."""

    SENT = {
        "UNANNOUNCED": {},
        "HEAD": {
            Response: "BODY",
            ErrorOutput: "HEAD",
            EndOfResponse: "ENDED",
            RequestAborted: "ENDED",
        },
        "BODY": {
            ResponseBody: "BODY",
            ErrorOutput: "BODY",
            EndOfResponse: "ENDED",
            RequestAborted: "ENDED",
        },
    }
    """State, event → state.  One rule does not fit: in HEAD an EndOfResponse must not claim
    success, unless the request itself failed; see `_end`."""

    REFUSALS = {
        ProtocolStatus.CANT_MPX_CONN: _refusal("This connection carries one request at a time.\n"),
        ProtocolStatus.OVERLOADED: _refusal("Too many requests are open on this connection.\n"),
        ProtocolStatus.UNKNOWN_ROLE: _refusal("The application does not serve this role.\n"),
    }
    """What goes with a protocol status: Apache makes an empty page with status 200 of it alone."""

    def __init__(
        self,
        *,
        max_variables: int = 1000,
        max_variable_bytes: int = 131072,
        max_open_requests: int = 64,
        max_conns: int = 1,
        max_reqs: int = 1,
        mpxs_conns: bool = True,
        roles: tuple[str, ...] = (RESPONDER, AUTHORIZER, FILTER),
    ) -> None:
        super().__init__()
        self._max_variables = max_variables
        self._max_variable_bytes = max_variable_bytes
        self._max_open_requests = max_open_requests
        self._mpxs_conns = mpxs_conns
        self._roles = roles
        self._values = {
            FCGI_MAX_CONNS.encode(): b"%d" % max_conns,
            FCGI_MAX_REQS.encode(): b"%d" % max_reqs,
            FCGI_MPXS_CONNS.encode(): b"%d" % mpxs_conns,
        }

    def want_body(self, request_id: int, /) -> None:
        """Do nothing: the web server sends the body unasked."""

    @property
    def head_pending(self) -> bool:
        """True while a request has begun to arrive and its PARAMS are not complete."""
        if self._requests:
            return any(request.received == "PARAMS" for request in self._requests.values())
        # What is left of an answered request's body may take its time.
        late = ABORT_REQUEST <= self._reader.record_type <= DATA
        return self._reader.inside and not late

    def send(self, event: Event, /) -> None:
        """Put the records of `event` into the outbox.

        Raises LocalProtocolError when the request is not open, when the event is not allowed now,
        and for a head or a status that cannot be written.  RequestAborted ends the request with
        appStatus 1 where the peer aborted it or others are open; otherwise it ends the connection,
        without FCGI_END_REQUEST, since web servers ignore appStatus.
        """
        request, after = self._next_sent(event)
        request_id = event.request_id
        if isinstance(event, ResponseBody):
            self._write(STDOUT, request_id, event.data)
        elif isinstance(event, Response):
            self._write(STDOUT, request_id, write_head(event.status, event.headers))
        elif isinstance(event, ErrorOutput):
            request.has_errors = request.has_errors or bool(event.data)
            self._write(STDERR, request_id, event.data)
        elif isinstance(event, EndOfResponse):
            self._end(request, event.app_status, event.protocol_status)
        elif request.received == "ABORTED" or len(self._requests) > 1:
            # There is no empty STDOUT, so that the peer can see that the stream was not ended.
            self._end_request(request_id, request.keep_conn, 1, ProtocolStatus.REQUEST_COMPLETE)
        else:
            del self._requests[request_id]
            self._closed = True
        request.sent = after

    def _end(self, request: _Exchange, app_status: int, protocol_status: int) -> None:
        request_id = request.request_id
        failed = request.received in ("ABORTED", "FAILED") or app_status or protocol_status
        if request.sent == "HEAD" and not failed:
            # To the web server this would be a script that ended before its head.
            raise _local("EndOfResponse without a Response", "6.2", request_id)
        if not (0 <= app_status <= 0xFFFFFFFF and 0 <= protocol_status <= 0xFF):
            statuses = f"appStatus {app_status}, protocolStatus {protocol_status}"
            raise _local(f"{statuses}: one does not fit into its field", "5.5", request_id)
        # At least one record of STDOUT is sent, however empty the answer (§6.1).
        self._write_empty(STDOUT, request_id)
        if request.has_errors:
            self._write_empty(STDERR, request_id)
        self._end_request(request_id, request.keep_conn, app_status, protocol_status)

    def _end_request(
        self, request_id: int, keep_conn: bool, app_status: int, protocol_status: int
    ) -> None:
        header = _HEADER.pack(FCGI_VERSION_1, END_REQUEST, request_id, _END_BODY.size, 0)
        self._outbox.append(header + _END_BODY.pack(app_status, protocol_status))
        # From here on the id is inactive, and whatever else comes for it is ignored (§3.3) until a
        # BEGIN_REQUEST, like that of an id never seen: nothing needs to be remembered.
        self._requests.pop(request_id, None)
        self._close_when_idle = self._close_when_idle or not keep_conn

    def _receive_management(self, record_type: int, content: bytes, last: bool) -> None:
        if record_type == GET_VALUES:
            whole = self._gather(content, last)
            if whole is not None:
                self._answer_values(whole)
        elif last:
            header = _HEADER.pack(FCGI_VERSION_1, UNKNOWN_TYPE, 0, _UNKNOWN_BODY.size, 0)
            self._outbox.append(header + _UNKNOWN_BODY.pack(record_type))

    def _answer_values(self, content: bytes) -> None:
        asked = decode_pairs(content)
        if any(value for _, value in asked):
            raise _remote("FCGI_GET_VALUES holds a value, must hold names only", "4.1")
        # A name that is not understood is left out (§4.1).
        known = [(name, self._values[name]) for name in dict(asked) if name in self._values]
        self._outbox.append(Record(GET_VALUES_RESULT, content=encode_pairs(known)).encode())

    def _receive_application(
        self, record_type: int, request_id: int, content: bytes, last: bool
    ) -> None:
        if record_type == BEGIN_REQUEST:
            self._check_size(BEGIN_REQUEST, "5.1")
            body = self._gather(content, last)
            if body is not None:
                self._begin(request_id, body)
            return
        request = self._requests.get(request_id)
        # "While a request ID R is inactive, the application ignores records with requestId == R"
        # (§3.3).
        if request is None or request.received in ("ABORTED", "FAILED"):
            return
        before = request.received
        if not self._enter(request, record_type, self.RECEIVED[request.role]):
            return
        if record_type == PARAMS:
            self._receive_params(request, content)
        elif record_type == ABORT_REQUEST:
            if request.sent == "UNANNOUNCED":
                self._end_request(request_id, request.keep_conn, 1, ProtocolStatus.REQUEST_COMPLETE)
            self._events.append(RequestAborted(request_id))
        elif content and before != "READ":
            data = RequestBody if record_type == STDIN else FilterData
            self._events.append(data(request_id, content))
        elif before != "READ" and request.received == "READ":
            self._events.append(EndOfRequest(request_id))

    def _begin(self, request_id: int, body: bytes) -> None:
        if request_id in self._requests:
            # Whatever follows for this id could belong to either of the two.
            raise _remote(f"FCGI_BEGIN_REQUEST for request {request_id}, which is open", "3.3")
        number, flags = _BEGIN_BODY.unpack(body)
        keep_conn = bool(flags & FCGI_KEEP_CONN)
        role = ROLES.get(number)
        if role is None or role not in self._roles:
            self._refuse(request_id, keep_conn, ProtocolStatus.UNKNOWN_ROLE)
        elif self._requests and not self._mpxs_conns:
            self._refuse(request_id, keep_conn, ProtocolStatus.CANT_MPX_CONN)
        elif len(self._requests) >= self._max_open_requests:
            self._refuse(request_id, keep_conn, ProtocolStatus.OVERLOADED)
        else:
            request = _Exchange(request_id, role, keep_conn, received="PARAMS", sent="UNANNOUNCED")
            request.pairs = PairReader(self._max_variables, self._max_variable_bytes, request_id)
            self._requests[request_id] = request

    def _refuse(self, request_id: int, keep_conn: bool, status: ProtocolStatus) -> None:
        self._write(STDOUT, request_id, self.REFUSALS[status])
        self._write_empty(STDOUT, request_id)
        self._end_request(request_id, keep_conn, 0, status)

    def _receive_params(self, request: _Exchange, content: bytes) -> None:
        try:
            if content:
                request.pairs.receive(content)
                return
            request.pairs.end()
        except RemoteProtocolError as error:
            self._fail(request, error)
            return
        request_id, role = request.request_id, request.role
        request.sent = "HEAD"
        # An empty STDIN ends the body of a responder and a filter (§6.2); authorizers have none.
        self._events.append(
            Request(request_id, request.pairs.pairs, role, role != AUTHORIZER, request.keep_conn)
        )
        if request.received == "READ":
            self._events.append(EndOfRequest(request_id))

    def _fail(self, request: _Exchange, error: RemoteProtocolError) -> None:
        super()._fail(request, error)
        if request.sent == "UNANNOUNCED":
            request.sent = "HEAD"

    def _receive_end(self) -> None:
        super()._receive_end()
        for request in self._requests.values():
            if request.received not in ("READ", "ABORTED", "FAILED"):
                cut = f"end of file before the end of FCGI_{request.received}"
                self._fail(request, _remote(cut, "6.1", request.request_id, TruncatedMessage))


class ClientConnection(_Connection):
    """The end that makes requests; the FastCGI specification calls it the Web server.

    Requests may be open together, each under an id of its own from 1 to 65,535; whether the
    application takes that, `get_values` finds out.  `max_head_bytes` bounds the head of an answer.

    `values` holds what FCGI_GET_VALUES was answered, by name; `unknown_types` the management record
    types that the application said it does not know.

    A RequestAborted that is received means that the answer is lost; the id may be used again after
    the connection has seen FCGI_END_REQUEST.
    """

    SENT = {
        "STDIN": {RequestBody: "STDIN", EndOfRequest: "SENT", RequestAborted: "ABORTED"},
        "NO STDIN": {EndOfRequest: "SENT", RequestAborted: "ABORTED"},
        "STDIN, DATA": {
            RequestBody: "STDIN, DATA",
            FilterData: "DATA",
            EndOfRequest: "SENT",
            RequestAborted: "ABORTED",
        },
        "DATA": {FilterData: "DATA", EndOfRequest: "SENT", RequestAborted: "ABORTED"},
        "SENT": {RequestAborted: "ABORTED"},
        "ABORTED": {},
    }
    FIRST = {RESPONDER: "STDIN", AUTHORIZER: "NO STDIN", FILTER: "STDIN, DATA"}
    """State, event → state.  A Request enters the state that `FIRST` has for its role."""

    RECEIVED = {
        "HEAD": {STDOUT: "HEAD", -STDOUT: "NO HEAD", STDERR: "HEAD", -STDERR: "HEAD"},
        "NO HEAD": {STDERR: "NO HEAD", -STDERR: "NO HEAD"},
        "BODY": {STDOUT: "BODY", -STDOUT: "COMPLETE", STDERR: "BODY", -STDERR: "BODY"},
        "COMPLETE": {STDERR: "COMPLETE", -STDERR: "COMPLETE"},
    }
    """State, record → state.  FCGI_END_REQUEST is allowed in each and leaves the table.  Two
    rules do not fit: the end of the head leads from HEAD to BODY, and no FCGI_STDERR may follow an
    empty one.  In FAILED (by a fault of the answer) only FCGI_END_REQUEST is looked at."""

    STATUS_HINT = 502

    def __init__(self, *, max_head_bytes: int = 65536) -> None:
        super().__init__()
        self._max_head_bytes = max_head_bytes
        self._asked: set[bytes] = set()
        self.values: dict[str, str] = {}
        self.unknown_types: set[int] = set()

    def get_values(
        self, names: Iterable[str] = (FCGI_MAX_CONNS, FCGI_MAX_REQS, FCGI_MPXS_CONNS)
    ) -> None:
        """Ask the application for its limits (§4.1); the answer comes into `values`.

        Raises LocalProtocolError for an empty name, for one outside latin-1, and for more than
        fits into one record.
        """
        try:
            asked = [name.encode("latin-1") for name in names]
        except UnicodeEncodeError as error:
            raise _local(f"the name of a value is not latin-1: {error}", "4.1") from None
        if b"" in asked:
            raise _local("the name of a value is empty", "4.1")
        content = encode_pairs((name, b"") for name in asked)
        self._outbox.append(Record(GET_VALUES, content=content).encode())
        self._asked.update(asked)

    def send(self, event: Event, /) -> None:
        """Put the records of `event` into the outbox.

        Raises LocalProtocolError when the request is not open or, for a Request, cannot be opened,
        and when the event is not allowed now.
        """
        if isinstance(event, Request):
            self._begin(event)
            return
        request, after = self._next_sent(event)
        request_id = event.request_id
        # STDIN ends where DATA or the end of the request follows (§6.2, §6.4).
        if request.sent in ("STDIN", "STDIN, DATA") and isinstance(
            event, FilterData | EndOfRequest
        ):
            self._write_empty(STDIN, request_id)
        if isinstance(event, RequestBody):
            self._write(STDIN, request_id, event.data)
        elif isinstance(event, FilterData):
            self._write(DATA, request_id, event.data)
        elif isinstance(event, RequestAborted):
            self._write_empty(ABORT_REQUEST, request_id)
        elif request.role == FILTER:
            self._write_empty(DATA, request_id)
        request.sent = after

    def _begin(self, event: Request) -> None:
        request_id = event.request_id
        numbers = [number for number, role in ROLES.items() if role == event.role]
        if not 0 < request_id <= 0xFFFF:
            raise _local(f"request id {request_id} is not within 1 and 65535", "3.3")
        if request_id in self._requests:
            raise _local(f"request {request_id} is open", "3.3", request_id)
        if self._closed or self._at_end or self._close_when_idle:
            raise _local("the connection takes no more requests", "5.1", request_id)
        if not numbers:
            raise _local(f"{event.role!r} is no role", "5.1", request_id)
        contents = list(_cut_params(event.variables, request_id))
        body = _BEGIN_BODY.pack(numbers[0], FCGI_KEEP_CONN if event.keep_conn else 0)
        self._write(BEGIN_REQUEST, request_id, body)
        for content in contents:
            self._write(PARAMS, request_id, content)
        self._write_empty(PARAMS, request_id)
        first = self.FIRST[event.role]
        request = _Exchange(request_id, event.role, event.keep_conn, received="HEAD", sent=first)
        request.head = HeadParser(request_id, max_bytes=self._max_head_bytes)
        self._requests[request_id] = request

    def _receive_management(self, record_type: int, content: bytes, last: bool) -> None:
        if record_type == UNKNOWN_TYPE:
            self._check_size(UNKNOWN_TYPE, "4.2")
        elif record_type != GET_VALUES_RESULT:
            # Only the application answers a type that it does not know (§4.2).
            raise _remote(f"{_name(record_type)} is not for an application to send", "4")
        whole = self._gather(content, last)
        if whole is None:
            return
        if record_type == UNKNOWN_TYPE:
            self.unknown_types.add(whole[0])
            return
        for name, value in decode_pairs(whole):
            # Some applications tell what nobody asked; keeping that would let them fill memory.
            if name in self._asked:
                self.values[name.decode("latin-1")] = value.decode("latin-1")

    def _receive_application(
        self, record_type: int, request_id: int, content: bytes, last: bool
    ) -> None:
        request = self._requests.get(request_id)
        if request is None:
            # Only the application ignores such records (§3.3): here the two ends do not agree
            # about which requests there are.
            what = f"{_name(record_type)} for request {request_id}, which is not open"
            raise _remote(what, "3.3")
        if record_type == END_REQUEST:
            self._check_size(END_REQUEST, "5.5")
            body = self._gather(content, last)
            if body is not None:
                self._end(request, body)
            return
        if request.received == "FAILED":
            return
        if not self._enter(request, record_type, self.RECEIVED):
            return
        if record_type == STDERR:
            self._receive_errors(request, content)
        elif content:
            self._receive_output(request, content)

    def _receive_errors(self, request: _Exchange, content: bytes) -> None:
        request_id = request.request_id
        if request.errors_ended:
            self._fail(request, _remote("FCGI_STDERR after its end", "3.3", request_id))
        elif content:
            self._events.append(ErrorOutput(request_id, content))
        else:
            request.errors_ended = True

    def _receive_output(self, request: _Exchange, content: bytes) -> None:
        if request.received == "HEAD":
            try:
                response, content = request.head.receive(content)
            except RemoteProtocolError as error:
                self._fail(request, error)
                return
            if response is None:
                return
            request.received = "BODY"
            self._events.append(response)
        if content:
            self._events.append(ResponseBody(request.request_id, content))

    def _end(self, request: _Exchange, body: bytes) -> None:
        request_id = request.request_id
        app_status, protocol_status = _END_BODY.unpack(body)
        headless = request.received in ("HEAD", "NO HEAD")
        if headless and not protocol_status and request.sent != "ABORTED":
            self._fail(request, _remote("the answer ended before its head", "6.2", request_id))
        elif request.received != "FAILED":
            self._events.append(EndOfResponse(request_id, app_status, protocol_status))
        del self._requests[request_id]
        self._close_when_idle = self._close_when_idle or not request.keep_conn

    def _receive_end(self) -> None:
        super()._receive_end()
        for request in self._requests.values():
            if request.received != "FAILED":
                cut = "end of file before FCGI_END_REQUEST"
                self._fail(request, _remote(cut, "5.5", request.request_id, TruncatedMessage))
        self._requests.clear()


def _cut_params(variables: list[tuple[bytes, bytes]], request_id: int) -> Iterator[bytes]:
    """Cut the PARAMS stream between pairs, except inside one that no record can hold.

    PHP-FPM and uWSGI drop a connection where a pair lies across two records, legal as it is.
    """
    content = bytearray()
    for name, value in variables:
        if not name:
            raise _local("the name of a variable is empty", "3.4", request_id)
        pair = encode_pair(name, value)
        if content and len(content) + len(pair) > _CONTENT_SIZE:
            yield bytes(content)
            content.clear()
        content += pair
    yield bytes(content)


def serve(application: WSGIApplication, *addresses: str, **options: Any) -> None:
    """Serve `application` over FastCGI until stopped: `gateways.serve` with FastCGI as the protocol.

    A bare HOST:PORT, unix:/path or /path means FastCGI; the default address is
    fcgi://127.0.0.1:9000.  `options` and errors are those of `gateways.serve`.
    """
    from gateways import server

    server.serve(
        application, *(addresses or (DEFAULT_ADDRESS,)), default_protocol="fcgi", **options
    )
