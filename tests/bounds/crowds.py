"""More connections than there is room for, more requests than threads, and workers that share."""

from __future__ import annotations

import random
import time
from collections import Counter

from tests.bounds.report import Report
from tests.bounds.served import PATIENCE, Served
from tests.bounds.swarm import (
    FOREVER,
    Answers,
    Peer,
    Steps,
    Swarm,
    T,
    ask,
    converse,
    pause,
    request,
)
from tests.peers import wire

AT_ONCE = 2.0
"""Seconds within which a full server has refused."""

BETWEEN = 0.003
"""Seconds between uses of connections, so that it is the same thread's turn neither to be earlier
nor later: an answer is read before the server has noted that the connection is idle."""


class Kept:
    """A connection that asks one request after another."""

    def __init__(self, swarm: Swarm, server: Served) -> None:
        self.swarm = swarm
        self.peer = Peer(swarm, server.where)
        self.answers = Answers("fcgi")

    def connect(self) -> Kept:
        """Connect, and return this object."""
        _finish(self.swarm, self.peer.connect())
        return self

    def ask(self, path: str) -> bytes | None:
        """Ask and wait; None when there is no answer."""
        return _finish(self.swarm, self.asking(path))

    def asking(self, path: str) -> Steps[bytes | None]:
        """Ask in the background."""
        answer = self.answers.expect()
        sends = [request("fcgi", path, keep=True)]
        yield from converse(self.peer, self.answers, sends, time.monotonic() + PATIENCE)
        return answer.body if answer.complete and answer.ended == (0, 0) else None

    def is_closed(self) -> bool:
        """Whether the server has closed it; what it said before that is dropped."""
        while not self.peer.closed and self.peer.try_receive() is not None:
            pass
        return self.peer.closed


def _finish(swarm: Swarm, steps: Steps[T]) -> T | None:
    """Run what is started with `steps` to its end."""
    task = swarm.start(steps)
    swarm.run(until=lambda: task.done)
    return task.result


# Idle connections.


def eviction(server: Served, limit: int, *, arrivals: int, seed: int = 4) -> Report:
    """A server full of idle connections closes the one that was used longest ago for each new one."""
    report = Report(f"{limit} idle connections", server.protocol, server.threads)
    with Swarm() as swarm:
        kept = [Kept(swarm, server).connect() for _ in range(limit)]
        order = random.Random(seed).sample(range(limit), limit)
        for number in [*range(limit), *order]:
            answered = kept[number].ask(f"/token/{number}")
            report.check(answered == str(number).encode(), f"connection {number}: {answered!r}")
            _finish(swarm, pause(BETWEEN))
        closed: list[int] = []
        slowest = 0.0
        for number in range(arrivals):
            began = time.monotonic()
            fresh = Kept(swarm, server).connect()
            answered = fresh.ask(f"/token/fresh{number}")
            slowest = max(slowest, time.monotonic() - began)
            if answered != f"fresh{number}".encode():
                report.failures.append(f"arrival {number} was answered {answered!r}")
                break
            _finish(swarm, pause(BETWEEN))
            due = kept[order[number]]
            swarm.start(pause(AT_ONCE))
            swarm.run(AT_ONCE, due.is_closed)
            closed += [
                each for each in range(limit) if each not in closed and kept[each].is_closed()
            ]
        report.note("slowest arrival, ms", slowest * 1000)
        report.note("closed", len(closed))
        expected = order[:arrivals]
        report.check(closed == expected, f"closed {closed[:10]}, expected {expected[:10]}")
    return report


# Connections with requests under way.


def overloaded(server: Served, limit: int, *, busy: bool, fresh: int = 20) -> Report:
    """A server full of requests under way refuses others at once, properly; later it serves again.

    With `busy` each thread is in the application as well.
    """
    name = f"{limit} connections under way" + (", all threads busy" if busy else "")
    report = Report(name, server.protocol, server.threads)
    held = f"overloaded-{time.monotonic_ns()}"
    with Swarm() as swarm:
        running = server.threads if busy else 0
        begun = [_Begun(swarm, server) for _ in range(limit - running)]
        for each in begun:
            swarm.start(each.begin())
        swarm.run(PATIENCE, lambda: all(each.has_begun for each in begun))
        holds = [swarm.start(ask(swarm, server, f"/hold/{held}")) for _ in range(running)]
        # What the server has read it has not counted yet.
        _finish(swarm, pause(0.3))
        _expect_refusals(swarm, server, report, fresh)
        # Who connects and says nothing takes no room from those who are to be refused.
        silent = [Peer(swarm, server.where) for _ in range(10)]
        for peer in silent:
            swarm.start(peer.connect())
        swarm.run(0.1)
        _expect_refusals(swarm, server, report, 5)
        for peer in silent:
            peer.close()
        server.release(held)
        finished = [swarm.start(each.finish()) for each in begun]
        swarm.run(PATIENCE + limit / 50, lambda: all(task.done for task in finished + holds))
        served = sum(bool(task.result) for task in finished)
        report.least("served of those under way", served, len(begun))
        report.check(
            all(task.result is not None and task.result.body == b"held" for task in holds),
            "those in the application were not answered",
        )
        after = swarm.start(ask(swarm, server, "/token/after", seconds=PATIENCE))
        swarm.run(until=lambda: after.done)
        report.check(
            after.result is not None and after.result.body == b"after",
            f"when there was room again: {after.result}",
        )
    return report


class _Begun:
    """A request whose body is on its way for as long as it is wanted to be."""

    def __init__(self, swarm: Swarm, server: Served) -> None:
        self.peer = Peer(swarm, server.where)
        self.answers = Answers(server.protocol)
        self.fcgi = server.protocol == "fcgi"
        self.has_begun = False

    def begin(self) -> Steps[None]:
        yield from self.peer.connect()
        sent = request("fcgi" if self.fcgi else "scgi", "/read", length=10, cut=True)
        yield from self.peer.send(sent + (wire.stdin(b"01234") if self.fcgi else b"01234"))
        yield from self.peer.taken(time.monotonic() + PATIENCE)
        self.has_begun = True

    def finish(self) -> Steps[bool]:
        answer = self.answers.expect()
        rest = wire.stdin(b"56789") + wire.record(wire.STDIN) if self.fcgi else b"56789"
        yield from converse(self.peer, self.answers, [rest], time.monotonic() + PATIENCE)
        self.peer.close()
        return answer.complete and answer.body.startswith(b"10 ")


def _expect_refusals(swarm: Swarm, server: Served, report: Report, fresh: int) -> None:
    """Check what comes of requests for which there is no room.

    One that comes whole and wants the connection closed afterwards takes up none, and may be
    answered all the same.
    """
    began = time.monotonic()
    ways = [_WAYS[server.protocol][at % len(_WAYS[server.protocol])] for at in range(fresh)]
    tasks = [swarm.start(_ask_in_vain(swarm, server, way)) for way in ways]
    swarm.run(until=lambda: all(task.done for task in tasks))
    report.most("refused within, s", time.monotonic() - began, AT_ONCE)
    wrong = []
    for way, task in zip(ways, tasks, strict=True):
        answer = task.result
        served = answer is not None and answer.status == 200 and answer.body == b"x"
        if not (_is_refusal(answer, server.protocol) or (served and way == "whole")):
            wrong.append(f"{way}: {answer}")
    report.check(not wrong, f"{len(wrong)} of {fresh} were not refused: {wrong[:2]}")


_WAYS = {"fcgi": ("whole", "body on its way", "to be kept"), "scgi": ("whole", "body on its way")}


def _ask_in_vain(swarm: Swarm, server: Served, way: str) -> Steps[wire.Answer | None]:
    peer, answers = Peer(swarm, server.where), Answers(server.protocol)
    answer = answers.expect()
    # A body that is still on its way must not turn the answer into a reset.
    body = bytes(300_000) if way == "body on its way" else b""
    sent = request(server.protocol, "/token/x", body, keep=way == "to be kept")
    yield from peer.connect()
    yield from converse(peer, answers, [sent], time.monotonic() + AT_ONCE * 2)
    found = answer.whole()
    found.reset = peer.reset
    peer.close()
    return found if answer.complete else None


def _is_refusal(answer: wire.Answer | None, protocol: str) -> bool:
    if answer is None or answer.status != 503 or answer.reset:
        return False
    retry = any(line.lower().startswith(b"retry-after: ") for line in answer.headers)
    return protocol == "scgi" or (answer.ended == (0, 2) and retry)


def merely_busy(server: Served, waiting: int) -> Report:
    """All threads are busy, and nobody is refused: who comes waits, and is answered."""
    report = Report("all threads busy", server.protocol, server.threads)
    name = f"busy-{time.monotonic_ns()}"
    with Swarm() as swarm:
        holds = [swarm.start(ask(swarm, server, f"/hold/{name}")) for _ in range(server.threads)]
        swarm.run(0.3)
        tasks = [
            swarm.start(ask(swarm, server, f"/token/{number}", seconds=PATIENCE))
            for number in range(waiting)
        ]
        swarm.run(1.2)  # a tick, in which the server could have come to a wrong conclusion
        report.most("answered while all were busy", sum(task.done for task in tasks), 0)
        server.release(name)
        swarm.run(until=lambda: all(task.done for task in tasks + holds))
        answered = [task.result.body if task.result else None for task in tasks]
        expected = [str(number).encode() for number in range(waiting)]
        report.check(answered == expected, f"answered {answered[:5]}")
    return report


def busy_log(server: Served, *, minute: bool = False) -> Report:
    """That all threads are busy is in the log, with what they are doing, once a minute at most."""
    report = Report("the log when all threads are busy", server.protocol, server.threads)
    before = server.lines("threads", "busy")
    with Swarm() as swarm:
        for episode in range(2):
            _be_busy(swarm, server, f"episode{episode}-{time.monotonic_ns()}", 2.3)
        report.exactly("lines of two episodes", server.lines("threads", "busy") - before, 1)
        text = server.log_text()
        paths = text.count("/hold/episode0")
        report.check(paths >= 1, "the log does not say what the threads are doing")
        if minute:
            _be_busy(swarm, server, f"later-{time.monotonic_ns()}", 65.0)
            report.exactly("lines after a minute", server.lines("threads", "busy") - before, 2)
    return report


def _be_busy(swarm: Swarm, server: Served, name: str, seconds: float) -> None:
    holds = [swarm.start(ask(swarm, server, f"/hold/{name}")) for _ in range(server.threads)]
    waiting = swarm.start(ask(swarm, server, "/token/waits", seconds=seconds + PATIENCE))
    swarm.run(seconds)
    server.release(name)
    swarm.run(PATIENCE, lambda: waiting.done and all(task.done for task in holds))


# Several workers.


def fair_share(server: Served, *, longest: float = 0.05, connections: int = 8) -> Report:
    """Kept connections spread over two workers, also when the threads of one are all blocked."""
    report = Report("fair share of two workers", server.protocol, server.threads)
    with Swarm() as swarm:
        kept: dict[bytes, list[Kept]] = {}
        for _ in range(connections):
            each = Kept(swarm, server).connect()
            pid = each.ask("/pid")
            report.check(pid is not None, "no answer")
            kept.setdefault(pid or b"", []).append(each)
        held = Counter({pid: len(each) for pid, each in kept.items()})
        report.note("connections of each worker", " + ".join(map(str, sorted(held.values()))))
        report.most("most connections of a worker", max(held.values()), connections // 2 + 1)
        _fair_share_of_the_blocked(swarm, server, report, kept, longest, connections)
    return report


def _fair_share_of_the_blocked(
    swarm: Swarm,
    server: Served,
    report: Report,
    kept: dict[bytes, list[Kept]],
    longest: float,
    connections: int,
) -> None:
    name = f"blocked-{time.monotonic_ns()}"
    blocked = max(kept, key=lambda pid: len(kept[pid]))
    first = kept[blocked][0]
    holds = [first.answers.expect(number) for number in range(1, server.threads + 1)]
    data = b"".join(
        request("fcgi", f"/hold/{name}", request_id=number, keep=True)
        for number in range(1, server.threads + 1)
    )
    end = time.monotonic() + PATIENCE
    holding = swarm.start(converse(first.peer, first.answers, [data], end))
    swarm.run(0.3)
    waits = []
    others = Counter[bytes]()
    for _ in range(connections):
        fresh = Kept(swarm, server).connect()
        began = time.monotonic()
        pid = fresh.ask("/pid")
        waits.append(time.monotonic() - began)
        others[pid or b"no answer"] += 1
    report.most("slowest beside a blocked worker, ms", max(waits) * 1000, longest * 1000)
    report.check(
        others[blocked] == others[b"no answer"] == 0,
        f"answered by {dict(others)}, blocked is {blocked!r}",
    )
    server.release(name)
    swarm.run(PATIENCE, lambda: holding.done)
    report.check(all(each.body == b"held" for each in holds), "who was held was not answered")


# Peers that are silent.


def silent(server: Served, count: int) -> Report:
    """Connections that never say a word: those who do are answered, or refused, but never left."""
    report = Report(f"{count} silent connections", server.protocol, server.threads)
    with Swarm() as swarm:
        peers = [Peer(swarm, server.where) for _ in range(count)]
        for peer in peers:
            swarm.start(peer.connect())
        swarm.run(PATIENCE, lambda: not swarm.running)
        began = time.monotonic()
        task = swarm.start(ask(swarm, server, "/token/fresh", seconds=PATIENCE))
        swarm.run(FOREVER, lambda: task.done)
        # Each of those before it in the queue is given a moment to speak.
        report.most("answered within, s", time.monotonic() - began, 5.0)
        found = task.result
        report.check(
            found is not None and not found.reset and found.status in (200, 503), f"came: {found}"
        )
    return report
