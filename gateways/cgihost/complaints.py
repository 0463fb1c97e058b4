"""A script's standard error: whole lines for the log, bounded in length and in number."""

from __future__ import annotations

from collections.abc import Callable

from gateways.server.log import printable

MAX_LINE = 4096
MAX_BYTES = 256 * 1024
"""Of one run; what a script in an endless loop writes beyond that is read and dropped."""


class Complaints:
    """Takes bytes cut anywhere; `write` is called with each line, without its end."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._partial = b""
        self._left = MAX_BYTES

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        if self._left <= 0:
            return
        *lines, self._partial = (self._partial + data[: self._left]).split(b"\n")
        self._left -= len(data)
        for line in lines:
            self._emit(line)
        while len(self._partial) > MAX_LINE:
            self._emit(self._partial[:MAX_LINE])
            self._partial = self._partial[MAX_LINE:]
        if self._left <= 0:
            self.end()
            self._write(f"(over {MAX_BYTES} bytes of error output: the rest is dropped)")

    def end(self) -> None:
        """Write what stands on an unfinished line."""
        if self._partial:
            partial, self._partial = self._partial, b""
            self._emit(partial)

    def _emit(self, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        for start in range(0, max(len(text), 1), MAX_LINE):
            self._write(printable(text[start : start + MAX_LINE]))
