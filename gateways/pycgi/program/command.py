"""The helper's command line."""

from __future__ import annotations

import gc
import os
import socket
import sys

from .script import Script

PROGRAM = os.path.join(os.path.dirname(__file__), "__main__.py")


def main(arguments: list[str]) -> int:
    """Run this program; return its exit status."""
    mode, path, descriptor, *rest = arguments
    sock = socket.socket(fileno=int(descriptor))
    sock.set_inheritable(False)
    if mode == "inprocess":
        _run_resident(Script(path), sock, int(rest[0]))
    else:
        _run_forker(Script(path), sock, arguments)
    return 0


def _run_resident(script: Script, sock: socket.socket, most: int) -> None:
    from .resident import Resident

    _look_for_modules_beside(script)
    Resident(script, sock, most).run()


def _run_forker(script: Script, sock: socket.socket, arguments: list[str]) -> None:
    from .forking import Forker
    from .preloading import preload

    most, grace, *without = arguments[3:]
    _look_for_modules_beside(script)
    script.refresh()
    culprit = preload(script, set(without))
    if culprit:
        # Begin anew without it: the script imports it by itself, after the fork.
        sock.set_inheritable(True)
        os.execv(sys.executable, [sys.executable, PROGRAM, *arguments, culprit])
    gc.collect()
    gc.freeze()
    Forker(script, sock, int(most), float(grace)).run()


def _look_for_modules_beside(script: Script) -> None:
    """Put the script's folder where the interpreter has put this program's.

    From then on a module of the folder may hide one of the standard library's, so everything that
    this program itself needs is imported before.
    """
    sys.path[0] = script.library
