"""Fork mode: the parent of a script's processes, one of them for each request."""

from __future__ import annotations

import atexit
import fcntl
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

from . import EXITED, FAILED, FULL, RAISED, RELEASE, SIGNALLED, STALE, STARTED
from .request import Request, Setting, receive, tell
from .script import Script, end_program, flush_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Child:
    """A request that a child process answers.  It stays unreaped until nobody can want to end it."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.over = False
        self.ended = False
        """Whether it was sent SIGTERM, so that what it leaves behind is ended too."""
        self.next_signal_at = float("inf")

    def end(self, grace: float) -> None:
        """Ask it to end, and have it killed later."""
        self.ended = True
        _signal_group(self.pid, signal.SIGKILL if self.over else signal.SIGTERM)
        self.next_signal_at = time.monotonic() + grace


class Forker:
    """The parent of a script's processes."""

    def __init__(self, script: Script, sock: socket.socket, most: int, grace: float) -> None:
        self._script = script
        self._sock = sock
        self._most = most
        self._grace = grace
        self._setting = Setting(script)
        self._lifeline = Lifeline()
        self._children: dict[int, Child] = {}
        self._released: list[Child] = []
        self._wake = os.pipe()
        self._poller = select.poll()
        self._ending = False
        self._terminated = False

    def run(self) -> None:
        """Serve until whoever started this process is gone."""
        for descriptor in self._wake:
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._poller.register(self._wake[0], select.POLLIN)
        self._poller.register(self._sock, select.POLLIN)
        while not self._ending or self._is_needed():
            for descriptor, _ in self._poller.poll(self._patience()):
                if descriptor == self._sock.fileno():
                    self._start()
                elif descriptor == self._wake[0]:
                    os.read(descriptor, 4096)
                elif descriptor in self._children:
                    self._hear(self._children[descriptor])
            if self._terminated:
                self._terminated = False
                self._end()
            self._look()

    def _on_sigterm(self, number: int, frame: object) -> None:
        self._terminated = True

    def _start(self) -> None:
        try:
            request = receive(self._sock)
        except EOFError:
            return
        if request is None:
            self._end()
            return
        if self._script.refresh():
            # It may import other modules now.  What has begun goes on.
            self._close()
            with request.control, suppress(OSError):
                request.control.send(STALE)
            request.close()
            return
        control = request.control
        if len(self._children) + len(self._released) >= self._most:
            with control, suppress(OSError):
                control.send(FULL)
            request.close()
            return
        try:
            # Said before the fork: whoever does not hear it may ask another helper.
            control.send(STARTED)
            pid = os.fork()
        except OSError as error:
            with suppress(OSError):
                os.write(request.descriptors[2], f"no process could be forked: {error}\n".encode())
            tell(control, RAISED, FAILED)
            control.close()
        else:
            if pid == 0:
                self._be_child(request)
            with suppress(OSError):  # the child does it too; whoever comes first
                os.setpgid(pid, pid)
            self._children[control.fileno()] = Child(pid, control)
            self._poller.register(control, select.POLLIN)
        request.close()

    def _close(self) -> None:
        """Take no more requests."""
        if not self._ending:
            self._ending = True
            self._poller.unregister(self._sock)
            self._sock.close()

    def _end(self) -> None:
        """End all scripts: nobody wants them any more."""
        self._close()
        for child in (*self._children.values(), *self._released):
            if not child.ended:
                child.end(self._grace)

    def _be_child(self, request: Request) -> NoReturn:
        status = FAILED
        try:
            with suppress(OSError):
                os.setpgid(0, 0)
            self._lifeline.hold()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for descriptor in self._wake:
                os.close(descriptor)
            self._sock.close()
            for child in self._children.values():
                child.control.close()
            self._setting.prepare(request)
            kind, status = self._script.run()
            main = sys.modules.get("__main__")
            threading: Any = sys.modules.get("threading")
            if threading is not None:
                threading._shutdown()  # waits for threads that are no daemons
            atexit._run_exitfuncs()
            end_program(main)
            flush_files()
            self._setting.streams.flush()
            tell(request.control, kind, status)
        except BaseException as error:
            sys.__excepthook__(type(error), error, error.__traceback__)
        finally:
            os._exit(status)

    def _hear(self, child: Child) -> None:
        """A request is over, for whoever made it."""
        try:
            said = child.control.recv(16)
        except ConnectionResetError:
            said = b""
        self._poller.unregister(child.control)
        del self._children[child.control.fileno()]
        child.control.close()
        self._released.append(child)
        if said[:1] != RELEASE:
            child.end(self._grace)
        elif said[1:]:
            child.next_signal_at = time.monotonic() + int(said[1:]) / 1000

    def _look(self) -> None:
        """Tell of the children that have ended, end those whose time has come, reap."""
        for child in (*self._children.values(), *self._released):
            self._look_at(child)
        for child in [each for each in self._released if each.over]:
            if child.ended:
                _signal_group(child.pid, signal.SIGKILL)
            # From here on its number may be another's.
            os.waitpid(child.pid, 0)
            self._released.remove(child)

    def _look_at(self, child: Child) -> None:
        if time.monotonic() >= child.next_signal_at:
            if child.ended:
                _signal_group(child.pid, signal.SIGKILL)
                child.next_signal_at = float("inf")
            else:
                child.end(self._grace)
        if not child.over:
            found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if found is not None:
                child.over = True
                kind = EXITED if found.si_code == os.CLD_EXITED else SIGNALLED
                if child.control.fileno() >= 0:
                    tell(child.control, kind, found.si_status)

    def _is_needed(self) -> bool:
        """Whether there are scripts: they would end with this process."""
        return bool(self._children or self._released)

    def _patience(self) -> float | None:
        now = time.monotonic()
        ends = [each.next_signal_at for each in (*self._children.values(), *self._released)]
        first = min(ends, default=float("inf"))
        # poll takes no more than 2**31 milliseconds.
        return None if first == float("inf") else min(max(0.0, first - now), 1e6) * 1000 + 1


class Lifeline:
    """What ends the scripts when this process is killed outright.

    Nobody writes into this pipe.  When its writing end goes with the process, the kernel sends
    SIGKILL to the group that a script has named for its own opening of the other end.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def hold(self) -> None:
        """Have this process, a fork, and its group end with the one that it came from.

        Linux has what it takes; elsewhere nothing is done.
        """
        os.close(self._writer)
        signum = getattr(fcntl, "F_SETSIG", None)
        with suppress(OSError):  # no /proc
            if signum is None:
                return
            own = os.open(f"/proc/self/fd/{self._reader}", os.O_RDONLY)
            fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(own, signum, signal.SIGKILL)
            fcntl.fcntl(own, fcntl.F_SETFL, os.O_ASYNC)
            poller = select.poll()
            poller.register(own, 0)
            if poller.poll(0):
                os._exit(FAILED)  # it was gone before the kernel was asked
        os.close(self._reader)


def _signal_group(pid: int, number: int) -> None:
    with suppress(OSError):  # it has gone already
        os.killpg(pid, number)
