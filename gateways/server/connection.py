"""One accepted connection: the socket, its codec, and the requests open on it.

Any thread of the worker may meet this object at any time, so the contract is written down:

- The socket is non-blocking.  It is registered edge-triggered, so whoever learns that bytes may be
  there must see to it that they are read: set `_pending`, then try the *read lock*; whoever holds
  it looks at `_pending` again after letting go.  No wake-up is lost and nobody ever waits for the
  read lock in order to read.
- The read lock covers recv and demultiplexing, never the application.
- The *write lock* keeps the bytes of one `send` together.  It may be held for as long as the peer
  is slow to read.  Bytes that the protocol owes on its own account are sent by whoever reads, if
  the write lock is free, and otherwise by its holder (`_owed`, in the same way as `_pending`).
- `_lock` guards the codec and this object's state.  It is held briefly and innermost.
- Reading stops (`_paused`) while a body is full or the peer leaves owed bytes unread; whoever
  makes room reads again.
- The descriptor is closed only when no request runs, under both locks, so no thread is ever in a
  system call on a number that has been given to somebody else.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from gateways import errors, events
from gateways.interface import ServerConnection
from gateways.server.body import Body
from gateways.server.exchange import Exchange, Refusal
from gateways.server.log import log

if TYPE_CHECKING:
    from gateways.server.worker import Worker

RECEIVE_SIZE = 65536
"""Bytes asked for at once.  Above 64 KiB the interpreter maps fresh memory for each call."""

READS_AT_ONCE = 16
"""After this many reads in a row a connection goes to the end of the queue, so that a peer who
never stops sending takes no thread from the others."""

MAX_OWED = 65536
"""Bytes of automatic replies that may wait for a peer who does not read them."""

START_AT = 65536
"""A request starts when it is complete, or when this much of its body is waiting."""

LINGER_SECONDS = 5.0
"""How long an answered peer may go on sending before the connection is cut under it.  Closing at
once would reset the connection and could take the answer with it."""

FIRST_WORD_SECONDS = 1.0
"""How long a stopping server waits for the first byte of a connection it has just accepted."""

HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

Job = Callable[[], None]


class Connection:
    """A connection from a web server.  `worker` is what it belongs to."""

    def __init__(
        self,
        worker: Worker,
        sock: socket.socket,
        codec: ServerConnection,
        peer: tuple[str, str],
        local: tuple[str, str],
    ) -> None:
        self.worker = worker
        self.sock = sock
        self.descriptor = sock.fileno()
        self.codec = codec
        self.peer = peer
        self.local = local
        self._accepted_at = time.monotonic()
        self.deadline = self._accepted_at + worker.options.head_timeout
        self._silent = True
        self.closed = False
        self._exchanges: dict[int, Exchange] = {}
        self._running = 0
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._watching_output = False
        self._pending = False
        self._paused = False
        self._owed = False
        self._hang_up = False
        self._ended = False  # the peer sends nothing more
        self._dead = False  # nothing more can be sent to the peer
        self._faulty = False  # the peer broke the protocol; close after the last answer
        self._finished = False  # this side wants no more requests
        self._lingering = False
        self._broken_off = False  # the only answer was given up half-way
        self._answered = 0
        self._unread = False  # an answered request's body was still on its way
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._write_lock = threading.Lock()

    # What the worker's loop calls.

    def on_event(self, mask: int) -> list[Job]:
        """React to what epoll reported; return the jobs that became ready."""
        if mask & HANG_UP:
            self._hang_up = True
        if mask & select.EPOLLOUT:
            self._flush()
        return self.pump()

    def pump(self, *, to_the_end: bool = False) -> list[Job]:
        """Read what is there and hand it out; return the jobs (applications to run) it made ready.

        `to_the_end` has it read on after a short read, for when an edge may have been missed.
        """
        ready: list[Job] = []
        again = to_the_end
        self._pending = True
        while self._pending and self._read_lock.acquire(blocking=False):
            try:
                self._pending = False
                if not self.closed:
                    self._read(ready, to_the_end=again or self._hang_up)
            except Exception:
                log.exception("%s: internal error; please report it", self)
                self.give_up()
            finally:
                self._read_lock.release()
            again = True
        self._close_when_over()
        return ready

    def expire(self) -> None:
        """Cut the connection off because its deadline has passed.

        While others' requests are being answered on it, only those that never came whole end.
        """
        with self._lock:
            if self.closed:
                return
            if self._running and not self._lingering:
                ready: list[Job] = []
                self._expire_requests(ready)
                self.worker.submit(ready)
                return
            if not self._lingering:
                log.warning("%s: timed out while it was sending a request", self)
            self._cut()
        self._hang_up = True
        self.worker.submit(self.pump())

    def _expire_requests(self, ready: list[Job]) -> None:
        late = errors.TruncatedMessage("the request stopped arriving", status_hint=408)
        for request_id, exchange in list(self._exchanges.items()):
            if not exchange.started:
                self._on_abort(exchange, events.RequestAborted(request_id, late), ready)
        if self.codec.head_pending:
            self.deadline = time.monotonic() + self.worker.options.head_timeout

    def close_if_idle(self) -> None:
        """Close the connection if nothing is under way on it, after a last look at the socket.

        A new one is given a moment: its peer is about to speak.
        """
        if self._silent and time.monotonic() < self._accepted_at + FIRST_WORD_SECONDS:
            return
        self._hang_up = True  # read to the very end
        self.worker.submit(self.pump())
        with self._lock:
            idle = not (self._running or self._exchanges or self.codec.head_pending)
            self._finished = self._finished or idle
        self._close_when_over()

    # What an application's thread calls.

    def send(self, event: events.Event) -> None:
        """Send an answer's event, waiting while the peer is slow.

        Raises RequestAborted when the peer is gone or takes nothing for write_timeout seconds.
        """
        try:
            with self._write_lock:
                data = self._bytes_of(event)
                self._send_all(data)
        finally:
            if self._owed:
                self._flush()
        self._resume()

    def _bytes_of(self, event: events.Event) -> bytes:
        with self._lock:
            if self._dead:
                raise errors.RequestAborted("the web server closed the connection")
            self.codec.send(event)
            if isinstance(event, events.Response):
                return b""  # the body or the end follows at once: the head goes out with it
            if isinstance(event, events.RequestAborted) and self.codec.must_close:
                # A reset would take earlier answers with it that are still on their way.
                self._broken_off = self._answered == 0
            return self._take_unsent()

    def wait_for(self, request_id: int, body: Body) -> None:
        """Wait until something of that request's `body` has arrived, reading for everybody meanwhile.

        After read_timeout seconds without any, the body is aborted.
        """
        with self._lock:
            self.codec.want_body(request_id)
            self._collect()
        if self._unsent_size:
            self._flush()
        deadline = time.monotonic() + self.worker.options.read_timeout
        wake = self.worker.take_wake()
        try:
            while body.wait_on(wake):
                self.worker.submit(self.pump())
                if not body.wait_on(wake):
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    body.abort(errors.RequestAborted("the request's body stopped arriving"))
                    log.warning("%s: the request's body stopped arriving", self)
                    return
                self._wait_readable(wake, left)
        finally:
            body.wait_on(-1)
            self.worker.give_wake(wake)

    def made_room(self) -> None:
        """The application took bytes of a body: read on if that is what reading waits for."""
        if self._paused:
            self._resume()

    def done(self, exchange: Exchange | None) -> None:
        """A job of this connection is over: an exchange, or (None) a refusal."""
        with self._lock:
            self._running -= 1
            if exchange is not None:
                request_id = exchange.request.request_id
                # The peer may have opened the id anew as soon as it saw the answer's end.
                if self._exchanges.get(request_id) is exchange:
                    del self._exchanges[request_id]
                self._unread = self._unread or not exchange.body.ended
                self._answered += 1
        self._resume()
        if self.worker.draining:
            self.close_if_idle()
        else:
            self._close_when_over()

    def give_up(self) -> None:
        """Nothing that is still to be sent makes sense to the peer: cut the connection."""
        with self._lock:
            self._cut()

    # Reading.

    def _read(self, ready: list[Job], *, to_the_end: bool) -> None:
        for _ in range(READS_AT_ONCE):
            if self._ended or self._is_blocked():
                return
            try:
                data = self.sock.recv(RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
                self._dead = True
            self._ended = not data
            self._silent = False
            if self._lingering:
                continue
            self._receive(data, ready)
            if len(data) < RECEIVE_SIZE and not to_the_end:
                return
        self.worker.submit([self._read_on])

    def _read_on(self) -> None:
        self.worker.submit(self.pump())

    def _is_blocked(self) -> bool:
        """Whether reading must stop; remembers it for whoever makes room."""
        with self._lock:
            self._paused = self._must_wait()
            return self._paused

    def _must_wait(self) -> bool:
        if self._unsent_size > MAX_OWED:
            return True
        if len(self._exchanges) != 1:
            return False
        (exchange,) = self._exchanges.values()
        # A filter that has not started waits for the end of its body: that has to go on.
        waits = exchange.filter_data is not None and not exchange.started
        return exchange.body.full and not waits

    def _resume(self) -> None:
        if self._paused:
            with self._lock:
                blocked = self._must_wait()
            if not blocked:
                self.worker.submit(self.pump())

    def _receive(self, data: bytes, ready: list[Job]) -> None:
        fault = None
        with self._lock:
            if self._faulty or self._lingering:
                return
            try:
                arrived = self.codec.receive_data(data)
            except errors.RemoteProtocolError as error:
                arrived, fault = error.events, error
            for event in arrived:
                self._hand_out(event, ready)
            if fault is not None:
                self._on_fault(fault, ready)
            self._collect()
            self._set_deadline()
        if self._unsent_size:
            self._flush()

    def _hand_out(self, event: events.Event, ready: list[Job]) -> None:
        if isinstance(event, events.Request):
            exchange = Exchange(self, event)
            self._exchanges[event.request_id] = exchange
            if self.worker.options.stream_requests and exchange.filter_data is None:
                self._start(exchange, ready)
            return
        known = self._exchanges.get(event.request_id)
        if isinstance(event, events.RequestAborted):
            self._on_abort(known, event, ready)
        elif known is not None:
            is_filter = known.filter_data is not None
            known.on_event(event, spill=is_filter or len(self._exchanges) > 1)
            # A filter writes nothing before its body has ended (FastCGI 6.4).
            enough = known.body.ended if is_filter else known.body.received >= START_AT
            if enough or isinstance(event, events.EndOfRequest):
                self._start(known, ready)

    def _start(self, exchange: Exchange, ready: list[Job]) -> None:
        if not exchange.started:
            exchange.started = True
            self._running += 1
            ready.append(exchange.run)

    def _on_abort(
        self, exchange: Exchange | None, event: events.RequestAborted, ready: list[Job]
    ) -> None:
        if exchange is not None and exchange.started:
            exchange.abort(event.error)
            return
        if exchange is not None:
            del self._exchanges[event.request_id]
            exchange.abort(event.error)
        if isinstance(event.error, errors.RemoteProtocolError):
            self._unread = True
            self._running += 1
            ready.append(Refusal(self, event.request_id, event.error).run)
        elif exchange is not None:
            # The peer took the request back before anybody looked at it; the protocol still wants
            # it ended (FastCGI 5.4).
            self.codec.send(events.EndOfResponse(event.request_id, app_status=1))

    def _on_fault(self, fault: errors.RemoteProtocolError, ready: list[Job]) -> None:
        self._faulty = True
        self._unread = True
        for request_id, exchange in list(self._exchanges.items()):
            if not exchange.body.ended:
                exchange.abort(fault)
            if not exchange.started:
                del self._exchanges[request_id]
        self._running += 1
        ready.append(Refusal(self, fault.request_id, fault).run)

    def _set_deadline(self) -> None:
        now = time.monotonic()
        if self.codec.head_pending:
            self.deadline = self.deadline or now + self.worker.options.head_timeout
        elif any(not exchange.started for exchange in self._exchanges.values()):
            self.deadline = now + self.worker.options.read_timeout
        else:
            self.deadline = 0.0

    def _wait_readable(self, wake: int, seconds: float) -> None:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        if not self._paused and not self._ended:
            poller.register(self.descriptor, select.POLLIN | select.POLLRDHUP)
        poller.poll(seconds * 1000)
        self.worker.clear_wake(wake)

    # Writing.

    def _collect(self) -> None:
        data = self.codec.data_to_send()
        if data:
            self._unsent.append(data)
            self._unsent_size += len(data)

    def _take_unsent(self) -> bytes:
        self._collect()
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_size = 0
        return data

    def _send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except BlockingIOError:
                self._wait_writable()
            except OSError as error:
                self._dead = True
                raise errors.RequestAborted(f"the web server closed the connection: {error}") from (
                    error
                )

    def _wait_writable(self) -> None:
        """Wait until the peer takes more, reading meanwhile what it sends: it may be waiting too."""
        deadline = time.monotonic() + self.worker.options.write_timeout
        while True:
            poller = select.poll()
            listen = not self._paused and not self._ended
            poller.register(self.descriptor, select.POLLOUT | (select.POLLIN if listen else 0))
            left = deadline - time.monotonic()
            happened = poller.poll(left * 1000) if left > 0 else []
            if not happened:
                with self._lock:
                    self._cut()
                log.warning("%s: took no byte of the answer for too long", self)
                raise errors.RequestAborted("the web server stopped reading the answer")
            mask = happened[0][1]
            if mask & ~select.POLLIN:
                return
            self.worker.submit(self.pump())

    def _flush(self) -> None:
        """Send owed bytes as far as the peer takes them now, unless a sender does it anyway."""
        self._owed = True
        while self._owed and self._write_lock.acquire(blocking=False):
            try:
                self._owed = False
                self._send_owed()
            finally:
                self._write_lock.release()

    def _send_owed(self) -> None:
        with self._lock:
            data = b"" if self.closed or self._dead else self._take_unsent()
        try:
            sent = self.sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._dead = True
            return
        with self._lock:
            if sent < len(data):
                self._unsent.insert(0, data[sent:])
                self._unsent_size += len(data) - sent
            self._watch_output(sent < len(data))
        if self._paused:
            self._pending = True
            self.worker.submit([self._read_on])

    def _watch_output(self, wanted: bool) -> None:
        if wanted != self._watching_output and not self.closed:
            self._watching_output = wanted
            self.worker.watch_output(self, wanted)

    # Closing.

    def _cut(self) -> None:
        """Make every read and write on the socket end now.  `_lock` is held."""
        self._dead = True
        if not self.closed:
            with suppress(OSError):  # the peer was faster
                self.sock.shutdown(socket.SHUT_RDWR)

    def _close_when_over(self) -> None:
        with self._lock:
            if self.closed or self._running or not self._is_over():
                return
            # One that was only refused may still be sending what was refused.
            unread = self._unread or not self._answered
            lingers = unread and not (self._ended or self._dead or self._broken_off)
            if lingers and not self._lingering:
                self._linger()
                return
            if lingers:
                return
            self.closed = True
        with self._write_lock, self._read_lock:
            for exchange in self._exchanges.values():
                exchange.body.close()
            self.worker.forget(self)
            if self._broken_off:
                self._close_with_reset()
            self.sock.close()

    def _close_with_reset(self) -> None:
        """Have the close reset the connection, so that what was sent cannot pass for a whole answer.

        A clean end of file is the end of an SCGI answer, and nginx takes it for the end of a
        FastCGI answer too.  Only TCP can do this.
        """
        if self.sock.family != socket.AF_UNIX:
            with suppress(OSError):  # the peer was faster
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _is_over(self) -> bool:
        if self._dead:
            return True
        if self._unsent_size:
            return False
        return self._ended or self._faulty or self._finished or self.codec.must_close

    def _linger(self) -> None:
        """Say that nothing more comes, and read what is still on its way.  `_lock` is held."""
        self._lingering = True
        self.deadline = time.monotonic() + LINGER_SECONDS
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._dead = True
        self.worker.submit([self._read_on])

    def __str__(self) -> str:
        where = ":".join(self.peer) if self.peer[0] else "unix peer"
        return f"{self.codec.protocol} connection from {where}"
