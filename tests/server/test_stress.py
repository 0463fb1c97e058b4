"""Many connections at once that multiplex, pipeline, split, abort and vanish; every answer is checked.

First with the worker in this process, so that the peers' threads and the server's take the
interpreter from each other at every possible place; then against a server of its own, driven as
hard as one loop can.  A few seconds of each: GATEWAYS_STRESS_SECONDS=300 makes it five minutes of
what matters most, FastCGI with 8 threads, and a third of that of each of the others.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import events
from tests.bounds import stress
from tests.bounds.served import served
from tests.server.live import PATIENCE, Peer, eventually, request, running

SECONDS = float(os.environ.get("GATEWAYS_STRESS_SECONDS", "6"))
OTHERS = SECONDS / 3

LONG = pytest.mark.timeout(60 + SECONDS + 3 * stress.PATIENCE)
CLIENTS = 6
SIZES = (0, 0, 10, 1000, 70_000, 300_000, 1_000_000)


def digest(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> list[bytes] | Iterator[bytes]:
    """Answer the path and the body's digest, once or many times over."""
    found, chance = hashlib.md5(), random.Random(environ["PATH_INFO"])
    while data := environ["wsgi.input"].read(chance.choice([1000, 65536, 200_000])):
        found.update(data)
    line = f"{environ['PATH_INFO']} {found.hexdigest()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    times = chance.choice([1, 1, 10, 2000])
    return [line] if times == 1 else (line for _ in range(times))


class _Client:
    """One connection after another, each with a few rounds of requests."""

    def __init__(self, path: str, seed: int, most: int) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.most = most
        self.answered = 0

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            with Peer(self.path) as peer:
                for _ in range(self.chance.randint(1, 6)):
                    if not self.one_round(peer):
                        break

    def one_round(self, peer: Peer) -> bool:
        """Send some requests mixed together, and read their answers; false after vanishing."""
        expected: dict[int, bytes | None] = {}
        queues: dict[int, list[events.Event]] = {}
        for number in self.chance.sample(range(1, 50), self.chance.randint(1, self.most)):
            queues[number], expected[number] = self.conversation(number)
        pieces = []
        while queues:
            number = self.chance.choice(list(queues))
            pieces.append(peer.bytes_of(queues[number].pop(0)))
            if not queues[number]:
                del queues[number]
        data = b"".join(pieces)
        if self.chance.random() < 0.05:
            peer.sock.sendall(data[: self.chance.randint(0, min(len(data), 100_000))])
            return False
        sender = threading.Thread(target=self.send, args=(peer, data))
        sender.start()
        for number, line in expected.items():
            answer = peer.answer(number)
            if line is not None:
                assert set(answer.splitlines(keepends=True)) == {line}
            self.answered += 1
        sender.join(PATIENCE)
        return True

    def conversation(self, number: int) -> tuple[list[events.Event], bytes | None]:
        body = os.urandom(16) * (self.chance.choice(SIZES) // 16)
        path = f"/{self.chance.random()}"
        length = len(body) if self.chance.random() < 0.8 else None
        sent: list[events.Event] = [request(path, number, method="POST", length=length)]
        step = self.chance.choice([8192, 65536, 500_000])
        for start in range(0, len(body), step):
            sent.append(events.RequestBody(number, body[start : start + step]))
        sent.append(events.EndOfRequest(number))
        if self.chance.random() < 0.1:
            return [
                *sent[: self.chance.randint(1, len(sent) - 1)],
                events.RequestAborted(number),
            ], None
        return sent, f"{path} {hashlib.md5(body).hexdigest()}\n".encode()

    def send(self, peer: Peer, data: bytes) -> None:
        steps = [1, 7, 1000] if len(data) < 5000 else [1000, 65536, 1_000_000]
        start = 0
        while start < len(data):
            step = self.chance.choice(steps)
            peer.sock.sendall(data[start : start + step])
            start += step


@LONG
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_answer_is_right_and_nothing_is_left(socket_path: Path, threads: int) -> None:
    failures: list[BaseException] = []

    def drive(client: _Client, until: float) -> None:
        try:
            client.run(until)
        except BaseException as error:
            failures.append(error)

    with running(digest, socket_path, threads=threads) as live:
        # With one thread a connection carries one request at a time.
        clients = [_Client(live.path, seed, 5 if threads > 1 else 1) for seed in range(CLIENTS)]
        until = time.monotonic() + OTHERS
        drivers = [threading.Thread(target=drive, args=(client, until)) for client in clients]
        for driver in drivers:
            driver.start()
        for driver in drivers:
            driver.join()
        assert failures == []
        assert all(client.answered for client in clients)
        eventually(lambda: live.connections() == 0, "all connections are closed")
        free = lambda: all(seat.connection is None for seat in live.worker._seats)  # noqa: E731 - it is what it says
        eventually(free, "no thread is left in an application")


@LONG
@pytest.mark.parametrize(
    ("protocol", "threads", "seconds"),
    [("fcgi", 8, SECONDS), ("fcgi", 1, OTHERS), ("scgi", 8, OTHERS)],
    ids=["fcgi-8", "fcgi-1", "scgi-8"],
)
def test_every_answer_of_a_real_server_is_right_and_comes(
    short_path: Path, protocol: str, threads: int, seconds: float
) -> None:
    """No deadlock, no lost wake-up; where an answer is late, the report has all the stacks."""
    with served(short_path, protocol=protocol, threads=threads) as server:
        report = stress.run(server, seconds)
    assert not report.failures, report.told()
