"""A generation as the master sees it: one template process and the workers that it has forked.

The master signals its child, the template, and no worker: that is for their parent, which is told
to.  Only when a template has been killed does the master reach its workers itself, by the pidfds
that came with the reports of their births; those cannot come to mean another process.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from gateways.errors import ConfigurationError
from gateways.server.channel import FORK, STOP, Message, channel_pair
from gateways.server.listeners import Listener
from gateways.server.log import flush, log, log_exception
from gateways.server.options import Options
from gateways.server.shares import Shares
from gateways.server.template import FAILED, Template, fork
from gateways.server.worker import Application

AT_ONCE_SECONDS = 2.0
"""How long a process that has nothing to finish, or was told to stop at once, gets to end by itself."""

KILL_SECONDS = 5.0
"""How long after graceful_timeout a worker that has not ended by itself is killed."""


class Record:
    """What the master knows of one worker."""

    __slots__ = ("pid", "slot", "born", "pidfd", "ready", "warned_at")

    def __init__(self, pid: int, slot: int, pidfd: int) -> None:
        self.pid = pid
        self.slot = slot
        self.born = time.monotonic()
        self.pidfd = pidfd
        self.ready = False
        self.warned_at = float("-inf")

    def send_signal(self, number: int) -> None:
        """Signal a worker whose template is dead."""
        with suppress(OSError):  # it has ended, or there is no pidfd and its life pipe has to do
            signal.pidfd_send_signal(self.pidfd, number)

    def has_ended(self) -> bool:
        """Return whether a worker whose template is dead has ended."""
        if self.pidfd < 0:
            return False
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        if not poller.poll(0):
            return False
        with suppress(OSError):  # whoever adopts orphans reaps it, unless that is this process
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        return True

    def close(self) -> None:
        """Give the pidfd back."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Generation:
    """One load of the application, from the start of its template to the end of its last worker.

    `pid` is the template's, 0 once it has been reaped; then `workers` are orphans.
    """

    def __init__(self, options: Options) -> None:
        self.pid = 0
        self.deaf = False
        self.workers: dict[int, Record] = {}
        self.loaded = False
        self.ready = False
        self.stopping = False
        self.kill_at = float("inf")
        self.forking = False
        self.born = time.monotonic()
        self.channel, self._theirs = channel_pair()
        self.channel.set_blocking(False)
        # Only the master holds the writing end: its closing tells the workers that they are alone.
        # So it reaches one that was forked when the template was killed, and never reported.
        self._their_life, self._life = os.pipe2(os.O_CLOEXEC)
        try:
            self.shares = Shares(options.workers)
        except OSError:
            os.close(self._their_life)
            os.close(self._life)
            raise
        self._options = options
        self._last_signal = 0
        self._deaf_since = float("inf")

    def start(
        self,
        load: Callable[[], Application],
        listeners: list[Listener],
        on_load_error: Callable[[ConfigurationError], None],
        in_child: Callable[[], None],
    ) -> None:
        """Fork the template; OSError when that cannot be.  `in_child` closes what is the master's."""
        pid = fork()
        if pid == 0:
            status = FAILED
            try:
                signal.set_wakeup_fd(-1)
                in_child()
                self.channel.close()
                os.close(self._life)
                template = Template(
                    self._theirs,
                    self._their_life,
                    self.shares,
                    load,
                    listeners,
                    self._options,
                    on_load_error,
                )
                status = template.run()
            except BaseException:  # it must not run on as a second master
                log_exception("the template process failed")
            finally:
                flush()
                # The application's exit functions are the workers'.
                os._exit(status)
        self.pid = pid
        self._theirs.close()
        os.close(self._their_life)
        self._their_life = -1

    def wants_worker(self) -> bool:
        """Return whether a worker is missing and the template can be told to fork it.

        The first one is started alone: what keeps it from getting ready is told once.
        """
        if not self.loaded or self.stopping or self.forking or not self.pid:
            return False
        return len(self.workers) < (self._options.workers if self.ready else 1)

    def fork_worker(self) -> None:
        """Have the template fork a worker for the first slot that is free."""
        taken = {each.slot for each in self.workers.values()}
        slot = next(each for each in range(self._options.workers) if each not in taken)
        self.forking = True
        self._order(Message(FORK, slot=slot))

    def stop(self, at_once: bool = False, patient: bool = False) -> None:
        """Have all processes of this generation end: after their running requests, or at once.

        With `patient` these have no deadline, until this is called again without.
        """
        at_once = at_once or not self.ready
        self.stopping = True
        self.shares.patient = patient and not at_once
        patience = AT_ONCE_SECONDS if at_once else self._options.graceful_timeout + KILL_SECONDS
        if not self.shares.patient:
            self.kill_at = min(self.kill_at, time.monotonic() + patience)
        if self.pid and not self.loaded:
            # It runs the application's own code.  Should that have chosen to survive this, the
            # order kills it: see template._end_with_other_end.
            os.kill(self.pid, signal.SIGTERM)
        self._signal_workers(signal.SIGQUIT if at_once else signal.SIGTERM)

    def kill_if_due(self, now: float) -> None:
        """Kill what has not ended in its time: first the workers, then the template as well."""
        if self.pid and now >= self._deaf_since + AT_ONCE_SECONDS:
            os.kill(self.pid, signal.SIGKILL)
        if now < self.kill_at:
            return
        self.kill_at = now + AT_ONCE_SECONDS
        if self.workers:
            pids = ", ".join(str(pid) for pid in self.workers)
            log.warning("killing worker %s: told to stop, and has not ended in time", pids)
        if self.pid and (self._last_signal == signal.SIGKILL or not self.loaded):
            os.kill(self.pid, signal.SIGKILL)
        self._signal_workers(signal.SIGKILL)

    def _signal_workers(self, number: int) -> None:
        self._last_signal = number
        if self.pid:
            self._order(Message(STOP, value=number))
            return
        if number != signal.SIGTERM or any(each.pidfd < 0 for each in self.workers.values()):
            # Without pidfds there is no gentler way to reach orphans: they end at once.
            self._end_life()
        for worker in self.workers.values():
            worker.send_signal(number)

    def _order(self, message: Message) -> None:
        with suppress(OSError):  # it is dying, and waitpid will tell; or it hangs, and is killed
            self.channel.send(message)

    def receive(self) -> Message | None:
        """Return what the template reports next, None when there is nothing now."""
        try:
            message = self.channel.receive()
        except BlockingIOError:
            return None
        if message is None:
            # It is ending.  Or the application, while it was imported, has closed all descriptors
            # that it found: then there is no use in it.
            self.deaf = True
            self._deaf_since = min(self._deaf_since, time.monotonic())
        return message

    def on_template_end(self) -> None:
        """The template has been reaped; its workers, if there are any, are orphans."""
        self.pid = 0
        self.forking = False
        self.channel.close()
        if self._last_signal:
            self._signal_workers(self._last_signal)  # it may have died before it passed this on

    def orphans_that_ended(self) -> list[Record]:
        """Return the records of orphans that have ended, or cannot be told to be alive."""
        if self.pid:
            return []
        return [
            each
            for each in self.workers.values()
            if each.has_ended() or (each.pidfd < 0 and self._life < 0)
        ]

    def bury(self, worker: Record) -> None:
        """A worker has ended."""
        del self.workers[worker.pid]
        worker.close()

    def has_ended(self) -> bool:
        """Return whether no process of it is left."""
        return not self.pid and not self.workers

    def close(self) -> None:
        """Give back all descriptors and memory; at the end, and in processes that have no part in it."""
        self.channel.close()
        self._theirs.close()
        self._end_life()
        if self._their_life >= 0:
            os.close(self._their_life)
            self._their_life = -1
        for worker in self.workers.values():
            worker.close()
        self.shares.close()

    def _end_life(self) -> None:
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
