"""What a peer has not taken yet: the unsent bytes of one connection, in order, and how fast they go.

Most answers are sent at once and never come here.  A backlog begins with the first write that the
kernel does not take whole and is over when everything has been sent.

The worker's Tails know all of those that nobody waits for any more, and keep them within bounds.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

from gateways import errors
from gateways.events import FileRange
from gateways.server.log import log
from gateways.server.options import Options
from gateways.server.spool import Spool, SpoolFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.server.sending import Sending

Buffer = bytes | memoryview | FileRange
"""`len` of each is its size on the wire."""

GATHERED = 64
"""Buffers in one system call."""

JOINED = 8192
"""Bytes up to which copying buffers into one is cheaper than sending them as they are."""

WRITES_AT_ONCE = 64
"""After this many writes in a row a connection goes to the end of the queue."""


class Backlog:
    """Unsent buffers.  The connection's write lock guards it.

    `queued` and `sent` count bytes since the backlog began, so that a sender can tell by the
    position of its last byte when its own part has gone.  Of the answer that it begins with `sent`
    bytes have gone before; they count, or a new reader would seem the slowest of all.
    """

    def __init__(self, sent: int = 0) -> None:
        self.buffers: deque[Buffer] = deque()
        self.queued = self.sent = sent
        self.owed = 0  # bytes that no sender waits for, because the protocol owed them
        self.began = time.monotonic()
        self._mark = self.began
        self._sent_at_mark = 0
        self._files: list[int | SpoolFile] = []

    @property
    def waiting(self) -> int:
        """Bytes that are still to be sent."""
        return self.queued - self.sent

    def add(self, buffers: Sequence[Buffer]) -> None:
        """Queue `buffers` behind what is there."""
        self.buffers += buffers
        self.queued += sum(map(len, buffers))

    def begin(self) -> None:
        """The kernel has taken what it had room for: from here on it is the peer's pace."""
        self._sent_at_mark = self.sent

    def compact(self) -> None:
        """Let go of what has been sent of the buffers: a view holds all of what it shows a part of."""
        self.buffers = deque(
            bytes(each) if isinstance(each, memoryview) else each for each in self.buffers
        )

    def keep(self, descriptor: int) -> None:
        """Close `descriptor`, a file that is being sent, when the backlog is over."""
        self._files.append(descriptor)

    def flush(self, sock: socket.socket) -> bool:
        """Send what the peer takes now; return false when more could be sent in another turn.

        Raises OSError when the peer is gone, RequestAborted when a file has become shorter than
        what was promised of it.
        """
        try:
            for _ in range(WRITES_AT_ONCE):
                if not self.buffers:
                    return True
                if isinstance(self.buffers[0], FileRange):
                    self._send_file(sock, self.buffers[0])
                else:
                    self._send_buffers(sock)
        except BlockingIOError:
            return True
        return not self.buffers

    def _send_buffers(self, sock: socket.socket) -> None:
        batch: list[bytes | memoryview] = []
        more = 0
        for each in self.buffers:
            if isinstance(each, FileRange):
                # The record's header and the file that follows are to share a packet.
                more = socket.MSG_MORE
                break
            if len(batch) == GATHERED:
                break
            batch.append(each)
        count = sock.sendmsg(batch, (), more)
        self.sent += count
        while count:
            first = batch.pop(0)
            self.buffers.popleft()
            if len(first) > count:
                self.buffers.appendleft(memoryview(first)[count:])
                return
            count -= len(first)

    def _send_file(self, sock: socket.socket, piece: FileRange) -> None:
        count = os.sendfile(sock.fileno(), piece.descriptor, piece.offset, piece.count)
        if not count:
            raise errors.RequestAborted("the file became shorter while it was being sent")
        self.sent += count
        self.buffers.popleft()
        if count < piece.count:
            self.buffers.appendleft(
                FileRange(piece.descriptor, piece.offset + count, piece.count - count)
            )

    def is_too_slow(self, now: float, options: Options) -> bool:
        """Whether the peer took less than min_rate asks for in the window that is over at `now`."""
        if now - self._mark < options.rate_window:
            return False
        taken = self.sent - self._sent_at_mark
        self._mark, self._sent_at_mark = now, self.sent
        return taken < options.min_rate * options.rate_window

    def window_left(self, now: float, options: Options) -> float:
        """Return the seconds until the rate is looked at again."""
        return max(0.0, self._mark + options.rate_window - now)

    def pace(self, now: float) -> float:
        """Return the bytes a second that the peer has taken since the backlog began."""
        return self.sent / max(now - self.began, 0.001)

    def store(self, spool: Spool) -> None:
        """Move what is in memory to a temporary file; LimitExceeded when there is no room."""
        size = memory_of(self.buffers)
        file = spool.file()
        stored: deque[Buffer] = deque()
        try:
            for each in self.buffers:
                if isinstance(each, FileRange):
                    stored.append(each)
                else:
                    stored.append(FileRange(file.fileno(), file.size, len(each)))
                    file.write(each)
        except errors.LimitExceeded:
            file.close()
            raise
        self.buffers = _merged(stored)
        self._files.append(file)
        log.debug("%d bytes of an answer went to a temporary file", size)

    def close(self) -> None:
        """Let go of what was not sent."""
        self.buffers.clear()
        self.queued = self.sent
        while self._files:
            file = self._files.pop()
            if isinstance(file, int):
                os.close(file)
            else:
                file.close()


def joined(buffers: list[Buffer]) -> bytes | None:
    """Return `buffers` as one string where that costs less than a gathered write, else None."""
    size = 0
    for each in buffers:
        size += len(each)
        if size > JOINED or type(each) is FileRange:
            return None
    return b"".join(buffers)  # type: ignore[arg-type]  # there is no FileRange among them


def unsent(buffers: list[Buffer], sent: int) -> list[Buffer]:
    """Return what is left of `buffers` when the first `sent` bytes of them have gone."""
    for index, each in enumerate(buffers):
        if len(each) > sent:
            rest = memoryview(each)[sent:] if sent else each  # type: ignore[arg-type]  # a file's bytes are never sent in part here
            return [rest, *buffers[index + 1 :]]
        sent -= len(each)
    return []


def memory_of(buffers: Iterable[Buffer]) -> int:
    """Return how many bytes of memory buffers hold."""
    return sum(len(each) for each in buffers if not isinstance(each, FileRange))


def _merged(pieces: deque[Buffer]) -> deque[Buffer]:
    """Join ranges of a file that follow upon each other, so that one call sends them."""
    merged: deque[Buffer] = deque()
    for piece in pieces:
        last = merged[-1] if merged else None
        if (
            isinstance(piece, FileRange)
            and isinstance(last, FileRange)
            and last.descriptor == piece.descriptor
            and last.offset + last.count == piece.offset
        ):
            merged[-1] = FileRange(last.descriptor, last.offset, last.count + piece.count)
        else:
            merged.append(piece)
    return merged


class Tails:
    """The finished answers of a worker that its loop still has to send.

    `answer_memory` bytes of them stay in memory; others are moved to the spool.  When that is full
    too, the peer who reads most slowly loses its connection.
    """

    def __init__(self, options: Options, spool: Spool) -> None:
        self._limit = options.answer_memory
        self._spool = spool
        self._sizes: dict[Sending, int] = {}
        self._used = 0
        self._lock = threading.Lock()
        self._cutting = threading.Lock()

    def add(self, connection: Sending, size: int) -> bool:
        """Count `size` bytes that wait on `connection`; return whether there is memory for them.

        Where there is not, `make_room` has to follow.
        """
        with self._lock:
            fits = self._used + size <= self._limit
            self._sizes[connection] = self._sizes.get(connection, 0) + (size if fits else 0)
            self._used += size if fits else 0
        return fits

    def make_room(self, connection: Sending, size: int) -> None:
        """Move what waits on `connection` to the spool; where there is no room either, cut the
        slowest readers until there is, or until its `size` bytes have their place in memory."""
        while True:
            try:
                connection.store_backlog(self._spool)
                return
            except errors.LimitExceeded as error:
                if not self._cut_slowest(error):
                    return
            if connection.is_cut or connection.recount(self, size):
                return

    def remove(self, connection: Sending) -> None:
        """Everything on `connection` has been sent, or never will be."""
        with self._lock:
            self._used -= self._sizes.pop(connection, 0)

    def _cut_slowest(self, why: errors.LimitExceeded) -> bool:
        """Cut the slowest reader; return false when there is none to cut."""
        now = time.monotonic()
        with self._cutting:  # several threads may need room at once, and are not to cut one twice
            with self._lock:
                reading = [each for each in self._sizes if not each.is_cut]
            slowest = min(reading, key=lambda each: each.pace(now), default=None)
            if slowest is None:
                return False
            if not slowest.give_up_tail():
                return True  # it has just taken everything, and that has made room as well
        log.warning("%s: cut, as the slowest reader of all: %s", slowest, why)
        self.remove(slowest)
        slowest.let_go()
        return True
