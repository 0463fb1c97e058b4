"""The resident daemon: serves one application on the listening socket that a stub gave it.

Descriptor 0 is the socket, 1 and 2 the log, 3 the note in which stubs count its starts; see stub.py.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys
from contextlib import suppress

from gateways.addresses import Address
from gateways.errors import ConfigurationError
from gateways.server import log as logs
from gateways.server.daemon import serve_on
from gateways.server.listeners import Accepted, Listener
from gateways.server.log import log
from gateways.server.options import Options

NOTE = 3

START_SECONDS = 60
"""How long the application may take to be imported.  After that the process is ended: the stubs
that wait notice, and answer by plain CGI."""

GRACEFUL_SECONDS = 300.0
"""How long a request may go on after the daemon has decided to end; a new one serves meanwhile."""

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
        with socket.socket(fileno=os.dup(accepted[0])) as peer:
            found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid = _CREDENTIALS.unpack(found)[1]
        if uid == os.geteuid():
            return accepted
        log.warning("refused a connection from uid %d: this daemon serves its own user only", uid)
        os.close(accepted[0])
        return None

    def refuse(self) -> None:
        """End well: the start is not counted any more, before the next stub looks at the note."""
        with suppress(OSError):  # the application has closed it all the same
            if _identity(self._note) == self._note_is:
                os.ftruncate(self._note, 0)
        super().refuse()


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _stand_down() -> None:
    signal.alarm(0)


def main(arguments: list[str]) -> None:
    """Serve: APPLICATION IDLE THREADS SCRIPT_NAME DEBUG CRASH_LOG TOUCH…"""
    application, idle, threads, script_name, debug, crash_log, *touch = arguments
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
    )
    logs.configure(options.log_level)
    sock = socket.socket(fileno=os.dup(0))
    # What the application or its children read from stdin is nothing, as in CGI without a body.
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    listener = PrivateListener(sock, options)
    try:
        serve_on([listener], application, options, on_ready=_stand_down)
    except ConfigurationError as error:
        trace = getattr(error, "traceback_text", "")
        sys.exit(f"{trace}gateways: {error}")
