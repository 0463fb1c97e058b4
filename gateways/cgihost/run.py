"""One run of one script: its body goes in, its answer and its complaints come out, at the same time.

One loop waits for whichever is ready, so that a script may write while it reads, in any order and
any amount, and nobody waits for nobody.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache

from gateways.cgi import ClientConnection
from gateways.cgihost.body import Body
from gateways.cgihost.complaints import Complaints
from gateways.cgihost.process import Process
from gateways.cgihost.settings import Settings
from gateways.errors import RequestAborted
from gateways.events import EndOfRequest, RequestBody

PIECE_SIZE = 65536

LINGER = 0.1
"""Seconds that the end of an answer waits for the exit of a script that has closed its output."""

PROMPT_SECONDS = 0.02
"""How long whoever ends a script waits for it before a thread of its own does."""

STARVED_SECONDS = 0.05
"""How long the output of a script may wait at a time while more of the request's body is awaited."""

ORPHAN_SECONDS = 1.0
"""How long the output may stay silent that a script has left open to another process when it exited."""


class Overdue(Exception):
    """The script took longer than it may; the text says which limit that was."""


class NotStarted(Exception):
    """There is no process, and the OSError is why."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Run:
    """A script under way, and the codec that made its environment.

    `log` takes lines for the log; `over` is called when the process is gone for good, which may be
    after `close`.  `peer` is a descriptor whose hang-up tells that the visitor has gone, -1 where
    there is none.  Raises NotStarted, and then `over` is never called.
    """

    def __init__(
        self,
        connection: ClientConnection,
        command: list[bytes],
        folder: bytes,
        body: Body,
        settings: Settings,
        log: Callable[[str], None],
        over: Callable[[], None],
        peer: int,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._body = body
        self.log = log
        self._over = over
        self._peer = peer
        self._complaints = Complaints(log)
        self._unsent = memoryview(b"")
        self._exited = self._closed = self._starved = False
        self._status: int | None = None
        self._silence = float("inf")
        self._start(command, connection.environment, folder)
        self._deadline = time.monotonic() + settings.time_limit

    def _start(
        self, command: list[bytes], environment: Mapping[bytes, bytes], folder: bytes
    ) -> None:
        theirs: list[int] = []
        ours: list[int] = []
        self._stdin = -1
        try:
            for _ in range(2):
                mine, his = os.pipe()
                ours.append(mine)
                theirs.append(his)
            stdin = self._body.descriptor
            if stdin < 0 and self._body.length:
                stdin, self._stdin = os.pipe()
                theirs.append(stdin)
                ours.append(self._stdin)
                os.set_blocking(self._stdin, False)
            if stdin < 0:
                stdin = _nothing()
            self.process = Process(command, environment, folder, stdin, theirs[0], theirs[1])
        except BaseException as error:
            for descriptor in ours:
                os.close(descriptor)
            if isinstance(error, OSError):
                raise NotStarted(error) from None
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._stdout, self._stderr = ours[:2]
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        self._poll.register(self._stderr, select.POLLIN)
        if self.process.descriptor >= 0:
            self._poll.register(self.process.descriptor, select.POLLIN)
        if self._stdin >= 0:
            self._poll.register(self._stdin, select.POLLOUT)
        if self._peer >= 0:
            self._poll.register(self._peer, 0)  # a hang-up is told unasked

    @property
    def ended(self) -> bool:
        """Whether the script's output has ended."""
        return self._stdout < 0

    def read(self, until: float = float("inf")) -> bytes:
        """Return what the script has written, once there is something, `b""` at the end.

        With `until`, of the monotonic clock, it is `b""` also when nothing has come by then; `ended`
        tells which.  Raises Overdue, RequestAborted when the visitor has gone, and whatever
        wsgi.input raises.
        """
        idle_since = time.monotonic()
        if self._exited:
            self._silence = idle_since + ORPHAN_SECONDS
        while self._stdout >= 0:
            patience = self._patience(idle_since, until)
            if self._starved:
                self._await_body(patience)
                patience = 0
            ready = self._poll.poll(patience)
            data = None
            for descriptor, mask in ready:
                if descriptor == self._stdout:
                    data = os.read(descriptor, PIECE_SIZE)
                elif descriptor == self._stdin:
                    if mask & select.POLLERR:
                        self._close_input()  # the script has closed its end
                    elif self._unsent or self._body.is_ready(0):
                        self._feed()
                    else:
                        self._starved = True
                        self._poll.modify(descriptor, 0)
                        continue
                    idle_since = time.monotonic()
                elif descriptor == self._stderr:
                    self._hear()
                elif descriptor == self._peer:
                    raise RequestAborted("the web server has hung up")
                else:
                    self._note_exit()
            if data:
                return data
            if data is not None:
                self._close_output()
            elif not ready:
                if time.monotonic() >= until:
                    break
                self._look_after()
        return b""

    def finish(self) -> int | None:
        """Return the exit status after the output's end, negative for a signal; None: it runs on."""
        self._close_input()
        if self._status is None and (self._exited or self.process.wait(LINGER)):
            self._reap()
        return self._status

    def close(self, *, complete: bool) -> None:
        """Let go of the script.

        With `complete` all of its answer was taken, and it may run on for what is left of its time;
        otherwise its whole process group is ended.
        """
        if self._closed:
            return
        self._closed = True
        if not complete:
            # Before its pipes are closed, so that it may clean up as it means to.
            self.process.signal(signal.SIGTERM)
        self._close_input()
        self._close_output()
        self._body.close()
        gone = self._status is not None or self.process.wait(0 if complete else PROMPT_SECONDS)
        if gone:
            self._let_go(kill=not complete)
            return
        left = max(0.0, self._deadline - time.monotonic()) if complete else self._settings.grace
        # As many threads as scripts that are given time, which max_running bounds.
        name = f"cgi {self.process.pid}"
        thread = threading.Thread(
            target=self._outlast, args=(left, complete), name=name, daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads may be started
            self._let_go(kill=True)

    def _outlast(self, seconds: float, complete: bool) -> None:
        """Wait for a script that is left alone; end it when its time is over."""
        kill = True
        try:
            if self._hear_until_exit(seconds):
                kill = not complete
            elif complete:
                self.log("it has used up its time after its answer, and is ended")
                self.process.signal(signal.SIGTERM)
                self._hear_until_exit(self._settings.grace)
        finally:
            self._let_go(kill=kill)

    def _let_go(self, *, kill: bool) -> None:
        try:
            if self._status is None:
                if kill:
                    self.process.signal(signal.SIGKILL)
                self._reap()
        finally:
            self._over()

    def _reap(self) -> None:
        self._status = self.process.reap()
        if self._stderr >= 0:
            with suppress(Exception):  # the log's troubles are no reason to keep the script's place
                while self._has_complaint(0) and self._hear():
                    pass
                self._complaints.end()
            self._close_errors()

    def _hear_until_exit(self, seconds: float) -> bool:
        """Read complaints until the script exits; return whether it did so in time."""
        deadline = time.monotonic() + seconds
        while self._stderr >= 0 and not self.process.wait(0):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._has_complaint(min(left, 0.1)):
                with suppress(Exception):  # as in _reap
                    self._hear()
        return self.process.wait(max(0.0, deadline - time.monotonic()))

    def _has_complaint(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._stderr, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def _patience(self, idle_since: float, until: float) -> float | None:
        """Return the milliseconds to wait, until then at most; raise Overdue when a limit has passed."""
        now = time.monotonic()
        if now >= self._deadline:
            raise Overdue(f"it ran for more than {self._settings.time_limit:g} s (time_limit)")
        if now >= idle_since + self._settings.idle_limit:
            raise Overdue(f"it did nothing for {self._settings.idle_limit:g} s (idle_limit)")
        until = min(until, self._deadline, idle_since + self._settings.idle_limit, self._silence)
        if self.process.descriptor < 0 and not self._exited:
            until = min(until, now + 0.1)
        # poll takes no more than 2**31 milliseconds.
        return None if until == float("inf") else min(max(0.0, until - now), 1e6) * 1000 + 1

    def _look_after(self) -> None:
        """Nothing is ready: the script may have exited unseen, or left its output to others."""
        if not self._exited and self.process.descriptor < 0 and self.process.wait(0):
            self._note_exit()
        elif time.monotonic() >= self._silence:
            self.log(
                "it has exited, but a process that it started keeps its output open and silent"
            )
            self._close_output()

    def _note_exit(self) -> None:
        self._exited = True
        self._silence = time.monotonic() + ORPHAN_SECONDS
        if self.process.descriptor >= 0:
            self._poll.unregister(self.process.descriptor)

    def _await_body(self, patience: float | None) -> None:
        """Wait a moment for a body that comes slowly; the script may write meanwhile."""
        if self._stdin < 0:
            self._starved = False
            return
        seconds = STARVED_SECONDS if patience is None else min(STARVED_SECONDS, patience / 1000)
        if self._body.is_ready(seconds):
            self._starved = False
            self._poll.modify(self._stdin, select.POLLOUT)

    def _feed(self) -> None:
        """Write some of the body; one that the script does not want is dropped."""
        if not self._unsent:
            piece = self._body.read()
            self._connection.send(RequestBody(0, piece))
            self._unsent = memoryview(self._connection.data_to_send())
        try:
            self._unsent = self._unsent[os.write(self._stdin, self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._close_input()
            return
        if not self._unsent and not self._body.left:
            self._connection.send(EndOfRequest(0))
            self._close_input()

    def _hear(self) -> bool:
        """Read some of the error output; return whether there may be more."""
        data = os.read(self._stderr, PIECE_SIZE)
        if data:
            self._complaints.feed(data)
        else:
            self._complaints.end()
            self._close_errors()
        return bool(data)

    def _close_input(self) -> None:
        self._stdin = self._close(self._stdin)

    def _close_output(self) -> None:
        self._stdout = self._close(self._stdout)

    def _close_errors(self) -> None:
        self._stderr = self._close(self._stderr)

    def _close(self, descriptor: int) -> int:
        if descriptor >= 0:
            self._poll.unregister(descriptor)
            os.close(descriptor)
        return -1


@cache
def _nothing() -> int:
    """Return /dev/null, the standard input of a request without a body (RFC 3875 §4.2)."""
    return os.open(os.devnull, os.O_RDONLY)
