"""The receive buffer that the codecs share: append anywhere, take from the front, linear cost.

Codecs bound what they leave in it: each refuses a length over its limit *before* waiting for that
many bytes, so the buffer never holds more than one limit's worth beyond what the last call
brought, and nothing is allocated because a length field said so.
"""

from __future__ import annotations


class ReceiveBuffer:
    """Bytes that arrived and are not understood yet.

    Taking from the front moves an offset; the consumed front is cut off only when it is the
    larger half, so every byte is moved a bounded number of times however small the pieces are.
    """

    __slots__ = ("_data", "_start")

    def __init__(self) -> None:
        self._data = bytearray()
        self._start = 0

    def __len__(self) -> int:
        return len(self._data) - self._start

    def append(self, data: bytes | memoryview) -> None:
        """Add what was received."""
        self._data += data

    def take(self, count: int) -> bytes:
        """Remove and return the first `count` bytes, or all where fewer are there."""
        start = self._start
        end = min(start + count, len(self._data))
        taken = bytes(self._data[start:end])
        self._start = end
        self._compact()
        return taken

    def skip(self, count: int) -> int:
        """Remove up to `count` bytes without copying them; return how many were there."""
        skipped = min(count, len(self))
        self._start += skipped
        self._compact()
        return skipped

    def peek(self, count: int) -> bytes:
        """Return up to `count` bytes from the front and leave them in place."""
        return bytes(self._data[self._start : self._start + count])

    def _compact(self) -> None:
        if self._start == len(self._data):
            self._data.clear()
            self._start = 0
        elif self._start > 65536 and self._start * 2 > len(self._data):
            del self._data[: self._start]
            self._start = 0
