"""What happens on a connection, in the same words for every protocol.

A client end *sends* the first group and a server end *receives* it; for the second group it is
the other way round.  Both ends use the same classes, so two ends join in memory.

    Request  RequestBody…  [FilterData…]  EndOfRequest        or  RequestAborted
    Response  ResponseBody…  ErrorOutput…  EndOfResponse      or  RequestAborted

`request_id` comes first in each: FastCGI's request id, 0 where the protocol has none.

The CGI path imports this module, so the events are plain classes: importing dataclasses costs
more than a whole CGI request may.
"""

from __future__ import annotations

RESPONDER = "responder"
AUTHORIZER = "authorizer"
FILTER = "filter"


class Event:
    """Abstract.  Events compare by class and fields."""

    __slots__ = ("request_id",)

    request_id: int

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]  # a Request holds a list, so events have no hash

    def __repr__(self) -> str:
        fields = ", ".join(repr(field) for field in self._fields())
        return f"{type(self).__name__}({fields})"

    def _fields(self) -> tuple[object, ...]:
        return (
            self.request_id,
            *(getattr(self, name) for name in type(self).__slots__),
        )


class Request(Event):
    """A request's head is complete.

    `variables` are the meta-variables as (name, value) pairs of bytes, in the order of arrival,
    repeated names kept (RFC 3875 §4.1).  `role` is RESPONDER, AUTHORIZER or FILTER (FastCGI §6;
    responder elsewhere).  `body_delimited` tells that the protocol marks the end of the body
    itself, so that a body may follow although no CONTENT_LENGTH announced one.  `keep_conn` asks
    the server end to leave the connection open after the answer (FastCGI §5.1).
    """

    __slots__ = ("variables", "role", "body_delimited", "keep_conn")

    def __init__(
        self,
        request_id: int,
        variables: list[tuple[bytes, bytes]],
        role: str = RESPONDER,
        body_delimited: bool = False,
        keep_conn: bool = False,
    ) -> None:
        self.request_id = request_id
        self.variables = variables
        self.role = role
        self.body_delimited = body_delimited
        self.keep_conn = keep_conn


class _Data(Event):
    """Abstract: an event that carries bytes, never empty ones."""

    __slots__ = ("data",)

    def __init__(self, request_id: int, data: bytes) -> None:
        self.request_id = request_id
        self.data = data

    def _fields(self) -> tuple[object, ...]:
        return (self.request_id, self.data)


class RequestBody(_Data):
    """Some bytes of the request's body (RFC 3875 §4.2; FCGI_STDIN)."""

    __slots__ = ()


class FilterData(_Data):
    """Some bytes of the file a FastCGI filter works on (FastCGI §6.4; FCGI_DATA).

    The request's body is complete when the first of them arrives.
    """

    __slots__ = ()


class EndOfRequest(Event):
    """Nothing more of the request will come."""

    __slots__ = ()

    def __init__(self, request_id: int) -> None:
        self.request_id = request_id


class RequestAborted(Event):
    """This request will not be completed; the connection itself may live on.

    Received by a server end: the peer aborted (`error` is None) or broke a rule that concerns
    only this request (`error` is the RemoteProtocolError).  Received by a client end: the answer
    was cut.  Sent by a client end: abort.  Sent by a server end: give the answer up so that the
    peer can see it is incomplete.
    """

    __slots__ = ("error",)

    def __init__(self, request_id: int, error: Exception | None = None) -> None:
        self.request_id = request_id
        self.error = error

    def _fields(self) -> tuple[object, ...]:
        # Two errors with the same words are the same fault.
        return (self.request_id, type(self.error), str(self.error))


class Response(Event):
    """The answer's head: `status` as in "404 Not Found", `headers` as (name, value) pairs.

    All are native strings of latin-1 characters, as PEP 3333 has them.
    """

    __slots__ = ("status", "headers")

    def __init__(self, request_id: int, status: str, headers: list[tuple[str, str]]) -> None:
        self.request_id = request_id
        self.status = status
        self.headers = headers


class ResponseBody(_Data):
    """Some bytes of the answer's body (RFC 3875 §6.4; after the head in FCGI_STDOUT)."""

    __slots__ = ()


class ErrorOutput(_Data):
    """Some bytes for the web server's error log (FCGI_STDERR); dropped where there is no such stream."""

    __slots__ = ()


class EndOfResponse(Event):
    """The answer is complete.

    `app_status` is the application's exit status, `protocol_status` FastCGI's reason to end the
    request (FastCGI §5.5; 0 is FCGI_REQUEST_COMPLETE).  Both are 0 where the protocol has neither.
    """

    __slots__ = ("app_status", "protocol_status")

    def __init__(self, request_id: int, app_status: int = 0, protocol_status: int = 0) -> None:
        self.request_id = request_id
        self.app_status = app_status
        self.protocol_status = protocol_status
