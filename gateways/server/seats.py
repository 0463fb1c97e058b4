"""What each thread of a worker is doing, and which of them take events.

The interpreter runs one thread at a time.  While applications answer at once, a second thread that
takes events only takes the interpreter from the first at every system call, and a request costs
several times as much (docs/speed.md).  So one thread *leads*: it takes every event, and the others
stand by.  When an application is seen to wait for something, all threads take events, and go on
doing so until none has waited for a while.

The main thread looks every few milliseconds while requests come, and sleeps while none do.  It sees
a request that is there at two looks in a row; and, of many that are shorter, whether they leave the
processor idle for more than half of the time.  A machine with more to do than processors may look
like that too: then all threads take events for a moment, which costs time and does no harm.

Should the main thread be held up itself, by a slow disk or a log that nobody reads, one of those
who stand by, the *deputy*, takes over from a leader that is stuck.
"""

from __future__ import annotations

import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateways.server.sending import Sending

LOOK_SECONDS = 0.005
"""How often is looked while requests come.  One that is there at two looks in a row waits; what
came meanwhile has waited for it, about twice as long, and longer where it computes and does not
let go of the interpreter."""

SPREAD_SECONDS = 0.25
"""How long all threads take events once an application was seen to wait."""

DEPUTY_SECONDS = 1.0
"""After so long in one request the deputy takes over from the leader, though nobody has called."""

LOOKS_TO_WEIGH = 20
"""After so many looks the processor's time is weighed: it shows requests that wait for less than a
look's time."""

LOOKS_TO_REST = 4
"""After so many looks at which nothing had happened nobody looks any more."""


class Seat:
    """One thread: the connection it serves, and how many events it has taken."""

    __slots__ = ("connection", "count", "seen", "looked", "waits")

    def __init__(self) -> None:
        self.connection: Sending | None = None
        self.count = 0
        self.seen = -1  # the count at the last tick
        self.looked = 0  # the count at the last look
        self.waits = False  # in the same request at two looks


class Seats:
    """The seats of a worker.  `call` wakes the thread that calls `look`, from any thread."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._all: list[Seat] = []
        self._condition = threading.Condition()
        self._ended = False
        self.leader: Seat | None = None
        self._deputy: Seat | None = None
        # Without the one lock of the interpreter there is nothing to take from each other.
        self._always_spread = not getattr(sys, "_is_gil_enabled", lambda: True)()
        self.spread = self._always_spread
        """Whether all threads take events."""
        self.watched = False
        """Whether `look` is called every LOOK_SECONDS.  Whoever takes an event while it is not
        calls `watch`."""
        self._spread_until = 0.0
        self._next_look = 0.0
        self._rest_after = LOOKS_TO_REST
        self._looks = self._busy_looks = 0
        self._weighed_at = self._cpu_at = 0.0

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self) -> Seat:
        """Return the seat of a new thread."""
        seat = Seat()
        self._all.append(seat)
        return seat

    def remove(self, seat: Seat) -> None:
        """Forget the seat of a thread that did not start."""
        self._all.remove(seat)

    def stand_by(self, seat: Seat) -> None:
        """Wait until this thread is to take events: as the leader, or because all do."""
        with self._condition:
            while not (self._ended or self.spread or self.leader in (None, seat)):
                if self._deputy in (None, seat):
                    self._deputy = seat
                    self._wait_as_deputy()
                else:
                    self._condition.wait()
            if self._deputy is seat:
                self._deputy = None
                self._condition.notify()  # another one is to be it
            if self.leader is None:
                self.leader = seat

    def _wait_as_deputy(self) -> None:
        leader = self.leader
        count = leader.count if leader is not None else 0
        called = self._condition.wait(DEPUTY_SECONDS)
        if called or leader is None or self.leader is not leader:
            return
        if leader.connection is not None and leader.count == count:
            self.leader = None

    def leave(self, seat: Seat) -> None:
        """This thread takes no events just now: if it leads, another one is to."""
        with self._condition:
            if self.leader is seat:
                self.leader = None
                self._condition.notify_all()

    def end(self) -> None:
        """Nobody is to stand by any more."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    # What whoever keeps time calls, but for `watch`.

    def watch(self) -> None:
        """Something happens again: have `look` called."""
        self.watched = True
        self._call()

    def patience(self, now: float) -> float:
        """Return the seconds until the next look."""
        return self._next_look - now if self.watched else float("inf")

    def look(self, now: float) -> None:
        """See who waits, if it is time to."""
        if not self.watched or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        moved = busy = waits = False
        for seat in self._all:
            if seat.count != seat.looked:
                seat.looked = seat.count
                seat.waits = False
                moved = True
                busy = busy or seat.connection is not None
            elif seat.connection is None:
                seat.waits = False
            elif not seat.waits:
                seat.waits = waits = True
        self._weigh(now, busy or waits)
        if waits:
            self._spread(now)
        elif self.spread and now >= self._spread_until and not self._always_spread:
            self._gather()
        self._rest_after = LOOKS_TO_REST if moved or waits else self._rest_after - 1
        if not self._rest_after:
            self._rest()

    def _weigh(self, now: float, busy: bool) -> None:
        """See whether the processor was idle while requests ran."""
        if not self._looks:
            self._weighed_at, self._cpu_at, self._busy_looks = now, time.process_time(), 0
        self._looks += 1
        self._busy_looks += busy
        if self._looks > LOOKS_TO_WEIGH:
            ran = (now - self._weighed_at) * self._busy_looks / self._looks
            if self._busy_looks * 4 > self._looks and time.process_time() - self._cpu_at < ran / 2:
                self._spread(now)
            self._looks = 0

    def _spread(self, now: float) -> None:
        with self._condition:
            self.spread = True
            self._spread_until = now + SPREAD_SECONDS
            self._condition.notify_all()

    def _gather(self) -> None:
        with self._condition:
            self.spread = False
            # Whoever comes first: the one that led before may be waiting still.
            self.leader = None
            self._condition.notify_all()

    def _rest(self) -> None:
        self._rest_after = LOOKS_TO_REST
        self._looks = 0
        self.watched = False
        if any(seat.count != seat.looked for seat in self._all):
            self.watched = True  # it came between the look and the line before
