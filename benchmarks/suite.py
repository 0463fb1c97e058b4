"""Measures everything, section by section, and writes the results, the picture and the page.

    python3 -m benchmarks full [--only hello,idle] [--rounds 20]      make bench

Results are written after each section, so that a run that is cut short has not been for nothing,
and `--only` measures some of them anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    bodies,
    cgi,
    environment,
    idle,
    instructions,
    machine,
    memory,
    page,
    picture,
    report,
    results,
    sleeper,
)
from benchmarks.accounting import NoAccount
from benchmarks.contenders import Contender
from benchmarks.load import LoadFailed
from benchmarks.rounds import Sample, run
from benchmarks.running import ServerFailed
from benchmarks.sections import SECTIONS, Section, present
from benchmarks.tables import aligned
from benchmarks.targets import NAMED

FAILURE_LENGTH = 300

OTHERS_EVERY = 4
"""Contenders that no target names take part in the first of so many rounds."""

Figure = Callable[[Path, int], dict[str, Any]]

FIGURES: dict[str, Figure] = {
    "memory": lambda tree, rounds: memory.measure(tree),
    "idle": idle.measure,
    "sleeper": sleeper.measure,
    "bodies": bodies.measure,
    "instructions": lambda tree, rounds: instructions.measure(tree),
    **{name: module.measure for name, module in cgi.FIGURES.items()},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [*(section.name for section in SECTIONS), *FIGURES]
    parser.add_argument("--only", default=",".join(names), help="of " + ", ".join(names))
    parser.add_argument("--rounds", type=int, default=20, help="[20]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender a round [1]")
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")
    parser.add_argument("--output", type=Path, default=results.FULL, help="the JSON file")


def main(options: argparse.Namespace) -> None:
    tree, only = options.tree.resolve(), options.only.split(",")
    known = [*(section.name for section in SECTIONS), *FIGURES]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise SystemExit(f"--only {','.join(unknown)}: known are {', '.join(known)}")
    found = results.read(options.output)
    for section in SECTIONS:
        if section.name in only:
            found["sections"][section.name] = measured(
                section, tree, options.rounds, options.seconds
            )
            _store(options.output, found, tree)
    for name, figure in FIGURES.items():
        if name in only:
            before = when(tree)
            try:
                found["figures"][name] = {"found": figure(tree, options.rounds), **before}
            except (LoadFailed, ServerFailed, NoAccount) as error:
                print(f"{name}: {error}", file=sys.stderr)
            _store(options.output, found, tree)
    print(aligned(*report.verdict_table(found)))
    _publish(options.output, found)


def measured(
    section: Section, tree: Path, rounds: int, seconds: float, warm_up: float = 0.3
) -> dict[str, Any]:
    """Run a section; a contender that fails is left out and named."""
    began, who = when(tree), present(section.contenders, tree)

    def once(contender: Contender) -> Sample:
        return section.measure(contender, seconds, warm_up)

    def every(contender: Contender) -> int:
        # What no target speaks of needs no narrow interval.
        return 1 if contender.server in NAMED or rounds % OTHERS_EVERY else OTHERS_EVERY

    samples, failures = run(who, once, rounds, section.name, every)
    return {
        "title": section.title,
        "via": section.via,
        "seconds": seconds,
        "rounds": rounds,
        **began,
        "left_out": [name for name in section.contenders if name not in samples],
        "failures": [each[:FAILURE_LENGTH] for each in failures],
        "samples": {name: results.columns(taken) for name, taken in samples.items()},
    }


def when(tree: Path) -> dict[str, Any]:
    """When something was measured, which gateways, and how busy the machine was before."""
    date = time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC"
    return {"date": date, "gateways": machine.commit(tree), "load": machine.load_average()}


def _store(path: Path, found: dict[str, Any], tree: Path) -> None:
    found["conditions"] = machine.facts(tree)
    results.write(path, found)


def _publish(path: Path, found: dict[str, Any]) -> None:
    """Make the picture beside the results and, of the full results, the page."""
    drawing = path.with_suffix(".svg")
    if "hello" in found["sections"]:
        drawing.write_text(picture.bars(found))
    if path == results.FULL:
        page.PAGE.write_text(page.text(found))
        print(f"written: {path}, {drawing}, {page.PAGE}", file=sys.stderr)
