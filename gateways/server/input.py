"""wsgi.input: a file-like view of a request's body that never reads past its end (PEP 3333).

The body comes from a function that returns the next piece, `b""` at the end, and raises
RequestAborted when the rest will never come.  Pieces are cut only where the application asks, so
every style of reading costs time linear in the bytes.  The stream cannot seek and so has no
`tell`: an application that finds one believes it.

The CGI path imports this module, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateways.server.spool import Spool


class Input:
    """The stream that the application gets as `wsgi.input`."""

    __slots__ = ("_arrives", "_at", "_more", "_piece", "spool")

    def __init__(
        self,
        more: Callable[[], bytes],
        arrives: Callable[[float], bool] = lambda seconds: True,
        spool: Spool | None = None,
    ) -> None:
        self.spool = spool
        """Where the server itself would have stored the body, for an application that must."""
        self._more = more
        self._arrives = arrives
        self._piece = b""
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, fewer only at the end of the body; all of it without a size.

        Raises RequestAborted when the peer is gone before that many came.
        """
        if size is None or size < 0:
            size = -1
        elif self._at + size <= len(self._piece):
            self._at += size
            return self._piece[self._at - size : self._at]
        parts: list[bytes] = []
        while size and self._fill():
            part = self._take(size if size > 0 else len(self._piece))
            parts.append(part)
            if size > 0:
                size -= len(part)
        return b"".join(parts)

    def wait(self, seconds: float) -> bool:
        """Return whether `read1` would return at once, after waiting for at most so long.

        For an application that must not wait for a slow sender alone.
        """
        return self._at < len(self._piece) or self._arrives(seconds)

    def read1(self, size: int) -> bytes:
        """Return at most `size` bytes, as many as are there, `b""` at the end; wait where none is.

        Raises RequestAborted as `read` does.
        """
        if not size or not self._fill():
            return b""
        return self._take(min(size, len(self._piece) - self._at))

    def readline(self, size: int | None = -1) -> bytes:
        """Return one line with its end, at most `size` bytes of it; `b""` at the end of the body."""
        if size is None or size < 0:
            size = -1
        parts: list[bytes] = []
        while size and self._fill():
            newline = self._piece.find(b"\n", self._at)
            wanted = (newline + 1 if newline >= 0 else len(self._piece)) - self._at
            part = self._take(wanted if size < 0 else min(wanted, size))
            parts.append(part)
            if size > 0:
                size -= len(part)
            if part.endswith(b"\n"):
                break
        return b"".join(parts)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """Return the remaining lines, or lines of about `hint` bytes in all."""
        lines: list[bytes] = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def close(self) -> None:
        """Do nothing: the server owns the body.  Frameworks close what they were given."""

    def _fill(self) -> bool:
        """Have at least one byte at hand; false at the end of the body."""
        if self._at < len(self._piece):
            return True
        self._piece = self._more()
        self._at = 0
        return bool(self._piece)

    def _take(self, count: int) -> bytes:
        part = self._piece[self._at : self._at + count]
        self._at += len(part)
        return part
