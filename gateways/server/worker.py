"""One worker process: its threads, their one epoll, and the main thread that keeps time.

With several threads, each of them waits on the same epoll for one event, reads, runs the
application and answers, all by itself; the main thread takes signals and once a second cuts off
connections whose deadline has passed.  With one thread the main thread does everything.

Jobs that the thread at hand cannot run itself (the second request from one read, a request that
arrived while an application was running) go to a queue; an eventfd in the epoll calls a free
thread for each.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from gateways import wsgi
from gateways.server.connection import Connection, Job
from gateways.server.listeners import Listener
from gateways.server.log import leave, log
from gateways.server.options import Options
from gateways.server.protocols import new_codec

Application = Callable[..., Iterable[bytes]]

TICK_SECONDS = 1.0
"""How often deadlines are looked at, and how late each may be noticed."""

JOIN_SECONDS = 0.5
"""How long the end waits for threads that are told to end."""

WATCHED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Worker:
    """Serves `application` on `listeners` until told to stop."""

    def __init__(
        self,
        application: Application,
        listeners: list[Listener],
        options: Options,
        *,
        parent_pipe: int = -1,
    ) -> None:
        self.application = application
        self.options = options
        # "/" mounts the application at the root; without the option the variables decide.
        self.script_name = options.script_name.rstrip("/") if options.script_name else None
        self.environ_base = _environ_base(options, listeners)
        self.draining = False
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._graceful = min(
            options.graceful_timeout,
            7.0 if any(listener.inherited for listener in listeners) else float("inf"),
        )
        self._parent_pipe = parent_pipe
        self._connections: dict[int, Connection] = {}
        self._ready: deque[Job] = deque()
        self._busy = 0
        self._busy_lock = threading.Lock()
        self._accepting = False
        self._accept_lock = threading.RLock()
        self._accept_again_at = 0.0
        self._stopped = False
        self._ended = False
        self._end_lock = threading.Lock()
        self._signals: list[int] = []
        self._told = 0
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signal_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptors = [self._wake, self._stop, *self._signal_pipe]
        self._threads: list[threading.Thread] = []
        self._wakes: deque[int] = deque()
        self._drain_until = 0.0
        self._epoll.register(self._wake, select.EPOLLIN)
        self._epoll.register(self._stop, select.EPOLLIN)

    # What the owner calls.

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until stopped; `ready` is called once connections are being accepted.

        Signals are taken only in the main thread; elsewhere call `stop`.
        """
        restore = self._take_signals()
        self._accept_connections(True)
        ready()
        try:
            if self.options.threads == 1:
                self._run_alone()
            else:
                self._run_threads()
        finally:
            restore()
            self._shut_down()

    def stop(self) -> None:
        """Stop gracefully; a second call stops at once.  May be called from any thread."""
        with self._end_lock:
            if not self._ended:
                self._signals.append(signal.SIGTERM)
                os.write(self._signal_pipe[1], b"\0")

    # What connections call.

    def submit(self, jobs: Iterable[Job]) -> None:
        """Have free threads run `jobs`."""
        for job in jobs:
            self._ready.append(job)
            os.eventfd_write(self._wake, 1)

    def watch_output(self, connection: Connection, wanted: bool) -> None:
        """Have the epoll report, or no longer report, when a connection takes more bytes."""
        mask = WATCHED | (select.EPOLLOUT if wanted else 0)
        self._epoll.modify(connection.descriptor, mask)

    def forget(self, connection: Connection) -> None:
        """A connection is about to close."""
        self._epoll.unregister(connection.descriptor)
        del self._connections[connection.descriptor]
        if not self._accepting and not self.draining:
            self._accept_connections(True)

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
            thread = threading.Thread(target=self._loop, name=f"gateways-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        poller = select.poll()
        poller.register(self._signal_pipe[0], select.POLLIN)
        if self._parent_pipe >= 0:
            poller.register(self._parent_pipe, select.POLLIN)
        while not self._stopped:
            for descriptor, _ in poller.poll(TICK_SECONDS * 1000):
                self._on_control(descriptor)
            self._tick()
        os.eventfd_write(self._stop, 1)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            # One that is stuck in an application is left behind.
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run_alone(self) -> None:
        self._epoll.register(self._signal_pipe[0], select.EPOLLIN)
        if self._parent_pipe >= 0:
            self._epoll.register(self._parent_pipe, select.EPOLLIN)
        next_tick = time.monotonic() + TICK_SECONDS
        while not self._stopped:
            self._poll_once(TICK_SECONDS)
            if self._signals or time.monotonic() >= next_tick or self.draining:
                self._tick()
                next_tick = time.monotonic() + TICK_SECONDS

    def _loop(self) -> None:
        while not self._stopped:
            self._poll_once(-1)

    def _poll_once(self, timeout: float) -> None:
        for descriptor, mask in self._epoll.poll(timeout, 1):
            connection = self._connections.get(descriptor)
            try:
                self._handle(descriptor, mask, connection)
            except Exception:
                log.exception("internal error; please report it")
                if connection is not None:
                    connection.give_up()

    def _handle(self, descriptor: int, mask: int, connection: Connection | None) -> None:
        if connection is not None:
            self._run_first(connection.on_event(mask))
        elif descriptor in self._listeners:
            self._run_first(self._accept(self._listeners[descriptor]) or [])
        elif descriptor == self._wake:
            self._run_ready()
        elif descriptor in (self._signal_pipe[0], self._parent_pipe):
            self._on_control(descriptor)

    def _run_first(self, jobs: list[Job]) -> None:
        if jobs:
            self.submit(jobs[1:])
            self._run_job(jobs[0])

    def _run_ready(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return  # another thread was called for the same job
        self._run_job(self._ready.popleft())

    def _run_job(self, job: Job) -> None:
        with self._busy_lock:
            self._busy += 1
        try:
            job()
        finally:
            with self._busy_lock:
                self._busy -= 1

    # Accepting.

    def _accept(self, listener: Listener) -> list[Job] | None:
        """Accept one connection; return the jobs that it brings, None when there is none to accept."""
        # Under the lock, so that several threads together accept no more than max_connections.
        with self._accept_lock:
            if not (self._accepting or self.draining):
                return None
            try:
                accepted = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return None  # another worker was faster, or the peer has gone again
            except OSError as error:
                self._pause_accepting(error)
                return None
            if accepted is None:
                return []  # the peer is not in --allow, and was sent away
            sock, peer, local = accepted
            codec = new_codec(listener.address.protocol, self.options)
            connection = Connection(self, sock, codec, peer, local)
            # Registered first: once it is in the dictionary another thread may find it, by a late
            # event of a connection that had the same number, and serve and close it.  An edge that
            # comes before that is lost, so the pump below reads to the end.
            self._epoll.register(connection.descriptor, WATCHED)
            self._connections[connection.descriptor] = connection
            if len(self._connections) >= self.options.max_connections:
                self._accept_connections(False)
        return connection.pump(to_the_end=True)

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

    def _tick(self) -> None:
        signals, self._signals = self._signals, []
        for number in signals:
            self._on_signal(number)
        now = time.monotonic()
        for connection in list(self._connections.values()):
            if 0 < connection.deadline <= now:
                connection.deadline = 0.0
                connection.expire()
            elif self.draining:
                connection.close_if_idle()
        if self.draining:
            self._check_drained(now)
        elif not self._accepting and len(self._connections) < self.options.max_connections:
            self._accept_connections(True)

    def _take_signals(self) -> Callable[[], None]:
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
        if self.options.threads == 1:
            numbers.append(signal.SIGALRM)  # see _note_signal
        if any(listener.inherited for listener in self._listeners.values()):
            numbers.append(signal.SIGUSR1)  # multiwatch stops its children with this one
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
        self._told += 1
        if number == signal.SIGALRM or number == signal.SIGQUIT or self._told_twice():
            log.warning("stopping at once")
            for listener in self._listeners.values():
                listener.unlink()
            leave(0)
        signal.setitimer(signal.ITIMER_REAL, self._graceful + TICK_SECONDS)

    def _told_twice(self) -> bool:
        return self._told > 1 and self._parent_pipe < 0

    def _on_control(self, descriptor: int) -> None:
        if descriptor == self._signal_pipe[0]:
            os.read(descriptor, 4096)
        else:
            log.error("the master process is gone; stopping")
            self._stopped = True

    def _on_signal(self, number: int) -> None:
        if self.draining or number == signal.SIGQUIT:
            # Ctrl-C and systemd signal the workers as well as their master, who passes it on: so
            # to a worker only SIGQUIT, which its master sends when told twice, means "at once".
            if number == signal.SIGQUIT or self._parent_pipe < 0:
                log.warning("stopping at once")
                self._stopped = True
            return
        log.info("%s: stopping once running requests are answered", signal.Signals(number).name)
        self._drain()

    def _drain(self) -> None:
        self._drain_until = time.monotonic() + self._graceful
        self._accept_connections(False)
        for listener in self._listeners.values():
            listener.unlink()
        self.draining = True
        # Connections that the kernel has taken for us would be reset if the listener were closed
        # over them.
        for listener in self._listeners.values():
            while (jobs := self._accept(listener)) is not None:
                self.submit(jobs)
        # Who connects from now on is to find out, and to go elsewhere.
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections.values()):
            connection.close_if_idle()

    def _check_drained(self, now: float) -> None:
        if not self._connections and not self._ready and not self._busy:
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
                connection.sock.close()
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
