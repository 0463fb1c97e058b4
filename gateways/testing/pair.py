"""Both ends of one protocol, joined in memory.

    pair = Pair(scgi.ClientConnection(), scgi.ServerConnection(), cut=bytewise)
    pair.to_server(Request(0, [(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"1")]), EndOfRequest(0))
    pair.to_client(Response(0, "200 OK", []), ResponseBody(0, b"hello"), EndOfResponse(0))

What one end sends the other receives, cut as `cut` says, in the order a network would keep.  There
is no socket, no thread and no clock: a test can stop between any two bytes and look.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle

from gateways import cgi
from gateways.errors import RemoteProtocolError
from gateways.events import (
    EndOfRequest,
    EndOfResponse,
    ErrorOutput,
    Event,
    FileRange,
    FilterData,
    Request,
    RequestBody,
    Response,
    ResponseBody,
    WholeAnswer,
)
from gateways.interface import Buffers, ClientConnection, ServerConnection

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

    With `short_cut` the server end takes each piece by `receive_whole` if it will, as the server
    does; what it receives is the same.
    """

    def __init__(
        self,
        client: ClientConnection,
        server: ServerConnection,
        *,
        cut: Cut = whole,
        short_cut: bool = False,
    ) -> None:
        self.client = client
        self.server = server
        self.cut = cut
        self.short_cut = short_cut
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
            answers = content_of(self.server.buffers_to_send())
            if requests and not self._eof_to_server:
                taker = self.server if self.short_cut else None
                deliver(self.server, self.cut(requests), self.server_events, taker)
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
    end: ClientConnection | ServerConnection,
    pieces: Iterable[bytes],
    into: list[Event],
    taker: ServerConnection | None = None,
) -> None:
    """Give an end the pieces in turn and add the events to `into`.

    `taker` is the same end once more where it may use `receive_whole`.  Raises the end's
    RemoteProtocolError with `.events` replaced by all events of this call; they are in `into` as
    well.
    """
    before = len(into)
    for piece in pieces:
        try:
            into += (taker and taken_whole(taker, piece)) or end.receive_data(piece)
        except RemoteProtocolError as error:
            into += error.events
            error.events = into[before:]
            raise


def taken_whole(server: ServerConnection, data: bytes) -> list[Event] | None:
    """Have a server end take `data` by `receive_whole`: the events that it stands for, or None."""
    taken = server.receive_whole(data)
    if taken is None:
        return None
    request, body = taken
    bodies = [RequestBody(request.request_id, body)] if body else []
    return [request, *bodies, EndOfRequest(request.request_id)]


def content_of(buffers: Buffers) -> bytes:
    """The bytes that these buffers stand for; those of a FileRange are read from its file."""
    return b"".join(
        os.pread(each.descriptor, each.count, each.offset) if isinstance(each, FileRange) else each
        for each in buffers
    )


def expanded(events: Iterable[Event]) -> list[Event]:
    """The events with each WholeAnswer replaced by those that it stands for."""
    plain: list[Event] = []
    for event in events:
        if isinstance(event, WholeAnswer):
            request_id = event.request_id
            plain.append(Response(request_id, event.status, event.headers))
            plain += [ResponseBody(request_id, event.data)] if event.data else []
            plain.append(EndOfResponse(request_id))
        else:
            plain.append(event)
    return plain


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
