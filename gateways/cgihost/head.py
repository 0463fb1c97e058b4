"""The head of what a script printed, as a WSGI application may pass it on (RFC 3875 §6.2, §6.3)."""

from __future__ import annotations

from http import HTTPStatus

from gateways.events import Response
from gateways.response import HOP_BY_HOP

_FIELDS = ("content-type", "location")


class Broken(Exception):
    """The script's output is no CGI answer; the text says why."""


class Head:
    """`status`, with a reason, and `headers`; `length` is that of the body, None where it is not told.

    `status_given` is whether the script named a status itself.  Raises Broken for a head without any of
    the fields that make it one, and where it says wrongly where the body ends.
    """

    __slots__ = ("status", "headers", "length")

    def __init__(self, told: Response, *, status_given: bool) -> None:
        names = {name.lower() for name, _ in told.headers}
        if not (status_given or names.intersection(_FIELDS)):
            raise Broken(
                "its head has neither Content-Type nor Location nor Status (RFC 3875 6.2);"
                f" it has {', '.join(sorted(names)) or 'nothing'}"
            )
        self.length = _length(told)
        self.status = _with_reason(told.status.replace("\t", " "))
        self.headers: list[tuple[str, str]] = []
        for name, value in told.headers:
            lower = name.lower()
            if lower in HOP_BY_HOP:
                if lower == "transfer-encoding":
                    raise Broken("it has a Transfer-Encoding, which is the web server's to choose")
            elif lower != "content-length":
                # A tab is white space as good as a space (RFC 9110 §5.5); PEP 3333 has none.
                self.headers.append((name, value.replace("\t", " ")))
        # One that is said twice, the same each time, is passed on once; RFC 9110 §8.6 for the 204.
        if self.length is not None and self.status[:3] != "204":
            self.headers.append(("Content-Length", str(self.length)))


def _length(told: Response) -> int | None:
    lengths = {value for name, value in told.headers if name.lower() == "content-length"}
    if len(lengths) > 1 or not all(map(_is_length, lengths)):
        raise Broken(f"its Content-Length is {' and '.join(sorted(lengths))[:80]!r}")
    return int(lengths.pop()) if lengths else None


def _is_length(text: str) -> bool:
    # More digits than any file has bytes are an attack on int().
    return text.isascii() and text.isdigit() and len(text) <= 18


def _with_reason(status: str) -> str:
    """Return a status that has a reason, which PEP 3333 requires."""
    if len(status.rstrip()) > 3:
        return status
    try:
        return f"{status[:3]} {HTTPStatus(int(status[:3])).phrase}"
    except ValueError:
        return f"{status[:3]} Unknown"
