"""Eight threads, and an application that sleeps 10 ms in one of ten requests.

    python3 -m benchmarks sleeper [--rounds 10]

Eight threads that sleep 1 ms a request on average can answer 8,000 requests a second; the figure is
the share of them that a server reaches with 16 connections.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import apps, environment
from benchmarks.load import Work
from benchmarks.ratios import interval, note
from benchmarks.rounds import once, run
from benchmarks.sections import present
from benchmarks.tables import aligned

CONTENDERS = (
    "gateways-fcgi-keep-t8",
    "gateways-fcgi-close-t8",
    "uwsgi-fcgi-close-t8",
    "uwsgi-uwsgi-close-t8",
    "gunicorn-http-keep-t8",
    "granian-http-keep-t8",
)
THREADS = 8
POSSIBLE = THREADS * apps.SLEEP_SHARE / apps.SLEEP_SECONDS
WORK = Work("sleeper", 0, "hello", 16, "sleeps 10 ms in one of ten requests")


def measure(tree: Path, rounds: int, seconds: float = 1.5) -> dict[str, Any]:
    """Contender → requests a second of each round."""
    samples = run(
        present(CONTENDERS, tree),
        lambda contender: once(contender, WORK, seconds, 0.5),
        rounds,
        "sleeper",
    ).samples
    keys = ("rps", "p50_us", "p99_us", "cpu_us")
    return {
        name: {key: [each[key] for each in taken] for key in keys}
        for name, taken in samples.items()
    }


HEAD = ("8 threads, 10 ms in 10 %", "requests/s", "of the possible", "interval", "p50 us", "p99 us")


def rows(found: dict[str, Any]) -> list[list[str]]:
    told = []
    for name, taken in found.items():
        share = interval([rate / POSSIBLE for rate in taken["rps"]])
        told.append(
            [
                name,
                f"{share.median * POSSIBLE:,.0f}",
                f"{share.median:.1%}",
                f"{share.low:.1%} to {share.high:.1%}",
                *(f"{interval(taken[key]).median:,.0f}" for key in ("p50_us", "p99_us")),
            ]
        )
    return told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10, help="[10]")
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")


def main(options: argparse.Namespace) -> None:
    found = measure(options.tree.resolve(), options.rounds)
    print(aligned(HEAD, rows(found)) + "\n" + note(options.rounds))
