"""What becomes of answers that nobody reads yet: tails, files, and readers that take too little."""

from __future__ import annotations

import time

from tests.bounds.application import pattern
from tests.bounds.report import MIB, Report
from tests.bounds.served import PATIENCE, Served, watched
from tests.bounds.slow import ANSWER_SIZE, CONNECTION_BYTES, TICK, Size
from tests.bounds.swarm import (
    FOREVER,
    IN,
    RDHUP,
    Answer,
    Answers,
    Peer,
    Prober,
    Steps,
    Swarm,
    ask,
    converse,
    request,
)


class Reader:
    """A peer that has asked and does not read before it is told to."""

    def __init__(self, swarm: Swarm, server: Served, path: str, expected: bytes) -> None:
        self.swarm = swarm
        self.protocol = server.protocol
        self.path = path
        self.expected = expected
        self.peer = Peer(swarm, server.where)
        self.answers = Answers(server.protocol)
        self.answer: Answer = self.answers.expect()
        self.asked = FOREVER

    def ask(self) -> Steps[None]:
        """Connect and send the request."""
        yield from self.peer.connect()
        yield from self.peer.send(request(self.protocol, self.path))
        self.asked = time.monotonic()

    def read(self, seconds: float = PATIENCE) -> Steps[bool]:
        """Read the answer; return whether it came whole, byte by byte."""
        yield from converse(self.peer, self.answers, [], time.monotonic() + seconds)
        return self.is_right()

    def is_right(self) -> bool:
        """Whether the answer is the expected one, with its end."""
        ended = self.answer.ended == (0, 0) or self.protocol == "scgi"
        return self.answer.complete and ended and self.answer.body == self.expected

    def wait_gone(self) -> Steps[float]:
        """Wait, without reading, until the server has closed; return the seconds since the request."""
        yield from self.peer.wait(RDHUP)
        return time.monotonic() - self.asked


def _ask_all(swarm: Swarm, readers: list[Reader]) -> None:
    for reader in readers:
        swarm.start(reader.ask())
    swarm.run(PATIENCE, lambda: not swarm.running)


def unread(server: Served, size: Size, *, readers: int = 50) -> Report:
    """Readers that take nothing of 512 KiB hold no thread, and get it all when they read."""
    report = Report(f"{readers} unread answers", server.protocol, server.threads)
    with Swarm() as swarm:
        _warm(swarm, server)
        before = server.look()
        with watched(server, 0.1) as most:
            waiting = [
                Reader(
                    swarm,
                    server,
                    f"/{('bytes', 'one')[number % 2]}/{number}/{ANSWER_SIZE}",
                    pattern(number, ANSWER_SIZE),
                )
                for number in range(readers)
            ]
            _ask_all(swarm, waiting)
            began = time.monotonic()
            swarm.start(_sleep_until_served(waiting, size.patience))
            swarm.run(PATIENCE, lambda: not swarm.running)
            report.most("last begun after, s", time.monotonic() - began, size.patience)
            prober = Prober(swarm, server, rate=100, patience=size.patience)
            swarm.run(0.5)
            prober.finish()
        report.check(not prober.failures, f"fresh requests failed: {prober.failures[:3]}")
        report.most("p99 ms", prober.percentile(0.99) * 1000, size.p99 * 1000)
        budget = size.answer_memory + readers * CONNECTION_BYTES + size.slack
        grown = most["resident"] - before["resident"]
        report.most("memory taken, MiB", grown / MIB, budget / MIB)
        report.most("spooled, MiB", most["spooled"] / MIB, size.spool_bound() / MIB)
        tasks = [swarm.start(reader.read()) for reader in waiting]
        swarm.run(until=lambda: all(task.done for task in tasks))
        report.least("read whole", sum(bool(task.result) for task in tasks), readers)
    return report


def _warm(swarm: Swarm, server: Served) -> None:
    # No more at a time than a small spool has room for: none of these is to be cut.
    for _ in range(2):
        for _ in range(server.threads):
            steps = ask(swarm, server, f"/bytes/1/{ANSWER_SIZE}", seconds=PATIENCE)
            swarm.start(steps)
        swarm.run(PATIENCE)


def _sleep_until_served(readers: list[Reader], seconds: float = PATIENCE) -> Steps[None]:
    until = time.monotonic() + seconds
    for reader in readers:
        yield from reader.peer.wait(IN, until)


def beyond_the_spool(server: Served, size: Size, *, readers: int) -> Report:
    """More unread answers than memory and spool together may hold: some readers are cut, visibly."""
    report = Report("answers beyond the spool", server.protocol, server.threads)
    said = server.lines("reader", "spool_size")
    with Swarm() as swarm:
        _warm(swarm, server)
        before = server.look()
        with watched(server, 0.1) as most:
            waiting = [
                Reader(
                    swarm, server, f"/bytes/{number}/{ANSWER_SIZE}", pattern(number, ANSWER_SIZE)
                )
                for number in range(readers)
            ]
            _ask_all(swarm, waiting)
            swarm.start(_sleep_until_served(waiting, size.patience))
            swarm.run(PATIENCE, lambda: not swarm.running)
            fresh = swarm.start(ask(swarm, server, "/token/fresh", seconds=PATIENCE))
            swarm.run(until=lambda: fresh.done)
        answered = fresh.result is not None and fresh.result.body == b"fresh"
        report.check(answered, f"a fresh request: {fresh.result}")
        budget = size.answer_memory + readers * CONNECTION_BYTES + size.slack
        grown = most["resident"] - before["resident"]
        report.most("memory taken, MiB", grown / MIB, budget / MIB)
        report.most("spooled, MiB", most["spooled"] / MIB, size.spool_bound() / MIB)
        tasks = [swarm.start(reader.read()) for reader in waiting]
        swarm.run(until=lambda: all(task.done for task in tasks))
        whole = sum(bool(task.result) for task in tasks)
        cut = [reader for reader in waiting if not reader.is_right()]
        report.least("read whole", whole, 1)
        report.least("cut", len(cut), 1)
        report.check(all(_is_visibly_cut(reader) for reader in cut), "a cut answer looked whole")
        lines = server.await_lines(said + len(cut), "reader", "spool_size") - said
        report.exactly("lines of the log for those cut", lines, len(cut))
    return report


def bodies_beyond_the_spool(
    server: Served, size: Size, *, senders: int, length: int = 256 * 1024
) -> Report:
    """More bodies on their way than the spool may hold: requests past it are answered 503."""
    report = Report("bodies beyond the spool", server.protocol, server.threads)
    with Swarm() as swarm:
        before = server.look()
        with watched(server, 0.1) as most:
            peers = [Peer(swarm, server.where) for _ in range(senders)]
            seconds = 1.0 + senders * length / (50 * MIB)
            tasks = [
                swarm.start(_send_most(peer, server.protocol, length, seconds)) for peer in peers
            ]
            swarm.run(seconds + PATIENCE, lambda: all(task.done for task in tasks))
        statuses = [task.result for task in tasks]
        report.check(set(statuses) <= {0, 503}, f"statuses {set(statuses)}")
        report.least("refused with 503", statuses.count(503), 1)
        report.least("accepted", statuses.count(0), 1)
        budget = senders * (size.body_memory + CONNECTION_BYTES) + size.slack
        grown = most["resident"] - before["resident"]
        report.most("memory taken, MiB", grown / MIB, budget / MIB)
        report.most("spooled, MiB", most["spooled"] / MIB, size.spool_bound() / MIB)
        for peer in peers:
            peer.close()
        deadline = time.monotonic() + PATIENCE
        while server.look()["spooled"] and time.monotonic() < deadline:
            time.sleep(0.05)
        task = swarm.start(ask(swarm, server, "/read", pattern(1, length), seconds=PATIENCE))
        swarm.run(until=lambda: task.done)
        report.check(
            task.result is not None and task.result.body.startswith(b"%d " % length),
            f"when there was room again: {task.result}",
        )
    return report


def _send_most(peer: Peer, protocol: str, length: int, seconds: float) -> Steps[int]:
    """Send most of a body and wait; return the status, 0 when there is no answer so far."""
    answers = Answers(protocol)
    answer = answers.expect()
    yield from peer.connect()
    whole = request(protocol, "/read", bytes(length))
    yield from converse(peer, answers, [whole[:-1000]], time.monotonic() + seconds)
    return answer.status


def _is_visibly_cut(reader: Reader) -> bool:
    """Whether a web server can see that the answer is not whole."""
    if reader.protocol == "fcgi":
        return not reader.answer.complete or reader.answer.ended != (0, 0)
    head = reader.answer.whole().headers
    declared = [int(line[16:]) for line in head if line.lower().startswith(b"content-length: ")]
    return not head[0] or any(len(reader.answer.body) < length for length in declared)


def beyond_the_tail(server: Served, size: Size) -> Report:
    """Readers that take nothing of more than answer_tail are cut, and their threads come back."""
    report = Report("answers above answer_tail", server.protocol, server.threads)
    words = ("answer", "min_rate")
    said = server.lines(*words)
    length = 8 * MIB
    bound = size.rate_window + TICK + size.lateness
    with Swarm() as swarm:
        readers = [
            Reader(swarm, server, f"/{('bytes', 'pieces')[number % 2]}/{number}/{length}", b"")
            for number in range(server.threads)
        ]
        for reader in readers:
            reader.path += "/65536" * reader.path.startswith("/pieces")
        _ask_all(swarm, readers)
        gone = [swarm.start(reader.wait_gone()) for reader in readers]
        fresh = swarm.start(ask(swarm, server, "/token/fresh", seconds=bound + PATIENCE))
        began = time.monotonic()
        swarm.run(bound + PATIENCE, lambda: fresh.done)
        report.most("a fresh request waited, s", time.monotonic() - began, bound)
        swarm.run(bound + PATIENCE, lambda: all(task.done for task in gone))
        lasted = [task.result or FOREVER for task in gone]
        report.least("first gone, s", min(lasted), size.rate_window * 0.9)
        report.most("last gone, s", max(lasted), bound)
        report.check(
            fresh.result is not None and fresh.result.body == b"fresh", f"came: {fresh.result}"
        )
        lines = server.await_lines(said + len(readers), *words) - said
        report.exactly("lines of the log for those cut", lines, len(readers))
    return report


# Files.


def large_file(server: Served, megabytes: int, *, milliseconds: float) -> Report:
    """A file goes out whole, for so many milliseconds of CPU for each 100 MiB and no memory."""
    report = Report(f"a file of {megabytes} MiB", server.protocol, server.threads)
    name = "large.bin"
    content = pattern(1, megabytes * MIB)
    (server.folder / name).write_bytes(content)
    with Swarm() as swarm:
        for _ in range(2):  # the first time it is read from the disk, perhaps
            reader = Reader(swarm, server, f"/file/{name}", content)
            before, cpu = server.look(), server.cpu_seconds()
            began = time.monotonic()
            with watched(server, 0.05) as most:
                swarm.start(reader.ask())
                task = swarm.start(reader.read(60), 0.01)
                swarm.run(until=lambda task=task: task.done)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            seconds, spent = time.monotonic() - began, server.cpu_seconds() - cpu
            report.check(bool(task.result), "the file did not arrive whole")
            reader.peer.close()
        report.note("MiB/s", megabytes / seconds)
        report.most("CPU, ms for each 100 MiB", spent * 100_000 / megabytes, milliseconds)
        report.most("memory taken, MiB", (most["resident"] - before["resident"]) / MIB, 4)
        report.most("spooled, MiB", most["spooled"] / MIB, 0)
        headers = [line.lower() for line in reader.answer.whole().headers]
        length = f"content-length: {len(content)}".encode()
        report.check(length in headers, f"the head has no {length!r}: {headers}")
    return report


def shrinking_file(server: Served) -> Report:
    """A file that is cut while it is being sent: what arrives cannot be taken for the whole."""
    report = Report("a file that shrinks", server.protocol, server.threads)
    path = server.folder / f"shrinks-{time.monotonic_ns()}.bin"
    content = pattern(2, 16 * MIB)
    path.write_bytes(content)
    with Swarm() as swarm:
        reader = Reader(swarm, server, f"/file/{path.name}", content)
        _ask_all(swarm, [reader])
        swarm.start(_sleep_until_served([reader]))
        swarm.run(PATIENCE, lambda: not swarm.running)
        with path.open("r+b") as file:
            file.truncate(MIB)
        task = swarm.start(reader.read())
        swarm.run(until=lambda: task.done)
        report.check(reader.peer.closed, "the connection is still open")
        report.check(_is_visibly_cut(reader), "the end of the answer does not show that it is cut")
        # A record says how much is in it before that is read, so its rest may hold anything.
        body = reader.answer.body
        report.check(content.startswith(body[: MIB // 2]), "what arrived before is wrong")
        report.check(len(body) < len(content), "more arrived than there was")
        fresh = swarm.start(ask(swarm, server, "/token/fresh", seconds=PATIENCE))
        swarm.run(until=lambda: fresh.done)
        answered = fresh.result is not None and fresh.result.body == b"fresh"
        report.check(answered, f"afterwards: {fresh.result}")
        spent = server.cpu_seconds()
        time.sleep(0.5)
        report.most("CPU when idle, s", server.cpu_seconds() - spent, 0.2)
    return report
