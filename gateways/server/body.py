"""A request's body on its way from the thread that reads the socket to the one that runs the application.

The pump feeds it; the application's thread takes from it.  What has arrived and is not taken is
held in memory up to HIGH_WATER bytes.  Past that the pump stops reading the connection, when the
request is alone on it.  When others share the connection, stopping would hold them up too, for
FastCGI has no flow control per request: then the rest goes to a private temporary file.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque

from gateways import errors

HIGH_WATER = 262144
"""Bytes held in memory before the pump is told that the body is full; four reads' worth."""

MAX_SPOOLED = 64 * 1024 * 1024
"""Bytes of one body that may wait in a file; the web servers' own limits for bodies are far lower."""


SEGMENT = 16 * 1024 * 1024
"""Bytes after which a body goes on in another file."""


class Body:
    """Bytes in, bytes out, with an end, a declared length, and an error that wakes the reader."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[bytes] = deque()
        self._in_memory = 0
        self._segments: deque[_Segment] = deque()
        self._waiter = -1
        self.received = 0
        self.declared: int | None = None
        self.ended = False
        self.error: Exception | None = None

    @property
    def full(self) -> bool:
        """Whether more is waiting in memory than the application's pace deserves."""
        return self._in_memory > HIGH_WATER

    def feed(self, data: bytes, spill: bool) -> None:
        """Add bytes that arrived; with `spill`, past HIGH_WATER they go to a file."""
        with self._lock:
            self.received += len(data)
            if self.error is not None:
                return
            if self.declared is not None and self.received > self.declared:
                self._fail(
                    errors.LimitExceeded(
                        f"the body is longer than its CONTENT_LENGTH of {self.declared} bytes",
                        rule="RFC 3875 4.2",
                        status_hint=400,
                    )
                )
            elif self._segments or (spill and self.full):
                self._spool(data)
            else:
                self._pieces.append(data)
                self._in_memory += len(data)
            self._wake()

    def declare(self, length: int | None) -> None:
        """Set the length that the meta-variables declare; None when they declare none."""
        with self._lock:
            self.declared = length
            self._check_end()
            if length is not None and self.received > length:
                self._fail(
                    errors.LimitExceeded(
                        f"the body has {self.received} bytes or more, its CONTENT_LENGTH says {length}",
                        rule="RFC 3875 4.2",
                        status_hint=400,
                    )
                )

    def end(self) -> None:
        """The peer has sent the whole body."""
        with self._lock:
            self.ended = True
            self._check_end()
            self._wake()

    def abort(self, error: Exception) -> None:
        """The rest will never come; whoever reads past what has arrived gets `error`."""
        with self._lock:
            self._fail(error)

    def take(self) -> bytes | None:
        """Return the next piece; `b""` at the end, None when nothing has arrived yet.

        Raises RequestAborted once the body has failed and what arrived before has been taken.
        """
        with self._lock:
            if self._pieces:
                piece = self._pieces.popleft()
                self._in_memory -= len(piece)
                return piece
            if self._is_stored():
                return self._from_file()
            if self.error is not None:
                raise errors.RequestAborted(str(self.error))
            return b"" if self.ended else None

    def wait_on(self, descriptor: int) -> bool:
        """Have `descriptor` (an eventfd) written when something arrives; false when it already has.

        -1 ends the waiting.
        """
        with self._lock:
            self._waiter = descriptor
            arrived = self._pieces or self._is_stored()
            return not (arrived or self.ended or self.error is not None)

    def close(self) -> None:
        """Let go of what was not read."""
        with self._lock:
            self._pieces.clear()
            self._in_memory = 0
            while self._segments:
                self._segments.popleft().close()
            if self.error is None:
                self.error = errors.RequestAborted("the request is over")

    def _check_end(self) -> None:
        if self.ended and self.declared is not None and self.received < self.declared:
            self._fail(
                errors.TruncatedMessage(
                    f"the body ended after {self.received} of {self.declared} bytes",
                    rule="RFC 3875 4.2",
                )
            )

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter >= 0:
            os.eventfd_write(self._waiter, 1)

    def _spool(self, data: bytes) -> None:
        waiting = sum(segment.waiting for segment in self._segments)
        try:
            if waiting + len(data) > MAX_SPOOLED:
                raise OSError(f"over {MAX_SPOOLED} bytes of the body wait to be read")
            if not self._segments or self._segments[-1].written >= SEGMENT:
                self._segments.append(_Segment())
            self._segments[-1].write(data)
        except OSError as error:
            # A full disk is this request's misfortune; whoever reads the socket just now, and all
            # others on it, have nothing to do with it.
            self._fail(errors.LimitExceeded(f"the body cannot be stored: {error}", status_hint=503))

    def _from_file(self) -> bytes:
        segment = self._segments[0]
        try:
            piece = segment.read()
        except OSError as error:
            self._fail(errors.RequestAborted(f"the stored body cannot be read: {error}"))
            raise errors.RequestAborted(str(self.error)) from error
        return piece

    def _is_stored(self) -> bool:
        """Whether something waits in a file; lets go of files that have been read."""
        while self._segments and not self._segments[0].waiting:
            self._segments.popleft().close()
        return bool(self._segments)


class _Segment:
    """A private temporary file that holds a part of a body.

    It is closed, and its space free, when the part has been read: so what a body takes on disk
    follows what waits, not what has passed.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="gateways-", buffering=0)  # noqa: SIM115 - it lives as long as the segment
        self.written = 0
        self._read = 0

    @property
    def waiting(self) -> int:
        """Bytes that were written and not read."""
        return self.written - self._read

    def write(self, data: bytes) -> None:
        """Append `data`; OSError when the disk is full."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self._file.fileno(), rest, self.written)
            self.written += count
            rest = rest[count:]

    def read(self) -> bytes:
        """Return up to 64 KiB of what waits."""
        piece = os.pread(self._file.fileno(), min(65536, self.waiting), self._read)
        self._read += len(piece)
        return piece

    def close(self) -> None:
        """Give the space back."""
        self._file.close()
