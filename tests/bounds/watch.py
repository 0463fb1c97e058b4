"""Run:  python watch.py PID INTERVAL     until standard input ends; then it prints the maxima as JSON

What the process PID and its descendants take of the machine, looked at every INTERVAL seconds from
a process of its own, so that the looking delays nobody:

    resident       bytes of memory of the largest process
    spooled        bytes that files without a name take on disk, all processes together
    descriptors    of all processes
    threads        of all processes

Standard library only: it is started often, and with -S.
"""

from __future__ import annotations

import json
import os
import select
import stat
import sys

PAGE = os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """Return the process and all its descendants, as far as they live."""
    found, at = [pid], 0
    while at < len(found):
        try:
            tasks = os.listdir(f"/proc/{found[at]}/task")
        except OSError:
            tasks = []
        for task in tasks:
            try:
                with open(f"/proc/{found[at]}/task/{task}/children") as file:
                    found += map(int, file.read().split())
            except OSError:
                continue  # it has ended meanwhile
        at += 1
    return found


def resident(pid: int) -> int:
    """Return the bytes of memory that the process holds; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def count(pid: int, what: str) -> int:
    """Return the number of entries in a folder of the process's."""
    try:
        return len(os.listdir(f"/proc/{pid}/{what}"))
    except OSError:
        return 0


def spooled(pid: int) -> int:
    """Return what the process's files without a name take on disk."""
    total = 0
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return 0
    for number in numbers:
        try:
            found = os.stat(f"/proc/{pid}/fd/{number}")
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and not found.st_nlink:
            # A file may have holes, and ends within a block.
            total += min(found.st_size, found.st_blocks * 512)
    return total


def look(pid: int) -> dict[str, int]:
    """Return what the processes take just now."""
    pids = family(pid)
    return {
        "resident": max(map(resident, pids)),
        "spooled": sum(map(spooled, pids)),
        "descriptors": sum(count(each, "fd") for each in pids),
        "threads": sum(count(each, "task") for each in pids),
    }


def main() -> None:
    pid, interval = int(sys.argv[1]), float(sys.argv[2])
    most: dict[str, int] = {}
    ended = select.poll()
    ended.register(0, select.POLLIN | select.POLLHUP)
    while True:
        for name, value in look(pid).items():
            most[name] = max(value, most.get(name, 0))
        if ended.poll(interval * 1000):
            break
    print(json.dumps(most))


if __name__ == "__main__":
    main()
