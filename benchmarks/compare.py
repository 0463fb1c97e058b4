"""Compares contenders with the first one, directly on the unix socket.

python3 -m benchmarks compare A B… [--app hello] [--rounds 10] [--seconds 1]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks import environment
from benchmarks.contenders import parse
from benchmarks.load import WORKS
from benchmarks.ratios import paired
from benchmarks.rounds import once, run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("contenders", nargs="+", metavar="CONTENDER")
    parser.add_argument("--app", choices=sorted(WORKS), default="hello")
    parser.add_argument("--rounds", type=int, default=10, help="[10]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender a round [1]")
    parser.add_argument("--warm-up", type=float, default=0.3, help="seconds before them [0.3]")
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")


def main(options: argparse.Namespace) -> None:
    who = [parse(text, options.tree.resolve()) for text in options.contenders]
    work = WORKS[options.app]
    samples = run(
        who,
        lambda contender: once(contender, work, options.seconds, options.warm_up),
        options.rounds,
        "compare",
    ).samples
    first = samples.get(who[0].name)
    print(f"{'':40} us CPU   requests/s   p50 us   p99 us   ratio of CPU to the first's")
    for name, rows in samples.items():
        cpu, rate, p50, p99 = (
            statistics.median([row[key] for row in rows])
            for key in ("cpu_us", "rps", "p50_us", "p99_us")
        )
        line = f"{name:40} {cpu:6.2f}   {rate:10,.0f}   {p50:6.0f}   {p99:6.0f}"
        if first and rows is not first:
            ratio = paired([row["cpu_us"] for row in rows], [row["cpu_us"] for row in first])
            line += f"   {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f}, {ratio.sure:.0%})"
        print(line)
