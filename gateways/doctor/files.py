"""Files of others: reading one without waiting for it, and who could have put it there (`changeable`)."""

from __future__ import annotations

import errno
import os
import stat

from gateways.ownership import changeable as changeable

MAX_SOURCE = 4 * 1024 * 1024
"""Bytes of a script that are read at most."""


def open_regular(path: str, flags: int = 0) -> int:
    """Open a regular file for reading, with `flags` besides, and return the descriptor.

    Raises OSError where it cannot be opened, and where it is anything else than a regular file.
    """
    # Without O_NONBLOCK a FIFO would be waited for, and a terminal could become ours.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | flags)
    if stat.S_ISREG(os.fstat(number).st_mode):
        return number
    os.close(number)
    raise OSError(errno.EINVAL, "it is no regular file", path)


def read(path: str) -> bytes:
    """Return the first `MAX_SOURCE` bytes of a regular file; raises OSError as `open_regular` does.

    What the kernel makes up while it is read, as in /proc, has the size 0 and reads as empty.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(min(os.fstat(file.fileno()).st_size, MAX_SOURCE))
