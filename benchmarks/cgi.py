"""CGI in its four shapes: a script through gateways.cgi, warm CGI, cgihost, pycgi.

python3 -m benchmarks cgi [--rounds 12]

It measures that part of `full` anew, in three minutes, and writes the same results.  Best as root, on
a machine that does nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import (
    cgi_python,
    cgi_scripts,
    cgi_startup,
    cgi_warm,
    environment,
    results,
)

FIGURES: dict[str, ModuleType] = {
    "cgi-startup": cgi_startup,
    "cgi-warm": cgi_warm,
    "cgi-scripts": cgi_scripts,
    "cgi-python": cgi_python,
}
"""Name → what has `measure`, HEAD and `rows`."""


def rounds(found: Any) -> int:
    """How many rounds a figure has: some take more than others."""
    while isinstance(found, dict):
        found = next(iter(found.values()))
    return len(found)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=12, help="[12]")
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")
    parser.add_argument("--output", type=Path, default=results.FULL, help="the JSON file")


def main(options: argparse.Namespace) -> None:
    from benchmarks import report, suite  # here: they need the figures themselves
    from benchmarks.ratios import note
    from benchmarks.tables import aligned

    suite.main(argparse.Namespace(**vars(options), only=",".join(FIGURES), seconds=1.0))
    figures = results.read(options.output)["figures"]
    for name, table in report.figure_tables(figures).items():
        if name in FIGURES:
            print(f"\n{aligned(*table)}\n{note(rounds(figures[name]['found']))}")
