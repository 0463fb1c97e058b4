"""The end that receives requests and answers them (§4 to §6).

Each role has its table of records.  What the peer is owed on the protocol's own account (values,
unknown types, refusals, the end of an aborted request) goes into the outbox unasked.

A request that came in one piece has a short cut of its own, `receive_whole`, whose answer has one
too.  Between the two the request exists only as a number; when anything else happens on the
connection it is entered into the tables first, so that all other code knows one kind of request.

Left to others: what the variables mean (environ), deadlines and the size of the outbox
(gateways.server).
"""

from __future__ import annotations

from gateways.errors import RemoteProtocolError, TruncatedMessage
from gateways.events import (
    AUTHORIZER,
    FILTER,
    RESPONDER,
    EndOfRequest,
    EndOfResponse,
    ErrorOutput,
    Event,
    FileRange,
    FilterData,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
    ResponseFile,
    WholeAnswer,
)
from gateways.fastcgi.connection import Connection, Exchange
from gateways.fastcgi.pairs import PairReader, decode_pairs, encode_pairs, plain_text
from gateways.fastcgi.records import (
    ABORT_REQUEST,
    BEGIN_BODY,
    BEGIN_REQUEST,
    CONTENT_SIZE,
    DATA,
    END_BODY,
    END_REQUEST,
    FCGI_KEEP_CONN,
    FCGI_MAX_CONNS,
    FCGI_MAX_REQS,
    FCGI_MPXS_CONNS,
    FCGI_VERSION_1,
    GET_VALUES,
    GET_VALUES_RESULT,
    HEADER,
    PARAMS,
    ROLES,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN_BODY,
    UNKNOWN_TYPE,
    ProtocolStatus,
    Record,
    Role,
    local_fault,
    remote_fault,
)
from gateways.response import write_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from gateways.events import PlainText

JOINED_SIZE = 8192
"""Up to this size a whole answer is one buffer: copying that much costs less than another buffer."""


def _header(record_type: int, request_id: int, length: int = 0) -> bytes:
    return HEADER.pack(FCGI_VERSION_1, record_type, request_id, length, 0)


def _ending(request_id: int) -> bytes:
    """What ends a complete answer: an empty STDOUT (§3.3) and END_REQUEST (§5.5)."""
    end = _header(END_REQUEST, request_id, END_BODY.size)
    return _header(STDOUT, request_id) + end + END_BODY.pack(0, ProtocolStatus.REQUEST_COMPLETE)


class _Frame:
    """The bytes around a plain request with this id, as web servers write them.

    `starts` are those up to the length of PARAMS, with what they say of FCGI_KEEP_CONN; `end` is
    the end of PARAMS, `no_body` that with the end of an empty STDIN, `body_end` the end of STDIN.
    `answer` begins the record of a short answer, `ending` is `_ending`.
    """

    __slots__ = ("starts", "params_end", "stdin", "stdin_end", "no_body", "answer", "ending")

    def __init__(self, request_id: int) -> None:
        begin = _header(BEGIN_REQUEST, request_id, BEGIN_BODY.size)
        params = _header(PARAMS, request_id)
        self.starts = {
            begin + BEGIN_BODY.pack(Role.RESPONDER, flags) + params[:4]: bool(flags)
            for flags in (0, FCGI_KEEP_CONN)
        }
        self.params_end = params
        self.stdin_end = _header(STDIN, request_id)
        self.stdin = self.stdin_end[:4]
        self.no_body = self.params_end + self.stdin_end
        self.answer = _header(STDOUT, request_id)[:4]
        self.ending = _ending(request_id)


# A plain number for what most records are compared with: an enumeration's member costs more.
_STDIN = int(STDIN)

# Nearly every web server gives every request this id, since it sends one at a time.
_USUAL = _Frame(1)
_USUAL_STARTS = _USUAL.starts


class Limits:
    """The options of a server end, checked against once and shared by all its connections."""

    __slots__ = (
        "max_variables",
        "max_variable_bytes",
        "max_open_requests",
        "mpxs_conns",
        "roles",
        "values",
        "whole_bytes",
    )

    def __init__(
        self,
        max_variables: int,
        max_variable_bytes: int,
        max_open_requests: int,
        max_conns: int,
        max_reqs: int,
        mpxs_conns: bool,
        roles: tuple[str, ...],
    ) -> None:
        self.max_variables = max_variables
        self.max_variable_bytes = max_variable_bytes
        self.max_open_requests = max_open_requests
        self.mpxs_conns = mpxs_conns
        self.roles = roles
        self.values = {
            FCGI_MAX_CONNS.encode(): b"%d" % max_conns,
            FCGI_MAX_REQS.encode(): b"%d" % max_reqs,
            FCGI_MPXS_CONNS.encode(): b"%d" % mpxs_conns,
        }
        # What `receive_whole` may take of PARAMS; nothing where every responder is refused.
        served = RESPONDER in roles and max_open_requests > 0
        self.whole_bytes = max_variable_bytes if served else 0

    def connection(self) -> ServerConnection:
        """Return the server end of a new connection."""
        connection = ServerConnection.__new__(ServerConnection)
        connection._start(self)
        return connection


def _whole_body(data: bytes, start: int, frame: _Frame) -> bytes | None:
    """Return the body that stands whole from `start` on, behind the end of PARAMS; else None."""
    if data[start : start + 8] != frame.params_end or data[-8:] != frame.stdin_end:
        return None
    view = memoryview(data)
    parts = []
    start += 8
    size = len(data)
    while size - start > 8:
        if data[start : start + 4] != frame.stdin:
            return None
        content = start + 8
        end = content + data[start + 4] * 256 + data[start + 5]
        if end == content:
            return None
        parts.append(view[content:end])
        start = end + data[start + 6]
    if data[start:] != frame.stdin_end:
        return None
    return b"".join(parts)


def _refusal(reason: str) -> bytes:
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", "1")]
    return write_head("503 Service Unavailable", headers) + reason.encode()


class ServerConnection(Connection):
    """The end that receives requests; the FastCGI specification calls it the application.

    `max_variables` and `max_variable_bytes` bound the PARAMS stream of each request,
    `max_open_requests` the requests open at once; past it they are refused with FCGI_OVERLOADED.
    `max_conns`, `max_reqs` and `mpxs_conns` are the answers to FCGI_GET_VALUES; where `mpxs_conns`
    is false a second request is refused while one is open.  Roles outside `roles` are refused.

    A RequestAborted that is received with an error leaves the request open: answer it, or give it
    up.  Without an error the peer aborted it: end it, unless its Request never came, since then
    this object has ended it already.  After a fault of the connection the answers to open requests
    may still be sent.

    Where many connections are made with the same options, `factory` makes each at less cost.
    """

    __slots__ = ("_limits", "_whole_id", "_whole_keep_conn", "_mixed", "_parts", "_parts_id")

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
        "UNREAD": {RequestAborted: "ENDED"},
        "HEAD": {
            Response: "BODY",
            ErrorOutput: "HEAD",
            WholeAnswer: "ENDED",
            EndOfResponse: "ENDED",
            RequestAborted: "ENDED",
        },
        "BODY": {
            ResponseBody: "BODY",
            ResponseFile: "BODY",
            ErrorOutput: "BODY",
            EndOfResponse: "ENDED",
            RequestAborted: "ENDED",
        },
    }
    """State, event → state.  In UNREAD is a filter whose FCGI_STDIN has not ended (§6.4); the end
    of it, and what fails or aborts the request, leads to HEAD.  One rule does not fit: in HEAD an EndOfResponse must not claim
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
        self._start(
            Limits(
                max_variables,
                max_variable_bytes,
                max_open_requests,
                max_conns,
                max_reqs,
                mpxs_conns,
                roles,
            )
        )

    @staticmethod
    def factory(
        *,
        max_variables: int = 1000,
        max_variable_bytes: int = 131072,
        max_open_requests: int = 64,
        max_conns: int = 1,
        max_reqs: int = 1,
        mpxs_conns: bool = True,
        roles: tuple[str, ...] = (RESPONDER, AUTHORIZER, FILTER),
    ) -> Callable[[], ServerConnection]:
        """Return a function that makes connections with these options, cheaper than the class does."""
        return Limits(
            max_variables,
            max_variable_bytes,
            max_open_requests,
            max_conns,
            max_reqs,
            mpxs_conns,
            roles,
        ).connection

    def _start(self, limits: Limits) -> None:
        self._open_connection()
        self._limits = limits
        # The request that `receive_whole` took, 0 for none, until it is answered or entered.
        self._whole_id = 0
        self._whole_keep_conn = False
        # Whether anything has happened but whole requests and their whole answers.
        self._mixed = False
        # Pieces of a body that came together, and whose they are: they become one event.
        self._parts: list[memoryview] = []
        self._parts_id = 0

    def want_body(self, request_id: int, /) -> None:
        """Do nothing: the web server sends the body unasked."""

    @property
    def must_close(self) -> bool:
        """True after a fault of the connection; and, once no request is open, after one without
        FCGI_KEEP_CONN (§5.1) and after end of file."""
        # Until something else happens a connection with a whole request is as open as a new one.
        return self._mixed and self._is_over()

    @property
    def head_pending(self) -> int:
        """The id of the oldest request whose PARAMS are not complete, -1 inside a record that is
        none's, 0 for neither."""
        for request_id, request in self._requests.items():
            if request.received == "PARAMS":
                return request_id
        # What is left of an answered request's body may take its time.
        late = ABORT_REQUEST <= self._reader.record_type <= DATA
        return -1 if self._reader.inside and not late and not self._requests else 0

    def receive_whole(self, data: bytes, /) -> tuple[Request, bytes] | None:
        """Take one whole plain request of a responder; return it and its body, or None.

        Plain is what `plain_text` takes, in one PARAMS record, with its STDIN complete and nothing
        behind it, on a connection where nothing else is under way.  With None nothing has changed:
        `receive_data` takes the same bytes.
        """
        if self._whole_id or (self._mixed and not self._is_idle()):
            return None
        request_id, frame = 1, _USUAL
        keep_conn = _USUAL_STARTS.get(data[:20])
        size = len(data)
        if keep_conn is None:
            if size < 40 or data[2:4] == b"\0\0":
                return None
            request_id = int.from_bytes(data[2:4], "big")
            frame = _Frame(request_id)
            keep_conn = frame.starts.get(data[:20])
            if keep_conn is None:
                return None
        if size < 40:
            return None
        end = 24 + data[20] * 256 + data[21]
        rest = end + data[22]
        if size - rest == 16 and data[rest:] == frame.no_body:
            body = b""
        else:
            found = _whole_body(data, rest, frame)
            if found is None:
                return None
            body = found
        limits = self._limits
        block = data[24:end]
        if not block or len(block) > limits.whole_bytes:
            return None
        plain = plain_text(block, limits.max_variables)
        if plain is None:
            return None
        text, repeated = plain
        self._whole_id = request_id
        self._whole_keep_conn = keep_conn
        variables = (decode_pairs, block)
        return Request(request_id, variables, RESPONDER, True, keep_conn, text, repeated), body

    def receive_data(self, data: bytes | memoryview, /) -> list[Event]:
        """Take what was received, b"" at end of file; return the events it completed.

        Raises RemoteProtocolError for a fault that ends the connection.  Whatever comes after
        that, after end of file or once `must_close` is true is ignored.  Of a memoryview nothing is
        kept: what it shows may change afterwards.
        """
        self._mixed = True
        if self._whole_id:
            self._enter_whole()
        return Connection.receive_data(self, data)

    def _is_idle(self) -> bool:
        """Whether the next byte begins a record, no request is open, and another may be."""
        over = self._at_end or self._closed or self._close_when_idle
        self._mixed = bool(over or self._requests or self._reader.inside)
        return not self._mixed

    def _enter_whole(self) -> None:
        """Enter the request that `receive_whole` took into the tables."""
        request_id = self._whole_id
        self._whole_id = 0
        self._mixed = True
        self._requests[request_id] = Exchange(
            request_id, RESPONDER, self._whole_keep_conn, received="READ", sent="HEAD"
        )

    def send(self, event: Event, /) -> None:
        """Put the records of `event` into the outbox.

        Raises LocalProtocolError when the request is not open, when the event is not allowed now,
        and for a head or a status that cannot be written.  RequestAborted ends the request with
        appStatus 1 where the peer aborted it or others are open; otherwise it ends the connection,
        without FCGI_END_REQUEST, since web servers ignore appStatus.
        """
        if self._whole_id:
            if isinstance(event, WholeAnswer) and event.request_id == self._whole_id:
                self._answer_whole(event)
                self._whole_id = 0
                if not self._whole_keep_conn:
                    self._close_when_idle = self._mixed = True
                return
            self._enter_whole()
        request, after = self._next_sent(event)
        request_id = event.request_id
        if isinstance(event, ResponseBody):
            self._write(STDOUT, request_id, event.data)
        elif isinstance(event, ResponseFile):
            self._write_file(event)
        elif isinstance(event, Response):
            self._write(STDOUT, request_id, event.head or write_head(event.status, event.headers))
        elif isinstance(event, ErrorOutput):
            request.has_errors = request.has_errors or bool(event.data)
            self._write(STDERR, request_id, event.data)
        elif isinstance(event, WholeAnswer) and not request.has_errors:
            self._answer_whole(event)
            self._forget(request_id, request.keep_conn)
        elif isinstance(event, WholeAnswer):
            self._write(STDOUT, request_id, event.head or write_head(event.status, event.headers))
            self._write(STDOUT, request_id, event.data)
            request.sent = "BODY"
            self._end(request, 0, ProtocolStatus.REQUEST_COMPLETE)
        elif isinstance(event, EndOfResponse):
            self._end(request, event.app_status, event.protocol_status)
        elif request.received == "ABORTED" or len(self._requests) > 1:
            # There is no empty STDOUT, so that the peer can see that the stream was not ended.
            self._end_request(request_id, request.keep_conn, 1, ProtocolStatus.REQUEST_COMPLETE)
        else:
            del self._requests[request_id]
            self._closed = True
        request.sent = after

    def _answer_whole(self, event: WholeAnswer) -> None:
        """Put a whole answer into the outbox: one buffer where it is short, no copy where it is long."""
        request_id = event.request_id
        head = event.head or write_head(event.status, event.headers)
        data = event.data
        size = len(head) + len(data)
        frame = _USUAL if request_id == 1 else _Frame(request_id)
        if size <= JOINED_SIZE:
            length = size.to_bytes(2, "big")
            self._outbox.append(b"".join((frame.answer, length, b"\0\0", head, data, frame.ending)))
        else:
            self._write_parts(request_id, head, data)
            self._outbox.append(frame.ending)

    def _write_parts(self, request_id: int, head: bytes, data: bytes) -> None:
        """Put a head and its body into the outbox, as much of the body as fits in the same record."""
        room = CONTENT_SIZE - len(head)
        if room <= 0 or not data:
            self._write(STDOUT, request_id, head)
            self._write(STDOUT, request_id, data)
            return
        first = data if len(data) <= room else memoryview(data)[:room]
        self._outbox.append(_header(STDOUT, request_id, len(head) + len(first)) + head)
        self._outbox.append(first)
        if len(data) > room:
            self._write(STDOUT, request_id, memoryview(data)[room:])

    def _write_file(self, event: ResponseFile) -> None:
        """Put records into the outbox whose content is in a file."""
        offset, end = event.offset, event.offset + event.count
        while offset < end:
            count = min(end - offset, CONTENT_SIZE)
            self._outbox.append(_header(STDOUT, event.request_id, count))
            self._outbox.append(FileRange(event.descriptor, offset, count))
            offset += count

    def _end(self, request: Exchange, app_status: int, protocol_status: int) -> None:
        request_id = request.request_id
        failed = request.received in ("ABORTED", "FAILED") or app_status or protocol_status
        if request.sent == "HEAD" and not failed:
            # To the web server this would be a script that ended before its head.
            raise local_fault("EndOfResponse without a Response", "6.2", request_id)
        if not (0 <= app_status <= 0xFFFFFFFF and 0 <= protocol_status <= 0xFF):
            statuses = f"appStatus {app_status}, protocolStatus {protocol_status}"
            raise local_fault(f"{statuses}: one does not fit into its field", "5.5", request_id)
        # At least one record of STDOUT is sent, however empty the answer (§6.1).
        self._write_empty(STDOUT, request_id)
        if request.has_errors:
            self._write_empty(STDERR, request_id)
        self._end_request(request_id, request.keep_conn, app_status, protocol_status)

    def _end_request(
        self, request_id: int, keep_conn: bool, app_status: int, protocol_status: int
    ) -> None:
        header = HEADER.pack(FCGI_VERSION_1, END_REQUEST, request_id, END_BODY.size, 0)
        self._outbox.append(header + END_BODY.pack(app_status, protocol_status))
        self._forget(request_id, keep_conn)

    def _forget(self, request_id: int, keep_conn: bool) -> None:
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
            header = HEADER.pack(FCGI_VERSION_1, UNKNOWN_TYPE, 0, UNKNOWN_BODY.size, 0)
            self._outbox.append(header + UNKNOWN_BODY.pack(record_type))

    def _answer_values(self, content: bytes) -> None:
        asked = decode_pairs(content)
        if any(value for _, value in asked):
            raise remote_fault("FCGI_GET_VALUES holds a value, must hold names only", "4.1")
        # A name that is not understood is left out (§4.1).
        known = [
            (name, self._limits.values[name]) for name in dict(asked) if name in self._limits.values
        ]
        self._outbox.append(Record(GET_VALUES_RESULT, content=encode_pairs(known)).encode())

    def _receive(self, data: bytes | memoryview) -> None:
        try:
            Connection._receive(self, data)
        finally:
            if self._parts:
                self._join_parts()

    def _join_parts(self) -> None:
        """Make an event of the pieces of a body that have gathered."""
        parts = self._parts
        body = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        self._events.append(RequestBody(self._parts_id, body))
        parts.clear()

    def _receive_application(
        self, record_type: int, request_id: int, content: memoryview, last: bool
    ) -> None:
        if self._parts and (record_type != _STDIN or request_id != self._parts_id or not content):
            self._join_parts()
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
        if record_type == _STDIN and content and before == "STDIN":
            # In every role the table has it stay there: this saves looking it up for each record.
            self._parts.append(content)
            self._parts_id = request_id
            return
        if not self._enter(request, record_type, not content, self.RECEIVED[request.role]):
            return
        if request.sent == "UNREAD" and request.received != "STDIN":
            request.sent = "HEAD"
        if record_type == PARAMS:
            self._receive_params(request, bytes(content), last)
        elif record_type == ABORT_REQUEST:
            if request.sent == "UNANNOUNCED":
                self._end_request(request_id, request.keep_conn, 1, ProtocolStatus.REQUEST_COMPLETE)
            self._events.append(RequestAborted(request_id))
        elif content and before != "READ":
            self._events.append(FilterData(request_id, bytes(content)))
        elif before != "READ" and request.received == "READ":
            self._events.append(EndOfRequest(request_id))

    def _begin(self, request_id: int, body: bytes) -> None:
        if request_id in self._requests:
            # Whatever follows for this id could belong to either of the two.
            raise remote_fault(f"FCGI_BEGIN_REQUEST for request {request_id}, which is open", "3.3")
        number, flags = BEGIN_BODY.unpack(body)
        keep_conn = bool(flags & FCGI_KEEP_CONN)
        role = ROLES.get(number)
        if role is None or role not in self._limits.roles:
            self._refuse(request_id, keep_conn, ProtocolStatus.UNKNOWN_ROLE)
        elif self._requests and not self._limits.mpxs_conns:
            self._refuse(request_id, keep_conn, ProtocolStatus.CANT_MPX_CONN)
        elif len(self._requests) >= self._limits.max_open_requests:
            self._refuse(request_id, keep_conn, ProtocolStatus.OVERLOADED)
        else:
            request = Exchange(request_id, role, keep_conn, received="PARAMS", sent="UNANNOUNCED")
            self._requests[request_id] = request

    def _refuse(self, request_id: int, keep_conn: bool, status: ProtocolStatus) -> None:
        self._write(STDOUT, request_id, self.REFUSALS[status])
        self._write_empty(STDOUT, request_id)
        self._end_request(request_id, keep_conn, 0, status)

    def _receive_params(self, request: Exchange, content: bytes, last: bool) -> None:
        try:
            if content:
                self._receive_pairs(request, content, last)
                return
            if request.pairs is not None:
                request.pairs.end()
        except RemoteProtocolError as error:
            self._fail(request, error)
            return
        request_id, role, keep_conn = request.request_id, request.role, request.keep_conn
        request.sent = "UNREAD" if role == FILTER else "HEAD"
        # An empty STDIN ends the body of a responder and a filter (§6.2); authorizers have none.
        delimited = role != AUTHORIZER
        if request.plain is not None:
            variables = (decode_pairs, request.block)
            event = Request(request_id, variables, role, delimited, keep_conn, *request.plain)
        else:
            pairs = request.pairs.pairs if request.pairs is not None else []
            event = Request(request_id, pairs, role, delimited, keep_conn)
        self._events.append(event)
        if request.received == "READ":
            self._events.append(EndOfRequest(request_id))

    def _receive_pairs(self, request: Exchange, content: bytes, last: bool) -> None:
        """Take some of the PARAMS stream; nearly always it is one record, and plain."""
        limits = self._limits
        if request.pairs is None:
            first = request.plain is None
            if first and last and len(content) <= limits.max_variable_bytes:
                request.block = content
                request.plain = self._plain_text(content)
                if request.plain is not None:
                    return
            request.pairs = PairReader(
                limits.max_variables, limits.max_variable_bytes, request.request_id
            )
            if not first:
                request.plain = None
                request.pairs.receive(request.block)
        request.pairs.receive(content)

    def _plain_text(self, block: bytes) -> PlainText | None:
        return plain_text(block, self._limits.max_variables)

    def _fail(self, request: Exchange, error: RemoteProtocolError) -> None:
        super()._fail(request, error)
        if request.sent in ("UNANNOUNCED", "UNREAD"):
            request.sent = "HEAD"

    def _receive_end(self) -> None:
        super()._receive_end()
        for request in self._requests.values():
            if request.received not in ("READ", "ABORTED", "FAILED"):
                cut = f"end of file before the end of FCGI_{request.received}"
                self._fail(request, remote_fault(cut, "6.1", request.request_id, TruncatedMessage))
