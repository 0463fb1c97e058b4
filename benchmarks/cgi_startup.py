"""What a CGI request costs: CPU of `gateways.cgi.run` beside a bare interpreter and wsgiref.

    python3 benchmarks/cgi_startup.py [--rounds N] [--json]

Every CGI request starts a process, so importing is most of what it costs.  Each variant is run
once in each round, one after the other, so that whatever else the machine does meets all alike;
a variant's figure is the median of user and system time, as the kernel accounts it to the child
(os.wait4).  The package is copied and compiled beforehand, as it is when it is installed.

Run it with the interpreter that is to be measured.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "gateways"

HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello\\n"]
"""

GATEWAYS = HELLO + "from gateways import cgi\ncgi.run(application)\n"

WSGIREF = HELLO + "from wsgiref.handlers import CGIHandler\nCGIHandler().run(application)\n"

ANSWER = b"hello\n"

VARIANTS = {
    "bare interpreter": ("pass\n", b""),
    "gateways.cgi.run": (GATEWAYS, ANSWER),
    "wsgiref CGIHandler": (WSGIREF, ANSWER),
}
"""Name → the script, and how its output ends."""

TARGET_MILLISECONDS = 2.0
"""What `gateways.cgi.run` may cost above a bare start."""

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25, help="runs of each variant [25]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        prepare(Path(folder))
        times = measure(Path(folder), options.rounds)
    report(times, options.rounds, as_json=options.json)


def prepare(folder: Path) -> None:
    """Put the package, compiled, and each variant's script into `folder`."""
    shutil.copytree(PACKAGE, folder / "gateways", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(folder / "gateways", quiet=1)
    for number, (text, _) in enumerate(VARIANTS.values()):
        script(folder, number).write_text(text)


def script(folder: Path, number: int) -> Path:
    return folder / f"variant{number}.py"


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the CPU milliseconds of each run of each variant."""
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for each in range(rounds + 1):
        for number, (name, (_, answer)) in enumerate(VARIANTS.items()):
            took = run_once(script(folder, number), answer, folder)
            # The first round fills the kernel's caches.
            if each:
                times[name].append(took)
    return times


def run_once(program: Path, answer: bytes, folder: Path) -> float:
    """Run a script as one CGI request, check its answer, and return the milliseconds of CPU."""
    environment = {**REQUEST, "PATH": os.defpath, "PYTHONPATH": str(folder)}
    output = folder / "output"
    opened = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    arguments = [sys.executable, str(program)]
    pid = os.posix_spawn(sys.executable, arguments, environment, file_actions=opened)
    _, status, usage = os.wait4(pid, 0)
    if status or not output.read_bytes().endswith(answer):
        sys.exit(f"{program.name} failed: wait status {status}, answer {output.read_bytes()!r}")
    return (usage.ru_utime + usage.ru_stime) * 1000


def report(times: dict[str, list[float]], rounds: int, *, as_json: bool) -> None:
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    bare = medians["bare interpreter"]
    above = medians["gateways.cgi.run"] - bare
    if as_json:
        told = {
            "machine": machine(),
            "python": sys.version,
            "rounds": rounds,
            "milliseconds": {name: round(value, 3) for name, value in medians.items()},
            "above_bare": round(above, 3),
            "target": TARGET_MILLISECONDS,
        }
        print(json.dumps(told, indent=2))
        return
    print(f"{machine()}\nPython {sys.version}\n{rounds} rounds, median CPU milliseconds\n")
    for name, value in medians.items():
        low, high = min(times[name]), max(times[name])
        print(f"{name:20} {value:7.2f}  (+{value - bare:5.2f})   {low:.2f} to {high:.2f}")
    verdict = "within" if above <= TARGET_MILLISECONDS else "OVER"
    print(f"\nabove a bare start: {above:.2f} ms, {verdict} the target of {TARGET_MILLISECONDS} ms")


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # Only Linux tells it there.
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


if __name__ == "__main__":
    main()
