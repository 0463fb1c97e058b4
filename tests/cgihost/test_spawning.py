"""A child that is started here is the same whichever way it is started."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateways.cgihost import spawning

ways = [spawning._by_popen]
if sys.version_info < (3, 14):
    ways.append(spawning._by_fork_exec)
each_way = pytest.mark.parametrize("way", ways)

Way = Callable[..., int]

TELL = """
import json, os
told = {
    "folder": os.getcwd(),
    "variables": {name: os.environ[name] for name in ("A", "B")},
    "leads": os.getsid(0) == os.getpid(),
    "open": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
    "kept": os.read(int(os.environ["KEPT"]), 9).decode(),
}
print(json.dumps(told), flush=True)
"""


def started(way: Way, command: list[bytes], folder: Path, keep: int) -> tuple[int, int]:
    """Start a command; return its process id and the descriptor to read its output from."""
    nothing = os.open(os.devnull, os.O_RDWR)
    ours, theirs = os.pipe()
    variables = {b"A": b"1", b"B": b"a=b\xff", b"KEPT": b"%d" % keep}
    try:
        streams = nothing, theirs, nothing
        return way(command, variables, os.fsencode(folder), streams, (keep,)), ours
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
        os.close(nothing)


@each_way
def test_a_child_has_its_folder_variables_session_and_no_other_descriptors(
    way: Way, tmp_path: Path
) -> None:
    kept, writer = os.pipe()
    leaked = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    os.write(writer, b"line")
    os.close(writer)
    try:
        command = [os.fsencode(sys.executable), b"-S", b"-c", TELL.encode()]
        pid, output = started(way, command, tmp_path, kept)
        with open(output, "rb") as reader:
            told = json.loads(reader.read())
        assert spawning.reap(pid) == 0
    finally:
        os.close(kept)
        os.close(leaked)
    assert told == {
        "folder": str(tmp_path),
        "variables": {"A": "1", "B": "a=b\udcff"},
        "leads": True,
        "open": [0, 1, 2, kept],
        "kept": "line",
    }


@each_way
def test_a_child_ignores_no_signal_because_Python_does(way: Way, tmp_path: Path) -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    pid, output = started(way, [b"/bin/grep", b"SigIgn", b"/proc/self/status"], tmp_path, 0)
    with open(output, "rb") as reader:
        ignored = int(reader.read().split()[1], 16)
    assert spawning.reap(pid) == 0
    assert not ignored & (1 << (signal.SIGPIPE - 1))


@each_way
@pytest.mark.parametrize(
    ("name", "error"), [("is not here", FileNotFoundError), ("text", PermissionError)]
)
def test_what_cannot_be_started_is_told_and_leaves_nothing_open(
    way: Way, name: str, error: type[OSError], tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no program")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(error):
        started(way, [os.fsencode(tmp_path / name)], tmp_path, 0)
    assert os.listdir("/proc/self/fd") == before


@each_way
def test_what_a_child_tells_in_pieces_is_read_to_its_end(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 1)))
    with pytest.raises(FileNotFoundError):
        started(way, [b"/nowhere/at/all"], tmp_path, 0)


@each_way
def test_an_exit_by_a_signal_is_told_as_one(way: Way, tmp_path: Path) -> None:
    pid, output = started(way, [b"/bin/sh", b"-c", b"kill -9 $$"], tmp_path, 0)
    os.close(output)
    assert spawning.reap(pid) == -9
