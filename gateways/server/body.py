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
from typing import IO

from gateways import errors

HIGH_WATER = 262144
"""Bytes held in memory before the pump is told that the body is full; four reads' worth."""

MAX_SPOOLED = 64 * 1024 * 1024
"""Bytes of one body that may wait in a file; the web servers' own limits for bodies are far lower."""


class Body:
    """Bytes in, bytes out, with an end, a declared length, and an error that wakes the reader."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[bytes] = deque()
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self._file_end = 0
        self._file_at = 0
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
            elif self._file is not None or (spill and self.full):
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
            if self._file is not None and self._file_at < self._file_end:
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
            spooled = self._file is not None and self._file_at < self._file_end
            return not (self._pieces or spooled or self.ended or self.error is not None)

    def close(self) -> None:
        """Let go of what was not read."""
        with self._lock:
            self._pieces.clear()
            self._in_memory = 0
            if self._file is not None:
                self._file.close()
                self._file = None
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
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="gateways-")  # noqa: SIM115 - it lives as long as the body
        if self._file_end - self._file_at + len(data) > MAX_SPOOLED:
            self._fail(
                errors.LimitExceeded(
                    f"over {MAX_SPOOLED} bytes of the body wait to be read", status_hint=413
                )
            )
            return
        self._file.seek(self._file_end)
        self._file.write(data)
        self._file_end += len(data)

    def _from_file(self) -> bytes:
        assert self._file is not None
        self._file.seek(self._file_at)
        piece = self._file.read(65536)
        self._file_at += len(piece)
        if self._file_at == self._file_end:
            # All is read: the file starts anew, so its size follows what waits, not what passed.
            self._file.truncate(0)
            self._file_at = self._file_end = 0
        return piece
