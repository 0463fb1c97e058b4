"""The request's body, on its way to a script's standard input (RFC 3875 §4.2).

A script is told CONTENT_LENGTH before it starts, so a body of unknown length is read to its end
first: into memory while it is small, then into a private temporary file.  Where a body is a file
anyway the script gets that file, and nothing is copied.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from typing import Any

from gateways.cgihost.resolving import Refused
from gateways.document import read_content_length
from gateways.errors import LimitExceeded, RemoteProtocolError, RequestAborted
from gateways.server.spool import Spool, SpoolFile

PIECE_SIZE = 65536
"""Bytes taken from wsgi.input at a time, whatever CONTENT_LENGTH says; also what stays in memory."""


class Body:
    """`length` bytes, of which `left` were not read; `descriptor` is a file that holds them all, or -1.

    Raises Refused for a CONTENT_LENGTH that is no length, and where a body of unknown length finds
    no room; whatever wsgi.input raises; RequestAborted where it ends too early.
    """

    def __init__(self, environ: Mapping[str, Any], spool: Spool) -> None:
        self._input = environ["wsgi.input"]
        # Our own server's can be asked; others keep whoever reads waiting.
        self._wait = getattr(self._input, "wait", None)
        self._spool = getattr(self._input, "spool", None) or spool
        self._file: SpoolFile | None = None
        self.descriptor = -1
        text = environ.get("CONTENT_LENGTH") or ""
        if text:
            try:
                self.length = read_content_length(
                    text.encode("latin-1", "replace"), rule="RFC 3875 4.1.2"
                )
            except RemoteProtocolError as error:
                raise Refused(error.status_hint, str(error)) from None
            self._find_file()
        elif environ.get("wsgi.input_terminated"):
            self.length = 0
            self._store(lambda: self._input.read(PIECE_SIZE))
        else:
            self.length = 0
        self._told = self.left = self.length

    def is_ready(self, seconds: float) -> bool:
        """Return whether `read` would return at once, after waiting for at most so long.

        True where nobody can say.
        """
        return self._wait is None or not self.left or self._wait(seconds)

    def read(self) -> bytes:
        """Return the next piece, `b""` at the end."""
        if not self.left:
            return b""
        read = self._input.read if self._wait is None else self._input.read1
        piece: bytes = read(min(self.left, PIECE_SIZE))
        if not piece:
            raise RequestAborted(
                f"wsgi.input ended after {self._told - self.left} bytes of {self._told}"
            )
        self.left -= len(piece)
        return piece

    def complete(self) -> int:
        """Read what is left, and return a descriptor of the caller's own from which all can be read."""
        if self.descriptor < 0 and self.left:
            self.length = 0
            self._store(self.read)
        if self.descriptor >= 0:
            return os.dup(self.descriptor)
        if not self.length:
            return os.open(os.devnull, os.O_RDONLY)
        data = self._input.getvalue()
        reader, writer = os.pipe()
        try:
            os.set_blocking(writer, False)
            if os.write(writer, data) == len(data):
                return reader
        except BlockingIOError:
            pass
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        # The kernel gives small pipes to a user who has many.
        os.close(reader)
        try:
            self._file = self._spool.file()
            self._file.write(data)
        except LimitExceeded as error:
            raise Refused(error.status_hint, str(error)) from None
        return os.dup(self._file.fileno())

    def close(self) -> None:
        """Give the temporary file back; a script keeps what it was given."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _find_file(self) -> None:
        # Only what our own server makes of a large body: others' files may be shared.
        if type(self._input) is not io.BufferedRandom or self.length <= PIECE_SIZE:
            return
        descriptor = self._input.fileno()
        if self._input.tell() == 0 and os.fstat(descriptor).st_size == self.length:
            os.lseek(descriptor, 0, os.SEEK_SET)
            self.descriptor = descriptor

    def _store(self, read: Callable[[], bytes]) -> None:
        """Store what `read` returns until it is nothing."""
        held: list[bytes] = []
        try:
            while piece := read():
                self.length += len(piece)
                if self._file is None and self.length > PIECE_SIZE:
                    self._file = self._spool.file()
                    for each in held:
                        self._file.write(each)
                    held = []
                if self._file is not None:
                    self._file.write(piece)
                else:
                    held.append(piece)
        except LimitExceeded as error:
            self.close()
            raise Refused(error.status_hint, str(error)) from None
        except BaseException:
            self.close()
            raise
        if self._file is not None:
            self.descriptor = self._file.fileno()
        else:
            self._input, self._wait = io.BytesIO(b"".join(held)), None
