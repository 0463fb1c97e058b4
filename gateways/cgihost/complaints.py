"""A script's standard error: whole lines for the log, bounded in length and in number."""

from __future__ import annotations

from collections.abc import Callable

from gateways.server.log import printable

MAX_LINE = 4096
MAX_BYTES = 256 * 1024
"""Of one run; what a script in an endless loop writes beyond that is read and dropped."""

MAX_TAIL = 16384
"""Bytes of the last words, which tell why a script gave no answer."""

_LINE_COST = 32
"""What a line counts beside its text: the log has the script's name before it."""


class Complaints:
    """Takes bytes cut anywhere; `write` is called with each line, without its end.

    `tail` is the last of what came.  A log that cannot be written to costs its lines, and not the
    script's answer.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.tail = b""
        self._write = write
        self._partial = b""
        self._left: float = MAX_BYTES

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        self.tail = (self.tail + data)[-MAX_TAIL:]
        if self._left <= 0:
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._partial) > MAX_LINE:
            self._emit(self._partial[:MAX_LINE])
            self._partial = self._partial[MAX_LINE:]

    def end(self) -> None:
        """Write what stands on an unfinished line."""
        if self._partial:
            partial, self._partial = self._partial, b""
            self._emit(partial)

    def say(self, text: str) -> None:
        """Add a line of our own."""
        if self._left == float("-inf"):
            return
        try:
            self._write(text)
        except Exception:
            # There is nowhere else to say so, and the visitor's answer does not depend on it.
            self._left = float("-inf")

    def last_words(self) -> str:
        """Return the tail, fit for a log or a page, "" for none."""
        lines = self.tail.decode("utf-8", "backslashreplace").strip().split("\n")
        return "\n".join(printable(line.rstrip("\r")) for line in lines)

    def _emit(self, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        for start in range(0, max(len(text), 1), MAX_LINE):
            if self._left <= 0:
                return
            piece = printable(text[start : start + MAX_LINE])
            self._left -= len(piece) + _LINE_COST
            self.say(piece)
            if float("-inf") < self._left <= 0:
                self.say(f"the rest of its error output is dropped, after {MAX_BYTES // 1024} KiB")
