"""The head of a CGI answer, read (RFC 3875 §6): what a backend or a script sent, for the client ends.

A module of its own, because a CGI request writes a head and reads none.
"""

from __future__ import annotations

from gateways.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways.events import Response
from gateways.response import CGI_FIELDS, controls_in, is_status, is_token

# What Python's cgitb prints before everything else, lest a comment that was begun swallow its page.
_CGITB = b"<!--: spam"


class HeadParser:
    """Reads the head of one answer from bytes cut anywhere (RFC 3875 §6.2, §6.3).

    Lines end with CRLF or LF.  The first may be an HTTP status line, as scripts that were written
    for NPH send and the uwsgi protocol requires.  Without any status it is 302 Found where there
    is a Location and 200 OK otherwise; `status_given` tells whether the peer named one, which is
    what makes a `Location: /path` a local redirect or not (§6.2.2).

    A Status, Location or Content-Type without a value counts as absent, an equal second one is
    dropped, and so is cgitb's `<!--: spam` in the first line.  What an empty field of HTTP's means
    is left to whoever reads it.

    `max_bytes` bounds the head with its empty line.  `rule` is the section named in errors.
    """

    def __init__(
        self, request_id: int = 0, *, max_bytes: int = 65536, rule: str = "RFC 3875 6"
    ) -> None:
        self.status_given = False
        self._request_id = request_id
        self._max_bytes = max_bytes
        self._rule = rule
        self._buffer = bytearray()
        self._line_start = 0
        self._searched = 0
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._fields: dict[str, str] = {}
        self._begun = False
        self._done = False

    def receive(self, data: bytes) -> tuple[Response | None, bytes]:
        """Take some bytes; return `(None, b"")`, or the head and the bytes after its empty line.

        Raises RemoteProtocolError for a line that is no header, a forbidden character, a bad,
        1xx or contradictory status, two different Locations or Content-Types or an empty head;
        LimitExceeded beyond `max_bytes`; and LocalProtocolError when called again after the head
        or an error.
        """
        if self._done:
            raise LocalProtocolError("the answer's head is over", rule=self._rule)
        self._buffer += data
        while True:
            end = self._buffer.find(b"\n", self._searched, self._max_bytes)
            if end < 0:
                self._searched = len(self._buffer)
                if self._searched >= self._max_bytes:
                    raise self._fault(
                        f"the answer's head is longer than {self._max_bytes} bytes", LimitExceeded
                    )
                return None, b""
            line = bytes(self._buffer[self._line_start : end])
            self._line_start = self._searched = end + 1
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line:
                return self._finish(), self._rest(end + 1)
            self._add_line(line)

    def _rest(self, start: int) -> bytes:
        rest = bytes(self._buffer[start:])
        self._buffer.clear()
        return rest

    def _add_line(self, line: bytes) -> None:
        if line == _CGITB and not self._begun:
            return
        first = not self._begun
        self._begun = True
        if first and line.startswith(b"HTTP/"):
            self._add_status_line(line)
            return
        raw_name, colon, raw_value = line.partition(b":")
        name = raw_name.decode("latin-1")
        # A line that begins with a space is a continuation, which §6.3 does not allow either.
        if not colon or not is_token(name):
            where = "begins with" if first else "has the line"
            raise self._fault(f"the answer's head {where} {_shorten(line)!r}, which is no header")
        value = raw_value.strip(b" \t").decode("latin-1")
        # A backend's value may hold a tab (RFC 9110 §5.5); PEP 3333 forbids it to an application.
        if controls_in(value, but=b"\t"):
            raise self._fault(f"the header {name!r} holds a control character: {_shorten(line)!r}")
        lower = name.lower()
        if lower == "status" or lower in CGI_FIELDS:
            if value:
                self._add_cgi_field(lower, name, value)
        else:
            self._headers.append((name, value))

    def _add_cgi_field(self, lower: str, name: str, value: str) -> None:
        if lower == "status":
            self._set_status(value)
        elif lower not in self._fields:
            self._fields[lower] = value
            self._headers.append((name, value))
        elif self._fields[lower] != value:
            raise self._fault(
                f"the answer has two different {name}s,"
                f" {self._fields[lower][:80]!r} and {value[:80]!r}"
            )

    def _add_status_line(self, line: bytes) -> None:
        version, _, status = line.decode("latin-1").partition(" ")
        digits = version[5:].replace(".", "", 1)
        if not (digits and digits.isascii() and digits.isdigit()):
            raise self._fault(f"the answer begins with {_shorten(line)!r}, which is no status line")
        self._set_status(status.strip(" \t"))

    def _set_status(self, status: str) -> None:
        if not is_status(status) or controls_in(status, but=b"\t"):
            raise self._fault(
                f"the answer's status is {status[:80]!r}; three digits and a reason belong there"
            )
        if status < "200":
            raise self._fault(f"the answer's status is {status[:80]!r}; CGI has no interim answers")
        # A status line followed by an equal Status header says one thing twice; two different
        # ones leave open which of them the next reader believes.
        if self._status and self._status[:3] != status[:3]:
            raise self._fault(
                f"the answer has two statuses, {self._status[:80]!r} and {status[:80]!r}"
            )
        self._status = self._status or status
        self.status_given = True

    def _finish(self) -> Response:
        if not self._begun:
            raise self._fault("the answer begins with an empty line; its head is missing")
        self._done = True
        if not self._status:
            self._status = "302 Found" if "location" in self._fields else "200 OK"
        return Response(self._request_id, self._status, self._headers)

    def _fault(
        self, message: str, kind: type[RemoteProtocolError] = RemoteProtocolError
    ) -> RemoteProtocolError:
        self._done = True
        # 502: whoever asked for this answer can only say that the backend's was no good.
        return kind(
            message,
            protocol="CGI" if self._rule.startswith("RFC") else "",
            rule=self._rule,
            request_id=self._request_id,
            status_hint=502,
        )


def _shorten(line: bytes) -> bytes:
    return line if len(line) <= 80 else line[:77] + b"..."
