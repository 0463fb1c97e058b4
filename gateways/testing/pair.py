"""Both ends of one protocol, joined in memory.

    pair = Pair(scgi.ClientConnection(), scgi.ServerConnection(), cut=bytewise)
    pair.to_server(Request(0, [(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"1")]), EndOfRequest(0))
    pair.to_client(Response(0, "200 OK", []), ResponseBody(0, b"hello"), EndOfResponse(0))

What one end sends the other receives, cut as `cut` says, in the order a network would keep.  There
is no socket, no thread and no clock: a test can stop between any two bytes and look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import cycle

from gateways import cgi
from gateways.errors import RemoteProtocolError
from gateways.events import (
    EndOfRequest,
    ErrorOutput,
    Event,
    FilterData,
    Request,
    RequestBody,
    ResponseBody,
)
from gateways.interface import ClientConnection, ServerConnection

Cut = Callable[[bytes], Iterable[bytes]]
"""Cuts bytes into the pieces in which they arrive: none of them empty, together the same bytes."""


def whole(data: bytes) -> Iterator[bytes]:
    """Everything at once."""
    if data:
        yield data


def bytewise(data: bytes) -> Iterator[bytes]:
    """One byte at a time, the hardest cut there is."""
    for at in range(len(data)):
        yield data[at : at + 1]


class Pieces:
    """Cuts into pieces of the given sizes, over and over; the last piece is what is left.

    Raises ValueError for sizes that are empty or not positive.
    """

    def __init__(self, *sizes: int) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes are {sizes}, expected at least one and all positive")
        self.sizes = sizes

    def __repr__(self) -> str:
        return f"Pieces{self.sizes}"

    def __call__(self, data: bytes) -> Iterator[bytes]:
        start = 0
        for size in cycle(self.sizes):
            if start >= len(data):
                return
            yield data[start : start + size]
            start += size


class Pair:
    """A client end and a server end, and the wire between them.

    Every call that moves bytes goes on until neither end has anything to send, so answers that a
    protocol owes of its own accord (FastCGI's management records) arrive too.  `server_events` and
    `client_events` hold everything that each end has received.

    An end that says `must_close` is closed as soon as its outbox has been carried: the other end
    meets end of file, and what is sent to a closed end is lost.  Between two CGI ends the
    variables pass as the environment does, and EndOfRequest closes standard input.

    A RemoteProtocolError of either end passes through.  Its `.events` are then *all* events that
    the end received from the bytes under way, however `cut` cut them; what is left of the wire's
    content is lost, and the next `pump` carries what the ends still had to say.
    """

    def __init__(
        self, client: ClientConnection, server: ServerConnection, *, cut: Cut = whole
    ) -> None:
        self.client = client
        self.server = server
        self.cut = cut
        self.client_events: list[Event] = []
        self.server_events: list[Event] = []
        self._eof_to_server = False
        self._eof_to_client = False

    def to_server(self, *events: Event) -> list[Event]:
        """Send events from the client end; return what the server end received.

        Raises LocalProtocolError when the client end may not send one of them.
        """
        before = len(self.server_events)
        for event in events:
            self.client.send(event)
            if isinstance(self.server, cgi.ServerConnection):
                self._to_script(event)
            self.pump()
        return self.server_events[before:]

    def to_client(self, *events: Event) -> list[Event]:
        """Send events from the server end; return what the client end received.

        Raises LocalProtocolError when the server end may not send one of them.
        """
        before = len(self.client_events)
        for event in events:
            self.server.send(event)
            self.pump()
        return self.client_events[before:]

    def pump(self) -> None:
        """Carry what is in the outboxes, both ways, until both are empty; close what must be."""
        while True:
            requests = self.client.data_to_send()
            answers = self.server.data_to_send()
            if requests and not self._eof_to_server:
                deliver(self.server, self.cut(requests), self.server_events)
            if answers and not self._eof_to_client:
                deliver(self.client, self.cut(answers), self.client_events)
            if not requests and not answers and not self._close():
                return

    def client_closes(self) -> list[Event]:
        """The client end sends no more, though it still reads; return what the server end received."""
        before = len(self.server_events)
        self.pump()
        if not self._eof_to_server:
            self._eof_to_server = True
            deliver(self.server, [b""], self.server_events)
        self.pump()
        return self.server_events[before:]

    def server_closes(self) -> list[Event]:
        """The server end sends no more; return what the client end received."""
        before = len(self.client_events)
        self.pump()
        if not self._eof_to_client:
            self._eof_to_client = True
            deliver(self.client, [b""], self.client_events)
        self.pump()
        return self.client_events[before:]

    def _close(self) -> bool:
        """Let the ends meet the end of file that is due; tell whether there was one."""
        if self.server.must_close and not self._eof_to_client:
            self._eof_to_client = self._eof_to_server = True
            deliver(self.client, [b""], self.client_events)
            return True
        if self.client.must_close and not self._eof_to_server:
            self._eof_to_client = self._eof_to_server = True
            deliver(self.server, [b""], self.server_events)
            return True
        return False

    def _to_script(self, event: Event) -> None:
        assert isinstance(self.client, cgi.ClientConnection)
        assert isinstance(self.server, cgi.ServerConnection)
        if isinstance(event, Request):
            variables = list(self.client.environment.items())
            self.server_events += self.server.receive_variables(variables)
        elif isinstance(event, EndOfRequest):
            self.client_closes()


def deliver(
    end: ClientConnection | ServerConnection, pieces: Iterable[bytes], into: list[Event]
) -> None:
    """Give an end the pieces in turn and add the events to `into`.

    Raises the end's RemoteProtocolError with `.events` replaced by all events of this call; they
    are in `into` as well.
    """
    before = len(into)
    for piece in pieces:
        try:
            into += end.receive_data(piece)
        except RemoteProtocolError as error:
            into += error.events
            error.events = into[before:]
            raise


def merged(events: Iterable[Event]) -> list[Event]:
    """The events with neighbouring pieces of one stream of one request joined.

    How a body is cut into events follows how the bytes were cut into calls; merged events do not.
    """
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if (
            isinstance(event, _CARRIERS)
            and type(last) is type(event)
            and last.request_id == event.request_id
        ):
            joined[-1] = type(event)(event.request_id, last.data + event.data)
        else:
            joined.append(event)
    return joined


_CARRIERS = (RequestBody, FilterData, ResponseBody, ErrorOutput)
