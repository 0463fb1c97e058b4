"""Many peers at once in one thread: each is a generator, and one epoll loop resumes them all.

A generator yields what it waits for, a `Wait`, and is sent the epoll mask of what happened, 0 when
the time was over.  So a peer reads like a conversation, a thousand of them cost one thread, and
what each does at which moment does not depend on a scheduler.

`Peer` is a socket in such a generator's hands; `Prober` are the well-behaved ones beside the rest,
whose answers are timed.
"""

from __future__ import annotations

import fcntl
import heapq
import select
import socket
import struct
import termios
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from tests.bounds.served import Served, Where
from tests.peers import wire

T = TypeVar("T")

FOREVER = float("inf")

IN, OUT, RDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
GONE = select.EPOLLHUP | select.EPOLLERR

RECEIVE_SIZE = 65536


class Wait(NamedTuple):
    """What a generator waits for: `mask` on a descriptor (-1 for none), at most until a time."""

    descriptor: int
    mask: int
    until: float


Steps = Generator[Wait, int, T]


def pause(seconds: float) -> Steps[None]:
    """Do nothing for a while."""
    yield Wait(-1, 0, time.monotonic() + seconds)


class Task(Generic[T]):
    """A generator on its way: `done`, and then its `result`."""

    def __init__(self, steps: Steps[T]) -> None:
        self.steps = steps
        self.turn = 0
        self.done = False
        self.result: T | None = None


class Swarm:
    """The loop.  An error that a generator does not handle ends `run` with it.

    A peer that does not close stays until the block ends, whatever becomes of its generator.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._timers: list[tuple[float, int, int, Task[Any]]] = []
        self._numbers = count()
        self._waiting: dict[int, tuple[Task[Any], int]] = {}
        self._registered: set[int] = set()
        self.running = 0
        self.peers: set[Peer] = set()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in list(self.peers):
            peer.close()
        self._epoll.close()

    def start(self, steps: Steps[T], after: float = 0.0) -> Task[T]:
        """Have the loop run a generator, from its next round on or `after` seconds."""
        task = Task(steps)
        self.running += 1
        self._set_timer(task, time.monotonic() + after)
        return task

    def run(self, seconds: float = FOREVER, until: Callable[[], bool] = lambda: False) -> bool:
        """Run until `until()`, or nothing is left to run; false when the time is over before."""
        end = time.monotonic() + seconds
        while True:
            self._run_timers()
            if until() or not self.running:
                return True
            left = min(end, self._timers[0][0] if self._timers else end) - time.monotonic()
            if end <= time.monotonic():
                return False
            for descriptor, mask in self._epoll.poll(max(0.0, left) if left < FOREVER else -1, 64):
                task, turn = self._waiting.pop(descriptor, (None, 0))
                if task is not None and task.turn == turn:
                    self._resume(task, mask)

    def forget(self, descriptor: int) -> None:
        """A descriptor is about to be closed."""
        self._waiting.pop(descriptor, None)
        self._registered.discard(descriptor)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers:
            when, _, turn, task = self._timers[0]
            over = task.turn != turn or task.done
            if when > now and not over:
                return
            heapq.heappop(self._timers)
            if not over:
                self._resume(task, 0)

    def _set_timer(self, task: Task[Any], when: float) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), task.turn, task))

    def _resume(self, task: Task[Any], mask: int) -> None:
        first = task.turn == 0
        task.turn += 1
        try:
            wait = next(task.steps) if first else task.steps.send(mask)
        except BaseException as error:
            task.done = True
            self.running -= 1
            if not isinstance(error, StopIteration):
                raise
            task.result = error.value
            return
        if wait.descriptor >= 0:
            self._arm(task, wait)
        if wait.until < FOREVER:
            self._set_timer(task, wait.until)

    def _arm(self, task: Task[Any], wait: Wait) -> None:
        # Once only: whoever does something else in the meantime is not to be woken again and again.
        mask = wait.mask | select.EPOLLONESHOT
        if wait.descriptor in self._registered:
            self._epoll.modify(wait.descriptor, mask)
        else:
            self._epoll.register(wait.descriptor, mask)
            self._registered.add(wait.descriptor)
        self._waiting[wait.descriptor] = (task, task.turn)


class Refused(Exception):
    """Nobody listens."""


class Peer:
    """One connection to the server.

    `deaf` when nothing more can be sent, `closed` when nothing more comes, `reset` when it was torn
    down.
    """

    def __init__(self, swarm: Swarm, where: Where) -> None:
        self.swarm = swarm
        self._where = where
        self.sock = socket.socket(socket.AF_INET if isinstance(where, tuple) else socket.AF_UNIX)
        swarm.peers.add(self)
        self.sock.setblocking(False)
        self.descriptor = self.sock.fileno()
        self.deaf = False
        self.closed = False
        self.reset = False
        self.sent = 0
        self.received = 0

    def connect(self) -> Steps[None]:
        """Connect, however long the queue is; Refused when nobody listens."""
        while True:
            try:
                self.sock.connect(self._where)
                return
            except BlockingIOError as error:
                if error.errno == 115:  # EINPROGRESS, over TCP
                    yield from self.wait(OUT)
                    problem = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if problem:
                        raise Refused(str(problem)) from None
                    return
            except (ConnectionRefusedError, FileNotFoundError) as error:
                raise Refused(str(error)) from None
            yield from pause(0.005)  # a unix socket's queue is full

    def wait(self, mask: int, until: float = FOREVER) -> Steps[int]:
        """Wait for something on the socket; return the mask, 0 when the time is over."""
        happened = yield Wait(self.descriptor, mask, until)
        return happened

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what fits; 0 when nothing does or the server is gone."""
        try:
            size = self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.deaf = True
            return 0
        self.sent += size
        return size

    def send(self, data: bytes, until: float = FOREVER) -> Steps[bool]:
        """Send all of `data`; false when the server is gone, or the time over, before."""
        rest = memoryview(data)
        while rest:
            size = self.try_send(rest)
            rest = rest[size:]
            if self.deaf:
                return False
            if rest and not size and not (yield from self.wait(OUT, until)):
                return False
        return True

    def try_receive(self, size: int = RECEIVE_SIZE) -> bytes | None:
        """Return what there is; None when there is nothing, b"" at the end."""
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
            self.reset = True
        self.received += len(data)
        self.closed = not data
        return data

    def receive(self, until: float = FOREVER, size: int = RECEIVE_SIZE) -> Steps[bytes | None]:
        """Return the next bytes; None when none come in time, b"" at the end."""
        while (data := self.try_receive(size)) is None:
            if not (yield from self.wait(IN | RDHUP, until)):
                return None
        return data

    def unread(self) -> int:
        """Return how much of what was sent the server has not taken; the kernel's own count of it."""
        found = fcntl.ioctl(self.descriptor, termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", found)[0])

    def taken(self, until: float) -> Steps[bool]:
        """Wait until the server has taken everything; false when it does not in time."""
        while self.unread():
            if time.monotonic() > until:
                return False
            yield from pause(0.0002)
        return True

    def shut(self) -> None:
        """Say that nothing more comes."""
        self.deaf = True
        with suppress(OSError):  # the server was faster
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave."""
        self.swarm.peers.discard(self)
        self.swarm.forget(self.descriptor)
        self.sock.close()


@dataclass
class Answer:
    """What has come of an answer so far, and how it ended; see wire.Answer."""

    output: bytearray = field(default_factory=bytearray)
    ended: tuple[int, int] | None = None
    complete: bool = False
    """Whether its end came as the protocol has it: END_REQUEST, or over SCGI the end of file."""

    def whole(self) -> wire.Answer:
        """Return it for looking at."""
        return wire.Answer(bytes(self.output), ended=self.ended)

    @property
    def status(self) -> int:
        """The answer's status; 0 when there is no head."""
        return wire.Answer(bytes(self.output[:4096])).status

    @property
    def body(self) -> bytes:
        """What comes after the head."""
        return self.whole().body


class Answers:
    """Sorts the bytes of a connection into the answers that they belong to."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.by_id: dict[int, Answer] = {}
        self.stray: list[int] = []
        self._rest = b""

    def expect(self, request_id: int = 1) -> Answer:
        """Make room for the answer to a request that is about to be sent."""
        answer = self.by_id[request_id] = Answer()
        return answer

    def feed(self, data: bytes) -> None:
        """Take in bytes; b"" is the end of file."""
        if self.protocol == "scgi":
            answer = self.by_id[1]
            answer.output += data
            answer.complete = answer.complete or not data
            return
        data = self._rest + data
        at = 0
        while len(data) - at >= 8:
            version, kind, request_id, size, padding = struct.unpack_from(">BBHHBx", data, at)
            assert version == 1, data[at : at + 8]
            if len(data) - at < 8 + size + padding:
                break
            self._take(kind, request_id, data[at + 8 : at + 8 + size])
            at += 8 + size + padding
        self._rest = data[at:]

    def _take(self, kind: int, request_id: int, content: bytes) -> None:
        answer = self.by_id.get(request_id)
        if answer is None:
            self.stray.append(kind)
        elif kind == wire.STDOUT:
            answer.output += content
        elif kind == wire.END:
            application_status, protocol_status = struct.unpack(">LB3x", content)
            answer.ended = (application_status, protocol_status)
            answer.complete = True


def request(
    protocol: str,
    path: str,
    body: bytes = b"",
    *,
    request_id: int = 1,
    keep: bool = False,
    length: int | None = None,
    cut: bool = False,
) -> bytes:
    """Return the bytes of a request; `length` is declared whatever there is of the body.

    With `cut` only the head: the body and its end are left out.
    """
    method = "POST" if body or length is not None else "GET"
    values: dict[str, str | bytes] = {"PATH_INFO": path, "REQUEST_URI": path}
    values["REQUEST_METHOD"] = method
    if protocol == "scgi":
        size = len(body) if length is None else length
        return wire.scgi({"CONTENT_LENGTH": str(size), **values}, b"" if cut else body)
    if length is not None and length >= 0:
        values["CONTENT_LENGTH"] = str(length)
    elif length is None:
        values["CONTENT_LENGTH"] = str(len(body)) if body else ""
    flags = wire.KEEP if keep else 0
    if cut:
        return wire.head(values, request_id, flags=flags)
    return wire.fastcgi(values, body, request_id, flags=flags)


UNKNOWN = -1
"""A `length` that is not declared: FastCGI ends a body by itself."""


def ask(
    swarm: Swarm, server: Served, path: str, body: bytes = b"", *, seconds: float = FOREVER
) -> Steps[wire.Answer | None]:
    """Make a request on a connection of its own; return the answer, None when it does not come."""
    until = time.monotonic() + seconds
    peer = Peer(swarm, server.where)
    answers = Answers(server.protocol)
    answer = answers.expect()
    try:
        yield from peer.connect()
        yield from converse(peer, answers, [request(server.protocol, path, body)], until)
        if not answer.complete:
            return None
        found = answer.whole()
        found.reset = peer.reset
        return found
    finally:
        peer.close()


class _Conversation:
    """What is still to be sent, and when; what has been read, and when to read on."""

    def __init__(
        self,
        peer: Peer,
        answers: Answers,
        sends: Iterable[bytes | float | None],
        read: Callable[[], float],
        read_size: int,
    ) -> None:
        self.peer = peer
        self.answers = answers
        self.coming = iter(sends)
        self.more = True
        self.rest = memoryview(b"")
        self.send_at = self.read_at = 0.0
        self.read = read
        self.read_size = read_size

    def is_over(self) -> bool:
        """Whether all is sent, and every expected answer complete."""
        answered = all(each.complete for each in self.answers.by_id.values())
        return answered and not (self.more or self.rest)

    def send_some(self, now: float) -> bool:
        """Send if that is possible; false when it is not, now."""
        if self.rest:
            size = self.peer.try_send(self.rest)
            self.rest = self.rest[size:]
            if self.peer.deaf:  # an answer may still come
                self.rest, self.more = memoryview(b""), False
            return bool(size)
        if not self.more or now < self.send_at:
            return False
        self._next(now)
        return True

    def _next(self, now: float) -> None:
        try:
            following = next(self.coming)
        except StopIteration:
            self.more = False
            return
        if following is None:
            self.peer.shut()
        elif isinstance(following, float):
            self.send_at = now + following
        else:
            self.rest = memoryview(following)

    def receive_some(self, now: float) -> bool:
        """Read if it is time and there is something; false otherwise."""
        if now < self.read_at:
            return False
        data = self.peer.try_receive(self.read_size)
        if data is None:
            return False
        if not self.peer.reset:
            self.answers.feed(data)
        self.read_at = now + self.read()
        return True

    def wait(self, now: float, until: float) -> Wait:
        """Return what there is to wait for when neither is possible."""
        mask = (OUT if self.rest else 0) | (IN | RDHUP if now >= self.read_at else 0)
        times = [self.send_at if self.more else 0.0, self.read_at]
        ends = min(until, *(each for each in times if each > now), FOREVER)
        return Wait(self.peer.descriptor if mask else -1, mask, ends)


def converse(
    peer: Peer,
    answers: Answers,
    sends: Iterable[bytes | float | None],
    until: float,
    *,
    read: Callable[[], float] = lambda: 0.0,
    read_size: int = RECEIVE_SIZE,
    enough: Callable[[], bool] | None = None,
) -> Steps[bool]:
    """Send and read at the same time until all is sent and every expected answer complete.

    `sends` gives bytes to send, seconds to pause, and None for shutting this side down; `read` how
    many seconds to leave between reads; `enough` decides instead when it is over.  Return false
    when the server closes, or the time is over, before.
    """
    talk = _Conversation(peer, answers, sends, read, read_size)
    done = enough or talk.is_over
    while not (done() or peer.closed):
        now = time.monotonic()
        if now >= until:
            return False
        sent = talk.send_some(now)
        received = talk.receive_some(now)
        if not (sent or received):
            yield talk.wait(now, until)
    return done()


class Prober:
    """Requests of well-behaved peers at a steady pace, on new and on kept connections, timed.

    A time counts from when the request was due, so that one which is held up cannot hide the
    others behind it.
    """

    def __init__(
        self, swarm: Swarm, server: Served, *, rate: float, kept: int = 4, patience: float = 30.0
    ) -> None:
        self.swarm = swarm
        self.server = server
        self.times: list[float] = []
        self.failures: list[str] = []
        self._patience = patience
        self._on = True
        self._numbers = count()
        self._tasks: list[Task[None]] = []
        interval = 1 / rate
        self._tasks.append(swarm.start(self._new_ones(interval)))
        if server.protocol == "fcgi":
            for number in range(kept):
                steps = self._kept_one(interval * kept)
                self._tasks.append(swarm.start(steps, number * interval))

    def finish(self) -> None:
        """Make no more requests, and wait for the answers that are due."""
        self._on = False
        self.swarm.run(self._patience + 5, lambda: all(task.done for task in self._tasks))

    @property
    def answered(self) -> int:
        """How many requests had the right answer."""
        return len(self.times)

    def percentile(self, share: float) -> float:
        """Return the time, in seconds, within which this share of the requests was answered."""
        ordered = sorted([*self.times, *(self._patience for _ in self.failures)])
        if not ordered:
            return FOREVER
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def _new_ones(self, interval: float) -> Steps[None]:
        due = time.monotonic()
        while self._on:
            self._tasks.append(self.swarm.start(self._new_one(due)))
            due += interval
            yield Wait(-1, 0, due)

    def _new_one(self, due: float) -> Steps[None]:
        token = f"new{next(self._numbers)}"
        try:
            steps = ask(self.swarm, self.server, f"/token/{token}", seconds=self._patience)
            answer = yield from steps
        except Refused as error:
            self.failures.append(f"{token}: {error}")
            return
        self._note(token, due, None if answer is None else answer.body)

    def _kept_one(self, interval: float) -> Steps[None]:
        peer = Peer(self.swarm, self.server.where)
        answers = Answers("fcgi")
        yield from peer.connect()
        due = time.monotonic()
        while self._on:
            token = f"kept{next(self._numbers)}"
            answer = answers.expect()
            until = time.monotonic() + self._patience
            sent = request("fcgi", f"/token/{token}", keep=True)
            yield from converse(peer, answers, [sent], until)
            self._note(token, due, answer.body if answer.complete else None)
            if not answer.complete:
                break
            due += interval
            if due > time.monotonic():
                yield Wait(-1, 0, due)
        peer.close()

    def _note(self, token: str, due: float, body: bytes | None) -> None:
        if body == token.encode():
            self.times.append(time.monotonic() - due)
        else:
            self.failures.append(f"{token}: answered {body!r:.200}")
