"""The master process: it opens the listeners, watches over the workers and takes the signals.

It never parses a request and never imports the application: each worker loads it after the fork,
so what the application opens (database connections, threads) belongs to one process.

The first worker is started alone.  Only when it has loaded the application are the others
started, so that an application that cannot be loaded says so once.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from gateways.errors import ConfigurationError
from gateways.server.listeners import Listener
from gateways.server.log import flush, leave, log
from gateways.server.options import Options
from gateways.server.worker import Application, Worker

CANNOT_LOAD = 3
"""A worker's exit status when the application cannot be loaded; it has said why."""

SHORT_LIFE = 2.0
"""Seconds.  A worker that dies younger than this is replaced after a pause that doubles each time."""

LONGEST_PAUSE = 10.0

TICK_SECONDS = 1.0

KILL_SECONDS = 5.0
"""How long after graceful_timeout a worker that has not ended by itself is killed."""

AT_ONCE_SECONDS = 2.0
"""The same, for a stop at once."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Master:
    """Keeps `options.workers` processes running on `listeners`."""

    def __init__(
        self,
        load: Callable[[], Application],
        listeners: list[Listener],
        options: Options,
        on_load_error: Callable[[ConfigurationError], None],
        announce: Callable[[], None],
    ) -> None:
        self._load = load
        self._listeners = listeners
        self._options = options
        self._on_load_error = on_load_error
        self._announce = announce
        self._announced = False
        self._born: dict[int, float] = {}
        self._retiring: set[int] = set()
        self._ready = False
        self._stopping = False
        self._failed = False
        self._kill_at = float("inf")
        self._pause = 0.0
        self._not_before = 0.0
        self._signals: list[int] = []
        self._signal_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ready_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller = select.poll()
        # Only the master holds the writing end: its closing tells the workers that they are alone.
        self._life_pipe = os.pipe2(os.O_CLOEXEC)

    def run(self) -> bool:
        """Serve until stopped.  Return false when the application could not be loaded."""
        handled = [*STOPPING, signal.SIGHUP, signal.SIGCHLD]
        if any(listener.inherited for listener in self._listeners):
            handled.append(signal.SIGUSR1)  # multiwatch stops its children with this one
        before = {number: signal.signal(number, self._note) for number in handled}
        old_descriptor = signal.set_wakeup_fd(self._signal_pipe[1], warn_on_full_buffer=False)
        try:
            self._supervise()
        finally:
            signal.set_wakeup_fd(old_descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)
            for listener in self._listeners:
                listener.unlink()
                listener.close()
        return not self._failed

    def _note(self, number: int, frame: object) -> None:
        self._signals.append(number)

    def _supervise(self) -> None:
        self._poller.register(self._signal_pipe[0], select.POLLIN)
        self._poller.register(self._ready_pipe[0], select.POLLIN)
        while self._born or not self._stopping:
            self._start_missing()
            for descriptor, _ in self._poller.poll(TICK_SECONDS * 1000):
                os.read(descriptor, 4096)
                if descriptor == self._ready_pipe[0] and not self._ready:
                    self._on_ready()
            signals, self._signals = self._signals, []
            for number in signals:
                self._on_signal(number)
            self._bury()
            if self._stopping and time.monotonic() >= self._kill_at:
                for pid in self._born:
                    _kill(pid, signal.SIGKILL)

    def _start_missing(self) -> None:
        wanted = self._options.workers if self._ready else 1
        while (
            not self._stopping
            and len(self._born) - len(self._retiring) < wanted
            and time.monotonic() >= self._not_before
        ):
            self._start_one()

    def _start_one(self) -> None:
        flush()
        # The interpreter forgets signals that reach a child before it runs its first line.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            self._pause_forking()
            log.error("cannot start a worker: %s; trying again in %.1f s", error, self._pause)
            return
        if pid == 0:
            status = 70  # EX_SOFTWARE, unless the worker gets to say better
            try:
                status = self._be_worker()
            except BaseException:  # it must not run on as a second master
                log.exception("the worker failed")
            finally:
                leave(status)
        self._born[pid] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _be_worker(self) -> int:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # While it loads the application there is nothing to finish: a stop ends the worker at once.
        for number in (signal.SIGCHLD, *STOPPING):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        os.close(self._life_pipe[1])
        try:
            application = self._load()
        except ConfigurationError as error:
            self._on_load_error(error)
            return CANNOT_LOAD
        worker = Worker(application, self._listeners, self._options, parent_pipe=self._life_pipe[0])
        worker.run(self._tell_ready)
        return 0

    def _tell_ready(self) -> None:
        log.info("worker ready")
        os.write(self._ready_pipe[1], b"R")

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGHUP:
            if not self._stopping:
                self._replace_workers()
            return
        at_once = self._stopping or number == signal.SIGQUIT
        if at_once:
            log.warning("stopping at once")
        else:
            name = signal.Signals(number).name
            log.info("%s: stopping once running requests are answered", name)
        self._stopping = True
        patience = AT_ONCE_SECONDS if at_once else self._options.graceful_timeout + KILL_SECONDS
        self._kill_at = time.monotonic() + patience
        for listener in self._listeners:
            listener.unlink()
            listener.close()
        for pid in self._born:
            _kill(pid, signal.SIGQUIT if at_once else signal.SIGTERM)

    def _replace_workers(self) -> None:
        """Start new workers, which load the application anew; the old ones finish once that worked."""
        log.info("SIGHUP: replacing the workers")
        self._retiring.update(self._born)
        self._ready = False
        # A pipe of its own tells this generation's readiness from what the last one has to say.
        self._poller.unregister(self._ready_pipe[0])
        os.close(self._ready_pipe[0])
        os.close(self._ready_pipe[1])
        self._ready_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller.register(self._ready_pipe[0], select.POLLIN)

    def _on_ready(self) -> None:
        """The first worker of a generation serves: the others may start, the last one's may go."""
        self._ready = True
        self._pause = 0.0
        if not self._announced:
            self._announced = True
            self._announce()
        for pid in self._retiring:
            _kill(pid, signal.SIGTERM)

    def _bury(self) -> None:
        while self._born:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            born = self._born.pop(pid, None)
            if born is None:
                continue  # a process that the master's own program started
            if pid in self._retiring:
                self._retiring.discard(pid)
            elif not self._stopping:
                self._on_death(pid, status, time.monotonic() - born)

    def _on_load_failure(self) -> None:
        if not self._retiring:
            self._failed = self._stopping = True
            return
        log.error("the application cannot be loaded any more; the old workers go on")
        self._retiring.clear()
        self._ready = True

    def _pause_forking(self) -> None:
        self._pause = min(max(0.1, self._pause * 2), LONGEST_PAUSE)
        self._not_before = time.monotonic() + self._pause

    def _on_death(self, pid: int, status: int, age: float) -> None:
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with {code}"
        if not self._ready and (code == CANNOT_LOAD or not self._announced):
            if code != CANNOT_LOAD:
                log.error("worker %d %s while it loaded the application", pid, how)
            self._on_load_failure()
            return
        if age < SHORT_LIFE:
            self._pause_forking()
        else:
            self._pause = 0.0
        after = f" in {self._pause:.1f} s" if self._pause else ""
        log.error("worker %d %s; starting another%s", pid, how, after)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself, and waitpid will tell
        os.kill(pid, number)
