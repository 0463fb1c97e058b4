"""Fresh requests while a thousand connections do nothing, beside an unloaded server.

    python3 -m benchmarks idle [--rounds 10] [--connections 1000]

"kept" connections made one request each and were left open; "silent" ones never sent a byte.  A
fresh request opens its connection, asks, and closes it, one after the other.  Server and client
share one processor: on two, the figure would be how long an idle processor takes to wake up, which
on a virtual machine is more than the request.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import environment, memory
from benchmarks.contenders import Contender, parse
from benchmarks.load import WORKS, LoadFailed, load
from benchmarks.ratios import note, paired
from benchmarks.running import serving
from benchmarks.tables import aligned

CONTENDERS = ("gateways-fcgi-close", "gateways-fcgi-close-t8")
STATES = {"unloaded": (), "kept": ("-F", "-J"), "silent": ("-I",)}
"""What the idle connections did → the load client's options for them."""

HOLD_SECONDS = 2.0
OPEN_SECONDS = 30.0


def measure(tree: Path, rounds: int, connections: int = 1000) -> dict[str, Any]:
    """Contender → state → p50 in microseconds of each round, what was closed, and the weight."""
    return {name: _states(parse(name, tree), rounds, connections) for name in CONTENDERS}


def _states(contender: Contender, rounds: int, connections: int) -> dict[str, Any]:
    found: dict[str, Any] = {state: {"p50_us": [], "p99_us": [], "closed": 0} for state in STATES}
    with _one_processor():
        for _ in range(rounds):
            for state in STATES:
                counted = _once(contender, state, connections)
                found[state]["p50_us"].append(counted["p50_us"])
                found[state]["p99_us"].append(counted["p99_us"])
                found[state]["closed"] += counted["idle_closed"] + counted["idle_fail"]
    for state in STATES:
        found[state].update(_weight(contender, state, connections))
    return found


def _options(state: str, connections: int) -> tuple[str, ...]:
    return (*STATES[state], str(connections)) if STATES[state] else ()


def _once(contender: Contender, state: str, connections: int) -> dict[str, Any]:
    with serving(contender, "hello") as server:
        hello = WORKS["hello"]
        load(contender, hello, server.socket, seconds=0.2, connections=1)
        return load(
            contender,
            hello,
            server.socket,
            seconds=1,
            connections=1,
            options=_options(state, connections),
        )


def _weight(contender: Contender, state: str, connections: int) -> dict[str, Any]:
    """Memory, threads and descriptors while the connections are held."""
    with serving(contender, "hello") as server:
        work, options = WORKS["hello"], _options(state, connections)
        asking = threading.Thread(
            target=load,
            args=(contender, work, server.socket),
            kwargs={"seconds": HOLD_SECONDS, "connections": 1, "options": options},
        )
        asking.start()
        wanted = connections if options else 0
        end = time.monotonic() + OPEN_SECONDS
        weight = memory.look(server.pid)
        while weight["descriptors"] < wanted and asking.is_alive():
            if time.monotonic() > end:
                raise LoadFailed(f"{contender.name}: holds {weight['descriptors']} descriptors")
            time.sleep(0.05)
            weight = memory.look(server.pid)
        asking.join()
        return weight


@contextlib.contextmanager
def _one_processor() -> Iterator[None]:
    """Keep this process, and what it starts, on one of its processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


HEAD = ("a fresh request", "p50 us", "ratio", "interval", "p99 us", "lost", "MiB", "threads")


def rows(found: dict[str, Any]) -> list[list[str]]:
    told = []
    for name, states in found.items():
        for state, facts in states.items():
            ratio = paired(facts["p50_us"], states["unloaded"]["p50_us"])
            told.append(
                [
                    f"{parse(name).label}: {state}",
                    f"{statistics.median(facts['p50_us']):.0f}",
                    "" if state == "unloaded" else f"{ratio.median:.2f}",
                    "" if state == "unloaded" else f"{ratio.low:.2f} to {ratio.high:.2f}",
                    f"{statistics.median(facts['p99_us']):.0f}",
                    str(facts["closed"]),
                    f"{facts['resident'] / memory.MEBIBYTE:.1f}",
                    str(facts["threads"]),
                ]
            )
    return told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10, help="[10]")
    parser.add_argument("--connections", type=int, default=1000, help="idle ones [1000]")
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")


def main(options: argparse.Namespace) -> None:
    found = measure(options.tree.resolve(), options.rounds, options.connections)
    print(aligned(HEAD, rows(found)) + "\n" + note(options.rounds))
