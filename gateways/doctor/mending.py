"""The mendings that are harmless: what is written anew is kept beside it first."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO

BOM = b"\xef\xbb\xbf"


def make_executable(path: str) -> str:
    """Give the x bit to whoever may read."""
    with _opened(path) as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        new = mode | (mode & 0o444) >> 2
        os.fchmod(file.fileno(), new)
    return f"mode {mode:04o} is now {new:04o}"


def unix_line_ends(path: str) -> str:
    """Replace CR LF by LF everywhere."""
    data, _ = _read(path)
    count = data.count(b"\r\n")
    return _rewrite(path, lambda old: old.replace(b"\r\n", b"\n"), f"{count} line ends changed")


def without_bom(path: str) -> str:
    """Remove the byte order mark from the beginning."""
    return _rewrite(path, lambda old: old.removeprefix(BOM), "the byte order mark is gone")


def _opened(path: str) -> IO[bytes]:
    """Open the file that `path` leads to, and no other that is put in its place meanwhile."""
    return os.fdopen(
        os.open(os.path.realpath(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb"
    )


def _read(path: str) -> tuple[bytes, os.stat_result]:
    with _opened(path) as file:
        return file.read(), os.fstat(file.fileno())


def _rewrite(path: str, change: Callable[[bytes], bytes], done: str) -> str:
    """Put what `change` makes of the file in its place at once, with its mode and owner; keep the old."""
    path = os.path.realpath(path)
    data, found = _read(path)
    kept = _keep(path, data, found)
    number, new = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".gateways-")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(change(data))
            file.flush()
            os.fsync(number)
            with suppress(PermissionError):
                os.fchown(number, found.st_uid, found.st_gid)
            os.fchmod(number, stat.S_IMODE(found.st_mode))
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    return f"{done}; the file as it was is {kept}"


def _keep(path: str, data: bytes, found: os.stat_result) -> str:
    """Write the file's bytes to a name of their own and return that.

    The owner alone may read it: a web server would run it as well, or show its source.
    """
    for number in range(1000):
        kept = f"{path}.orig" + (f".{number}" if number else "")
        try:
            target = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(target, "wb") as copy:
            copy.write(data)
            with suppress(PermissionError):
                os.fchown(target, found.st_uid, -1)
        return kept
    raise FileExistsError(f"there are a thousand copies of {path} already")
