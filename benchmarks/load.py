"""Runs the C load client directly on a server's unix socket."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import apps, environment
from benchmarks.contenders import Contender

VARIANTS = 64
"""Different requests that are sent in turn, so that no cache of whole requests helps."""

MEBIBYTE = 1 << 20


class Work(NamedTuple):
    """What is asked of an application: bytes of request body, and what the answer must be."""

    app: str
    body: int
    expect: str
    connections: int
    label: str

    @property
    def variants(self) -> int:
        # Each is held whole in the client's memory.
        return VARIANTS if self.body <= 65536 else 1

    def answer(self, body: bytes) -> bytes:
        """The body that answers a request with `body`."""
        if self.expect == "hello":
            return apps.HELLO
        if self.expect == "echo":
            return body
        return (
            apps.CHUNK * apps.CHUNKS
            if self.expect == "big"
            else environment.FLASK_PAGE.read_bytes()
        )


WORKS = {
    "hello": Work("hello", 0, "hello", 16, "hello, 12 bytes"),
    "echo": Work("echo", 65536, "echo", 16, "64 KiB echoed"),
    "big": Work("big", 0, "big", 4, "1 MiB in 16 chunks"),
    "flask": Work("flask", 0, f"file:{environment.FLASK_PAGE}", 16, "Flask page"),
    "body": Work("echo", 20 * MEBIBYTE, "echo", 1, "20 MiB echoed"),
}


class LoadFailed(Exception):
    """The load client could not run, or counted wrong answers."""


def load(
    contender: Contender,
    work: Work,
    socket: Path,
    *,
    seconds: float = 600,
    requests: int = 0,
    connections: int = 0,
    options: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Ask for `seconds`, or `requests` times; return what the client counted.

    LoadFailed when an answer was wrong, late or missing.
    """
    at_once = connections or min(work.connections, contender.connections)
    command = [str(environment.LOAD), "-u", str(socket), "-p", contender.facts.protocol, "-j"]
    command += ["-c", str(at_once), "-d", str(seconds), "-V", str(work.variants), "-x", work.expect]
    command += ["-k"] if contender.keep else []
    command += ["-n", str(requests)] if requests else []
    command += ["-b", str(work.body)] if work.body else []
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    try:
        counted: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise LoadFailed(f"{' '.join(command)}: {done.stderr or done.stdout}") from None
    wrong = counted["errors"] + counted["timeouts"] + counted["stalled"]
    if wrong or not counted["ok"]:
        raise LoadFailed(_complaint(counted))
    return counted


def _complaint(counted: dict[str, Any]) -> str:
    return (
        f"{counted['ok']} right answers, {counted['errors']} wrong ({counted['errkinds']}), "
        f"{counted['timeouts']} late, {counted['stalled']} never"
    )
