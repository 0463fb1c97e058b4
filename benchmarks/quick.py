"""The main table, in about a minute.

python3 -m benchmarks quick [--rounds 5] [--seconds 0.5]      make bench-quick
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import environment, machine, report, results
from benchmarks.ratios import note
from benchmarks.sections import QUICK
from benchmarks.suite import measured
from benchmarks.tables import aligned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="[5]")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of each contender a round [0.5]"
    )
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")
    parser.add_argument("--output", type=Path, default=results.QUICK, help="the JSON file")


def main(options: argparse.Namespace) -> None:
    tree = options.tree.resolve()
    section = measured(QUICK, tree, options.rounds, options.seconds, warm_up=0.2)
    found = {"conditions": machine.facts(tree), "sections": {"hello": section}, "figures": {}}
    results.write(options.output, found)
    print(aligned(*report.section_table(section)), end="\n\n")
    print(aligned(*report.verdict_table(found)), end="\n\n")
    print(f"{note(options.rounds)}; {options.seconds:g} s each, directly on a unix socket")
    print(f"everything: {options.output}")
