"""One accepted connection: the descriptor, its codec, and the requests open on it.

Any thread of the worker may meet this object at any time, so the contract is written down:

- The socket is non-blocking.  It is registered edge-triggered, so whoever learns that bytes may be
  there must see to it that they are read: set `_pending`, then try the *read lock*; whoever holds
  it looks at `_pending` again after letting go.  No wake-up is lost and nobody ever waits for the
  read lock in order to read.
- The read lock covers recv and demultiplexing, never the application.
- `_lock` guards the codec, this object's state and the order of what is sent (sending.py).  It is
  innermost, and nobody waits for a peer while holding it.  While no request is open the codec
  belongs to whoever holds the read lock: the commonest request is taken in without `_lock`.
- Reading stops (`_paused`) while a body is full or the peer leaves owed bytes or finished answers
  unread; whoever makes room reads again.
- The descriptor is closed only when no job runs, under both locks, so no thread is ever in a system
  call on a number that has been given to somebody else.

A connection that brings one whole request and does not stay is never registered at all: the thread
that accepted it reads, answers and closes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from contextlib import suppress

from gateways import errors, events
from gateways.server.body import Body
from gateways.server.exchange import Exchange, Refusal
from gateways.server.log import log, log_exception
from gateways.server.sending import Sending, Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.interface import ServerConnection
    from gateways.server.sending import Job
    from gateways.server.worker import Worker

RECEIVE_SIZE = 65536
"""Bytes asked for at once.  Above 64 KiB the interpreter maps fresh memory for each call."""

BODY_SIZE = 262144
"""Bytes asked for at once, into memory that is kept, where bodies are on their way."""

READS_AT_ONCE = 16
"""After this many reads in a row a connection goes to the end of the queue, so that a peer who
never stops sending takes no thread from the others."""

MAX_OWED = 65536
"""Bytes of automatic replies that may wait for a peer who does not read them."""

LINGER_SECONDS = 5.0
"""How long an answered peer may go on sending before the connection is cut under it.  Closing at
once would reset the connection and could take the answer with it."""

FIRST_WORD_SECONDS = 1.0
"""How long a stopping server waits for the first byte of a connection it has just accepted."""

EPOLLIN = select.EPOLLIN
HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Connection(Sending):
    """A connection from a web server.  `worker` is what it belongs to."""

    # As in Sending, what most connections never change stands here.
    deadline = 0.0  # by when a head that has begun must be complete; 0 for none
    _head = 0  # which head that is, as the codec's head_pending tells
    used = 0  # when it last finished something, as worker.next_use counts
    _accepted_at = 0.0
    _silent = True
    _pending = False
    _overloaded = False  # special: it was accepted only to be told that there is no room
    _faulty = False  # special: the peer broke the protocol; close after the last answer
    _finished = False  # special: this side wants no more requests
    _lingering = False  # special
    _refusing = 0  # special where it is not 0: refusals that are not answered yet
    _unread = False  # an answered request's body was still on its way

    def __init__(
        self,
        worker: Worker,
        descriptor: int,
        family: int,
        codec: ServerConnection,
        peer: tuple[str, str],
        local: tuple[str, str],
    ) -> None:
        self.worker = worker
        self.descriptor = descriptor
        self.family = family
        self.codec = codec
        self.peer = peer
        self.local = local
        self._exchanges = {}
        self._active = set()
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()

    # What the worker's loop calls.

    def on_accept(self) -> None:
        """Read what a new connection has brought, and answer it or register the connection."""
        ready: list[Job] = []
        exchange = None
        try:
            if not self._special:
                # No other thread can know of the connection yet.
                exchange = self._read_request(ready)
            leaves = exchange is not None and self._closes and not self._pending
            if not (leaves or self.registered):
                self.enrol()
        except Exception:
            self._on_internal_error()
            self._active.clear()
            self._close_when_over()
            return
        if exchange is None:
            self.worker.run_first([*ready, *self.pump(to_the_end=True)])
            return
        if not leaves:
            # An edge may have come between registering and being found; see Worker.register.
            self.worker.submit([Turn(self, self._read_on)])
        exchange.run()

    def enrol(self) -> None:
        """Have the epoll watch the connection from now on."""
        now = time.monotonic()
        self._accepted_at = now
        self.used = self.worker.next_use()
        if self._silent or self.codec.head_pending:
            self.deadline = now + self.worker.options.head_timeout
        self.worker.register(self)

    def overload(self) -> None:
        """Answer no request on this new connection: there is no room for it."""
        self._overloaded = self._special = True

    def serve(self, mask: int) -> None:
        """React to what epoll reported, and run the first application that becomes ready here.

        Most events bring one whole request to a connection where nothing else is under way; that
        is what stands here.  Everything else is `pump`'s.
        """
        if mask != EPOLLIN:
            self._serve_otherwise(mask)
            return
        self._pending = True
        if not self._read_lock.acquire(False):
            return
        exchange = None
        ready: list[Job] = []
        try:
            if not (self._special or self._exchanges):
                self._pending = False
                exchange = self._read_request(ready)
        except Exception:
            self._on_internal_error()
        finally:
            self._read_lock.release()
        if not self._pending:
            if exchange is not None:
                exchange.run()
                return
            self._close_when_over()
        else:
            if exchange is not None:
                ready.append(exchange)
            ready += self.pump(to_the_end=True)
        self.worker.run_first(ready)

    def _serve_otherwise(self, mask: int) -> None:
        if mask & HANG_UP:
            self._hang_up = self._special = True
        if mask & select.EPOLLOUT:
            self._flush()
        self.worker.run_first(self.pump())

    def pump(self, *, to_the_end: bool = False) -> list[Job]:
        """Read what is there and hand it out; return the jobs (applications to run) it made ready.

        `to_the_end` has it read on after a short read, for when an edge may have been missed.
        """
        ready: list[Job] = []
        again = to_the_end
        self._pending = True
        while self._pending and self._read_lock.acquire(False):
            try:
                self._pending = False
                if not self.closed:
                    self._read(ready, again or self._hang_up)
            except Exception:
                self._on_internal_error()
            finally:
                self._read_lock.release()
            again = True
        self._close_when_over()
        return ready

    def _on_internal_error(self) -> None:
        self.give_up()
        log_exception("%s: internal error; please report it", self)

    def is_idle(self) -> bool:
        """Whether nothing at all is under way, so that closing the connection harms nobody.

        The lock is held.
        """
        return not (
            self._active
            or self._exchanges
            or self._backlog is not None
            or self.codec.head_pending
            or self._lingering
        )

    def may_go(self, new: bool) -> bool:
        """Whether it may be closed to make room: it is idle and, unless `new` ones may go as well,
        not about to speak for the first time."""
        soon = self._silent and time.monotonic() < self._accepted_at + FIRST_WORD_SECONDS
        with self._lock:
            return self.is_idle() and (new or not soon)

    def evict(self) -> bool:
        """Close the connection if it is idle after a last look at the socket; return whether it is
        closed."""
        self.worker.submit(self.pump(to_the_end=True))
        with self._read_lock, self._lock:
            if self.is_idle() and not self._pending:
                log.debug("%s: closed to make room, as the one used longest ago", self)
                self._cut()
        if self._pending:
            # Somebody wanted to read while the lock was held here.
            self.worker.submit([Turn(self, self._read_on)])
        self._close_when_over()
        return self.closed

    def close_if_idle(self) -> None:
        """Close the connection if nothing is under way on it, after a last look at the socket.

        A new one is given a moment: its peer is about to speak.
        """
        if self._silent and time.monotonic() < self._accepted_at + FIRST_WORD_SECONDS:
            return
        self._hang_up = self._special = True  # read to the very end
        self.worker.submit(self.pump())
        with self._lock:
            if not (self._active or self._exchanges or self.codec.head_pending):
                self._finished = self._special = True
        self._close_when_over()

    # What a job's thread calls.

    def wait_for(self, request_id: int, body: Body, seconds: float = float("inf")) -> None:
        """Wait until something of that request's `body` has arrived, reading for everybody meanwhile.

        With `seconds` at most so long.
        A body that comes more slowly than min_rate, averaged over the time that was spent waiting
        for it, is aborted.
        """
        with self._lock:
            self.codec.want_body(request_id)
        self._flush()
        options = self.worker.options
        began = time.monotonic()
        wake = self.worker.take_wake()
        try:
            while body.wait_on(wake):
                self.worker.submit(self.pump())
                if not body.wait_on(wake):
                    break
                waited = time.monotonic() - began
                if body.is_too_slow(waited, options):
                    self._abort_slow(body)
                    return
                if waited >= seconds:
                    return
                left = options.rate_window - body.waited - waited
                self._wait_readable(wake, min(left, seconds - waited))
        finally:
            body.waited += time.monotonic() - began
            body.wait_on(-1)
            self.worker.give_wake(wake)

    def _abort_slow(self, body: Body) -> None:
        options = self.worker.options
        late = errors.RequestAborted("the request's body came too slowly")
        body.abort(late)
        log.warning(
            "%s: a body came more slowly than min_rate, %d bytes a second, during rate_window, %g s",
            self,
            options.min_rate,
            options.rate_window,
        )
        with self._lock:
            self._finished = self._special = True

    def made_room(self) -> None:
        """The application took bytes of a body: read on if that is what reading waits for."""
        if self._paused:
            self._resume()

    def done(self, job: Exchange | Refusal) -> None:
        """A job of this connection is over."""
        worker = self.worker
        self._active.discard(job)
        self.used = worker.next_use()
        if self._closes or self._special or self._exchanges or self._paused or worker.draining:
            if self.registered or self._special or self._exchanges or self._broken_off:
                self._after(job)
            else:
                # No other thread has ever known of this connection.
                self.closed = True
                self._close_descriptor()

    def _after(self, job: Exchange | Refusal) -> None:
        with self._lock:
            request_id = job.request.request_id
            if self._exchanges.get(request_id) is job:  # its answer was not sent to the end
                del self._exchanges[request_id]
            if isinstance(job, Refusal):
                self._refusing -= 1
                self._reckon()
            elif not job.body.ended:
                self._unread = True
        if self._paused:
            self._resume()
        if self.worker.draining:
            self.close_if_idle()
        else:
            self._close_when_over()

    def abandon(self) -> None:
        """Close the descriptor: the worker has ended, and no thread of it runs any more."""
        if self._backlog is not None:
            self._backlog.close()
        for exchange in self._exchanges.values():
            exchange.close()
        self._close_descriptor()

    # Reading.

    def _read(self, ready: list[Job], to_the_end: bool) -> None:
        for _ in range(READS_AT_ONCE):
            if self._ended or self._is_blocked():
                return
            exchanges = list(self._exchanges.values())  # others may end meanwhile
            awaited = [each for each in exchanges if not each.body.ended]
            more = self._read_body(ready) if awaited else self._read_head(ready)
            if more is None or not (more or to_the_end):
                return
        self.worker.submit([Turn(self, self._read_on)])

    def _read_head(self, ready: list[Job]) -> bool | None:
        """Read once where a request is likely to begin.

        Return whether the read was full, so that more may be there; None when there was nothing.
        """
        try:
            data = os.read(self.descriptor, RECEIVE_SIZE)
        except OSError as error:
            if self._has_nothing(error):
                return None
            data = b""
        self._take_in(data, ready)
        return len(data) == RECEIVE_SIZE

    def _read_body(self, ready: list[Job]) -> bool | None:
        """The same where bodies are on their way: more at once, into memory that is used again."""
        buffer = self.worker.take_buffer()
        try:
            try:
                count = os.readv(self.descriptor, [buffer])
            except OSError as error:
                if self._has_nothing(error):
                    return None
                count = 0
            self._take_in(memoryview(buffer)[:count], ready)
            return count == len(buffer)
        finally:
            self.worker.give_buffer(buffer)

    def _has_nothing(self, error: OSError) -> bool:
        if isinstance(error, BlockingIOError):
            return True
        self._dead = self._special = True
        return False

    def _take_in(self, data: bytes | memoryview, ready: list[Job]) -> None:
        if not data:
            self._ended = self._special = True
        self._silent = False
        if not self._lingering:
            self._receive(data, ready)

    def _read_request(self, ready: list[Job]) -> Exchange | None:
        """Read once where nothing is under way.

        Return the exchange of a request that came whole, and alone; what else came has gone the
        general way, and `ready` has the jobs.
        """
        try:
            data = os.read(self.descriptor, RECEIVE_SIZE)
        except OSError as error:
            if self._has_nothing(error):
                return None
            data = b""
        if len(data) == RECEIVE_SIZE:
            data = self._read_more(data)
        whole = self.codec.receive_whole(data)
        if whole is None:
            self._take_in(data, ready)
            return None
        request, body = whole
        exchange = Exchange(self, request, body)
        exchange.started = True
        self._exchanges[request.request_id] = exchange
        self._active.add(exchange)
        self._closes = not request.keep_conn
        self._answered = False  # its peer has read the answers before
        self._silent = False
        self.deadline = 0.0
        return exchange

    def _read_more(self, data: bytes) -> bytes:
        """Return `data`, which was all that one read could take, and what another one takes."""
        buffer = self.worker.take_buffer()
        try:
            count = os.readv(self.descriptor, [buffer])
            if count in (0, len(buffer)):
                self._pending = True  # the end of file is there to be found once more
            return b"".join((data, memoryview(buffer)[:count]))
        except OSError as error:
            self._has_nothing(error)
            return data
        finally:
            self.worker.give_buffer(buffer)

    def _read_on(self) -> None:
        self.worker.run_first(self.pump(to_the_end=True))

    def _is_blocked(self) -> bool:
        """Whether reading must stop; remembers it for whoever makes room."""
        if not (self._paused or self._exchanges or self._backlog is not None):
            return False
        with self._lock:
            # Said first: whoever makes room before the second line has to see it.
            self._paused = True
            self._paused = self._must_wait()
            return self._paused

    def _must_wait(self) -> bool:
        backlog = self._backlog
        if backlog is not None:
            waiting = backlog.waiting
            unread = min(backlog.owed, waiting) if self._active else waiting
            if unread > MAX_OWED:
                return True
        exchanges = list(self._exchanges.values())
        return len(exchanges) == 1 and exchanges[0].body.full

    def _resume(self) -> None:
        if self._paused:
            with self._lock:
                blocked = self._must_wait()
            if not blocked:
                self.worker.submit(self.pump(to_the_end=True))

    def _receive(self, data: bytes | memoryview, ready: list[Job]) -> None:
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
            self._set_deadline(arrived)
        self._flush()

    def _hand_out(self, event: events.Event, ready: list[Job]) -> None:
        if isinstance(event, events.Request):
            self._on_request(event, ready)
            return
        known = self._exchanges.get(event.request_id)
        if isinstance(event, events.RequestAborted):
            self._on_abort(known, event, ready)
        elif known is not None:
            spill = known.filter_data is not None or len(self._exchanges) > 1
            known.on_event(event, spill=spill)
            if not known.started:
                self._start_when_ready(known, ready)

    def _on_request(self, request: events.Request, ready: list[Job]) -> None:
        exchange = Exchange(self, request)
        if not self._exchanges and self._backlog is None:
            self._answered = False
        self._exchanges[request.request_id] = exchange
        self._closes = self._closes or not request.keep_conn
        try:
            if self._overloaded:
                self._finished = True
            exchange.prepare(overloaded=self._overloaded)
        except errors.RemoteProtocolError as error:
            self._refuse(exchange, error, ready)
        else:
            self._start_when_ready(exchange, ready)

    def _start_when_ready(self, exchange: Exchange, ready: list[Job]) -> None:
        error = exchange.body.error
        if isinstance(error, errors.RemoteProtocolError):
            self._refuse(exchange, error, ready)
        elif exchange.is_ready():
            self._start(exchange, ready)

    def _start(self, exchange: Exchange, ready: list[Job]) -> None:
        exchange.started = True
        self._active.add(exchange)
        ready.append(exchange)

    def _refuse(
        self, exchange: Exchange, error: errors.RemoteProtocolError, ready: list[Job]
    ) -> None:
        """Answer a request that its application never gets to see."""
        self._exchanges.pop(exchange.request.request_id, None)
        exchange.abort(error)
        exchange.close()
        self._add_refusal(exchange.request, error, ready)

    def _add_refusal(
        self, request: events.Request, error: errors.RemoteProtocolError, ready: list[Job]
    ) -> None:
        if self._dead:
            return  # whoever cut the connection has said why, and nobody would read the answer
        self._unread = True
        self._refusing += 1
        self._special = True
        refusal = Refusal(self, request, error)
        self._active.add(refusal)
        ready.append(refusal)

    def _on_abort(
        self, exchange: Exchange | None, event: events.RequestAborted, ready: list[Job]
    ) -> None:
        if exchange is not None and exchange.started:
            exchange.abort(event.error)
            return
        if isinstance(event.error, errors.RemoteProtocolError):
            request = events.Request(event.request_id, []) if exchange is None else exchange.request
            self._refuse(exchange or Exchange(self, request), event.error, ready)
        elif exchange is not None:
            # The peer took the request back before anybody looked at it; the protocol still wants
            # it ended (FastCGI 5.4).
            del self._exchanges[event.request_id]
            exchange.close()
            self.codec.send(events.EndOfResponse(event.request_id, app_status=1))

    def _on_fault(self, fault: errors.RemoteProtocolError, ready: list[Job]) -> None:
        self._faulty = self._special = True
        self._unread = True
        for request_id, exchange in list(self._exchanges.items()):
            if not exchange.body.ended:
                exchange.abort(fault)
            if not exchange.started:
                del self._exchanges[request_id]
                exchange.close()
        self._add_refusal(events.Request(fault.request_id, []), fault, ready)

    def _set_deadline(self, arrived: list[events.Event]) -> None:
        """Give the head that is being waited for its time, anew when it is another one."""
        pending = self.codec.head_pending
        if not pending:
            self.deadline = 0.0
        elif (
            not self.deadline
            or (pending != self._head and self._head > 0)
            or _completed(arrived, pending)
        ):
            self.deadline = time.monotonic() + self.worker.options.head_timeout
        self._head = pending

    def _wait_readable(self, wake: int, seconds: float) -> None:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        mask = 0 if self._paused or self._ended else select.POLLIN | select.POLLRDHUP
        if self._backlog is not None:
            # What is owed may be what reading waits for.
            mask |= select.POLLOUT
        if mask:
            poller.register(self.descriptor, mask)
        if any(found & select.POLLOUT for _, found in poller.poll(seconds * 1000)):
            self._flush()
        self.worker.clear_wake(wake)

    # Time.

    def check(self, now: float) -> None:
        """Look at the time: cut what is late or too slow.  Called once a second."""
        if self._paused:
            self._excuse(now)
        if 0 < self.deadline <= now:
            # With all threads busy what came in time may still lie in the kernel.
            self.worker.submit(self.pump(to_the_end=True))
            if 0 < self.deadline <= now:
                self.deadline = 0.0
                self._expire()
        if self._backlog is not None:
            self._flush()
            self._check_backlog(now)
            self._close_when_over()
        if self._exchanges:
            self._check_bodies(now)

    def _excuse(self, now: float) -> None:
        """Nothing is read just now: what does not come is not the peer's fault."""
        if self.deadline:
            self.deadline = now + self.worker.options.head_timeout
        for exchange in list(self._exchanges.values()):
            exchange.excuse(now)

    def _expire(self) -> None:
        """End what has not come in time: the head of a request, or what is read while lingering.

        While others' requests are being answered on the connection, only that request ends.
        """
        with self._lock:
            if self.closed:
                return
            ready: list[Job] = []
            if self._active and not self._lingering:
                self._expire_heads(ready)
            else:
                if not self._lingering:
                    log.warning(
                        "%s: cut, because a request's head was not complete within head_timeout, %g s",
                        self,
                        self.worker.options.head_timeout,
                    )
                self._cut()
        self._hang_up = self._special = True
        self.worker.submit([*ready, *self.pump()])

    def _expire_heads(self, ready: list[Job]) -> None:
        # The codec cannot give up one request's head, so no more is read of this connection; what
        # runs is answered.
        late = errors.TruncatedMessage("a request's head stopped arriving", status_hint=408)
        self._on_fault(late, ready)

    def _check_bodies(self, now: float) -> None:
        """Refuse the requests whose body comes too slowly."""
        with self._lock:
            late = [each for each in list(self._exchanges.values()) if each.is_too_slow(now)]
        if not late:
            return
        # With all threads busy what came in time may still lie in the kernel.
        self.worker.submit(self.pump(to_the_end=True))
        options = self.worker.options
        ready: list[Job] = []
        with self._lock:
            for each in late:
                known = self._exchanges.get(each.request.request_id)
                if known is each and each.is_too_slow(now):
                    error = errors.TruncatedMessage(
                        f"the body came more slowly than min_rate, {options.min_rate} bytes a second,"
                        f" during rate_window, {options.rate_window:g} s",
                        status_hint=408,
                    )
                    self._refuse(each, error, ready)
                    self._finished = True  # what else comes would be slow as well
        self.worker.submit(ready)

    # Closing.

    def _close_when_over(self) -> None:
        if self.closed or self._active or not (self._special or self._closes):
            return
        with self._read_lock, self._lock:
            self._end_if_over()
        if self._pending:
            # Somebody wanted to read while the lock was held here.
            self.worker.submit([Turn(self, self._read_on)])
        if self.registered:
            self.worker.on_closed()

    def _end_if_over(self) -> None:
        """Close the connection, or begin to linger, if its time has come.  Both locks are held."""
        if self.closed or self._active or not self._is_over():
            return
        # One that was only refused may still be sending what was refused.
        unread = self._unread or not self._answered
        if not unread or self._ended or self._dead or self._broken_off:
            self.closed = self._special = True
            self._close()
        elif not self._lingering:
            self._linger()

    def _close(self) -> None:
        for exchange in self._exchanges.values():
            exchange.close()
        if self._backlog is not None:
            self._end_backlog(self._backlog)
        if self.registered:
            self.worker.forget(self)
        if self._broken_off:
            self._close_with_reset()
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        if self._sock is None:
            os.close(self.descriptor)
        else:
            self._sock.close()

    def _close_with_reset(self) -> None:
        """Have the close reset the connection, so that what was sent cannot pass for a whole answer.

        A clean end of file is the end of an SCGI answer, and nginx takes it for the end of a
        FastCGI answer too.  Only TCP can do this.
        """
        if self.family != socket.AF_UNIX:
            with suppress(OSError):  # the peer was faster
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _is_over(self) -> bool:
        if self._dead:
            return True
        if self._backlog is not None:
            return False
        return self._ended or self._faulty or self._finished or self.codec.must_close

    def _is_special(self) -> bool:
        return (
            self._backlog is not None
            or self._refusing > 0
            or self._hang_up
            or self._ended
            or self._dead
            or self._faulty
            or self._finished
            or self._lingering
            or self._overloaded
            or self.closed
        )

    def _linger(self) -> None:
        """Say that nothing more comes, and read what is still on its way.  The lock is held."""
        self._lingering = self._special = True
        if not self.registered:
            self.enrol()
        self.deadline = time.monotonic() + LINGER_SECONDS
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._dead = self._special = True
        self.worker.submit([Turn(self, self._read_on)])

    def __str__(self) -> str:
        where = ":".join(self.peer) if self.peer[0] else "unix peer"
        return f"{self.codec.protocol} connection from {where}"


def _completed(arrived: list[events.Event], request_id: int) -> bool:
    """Whether a head with this id is complete, so that a pending one is of the request after it."""
    return any(
        isinstance(each, events.Request) and each.request_id == request_id for each in arrived
    )
