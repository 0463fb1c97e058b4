"""CGI scripts behind FastCGI: what cgihost and fcgiwrap cost beyond the script itself.

One small program in C, asked over one connection after the other.  The CPU is that of the whole
process tree, with the scripts that ended; from it is taken what the same program costs when a
C program starts it as cheaply as can be, measured in the same round.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import accounting, environment
from benchmarks.cgi_startup import REQUEST
from benchmarks.contenders import parse
from benchmarks.load import WORKS, LoadFailed, load
from benchmarks.ratios import paired
from benchmarks.running import listening

OWN_RUNS = 300
"""How often the script is run by itself in a round."""

CLIENT = "gateways-fcgi-close"
"""How the load client asks: FastCGI, and a connection for each request, as nginx does unless it is told otherwise."""


class Host(NamedTuple):
    """What runs scripts: `command` makes its command line of the checkout, the script and the socket."""

    label: str
    command: Callable[[Path, Path], list[str]]


def _gateways(*options: str) -> Callable[[Path, Path], list[str]]:
    def command(script: Path, socket: Path) -> list[str]:
        python = [str(environment.PYTHON), "-m", "gateways", "serve", f"cgi:{script}"]
        return [*python, "-b", f"fcgi+unix:{socket}", *options]

    return command


def _fcgiwrap(script: Path, socket: Path) -> list[str]:
    return [environment.program("fcgiwrap") or "fcgiwrap", "-c", "1", "-s", f"unix:{socket}"]


FCGIWRAP, CGIHOST, CGIHOST_8 = "fcgiwrap", "cgihost", "cgihost-t8"

HOSTS = {
    FCGIWRAP: Host("fcgiwrap", _fcgiwrap),
    CGIHOST: Host("gateways cgi:, 1 thread", _gateways("--threads", "1")),
    CGIHOST_8: Host("gateways cgi:, 8 threads", _gateways("--threads", "8")),
}


def measure(tree: Path, rounds: int, seconds: float = 1.0) -> dict[str, Any]:
    """`own`, and for each host `total` and `over`: microseconds of CPU of each round; and requests/s."""
    there = [name for name in HOSTS if name != FCGIWRAP or environment.program("fcgiwrap")]
    found: dict[str, Any] = {"own": [], "hosts": {name: {} for name in there}}
    for _ in range(rounds):
        own = own_cost()
        found["own"].append(own)
        for name in there:
            sample = _once(HOSTS[name], tree, seconds)
            sample["over"] = sample["total"] - own
            for key, value in sample.items():
                found["hosts"][name].setdefault(key, []).append(round(value, 2))
    return found


def own_cost() -> float:
    """Microseconds of CPU of one run of the script, started by a program in C."""
    script = str(environment.HELLO_CGI)
    done = subprocess.run(
        [script, script, str(OWN_RUNS)], env=REQUEST, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LoadFailed(f"{script}: {done.stderr}")
    return float(done.stdout)


def _once(host: Host, tree: Path, seconds: float) -> dict[str, float]:
    script, work, client = environment.HELLO_CGI, WORKS["hello"], parse(CLIENT)
    options = ("-s", str(script))
    with (
        listening(lambda socket: host.command(script, socket), {"PYTHONPATH": str(tree)}) as server,
        accounting.account(server.pid) as used,
    ):
        load(client, work, server.socket, seconds=0.2, connections=1, options=options)
        before = used()
        counted = load(client, work, server.socket, seconds=seconds, connections=1, options=options)
        spent = used() - before
    return {"total": 1e6 * spent / counted["ok"], "rps": counted["rps"]}


HEAD = ("a small script in C", "CPU µs", "over the script's own", "to fcgiwrap", "requests/s")


def rows(found: dict[str, Any]) -> list[list[str]]:
    told = [["the script by itself", f"{statistics.median(found['own']):.0f}", "", "", ""]]
    hosts = found["hosts"]
    for name, columns in hosts.items():
        middle = {key: statistics.median(values) for key, values in columns.items()}
        row = [HOSTS[name].label, f"{middle['total']:.0f}", f"{middle['over']:.0f}"]
        told.append([*row, _to_fcgiwrap(name, hosts), f"{middle['rps']:,.0f}"])
    return told


def _to_fcgiwrap(name: str, hosts: dict[str, Any]) -> str:
    if name == FCGIWRAP or FCGIWRAP not in hosts:
        return ""
    ratio = paired(hosts[name]["over"], hosts[FCGIWRAP]["over"])
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
