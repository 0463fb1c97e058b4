"""A template process: it loads the application once and forks the workers of one generation.

    master ──fork──▶ template ──fork──▶ worker, worker, worker …
           ◀─reports──       ◀─ready──
           ──orders──▶       ──signals─▶

What the application imported is then in memory once, for all its workers.  The template is their
parent, so it alone reaps them and signals them: a process id cannot come to belong to another
process before its parent has reaped it.  It decides nothing; the master does.

It ends when its master is gone, and after its last worker once it was told to stop.  If it is
killed, its workers go on: they read the life pipe, whose other end only the master holds.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from gateways.errors import ConfigurationError
from gateways.server.channel import (
    BORN,
    DIED,
    FORK,
    LOADED,
    NOT_BORN,
    READY,
    STOP,
    Channel,
    Message,
)
from gateways.server.listeners import Listener
from gateways.server.log import flush, leave, log, log_exception
from gateways.server.options import Options
from gateways.server.shares import Shares
from gateways.server.watching import Watch, watch_for
from gateways.server.worker import Application, Worker

CANNOT_LOAD = 3
"""A template's or worker's exit status when the application cannot be loaded; it has said why."""

FAILED = 70
"""EX_SOFTWARE: our own fault, until the process gets to say better."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

ENDING_SECONDS = 0.5
"""How long threads that are about to end are waited for before a fork is refused."""


def fork() -> int:
    """Fork with the stopping signals blocked in the child, which unblocks them when it is ready.

    The interpreter forgets signals that reach a child before it runs its first line.
    """
    flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    return pid


def let_stops_end_it() -> None:
    """Have the stopping signals end this process at once, those that came meanwhile included."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def refuse_threads(what: str, remedy: str) -> None:
    """Raise ConfigurationError when this process has more than its one thread.

    A forked child has only the thread that forked, and for ever holds the locks that the others
    held at that moment.  Threads of C libraries count: they have locks too.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    while others := _other_threads():
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"{what} running: {others}; a process with threads cannot be forked safely:"
                f" {remedy}"
            )
        time.sleep(0.01)


def _other_threads() -> str:
    """Return words for the threads beside this one, an empty string when there are none."""
    this = threading.current_thread()  # its native_id is still its parent's in Python 3.11
    names = {each.native_id: each.name for each in threading.enumerate() if each is not this}
    try:
        tasks = {int(each) for each in os.listdir("/proc/self/task")}
    except OSError:
        tasks = set()  # no such folder but on Linux: threads of C libraries go unseen
    words = [f'"{name}"' for name in names.values()]
    unknown = len(tasks - names.keys() - {threading.get_native_id()})
    if unknown:
        words.append(f"{unknown} that C code has started")
    return ", ".join(words)


class Template:
    """The process that is the parent of a generation's workers."""

    def __init__(
        self,
        channel: Channel,
        life: int,
        shares: Shares,
        load: Callable[[], Application],
        listeners: list[Listener],
        options: Options,
        on_load_error: Callable[[ConfigurationError], None],
    ) -> None:
        self._channel = channel
        self._life = life
        self._shares = shares
        self._load = load
        self._listeners = listeners
        self._options = options
        self._on_load_error = on_load_error
        self._workers: dict[int, int] = {}
        self._unready: dict[int, socket.socket] = {}
        self._stopping = False
        self._poller = select.poll()
        self._signal_pipe = (-1, -1)
        self._watch: Watch | None = None
        self._handlers: dict[int, signal._HANDLER] = {}

    def run(self) -> int:
        """Load the application and fork workers until told to stop; return the exit status."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        let_stops_end_it()  # while it loads the application there is nothing to finish
        _end_with_other_end(self._channel.fileno(), True)
        if not self._options.lazy:
            self._watch = watch_for(self._options)
            self._load_once()
        self._take_signals()
        _end_with_other_end(self._channel.fileno(), False)
        with suppress(BrokenPipeError, ConnectionResetError):  # the master is gone
            self._supervise()
        return 0

    def _load_once(self) -> None:
        try:
            application = self._load()
            refuse_threads(
                "the application has left threads",
                "start them at the first request, or say --lazy, which loads the application in each worker",
            )
        except ConfigurationError as error:
            self._on_load_error(error)
            leave(CANNOT_LOAD)
        self._load = lambda: application
        # What lives now lives as long as the workers do: the collector need not look at it again,
        # and so does not write to memory that they share.
        gc.collect()
        gc.freeze()

    def _take_signals(self) -> None:
        """Leave stops to the master, who hears of them too; notice workers that end."""
        numbers = [*STOPPING, signal.SIGHUP, signal.SIGCHLD]
        if any(listener.inherited for listener in self._listeners):
            numbers.append(signal.SIGUSR1)
        for number in numbers:
            self._handlers[number] = signal.signal(number, lambda number, frame: None)
        self._signal_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._signal_pipe[1], warn_on_full_buffer=False)

    def _supervise(self) -> None:
        self._poller.register(self._signal_pipe[0], select.POLLIN)
        self._poller.register(self._channel.fileno(), select.POLLIN)
        self._channel.send(Message(LOADED))
        while self._workers or not self._stopping:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._signal_pipe[0]:
                    os.read(descriptor, 4096)
                elif descriptor != self._channel.fileno():
                    self._hear(descriptor)
                else:
                    order = self._channel.receive()
                    if order is None:
                        return
                    self._obey(order)
            self._bury()

    def _obey(self, order: Message) -> None:
        if order.kind == FORK:
            self._fork(order.slot)
        elif order.kind == STOP:
            self._stopping = True
            for listener in self._listeners:
                listener.close()  # or who connects would be left waiting
            for pid in self._workers:
                os.kill(pid, order.value)

    def _fork(self, slot: int) -> None:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return self._not_born(slot, error)
        try:
            pid = fork()
        except OSError as error:
            ours.close()
            theirs.close()
            return self._not_born(slot, error)
        if pid == 0:
            ours.close()
            self._be_worker(slot, theirs)
        theirs.close()
        self._workers[pid] = slot
        self._unready[pid] = ours
        self._poller.register(ours, select.POLLIN)
        descriptor = _pidfd(pid)
        try:
            self._channel.send(Message(BORN, pid=pid, slot=slot, descriptor=descriptor))
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _not_born(self, slot: int, error: OSError) -> None:
        number = error.errno or errno.EAGAIN
        self._channel.send(Message(NOT_BORN, slot=slot, value=number))

    def _hear(self, descriptor: int) -> None:
        """A worker has something to say: that it is ready, or nothing since it is dying."""
        for pid, sock in list(self._unready.items()):
            if sock.fileno() == descriptor:
                self._stop_hearing(pid)

    def _stop_hearing(self, pid: int) -> None:
        said = b""
        sock = self._unready.pop(pid)
        self._poller.unregister(sock)
        with sock, suppress(BlockingIOError, ConnectionResetError):
            said = sock.recv(1, socket.MSG_DONTWAIT)
        if said:
            self._channel.send(Message(READY, pid=pid, slot=self._workers[pid]))

    def _bury(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid not in self._workers:
                continue  # a process that the application has started
            if pid in self._unready:
                self._stop_hearing(pid)
            slot = self._workers.pop(pid)
            self._shares.clear(slot)
            self._channel.send(Message(DIED, pid=pid, slot=slot, value=status))

    # The worker.

    def _be_worker(self, slot: int, parent: socket.socket) -> None:
        status = FAILED
        try:
            status = self._serve(slot, parent)
        except BaseException:  # it must not run on as a second template
            log_exception("the worker failed")
        finally:
            leave(status)

    def _serve(self, slot: int, parent: socket.socket) -> int:
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            # What the application has set while it was imported, it shall have.
            if number not in STOPPING and handler is not None:
                signal.signal(number, handler)
        let_stops_end_it()  # until it serves
        for descriptor in self._signal_pipe:
            os.close(descriptor)
        self._channel.close()
        for sock in self._unready.values():
            sock.close()
        if self._options.lazy:
            _end_with_other_end(parent.fileno(), True)
            self._watch = watch_for(self._options)
        try:
            application = self._load()
        except ConfigurationError as error:
            self._on_load_error(error)
            return CANNOT_LOAD
        _end_with_other_end(parent.fileno(), False)

        def tell_ready() -> None:
            log.info("worker ready")
            with parent, suppress(OSError):  # the template has just been killed
                parent.send(b"R")

        worker = Worker(
            application,
            self._listeners,
            self._options,
            parent_pipe=self._life,
            share=self._shares.share(slot),
            watch=self._watch,
        )
        worker.run(tell_ready)
        return 0


def _pidfd(pid: int) -> int:
    """Return a descriptor that stands for the process even when its parent is dead; -1 without."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, an old kernel, a container that forbids it
        return -1


def _end_with_other_end(descriptor: int, wanted: bool) -> None:
    """Have the kernel end this process when whoever holds the other end of a socket is gone.

    For the time in which foreign code runs that may never come back: SIGIO ends a process that
    does not handle it.  Where it is ignored by default (BSD), the foreign code is waited for.
    """
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if not wanted:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        return
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
    poller = select.poll()
    poller.register(descriptor, 0)
    if poller.poll(0):
        leave(FAILED)  # it was gone before the kernel was asked
