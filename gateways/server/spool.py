"""Private temporary files for what does not belong in memory, within one budget for the process.

A file has no name from the moment it is made, so nobody else can open it and nothing is left behind
by a crash.  Its space is free again as soon as it is closed.
"""

from __future__ import annotations

import errno
import os
import threading

from gateways.errors import LimitExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""File systems whose files are memory: a body put there would not be out of the way at all."""

FALLBACK = "/var/tmp"


class Spool:
    """The budget, of `limit` bytes, and the folder; "" chooses one."""

    def __init__(self, limit: int, folder: str = "") -> None:
        self.limit = limit
        self.folder = folder or choose_folder()
        self.used = 0
        self._lock = threading.Lock()

    def file(self) -> SpoolFile:
        """Return a new empty file; LimitExceeded where none can be made."""
        return SpoolFile(self)

    def take(self, size: int) -> None:
        """Count `size` more bytes; LimitExceeded when that is over the budget."""
        with self._lock:
            if self.used + size > self.limit:
                raise _full(f"spool_size, {self.limit} bytes, is used up")
            self.used += size

    def give(self, size: int) -> None:
        """Count `size` bytes as free again."""
        with self._lock:
            self.used -= size


class SpoolFile:
    """A private temporary file that is appended to and read from its front.

    `size` is how many bytes were written, `taken` how many of them `take` has returned.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        try:
            self.file = _open(spool.folder)
        except OSError as error:
            raise _full(str(error)) from error
        self.size = 0
        self.taken = 0

    @property
    def waiting(self) -> int:
        """Bytes that were written and not taken."""
        return self.size - self.taken

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.file.fileno()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`; LimitExceeded, status hint 503, when there is no room for it."""
        self._spool.take(len(data))
        rest = memoryview(data)
        end = self.size + len(data)
        try:
            while rest:
                # Not through the file object, which would have to be flushed and would copy.
                rest = rest[os.pwrite(self.file.fileno(), rest, end - len(rest)) :]
        except OSError as error:
            self._spool.give(len(data))
            raise _full(str(error)) from error
        self.size = end

    def take(self) -> bytes:
        """Return up to 64 KiB of what waits; OSError when the disk fails."""
        piece = os.pread(self.file.fileno(), min(65536, self.waiting), self.taken)
        self.taken += len(piece)
        return piece

    def close(self) -> None:
        """Give the space back."""
        if not self.file.closed:
            self.file.close()
        self._spool.give(self.size)
        self.size = self.taken = 0


def _full(reason: str) -> LimitExceeded:
    return LimitExceeded(f"temporary space is needed, and there is none: {reason}", status_hint=503)


def _open(folder: str) -> BinaryIO:
    # Buffered, since an application may read it by lines.
    if hasattr(os, "O_TMPFILE"):
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
            return open(os.open(folder, flags, 0o600), "w+b")
        except OSError as error:
            # What file systems and kernels that do not have it answer.
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
    import tempfile  # here: a megabyte of memory that most file systems do without

    return tempfile.TemporaryFile(dir=folder)


def choose_folder() -> str:
    """Return the system's folder for temporary files, or /var/tmp where that one is in memory."""
    folder = os.environ.get("TMPDIR") or "/tmp"
    usable = os.access(FALLBACK, os.W_OK | os.X_OK)
    return FALLBACK if usable and _file_system(folder) in IN_MEMORY else folder


def _file_system(path: str) -> str:
    """Return the type of the file system that `path` is on, "" where nobody can say."""
    best, kind = "", ""
    path = os.path.realpath(path)
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                _, where, what, *_ = line.split(" ")
                where = where.replace("\\040", " ")
                inside = where == "/" or path == where or path.startswith(where + "/")
                if inside and len(where) >= len(best):
                    best, kind = where, what
    except (OSError, ValueError):  # no /proc, or not Linux's
        return ""
    return kind
