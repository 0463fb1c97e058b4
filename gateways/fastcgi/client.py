"""The end that makes requests and takes their answers (§4 to §6).

A Request is written whole, BEGIN_REQUEST and PARAMS; its body follows as it comes.  STDOUT is a
CGI response: its head waits in a bounded parser, the rest is handed on as it arrives.

Left to others: how ids are given out, and how long an answer may take.
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
    ResponseBody,
)
from gateways.fastcgi.connection import Connection, Exchange
from gateways.fastcgi.pairs import decode_pairs, encode_pair, encode_pairs
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
    GET_VALUES,
    GET_VALUES_RESULT,
    PARAMS,
    ROLES,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN_TYPE,
    Record,
    local_fault,
    remote_fault,
    type_name,
)
from gateways.headparser import HeadParser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class ClientConnection(Connection):
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
            raise local_fault(f"the name of a value is not latin-1: {error}", "4.1") from None
        if b"" in asked:
            raise local_fault("the name of a value is empty", "4.1")
        content = encode_pairs((name, b"") for name in asked)
        self._outbox.append(Record(GET_VALUES, content=content).encode())
        self._asked.update(asked)

    def send(self, event: Event, /) -> None:
        """Put the records of `event` into the outbox.

        Raises LocalProtocolError when the request is not open or, for a Request, cannot be opened
        or has a variable with an empty name or with NUL, and when the event is not allowed now.
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
            raise local_fault(f"request id {request_id} is not within 1 and 65535", "3.3")
        if request_id in self._requests:
            raise local_fault(f"request {request_id} is open", "3.3", request_id)
        if self._closed or self._at_end or self._close_when_idle:
            raise local_fault("the connection takes no more requests", "5.1", request_id)
        if not numbers:
            raise local_fault(f"{event.role!r} is no role", "5.1", request_id)
        contents = list(_cut_params(event.variables, request_id))
        body = BEGIN_BODY.pack(numbers[0], FCGI_KEEP_CONN if event.keep_conn else 0)
        self._write(BEGIN_REQUEST, request_id, body)
        for content in contents:
            self._write(PARAMS, request_id, content)
        self._write_empty(PARAMS, request_id)
        first = self.FIRST[event.role]
        request = Exchange(request_id, event.role, event.keep_conn, received="HEAD", sent=first)
        request.head = HeadParser(request_id, max_bytes=self._max_head_bytes)
        self._requests[request_id] = request

    def _receive_management(self, record_type: int, content: bytes, last: bool) -> None:
        if record_type == UNKNOWN_TYPE:
            self._check_size(UNKNOWN_TYPE, "4.2")
        elif record_type != GET_VALUES_RESULT:
            # Only the application answers a type that it does not know (§4.2).
            raise remote_fault(f"{type_name(record_type)} is not for an application to send", "4")
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
        self, record_type: int, request_id: int, content: memoryview, last: bool
    ) -> None:
        request = self._requests.get(request_id)
        if request is None:
            # Only the application ignores such records (§3.3): here the two ends do not agree
            # about which requests there are.
            what = f"{type_name(record_type)} for request {request_id}, which is not open"
            raise remote_fault(what, "3.3")
        if record_type == END_REQUEST:
            self._check_size(END_REQUEST, "5.5")
            body = self._gather(content, last)
            if body is not None:
                self._end(request, body)
            return
        if request.received == "FAILED":
            return
        if not self._enter(request, record_type, not content, self.RECEIVED):
            return
        if record_type == STDERR:
            self._receive_errors(request, bytes(content))
        elif content:
            self._receive_output(request, bytes(content))

    def _receive_errors(self, request: Exchange, content: bytes) -> None:
        request_id = request.request_id
        if request.errors_ended:
            self._fail(request, remote_fault("FCGI_STDERR after its end", "3.3", request_id))
        elif content:
            self._events.append(ErrorOutput(request_id, content))
        else:
            request.errors_ended = True

    def _receive_output(self, request: Exchange, content: bytes) -> None:
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

    def _end(self, request: Exchange, body: bytes) -> None:
        request_id = request.request_id
        app_status, protocol_status = END_BODY.unpack(body)
        headless = request.received in ("HEAD", "NO HEAD")
        if headless and not protocol_status and request.sent != "ABORTED":
            self._fail(request, remote_fault("the answer ended before its head", "6.2", request_id))
        elif request.received != "FAILED":
            self._events.append(EndOfResponse(request_id, app_status, protocol_status))
        del self._requests[request_id]
        self._close_when_idle = self._close_when_idle or not request.keep_conn

    def _receive_end(self) -> None:
        super()._receive_end()
        for request in self._requests.values():
            if request.received != "FAILED":
                cut = "end of file before FCGI_END_REQUEST"
                self._fail(request, remote_fault(cut, "5.5", request.request_id, TruncatedMessage))
        self._requests.clear()


def _cut_params(variables: list[tuple[bytes, bytes]], request_id: int) -> Iterator[bytes]:
    """Cut the PARAMS stream between pairs, except inside one that no record can hold.

    PHP-FPM and uWSGI drop a connection where a pair lies across two records, legal as it is.
    """
    content = bytearray()
    for name, value in variables:
        if not name:
            raise local_fault("the name of a variable is empty", "3.4", request_id)
        if b"\0" in name or b"\0" in value:
            raise local_fault(f"the variable {name[:40]!r} holds NUL", "6.1", request_id)
        pair = encode_pair(name, value)
        if content and len(content) + len(pair) > CONTENT_SIZE:
            yield bytes(content)
            content.clear()
        content += pair
    yield bytes(content)
