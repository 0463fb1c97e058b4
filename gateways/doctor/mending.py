"""The mendings that are harmless: what is written anew is kept beside it first."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress

BOM = b"\xef\xbb\xbf"


def make_executable(path: str) -> str:
    """Give the x bit to whoever may read."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    new = mode | (mode & 0o444) >> 2
    os.chmod(path, new)
    return f"mode {mode:04o} is now {new:04o}"


def unix_line_ends(path: str) -> str:
    """Replace CR LF by LF everywhere."""
    with open(path, "rb") as file:
        data = file.read()
    count = data.count(b"\r\n")
    return _rewrite(path, data.replace(b"\r\n", b"\n"), f"{count} line ends changed")


def without_bom(path: str) -> str:
    """Remove the byte order mark from the beginning."""
    with open(path, "rb") as file:
        data = file.read()
    return _rewrite(path, data.removeprefix(BOM), "the byte order mark is gone")


def _rewrite(path: str, data: bytes, done: str) -> str:
    """Put `data` in the file's place at once, with its mode and owner; keep the old file."""
    path = os.path.realpath(path)
    found = os.stat(path)
    kept = _keep(path)
    number, new = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".gateways-")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(number)
        with suppress(PermissionError):
            os.chown(new, found.st_uid, found.st_gid)
        os.chmod(new, stat.S_IMODE(found.st_mode))
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    return f"{done}; the file as it was is {kept}"


def _keep(path: str) -> str:
    """Copy the file to a name of its own and return that.

    Its owner alone may read it: a web server would run it as well, or show its source.
    """
    for number in range(1000):
        kept = f"{path}.orig" + (f".{number}" if number else "")
        try:
            target = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(target, "wb") as copy, open(path, "rb") as file:
            copy.write(file.read())
        with suppress(PermissionError):
            os.chown(kept, os.stat(path).st_uid, -1)
        return kept
    raise FileExistsError(f"there are a thousand copies of {path} already")
