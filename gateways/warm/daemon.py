"""The resident daemon: serves one application on the listening socket that a stub gave it.

Descriptor 0 is the socket, 1 and 2 the log, 3 the note in which stubs count its starts; see stub.py.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from math import inf

from gateways.addresses import Address
from gateways.errors import ConfigurationError
from gateways.server import log as logs
from gateways.server.daemon import serve_on
from gateways.server.listeners import Accepted, Listener
from gateways.server.log import log
from gateways.server.options import Options
from gateways.warm.stub import MAX_LOG

LOG = 1
NOTE = 3

START_SECONDS = 60
"""How long the application may take to be imported.  After that the process is ended: the stubs
that wait notice, and answer by plain CGI."""

GRACEFUL_SECONDS = 300.0
"""How long a request may go on after the daemon has decided to end; a new one serves meanwhile."""

RATE_SECONDS = 86400.0
"""With a min_rate of 1 that is as good as none.  At the other end is a stub, and behind it a visitor
who may read slowly or pause; the web server's own timeout decides for how long, as in plain CGI."""

ANSWER_TAIL = 1_073_741_824
ANSWER_MEMORY = 8_388_608
"""A finished answer holds no thread, however slow its reader: what memory does not take goes to
temporary files."""

CPU_SHARE = 0.5
"""Of the processor time that the host allows a process (RLIMIT_CPU, which is meant for one request)
so much is used before the daemon ends; the requests it has then have the rest."""

_CREDENTIALS = struct.Struct("3i")


class PrivateListener(Listener):
    """The listening socket in the private folder: for this user alone."""

    def __init__(self, sock: socket.socket, options: Options) -> None:
        super().__init__(Address("fcgi", "fd", fd=0), sock, options)
        # Out of the way of an application that closes descriptors which it does not know.
        self._note = fcntl.fcntl(NOTE, fcntl.F_DUPFD_CLOEXEC, 10)
        os.close(NOTE)
        self._note_is = _identity(self._note)

    def accept(self) -> Accepted | None:
        """Accept a connection, None where another user's process is at the other end."""
        accepted = super().accept()
        if accepted is None:
            return None
        # No further descriptor is opened: there may be none left, and who has connected would wait.
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, accepted[0])
        try:
            found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            peer.close()
            raise
        peer.detach()
        uid = _CREDENTIALS.unpack(found)[1]
        if uid == os.geteuid():
            return accepted
        log.warning("refused a connection from uid %d: this daemon serves its own user only", uid)
        os.close(accepted[0])
        return None

    def path(self) -> str:
        """Return where the socket is, "" where this system does not tell."""
        try:
            note = os.readlink(f"/proc/self/fd/{self._note}")
        except OSError:
            return ""
        # It was bound by its name, within its folder.
        return os.path.join(os.path.dirname(note), os.fsdecode(self._socket.getsockname()))

    def refuse(self) -> None:
        """End well: the start is not counted any more, before the next stub looks at the note."""
        with suppress(OSError):  # the application has closed it all the same
            if _identity(self._note) == self._note_is:
                os.ftruncate(self._note, 0)
        super().refuse()


class Due:
    """Whether the daemon is to end, apart from what the application and its visitors do.

    It also keeps the log short, which all that the application prints goes to.
    """

    def __init__(self, listener: PrivateListener) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
        self._most_cpu = inf if soft == resource.RLIM_INFINITY else soft * CPU_SHARE
        self._soft = soft
        self._path = listener.path()
        self._is = _found(self._path)
        self._log_is = _identity(LOG)

    def look(self) -> str:
        """Return why it is to end, "" where it is not."""
        with suppress(OSError):  # the application has closed it
            if os.fstat(LOG).st_size > MAX_LOG and _identity(LOG) == self._log_is:
                os.ftruncate(LOG, 0)
        if time.process_time() >= self._most_cpu:
            return f"half of the {self._soft} s that RLIMIT_CPU allows are used"
        with suppress(OSError):  # it may be there again
            if self._is and _found(self._path) != self._is:
                return f"{self._path} is no longer this daemon's socket"
        return ""


def _found(path: str) -> tuple[int, int] | None:
    """Return which file is there, None where there is none."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _stand_down() -> None:
    signal.alarm(0)


def main(arguments: list[str]) -> None:
    """Serve: APPLICATION IDLE THREADS SCRIPT_NAME DEBUG CRASH_LOG FOLDER TOUCH…"""
    application, idle, threads, script_name, debug, crash_log, cwd, *touch = arguments
    signal.alarm(START_SECONDS)
    options = Options(
        idle_exit=float(idle),
        threads=int(threads),
        script_name=script_name,
        debug=debug == "1",
        touch_reload=tuple(touch),
        crash_log=crash_log,
        reload_on_change=True,
        exclusive=True,
        error_stream="web-server",
        graceful_timeout=GRACEFUL_SECONDS,
        min_rate=1,
        rate_window=RATE_SECONDS,
        answer_tail=ANSWER_TAIL,
        answer_memory=ANSWER_MEMORY,
    )
    logs.configure(options.log_level)
    with suppress(OSError):  # the CGI file was moved: then this is the first request's folder
        os.chdir(cwd)
    sock = socket.socket(fileno=os.dup(0))
    # What the application or its children read from stdin is nothing, as in CGI without a body.
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    listener = PrivateListener(sock, options)
    try:
        serve_on([listener], application, options, on_ready=_stand_down, due=Due(listener).look)
    except ConfigurationError as error:
        trace = getattr(error, "traceback_text", "")
        sys.exit(f"{trace}gateways: {error}")
