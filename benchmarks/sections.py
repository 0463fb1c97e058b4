"""What is measured in rounds: which contenders, with which application, directly or behind nginx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import nginx, rounds
from benchmarks.contenders import Contender, parse
from benchmarks.load import WORKS
from benchmarks.rounds import Sample


class Section(NamedTuple):
    """`work` is a name of WORKS; `via` is "direct" or "nginx"."""

    name: str
    title: str
    work: str
    via: str
    contenders: tuple[str, ...]

    def measure(self, contender: Contender, seconds: float, warm_up: float) -> Sample:
        once = nginx.once if self.via == "nginx" else rounds.once
        return once(contender, WORKS[self.work], seconds, warm_up)


ONE_THREAD = (
    "gateways-fcgi-keep",
    "gateways-fcgi-close",
    "gateways-scgi-close",
    "uwsgi-fcgi-close",
    "uwsgi-scgi-close",
    "uwsgi-uwsgi-close",
    "flup-fcgi-keep",
    "flup-fcgi-close",
    "flup-scgi-close",
    "gunicorn-http-close",
    "gunicorn-uwsgi-close",
    "granian-http-keep",
    "granian-http-close",
    "bjoern-http-keep",
    "bjoern-http-close",
)
EIGHT_THREADS = (
    "gateways-fcgi-keep-t8",
    "gateways-fcgi-close-t8",
    "gateways-scgi-close-t8",
    "uwsgi-fcgi-close-t8",
    "uwsgi-scgi-close-t8",
    "uwsgi-uwsgi-close-t8",
    "gunicorn-http-keep-t8",
    "granian-http-keep-t8",
)
IN_C = ("libfcgi-fcgi-keep", "libfcgi-fcgi-close")

FEW_THREADS = (
    "gateways-fcgi-keep-t8",
    "uwsgi-fcgi-close-t8",
    "uwsgi-uwsgi-close-t8",
    "granian-http-keep-t8",
)
# Connections that HTTP servers close are in the table of hello alone, except gunicorn's only ones.
HELLO_ONLY = ("granian-http-close", "bjoern-http-close")
USUAL = (*(each for each in ONE_THREAD if each not in HELLO_ONLY), *FEW_THREADS)
# flup starves kept connections, and behind nginx these cannot be limited to four.
BEHIND_NGINX = tuple(each for each in USUAL if each != "flup-fcgi-keep")
# With FastCGI flup needs seconds for 20 MiB, and wants a table of its own.
LARGE = tuple(each for each in USUAL if not each.startswith("flup-fcgi"))

SECTIONS = (
    Section("hello", "hello, 12 bytes", "hello", "direct", ONE_THREAD + EIGHT_THREADS + IN_C),
    Section("echo", "64 KiB echoed", "echo", "direct", USUAL + IN_C),
    Section("big", "1 MiB in 16 chunks", "big", "direct", USUAL + IN_C),
    Section("body", "20 MiB echoed", "body", "direct", LARGE + IN_C[:1]),
    Section("flask", "Flask page", "flask", "direct", USUAL),
    Section("nginx-hello", "hello, 12 bytes", "hello", "nginx", BEHIND_NGINX + IN_C),
    Section("nginx-echo", "64 KiB echoed", "echo", "nginx", BEHIND_NGINX + IN_C),
    Section("nginx-big", "1 MiB in 16 chunks", "big", "nginx", BEHIND_NGINX + IN_C),
    Section("nginx-flask", "Flask page", "flask", "nginx", BEHIND_NGINX),
)

QUICK = Section(
    "hello",
    "hello, 12 bytes",
    "hello",
    "direct",
    (
        "gateways-fcgi-keep",
        "gateways-fcgi-close",
        "gateways-scgi-close",
        "gateways-fcgi-keep-t8",
        "uwsgi-fcgi-close",
        "uwsgi-scgi-close",
        "uwsgi-uwsgi-close",
        "uwsgi-fcgi-close-t8",
        "uwsgi-uwsgi-close-t8",
        "flup-fcgi-keep",
        "gunicorn-http-close",
        "granian-http-keep",
        "bjoern-http-keep",
        "libfcgi-fcgi-keep",
    ),
)


def present(names: Sequence[str], tree: Path) -> list[Contender]:
    """The contenders whose servers are installed; `tree` is the checkout of gateways."""
    return [each for each in (parse(name, tree) for name in names) if each.there]
