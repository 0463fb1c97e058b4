"""Run:  python3 .ci/environment.py FOLDER GROUP…     or, to pin anew:  … --lock FOLDER

Makes or completes the virtual environment FOLDER: gateways itself, editable, with its command
line, and the GROUPs of pyproject.toml ("demo" is the sample application's needs).  Versions are
those of `.ci/requirements.txt`, so that everybody runs the same ones.  When nothing has changed
since the last time, it finds that out without network and returns at once.

Standard library only, and quiet unless something goes wrong.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / ".ci" / "requirements.txt"
PROJECT = ROOT / "pyproject.toml"

# What builds gateways itself; installed beforehand so that these are pinned as well.
BUILD = ["hatchling", "editables"]
# Flask for the guestbook, waitress for the development front.
DEMO = ["flask", "waitress"]
ATTEMPTS = 3


def main(arguments: list[str]) -> int:
    lock = "--lock" in arguments
    folder, *groups = [each for each in arguments if each != "--lock"]
    try:
        if lock:
            write_pins(Path(folder))
        else:
            prepare(Path(folder), groups)
    except subprocess.CalledProcessError as error:
        print(error.output or "", end="", file=sys.stderr)
        print(f"failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    return 0


def prepare(folder: Path, groups: list[str]) -> None:
    """Make the environment, or what it lacks of `groups`; CalledProcessError when that fails."""
    python = make(folder)
    done = folder / "gateways-groups"
    had = done.read_text().split("\n") if done.exists() else []
    if had[:1] == [fingerprint()] and set(groups) <= set(had[1:]):
        return
    wanted = sorted({each for group in groups for each in requirements(group)})
    print(f"{shown(folder)}: installing the packages for {', '.join(groups)}", flush=True)
    pip(python, "-c", str(PINS), *BUILD, *runtime(), *wanted)
    # No isolation: the build uses the pinned packages of the line above and no network.
    pip(python, "--no-build-isolation", "--no-deps", "-e", str(ROOT))
    kept = [group for group in had[1:] if had[0] == fingerprint()]
    done.write_text("\n".join([fingerprint(), *sorted({*kept, *groups})]))


def make(folder: Path) -> Path:
    """Return the interpreter of the virtual environment `folder`, made when it is not there."""
    python = folder / "bin" / "python"
    # An environment whose interpreter has been upgraded, removed or is another is made anew.
    if not works(python):
        if folder.exists():
            shutil.rmtree(folder)
        print(f"{shown(folder)}: making a virtual environment", flush=True)
        try:
            run([sys.executable, "-m", "venv", str(folder)])
        except subprocess.CalledProcessError as error:
            error.output = (error.output or "") + (
                "This Python cannot make virtual environments."
                "  On Debian and Ubuntu:  apt-get install python3-venv\n"
            )
            raise
    return python


def works(python: Path) -> bool:
    """Whether it is of this Python, and has a pip: making an environment can fail half-way."""
    try:
        return run([python, "-c", "import pip, sys; print(sys.version)"]).strip() == sys.version
    except (OSError, subprocess.CalledProcessError):
        return False


def fingerprint() -> str:
    """What the environment was made from: it is out of date when one of these has changed."""
    facts = [PINS.read_bytes(), PROJECT.read_bytes(), str(ROOT).encode(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(facts)).hexdigest()


def runtime() -> list[str]:
    project = tomllib.loads(PROJECT.read_text())["project"]
    return list(project["dependencies"])


def requirements(group: str) -> list[str]:
    """The requirements of one of pyproject.toml's dependency groups, includes followed."""
    if group == "demo":
        return DEMO
    found: list[str] = []
    for each in tomllib.loads(PROJECT.read_text())["dependency-groups"][group]:
        if isinstance(each, dict):
            found += requirements(each["include-group"])
        else:
            found.append(each)
    return found


def write_pins(folder: Path) -> None:
    """Install the newest versions into a fresh environment and write them down."""
    if folder.exists():
        shutil.rmtree(folder)
    python = make(folder)
    pip(python, *BUILD, *runtime(), *DEMO, *requirements("dev"))
    frozen = run([python, "-m", "pip", "freeze"]).splitlines()
    PINS.write_text("\n".join(sorted(frozen, key=str.lower)) + "\n")
    print(f"{len(frozen)} versions in {shown(PINS)}")


def pip(python: Path, *arguments: str) -> None:
    """Run `pip install`; an index that does not answer is asked again."""
    command: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    # As root pip warns that it is root, although a virtual environment is no harm to the system.
    command += ["--root-user-action=ignore", "--retries=5", "--timeout=30", *arguments]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            run(command)
            return
        except subprocess.CalledProcessError:
            if attempt == ATTEMPTS:
                raise
            print(f"pip failed; trying again ({attempt} of {ATTEMPTS - 1})", flush=True)
            time.sleep(5 * attempt)


def run(command: list[str | Path]) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean,
        text=True,
        check=True,
    ).stdout


def shown(path: Path) -> str:
    """The path as seen from the project's folder, where it lies in there."""
    path = Path(os.path.abspath(path))
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
