"""How bounded the server is: a thousand hostile peers at a time, with the limits as shipped.

    .venv/bin/python -m benchmarks.bounds [--list] [--only WORD]... [--page]

It needs the development environment, since the peers are those of tests/bounds, which
tests/server/test_bounds.py runs small.  The server that they meet runs on the interpreter of the
measurements, or the one that --python names.  Everything takes about three quarters of an hour; the
exit status is 1 when something is out of bounds.  The JSON is written after each scenario, and with
--page nothing is run: docs/bounds.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # when it is started as a file
    sys.path.insert(0, str(ROOT))

from benchmarks import environment, results  # noqa: E402 - after the line above
from benchmarks.machine import commit, machine  # noqa: E402 - after the path is set

PAGE = ROOT / "docs" / "bounds.md"
HEAD = """# Bounds, measured

What becomes of the daemon under peers who mean it ill: a thousand at a time, directly on its unix
socket, with the [limits](limits.md) as shipped. Each figure has its bound in the scenario
(`tests/bounds/`), and each peer's answer is verified. `.venv/bin/python -m benchmarks.bounds` measures
them anew; every `make test` runs the same scenarios small.
"""

if TYPE_CHECKING:
    from tests.bounds.report import Report
    from tests.bounds.served import Served
    from tests.bounds.slow import Size

FULL = results.FOLDER / "bounds.json"

PROTOCOLS = ("fcgi", "scgi")
THREADS = (1, 8)

MIB = 1 << 20


class Run(NamedTuple):
    """A scenario: what is done to a server with these options, of which protocols and threads."""

    name: str
    scenario: Callable[[Served, Size], Report]
    options: dict[str, Any] = {}
    protocols: tuple[str, ...] = PROTOCOLS
    threads: tuple[int, ...] = THREADS


def runs(options: argparse.Namespace) -> list[Run]:
    """Return all scenarios, in the order of issue and documentation."""
    from tests.bounds import abusive, answers, crowds, slow, stress

    connections = 1024  # max_connections as shipped
    share = options.peers / 1000
    found = [
        Run(
            f"slow {kind.name}",
            lambda server, size, kind=kind: slow.run(server, [kind], size),  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            protocols=kind.protocols,
        )
        for kind in slow.KINDS.values()
    ]
    spool: dict[str, Any] = {"answer_memory": 16 * MIB, "spool_size": 64 * MIB}
    return [
        *found,
        Run("tolerated", lambda server, size: slow.tolerated(server, size, windows=2)),
        Run(
            "unfinished",
            lambda server, size: abusive.unfinished(server, size, connections=int(500 * share)),
        ),
        Run(
            "unread bodies",
            lambda server, size: abusive.unread_bodies(server, each=10, largest=80 * MIB),
        ),
        Run("bodies that wait", abusive.waiting_bodies),
        Run("aborts", lambda server, size: abusive.aborts(server, int(10_000 * share))),
        Run("malformed", lambda server, size: abusive.malformed(server)),
        Run(
            "stress",
            lambda server, size: stress.run(server, options.seconds, connections=100),
            threads=(8,),
        ),
        Run(
            "stress, one thread",
            lambda server, size: stress.run(server, options.seconds / 5, connections=100),
            threads=(1,),
        ),
        Run(
            "idle connections",
            lambda server, size: crowds.eviction(server, connections, arrivals=100),
            protocols=("fcgi",),
        ),
        Run("silent", lambda server, size: crowds.silent(server, connections + 500)),
        Run(
            "overloaded",
            lambda server, size: crowds.overloaded(server, connections, busy=False, fresh=100),
        ),
        Run("merely busy", lambda server, size: crowds.merely_busy(server, 200)),
        Run(
            "busy log",
            lambda server, size: crowds.busy_log(server, minute=True),
            protocols=("fcgi",),
            threads=(8,),
        ),
        Run(
            "fair share",
            lambda server, size: crowds.fair_share(server),
            {"workers": 2},
            protocols=("fcgi",),
        ),
        Run("unread answers", lambda server, size: answers.unread(server, size)),
        Run(
            "answers beyond the spool",
            lambda server, size: answers.beyond_the_spool(
                server, replace(size, **spool), readers=int(500 * share)
            ),
            spool,
        ),
        Run(
            "bodies beyond the spool",
            lambda server, size: answers.bodies_beyond_the_spool(
                server, size, senders=int(1000 * share), length=5 * MIB // 4
            ),
        ),
        Run("answers above the tail", answers.beyond_the_tail),
        Run("large file", lambda server, size: answers.large_file(server, 100, milliseconds=30)),
        Run("shrinking file", lambda server, size: answers.shrinking_file(server)),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="name the scenarios, and run none")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="scenarios with this in the name; repeat for more")  # fmt: skip
    parser.add_argument("--protocol", choices=PROTOCOLS, help="only this one")
    parser.add_argument("--threads", type=int, choices=THREADS, help="only so many")
    parser.add_argument("--peers", type=int, default=1000, help="slow peers at a time [1000]")
    parser.add_argument("--seconds", type=float, default=300, help="of stress [300]")
    parser.add_argument("--python", default="", help="the server's interpreter")
    parser.add_argument("--json", type=Path, default=FULL, metavar="FILE", help="where the figures go")  # fmt: skip
    parser.add_argument("--page", action="store_true", help="write docs/bounds.md, and run nothing")


def main(options: argparse.Namespace) -> None:
    if options.page:
        PAGE.write_text(page(json.loads(options.json.read_text())))
        return
    try:
        wanted = [run for run in runs(options) if _is_wanted(run, options)]
    except ImportError as error:
        sys.exit(f"{error}; run it as .venv/bin/python -m benchmarks.bounds, after make venv")
    if options.list:
        print("\n".join(run.name for run in wanted))
        return
    sys.exit(not _run_all(wanted, options))


def _is_wanted(run: Run, options: argparse.Namespace) -> bool:
    return not options.only or any(word in run.name for word in options.only)


def _run_all(wanted: list[Run], options: argparse.Namespace) -> bool:
    """Run scenarios, print and keep their figures; return whether all are within bounds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # two thousand sockets, and their like
    python = options.python or _interpreter()
    told = conditions(python)
    print("\n".join(f"{name}: {value}" for name, value in told.items()), flush=True)
    good = True
    for run in wanted:
        for protocol in run.protocols if not options.protocol else [options.protocol]:
            for threads in run.threads if not options.threads else [options.threads]:
                if protocol not in run.protocols or threads not in run.threads:
                    continue
                found = _run_one(run, protocol, threads, python, options)
                good = good and not found["failures"]
                show(found)
                _keep(options.json, told, found)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return good


def _keep(path: Path, told: dict[str, str], found: dict[str, Any]) -> None:
    """Put a report into the file, in the place of an earlier one of the same."""
    which = ("scenario", "protocol", "threads")
    reports = json.loads(path.read_text())["reports"] if path.exists() else []
    others = [each for each in reports if any(each[name] != found[name] for name in which)]
    found["gateways"] = told["gateways"]
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"conditions": told, "reports": [*others, found]}
    path.write_text(json.dumps(kept, indent=1) + "\n")


def _run_one(
    run: Run, protocol: str, threads: int, python: str, options: argparse.Namespace
) -> dict[str, Any]:
    from tests.bounds.served import served
    from tests.bounds.slow import Size

    began = time.monotonic()
    size = Size(peers=options.peers)
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        server = served(
            Path(folder), protocol=protocol, threads=threads, python=python, **run.options
        )
        report = None
        try:
            with _kept_log(Path(folder)), server as each:
                report = run.scenario(each, size)
        except AssertionError as error:
            failure = f"the server did not do as it should: {error}"[-3000:]
            told = report.told() if report else {"figures": {}, "failures": []}
            told["failures"] = [*_listed(told["failures"]), failure]
        else:
            told = report.told()
    told |= {"scenario": run.name, "protocol": protocol, "threads": threads}
    told["seconds"] = round(time.monotonic() - began, 1)
    return told


def _listed(failures: object) -> list[object]:
    return failures if isinstance(failures, list) else []


@contextmanager
def _kept_log(folder: Path) -> Iterator[None]:
    """Keep the log where it can be looked at, whatever comes."""
    try:
        yield
    finally:
        kept = Path(tempfile.gettempdir()) / "gateways-bounds.log"
        kept.write_bytes((folder / "server.log").read_bytes())


def _interpreter() -> str:
    """The one with which everything is measured, if it is there."""
    return str(environment.PYTHON) if environment.PYTHON.exists() else sys.executable


def conditions(python: str) -> dict[str, str]:
    """Where and with what it was run."""
    said = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "machine": machine(),
        "server's interpreter": said.stdout.strip(),
        "peers' interpreter": sys.version.split()[0],
        "gateways": commit(ROOT),
        "descriptors": str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def show(found: dict[str, Any]) -> None:
    """Print one scenario's figures."""
    verdict = "OUT OF BOUNDS" if found["failures"] else "within bounds"
    threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    print(f"\n{found['scenario']:28} {found['protocol']}, {threads:10} {verdict}")
    for name, value in found["figures"].items():
        print(f"    {name:44} {value}")
    for failure in found["failures"]:
        print(f"    ! {failure}")
    sys.stdout.flush()


def page(told: dict[str, Any]) -> str:
    """Return the page of the documentation: for each scenario the range of its figures."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for report in told["reports"]:
        rows.setdefault(report["scenario"], []).append(report)
    facts = {name: value for name, value in told["conditions"].items() if name != "gateways"}
    commits = sorted({report["gateways"] for report in told["reports"]})
    lines = [HEAD, *(f"- {name}: {value}" for name, value in facts.items())]
    lines.append(f"- gateways: {', '.join(commits)}")
    for name, reports in rows.items():
        good = sum(not report["failures"] for report in reports)
        kinds = ", ".join(f"{each['protocol']} with {each['threads']} threads" for each in reports)
        lines.append(f"\n## {name}\n\n{kinds}: {good} of {len(reports)} within bounds.\n")
        lines += ["| figure | |", "|---|--:|"]
        names = dict.fromkeys(figure for report in reports for figure in report["figures"])
        for figure in names:
            values = [each["figures"][figure] for each in reports if figure in each["figures"]]
            lines.append(f"| {figure} | {_range(values)} |")
    return "\n".join(lines) + "\n"


def _range(values: list[Any]) -> str:
    numbers = sorted(value for value in values if isinstance(value, int | float))
    words = sorted({value for value in values if isinstance(value, str)})
    shown = []
    if numbers:
        low, high = _shown(numbers[0]), _shown(numbers[-1])
        shown.append(low if low == high else f"{low} to {high}")
    return ", ".join([*shown, *words])


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    main(parser.parse_args())
