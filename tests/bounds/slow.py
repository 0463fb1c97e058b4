"""Peers that send or read a byte now and then, beside well-behaved ones that must not notice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bounds.application import pattern
from tests.bounds.report import MIB, Report
from tests.bounds.served import Served, watched
from tests.bounds.swarm import (
    FOREVER,
    GONE,
    IN,
    RDHUP,
    UNKNOWN,
    Answers,
    Peer,
    Prober,
    Steps,
    Swarm,
    converse,
    request,
)
from tests.peers import wire

TICK = 1.0
"""Seconds by which the server may notice late that a deadline has passed."""

LINGER = 5.0
"""Seconds that the server goes on reading from whom it has answered early."""

CONNECTION_BYTES = 32768
"""What a connection with a small request on it may take beside the budgets that have a name."""

ANSWER_SIZE = 512 * 1024


@dataclass(frozen=True)
class Size:
    """How large a run is.  The seconds are the server's own limits, or what it was given."""

    peers: int = 1000
    ramp: float = 2.0
    head_timeout: float = 10.0
    rate_window: float = 30.0
    min_rate: int = 1024
    body_memory: int = 65536
    answer_memory: int = 64 * MIB
    spool_size: int = 1024 * MIB
    rate: float = 50.0
    """Well-behaved requests a second, and as many again on kept connections."""
    p99: float = 0.1
    """Seconds within which 99 % of them are answered."""
    lateness: float = 1.0
    """Seconds by which a busy machine may be later than the server's own tick."""
    patience: float = 30.0
    """Seconds after which a well-behaved request counts as lost."""
    stubborn: bool = True
    """Whether peers that have been cut off keep their ends open."""
    slack: int = 16 * MIB
    """Bytes that the allocator may hold on to."""

    def spool_bound(self) -> float:
        """Return the bytes that the spool may seem to take.

        Whoever looks at one file after the other sees room that was given back and taken again in
        the meantime twice.
        """
        return self.spool_size * 1.02 + 512 * 1024

    def options(self) -> dict[str, object]:
        """Return what makes a server have these limits; nothing where they are as shipped."""
        names = ("head_timeout", "rate_window", "min_rate", "body_memory", "answer_memory")
        return {
            name: getattr(self, name)
            for name in (*names, "spool_size")
            if getattr(self, name) != getattr(Size, name)
        }


@dataclass
class Slow:
    """One slow peer: when its deadline began to run, and when the server was rid of it."""

    began: float = FOREVER
    gone: float = FOREVER
    answer: bytes = b""

    @property
    def lasted(self) -> float:
        """Seconds from one to the other; FOREVER when either did not come."""
        return self.gone - self.began if self.began < FOREVER else FOREVER


Talk = Callable[[Swarm, Served, Slow, int], Steps[None]]


@dataclass(frozen=True)
class Kind:
    """A way of being slow.

    `limit` is the size's limit that ends it, `words` are in the log's line for it, and `budget`
    the memory that the peers together may take.
    """

    name: str
    talk: Talk
    limit: str
    words: tuple[str, ...]
    budget: Callable[[Size], int]
    protocols: tuple[str, ...] = ("fcgi", "scgi")
    windows: int = 1
    """How many times the limit it may take: what came at once fills the first window."""


def run(server: Served, kinds: list[Kind], size: Size) -> Report:
    """Have `size.peers` peers of each kind be slow, until the server has cut off the last of them."""
    name = "slow: " + (", ".join(kind.name for kind in kinds))
    report = Report(name, server.protocol, server.threads)
    kinds = [kind for kind in kinds if server.protocol in kind.protocols]
    with Swarm() as swarm:
        _warm_up(swarm, server)
        before = server.look()
        said = {kind.words: server.lines(*kind.words) for kind in kinds}
        with watched(server, 0.5 if size.peers > 100 else 0.1) as most:
            prober = Prober(swarm, server, rate=size.rate, patience=size.patience)
            swarm.run(0.5)  # the pace before it begins
            peers = {kind.name: _let_loose(swarm, server, kind, size) for kind in kinds}
            longest = max(getattr(size, kind.limit) * kind.windows for kind in kinds)
            everybody = [slow for each in peers.values() for slow in each]
            # Longer than they may stay, to be able to say how long they do.
            swarm.run(
                size.ramp + 2 * longest + TICK + size.lateness,
                lambda: all(slow.gone < FOREVER for slow in everybody),
            )
            prober.finish()
        _judge_probes(report, prober, size)
        for kind in kinds:
            _judge_deadlines(report, kind, peers[kind.name], size)
        if all(slow.gone < FOREVER for slow in everybody):
            _judge_log(report, server, kinds, size, said)
        _judge_memory(report, kinds, size, before, most)
        if not size.stubborn:
            for peer in list(swarm.peers):
                peer.close()
        # A thread that has waited for a body keeps the descriptor that it made for this.
        bound = before["descriptors"] + server.threads
        here = any(slow.gone == FOREVER for slow in everybody)
        left = server.settled(bound, 0.0 if here else LINGER + 2 * TICK)
        report.most("descriptors left", left["descriptors"], bound)
        report.most("threads left", left["threads"], before["threads"])
    return report


def _judge_log(
    report: Report,
    server: Served,
    kinds: list[Kind],
    size: Size,
    before: dict[tuple[str, ...], int],
) -> None:
    for words, said in before.items():
        peers = sum(size.peers for kind in kinds if kind.words == words)
        # A line may be written a moment after the connection has been cut.
        lines = server.await_lines(said + peers, *words) - said
        report.exactly(f"lines of the log with {' and '.join(words)}", lines, peers)


def _warm_up(swarm: Swarm, server: Served) -> None:
    """Have everything imported and every thread's memory touched before it is measured."""
    prober = Prober(swarm, server, rate=200)
    swarm.run(0.3)
    prober.finish()


def _let_loose(swarm: Swarm, server: Served, kind: Kind, size: Size) -> list[Slow]:
    peers = [Slow() for _ in range(size.peers)]
    for number, slow in enumerate(peers):
        swarm.start(kind.talk(swarm, server, slow, number), number * size.ramp / size.peers)
    return peers


def _judge_probes(report: Report, prober: Prober, size: Size) -> None:
    report.check(not prober.failures, f"fresh requests failed: {prober.failures[:3]}")
    report.least("fresh requests", prober.answered, 50)
    report.note("p50 ms", prober.percentile(0.5) * 1000)
    report.most("p99 ms", prober.percentile(0.99) * 1000, size.p99 * 1000)


def _judge_deadlines(report: Report, kind: Kind, peers: list[Slow], size: Size) -> None:
    limit = getattr(size, kind.limit)
    lasted = sorted(slow.lasted for slow in peers)
    here = sum(each == FOREVER for each in lasted)
    report.check(not here, f"{kind.name}: {here} of {len(peers)} peers were never cut off")
    report.least(f"{kind.name}: first gone, s", lasted[0], limit * 0.9)
    report.most(
        f"{kind.name}: last gone, s", lasted[-1], limit * kind.windows + TICK + size.lateness
    )


def _judge_memory(
    report: Report, kinds: list[Kind], size: Size, before: dict[str, int], most: dict[str, int]
) -> None:
    budget = sum(kind.budget(size) + size.peers * CONNECTION_BYTES for kind in kinds) + size.slack
    report.note("memory before, MiB", before["resident"] / MIB)
    grown = max(0, most["resident"] - before["resident"])
    report.most("memory taken, MiB", grown / MIB, budget / MIB)
    report.most("spooled, MiB", most["spooled"] / MIB, size.spool_bound() / MIB)


# Heads.


def _send_slowly(peer: Peer, slow: Slow, data: bytes | Iterator[bytes]) -> Steps[None]:
    """Send a piece a second until the server is rid of us; whatever it answers is noted."""
    pieces = (bytes((each,)) for each in data) if isinstance(data, bytes) else data
    for piece in pieces:
        peer.try_send(piece)
        until = time.monotonic() + 1.0
        while time.monotonic() < until and slow.gone == FOREVER:
            mask = yield from peer.wait(IN | RDHUP, until)
            if mask:
                slow.answer += peer.try_receive() or b""
                if peer.closed or mask & GONE:
                    slow.gone = time.monotonic()
        if slow.gone < FOREVER:
            return
    raise AssertionError("the slow peer could send everything")


def head(swarm: Swarm, server: Served, slow: Slow, number: int) -> Steps[None]:
    """Send a request's head a byte a second."""
    peer = Peer(swarm, server.where)
    yield from peer.connect()
    slow.began = time.monotonic()
    yield from _send_slowly(peer, slow, request(server.protocol, "/token/" + "x" * 200, cut=True))


# Bodies.


def _body(length: int, at_once: int = 0) -> Talk:
    def talk(swarm: Swarm, server: Served, slow: Slow, number: int) -> Steps[None]:
        peer = Peer(swarm, server.where)
        yield from peer.connect()
        sent = request(server.protocol, "/read", length=length, cut=True)
        first = bytes(at_once)
        yield from peer.send(sent + (wire.stdin(first) if server.protocol == "fcgi" else first))
        slow.began = time.monotonic()
        # One record for each byte, or one record of which the bytes are a part.
        if server.protocol == "fcgi" and number % 2:
            yield from peer.send(wire.record(wire.STDIN, bytes(900))[:8])
        records = server.protocol == "fcgi" and not number % 2
        piece = wire.record(wire.STDIN, b"x") if records else b"x"
        yield from _send_slowly(peer, slow, (piece for _ in range(899)))

    return talk


# Answers.


def answer(swarm: Swarm, server: Served, slow: Slow, number: int) -> Steps[None]:
    """Read an answer of 512 KiB at 100 bytes a second."""
    peer = Peer(swarm, server.where)
    yield from peer.connect()
    yield from peer.send(request(server.protocol, f"/bytes/{number}/{ANSWER_SIZE}"))
    yield from peer.wait(IN)
    slow.began = time.monotonic()
    # What has arrived hides the end from whoever reads slowly, but not from epoll.
    while not (yield from peer.wait(RDHUP, time.monotonic() + 1.0)):
        slow.answer += peer.try_receive(100) or b""
    slow.gone = time.monotonic()


def _nothing(size: Size) -> int:
    return 0


def _bodies_in_memory(size: Size) -> int:
    return size.peers * size.body_memory


def _answers_in_memory(size: Size) -> int:
    return size.answer_memory


WINDOW = "rate_window"

HEAD = Kind("head", head, "head_timeout", ("head", "head_timeout"), _nothing)
SMALL = Kind("small body", _body(1000), WINDOW, ("body", "min_rate"), _nothing)
LARGE = Kind("large body", _body(MIB), WINDOW, ("body", "min_rate"), _nothing)
HUGE = Kind("huge body", _body(128 * MIB), WINDOW, ("body", "min_rate"), _nothing)
ENDLESS = Kind(
    "body of unknown length", _body(UNKNOWN), WINDOW, ("body", "min_rate"), _nothing, ("fcgi",)
)
BEGUN = Kind(
    "body that began at once",
    _body(MIB, 256 * 1024),
    WINDOW,
    ("body", "min_rate"),
    _bodies_in_memory,
    windows=2,
)
ANSWER = Kind("answer", answer, WINDOW, ("answer", "min_rate"), _answers_in_memory)

KINDS = {kind.name: kind for kind in (HEAD, SMALL, LARGE, HUGE, ENDLESS, BEGUN, ANSWER)}


# Slow, and within the limits.


def tolerated(server: Served, size: Size, windows: int = 3, peers: int = 10) -> Report:
    """Peers that are slow but faster than min_rate, for several windows: they are all served."""
    report = Report("slow but tolerated", server.protocol, server.threads)
    seconds = windows * size.rate_window
    with Swarm() as swarm:
        tasks = {}
        for number in range(peers):
            tasks[f"sender {number}"] = swarm.start(_steady_sender(swarm, server, size, seconds))
            reader = _steady_reader(swarm, server, number, seconds)
            tasks[f"reader {number}"] = swarm.start(reader)
        watching = _watcher_of_a_stream(swarm, server, seconds)
        tasks["watcher of a stream"] = swarm.start(watching)
        began = time.monotonic()
        swarm.run(seconds * 3 + 20)
        report.note("served, s", time.monotonic() - began)
    for name, task in tasks.items():
        report.check(
            bool(task.result), f"{name} was not served; the log: {server.log_text()[-500:]}"
        )
    return report


def _steady_sender(swarm: Swarm, server: Served, size: Size, seconds: float) -> Steps[bool]:
    """Send a body at four times min_rate."""
    pace = 4 * size.min_rate
    body = pattern(1, int(pace * seconds))
    peer, answers = Peer(swarm, server.where), Answers(server.protocol)
    answers.expect()
    yield from peer.connect()

    def sends() -> Iterator[bytes | float]:
        yield request(server.protocol, "/read", length=len(body), cut=True)
        step = pace // 10
        for at in range(0, len(body), step):
            piece = body[at : at + step]
            yield wire.stdin(piece) if server.protocol == "fcgi" else piece
            yield 0.1
        yield wire.record(wire.STDIN) if server.protocol == "fcgi" else b""

    yield from converse(peer, answers, sends(), FOREVER)
    peer.close()
    answer = answers.by_id[1]
    return answer.complete and answer.body.startswith(b"%d " % len(body))


def _steady_reader(swarm: Swarm, server: Served, number: int, seconds: float) -> Steps[bool]:
    """Read an answer at an even pace, so that it takes so long in all.

    What lies in the kernel is taken when a buffer of up to 48 KiB has been read to its end, so
    that the pace must be well above min_rate for the server to see it move in each window.
    """
    length = 2 * ANSWER_SIZE
    peer, answers = Peer(swarm, server.where), Answers(server.protocol)
    answer = answers.expect()
    yield from peer.connect()
    sends = [request(server.protocol, f"/bytes/{number}/{length}")]
    steps = int(seconds / 0.05)
    yield from converse(
        peer, answers, sends, FOREVER, read=lambda: 0.05, read_size=length // steps + 100
    )
    peer.close()
    return answer.complete and answer.body == pattern(number, length)


def _watcher_of_a_stream(swarm: Swarm, server: Served, seconds: float) -> Steps[bool]:
    """Take what comes of an answer that lasts: a few bytes a window, and all of them at once."""
    lines = 12
    peer, answers = Peer(swarm, server.where), Answers(server.protocol)
    answer = answers.expect()
    yield from peer.connect()
    sends = [request(server.protocol, f"/ticks/{lines}/{seconds / lines}")]
    yield from converse(peer, answers, sends, FOREVER)
    peer.close()
    return answer.complete and answer.body == b"".join(b"%d\n" % each for each in range(lines))
