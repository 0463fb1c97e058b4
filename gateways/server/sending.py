"""The sending half of a connection: events become bytes, and bytes leave in order.

`_lock` covers the codec, this object's state, and offering bytes to the kernel, so that they leave
in the order in which the codec made them.  The socket is non-blocking: nobody waits for the peer
while holding the lock.  What the kernel does not take is the *backlog*.  A sender waits for its
part of it, unless its answer is finished: then the loop sends the rest when the peer takes more,
and the thread is free.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import suppress

from gateways import errors
from gateways.events import (
    EndOfResponse,
    Event,
    RequestAborted,
    Response,
    ResponseFile,
    WholeAnswer,
)
from gateways.server.backlog import GATHERED, Backlog, Buffer, joined, memory_of, unsent
from gateways.server.log import log
from gateways.server.spool import Spool

TYPE_CHECKING = False
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from gateways.interface import ServerConnection
    from gateways.server.backlog import Tails
    from gateways.server.exchange import Exchange, Refusal
    from gateways.server.worker import Worker

    class Job(Protocol):
        """Something for a free thread to do on a connection: an exchange, a refusal, a turn."""

        @property
        def connection(self) -> Sending: ...

        def run(self) -> None: ...


LOOK_AGAIN_SECONDS = 1.0
"""How long a sender waits before it tries whether the peer has made a little room."""

FILES_AHEAD = 64 * 1024 * 1024
"""Bytes of a file that may be queued; they are in no memory, but their records' headers are."""


class Turn:
    """A connection's turn to read or to write on."""

    def __init__(self, connection: Sending, what: Callable[[], None]) -> None:
        self.connection = connection
        self.run = what


class Sending:
    """Abstract: what a Connection is to those who send on it."""

    # What most connections never change stands here, since many live for one request only.
    registered = False
    closed = False
    _special = False  # whether one of those that are marked so says that it is
    _hang_up = False  # special: the kernel has reported one
    _ended = False  # special: the peer sends nothing more
    _dead = False  # special: nothing more can be sent to the peer
    _backlog: Backlog | None = None  # special where there is one
    _is_tail = False  # nobody waits for the backlog but the loop
    _watching_output = False
    _closes = False  # a request has said that the connection closes after the answer
    _paused = False
    _broken_off = False  # the only answer was given up half-way
    _answered = False
    _sock: socket.socket | None = None

    worker: Worker
    descriptor: int
    family: int
    codec: ServerConnection
    _exchanges: dict[int, Exchange]  # the open requests, by their ids
    _active: set[Exchange | Refusal]  # those whose job has been given out
    _lock: threading.Lock

    @property
    def sock(self) -> socket.socket:
        """The socket as an object, for what a bare descriptor cannot do."""
        if self._sock is None:
            self._sock = socket.socket(self.family, socket.SOCK_STREAM, 0, self.descriptor)
        return self._sock

    @property
    def is_cut(self) -> bool:
        """Whether nothing more can be sent to the peer."""
        return self._dead

    def activity(self) -> list[str]:
        """Return what is being run for this connection, for the log."""
        return [str(each) for each in list(self._active)]

    # What an application's thread calls.

    def send(self, event: Event, last: bool) -> None:
        """Send an answer's event; `last` says that nothing but its end may follow.

        Waits while the peer is slow, but not for the last bytes of an answer: the loop sends those.
        Raises RequestAborted when the peer is gone or too slow.
        """
        with self._lock:
            if self._dead:
                raise errors.RequestAborted("the web server closed the connection")
            self.codec.send(event)
            kind = type(event)
            if kind is WholeAnswer or kind is EndOfResponse:
                # From here on the peer may open the id anew.
                self._exchanges.pop(event.request_id, None)
                self._answered = True
            elif kind is Response:
                return  # the body or the end follows at once: the head goes out with it
            elif kind is RequestAborted:
                self._exchanges.pop(event.request_id, None)
                if self.codec.must_close:
                    self._closes = True
                    # A reset would take earlier answers with it that are still on their way.
                    self._broken_off = not self._answered
                self._answered = True
            buffers = self.codec.buffers_to_send()
            sent = 0
            if self._backlog is None and kind is not ResponseFile:
                data = buffers[0] if len(buffers) == 1 else joined(buffers)
                try:
                    if type(data) is bytes:
                        sent = os.write(self.descriptor, data)
                        if sent == len(data):
                            return
                        buffers = [data]
                    else:
                        sent = os.writev(self.descriptor, buffers[:GATHERED])  # type: ignore[arg-type]  # only a ResponseFile has FileRanges
                except OSError as error:
                    sent = self._on_send_error(error)
                buffers = unsent(buffers, sent)
                if not buffers:
                    return
            backlog = self._offer(buffers, sent=sent)
            if self._dead:
                raise errors.RequestAborted("the web server closed the connection")
            end = backlog.queued
            mine = memory_of(buffers) if last else 0
            if kind is ResponseFile and not last:
                end -= FILES_AHEAD
        if backlog.sent < end:
            self._wait_or_leave(backlog, end, mine, last)

    def keep_file(self, descriptor: int) -> bool:
        """Take over a file that is still being sent; return false when it is not needed any more."""
        with self._lock:
            if self._backlog is None or self._dead:
                return False
            self._backlog.keep(descriptor)
            return True

    # What the worker calls.

    def give_up(self) -> None:
        """Nothing that is still to be sent makes sense to the peer: cut the connection."""
        with self._lock:
            self._cut()

    def disown(self) -> None:
        """In a forked child: the connection is the parent's alone, whose locks may be held for ever."""
        self.closed = self._dead = self._special = True
        self._lock = threading.Lock()

    def give_up_tail(self) -> bool:
        """Cut the connection if the loop still has something to send on it; return whether it was."""
        with self._lock:
            if self._dead or not self._is_tail:
                return False
            self._cut()
            return True

    def let_go(self) -> None:
        """Free what a connection that was given up still holds, and close it unless it is in use."""
        with self._lock:
            if self._backlog is not None:
                self._end_backlog(self._backlog)
        self._close_when_over()

    def pace(self, now: float) -> float:
        """Return the bytes a second at which the peer has been taking its backlog."""
        backlog = self._backlog
        return float("inf") if backlog is None else backlog.pace(now)

    def recount(self, tails: Tails, size: int) -> bool:
        """Count `size` waiting bytes among `tails`, if they still wait; return whether that is settled."""
        with self._lock:
            return not self._is_tail or tails.add(self, size)

    def store_backlog(self, spool: Spool) -> None:
        """Move the backlog out of memory; LimitExceeded when there is no room for it."""
        with self._lock:
            if self._backlog is not None:
                self._backlog.store(spool)

    # What the other half has.

    def enrol(self) -> None:
        """Have the epoll watch the connection from now on."""
        raise NotImplementedError

    def pump(self, *, to_the_end: bool = False) -> list[Job]:
        """Read what is there and hand it out; return the jobs that it made ready."""
        raise NotImplementedError

    def _read_on(self) -> None:
        raise NotImplementedError

    def _close_when_over(self) -> None:
        raise NotImplementedError

    def _is_special(self) -> bool:
        raise NotImplementedError

    def _reckon(self) -> None:
        """Have `_special` say again what it stands for.

        Those who read set it without the lock, so it is looked at once more after it was taken back.
        """
        if not self._is_special():
            self._special = False
            if self._is_special():
                self._special = True

    # The backlog.  Where a method says so the lock is held.

    def _offer(self, buffers: list[Buffer], *, owed: bool = False, sent: int = 0) -> Backlog:
        """Queue `buffers` and send what the kernel takes.  The lock is held.

        Of the same answer the kernel has taken `sent` bytes already.
        """
        backlog = self._backlog
        if backlog is None:
            backlog = Backlog(sent)
            if not self.registered:
                # Whoever waits for the peer also reads, so others may come to know of it.
                self.enrol()
        backlog.add(buffers)
        if owed:
            backlog.owed += memory_of(buffers)
        begins = self._backlog is None
        self._backlog = backlog
        self._special = True
        self._send_backlog(backlog)
        if begins:
            backlog.begin()
        return backlog

    def _send_backlog(self, backlog: Backlog) -> None:
        """Send what the kernel takes now.  The lock is held."""
        try:
            while not backlog.flush(self.sock):
                if self._is_tail:
                    self.worker.submit([Turn(self, self._flush_on)])
                    return
        except OSError as error:
            self._on_send_error(error)
            backlog.close()
        if not backlog.waiting:
            self._end_backlog(backlog)

    def _on_send_error(self, error: OSError) -> int:
        """Note that the peer is gone; return 0, the bytes that were sent.  The lock is held."""
        if isinstance(error, BlockingIOError):
            return 0
        if isinstance(error, errors.RequestAborted):
            log.warning("%s: %s", self, error)
            self._broken_off = True
            self._cut()
        self._dead = self._special = True
        return 0

    def _end_backlog(self, backlog: Backlog) -> None:
        """There is nothing left to send, or nobody to send it to.  The lock is held."""
        self._backlog = None
        self._reckon()
        backlog.close()
        if self._is_tail:
            self._is_tail = False
            self.worker.tails.remove(self)
            self._watch_output(False)
        if self._paused:
            self.worker.submit([Turn(self, self._read_on)])

    def _flush(self) -> None:
        """Send what the protocol owes and what waits, as far as the peer takes it now."""
        with self._lock:
            if self._dead or self.closed:
                return
            buffers = self.codec.buffers_to_send()
            if buffers:
                backlog = self._offer(buffers, owed=True)
                if backlog.waiting:
                    self._leave_to_loop()
            elif self._backlog is not None:
                self._send_backlog(self._backlog)

    def _flush_on(self) -> None:
        self._flush()
        self._close_when_over()

    def _wait_or_leave(self, backlog: Backlog, end: int, mine: int, last: bool) -> None:
        """Wait until the bytes up to `end` are sent, or for the last ones only until the rest of
        the `mine` bytes that are in memory may be left to the loop."""
        options = self.worker.options
        if not last:
            self._wait_until_sent(backlog, end)
            return
        left = min(mine, end - backlog.sent)
        if left > options.answer_tail:
            self._wait_until_sent(backlog, end - options.answer_tail)
            left = options.answer_tail
        with self._lock:
            if self._backlog is not backlog:
                return
            self._leave_to_loop()
            backlog.compact()
            fits = self.worker.tails.add(self, left)
        if not fits:
            self.worker.tails.make_room(self, left)

    def _leave_to_loop(self) -> None:
        """Have the epoll tell when the peer takes more of the backlog.  The lock is held."""
        self._is_tail = True
        self._watch_output(True)

    def _watch_output(self, wanted: bool) -> None:
        if wanted != self._watching_output and self.registered and not self.closed:
            self._watching_output = wanted
            self.worker.watch_output(self, wanted)

    def _wait_until_sent(self, backlog: Backlog, end: int) -> None:
        """Wait until the peer has taken the bytes up to `end`, reading meanwhile what it sends: it
        may be waiting too."""
        options = self.worker.options
        while backlog.sent < end:
            if self._dead:
                raise errors.RequestAborted("the web server closed the connection")
            poller = select.poll()
            listen = not self._paused and not self._ended
            poller.register(self.descriptor, select.POLLOUT | (select.POLLIN if listen else 0))
            # Not for the whole window: a socket counts as writable only when much of its buffer is
            # free, and a peer may read steadily and never get there.
            patience = min(LOOK_AGAIN_SECONDS, backlog.window_left(time.monotonic(), options))
            happened = poller.poll(patience * 1000)
            mask = happened[0][1] if happened else 0
            if mask & select.POLLIN:
                self.worker.submit(self.pump())
            if mask != select.POLLIN:
                self._flush()
            self._check_backlog(time.monotonic())

    def _check_backlog(self, now: float) -> None:
        """Cut the connection if its peer takes the backlog too slowly."""
        options = self.worker.options
        with self._lock:
            backlog = self._backlog
            if backlog is None or not backlog.is_too_slow(now, options):
                return
            self._cut()
        log.warning(
            "%s: cut, because it took less than min_rate, %d bytes a second, of an answer during"
            " rate_window, %g s",
            self,
            options.min_rate,
            options.rate_window,
        )
        self.let_go()

    def _cut(self) -> None:
        """Make every read and write on the socket end now.  The lock is held."""
        self._dead = self._special = True
        if not self.closed:
            with suppress(OSError):  # the peer was faster
                self.sock.shutdown(socket.SHUT_RDWR)
