"""Who takes events: one thread while applications answer at once, all of them once one waits.

The clock is the test's: `look` is told the time.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from gateways.server.seats import LOOK_SECONDS, LOOKS_TO_REST, LOOKS_TO_WEIGH, SPREAD_SECONDS, Seats

BUSY: Any = object()  # some connection


def _is_spread(seats: Seats) -> bool:
    return seats.spread


class Clock:
    """Tells the time of the looks, and how much of it the processor worked."""

    def __init__(self, seats: Seats, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seats = seats
        self.now = 1000.0
        self.worked = 0.0
        monkeypatch.setattr(time, "process_time", lambda: self.worked)

    def look(self, times: int = 1, *, working: bool = False) -> None:
        for _ in range(times):
            self.now += LOOK_SECONDS
            self.worked += LOOK_SECONDS * working
            self.seats.look(self.now)


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def seats(calls: list[str]) -> Seats:
    return Seats(lambda: calls.append("called"))


@pytest.fixture
def clock(seats: Seats, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(seats, monkeypatch)


def test_the_first_thread_leads_and_another_stands_by_until_a_request_waits(
    seats: Seats, clock: Clock
) -> None:
    first, second = seats.add(), seats.add()
    seats.stand_by(first)
    taking = threading.Event()

    def take() -> None:
        seats.stand_by(second)
        taking.set()

    thread = threading.Thread(target=take)
    thread.start()
    first.connection, first.count = BUSY, 1
    seats.watch()
    clock.look()
    assert not taking.wait(0.05)
    clock.look()
    assert taking.wait(10)
    thread.join()
    assert seats.leader is first


def test_requests_that_end_between_two_looks_leave_it_to_one_thread(
    seats: Seats, clock: Clock
) -> None:
    seat = seats.add()
    seats.watch()
    for count in range(1, 201):
        seat.connection, seat.count = BUSY, count
        clock.look(working=True)
        assert not seats.spread


def test_requests_that_wait_for_less_than_a_look_are_told_by_the_processors_rest(
    seats: Seats, clock: Clock
) -> None:
    seat = seats.add()
    seats.watch()
    for count in range(1, LOOKS_TO_WEIGH + 3):
        seat.connection, seat.count = BUSY, count
        clock.look(working=False)
    assert seats.spread


def test_a_request_that_never_ends_does_not_keep_all_threads_taking_events(
    seats: Seats, clock: Clock
) -> None:
    stuck, other = seats.add(), seats.add()
    seats.stand_by(stuck)
    stuck.connection, stuck.count = BUSY, 1
    seats.watch()
    clock.look(2)
    assert seats.spread
    for _ in range(int(SPREAD_SECONDS / LOOK_SECONDS) + 2):
        other.count += 1
        clock.look(working=True)
    seats.stand_by(other)  # returns
    assert not _is_spread(seats)
    assert seats.leader is other  # the one that led is waiting still


def test_each_request_that_waits_prolongs_it(seats: Seats, clock: Clock) -> None:
    seat = seats.add()
    seats.watch()
    for count in range(1, 100):
        seat.connection, seat.count = BUSY, count
        clock.look(4, working=True)
    assert seats.spread


def test_nobody_looks_while_nothing_happens_and_the_next_event_calls(
    seats: Seats, clock: Clock, calls: list[str]
) -> None:
    seat = seats.add()
    seat.count = 1
    seats.watch()
    assert calls == ["called"]
    assert seats.patience(clock.now) <= LOOK_SECONDS
    clock.look(LOOKS_TO_REST + 1)
    assert not seats.watched
    assert seats.patience(clock.now) == float("inf")


def test_an_event_that_comes_as_the_looking_stops_is_looked_at(seats: Seats, clock: Clock) -> None:
    """It was counted after the last look, by a thread that found itself watched."""
    seat = seats.add()
    seat.count = 1
    seats.watch()
    clock.look(LOOKS_TO_REST)

    class Late(list[Any]):
        """The seats; the event comes between the look and the end of it."""

        looked = False

        def __iter__(self) -> Any:
            if self.looked:
                seat.count += 1
            self.looked = True
            return super().__iter__()

    seats._all = Late(seats._all)
    clock.look()
    assert seats.watched


def test_at_the_end_nobody_stands_by(seats: Seats) -> None:
    first, second = seats.add(), seats.add()
    seats.stand_by(first)
    thread = threading.Thread(target=seats.stand_by, args=(second,))
    thread.start()
    seats.end()
    thread.join(10)
    assert not thread.is_alive()


def test_where_nobody_looks_the_deputy_takes_over_from_a_leader_that_is_stuck(
    seats: Seats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.server.seats.DEPUTY_SECONDS", 0.02)
    first, second, third = seats.add(), seats.add(), seats.add()
    seats.stand_by(first)
    others = [threading.Thread(target=seats.stand_by, args=(each,)) for each in (second, third)]
    for thread in others:
        thread.start()
    time.sleep(0.1)
    assert seats.leader is first  # it is at the epoll
    first.connection = BUSY
    deadline = time.monotonic() + 10
    while seats.leader in (None, first) and time.monotonic() < deadline:
        time.sleep(0.01)
    leader = seats.leader
    assert leader in (second, third)
    assert leader is not None
    leader.connection = BUSY
    for thread in others:
        thread.join(10)
    assert seats.leader not in (first, leader)


def test_a_leader_that_leaves_is_replaced(seats: Seats) -> None:
    first, second = seats.add(), seats.add()
    seats.stand_by(first)
    thread = threading.Thread(target=seats.stand_by, args=(second,))
    thread.start()
    seats.leave(first)
    thread.join(10)
    assert seats.leader is second
