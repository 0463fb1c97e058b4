"""The numbers that workers share, and whether sharing them makes shares even."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateways.server.shares import Share, Shares
from tests.server.live import Peer
from tests.server.processes import ROOT, daemon, logged, templates, wait_for_workers


def joined(count: int) -> tuple[Shares, list[Share]]:
    """Return the shares of workers that all accept."""
    shares = Shares(count)
    found = [shares.share(index) for index in range(count)]
    for share in found:
        share.join(100.0)
    return shares, found


@pytest.mark.parametrize(
    ("counts", "over"),
    [
        ([0], False),
        ([1000], False),  # alone: nobody else could take it
        ([1, 0], False),
        ([2, 0], True),
        ([5, 3], True),
        ([4, 3], False),
        ([3, 5], False),
        ([0, 9], False),
        ([5, 0, 5, 5], True),
        ([10, 0, *[10] * 98], False),  # no more than an even share: one cannot feed 99
        ([12, 0, *[10] * 98], True),
    ],
)
def test_who_has_more_than_its_share(counts: list[int], over: bool) -> None:
    _, shares = joined(len(counts))
    for share, count in zip(shares, counts, strict=True):
        share.connections = count
    assert shares[0].over_share(100.0) is over


def test_who_has_not_joined_or_has_left_or_is_dead_is_not_waited_for() -> None:
    shares = Shares(4)
    first, _, third, fourth = (shares.share(index) for index in range(4))
    first.join(1.0)
    first.connections = 5
    assert not first.over_share(1.0)
    third.join(1.0)
    assert first.over_share(1.0)
    third.leave()
    third.connections = 1  # those that it still has are no offer to take more
    assert not first.over_share(1.0)
    fourth.join(1.0)
    assert first.over_share(1.0)
    shares.clear(3)
    assert not first.over_share(1.0)


def test_a_connection_for_which_nobody_came_is_taken_and_the_next_one_left_again() -> None:
    _, (first, _) = joined(2)
    first.connections = 5
    first.took_anyway(10.0)
    assert not first.over_share(10.0)
    assert first.over_share(10.0)


def test_where_nobody_comes_again_and_again_nothing_is_left_for_a_second() -> None:
    _, (first, _) = joined(2)
    first.connections = 5
    first.took_anyway(10.0)
    first.took_anyway(10.1)
    assert not any(first.over_share(now) for now in (10.1, 10.5, 11.0))
    assert first.over_share(11.2)


@pytest.mark.parametrize("workers", [2, 3, 8])
@pytest.mark.parametrize("seed", range(20))
def test_shares_become_even_whoever_the_kernel_prefers(workers: int, seed: int) -> None:
    """Connections come and are kept; the kernel offers each to one who waits; most often to one."""
    choose = random.Random(seed)
    _, shares = joined(workers)
    for number in range(8 * workers):
        while True:
            share = shares[0] if choose.random() < 0.8 else choose.choice(shares)
            if not share.over_share(100.0):
                break
        share.connections += 1
        counts = [each.connections for each in shares]
        even = -(-(number + 1) // workers)
        assert max(counts) <= max(even + 1, min(counts) + 2), counts
    counts = sorted(each.connections for each in shares)
    assert counts[-1] <= 9
    if workers == 2:
        assert counts in ([8, 8], [7, 9])


def test_shares_become_even_again_after_a_worker_has_died() -> None:
    shares, (first, second) = joined(2)
    first.connections = second.connections = 4
    shares.clear(1)
    for _ in range(4):  # the web server connects again for those that it has lost
        assert not first.over_share(100.0)
        first.connections += 1
    second = shares.share(1)
    second.join(100.0)
    assert first.over_share(100.0)
    for _ in range(4):
        assert not second.over_share(100.0)
        second.connections += 1
    assert first.over_share(100.0)


def test_how_long_a_worker_has_been_silent() -> None:
    shares = Shares(2)
    assert shares.silence(0, 50.0) == 0.0  # it is not there yet
    share = shares.share(0)
    share.join(100.0)
    assert shares.silence(0, 160.0) == 60.0
    share.beat(159.0)
    assert shares.silence(0, 160.0) == 1.0
    for scribble in (float("nan"), float("inf"), float("-inf"), 1e300):
        share.beat(scribble)
        assert shares.silence(0, 160.0) == 0.0
    shares.clear(0)
    assert shares.silence(0, 1000.0) == 0.0


TWO_PROCESSES = """
import os, select
from gateways.server.shares import Shares
shares = Shares(2)
mine = shares.share(0)
mine.join(100.0)
epoll = select.epoll()
epoll.register(mine.descriptor, select.EPOLLIN | select.EPOLLET)
if os.fork() == 0:
    other = shares.share(1)
    other.join(200.0)
    other.connections = 12345
    other.call_others()
    os._exit(0)
assert epoll.poll(10) == [(mine.descriptor, select.EPOLLIN)]
assert shares.connections.tolist() == [0, 12345]
assert shares.silence(1, 201.0) == 1.0
assert epoll.poll(0) == [], "one call is one edge, though nobody has read"
mine.call_others()
assert epoll.poll(10) == [(mine.descriptor, select.EPOLLIN)]
shares.close()
"""


def test_processes_see_each_others_numbers_and_hear_each_others_calls() -> None:
    # In a process of its own: one with threads, as this one may be, is not to be forked.
    subprocess.run([sys.executable, "-c", TWO_PROCESSES], cwd=ROOT, check=True)


SAY_CLEARED = """
import os
from gateways.server.shares import Shares
clear = Shares.clear
def say(self, index):
    clear(self, index)
    os.write(2, b"cleared %d by %d\\n" % (index, os.getpid()))
Shares.clear = say
"""


def test_the_numbers_of_a_killed_worker_are_cleared_by_its_template(short_path: Path) -> None:
    with daemon(short_path, before=SAY_CLEARED) as process:
        workers = wait_for_workers(process, short_path, 2)
        (template,) = templates(process)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        for slot in (0, 1):
            logged(short_path, f"cleared {slot} by {template}\n")


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("together", [False, True])
def test_kept_connections_are_spread_over_the_workers(
    short_path: Path, threads: int, together: bool
) -> None:
    # However busy the machine is, the worker whose turn it is shall get there in time.
    patient = "import gateways.server.worker as worker\nworker.YIELD_SECONDS = 2.0\n"
    with daemon(short_path, before=patient, threads=threads) as process, ExitStack() as stack:
        workers = wait_for_workers(process, short_path, 2)
        peers = []
        for number in range(8):
            peers.append(stack.enter_context(Peer(str(short_path / "app.sock"))))
            peers[-1].get()
            if not together:
                assert int(peers[number].answer()) in workers
        if together:
            for peer in peers:
                peer.answer()
        for peer in peers:
            peer.get()
        served = Counter(peer.answer() for peer in peers)
        assert sorted(served.values()) in ([4, 4], [3, 5]), served
