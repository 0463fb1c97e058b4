"""One worker process: its threads, their one epoll, and the main thread that keeps time.

With several threads, those that take events (seats.py says which) wait on the same epoll for one
event each, read, run the application and answer, all by themselves; the main thread takes signals
and once a second looks at deadlines and rates.  With one thread the main thread does everything.

Jobs that the thread at hand cannot run itself (the second request from one read, a request that
arrived while an application was running) go to a queue; an eventfd in the epoll calls a free
thread for each.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from gateways import wsgi
from gateways.server import forks
from gateways.server.backlog import Tails
from gateways.server.connection import BODY_SIZE, Connection
from gateways.server.listeners import Listener
from gateways.server.log import leave, log, log_exception
from gateways.server.options import Options
from gateways.server.protocols import codec_factory
from gateways.server.seats import Seat, Seats
from gateways.server.shares import BUSY, Share
from gateways.server.spool import Spool
from gateways.server.stopping import Stops, graceful_seconds
from gateways.server.watching import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.server.sending import Job, Sending

Application = Callable[..., Iterable[bytes]]

TICK_SECONDS = 1.0
"""How often deadlines and rates are looked at, and how late each may be noticed."""

DRAIN_TICK_SECONDS = 0.1
"""The same while the worker is stopping, so that it ends soon after the last answer."""

JOIN_SECONDS = 0.5
"""How long the end waits for threads that are told to end."""

SHORTEST_TICK_SECONDS = 0.02
"""How often at the most it is looked whether the worker has been idle for long enough to end."""

YIELD_SECONDS = 0.01
"""How long a worker that has more than its share leaves a new connection to the others."""

FOR_EVER = float("inf")

EVENTS_AT_ONCE = 64
"""What one thread alone takes from its epoll; several take one event each."""

BUSY_LOG_SECONDS = 60.0
"""How often at most it is logged that all threads are busy."""

FORK_SECONDS = 1.0
"""How long a fork of the application waits at the most for a connection that is being accepted."""

RESERVE = 64
"""Connections beyond max_connections that are accepted only to be told that there is no room."""

WATCHED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Worker:
    """Serves `application` on `listeners` until told to stop.

    `parent_pipe` ends when the master does, -1 where there is none.  `share` is this worker's
    part in what the workers of a generation tell one another.  `watch` was made before the
    application was loaded.  `due` returns a reason to end, "" where there is none.
    """

    def __init__(
        self,
        application: Application,
        listeners: list[Listener],
        options: Options,
        *,
        parent_pipe: int = -1,
        share: Share | None = None,
        watch: Watch | None = None,
        due: Callable[[], str] | None = None,
    ) -> None:
        self.application = application
        self.options = options
        # "/" mounts the application at the root; without the option the variables decide.
        self.script_name = options.script_name.rstrip("/") if options.script_name else None
        self.crash_log = options.crash_log
        self.environ_base = _environ_base(options, listeners)
        self.spool = Spool(options.spool_size, options.spool_folder)
        self.tails = Tails(options, self.spool)
        self.draining = False
        self.now = time.monotonic()
        """The time of the last tick."""
        self.next_use = itertools.count(1).__next__
        """Numbers the uses of connections, so that it can be told which one was used longest ago."""
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._codecs = {
            listener: codec_factory(listener.address.protocol, options) for listener in listeners
        }
        self._graceful = graceful_seconds(options, listeners)
        self._stops = Stops(listeners)
        self._noted = Stops(listeners)
        self._parent_pipe = parent_pipe
        self._share = share
        self._connections: dict[int, Connection] = {}
        self._ready: deque[Job] = deque()
        self._open_requests = 0
        self._open_lock = threading.Lock()
        self._seats = Seats(self._call)
        self._busy_logged_at = -BUSY_LOG_SECONDS
        self._accepting = False
        self._accept_lock = threading.RLock()
        self._accept_again_at = 0.0
        self._yielded = False
        self._stopped = False
        self._ended = False
        self._end_lock = threading.Lock()
        self._signals: list[int] = []
        self._restore_signals: Callable[[], None] = lambda: None
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signal_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptors = [self._wake, self._stop, *self._signal_pipe]
        self._threads: list[threading.Thread] = []
        self._buffers: deque[bytearray] = deque()
        self._wakes: deque[int] = deque()
        self._drain_until = 0.0
        self._ends_by_itself = False
        self._tick_seconds = TICK_SECONDS
        if options.idle_exit:
            self._tick_seconds = min(max(options.idle_exit, SHORTEST_TICK_SECONDS), TICK_SECONDS)
        self._idle_since = BUSY
        self._last_use = 0
        self._watch = watch
        self._due_to_end = due
        self._watch_failed = False
        self._epoll.register(self._wake, select.EPOLLIN)
        self._epoll.register(self._stop, select.EPOLLIN)
        if share is not None:
            self._epoll.register(share.descriptor, select.EPOLLIN | select.EPOLLET)

    # What the owner calls.

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until stopped; `ready` is called once connections are being accepted.

        Signals are taken only in the main thread; elsewhere call `stop`.
        """
        with forks.held(self):
            self._restore_signals = self._take_signals()
            self._accept_connections(True)
            if self._share is not None:
                self._share.join(time.monotonic())
            ready()
            try:
                if self.options.threads == 1:
                    self._run_alone()
                else:
                    self._run_threads()
            finally:
                self._restore_signals()
                self._shut_down()

    def stop(self) -> None:
        """Stop gracefully; a second call stops at once.  May be called from any thread."""
        with self._end_lock:
            if not self._ended:
                self._signals.append(signal.SIGTERM)
                os.write(self._signal_pipe[1], b"\0")

    # When the application forks.

    def before_fork(self) -> bool:
        """Accept nothing meanwhile: nobody knows yet of a connection that has just come."""
        return self._accept_lock.acquire(timeout=FORK_SECONDS)

    def after_fork(self) -> None:
        """Go on, in the parent."""
        self._accept_lock.release()

    def in_child(self) -> None:
        """Hold no listener and no connection, and take no signals."""
        self._stopped = True
        served = [seat.connection for seat in self._seats if seat.connection is not None]
        known = {each for each in (*served, *self._connections.values()) if not each.closed}
        forks.void([*self._listeners, *(each.descriptor for each in known)])
        for each in known:
            each.disown()
        self._connections.clear()
        self._listeners.clear()
        self._restore_signals()

    # What connections call.

    def submit(self, jobs: Iterable[Job]) -> None:
        """Have free threads run `jobs`."""
        for job in jobs:
            self._ready.append(job)
            os.eventfd_write(self._wake, 1)

    def run_first(self, jobs: list[Job]) -> None:
        """Run the first of `jobs` here, and have free threads run the others."""
        if jobs:
            if len(jobs) > 1:
                self.submit(jobs[1:])
            jobs[0].run()

    def register(self, connection: Connection) -> None:
        """Have the epoll watch a connection, and count it among those that may stay.

        It is registered first: once it is in the dictionary another thread may find it, by a late
        event of a connection that had the same number, and serve and close it.  An edge that
        comes before that is lost, so the connection is to be read to the end afterwards.
        """
        self._epoll.register(connection.descriptor, WATCHED)
        connection.registered = True
        self._connections[connection.descriptor] = connection
        self._count_connections()

    def watch_output(self, connection: Sending, wanted: bool) -> None:
        """Have the epoll report, or no longer report, when a connection takes more bytes."""
        mask = WATCHED | (select.EPOLLOUT if wanted else 0)
        self._epoll.modify(connection.descriptor, mask)

    def forget(self, connection: Connection) -> None:
        """A connection is about to close."""
        self._epoll.unregister(connection.descriptor)
        del self._connections[connection.descriptor]
        self._count_connections()

    def on_closed(self) -> None:
        """A connection may have closed, and its locks are free."""
        few = len(self._connections) < self.options.max_connections
        if few and not self._accepting and not self.draining:
            self._accept_connections(True)

    def count_request(self) -> bool:
        """Count a request that is not answered in one go; return whether that is one too many."""
        with self._open_lock:
            self._open_requests += 1
            return self._open_requests > self.options.max_connections

    def discount_request(self) -> None:
        """A request that was counted is over."""
        with self._open_lock:
            self._open_requests -= 1

    def take_buffer(self) -> bytearray:
        """Return memory for one read of a body, for the caller alone; give it back at once."""
        try:
            return self._buffers.pop()
        except IndexError:
            return bytearray(BODY_SIZE)

    def give_buffer(self, buffer: bytearray) -> None:
        """Take back what `take_buffer` gave; nobody looks at it any more."""
        self._buffers.append(buffer)

    def take_wake(self) -> int:
        """Return an eventfd for the caller alone, to be woken with; give it back in the end."""
        try:
            return self._wakes.pop()
        except IndexError:
            descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._descriptors.append(descriptor)
            return descriptor

    def give_wake(self, descriptor: int) -> None:
        """Take back what `take_wake` gave; nobody wakes it any more."""
        self.clear_wake(descriptor)
        self._wakes.append(descriptor)

    def clear_wake(self, descriptor: int) -> None:
        """Forget wake-ups that have been seen."""
        with suppress(BlockingIOError):  # nobody has called
            os.eventfd_read(descriptor)

    # The loops.

    def _run_threads(self) -> None:
        for number in range(self.options.threads):
            seat = self._seats.add()
            thread = threading.Thread(
                target=self._loop, args=(seat,), name=f"gateways-{number}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # RLimitNPROC counts threads
                self._seats.remove(seat)
                log.error("%s: going on with %d of %d threads", error, number, self.options.threads)
                break
            self._threads.append(thread)
        if not self._threads:
            self._run_alone()
            return
        poller = select.poll()
        poller.register(self._signal_pipe[0], select.POLLIN)
        if self._parent_pipe >= 0:
            poller.register(self._parent_pipe, select.POLLIN)
        try:
            while not self._stopped:
                for descriptor, _ in poller.poll(self._patience() * 1000):
                    self._on_control(descriptor)
                self._tick_when_due()
                self._seats.look(time.monotonic())
        finally:
            self._seats.end()
        os.eventfd_write(self._stop, 1)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            # One that is stuck in an application is left behind.
            thread.join(max(0.0, deadline - time.monotonic()))

    def _loop(self, seat: Seat) -> None:
        while not self._stopped:
            try:
                self._take_events(seat)
            except Exception:  # a thread must outlive whatever is raised in it
                log_exception("internal error; please report it")
            finally:
                seat.connection = None
                self._seats.leave(seat)

    def _take_events(self, seat: Seat) -> None:
        poll = self._epoll.poll
        find = self._connections.get
        seats = self._seats
        while not self._stopped:
            if seats.leader is not seat and not seats.spread:
                seats.stand_by(seat)
                continue
            for descriptor, mask in poll(-1, 1):
                connection = find(descriptor)
                seat.connection = connection
                seat.count += 1
                try:
                    if not seats.watched:
                        seats.watch()
                    if connection is not None:
                        connection.serve(mask)
                    else:
                        self._on_other(descriptor, seat)
                except Exception:
                    self._on_internal_error(connection)
                seat.connection = None

    def _run_alone(self) -> None:
        seat = self._seats.add()
        self._epoll.register(self._signal_pipe[0], select.EPOLLIN)
        if self._parent_pipe >= 0:
            self._epoll.register(self._parent_pipe, select.EPOLLIN)
        poll = self._epoll.poll
        find = self._connections.get
        now = time.monotonic()
        while not self._stopped:
            due = self._due()
            patience = due - now if due > now and not self._ready else 0
            for descriptor, mask in poll(patience, EVENTS_AT_ONCE):
                connection = find(descriptor)
                try:
                    if connection is not None:
                        connection.serve(mask)
                    else:
                        self._on_other(descriptor, seat)
                except Exception:
                    self._on_internal_error(connection)
            now = time.monotonic()
            if now >= due or self._signals:
                self._tick_when_due()

    def _on_internal_error(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.give_up()
        log_exception("internal error; please report it")

    def _on_other(self, descriptor: int, seat: Seat) -> None:
        listener = self._listeners.get(descriptor)
        if listener is not None:
            self._accept(listener, seat)
        elif descriptor == self._wake:
            self._run_ready(seat)
        elif self._share is not None and descriptor == self._share.descriptor:
            self._accept_for_others(seat)
        elif descriptor in (self._signal_pipe[0], self._parent_pipe):
            self._on_control(descriptor)

    def _run_ready(self, seat: Seat) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return  # another thread was called for the same job
        job = self._ready.popleft()
        seat.connection = job.connection
        try:
            job.run()
        finally:
            seat.connection = None

    # Accepting.

    def _accept(self, listener: Listener, seat: Seat) -> bool:
        """Accept one connection and serve it; return false when there is none to accept."""
        # Under the lock, so that several threads together accept no more than max_connections.
        with self._accept_lock:
            if listener.fileno() < 0:
                return False  # whoever began to stop has accepted what there was
            if not (self._accepting or self.draining):
                return False
            if self._share is not None and self._yields(self._share):
                return False
            connection = self._accept_one(listener)
            if connection is None:
                return False
            # Still under the lock: whoever drains the worker sees it here, or waiting in the kernel.
            seat.connection = connection
        try:
            connection.on_accept()
        finally:
            seat.connection = None
        return True

    def _accept_one(self, listener: Listener) -> Connection | None:
        """Accept a connection, None when there is none; one that is not allowed in is closed."""
        while True:
            try:
                accepted = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return None  # another worker was faster, or the peer has gone again
            except OSError as error:
                self._pause_accepting(error)
                return None
            if accepted is not None:
                break
        descriptor, family, peer, local = accepted
        codec = self._codecs[listener]()
        connection = Connection(self, descriptor, family, codec, peer, local)
        most = self.options.max_connections
        if len(self._connections) >= most and not self._make_room():
            connection.overload()
            if len(self._connections) >= most + RESERVE and not self._make_room(new=True):
                self._accept_connections(False)
        return connection

    def _make_room(self, *, new: bool = False) -> bool:
        """Close the idle connection that was used longest ago; return whether there is one.

        The web server opens another when it needs one; who has just connected is waiting.  With
        `new` it may be one that is only about to speak.
        """
        idle = [each for each in list(self._connections.values()) if each.may_go(new)]
        return any(each.evict() for each in sorted(idle, key=lambda each: each.used))

    def _yields(self, share: Share) -> bool:
        """Whether a new connection is left to other workers, which have fewer; see shares.py."""
        if self.draining:
            return False
        now = time.monotonic()
        if not share.over_share(now):
            return False
        share.call_others()
        self._accept_connections(False)
        self._accept_again_at = now + YIELD_SECONDS
        self._yielded = True
        self._call()
        return True

    def _call(self) -> None:
        """Have the main thread look at the time."""
        os.write(self._signal_pipe[1], b"\0")

    def _accept_for_others(self, seat: Seat) -> None:
        """Another worker has called: it has more than its share and leaves a connection to us."""
        share = self._share
        with self._accept_lock:
            if self._yielded and share is not None and not share.over_share(time.monotonic()):
                # What this one was waiting for has happened: it is its turn again.
                self._yielded = False
                self._accept_again_at = 0.0
                self._accept_connections(True)
        for listener in list(self._listeners.values()):
            while self._accept(listener, seat):
                pass

    def _accept_again(self, now: float) -> None:
        """The pause is over."""
        yielded, self._yielded = self._yielded, False
        if yielded and self._share is not None and self._share.over_share(now):
            poller = select.poll()
            for descriptor in self._listeners:
                poller.register(descriptor, select.POLLIN)
            if poller.poll(0):
                self._share.took_anyway(now)  # nobody else came for it
        self._accept_connections(True)

    def _count_connections(self) -> None:
        if self._share is not None:
            self._share.connections = len(self._connections)

    def _pause_accepting(self, error: OSError) -> None:
        # Out of descriptors or memory, most likely; whatever it is, it may pass.
        log.error("cannot accept connections: %s; trying again in a second", error)
        self._accept_again_at = time.monotonic() + TICK_SECONDS
        self._accept_connections(False)

    def _accept_connections(self, accept: bool) -> None:
        """Start or stop accepting; a listener is level-triggered, so pausing means taking it out."""
        with self._accept_lock:
            if accept == self._accepting or (accept and time.monotonic() < self._accept_again_at):
                return
            self._accepting = accept
            for descriptor in self._listeners:
                if accept:
                    self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)
                else:
                    self._epoll.unregister(descriptor)

    # Time, signals and the end.

    def _patience(self) -> float:
        """Return how long the main thread may sleep."""
        now = time.monotonic()
        return max(0.0, min(self._due() - now, self._seats.patience(now)))

    def _due(self) -> float:
        """Return when there is something to do although nothing happens."""
        tick = self._next_tick()
        yielded = self._yielded and not self.draining
        return min(tick, self._accept_again_at) if yielded else tick

    def _next_tick(self) -> float:
        return self.now + (DRAIN_TICK_SECONDS if self.draining else self._tick_seconds)

    def _tick_when_due(self) -> None:
        now = time.monotonic()
        if self._yielded and now >= self._accept_again_at and not self.draining:
            self._accept_again(now)
        if self._signals or now >= self._next_tick():
            self._tick(now)

    def _tick(self, now: float) -> None:
        signals, self._signals = self._signals, []
        for number in signals:
            self._on_signal(number)
        self.now = now
        if self._share is not None:
            self._share.beat(now)
        for connection in list(self._connections.values()):
            connection.check(now)
            if self.draining:
                connection.close_if_idle()
        if self.draining:
            self._check_drained(now)
            return
        full = len(self._connections) >= self.options.max_connections
        if not self._accepting and not full:
            self._accept_connections(True)
        self._log_busy(now)
        if self.options.idle_exit:
            self._look_for_idleness(now)
        if self._watch is not None and not self.draining:
            self._look_for_changes(self._watch)
        if self._due_to_end is not None and not self.draining and (reason := self._due_to_end()):
            self._end(reason, self.options.graceful_timeout)

    def _look_for_idleness(self, now: float) -> None:
        """End, or tell the master, when nothing has been asked for idle_exit seconds."""
        use = self.next_use()
        used = use != self._last_use + 1  # somebody else than this method has counted
        self._last_use = use
        if self._is_busy():
            self._idle_since = BUSY
        elif used or self._idle_since == BUSY:
            self._idle_since = now
        if self._share is not None:
            self._share.be_idle(self._idle_since)
        elif now - self._idle_since >= self.options.idle_exit:
            self._end(f"no request for {self.options.idle_exit:g} s", FOR_EVER)

    def _is_busy(self) -> bool:
        if self._ready or any(seat.connection is not None for seat in self._seats):
            return True
        return not all(each.may_go(True) for each in list(self._connections.values()))

    def _look_for_changes(self, watch: Watch) -> None:
        """End, or tell the master, when the application's files have changed."""
        try:
            changed = watch.changed()
        except Exception:  # the application may have put anything in its place
            if not self._watch_failed:
                log.exception("cannot see whether files have changed; still trying each second")
            self._watch_failed = True
            return
        if not changed:
            return
        if self._share is not None:
            log.info("%s has changed", changed)
            self._share.be_stale(watch.state)
        else:
            self._end(f"{changed} has changed", self.options.graceful_timeout)

    def _end(self, reason: str, graceful: float) -> None:
        """Stop although nobody is about to kill this process; a signal may shorten its time."""
        log.info("%s: ending once running requests are answered", reason)
        self._ends_by_itself = True
        self._drain(graceful)

    def _log_busy(self, now: float) -> None:
        """Say, now and then, when no thread has become free since the last tick."""
        stuck = self._seats and all(
            seat.connection is not None and seat.count == seat.seen for seat in self._seats
        )
        for seat in self._seats:
            seat.seen = seat.count
        if not stuck or now < self._busy_logged_at + BUSY_LOG_SECONDS:
            return
        self._busy_logged_at = now
        doing = [
            what for seat in self._seats if seat.connection for what in seat.connection.activity()
        ]
        log.warning(
            "all %d threads are busy, and have been for a second; new requests wait. They run: %s",
            len(self._seats),
            "; ".join(doing[:16]),
        )

    def _take_signals(self) -> Callable[[], None]:
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        numbers = list(self._stops.numbers)
        if self.options.threads == 1:
            numbers.append(signal.SIGALRM)  # see _note_signal
        before = {number: signal.signal(number, self._note_signal) for number in numbers}
        old_descriptor = signal.set_wakeup_fd(self._signal_pipe[1], warn_on_full_buffer=False)

        def restore() -> None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.set_wakeup_fd(old_descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    def _note_signal(self, number: int, frame: object) -> None:
        self._signals.append(number)
        if self.options.threads > 1 or self._stopped:
            return
        # This thread may be inside an application that never comes back.
        if number == signal.SIGALRM or self._means_at_once(self._noted, number):
            log.warning("stopping at once")
            for listener in self._listeners.values():
                listener.unlink()
            leave(0)
        if self._is_patient():
            return
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, self._graceful + TICK_SECONDS)

    def _is_patient(self) -> bool:
        """Whether the master stops for idleness: a request that came meanwhile is not to suffer."""
        return self._share is not None and self._share.patient

    def _means_at_once(self, stops: Stops, number: int) -> bool:
        # Ctrl-C and systemd signal the workers as well as their master, who passes it on: so to a
        # worker only SIGQUIT, which its master sends when told twice, means "at once".
        at_once = stops.means_at_once(number)
        return number == signal.SIGQUIT or (at_once and self._parent_pipe < 0)

    def _on_control(self, descriptor: int) -> None:
        if descriptor == self._signal_pipe[0]:
            os.read(descriptor, 4096)
        else:
            log.error("the master process is gone; stopping")
            self._stopped = True

    def _on_signal(self, number: int) -> None:
        if self._means_at_once(self._stops, number):
            log.warning("stopping at once")
            self._stopped = True
        elif self._ends_by_itself and not self._is_patient():
            # It is told for the first time, and has less time now.
            self._ends_by_itself = False
            self._drain_until = min(self._drain_until, time.monotonic() + self._graceful)
        if self.draining or self._stopped:
            return
        if self._is_patient():
            self._end("the master stops", FOR_EVER)
            return
        log.info("%s: stopping once running requests are answered", signal.Signals(number).name)
        self._drain()

    def _drain(self, graceful: float | None = None) -> None:
        patience = self._graceful if graceful is None else graceful
        self._drain_until = time.monotonic() + patience
        self._accept_connections(False)
        if self._parent_pipe < 0:  # otherwise the others go on
            for listener in self._listeners.values():
                listener.refuse()
        self.draining = True
        if self._share is not None:
            self._share.leave()
        # Connections that the kernel has taken for us would be reset if the listener were closed
        # over them.
        with self._accept_lock:
            for listener in self._listeners.values():
                while (connection := self._accept_one(listener)) is not None:
                    connection.enrol()
                    self.submit(connection.pump(to_the_end=True))
            # Who connects from now on is to find out, and to go elsewhere.
            for listener in self._listeners.values():
                listener.close()
            self._listeners.clear()
        for connection in list(self._connections.values()):
            connection.close_if_idle()

    def _check_drained(self, now: float) -> None:
        busy = any(seat.connection is not None for seat in self._seats)
        if not self._connections and not self._ready and not busy:
            self._stopped = True
        elif now >= self._drain_until:
            log.warning(
                "stopping although %d connections are open: graceful_timeout is over",
                len(self._connections),
            )
            self._stopped = True

    def _shut_down(self) -> None:
        for listener in self._listeners.values():
            listener.unlink()
            listener.close()
        for connection in list(self._connections.values()):
            connection.give_up()
        if not any(thread.is_alive() for thread in self._threads):
            for connection in self._connections.values():
                connection.abandon()
            with self._end_lock:
                self._ended = True
                self._epoll.close()
                for descriptor in self._descriptors:
                    os.close(descriptor)


def _environ_base(options: Options, listeners: list[Listener]) -> dict[str, object]:
    inherited = any(listener.inherited for listener in listeners)
    return {
        "wsgi.version": (1, 0),
        "wsgi.multithread": options.threads > 1,
        # On an inherited descriptor, the process manager may have started any number of us.
        "wsgi.multiprocess": options.workers > 1 or inherited,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": wsgi.FileWrapper,
    }
