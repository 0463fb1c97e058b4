"""The mendings that are harmless: what is written anew is kept beside it first.

Only a file of whoever runs doctor is mended, and only where nobody else could put another in its
place: root would otherwise write where the owner of a folder wants it to.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from gateways.doctor import access, files
from gateways.doctor.findings import command

BOM = b"\xef\xbb\xbf"


def make_executable(path: str) -> str:
    """Give the x bit to whoever may read."""
    with _opened(_place(path)) as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        new = (mode | (mode & 0o444) >> 2) & 0o777
        os.fchmod(file.fileno(), new)
    return f"mode {mode:04o} is now {new:04o}"


def unix_line_ends(path: str) -> str:
    """Replace CR LF by LF everywhere."""
    data, _ = _read(_place(path))
    count = data.count(b"\r\n")
    return _rewrite(path, lambda old: old.replace(b"\r\n", b"\n"), f"{count} line ends changed")


def without_bom(path: str) -> str:
    """Remove the byte order mark from the beginning."""
    return _rewrite(path, lambda old: old.removeprefix(BOM), "the byte order mark is gone")


def _place(path: str) -> str:
    """Return the real path of a file to be mended.

    Raises PermissionError where it is a symbolic link, or where others can change a folder above it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    folder = os.path.realpath(folder)
    place = os.path.join(folder, name)
    if os.path.islink(place):
        raise PermissionError(f"it is a symbolic link; type: {_again(os.path.realpath(place))}")
    part = files.changeable(folder, sticky=True)
    if part:
        raise PermissionError(
            f"others than root and whoever runs doctor can change {part} ({access.described(part)});"
            f" {_way_out(place, part)}"
        )
    return place


def _opened(place: str) -> IO[bytes]:
    """Open the file if it is one to be mended; raises PermissionError with the reason where it is not."""
    file = os.fdopen(files.open_regular(place, os.O_NOFOLLOW), "rb")
    try:
        found = os.fstat(file.fileno())
        if found.st_uid != os.geteuid():
            raise PermissionError(
                f"it belongs to {access.user_name(found.st_uid)}, and doctor mends only what belongs"
                f" to whoever runs it; type: {_as(found.st_uid, place)}"
            )
        if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise PermissionError(
                "it runs with the rights of its owner or group (setuid or setgid);"
                f" type: {command('chmod', 'ug-s', place)}"
            )
        if found.st_size > files.MAX_SOURCE:
            raise PermissionError(f"it is longer than {files.MAX_SOURCE} bytes; mend it by hand")
    except BaseException:
        file.close()
        raise
    return file


def _way_out(place: str, part: str) -> str:
    """Return what to do about a folder that others can change."""
    owner, folder = os.lstat(place).st_uid, os.stat(part)
    if owner != os.geteuid():
        return f"type: {_as(owner, place)}"
    if folder.st_uid in (0, owner) and not folder.st_mode & stat.S_ISVTX:
        return f"type: {command('chmod', 'go-w', part)}"
    return "mend it by hand, or move it to a folder that only its owner can change"


def _again(path: str) -> str:
    return command("gateways", "doctor", "--fix", path)


def _as(owner: int, path: str) -> str:
    # sudo takes the number of a user who has no name behind a "#".
    name = access.user_name(owner)
    return f"{command('sudo', '-u', f'#{name}' if name.isdigit() else name)} {_again(path)}"


def _read(place: str) -> tuple[bytes, os.stat_result]:
    with _opened(place) as file:
        found = os.fstat(file.fileno())
        # What is read is what was judged, whatever is written meanwhile.
        return file.read(found.st_size), found


def _rewrite(path: str, change: Callable[[bytes], bytes], done: str) -> str:
    """Put what `change` makes of the file in its place at once, with its mode and owner; keep the old."""
    path = _place(path)
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
            os.fchmod(number, found.st_mode & 0o777)
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
