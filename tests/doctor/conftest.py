"""A folder that everybody may enter, and scripts in it."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateways import doctor
from gateways.doctor import Report, access
from gateways.doctor.shebang import SERVERS_PATH

IS_ROOT = os.geteuid() == 0

ME = pwd.getpwuid(os.geteuid()).pw_name

LOOKER = "nobody" if IS_ROOT else ME
"""With whose rights the interpreter looks at imports: root never does that with its own."""


def _python() -> str:
    """An interpreter that LOOKER may run; ours may be closed to others than root."""
    if any(access.barred_folders(sys.executable, access.find_user(LOOKER))):
        return shutil.which("python3", path=SERVERS_PATH) or sys.executable
    return sys.executable


PYTHON = _python()

HELLO = f"#!{PYTHON}\nprint('Content-Type: text/plain')\nprint()\nprint('hello')\n"

Script = Callable[..., Path]


@pytest.fixture
def folder(short_path: Path) -> Path:
    """A folder with the mode of an ordinary one, whatever the umask is."""
    short_path.chmod(0o755)
    return short_path


@pytest.fixture
def script(folder: Path) -> Script:
    """Write a script and return its path."""

    def write(text: str | bytes = HELLO, name: str = "hello.cgi", mode: int = 0o755) -> Path:
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def powerless() -> Iterator[None]:
    """Let the test go on as a user whom permissions bind, if root runs it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def as_owner() -> Iterator[None]:
    """Be who the test began as, for a moment."""
    bound = os.geteuid()
    os.seteuid(os.getuid())
    try:
        yield
    finally:
        os.seteuid(bound)


def codes(thing: object, user: str = ME, **wishes: object) -> list[str]:
    """The codes of what is found, in order; the user is one who may do everything here."""
    return [each.code for each in examine(thing, user, **wishes).findings]


def examine(thing: object, user: str = ME, **wishes: object) -> Report:
    return doctor.examine(str(thing), user=user, **wishes)  # type: ignore[arg-type]  # passed on as they came
