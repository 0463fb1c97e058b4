"""What a hello process weighs before and after a million requests; its threads and descriptors.

python3 -m benchmarks memory [--requests 1000000]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks import accounting, environment
from benchmarks.contenders import Contender, parse
from benchmarks.load import WORKS, load
from benchmarks.running import serving
from benchmarks.tables import aligned

CONTENDERS = ("gateways-fcgi-keep", "gateways-fcgi-keep-t8", "gateways-fcgi-close-t8")
STEPS = (0, 0.01, 0.1, 0.5, 1)
"""Shares of all requests at which the process is looked at."""

SETTLE_SECONDS = 5.0
MEBIBYTE = 1 << 20


def measure(tree: Path, requests: int = 1_000_000) -> dict[str, Any]:
    """Contender → one look after each step."""
    return {name: _watched(parse(name, tree), requests) for name in CONTENDERS}


def _watched(contender: Contender, requests: int) -> list[dict[str, Any]]:
    looks: list[dict[str, Any]] = []
    with serving(contender, "hello") as server:
        done = 0
        for share in STEPS:
            more = int(requests * share) - done
            if more:
                load(contender, WORKS["hello"], server.socket, requests=more)
                done += more
            before = looks[0]["descriptors"] if looks else 0
            looks.append({"requests": done, **_settled(server.pid, before)})
    return looks


def _settled(pid: int, descriptors: int) -> dict[str, Any]:
    """Look when the client's connections are closed at this end too; wait for it, but not long."""
    end = time.monotonic() + SETTLE_SECONDS
    seen = look(pid)
    while seen["descriptors"] > descriptors > 0 and time.monotonic() < end:
        time.sleep(0.05)
        seen = look(pid)
    return seen


def look(pid: int) -> dict[str, Any]:
    """Sums over the process tree, and the resident memory of its largest process."""
    prints = accounting.footprints(pid)
    return {
        "processes": len(prints),
        "resident": sum(each.resident for each in prints),
        "largest": max(each.resident for each in prints),
        "proportional": sum(each.proportional for each in prints),
        "threads": sum(each.threads for each in prints),
        "descriptors": sum(each.descriptors for each in prints),
    }


HEAD = (
    "hello",
    "requests",
    "processes",
    "resident MiB of the largest",
    "of all",
    "PSS of all",
    "threads",
    "descriptors",
)


def rows(found: dict[str, Any]) -> list[list[str]]:
    return [
        [
            parse(name).label,
            f"{each['requests']:,}",
            str(each["processes"]),
            *(f"{each[key] / MEBIBYTE:.1f}" for key in ("largest", "resident", "proportional")),
            str(each["threads"]),
            str(each["descriptors"]),
        ]
        for name, looks in found.items()
        for each in looks
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=1_000_000, help="[1000000]")
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")


def main(options: argparse.Namespace) -> None:
    print(aligned(HEAD, rows(measure(options.tree.resolve(), options.requests))))
