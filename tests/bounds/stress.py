"""Everything at once: multiplexed, pipelined, aborted, half-closed and slow, every answer verified.

An answer that does not come in time ends the run with what every thread of the server was doing.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.bounds.abusive import Question, random_question
from tests.bounds.report import Report
from tests.bounds.served import Served
from tests.bounds.swarm import (
    IN,
    RDHUP,
    UNKNOWN,
    Answer,
    Answers,
    Peer,
    Steps,
    Swarm,
    converse,
    pause,
    request,
)
from tests.peers import wire

PATIENCE = 20.0
"""Seconds within which every answer comes, on a machine with other things to do."""

LARGEST = 1_000_000


def run(
    server: Served,
    seconds: float,
    *,
    connections: int = 40,
    seed: int = 5,
    patience: float = PATIENCE,
    ask: Callable[[random.Random], Question] = lambda chance: random_question(
        chance, largest=LARGEST
    ),
) -> Report:
    """Drive conversations from so many connections at once for so many seconds."""
    report = Report("stress", server.protocol, server.threads)
    before = server.look()
    with Swarm() as swarm:
        until = time.monotonic() + seconds
        peers = [
            _Driver(swarm, server, random.Random(seed * 1000 + each), ask, patience)
            for each in range(connections)
        ]
        tasks = [swarm.start(each.run(until)) for each in peers]
        try:
            swarm.run(seconds + 3 * patience, lambda: all(task.done for task in tasks))
        except _NotInTime as error:
            report.failures.append(f"{error}; the server was doing this:\n{server.dump()[-20000:]}")
        except _Wrong as error:
            report.failures.append(str(error))
    counts = sum((each.counts for each in peers), Counter[str]())
    for name, value in sorted(counts.items()):
        report.note(name, value)
    report.least("answers verified", counts["answers verified"], 1)
    # A thread that waits for a body makes itself a descriptor, once.
    bound = before["descriptors"] + server.threads
    left = server.settled(bound, 10)
    report.most("descriptors left", left["descriptors"], bound)
    report.most("threads left", left["threads"], before["threads"])
    spent = server.cpu_seconds()
    time.sleep(1.0)
    report.most("CPU when idle, s", server.cpu_seconds() - spent, 0.2)
    return report


class _NotInTime(Exception):
    """An answer that is due has not come."""


class _Wrong(Exception):
    """An answer is not what it has to be."""


@dataclass
class _Sent:
    """A request of one round: what it is, its answer, and whether it was aborted."""

    question: Question
    answer: Answer
    aborted: bool = False
    pieces: list[bytes] = field(default_factory=list)


class _Driver:
    """One connection after another, each with a few rounds of requests."""

    def __init__(
        self,
        swarm: Swarm,
        server: Served,
        chance: random.Random,
        ask: Callable[[random.Random], Question],
        patience: float,
    ) -> None:
        self.swarm = swarm
        self.server = server
        self.chance = chance
        self.ask = ask
        self.patience = patience
        self.counts: Counter[str] = Counter()

    def run(self, until: float) -> Steps[None]:
        """Go on until the time is over."""
        while time.monotonic() < until:
            peer, answers = Peer(self.swarm, self.server.where), Answers(self.server.protocol)
            yield from peer.connect()
            self.counts["connections"] += 1
            keep = self.server.protocol == "fcgi" and self.chance.random() < 0.8
            for _ in range(self.chance.randint(1, 6) if keep else 1):
                if not (yield from self._round(peer, answers, keep)):
                    break
            peer.close()

    def _round(self, peer: Peer, answers: Answers, keep: bool) -> Steps[bool]:
        """Send some requests and read their answers; false when the connection has been left."""
        # With one thread a connection carries one request at a time.
        most = 5 if keep and self.server.threads > 1 else 1
        numbers = self.chance.sample(range(1, 50), self.chance.randint(1, most))
        answers.by_id.clear()
        answers.stray.clear()
        if self.server.protocol == "scgi":
            numbers = [1]
        sent = {number: self._sent(answers, number, keep) for number in numbers}
        data = b"".join(self._mixed(sent))
        way = self.chance.random()
        if way < 0.04:
            return (yield from self._vanish(peer, answers, data))
        if way < 0.08:
            return (yield from self._half_close_early(peer, answers, data))
        half_close = way < 0.16
        yield from self._talk(peer, answers, data, [None] if half_close else [])
        self._verify(peer, sent)
        if half_close:
            self.counts["half-closed when sent"] += 1
            yield from self._expect_end(peer, "after the last answer")
        if len(sent) > 1:
            self.counts["rounds of several requests"] += 1
        return keep and not half_close

    def _sent(self, answers: Answers, number: int, keep: bool) -> _Sent:
        question = self.ask(self.chance)
        sent = _Sent(question, answers.expect(number))
        declared = self.chance.random() < 0.8
        if self.server.protocol == "scgi":
            sent.pieces = [request("scgi", question.path, question.body)]
            return sent
        length = (len(question.body) if declared else UNKNOWN) if question.body else None
        sent.pieces = [
            request("fcgi", question.path, length=length, cut=True, keep=keep, request_id=number)
        ]
        step = self.chance.choice([8192, 65535])
        for at in range(0, len(question.body), step):
            sent.pieces.append(wire.stdin(question.body[at : at + step], number))
        sent.pieces.append(wire.record(wire.STDIN, b"", number))
        if keep and self.chance.random() < 0.1:
            del sent.pieces[self.chance.randint(1, len(sent.pieces)) :]
            sent.pieces.append(wire.record(wire.ABORT, b"", number))
            sent.aborted = True
        return sent

    def _mixed(self, sent: dict[int, _Sent]) -> Iterator[bytes]:
        """Mix the records of several requests, or have one follow the other."""
        queues = [list(each.pieces) for each in sent.values()]
        pipelined = self.chance.random() < 0.3
        while queues:
            queue = queues[0] if pipelined else self.chance.choice(queues)
            yield queue.pop(0)
            queues = [each for each in queues if each]

    def _talk(
        self, peer: Peer, answers: Answers, data: bytes, after: list[bytes | float | None]
    ) -> Steps[None]:
        slow = self.chance.random() < 0.1
        yield from converse(
            peer,
            answers,
            [*self._cut(data), *after],
            time.monotonic() + self.patience,
            read=(lambda: self.chance.choice([0.0, 0.001, 0.02])) if slow else (lambda: 0.0),
        )

    def _cut(self, data: bytes) -> list[bytes | float | None]:
        """Cut what is sent into pieces of all sizes, with a pause here and there."""
        steps = [1, 7, 1000] if len(data) < 3000 else [1000, 65536, 1_000_000]
        cut: list[bytes | float | None] = []
        at = 0
        while at < len(data):
            step = self.chance.choice(steps)
            cut.append(data[at : at + step])
            if self.chance.random() < 0.02:
                cut.append(self.chance.choice([0.001, 0.02]))
            at += step
        return cut

    def _verify(self, peer: Peer, sent: dict[int, _Sent]) -> None:
        for number, each in sent.items():
            if not each.answer.complete:
                what = f"request {number}, {each.question.path}: {each.answer.whole()!r:.200}"
                if peer.closed:
                    raise _Wrong(f"{what}: the server closed, reset {peer.reset}")
                raise _NotInTime(f"{what}: no end within {self.patience} s")
            if each.aborted and each.answer.ended != (0, 0):
                self.counts["aborted"] += 1
                continue
            if each.answer.body != each.question.expected or each.answer.status != 200:
                got, due = each.answer.body, each.question.expected
                same = next(
                    (at for at, (a, b) in enumerate(zip(got, due, strict=False)) if a != b), -1
                )
                raise _Wrong(
                    f"request {number}, {each.question.path}: {len(got)} bytes of {len(due)},"
                    f" the first wrong one at {same}; {each.answer.whole().headers}"
                )
            self.counts["answers verified"] += 1
            self.counts["bytes verified"] += len(each.answer.body) + len(each.question.body)

    def _vanish(self, peer: Peer, answers: Answers, data: bytes) -> Steps[bool]:
        self.counts["vanished"] += 1
        size = self.chance.randint(0, min(len(data), 200_000))
        until = time.monotonic() + self.patience
        yield from converse(
            peer, answers, [data[:size]], until, enough=lambda: peer.sent >= size or peer.deaf
        )
        yield from pause(self.chance.choice([0.0, 0.005]))
        return False

    def _half_close_early(self, peer: Peer, answers: Answers, data: bytes) -> Steps[bool]:
        self.counts["half-closed early"] += 1
        size = self.chance.randint(0, len(data) - 1)
        yield from converse(peer, answers, [data[:size], None], time.monotonic() + self.patience)
        yield from self._expect_end(peer, f"half-closed after {size} of {len(data)} bytes")
        return False

    def _expect_end(self, peer: Peer, what: str) -> Steps[None]:
        until = time.monotonic() + self.patience
        while not peer.closed:
            if peer.try_receive() is None and not (yield from peer.wait(IN | RDHUP, until)):
                raise _NotInTime(f"{what}: the server did not close within {self.patience} s")
