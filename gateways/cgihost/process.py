"""One child process in a group of its own: started, waited for, ended with all that it started.

What is left running here when the interpreter leaves is ended too.
"""

from __future__ import annotations

import atexit
import errno
import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

from gateways.cgihost import lifeline
from gateways.cgihost.spawning import reap, spawn

_running: set[Process] = set()

# A file that another process has open for writing cannot be executed: an upload is just ending.
_BUSY_PAUSES = (0.005, 0.02, 0.1)


class Process:
    """A started child.  `stdin`, `stdout` and `stderr` are the descriptors that it is to have.

    `keep` are others that it inherits.  It ends, with its group, when this process is killed.
    Raises the OSError that prevented the start.
    """

    def __init__(
        self,
        command: list[bytes],
        environment: Mapping[bytes, bytes],
        folder: bytes,
        stdin: int,
        stdout: int,
        stderr: int,
        keep: tuple[int, ...] = (),
    ) -> None:
        self._lifeline = lifeline.take()
        if self._lifeline is not None:
            keep = (*keep, self._lifeline.descriptor)
        self._status: int | None = None
        try:
            self.pid = self._start(command, environment, folder, (stdin, stdout, stderr), keep)
        except BaseException:
            self._let_go()
            raise
        if self._lifeline is not None:
            self._lifeline.hold(self.pid)
        self.descriptor = _pidfd(self.pid)
        _running.add(self)

    def _start(
        self,
        command: list[bytes],
        environment: Mapping[bytes, bytes],
        folder: bytes,
        streams: tuple[int, int, int],
        keep: tuple[int, ...],
    ) -> int:
        for pause in (*_BUSY_PAUSES, None):
            try:
                return spawn(command, environment, folder, streams, keep)
            except OSError as error:
                if error.errno != errno.ETXTBSY or pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last pause is none")

    def _let_go(self) -> None:
        if self._lifeline is not None:
            self._lifeline.release()
            self._lifeline = None

    def wait(self, seconds: float) -> bool:
        """Return whether the child has exited, after waiting for at most that long; it is not reaped."""
        if self._status is not None:
            return True
        if self.descriptor >= 0:
            poller = select.poll()
            poller.register(self.descriptor, select.POLLIN)
            return bool(poller.poll(min(seconds, 1e6) * 1000))
        return self._wait_without_descriptor(seconds)

    def _wait_without_descriptor(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        pause = 0.0005
        while not self._has_exited():
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        return True

    def _has_exited(self) -> bool:
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, options) is not None
        except ChildProcessError:
            return True  # somebody else has reaped it, or SIGCHLD is ignored

    def reap(self) -> int:
        """Return the exit status, negative for a signal, of a child that has exited."""
        if self._status is not None:
            return self._status
        self._status = reap(self.pid)
        _running.discard(self)
        self._let_go()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        return self._status

    def signal(self, number: int) -> None:
        """Send a signal to the whole group, unless the child has been reaped."""
        # Until then its number is no other group's.
        if self._status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def _pidfd(pid: int) -> int:
    """Return a descriptor that can be polled for the child's exit, -1 where there is none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, an old kernel, or no descriptors left
        return -1


def _end_all() -> None:
    """End what runs when this process leaves; nobody would end it afterwards."""
    left = list(_running)
    for process in left:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + 1.0
    for process in left:
        process.wait(max(0.0, deadline - time.monotonic()))
    for process in left:
        process.signal(signal.SIGKILL)


def _forget() -> None:
    for process in _running:
        if process._lifeline is not None:
            process._lifeline.close()
            process._lifeline = None
    _running.clear()


atexit.register(_end_all)
# A process that is forked off from this one inherits the set, and not the children.
os.register_at_fork(after_in_child=_forget)
