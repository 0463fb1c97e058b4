"""The master process: it opens the listeners, watches over the others and takes the signals.

It never parses a request and never imports the application.  Each generation of the application
(the start, each reload) has a template process that does, and that forks the workers; see
`template.py`.  A new generation takes over when its first worker is ready, and the old one then
finishes what it has begun; so a reload that fails changes nothing.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator

from gateways.errors import ConfigurationError
from gateways.server.channel import BORN, DIED, LOADED, NOT_BORN, READY, Message
from gateways.server.generation import Generation, Record
from gateways.server.listeners import Listener
from gateways.server.log import log
from gateways.server.options import Options
from gateways.server.stopping import Stops
from gateways.server.template import CANNOT_LOAD, refuse_threads
from gateways.server.worker import Application

SHORT_LIFE = 2.0
"""Seconds.  A process that dies younger than this is replaced after a pause that doubles each time."""

FIRST_PAUSE = 0.1

LONGEST_PAUSE = 10.0

TICK_SECONDS = 1.0

ORPHAN_TICK_SECONDS = 0.1
"""How often workers without a template are looked at: no signal tells of their deaths."""

WATCHDOG_SECONDS = 60.0
"""How long a worker may be silent before that is logged, and how often it is logged."""


WHILE_LOADING = "while it loaded the application"


class Pause:
    """The wait before the next attempt of what has just failed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.until = 0.0

    def lengthen(self) -> None:
        """It has failed again."""
        self.seconds = min(max(FIRST_PAUSE, self.seconds * 2), LONGEST_PAUSE)
        self.until = time.monotonic() + self.seconds

    def forget(self) -> None:
        """It has worked."""
        self.seconds = self.until = 0.0

    def words(self) -> str:
        """Return what a log line says of it."""
        return f" in {self.seconds:.1f} s" if self.seconds else ""


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
        self._next: Generation | None = None
        self._current: Generation | None = None
        self._retired: list[Generation] = []
        self._wants_anew = True
        self._stopping = False
        self._patient = False
        self._failed = False
        self._worker_pause = Pause()
        self._template_pause = Pause()
        self._signals: list[int] = []
        self._stops = Stops(listeners)
        self._signal_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> bool:
        """Serve until stopped.  Return false when the application could not be loaded.

        Raises ConfigurationError when this process has other threads.
        """
        refuse_threads(
            "this program has threads",
            "call serve() before they are started, or with workers=1",
        )
        handled = [*self._stops.numbers, signal.SIGHUP, signal.SIGCHLD]
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
            self._close()
        return not self._failed

    def _note(self, number: int, frame: object) -> None:
        self._signals.append(number)

    def _close(self) -> None:
        """Give back what is this process's alone; also for a template that has just been forked."""
        for generation in self._generations():
            if generation is not self._next:
                generation.close()
        for descriptor in self._signal_pipe:
            os.close(descriptor)

    def _generations(self) -> Iterator[Generation]:
        yield from [each for each in (self._next, self._current) if each is not None]
        yield from list(self._retired)

    # The loop.

    def _supervise(self) -> None:
        while not self._stopping or any(self._generations()):
            self._start_missing()
            self._wait()
            for generation in self._generations():
                self._listen_to(generation)
            signals, self._signals = self._signals, []
            for number in signals:
                self._on_signal(number)
            self._bury()
            now = time.monotonic()
            self._look_around(now)
            for generation in self._generations():
                generation.kill_if_due(now)
                self._watch(generation, now)

    def _wait(self) -> None:
        poller = select.poll()
        poller.register(self._signal_pipe[0], select.POLLIN)
        for generation in self._generations():
            if generation.pid and not generation.deaf:
                poller.register(generation.channel, select.POLLIN)
        for descriptor, _ in poller.poll(self._patience() * 1000):
            if descriptor == self._signal_pipe[0]:
                os.read(descriptor, 4096)

    def _patience(self) -> float:
        """Return for how long nothing needs to be done unless something happens."""
        if any(each.workers and not each.pid for each in self._generations()):
            return ORPHAN_TICK_SECONDS
        now = time.monotonic()
        due = [self._worker_pause.until, self._template_pause.until]
        due += [each.kill_at for each in self._generations()]
        return min([TICK_SECONDS, *(each - now for each in due if each > now)])

    def _start_missing(self) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        lost = self._current is not None and not self._current.pid
        if (lost or self._wants_anew) and self._next is None and now >= self._template_pause.until:
            self._load_anew()
        for generation in (self._next, self._current):
            if generation and generation.wants_worker() and now >= self._worker_pause.until:
                generation.fork_worker()

    def _load_anew(self) -> None:
        """Start the next generation."""
        try:
            self._next = Generation(self._options)
            self._next.start(self._load, self._listeners, self._on_load_error, self._close)
        except OSError as error:
            if self._next is not None:
                self._next.close()
                self._next = None
            self._template_pause.lengthen()
            log.error(
                "cannot start a process to load the application: %s; trying again%s",
                error.strerror,
                self._template_pause.words(),
            )
        else:
            self._wants_anew = False

    def _retire(self, generation: Generation, at_once: bool = False, patient: bool = False) -> None:
        if generation not in self._retired:
            self._retired.append(generation)
        generation.stop(at_once, patient)

    # What templates report.

    def _listen_to(self, generation: Generation) -> None:
        while generation.pid and not generation.deaf:
            report = generation.receive()
            if report is None:
                return
            self._on_report(generation, report)

    def _on_report(self, generation: Generation, report: Message) -> None:
        if report.kind == LOADED:
            generation.loaded = True
        elif report.kind == BORN:
            generation.forking = False
            worker = Record(report.pid, report.slot, report.descriptor)
            generation.workers[report.pid] = worker
        elif report.kind == NOT_BORN:
            generation.forking = False
            self._worker_pause.lengthen()
            after = self._worker_pause.words()
            log.error("cannot start a worker: %s; trying again%s", os.strerror(report.value), after)
        elif report.kind == READY:
            generation.workers[report.pid].ready = True
            self._on_ready(generation)
        elif report.kind == DIED:
            worker = generation.workers[report.pid]
            generation.bury(worker)
            if not generation.stopping:
                self._on_death(generation, worker, report.value)

    def _on_ready(self, generation: Generation) -> None:
        generation.ready = True
        if generation is not self._next or self._stopping:
            return
        self._next, old = None, self._current
        self._current = generation
        self._worker_pause.forget()
        if not self._announced:
            self._announced = True
            self._announce()
        if old is not None:
            self._retire(old)

    def _on_death(self, generation: Generation, worker: Record, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if generation is self._next:
            if code != CANNOT_LOAD:
                loading = self._options.lazy
                when = WHILE_LOADING if loading else "before it was ready"
                log.error("worker %d %s %s", worker.pid, _how(code), when)
            self._on_failure(generation)
            return
        if time.monotonic() - worker.born < SHORT_LIFE:
            self._worker_pause.lengthen()
        else:
            self._worker_pause.forget()
        after = self._worker_pause.words()
        log.error("worker %d %s; starting another%s", worker.pid, _how(code), after)

    def _on_failure(self, generation: Generation) -> None:
        """The next generation has failed before it had a worker that serves."""
        self._next = None
        self._retire(generation)
        if self._current is None:
            self._failed = self._stopping = True
            return
        log.error("the application cannot be loaded any more; the old workers go on")
        self._template_pause.lengthen()

    # Signals and deaths.

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGHUP:
            if not self._stopping:
                self._reload(signal.Signals(number).name)
            return
        at_once = self._stops.means_at_once(number) or self._failed
        if self._stopping and not at_once and not self._patient:
            return  # repeated by a process manager
        if at_once:
            log.warning("stopping at once")
        else:
            name = signal.Signals(number).name
            log.info("%s: stopping once running requests are answered", name)
        self._stop(at_once)

    def _stop(self, at_once: bool = False, patient: bool = False) -> None:
        self._stopping = True
        self._patient = patient
        for listener in self._listeners:
            listener.refuse()
            listener.close()
        for generation in self._generations():
            # One that was retired before has its deadline already.
            self._retire(generation, at_once, patient and generation is self._current)
        self._next = self._current = None

    def _look_around(self, now: float) -> None:
        """See whether the workers have been idle for long enough, or changed files were seen."""
        current, idle_exit = self._current, self._options.idle_exit
        if current is None or self._stopping:
            return
        if current.shares.take_stale():
            self._reload("files have changed")
        elif idle_exit and self._next is None and current.shares.all_idle_for(now) >= idle_exit:
            log.info("no request for %g s: stopping", idle_exit)
            # A request may have come since the workers looked: it has all its time.
            self._stop(patient=True)

    def _reload(self, reason: str) -> None:
        log.info("%s: replacing the workers", reason)
        if self._next is not None:
            # What it is loading may be out of date, or hang.
            self._retire(self._next)
            self._next = None
        self._wants_anew = True
        self._template_pause.forget()

    def _bury(self) -> None:
        for generation in self._generations():
            for orphan in generation.orphans_that_ended():
                generation.shares.clear(orphan.slot)
                generation.bury(orphan)
                if not generation.stopping:
                    log.error("worker %d has ended", orphan.pid)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for generation in self._generations():
                if generation.pid == pid:
                    self._on_template_end(generation, status)
        for generation in list(self._retired):
            if generation.has_ended():
                generation.close()
                self._retired.remove(generation)

    def _on_template_end(self, generation: Generation, status: int) -> None:
        self._listen_to(generation)  # what it reported before it died comes first
        pid = generation.pid
        generation.on_template_end()
        code = os.waitstatus_to_exitcode(status)
        if generation.stopping:
            return
        if generation is self._next:
            if code != CANNOT_LOAD:
                loaded = generation.loaded
                when = "before its first worker was ready" if loaded else WHILE_LOADING
                log.error("template process %d %s %s", pid, _how(code), when)
            self._on_failure(generation)
            return
        if time.monotonic() - generation.born < SHORT_LIFE:
            self._template_pause.lengthen()
        else:
            self._template_pause.forget()
        log.error(
            "template process %d %s; its workers go on until the application is loaded anew",
            pid,
            _how(code),
        )

    def _watch(self, generation: Generation, now: float) -> None:
        """Log which workers have not come round to their loops for a while."""
        for worker in generation.workers.values():
            silence = generation.shares.silence(worker.slot, now)
            if silence < WATCHDOG_SECONDS or now - worker.warned_at < WATCHDOG_SECONDS:
                continue
            worker.warned_at = now
            if self._options.threads == 1:
                log.warning(
                    "worker %d has been in one request for %d s and answers no other;"
                    " where requests may take so long, give it more --threads",
                    worker.pid,
                    silence,
                )
            else:
                log.warning(
                    "worker %d has not run its timer for %d s: something in the application holds"
                    " the interpreter's lock, or the process is stopped",
                    worker.pid,
                    silence,
                )


def _how(code: int) -> str:
    return f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
