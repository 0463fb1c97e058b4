"""The helper processes that keep a script warm: how they are started, asked, replaced and ended.

A request goes to a helper as four descriptors over its socket; program/, which is what a helper
runs, says what passes on them.  Before a helper has said that it begins, the request may go to
another one, so that a helper that was killed, or that has outlived the script's files, costs
nobody an answer; afterwards it may not, since a script must not run twice.

Whoever holds the application holds the helpers' sockets; helpers end when these do.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

from gateways.cgihost.process import Process
from gateways.errors import ApplicationError, RequestAborted
from gateways.pycgi import program
from gateways.pycgi.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PROGRAM = os.path.join(os.path.dirname(program.__file__), "__main__.py")

PIECE = 65536
"""Bytes that are read at once of what a script writes."""

ATTEMPTS = 5
"""Helpers that one request may be offered to."""

ORPHAN_SECONDS = 1.0
"""How long the output may stay silent that a script has left open to another process when it exited."""

CLOSED_SECONDS = 1.0
"""How long a script whose output has ended is waited for, to see whether it failed."""

START_SECONDS = 30.0
"""How long a helper that forks may leave requests unheard, while it imports modules for example.

One that has done so when a request runs out of time hangs, and is replaced.
"""

END_SECONDS = 1.0
"""How long `close` waits for helpers that have nothing to do any more."""


class HelperGone(Exception):
    """The helper has ended, or refused, before it began; another one may be asked."""


class Busy(Exception):
    """All helpers are busy and stay so, or as many scripts run as may; the text says which."""


class TooSlow(Exception):
    """The script has used up its time; the text says which limit that was."""


class Helper:
    """One helper process."""

    def __init__(self, command: list[str], environment: dict[bytes, bytes], folder: bytes) -> None:
        """Start it.  Raises ApplicationError where the interpreter cannot be run."""
        ours, theirs = socket.socketpair()
        words = [str(theirs.fileno()) if each == "%" else each for each in command]
        nothing = os.open(os.devnull, os.O_RDWR)
        streams = (nothing, nothing, 2 if _is_open(2) else nothing)
        try:
            # In a group of its own, so that it can be ended with what it has started, and ^C does
            # not reach it.
            arguments = [os.fsencode(each) for each in words]
            self.process = Process(arguments, environment, folder, *streams, (theirs.fileno(),))
        except OSError as error:
            ours.close()
            raise ApplicationError(f"{command[0]} could not be started: {error}") from error
        finally:
            theirs.close()
            os.close(nothing)
        self.sock = ours
        self._status: int | None = None
        self._unheard_since = float("inf")

    def ask(self, descriptors: list[int], request: bytes) -> socket.socket:
        """Hand a request over; return its control socket.  HelperGone where the process is."""
        control, theirs = socket.socketpair()
        self._unheard_since = min(self._unheard_since, time.monotonic())
        try:
            with theirs:
                control.settimeout(60.0)
                fits = len(request) <= 32768
                if fits:
                    control.sendall(request)  # before anybody reads, so it may not fill the socket
                socket.send_fds(self.sock, [b"Q"], [*descriptors, theirs.fileno()])
            if not fits:
                control.sendall(request)
        except OSError as error:
            control.close()
            raise HelperGone from error
        return control

    def heard(self) -> None:
        """Note that it has answered a request, whatever it said."""
        self._unheard_since = float("inf")

    def hangs(self) -> bool:
        """Whether requests have waited for its first word for too long."""
        return time.monotonic() >= self._unheard_since + START_SECONDS

    def fate(self) -> tuple[bytes, int]:
        """Return how it ended, now that it has said nothing more.

        A script that it ran itself may have called os._exit.
        """
        if not self.has_ended(END_SECONDS):
            return program.SIGNALLED, 0
        status = self._status or 0
        return (program.EXITED, status) if status >= 0 else (program.SIGNALLED, -status)

    def has_ended(self, seconds: float) -> bool:
        """Return whether it has ended, after at most so long; it is reaped then.

        What a helper that was killed has started is ended too: nobody else would do it.
        """
        if self._status is None and self.process.wait(seconds):
            how = os.WEXITED | os.WNOWAIT | os.WNOHANG
            # Where SIGCHLD is ignored nobody can say, and the number may be another's by now.
            with suppress(ChildProcessError):
                found = os.waitid(os.P_PID, self.process.pid, how)
                if found is not None and found.si_code != os.CLD_EXITED:
                    self.kill()
            self._status = self.process.reap()
        return self._status is not None

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        self.process.signal(signal.SIGKILL)


class Pool:
    """The helpers of one script in this process.

    A forking helper is one for all requests; those that run the script themselves are up to
    `processes`, each for one request at a time.
    """

    def __init__(self, start: Callable[[], Helper], processes: int, *, shared: bool) -> None:
        self._start = start
        self._most = processes
        self.shared = shared
        self._changed = threading.Condition()
        self._idle: list[Helper] = []
        self._busy: set[Helper] = set()
        self._retired: list[Helper] = []
        self._starting = 0
        self._owner = os.getpid()

    def take(self, patience: float) -> Helper:
        """Return a helper for one request, after at most `patience` seconds; Busy where none is free."""
        deadline = time.monotonic() + patience
        with self._changed:
            if self._owner != os.getpid():
                # This is a fork; the helpers are those of the process that it came from.
                self._idle, self._busy, self._retired = [], set(), []
                self._starting, self._owner = 0, os.getpid()
            while True:
                self._reap()
                if self._idle:
                    helper = self._idle[-1] if self.shared else self._idle.pop()
                    self._busy.add(helper)
                    return helper
                if self._starting + (0 if self.shared else len(self._busy)) < self._most:
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Busy(
                        f"all {self._most} processes stay busy for {patience:g} s (processes)"
                    )
                self._changed.wait(left)
            self._starting += 1
        started: Helper | None = None
        try:
            started = self._start()
        finally:
            with self._changed:
                self._starting -= 1
                if started is not None:
                    self._busy.add(started)
                    if self.shared:
                        self._idle.append(started)
                self._changed.notify_all()
        return started

    def give(self, helper: Helper) -> None:
        """Take back a helper that can serve again."""
        with self._changed:
            if helper in self._busy and not self.shared:
                self._busy.discard(helper)
                self._idle.append(helper)
                self._changed.notify()

    def drop(self, helper: Helper) -> None:
        """Take back one that is not to be asked again.  Requests that it has begun go on."""
        with self._changed:
            if helper in self._idle:
                self._idle.remove(helper)
            if helper in self._busy:
                self._busy.discard(helper)
                self._retired.append(helper)
                helper.sock.close()
            self._changed.notify()

    def close(self) -> None:
        """End all helpers; wait a moment for those that have nothing to do."""
        if self._owner != os.getpid():
            return
        with self._changed:
            for helper in {*self._idle, *self._busy}:
                helper.sock.close()
                self._retired.append(helper)
            self._idle, self._busy = [], set()
            deadline = time.monotonic() + END_SECONDS
            for helper in self._retired:
                if not helper.has_ended(max(0.0, deadline - time.monotonic())):
                    helper.kill()
                    helper.has_ended(END_SECONDS)
            self._retired = []

    def processes(self) -> list[int]:
        """Return the process ids of the helpers that may be asked."""
        with self._changed:
            return [helper.process.pid for helper in {*self._idle, *self._busy}]

    def _reap(self) -> None:
        self._retired = [each for each in self._retired if not each.has_ended(0)]


class Run:
    """One run of the script: its output as it comes, and how it ended.

    `log` is given what it writes to stderr.  `peer` is a descriptor whose hang-up tells that the
    visitor has gone, -1 where there is none.
    """

    def __init__(
        self,
        pool: Pool,
        stdin: int,
        request: bytes,
        log: Callable[[bytes], None],
        settings: Settings,
        patience: float,
        peer: int,
    ) -> None:
        """Start it.  Raises Busy, TooSlow, and ApplicationError where no helper can be had."""
        self.kind = b""
        self.status = 0
        self.orphaned = False
        """Whether it has exited, and another process kept its output open and silent."""
        self._ended = False
        self._pool = pool
        self._log = log
        self._settings = settings
        self._peer = peer
        self._deadline = time.monotonic() + settings.time_limit
        self._ends = self._deadline
        self._idle_since = time.monotonic()
        for _ in range(ATTEMPTS):
            self._helper = pool.take(patience)
            try:
                self._begin(stdin, request)
            except HelperGone:
                self._close()
                pool.drop(self._helper)
            except TooSlow:
                self.end()
                if pool.shared and self._helper.hangs():
                    self._helper.kill()
                    pool.drop(self._helper)
                raise
            except BaseException:
                self.end()
                raise
            else:
                return
        raise ApplicationError(
            f"{ATTEMPTS} helper processes ended before they began; their stderr says why"
        )

    def _begin(self, stdin: int, request: bytes) -> None:
        self._descriptors: list[int] = []
        self._control: socket.socket | None = None
        self._said = b""
        self._stays = False
        self._poller = select.poll()
        self._output, output = self._pipe()
        self._errors, errors = self._pipe()
        self._control = self._helper.ask([stdin, output, errors], request)
        for each in (output, errors):
            self._descriptors.remove(each)
            os.close(each)
        for each in (self._output, self._errors, self._control.fileno()):
            self._poller.register(each, select.POLLIN)
        if self._peer >= 0:
            self._poller.register(self._peer, 0)  # a hang-up is told unasked
        while not self._said:
            self._wait(only=self._control.fileno())

    def _pipe(self) -> tuple[int, int]:
        pair = os.pipe()
        self._descriptors += pair
        return pair

    def read(self) -> bytes:
        """Return the next piece of the output, b"" at its end, when `kind` says how the script ended.

        Raises TooSlow when its time is over, RequestAborted when the visitor has gone.
        """
        self._idle_since = time.monotonic()
        silence = float("inf")
        while self._output >= 0:
            if self.kind:
                silence = min(silence, time.monotonic() + ORPHAN_SECONDS)
            data = self._wait(until=silence)
            if data:
                return data
            if self._output >= 0 and time.monotonic() >= silence:
                self.orphaned = True
                self._output = self._forget(self._output)
        self._await_end()
        # What has been written to stderr by now; a daemon that was left behind may keep it open.
        while self._errors >= 0 and self._errors in self._ready(0):
            self._read_errors()
        return b""

    def _await_end(self) -> None:
        """Wait for the end of a script whose output has ended.

        One that has closed its output and works on, in a process of its own, is left to its helper
        for the rest of its time: its answer is complete.
        """
        until = time.monotonic() + CLOSED_SECONDS if self._pool.shared else float("inf")
        while not self.kind:
            self._wait(until=until)
            if time.monotonic() >= until:
                self.kind = program.EXITED

    def _ready(self, patience: float | None) -> list[int]:
        return [descriptor for descriptor, _ in self._poller.poll(patience)]

    def skip(self, seconds: float) -> None:
        """Read to the end of the output and drop it, for at most so long."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        with suppress(TooSlow):
            while self.read():
                if time.monotonic() >= self._deadline:
                    return

    def _patience(self, until: float) -> float | None:
        """Return the milliseconds to wait, until then at most; raise TooSlow when a limit has passed."""
        now = time.monotonic()
        if now >= self._deadline:
            raise TooSlow(f"it ran for more than {self._settings.time_limit:g} s (time_limit)")
        if now >= self._idle_since + self._settings.idle_limit:
            raise TooSlow(f"it did nothing for {self._settings.idle_limit:g} s (idle_limit)")
        until = min(until, self._deadline, self._idle_since + self._settings.idle_limit)
        # poll takes no more than 2**31 milliseconds.
        return None if until == float("inf") else min(max(0.0, until - now), 1e6) * 1000 + 1

    def _wait(self, only: int = -1, until: float = float("inf")) -> bytes:
        ready = self._ready(self._patience(until))
        if self._peer >= 0 and self._peer in ready:
            self._poller.unregister(self._peer)
            self._peer = -1
            raise RequestAborted("the web server has hung up")
        if self._errors in ready:
            self._read_errors()
        if self._control is not None and self._control.fileno() in ready:
            self._hear(self._control)
        if self._output in ready and only < 0:
            data = os.read(self._output, PIECE)
            if data:
                return data
            self._output = self._forget(self._output)
        return b""

    def _read_errors(self) -> None:
        data = os.read(self._errors, PIECE)
        if data:
            self._log(data)
        else:
            self._errors = self._forget(self._errors)

    def _forget(self, descriptor: int) -> int:
        self._poller.unregister(descriptor)
        self._descriptors.remove(descriptor)
        os.close(descriptor)
        return -1

    def _hear(self, control: socket.socket) -> None:
        try:
            data = control.recv(64)
        except ConnectionResetError:
            data = b""
        self._helper.heard()
        if not self._said and data.startswith(program.FULL):
            raise Busy(f"{self._settings.max_running} scripts are running (max_running)")
        if not self._said and not data.startswith(program.STARTED):
            raise HelperGone
        self._said += data
        if not data:
            self._poller.unregister(control)
            if not self.kind:
                # Where the helper forks, nobody can say whether the answer is complete.
                lost = (program.SIGNALLED, 0)
                self.kind, self.status = lost if self._pool.shared else self._helper.fate()
        elif len(self._said) >= 4 and not self.kind:
            self.kind = self._said[1:2]
            self.status, self._stays = self._said[2], bool(self._said[3])
            self._poller.unregister(control)

    def end(self, *, complete: bool = False) -> None:
        """Let go of everything.  A script that still runs is ended.

        With `complete` no more of its answer is wanted, and in a process of its own it may run on
        for what is left of its time, as one that has closed its output.
        """
        if self._ended:
            return
        self._ended = True
        control = self._control
        if control is None:
            self._close()
            self._pool.give(self._helper)
            return
        over = bool(self.kind) and self._output < 0
        forks = self._pool.shared
        if (over or (complete and forks)) and control.fileno() >= 0:
            left = self._ends - time.monotonic()
            text = b"" if left == float("inf") else b"%d" % max(0, left * 1000)
            with suppress(OSError):  # the helper has gone
                control.send(program.RELEASE + text)
        self._close()
        if forks:
            return  # it ends the script, when it reads the end of the control socket
        if over and self._stays:
            self._pool.give(self._helper)
        else:
            if not over:
                self._helper.kill()
            self._pool.drop(self._helper)

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
        for each in self._descriptors:
            os.close(each)
        self._descriptors = []


def interpreter_command(interpreter: str, mode: str, path: str, arguments: list[str]) -> list[str]:
    """Return a helper's command; `%` stands for its socket's descriptor."""
    return [interpreter or sys.executable, _PROGRAM, mode, path, "%", *arguments]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
