"""A request's body on its way from the thread that reads the socket to the one that runs the application.

The pump feeds it; the application's thread takes from it.  Until the application starts everything
is kept: `body_memory` bytes in memory, what goes beyond in a private temporary file.  From then on
the pump stops reading the connection while HIGH_WATER bytes wait, when the request is alone on it.
When others share the connection, stopping would hold them up too, for FastCGI has no flow control
per request: then the rest goes to files as well.
"""

from __future__ import annotations

import io
import os
import threading
from collections import deque

from gateways import errors
from gateways.server.options import Options
from gateways.server.spool import Spool, SpoolFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

HIGH_WATER = 262144
"""Bytes of a body under way that are held in memory before the pump is told that it is full."""

SEGMENT = 16 * 1024 * 1024
"""Bytes after which a body under way goes on in another file, so that what has been read is freed."""


class Body:
    """Bytes in, bytes out, with an end, a declared length, and an error that wakes the reader."""

    def __init__(self, spool: Spool, options: Options, declared: int | None) -> None:
        self._spool = spool
        self._options = options
        self._lock = threading.Lock()
        self._pieces: deque[bytes] = deque()
        self._in_memory = 0
        self._waiting = 0  # bytes in memory and in files
        self._files: deque[SpoolFile] = deque()
        self._waiter = -1
        self.declared = declared
        self._most = max(options.max_spooled_body, HIGH_WATER)
        self.received = 0
        self.waited = 0.0
        """Seconds that the application has waited for it since min_rate was last looked at."""
        self._received_at_mark = 0
        self.started = False
        self.ended = False
        self.error: Exception | None = None

    @property
    def full(self) -> bool:
        """Whether more is waiting than the application's pace deserves."""
        return self.started and self._waiting > HIGH_WATER

    def feed(self, data: bytes, spill: bool) -> None:
        """Add bytes that arrived.  With `spill` what is too much for memory goes to a file."""
        with self._lock:
            self.received += len(data)
            if self.error is not None:
                return
            if self.declared is not None and self.received > self.declared:
                self._fail(self._too_long())
            elif self._files or ((spill or not self.started) and self._is_too_much(data)):
                self._store(data)
            else:
                self._pieces.append(data)
                self._in_memory += len(data)
            self._waiting += len(data)
            self._wake()

    def end(self) -> None:
        """The peer has sent the whole body."""
        with self._lock:
            self.ended = True
            if self.declared is not None and self.received < self.declared:
                self._fail(
                    errors.TruncatedMessage(
                        f"the body ended after {self.received} of {self.declared} bytes",
                        rule="RFC 3875 4.2",
                    )
                )
            self._wake()

    def abort(self, error: Exception) -> None:
        """The rest will never come; whoever reads past what has arrived gets `error`."""
        with self._lock:
            self._fail(error)

    def start(self) -> BinaryIO | None:
        """The application starts.  Return the body as a stream that can seek, if it is all here."""
        with self._lock:
            self.started = True
            self._most += self._waiting
            if not self.ended or self.error is not None:
                return None
            if not self._files:
                whole = b"".join(self._pieces)
                self._pieces.clear()
                self._in_memory = self._waiting = 0
                return io.BytesIO(whole)
            # All of it was written by `_store` before the start, so it is one file.
            self._files[0].file.seek(0)
            return self._files[0].file

    def take(self) -> bytes | None:
        """Return the next piece; `b""` at the end, None when nothing has arrived yet.

        Raises RequestAborted once the body has failed and what arrived before has been taken.
        """
        with self._lock:
            if self._is_stored():
                piece = self._from_file()
                self._waiting -= len(piece)
                return piece
            if self._pieces:
                piece = self._pieces.popleft()
                self._in_memory -= len(piece)
                self._waiting -= len(piece)
                return piece
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

    def is_too_slow(self, waiting: float, options: Options) -> bool:
        """Whether less has come than min_rate asks for, after `waiting` more seconds of waiting."""
        if self.waited + waiting < options.rate_window:
            return False
        came = self.received - self._received_at_mark
        self.waited, self._received_at_mark = -waiting, self.received
        return came < options.min_rate * options.rate_window

    def close(self) -> None:
        """Let go of what was not read."""
        with self._lock:
            self._pieces.clear()
            self._in_memory = 0
            while self._files:
                self._files.popleft().close()
            if self.error is None:
                self.error = errors.RequestAborted("the request is over")

    def _is_too_much(self, data: bytes) -> bool:
        room = HIGH_WATER if self.started else self._options.body_memory
        return self._in_memory + len(data) > room

    def _too_long(self) -> errors.RemoteProtocolError:
        return errors.LimitExceeded(
            f"the body is longer than its CONTENT_LENGTH of {self.declared} bytes",
            rule="RFC 3875 4.2",
            status_hint=400,
        )

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter >= 0:
            os.eventfd_write(self._waiter, 1)

    def _store(self, data: bytes) -> None:
        try:
            if self.started and self._waiting + len(data) > self._most:
                raise errors.LimitExceeded(
                    f"over {self._most} bytes of the body wait for an application that does not read them",
                    status_hint=503,
                )
            if not self._files or (self.started and self._files[-1].size >= SEGMENT):
                self._files.append(self._spool.file())
            file = self._files[-1]
            while self._pieces:
                # They came before: a body is in memory or in files, never in both.
                piece = self._pieces.popleft()
                self._in_memory -= len(piece)
                file.write(piece)
            file.write(data)
        except errors.LimitExceeded as error:
            # A full disk is this request's misfortune; whoever reads the socket just now, and all
            # others on it, have nothing to do with it.  What is left would have a hole before it.
            self._pieces.clear()
            self._in_memory = 0
            self._fail(error)

    def _from_file(self) -> bytes:
        try:
            return self._files[0].take()
        except OSError as error:
            self._fail(errors.RequestAborted(f"the stored body cannot be read: {error}"))
            raise errors.RequestAborted(str(self.error)) from error

    def _is_stored(self) -> bool:
        """Whether something waits in a file; lets go of files that have been read."""
        while self._files and not self._files[0].waiting:
            self._files.popleft().close()
        return bool(self._files)


class _Complete(Body):
    """The body of every request that came whole: there is nothing to feed, to abort or to close."""

    def __init__(self) -> None:
        super().__init__(Spool(0, "/"), Options(), None)
        self.ended = self.started = True

    def abort(self, error: Exception) -> None:
        """Do nothing: it is all here."""

    def close(self) -> None:
        """Do nothing: it is shared."""


COMPLETE = _Complete()
