"""The private crash log: a file of one's own with an entry for each fault, for hosts that hide theirs.

An entry has the time, the reference that the visitor was shown, the request, the traceback and the
environ, secrets masked by their names.  The file is made with mode 600 and nobody else's: a
symlink, another user's file, one with a second name and one below the web server's DOCUMENT_ROOT
or Apache's CONTEXT_DOCUMENT_ROOT are refused, and so is a folder in which strangers could put another in its place.

Several processes may write the same file.  When it is full it becomes PATH.1, and the one that had
that name before is gone: two files of MAX_BYTES are all there ever is.

Imported when there is a fault, since a CGI request has no time for it otherwise.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from gateways.masking import bounded_repr, cut, printable, shown
from gateways.ownership import changeable
from gateways.tracebacks import bounded_traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_BYTES = 1024 * 1024
MAX_ENTRY = 192 * 1024
MAX_ROWS = 300

LOCK_SECONDS = 1.0
"""How long another process that is writing is waited for; then an entry is written all the same."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def record(path: str, error: BaseException, reference: str, environ: Mapping[Any, Any]) -> None:
    """Append an entry about `error`; OSError, with the remedy, where the file will not do."""
    check_place(path, environ)
    data = entry(error, reference, environ).encode("utf-8", "backslashreplace")
    for _ in range(10):
        descriptor = _open(path)
        try:
            locked = _lock(descriptor)
            if not _is_still(path, descriptor):
                continue  # another process has just made it PATH.1
            size = os.fstat(descriptor).st_size
            if size and size + len(data) > MAX_BYTES:
                if not locked:
                    raise OSError(f"{path} is full, and another process keeps it locked")
                os.rename(path, f"{path}.1")
                continue
            _write(descriptor, data, size, locked)
            return
        finally:
            os.close(descriptor)
    raise OSError(f"{path} is replaced again and again")


def check_place(path: str, environ: Mapping[Any, Any]) -> None:
    """Raise OSError where `path` is in a folder that strangers may change or visitors may ask for."""
    folder = os.path.dirname(os.path.abspath(path))
    found = os.stat(folder)
    if found.st_uid not in (os.geteuid(), 0):
        raise OSError(f"{folder} belongs to another user; name a file in a folder of your own")
    place = changeable(folder, sticky=True)
    # In a folder such as /tmp nobody takes the file away, and one that is there is looked at.
    if place and not (os.path.samefile(place, folder) and found.st_mode & stat.S_ISVTX):
        if os.lstat(place).st_uid not in (os.geteuid(), 0):
            raise OSError(f"{place} belongs to another user; name a file in a folder of your own")
        if os.stat(place).st_mode & stat.S_IWOTH:
            raise OSError(f"{place} may be changed by everybody; chmod o-w {place}")
        raise OSError(f"{place} may be changed by its group; chmod g-w {place}")
    # Apache's second name is the folder of an Alias or a UserDir.
    for name in ("DOCUMENT_ROOT", "CONTEXT_DOCUMENT_ROOT"):
        root = environ.get(name)
        if not isinstance(root, str) or not root.strip("/"):
            continue
        # The environ's strings are bytes as latin-1 (PEP 3333).
        served = os.path.realpath(os.fsdecode(root.encode("latin-1", "replace")))
        if f"{os.path.realpath(folder)}/".startswith(f"{served}/"):
            raise OSError(
                f"{path} is below the web server's {name}, {served}, where visitors may ask for"
                " it; name a file outside"
            )


def _open(path: str) -> int:
    """Open the file, made if there is none, and see that it is ours alone."""
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        if os.path.islink(path):
            raise OSError(f"{path} is a symbolic link, which is not followed; remove it") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a file")
        if found.st_uid != os.geteuid():
            raise OSError(f"{path} belongs to another user; remove it, or name another file")
        if found.st_nlink > 1:
            raise OSError(f"{path} has a second name (a hard link); remove it")
        if found.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> bool:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        except OSError:
            return True  # a file system without locks, as some of NFS: the rest is worth having
        else:
            return True


def _is_still(path: str, descriptor: int) -> bool:
    try:
        now = os.lstat(path)
    except FileNotFoundError:
        return False
    then = os.fstat(descriptor)
    return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)


def _write(descriptor: int, data: bytes, size: int, locked: bool) -> None:
    """Write an entry whole, or, where the disk is full, nothing: the file has its `size` again."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        written = len(data) - len(rest)
        # Without the lock another's entry may stand behind the half of ours.
        if locked and os.fstat(descriptor).st_size == size + written:
            os.ftruncate(descriptor, size)
        raise


def entry(error: BaseException, reference: str, environ: Mapping[Any, Any]) -> str:
    """Return the entry: a line that begins with "error" and the reference, the rest indented.

    So nothing in a message or a value can look like the beginning of an entry.
    """
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    lines = [f"error {reference} at {now}, process {os.getpid()}", f"    {_request(environ)}", ""]
    lines += [f"    {line}" for line in bounded_traceback(error).split("\n")]
    lines.append("")
    for name, value in list(environ.items())[:MAX_ROWS]:
        if not (isinstance(name, str) and name.startswith("wsgi.")):
            label = name if isinstance(name, str) else bounded_repr(name)
            lines.append(f"    {printable(cut(label, 80))} = {shown(name, value)}")
    text = "\n".join(lines)
    if len(text) > MAX_ENTRY:
        text = text[:MAX_ENTRY].rpartition("\n")[0] + "\n    … the rest is left out: it is too long"
    return text + "\n\n"


def _request(environ: Mapping[Any, Any]) -> str:
    """Return the request's line, and who asked."""
    get = environ.get
    path = get("REQUEST_URI") or f"{get('SCRIPT_NAME', '')}{get('PATH_INFO', '')}"
    line = f"{get('REQUEST_METHOD', '?')} {path} {get('SERVER_PROTOCOL', '')}"
    return printable(cut(f"{line}, from {get('REMOTE_ADDR', 'nobody')}", 2000))
