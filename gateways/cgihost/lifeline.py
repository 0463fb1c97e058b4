"""What ends a script when this process is killed outright, and can end nothing itself any more.

A lifeline is a pipe on which nobody ever writes.  The script has its reading end; when the writing
end, which only this process has, is closed by the kernel, the kernel sends SIGKILL to the script's
process group (fcntl(2), F_SETOWN and F_SETSIG, which Linux alone has).  Nobody has to watch, and it
cannot be missed: unlike PR_SET_PDEATHSIG it holds for the whole group, and does not fire when only
the thread ends that had started the script.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from contextlib import suppress

_idle: list[Lifeline] = []
"""Those of scripts that have ended; each is used again."""


class Lifeline:
    """`descriptor` is the end that the script inherits."""

    def __init__(self) -> None:
        """Raises OSError where there are no descriptors left, or the kernel lacks it after all."""
        self.descriptor, self._writer = os.pipe()
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, os.O_ASYNC)
        except BaseException:
            self.close()
            raise

    def hold(self, group: int) -> None:
        """Have the process group end with this process."""
        with suppress(OSError):  # it has ended already
            fcntl.fcntl(self.descriptor, fcntl.F_SETOWN, -group)

    def release(self) -> None:
        """Let go of the group: what the script has left running is not ended any more."""
        fcntl.fcntl(self.descriptor, fcntl.F_SETOWN, 0)
        _idle.append(self)

    def close(self) -> None:
        """Close both ends."""
        os.close(self.descriptor)
        os.close(self._writer)


def take() -> Lifeline | None:
    """Return a lifeline for a script that is about to start, None where the system has none."""
    try:
        return _idle.pop()
    except IndexError:
        pass
    if not hasattr(fcntl, "F_SETSIG"):
        return None
    try:
        return Lifeline()
    except OSError as error:
        # What emulations of Linux answer to what they do not have.
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            return None
        raise


def _forget() -> None:
    # A forked process that kept the writing ends would keep scripts alive that are not its own.
    while _idle:
        _idle.pop().close()


os.register_at_fork(after_in_child=_forget)
