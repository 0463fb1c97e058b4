"""One connection to a FastCGI or SCGI server, and the answers that come over it.

The codec does the format; this module turns the crank.  While the body goes out the answer is
read, so that a server which answers early, or answers as it reads, never waits for us while we
wait for it.  Memory is bounded: one piece of the body and one receive's worth of events at a time.

A *wait* ends with an event of the answer or with a piece of the body sent, and may take `timeout`
seconds in all, however slowly bytes trickle meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from gateways import addresses, events
from gateways.client.body import PIECE_SIZE, Body, Spool, length_of, pieces_of
from gateways.client.stream import Stream, open_stream
from gateways.client.variables import Headers, variables
from gateways.errors import (
    ConfigurationError,
    LocalProtocolError,
    RemoteProtocolError,
    RequestAborted,
)

if TYPE_CHECKING:
    from gateways import fastcgi, interface

# FastCGI §6.3: an authorizer judges the whole request, not what a script or its body would get.
_NOT_FOR_AUTHORIZERS = frozenset(
    {b"CONTENT_LENGTH", b"PATH_INFO", b"PATH_TRANSLATED", b"SCRIPT_NAME"}
)

MAX_ERRORS_KEPT = 1024 * 1024
"""Bytes of an answer's error output that `Answer.errors` keeps; the rest is only counted."""

_PROTOCOL_STATUSES = {1: "FCGI_CANT_MPX_CONN", 2: "FCGI_OVERLOADED", 3: "FCGI_UNKNOWN_ROLE"}


def connect(address: addresses.Address | str, *, timeout: float | None = 30.0) -> Connection:
    """Connect to a FastCGI or SCGI server.

    `timeout` is seconds to connect in, and then for each wait; None waits for ever.  Raises
    ConnectFailed, TransportTimeout, or ConfigurationError for a bad address or one of a protocol
    that has no client yet.
    """
    if isinstance(address, str):
        address = addresses.parse(address)
    codec, request_id = _codec(address)
    return Connection(open_stream(address, timeout), codec, request_id, address, timeout)


def request(
    address: addresses.Address | str,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Headers = (),
    body: Body = b"",
    script_name: str = "",
    extra: Mapping[str, str | bytes] | None = None,
    role: str = events.RESPONDER,
    timeout: float | None = 30.0,
    on_errors: Callable[[bytes], None] | None = None,
) -> Answer:
    """Make one request over a connection of its own and return the answer once its head is there.

    The parameters are those of `variables`, `connect` and `Connection.request`.  A body whose
    length cannot be told streams over FastCGI; over SCGI, which needs the length first, it goes to
    a temporary file before.  The connection closes when the answer has been read or closed.
    """
    if isinstance(address, str):
        address = addresses.parse(address)
    spool: Spool | None = None
    length = length_of(body)
    if length is None and address.protocol == "scgi":
        body = spool = Spool(body)
        length = spool.length
    try:
        made = variables(
            target,
            method=method,
            headers=headers,
            content_length=length,
            script_name=script_name,
            extra=extra,
        )
        connection = connect(address, timeout=timeout)
        return connection.request(made, body, role=role, keep_conn=False, on_errors=on_errors)
    except BaseException:
        if spool is not None:
            spool.close()
        raise


def _codec(address: addresses.Address) -> tuple[interface.ClientConnection, int]:
    """Return a new client end, and the id that its requests bear."""
    if address.protocol == "fcgi":
        from gateways import fastcgi

        return fastcgi.ClientConnection(), 1
    if address.protocol == "scgi":
        from gateways import scgi

        return scgi.ClientConnection(), 0
    raise ConfigurationError(
        f'the client does not speak "{address.protocol}" yet, as {address} asks;'
        f" it speaks fcgi and scgi"
    )


class Connection:
    """A connection that carries one request after another; made by `connect`.

    `reusable` tells whether another request may follow: over FastCGI when the server kept the
    connection open and the last answer was read to its end.
    """

    def __init__(
        self,
        stream: Stream,
        codec: interface.ClientConnection,
        request_id: int,
        address: addresses.Address,
        timeout: float | None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.reusable = True
        self.closed = False
        self._stream = stream
        self._codec = codec
        self._request_id = request_id
        self._events: deque[events.Event] = deque()
        self._fault: RemoteProtocolError | None = None
        self._outbox = memoryview(b"")
        self._body: Body = b""
        self._upload: Iterator[events.Event] | None = None
        self._keep_conn = False
        self._aborting = False
        self._ended = False
        self._received = b""

    def request(
        self,
        variables: Iterable[tuple[bytes, bytes]],
        body: Body = b"",
        *,
        role: str = events.RESPONDER,
        data: Body = b"",
        keep_conn: bool = True,
        on_errors: Callable[[bytes], None] | None = None,
    ) -> Answer:
        """Send a request and return its answer once the head is there.

        `variables` are the meta-variables, CONTENT_LENGTH among them where `body` has a length; an
        authorizer is not sent that one, PATH_INFO, PATH_TRANSLATED and SCRIPT_NAME (FastCGI §6.3).
        `data` is the file that a FastCGI filter works on.  `on_errors` is called with each piece
        of the application's error output as it arrives.

        Raises LocalProtocolError when an answer is still unread or the format cannot carry the
        request; RemoteProtocolError when the answer breaks the format; RequestAborted when it
        ends before its head; TransportError and TransportTimeout when the socket fails.
        """
        self._check_free()
        made = list(variables)
        if role == events.AUTHORIZER:
            made = [pair for pair in made if pair[0] not in _NOT_FOR_AUTHORIZERS]
        head = events.Request(
            self._request_id,
            made,
            role,
            body_delimited=self._request_id != 0,
            keep_conn=keep_conn,
        )
        try:
            self._codec.send(head)
        except LocalProtocolError:
            if not keep_conn:
                self.close()
            raise
        self.reusable = False
        self._body = body
        self._keep_conn = keep_conn
        self._upload = self._request_events(body, data)
        if isinstance(body, bytes) and len(body) <= PIECE_SIZE and data == b"":
            self._send_in_one_write()
        answer = Answer(self, on_errors)
        answer._receive_head()
        return answer

    def get_values(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """Ask a FastCGI server for its limits (FastCGI §4.1); return those it told, by name.

        `names` are FCGI_MAX_CONNS, FCGI_MAX_REQS and FCGI_MPXS_CONNS unless given.  Raises
        LocalProtocolError over SCGI, which has no such question, and while an answer is unread;
        RequestAborted when the server closes instead of answering.
        """
        from gateways import fastcgi

        if not isinstance(self._codec, fastcgi.ClientConnection):
            raise LocalProtocolError("only FastCGI has FCGI_GET_VALUES", rule="FastCGI 4.1")
        self._check_free()
        if names is None:
            self._codec.get_values()
        else:
            self._codec.get_values(names)
        self._outbox = memoryview(self._codec.data_to_send())
        # The answer may hold none of the names, so its record is what tells that it came.
        reader = fastcgi.RecordReader()
        self._turn_until(lambda: self._received_a_record(reader))
        if self._fault is not None or self._ended:
            self.close()
            raise self._fault or RequestAborted(
                f"{self.address} closed the connection instead of answering FCGI_GET_VALUES"
            )
        return dict(self._codec.values)

    def close(self) -> None:
        """Close the socket; an answer that is not complete cannot be read any further."""
        self.closed = True
        self.reusable = False
        self._end_upload()
        self._stream.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_free(self) -> None:
        if not self.reusable:
            state = "closed" if self.closed else "still busy with an answer that is not read"
            raise LocalProtocolError(f"the connection to {self.address} is {state}")

    def _received_a_record(self, reader: fastcgi.RecordReader) -> bool:
        received, self._received = self._received, b""
        for _ in reader.read(received):
            pass
        return bool(received) and not reader.inside

    def _end_upload(self) -> None:
        self._upload = None
        if isinstance(self._body, Spool):
            self._body.close()
        self._body = b""

    def _request_events(self, body: Body, data: Body) -> Iterator[events.Event]:
        for piece in pieces_of(body):
            yield events.RequestBody(self._request_id, piece)
        for piece in pieces_of(data):
            yield events.FilterData(self._request_id, piece)
        yield events.EndOfRequest(self._request_id)

    def _next_event(self) -> events.Event:
        """Wait for the next event of the answer, sending the body meanwhile."""
        while not self._events:
            if self._fault is not None:
                self.close()
                raise self._fault
            if self.closed or self._ended:
                self.close()
                raise RequestAborted(f"the connection to {self.address} is closed")
            self._fill_outbox()
            sending = bool(self._outbox)
            self._turn_until(lambda: bool(self._events) or bool(self._outbox) != sending)  # noqa: B023  # called before the loop goes on
        return self._events.popleft()

    def _send_in_one_write(self) -> None:
        """Put the whole of a small request behind its head, so that they travel together."""
        try:
            while self._upload is not None:
                self._send_next_event()
        except BaseException:
            self.close()
            raise

    def _fill_outbox(self) -> None:
        """Take the next event of the request where everything before it has been sent."""
        try:
            self._outbox = self._outbox or memoryview(self._codec.data_to_send())
            while not self._outbox and self._upload is not None:
                self._send_next_event()
                self._outbox = memoryview(self._codec.data_to_send())
        except BaseException:
            self.close()
            raise

    def _send_next_event(self) -> None:
        if self._upload is not None:
            event = next(self._upload)
            self._codec.send(event)
            if isinstance(event, events.EndOfRequest):
                self._end_upload()

    def _turn_until(self, done: Callable[[], bool]) -> None:
        """Receive and send until `done`, or until nothing more will come."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        try:
            while not done() and not self._ended:
                readable, writable = self._stream.wait(bool(self._outbox), deadline)
                if readable:
                    self._receive()
                if writable:
                    self._send()
        except BaseException:
            # Nobody knows any more what the next bytes on the connection would be.
            self.close()
            raise

    def _receive(self) -> None:
        received = self._stream.receive()
        if received is None:
            return
        try:
            came = self._codec.receive_data(received)
        except RemoteProtocolError as error:
            came = error.events
            self._fault = error
        self._events.extend(e for e in came if not (self._aborting and _is_body(e)))
        self._received = received
        self._ended = not received or self._fault is not None
        # A codec may owe bytes of its own; they go out before the next piece of the body.
        self._outbox = self._outbox or memoryview(self._codec.data_to_send())

    def _send(self) -> None:
        sent = self._stream.send(self._outbox)
        if sent is None:
            # The peer reads no more, but what it has answered already is still to be received.
            self._end_upload()
            self._keep_conn = False
            self._outbox = memoryview(b"")
        else:
            self._outbox = self._outbox[sent:]

    def _abort(self) -> None:
        """Tell the server to stop, and stop sending the body."""
        self._end_upload()
        self._aborting = True
        self._events = deque(e for e in self._events if not _is_body(e))
        self._codec.send(events.RequestAborted(self._request_id))
        self._outbox = memoryview(bytes(self._outbox) + self._codec.data_to_send())
        if self._codec.must_close:
            self.close()
        else:
            self._turn_until(lambda: not self._outbox)

    def _answer_is_over(self) -> None:
        """Make the connection ready for the next request, or close it."""
        complete = self._upload is None and not self._outbox
        self._events.clear()
        if complete and self._keep_conn and not self._ended and not self._codec.must_close:
            self._aborting = False
            self.reusable = True
        else:
            self.close()


class Answer:
    """The answer to one request: its head is there, its body comes as it is asked for.

    `status` is a number, `reason` the words after it, `headers` (name, value) pairs of latin-1
    strings.  `app_status` and `protocol_status` are FastCGI's, known at the end of the body.
    `errors` is the error output so far (FCGI_STDERR), up to 1 MiB of it.
    """

    def __init__(
        self, connection: Connection, on_errors: Callable[[bytes], None] | None = None
    ) -> None:
        self.status = 0
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        self.errors = b""
        self.app_status = 0
        self.protocol_status = 0
        self.complete = False
        self._connection = connection
        self._on_errors = on_errors

    def header(self, name: str, default: str = "") -> str:
        """Return the first header called `name`, in any case of letters."""
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return default

    def iter_body(self) -> Iterator[bytes]:
        """Yield each piece of the body when it arrives.

        Raises RequestAborted when the answer is cut, the RemoteProtocolError that it broke, or
        the TransportError that ended it.
        """
        while not self.complete:
            event = self._next()
            if isinstance(event, events.ResponseBody):
                yield event.data

    def read(self) -> bytes:
        """Return the rest of the body, however long it is; raises as `iter_body` does."""
        return b"".join(self.iter_body())

    def abort(self) -> None:
        """Tell the application to stop (FastCGI §5.4); over SCGI, close the connection.

        Over FastCGI the answer is then read to its end for the statuses; what is left of its body
        is dropped.
        """
        if not self.complete and not self._connection.closed:
            self._connection._abort()

    def close(self) -> None:
        """Be done with the answer: one that is not complete costs its connection."""
        if not self.complete:
            self._connection.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _receive_head(self) -> None:
        while True:
            event = self._next()
            if isinstance(event, events.Response):
                code, _, self.reason = event.status.partition(" ")
                self.status = int(code)
                self.headers = event.headers
                return
            if isinstance(event, events.EndOfResponse):
                status = _PROTOCOL_STATUSES.get(event.protocol_status, "no reason given")
                raise RequestAborted(
                    f"{self._connection.address} ended the request without an answer:"
                    f" {status}, exit status {event.app_status}"
                )

    def _next(self) -> events.Event:
        event = self._connection._next_event()
        if isinstance(event, events.ErrorOutput):
            self.errors += event.data[: MAX_ERRORS_KEPT - len(self.errors)]
            if self._on_errors is not None:
                self._on_errors(event.data)
        elif isinstance(event, events.EndOfResponse):
            self.complete = True
            self.app_status = event.app_status
            self.protocol_status = event.protocol_status
            self._connection._answer_is_over()
        elif isinstance(event, events.RequestAborted):
            self._connection.close()
            if event.error is not None:
                raise event.error
            raise RequestAborted(f"{self._connection.address} broke its answer off")
        return event


def _is_body(event: events.Event) -> bool:
    return isinstance(event, events.ResponseBody)
