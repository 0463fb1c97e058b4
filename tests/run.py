"""Run:  make test     (or  python3 tests/run.py;  --offline for what needs no network and no root)

Everything there is to test, in this order:

1. the web servers and the browser are installed, or what is missing is said;
2. the checks that run nothing: ruff's two, and mypy's over the package and the tests;
3. the whole suite on the first interpreter (the one that runs this file), in `.venv`;
4. the suite again under `python -O`, where `assert` does nothing;
5. the suite on every other CPython from 3.11 on that this machine has, each in an environment of
   its own below `.venvs`.

Steps 4 and 5 leave the web servers, the browser, the crowds of slow peers and the long waits out
(markers `interop`, `browser` and `load`): those tests start programs that are the same whichever
Python runs, and take most of the time.

Prints what it does, then a table, and last of all a line `N passed, N failed, N skipped`.  Exit
status 1 when anything failed.  Standard library only: it runs before there is an environment.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
ENVIRONMENT = ROOT / ".ci" / "environment.py"

# The slowest step on two cores takes a quarter of this; one that hangs must not hang the build.
STEP_SECONDS = 900.0
WITHOUT_SERVERS = ["-m", "not interop and not browser and not load"]
# Named one by one: a check of "." would also read the environments.
SOURCES = ["gateways", "tests", "samples", ".ci"]
LINTS = {
    "ruff check": ["-m", "ruff", "check", "--quiet", *SOURCES],
    "ruff format": ["-m", "ruff", "format", "--check", *SOURCES],
    "mypy --strict": ["-m", "mypy", *SOURCES],
}
# The interpreter itself, also when this runs in a virtual environment.
FIRST = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


class Outcome(NamedTuple):
    """What one step came to; `passed`, `failed` and `skipped` are numbers of tests."""

    step: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    note: str = ""


class Interpreter(NamedTuple):
    path: str
    version: str
    label: str
    has_venv: bool


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every test, on every Python there is.")
    parser.add_argument(
        "--offline", action="store_true", help="no network, no root: lint, and the suite in .venv"
    )
    parser.add_argument("--lint", action="store_true", help="only lint")
    parser.add_argument(
        "arguments", nargs="*", help="what pytest is given as well, after a double dash"
    )
    options = parser.parse_args()
    # Being told to stop ends the step under way as Ctrl-C does; left alone it would go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    try:
        if options.lint:
            outcomes = lint()
        elif options.offline:
            outcomes = offline(options.arguments)
        else:
            outcomes = everything(options.arguments)
    except KeyboardInterrupt:
        return 130
    return report(outcomes, time.monotonic() - start)


def offline(arguments: list[str]) -> list[Outcome]:
    if not (VENV / "bin" / "python").exists():
        sys.exit("There is no .venv to test in.  Make it, once and with network:  make venv")
    return [*lint(), suite("suite", VENV, [*WITHOUT_SERVERS, *arguments])]


def everything(arguments: list[str]) -> list[Outcome]:
    others = [found for found in interpreters() if found.path != FIRST]
    say(f"Python {version(sys.version)} first, then {listed(others)}")
    outcomes = [command("web servers", ["sh", str(ROOT / "tests" / "install-servers.sh")])]
    outcomes.append(environment("environment", FIRST, VENV, "dev"))
    if outcomes[-1].failed:
        return outcomes
    outcomes += lint()
    outcomes.append(suite(f"{version(sys.version)}, everything", VENV, arguments))
    outcomes.append(
        suite(f"{version(sys.version)} -O", VENV, [*WITHOUT_SERVERS, *arguments], optimize=True)
    )
    for each in others:
        outcomes += other(each, arguments)
    return outcomes


def other(interpreter: Interpreter, arguments: list[str]) -> list[Outcome]:
    """The suite on an interpreter that is not the first one."""
    label = interpreter.label
    if not interpreter.has_venv:
        # Debian's own Python, where its package python3-venv is not installed.
        say(f"tests, {label}: left out")
        return [Outcome(label, 0, 0, 1, 0.0, f"left out: {interpreter.path} has no ensurepip")]
    folder = ROOT / ".venvs" / label
    made = environment(f"{label} environment", interpreter.path, folder, "test")
    if made.failed:
        return [made]
    return [suite(label, folder, [*WITHOUT_SERVERS, *arguments])]


# Interpreters


def interpreters() -> list[Interpreter]:
    """Every CPython from 3.11 on: in PATH by its usual names, and those that pyenv keeps.

    One that is reached by several names is there once.
    """
    names = ["python3", *(f"python3.{minor}{t}" for minor in range(11, 30) for t in ("", "t"))]
    # All of PATH, since a virtual environment or pyenv's shims hide the system's interpreter.
    folders = os.get_exec_path()
    candidates = [os.path.join(folder, name) for folder in folders for name in names]
    roots = [os.environ.get("PYENV_ROOT", ""), os.path.expanduser("~/.pyenv")]
    for root in filter(None, roots):
        candidates += sorted(glob.glob(os.path.join(root, "versions", "*", "bin", "python")))
    found: dict[tuple[str, str], Interpreter] = {}
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            each = probe(candidate)
            if each is not None:
                found.setdefault((each.path, each.version), each)
    return distinct(sorted(found.values(), key=lambda each: (order(each.version), each.path)))


PROBE = """
import importlib.util, json, os, sys, sysconfig
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps({
    "name": sys.implementation.name, "version": sys.version, "info": list(sys.version_info[:2]),
    "path": os.path.realpath(base), "venv": bool(importlib.util.find_spec("ensurepip")),
    "threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""


def probe(path: str) -> Interpreter | None:
    """Ask an interpreter what it is; None for what is no CPython we support.

    A shim of a version manager that has no such version selected fails here, and is nothing.
    """
    try:
        answer = subprocess.run(
            [path, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if facts["name"] != "cpython" or facts["info"] < [3, 11]:
        return None
    label = version(facts["version"]) + ("t" if facts["threaded"] else "")
    return Interpreter(facts["path"], facts["version"], label, facts["venv"])


def distinct(found: list[Interpreter]) -> list[Interpreter]:
    """Number the labels of different builds of one version, so that each has its own folder."""
    seen: dict[str, int] = {}
    named = []
    for each in found:
        seen[each.label] = seen.get(each.label, 0) + 1
        number = seen[each.label]
        named.append(each if number == 1 else each._replace(label=f"{each.label}-{number}"))
    return named


def version(text: str) -> str:
    return text.split(" ", 1)[0].rstrip("+")


def order(text: str) -> list[int]:
    numbers = version(text).split(".")
    return [int("".join(filter(str.isdigit, number)) or 0) for number in numbers]


def listed(found: list[Interpreter]) -> str:
    return ", ".join(each.label for each in found) or "no other"


# Steps


def lint() -> list[Outcome]:
    python = str(VENV / "bin" / "python")
    return [command(name, [python, *arguments]) for name, arguments in LINTS.items()]


def environment(step: str, python: str, folder: Path, *groups: str) -> Outcome:
    return command(step, [python, str(ENVIRONMENT), str(folder), *groups])


def command(step: str, line: list[str]) -> Outcome:
    """Run a command that either works or does not; it counts as a test of its own."""
    say(step)
    start = time.monotonic()
    code = run(line)
    seconds = time.monotonic() - start
    return Outcome(step, int(code == 0), int(code != 0), 0, seconds, "" if code == 0 else why(code))


def suite(step: str, folder: Path, arguments: list[str], optimize: bool = False) -> Outcome:
    """Run pytest and count from the report it writes, not from what it prints."""
    say(f"tests, {step}")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gateways-tests-") as scratch:
        results = Path(scratch) / "results.xml"
        line = [str(folder / "bin" / "python"), "-m", "pytest", "-q", "--color=no"]
        line += [f"--junitxml={results}", "-p", "no:cacheprovider"]
        variables = {}
        if optimize:
            # The variable, not the flag: the servers that tests start inherit it.
            variables = {"PYTHONOPTIMIZE": "1"}
            # pytest warns that `assert` does nothing outside the tests, which is the point here;
            # inside them its rewriting keeps them.
            line += ["-W", "ignore::pytest.PytestConfigWarning"]
        code = run([*line, *arguments], **variables)
        passed, failed, skipped = counts(results)
    seconds = time.monotonic() - start
    if code != 0:
        # Failing to collect anything leaves no failed test to count.
        return Outcome(step, passed, max(failed, 1), skipped, seconds, why(code))
    return Outcome(step, passed, failed, skipped, seconds)


def counts(results: Path) -> tuple[int, int, int]:
    if not results.exists():
        return 0, 0, 0
    cases = list(xml.etree.ElementTree.parse(results).getroot().iter("testcase"))
    failed = sum(
        case.find("failure") is not None or case.find("error") is not None for case in cases
    )
    skipped = sum(case.find("skipped") is not None for case in cases)
    return len(cases) - failed - skipped, failed, skipped


def run(line: list[str], **variables: str) -> int:
    """Run a command in the project's folder, in a process group that ends with its time or ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(
        line, cwd=ROOT, stdin=subprocess.DEVNULL, env=kept | variables, start_new_session=True
    )
    try:
        return process.wait(STEP_SECONDS)
    except subprocess.TimeoutExpired:
        say(f"stopped: no end after {STEP_SECONDS:.0f} s")
        return -signal.SIGKILL
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def why(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


# What is printed


def say(text: str) -> None:
    print(f"\n[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def report(outcomes: list[Outcome], seconds: float) -> int:
    width = max(len(each.step) for each in outcomes)
    print(f"\n{'':{width}}  {'passed':>7} {'failed':>7} {'skipped':>7} {'seconds':>8}")
    for each in outcomes:
        line = f"{each.step:{width}}  {each.passed:7} {each.failed:7} {each.skipped:7}"
        print(f"{line} {each.seconds:8.1f}  {each.note}".rstrip())
    passed = sum(each.passed for each in outcomes)
    failed = sum(each.failed for each in outcomes)
    skipped = sum(each.skipped for each in outcomes)
    print(f"\nin {seconds // 60:.0f} min {seconds % 60:.0f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
