"""docs/speed.md, made from the results of a full run.

python3 -m benchmarks page
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import cgi, environment, report, results
from benchmarks.ratios import note
from benchmarks.sections import SECTIONS
from benchmarks.tables import markdown

PAGE = environment.ROOT / "docs" / "speed.md"

HEAD = """\
# Speed

Made from `benchmarks/results/full.json` by `make bench`; the words stand in `benchmarks/page.py`.

![Processor time of one small request, server by server](../benchmarks/results/full.svg)

## Where it was measured

"""

METHOD = """
`make bench-quick` measures the first table in a minute; `make bench` measures everything here, in
about two hours. Both install what they need and say what they could not get.

## How

- **What is compared.** The CPU time that the server spends on a request: user and kernel, of the whole
  process tree, from the kernel's nanosecond clocks. Throughput and latency stand beside it; with one
  client at full speed on a small machine they say as much about the client, or nginx, as about the
  server, and the latencies are those of 16 requests waiting for one another.
- **One interpreter.** All Python servers run on the same optimised CPython; uWSGI and bjoern were
  compiled against it. Each has one process and its default settings; logging of requests is off
  where it would be on. gateways runs with all its limits as shipped:
  `python -m gateways serve benchmarks/apps.py:hello -b fcgi+unix:… --threads 1`.
- **Rounds.** A B C A B C …, every server started anew each time, since servers differ by a tenth from
  one start to the next; a short warming-up is not counted. A ratio is the median of the rounds'
  ratios, in brackets its 95 % interval (order statistics of the rounds, so nothing is assumed about
  how they are spread). gateways and uWSGI, which the targets speak of, take part in every round, the
  others in every fourth; a ratio is always that of the same rounds.
- **The client** (`benchmarks/fcgiload.c`) checks every byte of every answer, and a server that gets one
  wrong is not in the table. It sends 64 different requests in turn, with 27 variables in 1 KiB, as nginx
  does. Behind nginx the client is wrk, and one answer is compared whole beforehand.
- **Closed and kept.** gateways keeps a FastCGI connection for the next request when it is asked to;
  uWSGI closes it after each answer, in FastCGI as in its own protocol, and that costs both ends an
  accept and a close. A web server is set up in the way that each allows, so the comparison is fair to
  the user, but it is not one of like with like: "gateways, FastCGI, closed" is. uWSGI's own protocol
  is cheaper to read than FastCGI.
- **libfcgi** is the C library with a C application: how far Python is from no Python. With kept
  connections it has a thread for each of them. **flup** is asked over at most four kept
  connections, because it lets some of a larger number starve.
"""


def text(found: dict[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD, _conditions(found["conditions"]), METHOD]
    parts.append("\n## Targets\n\nThe end of the interval is what counts.\n\n")
    parts.append(markdown(*report.verdict_table(found)) + "\n")
    for section in SECTIONS:
        if section.name in found["sections"]:
            parts.append(_section(section.title, found["sections"][section.name]))
    for name, table in report.figure_tables(found["figures"]).items():
        figure = found["figures"][name]
        parts.append(f"\n## {FIGURES[name][0]}\n\n{FIGURES[name][1]}\n\n{markdown(*table)}\n")
        told = f"{note(cgi.rounds(figure['found']))}. " if name in cgi.FIGURES else ""
        parts.append(_when(figure, told))
    return "".join(parts)


FIGURES = {
    "memory": (
        "Memory",
        "Before and after a million requests over 16 connections. Resident memory counts shared pages "
        "in full, PSS by their share.",
    ),
    "idle": (
        "A thousand idle connections",
        "A fresh request opens its connection, asks and closes it, one after the other, client and "
        "server on one processor. 1,000 other connections made one request each and are kept, or "
        "never sent anything; the lost ones were closed by the server.",
    ),
    "sleeper": (
        "An application that waits",
        "8 threads, 16 connections; one request in ten sleeps 10 ms, so 8,000 requests a second are "
        "possible.",
    ),
    "bodies": (
        "Large bodies",
        "A body is sent, read by the application in one piece, and sent back.",
    ),
    "instructions": (
        "Instructions",
        "Machine instructions in user space for one request, counted by valgrind; unlike times they "
        "can be compared from one day to the next, which is what they are for.",
    ),
    "cgi-startup": (
        "CGI, a process for each request",
        "A hello of a few lines, started as a web server starts it. The CPU is the kernel's account of "
        "the process; what counts is the difference to the interpreter that does nothing, started in "
        "the same round.",
    ),
    "cgi-warm": (
        "CGI, kept warm",
        "The stub that `gateways warm` writes, started as a web server starts it, and the daemon that it "
        "hands the request to.",
    ),
    "cgi-scripts": (
        "CGI scripts behind FastCGI",
        "A script in C, directly on a unix socket, one request after the other, a connection for each. "
        "The CPU is that of all processes, counted by a control group, since fcgiwrap lets nobody "
        "account for its scripts; from it is taken what the script costs when a C program starts "
        "it. fcgiwrap has one process.",
    ),
    "cgi-python": (
        "A Python CGI script, kept warm by pycgi",
        "The same file on the same interpreter, asked by wrk over four connections; as many requests as "
        "the whole machine, wrk and web server included, can make.",
    ),
}
"""Figure → its heading, and what to know about it."""


def _conditions(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    python = facts["python"].split(" [")[0]
    return (
        f"{facts['machine']}; {facts['distribution']}. {python}, the distribution's "
        f"({facts['interpreter']}). gateways {facts['gateways']}; {versions}.\n"
    )


def _section(title: str, section: dict[str, Any]) -> str:
    via = "behind nginx" if section["via"] == "nginx" else "directly"
    lines = [f"\n## {title}, {via}\n\n", markdown(*report.section_table(section)), "\n"]
    lines.append(_when(section, f"{note(section['rounds'])}; {section['seconds']:g} s each. "))
    if section["left_out"]:
        lines.append(f"\nNot measured here: {', '.join(section['left_out'])}.\n")
    if section["failures"]:
        told = "; ".join(each.splitlines()[0] for each in section["failures"])
        lines.append(f"\nFailed in a round, and was tried again: {told}.\n")
    return "".join(lines)


def _when(measured: dict[str, Any], before: str = "") -> str:
    return (
        f"\n{before}{measured['date']}, gateways {measured['gateways']}, "
        f"load average {measured['load']} beforehand.\n"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # It takes none.


def main(options: argparse.Namespace) -> None:
    del options
    PAGE.write_text(text(results.read(results.FULL)))
    print(PAGE)
