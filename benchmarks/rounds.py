"""Interleaved rounds: A B C A B C …, every server started anew each time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks import accounting
from benchmarks.contenders import Contender
from benchmarks.load import LoadFailed, Work, load
from benchmarks.running import RunningServer, ServerFailed, serving

Sample = dict[str, Any]
"""One contender in one round: what the load client counted, `cpu_us` and `memory`."""


def once(contender: Contender, work: Work, seconds: float, warm_up: float) -> Sample:
    """Start, warm up, measure, stop."""
    with serving(contender, work.app) as server:
        load(contender, work, server.socket, seconds=warm_up)
        return measured(contender, work, server, seconds)


def measured(contender: Contender, work: Work, server: RunningServer, seconds: float) -> Sample:
    before = accounting.cpu_seconds(server.pid)
    counted = load(contender, work, server.socket, seconds=seconds)
    spent = accounting.cpu_seconds(server.pid) - before
    prints = accounting.footprints(server.pid)
    return {
        **counted,
        "cpu_us": 1e6 * spent / counted["ok"],
        "resident": sum(each.resident for each in prints),
        "proportional": sum(each.proportional for each in prints),
        "processes": len(prints),
    }


class Rounds(NamedTuple):
    """Contender → its samples, one for each round; and what went wrong."""

    samples: dict[str, list[Sample]]
    failures: list[str]


def run(
    contenders: Sequence[Contender],
    measure: Callable[[Contender], Sample],
    rounds: int,
    title: str,
    every: Callable[[Contender], int] = lambda contender: 1,
) -> Rounds:
    """Measure each contender once in each round, or in the first of `every` so many.

    One that fails is tried once more, and is left out when it fails again; both are noted.
    """
    found = Rounds({each.name: [] for each in contenders}, [])
    for number in range(rounds):
        where = f"{title}, round {number + 1} of {rounds}"
        _log(where)
        for contender in contenders:
            if contender.name not in found.samples or number % every(contender):
                continue
            _line(f"{where}: {contender.name}")
            sample = _tried(contender, measure, found.failures)
            if sample is None:
                del found.samples[contender.name]
            else:
                found.samples[contender.name].append(sample)
    _line("")
    return found


def _line(text: str) -> None:
    """One line of the terminal, written over again and again."""
    if sys.stderr.isatty():
        print(f"\r{text:78.78}\r", end="", file=sys.stderr, flush=True)


def _log(text: str) -> None:
    """A line for each round where there is no terminal."""
    if not sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def _tried(
    contender: Contender, measure: Callable[[Contender], Sample], failures: list[str]
) -> Sample | None:
    for what in ("again", "left out"):
        try:
            return measure(contender)
        except (LoadFailed, ServerFailed) as error:
            failures.append(f"{contender.name}: {error}")
            print(f"\n{contender.name} ({what}): {error}", file=sys.stderr)
    return None
