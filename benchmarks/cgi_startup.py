"""What a CGI request costs: CPU of `gateways.cgi.run` beside a bare start of the interpreter.

Every CGI request starts a process, so importing is most of what it costs.  Each variant is run
once in each round, one after the other, so that whatever else the machine does meets all alike;
what counts is the difference to the bare start of the same round, in user and system time, as the
kernel accounts it to the child (os.wait4).  The package is copied and compiled beforehand, as it is
when it is installed.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import environment
from benchmarks.load import LoadFailed
from benchmarks.ratios import interval

HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello\\n"]
"""

ANSWER = b"hello\n"


class Variant(NamedTuple):
    """A script, and how its output ends."""

    text: str
    answer: bytes = ANSWER


BARE, RUN, ANY_START = "bare interpreter", "gateways.cgi.run", "gateways.run"

VARIANTS = {
    BARE: Variant("pass\n", b""),
    RUN: Variant(HELLO + "from gateways import cgi\ncgi.run(application)\n"),
    ANY_START: Variant(HELLO + "import gateways\ngateways.run(application)\n"),
    "wsgiref's CGIHandler": Variant(
        HELLO + "from wsgiref.handlers import CGIHandler\nCGIHandler().run(application)\n"
    ),
}

REQUEST = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "/hello.cgi",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "REQUEST_URI": "/hello.cgi/",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
}
"""What a web server sets for a plain GET."""

TIMES_ROUNDS = 8
"""A run takes ten milliseconds, so there are so many times as many rounds as elsewhere."""


def measure(tree: Path, rounds: int) -> dict[str, list[float]]:
    """Variant → milliseconds of CPU of each round."""
    with tempfile.TemporaryDirectory(prefix="gwb-") as name:
        folder = Path(name)
        _prepare(folder, tree)
        found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        # The first round fills the kernel's caches.
        for each in range(rounds * TIMES_ROUNDS + 1):
            for number, (variant, facts) in enumerate(VARIANTS.items()):
                took = _once(_script(folder, number), facts.answer, folder)
                if each:
                    found[variant].append(round(took, 3))
    return found


def _prepare(folder: Path, tree: Path) -> None:
    """Put the package, compiled, and each variant's script into `folder`."""
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(tree / "gateways", folder / "gateways", ignore=left_out)
    command = [environment.interpreter(), "-m", "compileall", "-q", str(folder / "gateways")]
    subprocess.run(command, check=True)
    for number, variant in enumerate(VARIANTS.values()):
        _script(folder, number).write_text(variant.text)


def _script(folder: Path, number: int) -> Path:
    return folder / f"variant{number}.py"


def _once(program: Path, answer: bytes, folder: Path) -> float:
    """Run a script as one CGI request, check its answer, and return the milliseconds of CPU."""
    variables = {**REQUEST, "PATH": os.defpath, "PYTHONPATH": str(folder)}
    output = folder / "output"
    opened = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    python = environment.interpreter()
    pid = os.posix_spawn(python, [python, str(program)], variables, file_actions=opened)
    _, status, usage = os.wait4(pid, 0)
    if status or not output.read_bytes().endswith(answer):
        raise LoadFailed(f"{program.read_text()} exit {status}: {output.read_bytes()!r}")
    return (usage.ru_utime + usage.ru_stime) * 1000


def above(found: dict[str, list[float]], variant: str) -> list[float]:
    """What a variant took beyond the bare interpreter of the same round."""
    return [took - less for took, less in zip(found[variant], found[BARE], strict=True)]


HEAD = ("one CGI request", "CPU ms", "above the bare start", "its interval")


def rows(found: dict[str, list[float]]) -> list[list[str]]:
    told = []
    for variant, taken in found.items():
        more = interval(above(found, variant))
        row = [variant, f"{statistics.median(taken):.2f}"]
        row += ["", ""] if variant == BARE else [f"{more.median:.2f}", _ends(more)]
        told.append(row)
    return told


def _ends(found: Any) -> str:
    return f"{found.low:.2f} to {found.high:.2f}"
