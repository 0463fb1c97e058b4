"""Counts machine instructions per request under valgrind: for before and after a change.

    python3 -m benchmarks instructions [CONTENDER…] [--app hello] [--requests 500]

Two runs of each contender, with N and with 2 N requests, on one connection at a time; their
difference holds no start-up and no warming-up.  With a fixed hash seed the figure repeats to about
one in a thousand, however busy the machine is.  It counts what the program and its libraries
execute, not what the kernel does for it.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from benchmarks import environment
from benchmarks.contenders import Contender, parse
from benchmarks.load import WORKS, Work, load
from benchmarks.running import serving
from benchmarks.sections import present

WARM_UP = 500
"""Requests before the first counted one, so that the interpreter has specialised its code."""

START_SECONDS = 120
CONTENDERS = (
    "gateways-fcgi-keep",
    "gateways-fcgi-close",
    "gateways-scgi-close",
    "gateways-fcgi-keep-t8",
    "uwsgi-fcgi-close",
    "uwsgi-scgi-close",
    "uwsgi-uwsgi-close",
    "libfcgi-fcgi-close",
)
"""Whom the full run counts."""

_TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


def per_request(contender: Contender, work: Work, requests: int, connections: int = 1) -> float:
    """Instructions of the whole process tree for one request."""
    # A module that was changed is compiled by whichever run comes first: let it be neither.
    with serving(contender, work.app):
        pass
    once = _count(contender, work, WARM_UP + requests, connections)
    twice = _count(contender, work, WARM_UP + 2 * requests, connections)
    return (twice - once) / requests


def _count(contender: Contender, work: Work, requests: int, connections: int) -> int:
    with tempfile.TemporaryDirectory(prefix="gwb-") as folder:
        valgrind = environment.program("valgrind")
        if valgrind is None:
            raise SystemExit(
                "valgrind is not installed; on Debian and Ubuntu: apt-get install valgrind"
            )
        under = [valgrind, "--tool=callgrind", "--trace-children=yes"]
        under.append(f"--callgrind-out-file={folder}/%p")
        with serving(
            contender,
            work.app,
            under=under,
            seconds=START_SECONDS,
            extra_environment={"PYTHONHASHSEED": "0"},
        ) as server:
            patience = ("-t", "60000")
            load(
                contender,
                work,
                server.socket,
                requests=requests,
                connections=connections,
                options=patience,
            )
        return sum(_total(each) for each in Path(folder).iterdir())


def _total(file: Path) -> int:
    found = _TOTAL.findall(file.read_text(errors="replace"))
    return int(found[-1]) if found else 0


def measure(tree: Path, requests: int = 500) -> dict[str, float]:
    """Contender → instructions for a hello."""
    return {
        contender.name: round(per_request(contender, WORKS["hello"], requests))
        for contender in present(CONTENDERS, tree)
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("contenders", nargs="*", default=["gateways-fcgi"], metavar="CONTENDER")
    parser.add_argument("--app", choices=sorted(WORKS), default="hello")
    parser.add_argument("--requests", type=int, default=500, help="N [500]")
    parser.add_argument("--connections", type=int, default=1, help="at the same time [1]")
    parser.add_argument("--tree", type=Path, default=environment.ROOT, help="checkout of gateways")


def main(options: argparse.Namespace) -> None:
    first = 0.0
    for text in options.contenders:
        contender = parse(text, options.tree.resolve())
        found = per_request(contender, WORKS[options.app], options.requests, options.connections)
        ratio = f"  {found / first:.3f} of the first" if first else ""
        first = first or found
        print(f"{contender.name:40} {found:12,.0f} instructions per request{ratio}", flush=True)
