"""What happens on a connection, in the same words for every protocol.

A client end *sends* the first group and a server end *receives* it; for the second group it is
the other way round.  Both ends use the same classes, so two ends join in memory.

    Request  RequestBody…  [FilterData…]  EndOfRequest        or  RequestAborted
    Response  ResponseBody…  ErrorOutput…  EndOfResponse      or  RequestAborted

Two more are sent by server ends only, and a client end receives the plain ones for them:
WholeAnswer is Response, ResponseBody and EndOfResponse at once, ResponseFile a ResponseBody whose
bytes are still in a file.

`request_id` comes first in each: FastCGI's request id, 0 where the protocol has none.

The CGI path imports this module, so the events are plain classes: importing dataclasses costs
more than a whole CGI request may.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Undecoded = tuple[Callable[[bytes], list[tuple[bytes, bytes]]], bytes]
    PlainText = tuple[dict[str, str], Sequence[str]]

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

    `text` holds the same variables as latin-1 strings, where the codec has them so and every name
    is plain: not empty, without NUL, and not beginning with "wsgi."; otherwise it is None.  Of a name
    that came more than once, and so is in `repeated`, it has the last value.  Whoever needs a dict
    may take it for its own, and sets `text` to None.

    Variables may be given as (decode, block) too: they are what `decode(block)` returns, and it is
    called only when somebody asks for them.
    """

    __slots__ = ("_variables", "role", "body_delimited", "keep_conn", "text", "repeated")

    def __init__(
        self,
        request_id: int,
        variables: list[tuple[bytes, bytes]] | Undecoded,
        role: str = RESPONDER,
        body_delimited: bool = False,
        keep_conn: bool = False,
        text: dict[str, str] | None = None,
        repeated: Sequence[str] = (),
    ) -> None:
        self.request_id = request_id
        self._variables = variables
        self.role = role
        self.body_delimited = body_delimited
        self.keep_conn = keep_conn
        self.text = text
        self.repeated = repeated

    @property
    def variables(self) -> list[tuple[bytes, bytes]]:
        variables = self._variables
        if isinstance(variables, tuple):
            decode, block = variables
            self._variables = variables = decode(block)
        return variables

    @variables.setter
    def variables(self, variables: list[tuple[bytes, bytes]]) -> None:
        self._variables = variables
        self.text = None

    def _fields(self) -> tuple[object, ...]:
        # Without `text` and `repeated`: they say nothing that the variables do not say.
        return (self.request_id, self.variables, self.role, self.body_delimited, self.keep_conn)


def repeated_names(names: list[str], different: int) -> list[str]:
    """Return those of `names` that came before in it, for Request; `different` of them did not."""
    missing = len(names) - different
    seen = set()
    found: list[str] = []
    for name in names:
        if name not in seen:
            seen.add(name)
        else:
            found.append(name)
            if len(found) == missing:
                break
    return found


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

    All are native strings of latin-1 characters, as PEP 3333 has them.  `head` is the same as
    bytes, as `response.write_head` makes them, where the sender has them already; else b"".
    """

    __slots__ = ("status", "headers", "head")

    def __init__(
        self, request_id: int, status: str, headers: list[tuple[str, str]], head: bytes = b""
    ) -> None:
        self.request_id = request_id
        self.status = status
        self.headers = headers
        self.head = head

    def _fields(self) -> tuple[object, ...]:
        # Without `head`: it says nothing that the others do not say.
        return (self.request_id, self.status, self.headers)


class ResponseBody(_Data):
    """Some bytes of the answer's body (RFC 3875 §6.4; after the head in FCGI_STDOUT).

    `last` tells that they complete the Content-Length that the head declares, so that nothing but
    the end of the answer can follow.  It is a hint of the sender's and does not travel.
    """

    __slots__ = ("last",)

    def __init__(self, request_id: int, data: bytes, last: bool = False) -> None:
        self.request_id = request_id
        self.data = data
        self.last = last


class ResponseFile(Event):
    """Some bytes of the answer's body that are still in a file: sent by server ends only.

    They are the `count` bytes from `offset` on of the file open as `descriptor`, which stays open
    until they are sent.  What the client end receives is ResponseBody.  `last` is as there.
    """

    __slots__ = ("descriptor", "offset", "count", "last")

    def __init__(
        self, request_id: int, descriptor: int, offset: int, count: int, last: bool = False
    ) -> None:
        self.request_id = request_id
        self.descriptor = descriptor
        self.offset = offset
        self.count = count
        self.last = last


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


class WholeAnswer(EndOfResponse):
    """Response, ResponseBody (where there is `data`) and EndOfResponse in one: sent by server ends only.

    `status`, `headers` and `head` are Response's.  With `measured` a Content-Length, that of `data`,
    is to be added to the headers that are given; `headers` has it then.

    Whoever waits for the end of an answer finds it here too, since this is an EndOfResponse; both
    of its statuses are 0.
    """

    __slots__ = ("status", "_headers", "data", "head", "_measured")

    app_status = 0
    protocol_status = 0

    def __init__(
        self,
        request_id: int,
        status: str,
        headers: list[tuple[str, str]],
        data: bytes,
        head: bytes = b"",
        measured: bool = False,
    ) -> None:
        self.request_id = request_id
        self.status = status
        self._headers = headers
        self.data = data
        self.head = head
        self._measured = measured

    @property
    def headers(self) -> list[tuple[str, str]]:
        if self._measured:
            return [*self._headers, ("Content-Length", str(len(self.data)))]
        return self._headers

    def _fields(self) -> tuple[object, ...]:
        # Without `head`: it says nothing that the others do not say.
        return (self.request_id, self.status, self.headers, self.data)


class FileRange:
    """`count` bytes from `offset` on of the file open as `descriptor`, where bytes would stand.

    Codecs leave it among their buffers; the edge that owns the connection sends the file's bytes
    in its place.  `len` is the count.
    """

    __slots__ = ("descriptor", "offset", "count")

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"FileRange({self.descriptor}, {self.offset}, {self.count})"
