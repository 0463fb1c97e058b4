"""What the measurements need: one virtual environment with every peer, and three small C programs.

All Python contenders run on one interpreter, the distribution's, because a CPython that was built
without profile-guided optimisation is up to twice as slow: /usr/bin/python3 where it is new enough,
or what the environment variable BENCH_PYTHON names.  uWSGI and bjoern are compiled against it, even
where an index offers them compiled.  What cannot be installed is said, and left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
VENV = ROOT / ".venvs" / "bench"
PYTHON = VENV / "bin" / "python"
BUILT = VENV / "gateways-bench"
"""Where the C programs go."""

LOAD = BUILT / "fcgiload"
LIBFCGI = BUILT / "libfcgi_apps"
HELLO_CGI = BUILT / "hello_cgi"
FLASK_PAGE = BUILT / "flask_page.html"
"""What the Flask page must look like, from Flask itself without any server."""

PACKAGES = {
    "a C compiler": ("gcc", "libc6-dev"),
    "venv": ("python3-venv",),
    "wrk": ("wrk",),
    "nginx": ("nginx-light",),
    "valgrind": ("valgrind",),
    "fcgiwrap": ("fcgiwrap",),
    "apache2": ("apache2-bin",),
    "libfcgi": ("libfcgi-dev",),
    "uwsgi": ("python3-dev",),
    "bjoern": ("python3-dev", "libev-dev"),
}
"""What is wanted → the Debian packages that it takes."""

COMPILED = ("uwsgi", "bjoern")

PROGRAMS = ("nginx", "wrk", "valgrind", "fcgiwrap", "apache2")
"""Programs of the system, without which something is left out."""


def prepare() -> list[str]:
    """Make what is missing; return a line for each thing that could not be had.

    SystemExit when even the load client cannot be made.
    """
    _system_packages()
    try:
        if not PYTHON.exists():
            _say(f"{VENV.relative_to(ROOT)}: making an environment with {interpreter()}")
            _run([interpreter(), "-m", "venv", "--clear", str(VENV)])
        BUILT.mkdir(exist_ok=True)
        _compile(HERE / "fcgiload.c", LOAD)
        _compile(HERE / "hello_cgi.c", HELLO_CGI)
    except (OSError, subprocess.CalledProcessError) as error:
        said = _last_line(getattr(error, "output", "") or str(error))
        raise SystemExit(f"the measurements need a C compiler and Python's venv: {said}") from None
    lacking = [f"{each}: {problem}" for each in requirements() if (problem := _install(each))]
    try:
        _compile(HERE / "libfcgi_apps.c", LIBFCGI, "-pthread", "-lfcgi")
    except subprocess.CalledProcessError as error:
        lacking.append(f"libfcgi: {_last_line(error.output)}")
    if "flask" in installed():
        FLASK_PAGE.write_bytes(_flask_page())
    return lacking + [each for each in PROGRAMS if not program(each)]


def interpreter() -> str:
    """The interpreter that every Python contender runs on."""
    wanted = os.environ.get("BENCH_PYTHON")
    if wanted:
        return wanted
    distribution = "/usr/bin/python3"
    try:
        new_enough = subprocess.run(
            [distribution, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False
        )
    except OSError:
        return sys.executable
    return distribution if new_enough.returncode == 0 else sys.executable


def requirements() -> list[str]:
    """pyproject.toml's dependency group `bench`, and what the command line of gateways needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [*project["project"]["dependencies"], *project["dependency-groups"]["bench"]]


@cache
def installed() -> dict[str, str]:
    """Package (in small letters) → version, of the environment."""
    listed = _run([str(PYTHON), "-m", "pip", "list", "--format=freeze"])
    pairs = (line.partition("==") for line in listed.splitlines() if "==" in line)
    return {name.lower(): version for name, _, version in pairs}


def program(name: str) -> str | None:
    """Where a program of the system is; servers may stand outside an ordinary user's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def _system_packages() -> None:
    wanted = sorted({package for each in _missing() for package in PACKAGES[each]})
    if not wanted:
        return
    if os.geteuid() != 0 or not program("apt-get"):
        _say(f"not root, or no apt; on Debian and Ubuntu:  apt-get install {' '.join(wanted)}")
        return
    _say(f"installing {' '.join(wanted)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *wanted]
    for each in (["apt-get", "update"], command):
        subprocess.run(each, env=environment, capture_output=True, check=False)


def _missing() -> list[str]:
    has = installed() if PYTHON.exists() else {}
    headers = Path(_asked("import sysconfig; print(sysconfig.get_path('include'))")) / "Python.h"
    there = {
        "a C compiler": bool(program("cc")),
        "venv": PYTHON.exists() or bool(_asked("import venv, ensurepip; print(1)")),
        "wrk": bool(program("wrk")),
        "nginx": bool(program("nginx")),
        "valgrind": bool(program("valgrind")),
        "fcgiwrap": bool(program("fcgiwrap")),
        "apache2": bool(program("apache2")),
        "libfcgi": LIBFCGI.exists() or Path("/usr/include/fcgiapp.h").exists(),
        "uwsgi": "uwsgi" in has or headers.exists(),
        "bjoern": "bjoern" in has or (headers.exists() and Path("/usr/include/ev.h").exists()),
    }
    return [name for name, is_there in there.items() if not is_there]


def _asked(code: str) -> str:
    """What the interpreter prints; empty when it fails."""
    done = subprocess.run([interpreter(), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _install(requirement: str) -> str:
    """Install one requirement unless it is there; return why it failed, or ""."""
    name = requirement.split("=")[0].split(">")[0].strip()
    if name.lower() in installed():
        return ""
    _say(f"installing {requirement}")
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--root-user-action=ignore"]
    if name in COMPILED:
        command += ["--no-binary", name]
    try:
        _run([*command, requirement])
    except subprocess.CalledProcessError as error:
        return _last_line(error.output)
    finally:
        installed.cache_clear()
    return ""


def _compile(source: Path, program: Path, *libraries: str) -> None:
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return
    _run(["cc", "-O2", "-Wall", "-o", str(program), str(source), *libraries])


def _flask_page() -> bytes:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from flask_page import application;"
        "sys.stdout.buffer.write(application.test_client().get('/').data)"
    )
    return subprocess.run(
        [str(PYTHON), "-c", code, str(HERE)], stdout=subprocess.PIPE, check=True
    ).stdout


def _run(command: list[str]) -> str:
    # An environment variable such as PYTHONPATH would put other packages in front.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout


def _last_line(output: str) -> str:
    lines = [line for line in (output or "").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "failed without a word"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
