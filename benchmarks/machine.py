"""Where and with what a measurement was made."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks import environment


def facts(tree: Path) -> dict[str, Any]:
    """The machine, its kernel, every version, and the commit of gateways in `tree`."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "machine": machine(),
        "distribution": _distribution(),
        "python": _output([str(environment.PYTHON), "-VV"]),
        "interpreter": os.path.realpath(environment.PYTHON),
        "gateways": commit(tree),
        "versions": versions(),
    }


def machine() -> str:
    """The processor, how many there are, and the kernel."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # Only Linux tells it there.
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def commit(tree: Path) -> str:
    """The commit of a checkout, and whether files differ from it."""
    described = _output(["git", "-C", str(tree), "rev-parse", "--short=10", "HEAD"])
    changed = _output(["git", "-C", str(tree), "status", "--porcelain", "gateways"])
    return f"{described or 'unknown'}{' with changes' if changed else ''}"


def versions() -> dict[str, str]:
    wanted = ("uwsgi", "flup", "gunicorn", "granian", "bjoern", "flask", "jinja2", "werkzeug")
    found = {
        name: environment.installed()[name] for name in wanted if name in environment.installed()
    }
    for package in ("apache2-bin", "fcgiwrap"):
        found[package] = _output(["dpkg-query", "-W", "-f=${Version}", package])
    found["libfcgi"] = _output(["dpkg-query", "-W", "-f=${Version}", "libfcgi-dev"])
    for name, option in (("nginx", "-v"), ("wrk", "-v"), ("valgrind", "--version")):
        program = environment.program(name)
        if program:
            found[name] = _number(_output([program, option]))
    return {name: version for name, version in found.items() if version}


def _number(said: str) -> str:
    """The first word that looks like a version."""
    match = re.search(r"\d+\.\d[\w.+-]*", said)
    return match[0] if match else ""


def load_average() -> float:
    """How busy the machine is: the last minute's average of runnable processes."""
    return round(os.getloadavg()[0], 2)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _output(command: list[str]) -> str:
    """What a program prints; empty when it is not there or fails. wrk exits with 1 for its -v."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 or "wrk" in command[0] else ""
