"""Starts a program as a child, for half of what subprocess.Popen takes.

What Popen does in the end is one call of `_posixsubprocess.fork_exec`, which starts the child by
vfork; on the way there it takes as much of the processor's time again.  That function is not for
everybody's use and its arguments change, so it is called where they are known, and Popen elsewhere.
With a folder to change to no posix_spawn can do it.
"""

from __future__ import annotations

import _posixsubprocess
import os
import subprocess
import sys
from collections.abc import Mapping


def spawn(
    command: list[bytes],
    environment: Mapping[bytes, bytes],
    folder: bytes,
    streams: tuple[int, int, int],
    keep: tuple[int, ...],
) -> int:
    """Start a program in `folder` and in a session of its own; return its process id.

    `streams` are its standard input, output and error, `keep` further descriptors that it inherits.
    All others are closed: not all of this process's were opened by Python, and what a process
    manager leaked is no script's business.  Raises the OSError that prevented it.
    """
    if sys.version_info >= (3, 14) or min(streams) <= 2:
        return _by_popen(command, environment, folder, streams, keep)
    return _by_fork_exec(command, environment, folder, streams, keep)


def reap(pid: int) -> int:
    """Wait for a child; return its exit status, negative for a signal."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 0  # somebody else has reaped it, or SIGCHLD is ignored


def _by_popen(
    command: list[bytes],
    environment: Mapping[bytes, bytes],
    folder: bytes,
    streams: tuple[int, int, int],
    keep: tuple[int, ...],
) -> int:
    popen = subprocess.Popen(
        command,
        stdin=streams[0],
        stdout=streams[1],
        stderr=streams[2],
        cwd=folder,
        env=environment,
        start_new_session=True,
        pass_fds=keep,
    )
    popen.returncode = 0  # so that it leaves the child to us
    return popen.pid


def _by_fork_exec(
    command: list[bytes],
    environment: Mapping[bytes, bytes],
    folder: bytes,
    streams: tuple[int, int, int],
    keep: tuple[int, ...],
) -> int:
    # The kernel closes the child's end when the program begins; before that the fault is written.
    failed, failing = os.pipe()
    try:
        pid = _posixsubprocess.fork_exec(
            command,
            (command[0],),
            True,  # close all descriptors
            tuple(sorted((*keep, failing))),  # but these
            folder,  # type: ignore[arg-type]  # typeshed has str alone, but bytes are taken too
            [name + b"=" + value for name, value in environment.items()],
            streams[0],
            -1,
            -1,
            streams[1],
            -1,
            streams[2],
            failed,
            failing,
            True,  # the signals that Python ignores are as they were
            True,  # a session of its own
            -1,  # and so no process group to join
            None,  # group,
            None,  # further groups,
            None,  # user
            -1,  # and umask stay
            None,  # type: ignore[arg-type]  # nothing is to be called in the child
            True,  # by vfork
        )
    except BaseException:
        os.close(failed)
        raise
    finally:
        os.close(failing)
    try:
        fault = b""
        # It comes in pieces.
        while piece := os.read(failed, 4096):
            fault += piece
    finally:
        os.close(failed)
    if fault:
        reap(pid)
        # Such as b"OSError:2:noexec:chdir": the number is in hexadecimal digits.
        number = int(fault.split(b":")[1], 16)
        raise OSError(number, os.strerror(number))
    return pid
