"""Equal server ends that differ in which short cuts they take: whatever happens, all must agree.

The short cuts are `receive_whole`, for a request that came in one piece, and `plain_text`, for
variables that came so.  Without them there is the general machine alone, which other tests hold to
the specifications.
"""

from __future__ import annotations

from typing import Any

from gateways import environ, fastcgi, scgi
from gateways.errors import LocalProtocolError, RemoteProtocolError
from gateways.events import Event, Request
from gateways.interface import ServerConnection
from gateways.testing import content_of, merged, taken_whole

Fault = tuple[type[Exception], str] | None


class GeneralFastCGI(fastcgi.ServerConnection):
    """A server end that reads all variables as pairs."""

    def _plain_text(self, block: bytes) -> None:
        return None


class GeneralSCGI(scgi.ServerConnection):
    """A server end that reads all variables as pairs."""

    def _plain_text(self, block: bytes) -> None:
        return None


CLASSES: dict[str, tuple[Any, Any]] = {
    "FastCGI": (fastcgi.ServerConnection, GeneralFastCGI),
    "SCGI": (scgi.ServerConnection, GeneralSCGI),
}


class Twins:
    """Three ends of the protocol with the same options: with both short cuts, with one, with none.

    `taken` counts the requests that came by `receive_whole`.  Each call does the same to all three,
    and raises AssertionError where they then differ in anything that can be seen from outside.  The
    requests' texts are used up by that.
    """

    def __init__(self, protocol: str, **options: Any) -> None:
        real, general = CLASSES[protocol]
        self.short: ServerConnection = real(**options)
        self.long: list[ServerConnection] = [real(**options), general(**options)]
        self.taken = 0

    def receive(self, data: bytes) -> tuple[list[Event], Fault]:
        """Have all receive the bytes, b"" at end of file; return the events and the fault."""
        found = taken_whole(self.short, data) if data else None
        if found is None:
            short = _received(self.short, data)
        else:
            self.taken += 1
            short = merged(found), None
        for end in self.long:
            long = _received(end, data)
            assert short == long
            for event in [*short[0], *long[0]]:
                if isinstance(event, Request):
                    _check_text(event)
        self._agree()
        return short

    def send(self, event: Event) -> bytes | None:
        """Have all send the event; return the bytes, None where it is not allowed."""
        first, *others = (_sent(end, event) for end in (self.short, *self.long))
        assert others == [first, first]
        self._agree()
        return first[0]

    def _agree(self) -> None:
        first, *others = (
            (end.must_close, end.head_pending, content_of(end.buffers_to_send()))
            for end in (self.short, *self.long)
        )
        assert others == [first, first]


def _check_text(request: Request) -> None:
    """The environ made of a request's text must be the one made of its variables."""
    plain = Request(
        request.request_id,
        request.variables,
        request.role,
        request.body_delimited,
        request.keep_conn,
    )
    assert _environ(request) == _environ(plain)


def _environ(request: Request) -> object:
    try:
        return environ.build(request, {"wsgi.input": "ours"})
    except RemoteProtocolError as error:
        return str(error)


def _received(end: ServerConnection, data: bytes) -> tuple[list[Event], Fault]:
    try:
        return merged(end.receive_data(data)), None
    except RemoteProtocolError as error:
        return merged(error.events), (type(error), str(error))


def _sent(end: ServerConnection, event: Event) -> tuple[bytes | None, str]:
    try:
        end.send(event)
    except LocalProtocolError as error:
        return None, str(error)
    return content_of(end.buffers_to_send()), ""
