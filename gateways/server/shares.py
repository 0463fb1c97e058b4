"""What the workers of one generation know of each other: how many connections each one holds.

A web server that keeps its connections open binds each to the worker that accepted it, and the
kernel hands new ones to whoever happens to wait first.  So one worker may end up with all of them.
Here each writes its number into memory that all share, and one that holds more than its share
leaves the next connection to the others.

Beside that number stand the time of a worker's last sign of life, since when it has had nothing to
do, and which changes of the application's files it has seen: those are for the master, which says
in its cell whether a stop is in a hurry.

The memory is an anonymous mapping made before the fork.  It is four columns of eight-byte cells and
one cell of the master's.  Each cell has one writer: in the columns the worker itself while it lives,
and after its death whoever has reaped it.  An aligned eight-byte store is one instruction on every 64-bit processor, so a reader
sees the old number or the new one and never half of each; hence no locks.  (A 32-bit processor may
show half a heartbeat to the watchdog, which would then log one odd line.)  The numbers of several
workers are not of one instant, and need not be: who is wrong by one waits 10 ms for nothing, or
takes a connection that was another's turn.  Nothing more than that depends on them, so an
application that scribbles over them does its server no greater harm.
"""

from __future__ import annotations

import mmap
import os

NOBODY = -1
"""In the column of connections: no worker accepts there."""

BUSY = float("inf")
"""In the column of idleness: the worker has something to do, or is not there."""

CELL = 8

DEAF_SECONDS = 1.0
"""How long a worker whose peers leave connections lying asks no more whose turn it is."""


class Shares:
    """The numbers of the workers 0 … `workers` - 1.  Made before they are forked."""

    def __init__(self, workers: int) -> None:
        column = workers * CELL
        self._memory = mmap.mmap(-1, 4 * column + CELL)
        cells = memoryview(self._memory)
        self.connections = cells[:column].cast("q")
        self.beats = cells[column : 2 * column].cast("d")
        self.idle_since = cells[2 * column : 3 * column].cast("d")
        self.stale = cells[3 * column : 4 * column].cast("q")
        self._patience = cells[4 * column :].cast("q")
        self._taken: set[int] = set()
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        for index in range(workers):
            self.clear(index)

    def share(self, index: int) -> Share:
        """Return what worker `index` reads and writes; for that worker alone."""
        return Share(self, index)

    def clear(self, index: int) -> None:
        """Worker `index` is dead.  For who has reaped it."""
        self.connections[index] = NOBODY
        self.beats[index] = 0.0
        self.idle_since[index] = BUSY
        self.stale[index] = 0

    def silence(self, index: int, now: float) -> float:
        """Return for how many seconds worker `index` has given no sign of life; 0 when none is there."""
        beat = self.beats[index]
        return now - beat if 0 < beat < now else 0.0

    def all_idle_for(self, now: float) -> float:
        """Return for how many seconds no worker has had anything to do; 0 when one has."""
        latest = max(self.idle_since)
        return now - latest if latest < now else 0.0

    def take_stale(self) -> bool:
        """Return whether a worker has seen changes that none had seen at the last call."""
        found = set(self.stale) - self._taken - {0}
        self._taken |= found
        return bool(found)

    @property
    def patient(self) -> bool:
        """Whether workers that are told to stop now have all the time that they need."""
        return bool(self._patience[0])

    @patient.setter
    def patient(self, patient: bool) -> None:
        self._patience[0] = patient

    def close(self) -> None:
        """Give the memory back; for the process that made it, when its workers are gone."""
        os.close(self.descriptor)
        for column in (self.connections, self.beats, self.idle_since, self.stale, self._patience):
            column.release()
        # The views were cast from slices, which the collector of references has let go of.
        self._memory.close()


class Share:
    """One worker's own numbers, and what they say beside those of the others.

    `descriptor` is an eventfd that all workers have in common.  It becomes readable for good when
    somebody first calls; only its edges mean something, so watch it with EPOLLET and never read.
    """

    def __init__(self, shares: Shares, index: int) -> None:
        self.descriptor = shares.descriptor
        self._index = index
        self._connections = shares.connections
        self._beats = shares.beats
        self._idle_since = shares.idle_since
        self._stale = shares.stale
        self._shares = shares
        self._deaf_until = 0.0
        self._joined = False
        self._left_lying_at = float("-inf")
        self._takes_one = False

    def join(self, now: float) -> None:
        """This worker accepts connections from now on (`now` is time.monotonic(), as everywhere here)."""
        self._joined = True
        self.connections = 0
        self.beat(now)

    def leave(self) -> None:
        """This worker accepts no more: the others are not to wait for it."""
        self.connections = NOBODY
        self._joined = False

    @property
    def connections(self) -> int:
        """How many connections this worker holds; nobody asks unless it has joined."""
        return self._connections[self._index]

    @connections.setter
    def connections(self, number: int) -> None:
        if self._joined:
            self._connections[self._index] = number

    def beat(self, now: float) -> None:
        """Show the watchdog that this worker's loop has come round."""
        self._beats[self._index] = now

    def be_idle(self, since: float) -> None:
        """Tell since when this worker has had nothing to do; BUSY when it has."""
        self._idle_since[self._index] = since

    def be_stale(self, state: int) -> None:
        """Tell that the application's files have changed: `state` is the watch's."""
        self._stale[self._index] = state

    @property
    def patient(self) -> bool:
        """Whether a worker that is told to stop now has all the time that it needs."""
        return self._shares.patient

    def over_share(self, now: float) -> bool:
        """Return whether another worker ought to take the next connection.

        It ought to when this one holds at least two more than the one that holds least, and more
        than an even share.  The first alone would make ninety-nine full workers wait for one that
        has just been started; the second alone knows nothing of uneven rest.
        """
        if self._takes_one or now < self._deaf_until:
            self._takes_one = False
            return False
        counts = self._connections.tolist()
        mine = counts[self._index]
        if NOBODY in counts:
            counts = [count for count in counts if count != NOBODY]
        # mine > ceil(total / live), in whole numbers
        return mine >= min(counts, default=mine) + 2 and (mine - 1) * len(counts) >= sum(counts)

    def call_others(self) -> None:
        """Wake the other workers: a connection is left to them.

        The kernel has woken one worker for it (EPOLLEXCLUSIVE), and nobody else hears of it.
        """
        os.eventfd_write(self.descriptor, 1)

    def took_anyway(self, now: float) -> None:
        """Nobody came for the connection that was left: this worker takes it after all.

        `over_share` is false once then, and for a second when this happens twice in a second: a
        peer that is stuck or busy shall cost the web server 20 ms a second, not 10 ms a connection.
        (Once may be chance, since another connection can have come in the very last moment.)
        """
        self._takes_one = True
        if now < self._left_lying_at + DEAF_SECONDS:
            self._deaf_until = now + DEAF_SECONDS
        self._left_lying_at = now
