"""The head of a CGI answer: written, checked and parsed (RFC 3875 §6; PEP 3333 "The start_response() Callable").

FastCGI, SCGI and CGI carry the same head: `Status: 404 Not Found`, the header fields, an empty
line.  Three things live here, each with its own reader in mind:

- `write_head` makes the bytes, for the server ends.  It refuses what could forge a second header
  and checks nothing else, since it runs for every answer.
- `check_head` judges what a WSGI application gave to start_response, and says what to mend;
  `checked_head` remembers heads that it has passed, with their bytes.
- `own_answer` and `plain_answer` make the answers that gateways gives on its own account.
- `HeadParser` reads the head that a backend or a script sent, for the client ends.

The CGI path imports this module, so it imports nothing that costs time.
"""

from __future__ import annotations

from gateways.errors import ApplicationError, LocalProtocolError
from gateways.events import EndOfResponse, Event, Response, ResponseBody

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",  # in no RFC as a rule, but it does what Connection does
        "te",
        "trailer",
        "trailers",  # the name RFC 2616 §13.5.1 lists, and wsgiref with it
        "transfer-encoding",
        "upgrade",
    }
)
"""Names, in lower case, that concern one connection and so belong to the web server (RFC 9110 §7.6.1)."""

# RFC 9110 §5.6.2, the characters of a token.
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CONTROLS = bytes([*range(0x20), 0x7F])
_DIGITS = frozenset("0123456789")

CGI_FIELDS = ("content-type", "location")
"""The fields of CGI's own beside Status (RFC 3875 §6.3), in small letters; none may come twice."""


def write_head(status: str, headers: Iterable[tuple[str, str]]) -> bytes:
    r"""Return `Status: …\r\n`, one line for each header, and the empty line (RFC 3875 §6.3).

    Raises LocalProtocolError for CR, LF, NUL and for characters outside latin-1.
    """
    lines = ["Status: " + status]
    lines += [name + ": " + value for name, value in headers]
    text = "\r\n".join(lines) + "\r\n\r\n"
    # Counting the ends of lines finds every smuggled CR and LF without looking at each string.
    ends = len(lines) + 1
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise LocalProtocolError(
            f"the answer's head holds CR, LF or NUL: {_culprit(lines)!r}", rule="RFC 3875 6.3"
        )
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError(
            f"the answer's head holds a character outside latin-1: {_culprit(lines)!r}",
            rule="RFC 3875 6.3",
        ) from None


REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def plain_answer(
    request_id: int, status: int, text: str, *, head_only: bool = False
) -> list[Event]:
    """Return a whole answer: the status, and `text` below it as the body, in plain UTF-8.

    `head_only` is for HEAD: haproxy makes a 502 of an answer to it that has a body.
    """
    body = f"{status} {REASONS[status]}\n\n{text}\n".encode("utf-8", "backslashreplace")
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    return own_answer(request_id, status, headers, body, head_only=head_only)


def own_answer(
    request_id: int,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    *,
    head_only: bool = False,
) -> list[Event]:
    """Return a whole answer with a status of REASONS; its length is added to `headers`."""
    head = [*headers, ("Content-Length", str(len(body)))]
    page = [] if head_only else [ResponseBody(request_id, body)]
    # This answer is complete, so its appStatus is 0: another value marks one that was cut.
    return [
        Response(request_id, f"{status} {REASONS[status]}", head),
        *page,
        EndOfResponse(request_id),
    ]


def _culprit(lines: list[str]) -> str:
    for line in lines:
        if "\r" in line or "\n" in line or "\0" in line or max(line) > "\xff":
            return line
    return ""


def check_head(status: str, headers: list[tuple[str, str]]) -> None:
    """Judge the arguments of start_response (PEP 3333 "The start_response() Callable").

    Raises ApplicationError naming the fault: a status that is not three digits and a reason, a
    1xx status, a header list that is not a list of pairs of exact `str`, a name that is no token,
    a control character, a character outside latin-1, a hop-by-hop header, a Status header, a
    second Content-Type or Location (RFC 3875 §6.3).

    A bare "204" passes although PEP 3333 asks for a reason: waitress and gunicorn take it, and
    every web server fills the reason in.
    """
    if type(status) is not str:
        raise ApplicationError(f"the status is {_kind(status)}, not str: {status!r}")
    if not is_status(status):
        raise ApplicationError(
            f"the status is {status!r}; it begins with three digits, a space and a reason,"
            " as in '200 OK'"
        )
    if status < "200":
        raise ApplicationError(
            f"the status is {status!r}; an application answers once, so 1xx is not its to send"
        )
    if controls_in(status):
        raise ApplicationError(
            f"the status holds a control character or one outside latin-1: {status!r}"
        )
    if type(headers) is not list:
        raise ApplicationError(f"the headers are {_kind(headers)}, not a list: {headers!r}")
    seen = []
    for header in headers:
        lower = _check_header(header)
        if lower in CGI_FIELDS:
            if lower in seen:
                raise ApplicationError(f"the header {header[0]!r} is there twice: {headers!r}")
            seen.append(lower)


class CheckedHead:
    """A head that an application may send: judged by `check_head`, and made into bytes.

    `lines` are its bytes without the empty line at the end.  `declared` is its Content-Length, None
    where it has none; `bodiless` tells that no body goes with its status (RFC 9110 §6.4.1).  One
    may serve many answers at once: it is for reading.
    """

    __slots__ = ("status", "headers", "lines", "declared", "bodiless", "_measured")

    def __init__(
        self, status: str, headers: list[tuple[str, str]], lines: bytes, declared: int | None
    ) -> None:
        self.status = status
        self.headers = headers
        self.lines = lines
        self.declared = declared
        self.bodiless = status[:3] in _BODILESS
        self._measured = (-1, b"")

    def with_length(self, length: int) -> bytes:
        """Return the whole head with a Content-Length added."""
        measured = self._measured
        if measured[0] != length:
            head = b"%bContent-Length: %d\r\n\r\n" % (self.lines, length)
            # Both in one tuple, so that no thread sees one without the other.
            self._measured = measured = (length, head)
        return measured[1]


_BODILESS = ("204", "304")

# As for the request's CONTENT_LENGTH: more digits than any file has bytes.
_MAX_LENGTH_DIGITS = 18

# Heads that were passed, by (status, *headers): most applications send few.  What bounds the
# memory is their number and their size; what is one visitor's own is not kept at all.
_known_heads: dict[tuple[object, ...], CheckedHead] = {}
_MAX_KNOWN_HEADS = 256
_MAX_KNOWN_BYTES = 1024


def checked_head(status: str, headers: list[tuple[str, str]]) -> CheckedHead:
    """Judge the arguments of start_response, as `check_head` does, and return the head.

    Raises ApplicationError, as `check_head` and for a Content-Length that is no length.
    """
    try:
        known = _known_heads.get((status, *headers))
    except Exception:  # whatever cannot be iterated or hashed is no head, and check_head says why
        known = None
    # A subclass of str may equal a string and still be another thing.  Where all types are exact,
    # what equals a known head is the same strings.
    if known is None or type(status) is not str or type(headers) is not list:
        return _check_new_head(status, headers)
    for header in headers:
        if type(header) is not tuple:
            return _check_new_head(status, headers)
        name, value = header
        if type(name) is not str or type(value) is not str:
            return _check_new_head(status, headers)
    return known


def _check_new_head(status: str, headers: list[tuple[str, str]]) -> CheckedHead:
    check_head(status, headers)
    declared = _declared_length(headers)
    # A copy: what the application does to its list from here on is its own affair.
    headers = headers[:]
    head = CheckedHead(status, headers, write_head(status, headers)[:-2], declared)
    if len(head.lines) <= _MAX_KNOWN_BYTES and not _is_personal(headers):
        if len(_known_heads) >= _MAX_KNOWN_HEADS:
            _known_heads.clear()
        _known_heads[(status, *headers)] = head
    return head


def _is_personal(headers: list[tuple[str, str]]) -> bool:
    return any(name.lower() == "set-cookie" for name, _ in headers)


def _declared_length(headers: list[tuple[str, str]]) -> int | None:
    values = [value for name, value in headers if name.lower() == "content-length"]
    if not values:
        return None
    if len(values) > 1:
        raise ApplicationError(f"Content-Length is given {len(values)} times: {values!r}")
    text = values[0]
    if len(text) > _MAX_LENGTH_DIGITS or not (text.isascii() and text.isdigit()):
        raise ApplicationError(f"Content-Length is {text!r}; it is ASCII digits only")
    return int(text)


def _check_header(header: tuple[str, str]) -> str:
    """Judge one header; return its name in lower case."""
    if type(header) is not tuple or len(header) != 2:
        raise ApplicationError(f"a header is {header!r}, not a tuple (name, value)")
    name, value = header
    if type(name) is not str:
        raise ApplicationError(f"a header's name is {_kind(name)}, not str: {name!r}")
    if type(value) is not str:
        raise ApplicationError(f"the header {name!r} has {_kind(value)}, not str: {value!r}")
    if not is_token(name):
        raise ApplicationError(
            f"the header name {name!r} is empty or holds characters that no name may hold"
        )
    if controls_in(value):
        raise ApplicationError(
            f"the header {name!r} holds a control character or one outside latin-1: {value!r}"
        )
    lower = name.lower()
    if lower in HOP_BY_HOP:
        raise ApplicationError(
            f"the header {name!r} concerns one connection (hop-by-hop); only the web server sends it"
        )
    if lower == "status":
        raise ApplicationError(
            "the header 'Status' clashes with CGI's own; the status is start_response's argument"
        )
    return lower


def _kind(thing: object) -> str:
    return type(thing).__name__


def is_status(text: str) -> bool:
    """Tell whether `text` begins with three digits, and a space where it goes on."""
    code = text[:3]
    return len(code) == 3 and _DIGITS.issuperset(code) and text[3:4] in ("", " ")


def is_token(name: str) -> bool:
    """Tell whether `name` is a token (RFC 9110 §5.6.2)."""
    return bool(name) and name.isascii() and not name.encode("ascii").translate(None, _TOKEN)


def controls_in(text: str, *, but: bytes = b"") -> bool:
    """Tell whether `text` holds a control character, `but` for some, or one outside latin-1."""
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        return True
    raw = raw.translate(None, but)
    return len(raw.translate(None, _CONTROLS)) != len(raw)
