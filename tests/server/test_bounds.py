"""How bounded the server is, small and fast: the scenarios of tests.bounds against a real server.

Tens of peers and windows of a second; `benchmarks/bounds.py` runs the same with a thousand peers
and the limits as shipped.  At the end are the tests of these tests: each scenario fails where the
limit that it is about is not there.
"""

from __future__ import annotations

import random
import resource
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.bounds import abusive, answers, crowds, slow, stress
from tests.bounds.report import MIB, Report
from tests.bounds.served import Served, served
from tests.bounds.slow import Size
from tests.bounds.swarm import Swarm, ask

pytestmark = pytest.mark.load

CONNECTIONS = 12

SIZE = Size(
    peers=20,
    ramp=0.3,
    head_timeout=0.5,
    rate_window=0.5,
    answer_memory=2 * MIB,
    rate=100,
    # A build machine has other things to do.  Who is held up by slow peers waits for seconds.
    p99=0.5,
    patience=5.0,
    lateness=2.0,
    # Those who have been answered and keep their ends open would be read from for five seconds.
    stubborn=False,
    # Each of 8 threads may have 0.6 MiB of a request in hand: what it reads into, and what it has read.
    slack=10 * MIB,
)

AS_SHIPPED = Size(peers=SIZE.peers, rate=SIZE.rate, p99=SIZE.p99, patience=5.0, slack=SIZE.slack)

SPOOL = Size(
    peers=40, answer_memory=MIB, spool_size=4 * MIB, patience=5.0, p99=SIZE.p99, slack=SIZE.slack
)

OPTIONS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "short": SIZE.options(),
    "small": {"max_connections": CONNECTIONS},
    "small spool": SPOOL.options(),
    "two workers": {"workers": 2},
}


class Config(NamedTuple):
    """What a server speaks, and with how many threads."""

    protocol: str
    threads: int

    def __str__(self) -> str:
        return f"{self.protocol}-{self.threads}"


ALL = [Config(protocol, threads) for protocol in ("fcgi", "scgi") for threads in (1, 8)]
FASTCGI = ALL[:2]
SOME = [Config("fcgi", 1), Config("fcgi", 8), Config("scgi", 8)]
THREADS_8 = Config("fcgi", 8)
TWO = [Config("fcgi", 8), Config("scgi", 1)]
THREADED = [Config("fcgi", 8), Config("scgi", 8)]


def over(configs: list[Config]) -> pytest.MarkDecorator:
    """Run a test with each of these."""
    return pytest.mark.parametrize("config", configs, ids=str)


class Servers:
    """Servers that several tests use, one after the other; one that failed a test is not used again."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, Config], tuple[Served, ExitStack]] = {}

    def get(self, config: Config, options: str) -> Served:
        """Return the server with these options."""
        key = (options, config)
        if key not in self._running:
            stack = ExitStack()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))
            chosen = OPTIONS[options]
            server = served(folder, protocol=config.protocol, threads=config.threads, **chosen)
            self._running[key] = (stack.enter_context(server), stack)
        return self._running[key][0]

    def verify(self, server: Served, report: Report) -> None:
        """Check a report; when it has failures the server is given up."""
        if report.failures:
            for key, (each, stack) in list(self._running.items()):
                if each is server:
                    server.process.kill()
                    del self._running[key]
                    with pytest.raises(AssertionError):  # it was killed
                        stack.close()
        assert not report.failures, report.told()

    def stop(self) -> None:
        """Stop them all; each must stop as it should."""
        with ExitStack() as stack:
            for _, each in self._running.values():
                stack.push(each)
        self._running.clear()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    running = Servers()
    try:
        yield running
        running.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Slow peers.


@over(SOME)
def test_slow_peers_delay_nobody_and_are_cut_off_with_a_line_in_the_log(
    servers: Servers, config: Config
) -> None:
    server = servers.get(config, "short")
    servers.verify(server, slow.run(server, list(slow.KINDS.values()), SIZE))


@over(TWO)
def test_peers_that_are_slow_within_the_limits_are_served(servers: Servers, config: Config) -> None:
    server = servers.get(config, "short")
    servers.verify(server, slow.tolerated(server, SIZE))


# Abusive peers.


@over(TWO)
def test_requests_that_are_never_finished_leave_no_trace(servers: Servers, config: Config) -> None:
    server = servers.get(config, "short")
    servers.verify(server, abusive.unfinished(server, SIZE, connections=12))


@over(ALL)
def test_bodies_that_nobody_reads_leave_no_trace(servers: Servers, config: Config) -> None:
    server = servers.get(config, "as shipped")
    servers.verify(server, abusive.unread_bodies(server, each=4))


@over(ALL)
def test_bodies_on_their_way_take_memory_up_to_the_limit_and_then_disk(
    servers: Servers, config: Config
) -> None:
    server = servers.get(config, "as shipped")
    servers.verify(server, abusive.waiting_bodies(server, AS_SHIPPED))


@over(ALL)
def test_peers_that_leave_at_any_moment_leave_no_trace(servers: Servers, config: Config) -> None:
    server = servers.get(config, "as shipped")
    servers.verify(server, abusive.aborts(server, 300))


@over(ALL)
def test_malformed_input_cut_anywhere_leaves_no_trace(servers: Servers, config: Config) -> None:
    server = servers.get(config, "as shipped")
    servers.verify(server, abusive.malformed(server, stride=41))


# Crowds.


@over(FASTCGI)
def test_a_full_server_closes_the_idle_connection_used_longest_ago(
    servers: Servers, config: Config
) -> None:
    server = servers.get(config, "small")
    servers.verify(server, crowds.eviction(server, CONNECTIONS, arrivals=8))


@over(ALL)
def test_a_server_full_of_requests_under_way_refuses_at_once(
    servers: Servers, config: Config
) -> None:
    server = servers.get(config, "small")
    servers.verify(server, crowds.overloaded(server, CONNECTIONS, busy=False))


@over(TWO)
def test_connections_that_say_nothing_keep_nobody_out(servers: Servers, config: Config) -> None:
    server = servers.get(config, "small")
    servers.verify(server, crowds.silent(server, CONNECTIONS + 100))


@over(TWO)
def test_when_threads_are_merely_busy_nobody_is_refused(servers: Servers, config: Config) -> None:
    server = servers.get(config, "as shipped")
    servers.verify(server, crowds.merely_busy(server, 30))


@over([Config("fcgi", 8)])
def test_that_all_threads_are_busy_is_logged_once_a_minute_with_what_they_do(
    short_path: Path, config: Config
) -> None:
    # A server of its own: others may have logged it within the minute.
    with served(short_path, protocol=config.protocol, threads=config.threads) as server:
        report = crowds.busy_log(server)
    assert not report.failures, report.told()


@over(FASTCGI)
def test_kept_connections_are_shared_out_between_workers(servers: Servers, config: Config) -> None:
    server = servers.get(config, "two workers")
    servers.verify(server, crowds.fair_share(server, longest=0.25))


# Answers.


@over(SOME)
def test_answers_that_nobody_reads_hold_no_thread(servers: Servers, config: Config) -> None:
    server = servers.get(config, "as shipped")
    servers.verify(server, answers.unread(server, AS_SHIPPED))


@over(TWO)
def test_answers_that_nobody_reads_take_memory_up_to_the_limit_and_then_disk(
    servers: Servers, config: Config
) -> None:
    server = servers.get(config, "small spool")
    # Ten fit in memory and spool together.
    report = answers.unread(server, SPOOL, readers=10)
    report.least("spooled, MiB", float(report.figures["spooled, MiB"]), 0.5)
    servers.verify(server, report)


@over(TWO)
def test_beyond_the_spool_the_slowest_readers_are_cut(servers: Servers, config: Config) -> None:
    server = servers.get(config, "small spool")
    servers.verify(server, answers.beyond_the_spool(server, SPOOL, readers=40))


@over(TWO)
def test_beyond_the_spool_requests_with_bodies_are_refused(
    servers: Servers, config: Config
) -> None:
    server = servers.get(config, "small spool")
    servers.verify(server, answers.bodies_beyond_the_spool(server, SPOOL, senders=40))


@over(TWO)
def test_unread_answers_above_the_tail_are_cut_and_their_threads_come_back(
    servers: Servers, config: Config
) -> None:
    server = servers.get(config, "short")
    servers.verify(server, answers.beyond_the_tail(server, SIZE))


@over(ALL)
def test_a_large_file_arrives_whole_and_cheaply(servers: Servers, config: Config) -> None:
    server = servers.get(config, "as shipped")
    servers.verify(server, answers.large_file(server, 20, milliseconds=200))


@over(TWO)
def test_a_file_that_shrinks_while_it_is_sent_does_not_arrive_as_a_whole_one(
    servers: Servers, config: Config
) -> None:
    server = servers.get(config, "as shipped")
    servers.verify(server, answers.shrinking_file(server))


# The tests of the tests: what each scenario says of a server that has not the limit.


def test_the_slow_peers_notice_a_server_without_deadlines(short_path: Path) -> None:
    size = replace(SIZE, peers=5, lateness=0.2, patience=1.0)
    with served(short_path, head_timeout=60, rate_window=60) as server:
        report = slow.run(server, [slow.HEAD, slow.SMALL, slow.ANSWER], size)
    assert any("head: 5 of 5 peers were never cut off" in each for each in report.failures)
    assert any("small body: 5 of 5 peers" in each for each in report.failures)
    assert any("answer: 5 of 5 peers" in each for each in report.failures)


def test_the_slow_peers_notice_a_server_that_is_too_strict(short_path: Path) -> None:
    with served(short_path, rate_window=0.3, min_rate=10_000_000) as server:
        report = slow.tolerated(server, replace(SIZE, rate_window=1.0), windows=2, peers=2)
    assert {each.split()[0] for each in report.failures} == {"sender", "reader"}


@pytest.mark.parametrize(("path", "what"), [("/leak", "descriptors"), ("/keep", "memory")])
def test_traces_are_noticed(servers: Servers, path: str, what: str) -> None:
    server = servers.get(THREADS_8, "as shipped")
    report = Report("planted", "fcgi", 8)

    def attack(swarm: Swarm, report: Report) -> None:
        for _ in range(20):
            swarm.start(ask(swarm, server, path))
        swarm.run()

    abusive.leaves_no_trace(report, server, attack, settle=0.2)
    assert [each.split()[0] for each in report.failures] == [what]


def test_the_readers_notice_threads_that_are_held(short_path: Path) -> None:
    size = Size(patience=1.0)
    with served(short_path, answer_tail=0) as server:
        report = answers.unread(server, size, readers=12)
    assert any("fresh requests failed" in each for each in report.failures)


def test_the_crowd_notices_that_nobody_is_refused_or_evicted(servers: Servers) -> None:
    server = servers.get(THREADS_8, "as shipped")
    report = crowds.overloaded(server, CONNECTIONS, busy=False, fresh=4)
    assert any("were not refused" in each for each in report.failures)
    report = crowds.eviction(server, CONNECTIONS, arrivals=1)
    assert [each.split(", expected")[0] for each in report.failures] == ["closed []"]


def test_the_stress_notices_a_wrong_byte(servers: Servers) -> None:
    server = servers.get(THREADS_8, "as shipped")

    def planted(chance: random.Random) -> abusive.Question:
        question = abusive.random_question(chance)
        if question.path.startswith("/bytes") and len(question.expected) > 1000:
            wrong = question.path.replace("/bytes", "/wrong")
            return abusive.Question(wrong, question.body, question.expected)
        return question

    report = stress.run(server, 5, ask=planted)
    assert any("/wrong" in each and "the first wrong one" in each for each in report.failures)


def test_the_stress_says_where_a_thread_is_when_an_answer_does_not_come(short_path: Path) -> None:
    def planted(chance: random.Random) -> abusive.Question:
        return abusive.Question("/hold/never", b"", b"held")

    with served(short_path) as server:
        report = stress.run(server, 1, connections=2, patience=1.0, ask=planted)
        server.release("never")
    assert any("in hold" in each and "no end within 1.0 s" in each for each in report.failures)
