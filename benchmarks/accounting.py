"""What the kernel says about a server's process tree: CPU, memory, threads, descriptors.  Linux."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


# Version 2 of control groups, and version 1 where the CPU account has a hierarchy of its own; file,
# and what makes nanoseconds of the number in it.
_GROUPS = (
    (Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage", 1),
    (Path("/sys/fs/cgroup"), "cpu.stat", 1000),
)


class NoAccount(Exception):
    """The kernel keeps no account that we may open; the text says what is missing."""


@contextlib.contextmanager
def account(pid: int) -> Iterator[Callable[[], float]]:
    """Give a function that returns the seconds of CPU that a process and its children have used.

    Of all of them, whether somebody waits for them or not: fcgiwrap ignores SIGCHLD, and the times
    of its scripts are in nobody's `reaped_seconds`.  Takes a control group, which root may make;
    raises NoAccount otherwise.
    """
    usable = [each for each in _GROUPS if (each[0] / "cgroup.procs").exists()]
    if not usable:
        raise NoAccount("there are no control groups in /sys/fs/cgroup")
    parent, file, factor = usable[0]
    group = parent / f"gateways-bench-{pid}"
    try:
        group.mkdir()
    except OSError as error:
        raise NoAccount(f"{group}: {error.strerror}; run this as root") from None
    try:
        for member in tree(pid):
            (group / "cgroup.procs").write_text(str(member))

        def used() -> float:
            # cpuacct.usage is a number, cpu.stat begins with "usage_usec" and one.
            return int((group / file).read_text().split("\n")[0].split()[-1]) * factor / 1e9

        yield used
    finally:
        for each in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # it has just ended
                (parent / "cgroup.procs").write_text(each)
        _remove(group)


def _remove(group: Path) -> None:
    """Remove a group, once its last processes have ended."""
    end = time.monotonic() + 5
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


class Footprint(NamedTuple):
    """Bytes of one process (`resident`, and `proportional` with shared pages divided), and counts."""

    pid: int
    name: str
    resident: int
    proportional: int
    threads: int
    descriptors: int


def tree(pid: int) -> list[int]:
    """`pid` and all its living descendants."""
    found = [pid]
    for each in found:
        for task in (PROC / str(each) / "task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue  # That thread has just ended.
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the whole tree: all threads, ended ones too, and reaped children.

    Living processes are read from their CPU clocks, in nanoseconds.  For children that have ended
    the kernel only offers clock ticks.
    """
    total = 0.0
    for each in tree(pid):
        try:
            total += process_seconds(each) + reaped_seconds(each)
        except OSError:
            continue  # It ended between the two looks; its parent accounts for it.
    return total


def process_seconds(pid: int) -> float:
    """CPU time of one process, from the clock that clock_getcpuclockid(3) would name."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def reaped_seconds(pid: int) -> float:
    # The command's name stands in parentheses and may hold spaces.
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICKS


def footprints(pid: int) -> list[Footprint]:
    """One for each living process of the tree."""
    return [footprint(each) for each in tree(pid)]


def footprint(pid: int) -> Footprint:
    folder = PROC / str(pid)
    rollup = _kibibytes(folder / "smaps_rollup")
    status = _kibibytes(folder / "status")
    return Footprint(
        pid,
        (folder / "comm").read_text().strip(),
        status["VmRSS"] * 1024,
        rollup["Pss"] * 1024,
        status["Threads"],
        len(list((folder / "fd").iterdir())),
    )


def _kibibytes(path: Path) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        first = value.split()[:1]
        if first and first[0].isdigit():
            numbers[name] = int(first[0])
    return numbers
