"""Peers that begin and never finish, send what nobody reads, leave at any moment, or break every rule.

After each of them the server has what it had before: `leaves_no_trace` sees to that.
"""

from __future__ import annotations

import hashlib
import random
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bounds import application, broken
from tests.bounds.application import pattern
from tests.bounds.report import MIB, Report
from tests.bounds.served import PATIENCE, Served, watched
from tests.bounds.slow import CONNECTION_BYTES, LINGER, TICK, Size
from tests.bounds.swarm import (
    IN,
    RDHUP,
    Answers,
    Peer,
    Steps,
    Swarm,
    ask,
    converse,
    pause,
    request,
)
from tests.peers import wire

Attack = Callable[[Swarm, Report], None]

OPEN_REQUESTS = 64
"""How many requests a connection may have open, as shipped."""


def leaves_no_trace(
    report: Report,
    server: Served,
    attack: Attack,
    *,
    settle: float = LINGER + 2 * TICK,
) -> Report:
    """Attack once, so that what is kept for the next time is there; then once more, and compare.

    `settle` are the seconds within which everything has been let go.
    """
    with Swarm() as swarm:
        for _ in range(2 * server.threads):
            _expect_token(swarm, server, report)
        idle = server.look()
        attack(swarm, report)
        # A thread that waits for a body makes itself a descriptor, once.
        before = server.settled(idle["descriptors"] + server.threads, settle)
        attack(swarm, report)
        _expect_token(swarm, server, report)
        after = server.settled(before["descriptors"], settle)
        report.most("descriptors", after["descriptors"], before["descriptors"])
        report.most("threads", after["threads"], before["threads"])
        report.most("files left, bytes", after["spooled"], 0)
        grown = after["resident"] - before["resident"]
        # Each thread has a heap of its own, and how far they fill is a matter of chance.
        report.most("memory grown, MiB", grown / MIB, 4 + server.threads)
    return report


def _expect_token(swarm: Swarm, server: Served, report: Report) -> None:
    task = swarm.start(ask(swarm, server, "/token/fresh", seconds=PATIENCE))
    swarm.run(until=lambda: task.done)
    answered = task.result is not None and task.result.body == b"fresh"
    report.check(answered, f"no fresh answer: {task.result}; the log: {server.log_text()[-500:]}")


# Requests that are begun and never finished.


def unfinished(server: Served, size: Size, *, connections: int) -> Report:
    """Connections full of requests that stop in mid-head or mid-body; half of the peers stay."""
    report = Report("unfinished requests", server.protocol, server.threads)

    def attack(swarm: Swarm, report: Report) -> None:
        peers: list[Peer] = []
        for number in range(connections):
            many = number % 2 and server.protocol == "fcgi" and server.threads > 1
            swarm.start(_begin_many(swarm, server, peers, number, OPEN_REQUESTS if many else 1))
        swarm.run()
        _expect_token(swarm, server, report)
        if server.threads > 1 and server.protocol == "fcgi":
            _expect_overload(swarm, server, report)
        for peer in peers[::2]:
            peer.close()
        left = [swarm.start(_until_closed(peer)) for peer in peers[1::2]]
        longest = max(size.head_timeout, size.rate_window) + 2 * TICK + size.lateness
        swarm.run(longest + LINGER, lambda: all(task.done for task in left))
        here = sum(not task.done for task in left)
        report.check(not here, f"{here} of {len(left)} unfinished peers were never cut off")
        for peer in peers[1::2]:
            peer.close()
        swarm.run(1.0, lambda: not swarm.running)

    return leaves_no_trace(report, server, attack)


def _begin_many(
    swarm: Swarm, server: Served, peers: list[Peer], number: int, count: int
) -> Steps[None]:
    peer = Peer(swarm, server.where)
    peers.append(peer)
    yield from peer.connect()
    for request_id in range(1, count + 1):
        yield from peer.send(_beginning(server.protocol, number + request_id, request_id))


def _beginning(protocol: str, stage: int, request_id: int) -> bytes:
    """Return a request that stops somewhere, each `stage` somewhere else."""
    if protocol == "scgi":
        whole = request("scgi", "/read", b"x" * 100)
        size = len(whole) - 100
        return whole[: (3, 50, size, size + 50)[stage % 4]]
    head = request("fcgi", "/read", length=70_000, cut=True, request_id=request_id, keep=True)
    begun = wire.begin(request_id, flags=wire.KEEP)
    params = wire.record(wire.PARAMS, wire.pair(b"HTTP_FILLER", b"x" * 2000), request_id)
    parts = (begun, begun + params, head, head + wire.stdin(bytes(1000), request_id))
    return parts[stage % 4]


def _until_closed(peer: Peer) -> Steps[None]:
    while not peer.closed:
        if peer.try_receive() is None:
            yield from peer.wait(IN | RDHUP)


def _expect_overload(swarm: Swarm, server: Served, report: Report) -> None:
    """Check that one request more than a connection may have is refused, and only that one."""
    task = swarm.start(_one_too_many(swarm, server))
    swarm.run(until=lambda: task.done)
    report.check(
        task.result == ((0, 2), 503),
        f"request {OPEN_REQUESTS + 1} of a connection ended with {task.result}",
    )


def _one_too_many(swarm: Swarm, server: Served) -> Steps[tuple[tuple[int, int] | None, int]]:
    peer, answers = Peer(swarm, server.where), Answers("fcgi")
    yield from peer.connect()
    for request_id in range(1, OPEN_REQUESTS + 1):
        yield from peer.send(wire.begin(request_id, flags=wire.KEEP))
    answer = answers.expect(OPEN_REQUESTS + 1)
    sent = request("fcgi", "/token/no", request_id=OPEN_REQUESTS + 1, keep=True)
    yield from converse(peer, answers, [sent], time.monotonic() + PATIENCE)
    peer.close()
    return answer.ended, answer.status


# Bodies that nobody reads.


def unread_bodies(server: Served, *, each: int, largest: int = 10 * MIB) -> Report:
    """Bodies of every size for an application that answers without looking at them."""
    report = Report("bodies that nobody reads", server.protocol, server.threads)

    def attack(swarm: Swarm, report: Report) -> None:
        tasks = []
        for number in range(each):
            for length in (1000, 65536, 300_000, MIB, largest):
                path = ("/ignore", "/some/1000")[number % 2]
                tasks.append(swarm.start(_send_unread(swarm, server, path, length)))
        swarm.run(PATIENCE + each, lambda: all(task.done for task in tasks))
        wrong = [task.result or "nothing came" for task in tasks if task.result != ""]
        report.check(not wrong, f"{len(wrong)} of {len(tasks)} were not answered: {wrong[:3]}")

    return leaves_no_trace(report, server, attack)


def _send_unread(swarm: Swarm, server: Served, path: str, length: int) -> Steps[str]:
    """Send a body that is not read, and over FastCGI a request after it; return what is wrong."""
    peer, answers = Peer(swarm, server.where), Answers(server.protocol)
    first = answers.expect(1)
    yield from peer.connect()
    keep = server.protocol == "fcgi"
    until = time.monotonic() + PATIENCE
    sends = [request(server.protocol, path, bytes(length), keep=keep)]
    yield from converse(peer, answers, sends, until)
    expected = b"ignored" if path == "/ignore" else b"1000"
    if not first.complete or first.body != expected:
        peer.close()
        return f"{path} with {length} bytes: {first.whole()}, reset {peer.reset}"
    second = answers.expect(2)
    if keep:
        sends = [request("fcgi", "/token/second", request_id=2)]
        yield from converse(peer, answers, sends, until)
    peer.close()
    if keep and second.body != b"second":
        return f"after {path} with {length} bytes: {second.whole()}"
    return ""


def waiting_bodies(server: Served, size: Size) -> Report:
    """Bodies of which the last byte is missing: each is in memory up to body_memory only."""
    report = Report("bodies that wait for their end", server.protocol, server.threads)
    bodies = [pattern(number, 256 * 1024) for number in range(size.peers)]
    with Swarm() as swarm:
        _expect_token(swarm, server, report)
        before = server.look()
        with watched(server) as most:
            senders = [_Sender(swarm, server, body) for body in bodies]
            begun = [
                swarm.start(sender.begin(), number * 0.5 / size.peers)
                for number, sender in enumerate(senders)
            ]
            swarm.run(PATIENCE, lambda: all(task.done for task in begun))
            report.least("taken", sum(bool(task.result) for task in begun), size.peers)
        finished = [swarm.start(sender.finish()) for sender in senders]
        swarm.run(PATIENCE + size.peers / 10, lambda: all(task.done for task in finished))
        report.least("answered", sum(bool(task.result) for task in finished), size.peers)
    budget = size.peers * (size.body_memory + CONNECTION_BYTES) + size.slack
    report.most("memory taken, MiB", (most["resident"] - before["resident"]) / MIB, budget / MIB)
    report.most("spooled, MiB", most["spooled"] / MIB, size.spool_bound() / MIB)
    spooled = size.peers * (256 * 1024 - size.body_memory)
    report.least("spooled, MiB", most["spooled"] / MIB, min(spooled, size.spool_size) / 2 / MIB)
    return report


class _Sender:
    """A peer that sends a body, and the last byte of it when it is told to."""

    def __init__(self, swarm: Swarm, server: Served, body: bytes) -> None:
        self.peer = Peer(swarm, server.where)
        self.answers = Answers(server.protocol)
        self.whole = request(server.protocol, "/read", body)
        # Over FastCGI what is missing is the record that ends the stream.
        self.missing = 8 if server.protocol == "fcgi" else 1
        self.expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()

    def begin(self) -> Steps[bool]:
        """Send all but the end; return whether the server has taken it."""
        until = time.monotonic() + PATIENCE
        yield from self.peer.connect()
        yield from self.peer.send(self.whole[: -self.missing], until)
        return (yield from self.peer.taken(until))

    def finish(self) -> Steps[bool]:
        """Send the end; return whether the answer is right."""
        answer = self.answers.expect()
        until = time.monotonic() + PATIENCE
        yield from converse(self.peer, self.answers, [self.whole[-self.missing :]], until)
        return answer.complete and answer.body == self.expected


# Leaving at any moment.


def aborts(server: Served, count: int, *, seed: int = 3, together: int = 32) -> Report:
    """Leave, half-close or abort `count` conversations at random points, always the same ones."""
    report = Report(f"{count} aborts", server.protocol, server.threads)

    def attack(swarm: Swarm, report: Report) -> None:
        numbers = iter(range(count))
        wrong: list[str] = []
        ways: dict[str, int] = {}

        def one_after_another() -> Steps[None]:
            for number in numbers:
                leaving = Leaving(swarm, server, random.Random(seed * 1_000_003 + number))
                ways[leaving.way] = ways.get(leaving.way, 0) + 1
                found = yield from leaving.run()
                if found:
                    wrong.append(f"number {number}, {leaving}: {found}")

        for _ in range(min(together, count)):
            swarm.start(one_after_another())
        swarm.run(60 + count / 20)
        report.check(not swarm.running, "not all conversations ended")
        report.check(not wrong, f"{len(wrong)} went wrong: {wrong[:3]}")
        for way, times in sorted(ways.items()):
            report.note(way, times)

    return leaves_no_trace(report, server, attack)


@dataclass(frozen=True)
class Question:
    """A request of which every byte of the answer is known."""

    path: str
    body: bytes
    expected: bytes


KINDS = ("token", "bytes", "one", "pieces", "read", "digest", "ignore", "sleep", "file")


def random_question(chance: random.Random, *, largest: int = 300_000) -> Question:
    """Return a request to one of the application's shapes of answer."""
    seed = chance.randrange(1_000_000)
    size = min(largest, chance.choice([0, 10, 1000, 70_000, 300_000, 1_000_000]))
    kind = chance.choice(KINDS)
    if kind == "token":
        return Question(f"/token/{seed}", b"", str(seed).encode())
    if kind == "sleep":
        return Question("/sleep/0.005", b"", b"slept")
    if kind == "file":
        return Question(f"/file/{application.FILE}", b"", pattern(*application.FILE_PATTERN))
    if kind in ("bytes", "one", "pieces"):
        path = f"/{kind}/{seed}/{size}" + "/9973" * (kind == "pieces")
        return Question(path, b"", pattern(seed, size))
    body = pattern(seed, size)
    if kind == "ignore":
        return Question("/ignore", body, b"ignored")
    if kind == "read":
        return Question("/read", body, f"{size} {hashlib.sha256(body).hexdigest()}".encode())
    line = f"/digest/{seed} {hashlib.md5(body).hexdigest()}\n".encode()
    return Question(f"/digest/{seed}", body, line * application.repeats(str(seed)))


class Leaving:
    """One conversation that does not come to its end, or for comparison does."""

    def __init__(self, swarm: Swarm, server: Served, chance: random.Random) -> None:
        self.swarm = swarm
        self.server = server
        self.chance = chance
        self.question = random_question(chance)
        ways = ["leave", "half-close", "leave while reading", "half-close when sent", "stay"]
        if server.protocol == "fcgi":
            ways += ["abort", "abort when sent"]
        self.way = chance.choice(ways)

    def __str__(self) -> str:
        return f"{self.way}, {self.question.path} with {len(self.question.body)} bytes"

    def run(self) -> Steps[str]:
        """Have the conversation; return what is wrong about it."""
        fcgi = self.server.protocol == "fcgi"
        self.peer, self.answers = Peer(self.swarm, self.server.where), Answers(self.server.protocol)
        self.answer = self.answers.expect()
        self.until = time.monotonic() + PATIENCE
        yield from self.peer.connect()
        whole = request(
            self.server.protocol, self.question.path, self.question.body, keep=fcgi and self._aborts
        )
        cut = self.chance.choice([self.chance.randrange(len(whole)), self.chance.randrange(600)])
        found = yield from self._talk(whole, min(cut, len(whole) - 1))
        self.peer.close()
        return found

    @property
    def _aborts(self) -> bool:
        return self.way.startswith("abort")

    def _talk(self, whole: bytes, cut: int) -> Steps[str]:
        sends: list[bytes | float | None] = [self.chance.choice([0.0, 0.0, 0.001, 0.01])]
        if self.way == "leave":
            yield from self._until_sent([whole[:cut], *sends])
            return ""
        if self.way == "leave while reading":
            size = self.chance.randrange(1, len(self.question.expected) + 200)
            yield from converse(
                self.peer,
                self.answers,
                [whole],
                self.until,
                read_size=min(size, 65536),
                enough=lambda: self.peer.received >= size or self.answer.complete,
            )
            return ""
        if self.way == "half-close":
            yield from converse(self.peer, self.answers, [whole[:cut], *sends, None], self.until)
            return (yield from self._closed())
        if self.way == "half-close when sent":
            yield from converse(self.peer, self.answers, [whole, *sends, None], self.until)
            return self._wrong() or (yield from self._closed())
        if self._aborts:
            place = record_boundary(whole, cut) if self.way == "abort" else len(whole)
            return (yield from self._abort(whole[:place], sends))
        yield from converse(self.peer, self.answers, [whole], self.until)
        return self._wrong()

    def _until_sent(self, sends: list[bytes | float | None]) -> Steps[None]:
        size = sum(len(each) for each in sends if isinstance(each, bytes))
        enough = lambda: self.peer.sent >= size  # noqa: E731 - it is what it says
        yield from converse(self.peer, self.answers, sends, self.until, enough=enough)

    def _abort(self, begun: bytes, sends: list[bytes | float | None]) -> Steps[str]:
        """Abort the request: it ends, and the connection goes on."""
        if not begun:
            return ""
        sends = [begun, *sends, wire.record(wire.ABORT)]
        yield from converse(self.peer, self.answers, sends, self.until)
        if not self.answer.complete:
            return f"END_REQUEST did not come, closed {self.peer.closed}"
        if self.answer.ended == (0, 0) and self._wrong():
            return self._wrong()
        second = self.answers.expect(2)
        after = request("fcgi", "/token/after", request_id=2, keep=True)
        yield from converse(self.peer, self.answers, [after], self.until)
        return "" if second.body == b"after" else f"then came {second.whole()!r:.300}"

    def _closed(self) -> Steps[str]:
        while not self.peer.closed:
            if self.peer.try_receive() is None and not (
                yield from self.peer.wait(IN | RDHUP, self.until)
            ):
                return "the server never closed"
        return ""

    def _wrong(self) -> str:
        if not self.answer.complete:
            return f"not answered: {self.answer.whole()!r:.300}, reset {self.peer.reset}"
        if self.answer.body != self.question.expected:
            return f"answered {self.answer.whole()!r:.300}"
        return ""


def record_boundary(data: bytes, at: int) -> int:
    """Return the first end of a record at or after `at`."""
    end = 0
    while end < at:
        size, padding = struct.unpack_from(">HB", data, end + 4)
        end += 8 + size + padding
    return end


# What is malformed.

Outcome = tuple[int, tuple[int, int] | None, tuple[int, ...], bool]
"""The status, how FastCGI ended the request, stray records, and whether the server closed."""


def malformed(server: Served, *, stride: int = 1, together: int = 64) -> Report:
    """Send what others fell over, ended after every byte and split at every byte.

    Ended early, the server closes; split, the outcome is that of the whole.  With `stride` only
    every so manieth place is tried, for each message other ones.
    """
    messages = broken.messages(server.protocol)
    report = Report("malformed input", server.protocol, server.threads)

    def attack(swarm: Swarm, report: Report) -> None:
        expected = {}
        for name, data in messages.items():
            task = swarm.start(_outcome(swarm, server, [data]))
            swarm.run(until=lambda task=task: task.done)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            expected[name] = task.result
            report.check(task.result is not None, f"{name}: the server did not close")
        tries = _tries(messages, stride)
        wrong: list[str] = []
        counted = [0]

        def one_after_another() -> Steps[None]:
            for name, pieces, same in tries:
                counted[0] += 1
                found = yield from _outcome(swarm, server, pieces)
                at = len(pieces[0])
                if found is None:
                    wrong.append(f"{name}, {at} bytes of it: the server did not close")
                elif same and found != expected[name]:
                    wrong.append(f"{name}, split at {at}: {found}, whole {expected[name]}")

        for _ in range(together):
            swarm.start(one_after_another())
        swarm.run()
        report.check(not wrong, f"{len(wrong)} went wrong: {wrong[:3]}")
        report.note("messages", len(messages))
        report.note("conversations", counted[0])

    return leaves_no_trace(report, server, attack)


def _tries(messages: dict[str, bytes], stride: int) -> Iterator[tuple[str, list[bytes], bool]]:
    for number, (name, data) in enumerate(messages.items()):
        for at in places(len(data))[number % stride :: stride]:
            yield name, [data[:at]], False
            yield name, [data[:at], data[at:]], True


def places(size: int) -> list[int]:
    """Return where a message of this size is cut: everywhere, in a long one where buffers end."""
    if size <= 3000:
        return list(range(1, size))
    near = {64, 8192, 16384, 32768, 65535, 65536, 65543, 65544, 131072}
    found = {at + off for at in near for off in range(-9, 10)} | set(range(1, 400))
    return sorted(at for at in found | set(range(size - 100, size)) if 0 < at < size)


def _outcome(swarm: Swarm, server: Served, pieces: list[bytes]) -> Steps[Outcome | None]:
    """Send the pieces, each when the one before has been taken, and half-close; None without an end."""
    peer, answers = Peer(swarm, server.where), Answers(server.protocol)
    answer = answers.expect()
    until = time.monotonic() + PATIENCE
    yield from peer.connect()
    try:
        for piece in pieces:
            yield from peer.send(piece, until)
            while peer.unread() and not peer.closed and time.monotonic() < until:
                data = peer.try_receive()
                if data:
                    answers.feed(data)
                yield from pause(0.0002)
        peer.shut()
        while not peer.closed:
            data = yield from peer.receive(until)
            if data is None:
                return None
            if data:
                answers.feed(data)
        return answer.status, answer.ended, tuple(sorted(set(answers.stray))), peer.closed
    finally:
        peer.close()
