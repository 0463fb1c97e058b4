"""What every protocol module offers, as types: a server end and a client end, neither doing I/O.

A protocol module holds a class `ServerConnection` (the end that receives requests; the FastCGI
specification calls it the application) and a class `ClientConnection` (the end that makes them;
the web server).  One object is one connection.

The rules both keep:

- `receive_data` takes the bytes as they came, cut anywhere; `b""` is end of file.  It returns
  the events they completed.  It raises RemoteProtocolError only for a fault that ends the
  connection; `.events` of the error holds the valid events that came before, so that cutting
  never changes what is seen.  A fault of one request is an event, RequestAborted(id, error).
  Nothing else is ever raised, whatever the bytes.
- `send` takes an event and puts its bytes into the outbox.  It raises LocalProtocolError when the
  event is not allowed now, and then has changed nothing.
- `buffers_to_send` empties the outbox, for a gathered write; a FileRange among the buffers stands
  for bytes of a file.  `data_to_send` is the same as one `bytes`, and raises TypeError for a
  FileRange.  Call one of them after *every* call of the two above: some protocols owe answers on
  their own account.
- `receive_whole` is a server end's short cut for the commonest case: where `data` is exactly one
  plain request, and nothing else is under way, it takes it and returns the Request and its whole
  body.  From there on all is as after `receive_data(data)` with the events Request, RequestBody
  where the body is not empty, EndOfRequest.  Otherwise it returns None and has changed nothing:
  call `receive_data`.  It raises nothing.
- `want_body` says that the application is waiting for body bytes.  It is idempotent, and means
  something only where the receiver pulls (AJP13).
- `must_close` is true once the connection can carry nothing more: close it when the outbox has
  been sent.
"""

from __future__ import annotations

from typing import Protocol

from gateways.events import Event, FileRange, Request

Buffers = list[bytes | memoryview | FileRange]
"""What `buffers_to_send` returns; `len` of each item is its size in bytes."""


class _Connection(Protocol):
    protocol: str
    """The name of the wire format, as its specification spells it."""

    def receive_data(self, data: bytes | memoryview, /) -> list[Event]: ...

    def send(self, event: Event, /) -> None: ...

    def data_to_send(self) -> bytes: ...

    def buffers_to_send(self) -> Buffers: ...

    @property
    def must_close(self) -> bool: ...


class ServerConnection(_Connection, Protocol):
    """The end that receives Request, RequestBody… and sends Response, ResponseBody…"""

    def receive_whole(self, data: bytes, /) -> tuple[Request, bytes] | None: ...

    def want_body(self, request_id: int, /) -> None: ...

    @property
    def head_pending(self) -> int:
        """Which head has begun to arrive and is not complete: the oldest one's request id, -1 where it
        has none, 0 where there is no such head.  Deadlines need to know."""


class ClientConnection(_Connection, Protocol):
    """The end that sends Request, RequestBody… and receives Response, ResponseBody…"""
