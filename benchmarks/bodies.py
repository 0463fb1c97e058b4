"""Large bodies echoed: does the cost grow with the size, or with its square?

python3 -m benchmarks bodies [--rounds 10]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import accounting, environment
from benchmarks.contenders import Contender
from benchmarks.load import MEBIBYTE, Work, load
from benchmarks.ratios import interval, note
from benchmarks.rounds import Sample, run
from benchmarks.running import serving
from benchmarks.sections import present
from benchmarks.tables import aligned

CONTENDERS = (
    "gateways-fcgi-keep",
    "gateways-scgi-close",
    "uwsgi-fcgi-close",
    "uwsgi-scgi-close",
    "uwsgi-uwsgi-close",
    "flup-scgi-close",
)
QUADRATIC = ("flup-fcgi-keep",)
"""Asked in two rounds only, because a round takes it seconds."""

SIZES = (2.5, 5, 10, 20)
REQUESTS = 8


def measure(tree: Path, rounds: int) -> dict[str, Any]:
    """Contender → size in MiB → CPU in milliseconds of each round."""
    found = _rounds(CONTENDERS, tree, rounds)
    found.update(_rounds(QUADRATIC, tree, min(rounds, 2)))
    return found


def _rounds(names: tuple[str, ...], tree: Path, rounds: int) -> dict[str, Any]:
    samples = run(present(names, tree), _once, rounds, "bodies").samples
    return {
        name: {str(size): [each[str(size)] for each in taken] for size in SIZES}
        for name, taken in samples.items()
    }


def _once(contender: Contender) -> Sample:
    """Milliseconds of CPU for an echo of each size."""
    sample: Sample = {}
    with serving(contender, "echo") as server:
        load(contender, _work(SIZES[0]), server.socket, requests=1, connections=1)
        for size in SIZES:
            requests = 1 if contender.name in QUADRATIC else REQUESTS
            before = accounting.cpu_seconds(server.pid)
            load(
                contender,
                _work(size),
                server.socket,
                requests=requests,
                connections=1,
                options=("-t", "60000"),
            )
            sample[str(size)] = 1000 * (accounting.cpu_seconds(server.pid) - before) / requests
    return sample


def _work(mebibytes: float) -> Work:
    return Work("echo", int(mebibytes * MEBIBYTE), "echo", 1, f"{mebibytes:g} MiB echoed")


HEAD = (
    "echoed, ms of CPU",
    *(f"{size:g} MiB" for size in SIZES),
    "its interval",
    "per MiB, last to first",
)


def rows(found: dict[str, Any]) -> list[list[str]]:
    told = []
    for name, sizes in found.items():
        last = interval(sizes[str(SIZES[-1])])
        told.append(
            [
                name,
                *(f"{interval(sizes[str(size)]).median:.1f}" for size in SIZES),
                f"{last.low:.1f} to {last.high:.1f}",
                f"{growth(sizes).median:.2f}",
            ]
        )
    return told


def growth(sizes: dict[str, list[float]]) -> Any:
    """What a MiB of the largest body costs, compared with one of the smallest: 1 is linear."""
    factor = SIZES[-1] / SIZES[0]
    pairs = zip(sizes[str(SIZES[-1])], sizes[str(SIZES[0])], strict=True)
    return interval([large / small / factor for large, small in pairs])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10, help="[10]")
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")


def main(options: argparse.Namespace) -> None:
    found = measure(options.tree.resolve(), options.rounds)
    print(aligned(HEAD, rows(found)) + "\n" + note(options.rounds))
