"""The end that receives requests and answers them (§4 to §6).

Each role has its table of records.  What the peer is owed on the protocol's own account (values,
unknown types, refusals, the end of an aborted request) goes into the outbox unasked.

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
    FilterData,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
)
from gateways.fastcgi.connection import Connection, Exchange
from gateways.fastcgi.pairs import PairReader, decode_pairs, encode_pairs
from gateways.fastcgi.records import (
    ABORT_REQUEST,
    BEGIN_BODY,
    BEGIN_REQUEST,
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
    local_fault,
    remote_fault,
)
from gateways.response import write_head


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
        "UNREAD": {RequestAborted: "ENDED"},
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
        if request.sent == "UNREAD" and request.received != "STDIN":
            request.sent = "HEAD"
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
            raise remote_fault(f"FCGI_BEGIN_REQUEST for request {request_id}, which is open", "3.3")
        number, flags = BEGIN_BODY.unpack(body)
        keep_conn = bool(flags & FCGI_KEEP_CONN)
        role = ROLES.get(number)
        if role is None or role not in self._roles:
            self._refuse(request_id, keep_conn, ProtocolStatus.UNKNOWN_ROLE)
        elif self._requests and not self._mpxs_conns:
            self._refuse(request_id, keep_conn, ProtocolStatus.CANT_MPX_CONN)
        elif len(self._requests) >= self._max_open_requests:
            self._refuse(request_id, keep_conn, ProtocolStatus.OVERLOADED)
        else:
            request = Exchange(request_id, role, keep_conn, received="PARAMS", sent="UNANNOUNCED")
            request.pairs = PairReader(self._max_variables, self._max_variable_bytes, request_id)
            self._requests[request_id] = request

    def _refuse(self, request_id: int, keep_conn: bool, status: ProtocolStatus) -> None:
        self._write(STDOUT, request_id, self.REFUSALS[status])
        self._write_empty(STDOUT, request_id)
        self._end_request(request_id, keep_conn, 0, status)

    def _receive_params(self, request: Exchange, content: bytes) -> None:
        try:
            if content:
                request.pairs.receive(content)
                return
            request.pairs.end()
        except RemoteProtocolError as error:
            self._fail(request, error)
            return
        request_id, role = request.request_id, request.role
        request.sent = "UNREAD" if role == FILTER else "HEAD"
        # An empty STDIN ends the body of a responder and a filter (§6.2); authorizers have none.
        self._events.append(
            Request(request_id, request.pairs.pairs, role, role != AUTHORIZER, request.keep_conn)
        )
        if request.received == "READ":
            self._events.append(EndOfRequest(request_id))

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
