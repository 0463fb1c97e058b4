"""A Python CGI script under Apache's mod_cgid, and kept warm by pycgi behind nginx: requests a second.

The same file on the same interpreter, asked by wrk over a few connections; the script imports json,
sqlite3 and cgi and does a little with each.  One answer is compared beforehand.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import environment, nginx
from benchmarks.contenders import parse
from benchmarks.load import LoadFailed, Work
from benchmarks.ratios import paired
from benchmarks.running import START_SECONDS, RunningServer, listening, wait_ready

APACHE, FORK, IN_PROCESS = "apache", "fork", "inprocess"
LABELS = {
    APACHE: "Apache, mod_cgid",
    FORK: "nginx, pycgi: (a fork for each request)",
    IN_PROCESS: "nginx, pycgi+inprocess:",
}

# Without -W the module cgi would print in each request that it is deprecated, and look its own source
# up for that.
SCRIPT = """#!{python} -Wignore
import cgi
import json
import sqlite3

form = cgi.FieldStorage()
database = sqlite3.connect(":memory:")
(total,) = database.execute("SELECT 40 + 2").fetchone()
print("Content-Type: application/json")
print()
print(json.dumps({{"page": form.getfirst("page"), "total": total}}))
"""

CONNECTIONS = 4
WORK = Work("script", 0, "any", CONNECTIONS, "a Python CGI script")
SECONDS = 2.0
SLOW_SECONDS = 3.0
"""For Apache, which answers some dozens in a second."""

MOST_ROUNDS = 8
"""A round takes ten seconds, and the targets are far off or far missed."""

MODULES = Path("/usr/lib/apache2/modules")

CONFIGURATION = """\
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/log
LogLevel crit
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule cgid_module {modules}/mod_cgid.so
{user}
ScriptSock {folder}/cgid
ScriptAlias /script {script}
<Directory {script.parent}>
  Require all granted
  AllowOverride None
</Directory>
"""


def measure(tree: Path, rounds: int) -> dict[str, list[float]]:
    """Host → requests a second of each round."""
    with tempfile.TemporaryDirectory(prefix="gwb-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Apache's scripts run as another user
        script = folder / "page.cgi"
        python = os.path.realpath(environment.PYTHON)
        if not has_cgi(python):
            raise LoadFailed(f"{python} has no module cgi, as none has from 3.13 on (BENCH_PYTHON)")
        script.write_text(SCRIPT.format(python=python))
        script.chmod(0o755)
        there = {APACHE: bool(environment.program("apache2")) and MODULES.is_dir()}
        found: dict[str, list[float]] = {each: [] for each in LABELS if there.get(each, True)}
        for _ in range(min(rounds, MOST_ROUNDS)):
            for host, rates in found.items():
                rates.append(_apache(script) if host == APACHE else _warm(host, script, tree))
    return found


def has_cgi(python: str) -> bool:
    """Whether an interpreter comes with the module that the script imports."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('cgi') is None)"
    return not subprocess.run([python, "-c", code], check=False).returncode


def _apache(script: Path) -> float:
    with _apache_listening(script) as port:
        return _rate(port, SLOW_SECONDS)


def _warm(mode: str, script: Path, tree: Path) -> float:
    def command(socket: Path) -> list[str]:
        serve = [str(environment.PYTHON), "-m", "gateways", "serve", f"pycgi+{mode}:{script}"]
        return [*serve, "-b", f"fcgi+unix:{socket}"]

    with (
        listening(command, {"PYTHONPATH": str(tree)}) as server,
        nginx.proxy(parse("gateways-fcgi-keep"), server.socket) as (port, _),
    ):
        return _rate(port, SECONDS)


def _rate(port: int, seconds: float) -> float:
    for _ in range(2 * CONNECTIONS):
        _check(port)
    return float(nginx.ask(port, WORK, seconds)["rps"])


def _check(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/script?page=7")
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    if answer.status != 200 or json.loads(data) != {"page": "7", "total": 42}:
        raise LoadFailed(f"the script answered {answer.status}: {data[:200]!r}")


@contextlib.contextmanager
def _apache_listening(script: Path) -> Iterator[int]:
    """Run Apache with the script at /script; give its port."""
    folder = Path(tempfile.mkdtemp(prefix="gwb-"))
    folder.chmod(0o755)
    port = nginx.free_port()
    configuration = folder / "apache.conf"
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    facts = {"folder": folder, "port": port, "modules": MODULES, "user": user, "script": script}
    text = CONFIGURATION.format(**facts)
    configuration.write_text(
        text.replace(f"<Directory {script.parent}>", f"<Directory {script.parent}>")
    )
    program = environment.program("apache2") or "apache2"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-d", str(folder), "-f", str(configuration), "-DFOREGROUND"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_ready(process, ("127.0.0.1", port), folder / "log", START_SECONDS)
        yield port
    finally:
        RunningServer(process, folder).stop()
        shutil.rmtree(folder, ignore_errors=True)


HEAD = ("a script with json, sqlite3 and cgi", "requests/s", "times Apache's")


def rows(found: dict[str, list[float]]) -> list[list[str]]:
    told = []
    for host, rates in found.items():
        times = ""
        if host != APACHE and APACHE in found:
            ratio = paired(rates, found[APACHE])
            times = f"{ratio.median:.1f} ({ratio.low:.1f} to {ratio.high:.1f})"
        told.append([LABELS[host], f"{statistics.median(rates):,.0f}", times])
    return told
