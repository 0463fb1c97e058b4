"""The body of a request on its way out: bytes, a file or an iterable, in pieces of bounded size."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator
from typing import Protocol

PIECE_SIZE = 65536
"""Bytes taken from a body at a time: what a socket's buffer holds, and less than one FastCGI record may."""

# FastCGI's content length has 16 bits, so that a whole piece must stay below 65536.
_SLICE = PIECE_SIZE - 8

_SPOOL_IN_MEMORY = 1024 * 1024


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


Body = bytes | bytearray | memoryview | Readable | Iterable[bytes]


def length_of(body: Body) -> int | None:
    """Return how many bytes `body` holds from where it stands, None when that cannot be told."""
    if isinstance(body, (bytes, bytearray)):
        return len(body)
    if isinstance(body, memoryview):
        return body.nbytes
    if isinstance(body, io.IOBase) and body.seekable():
        here = body.tell()
        end = body.seek(0, io.SEEK_END)
        body.seek(here)
        return max(0, end - here)
    return None


def pieces_of(body: Body) -> Iterator[bytes]:
    """Yield the body in pieces of at most 64 KiB, none of them empty.

    Raises TypeError for a piece that is not bytes, such as a line of a file opened as text.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        yield from _slices(memoryview(body))
    elif hasattr(body, "read"):
        while piece := body.read(_SLICE):
            yield _checked(piece)
    else:
        for piece in body:
            yield from _slices(memoryview(_checked(piece)))


class Spool:
    """A copy of a body of unknown length, in memory up to 1 MiB and then in a temporary file."""

    def __init__(self, body: Body) -> None:
        self._file = tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY)  # noqa: SIM115  # see close()
        self.length = 0
        try:
            for piece in pieces_of(body):
                self._file.write(piece)
                self.length += len(piece)
            self._file.seek(0)
        except BaseException:
            self.close()
            raise

    def read(self, size: int, /) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        """Give the file back; the connection does it once the body is sent or given up."""
        self._file.close()


def _slices(view: memoryview) -> Iterator[bytes]:
    octets = view.cast("B") if view.nbytes else view
    for start in range(0, view.nbytes, _SLICE):
        yield bytes(octets[start : start + _SLICE])


def _checked(piece: bytes) -> bytes:
    if not isinstance(piece, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"a piece of the body is {type(piece).__name__}, not bytes; encode it,"
            f' or open the file with "rb"'
        )
    return piece
