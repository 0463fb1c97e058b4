"""What a process that the application forks lets go of: this server's sockets and its signals.

A child (os.fork, multiprocessing, a ProcessPoolExecutor) that kept them would keep visitors waiting
when the server is dead: nobody refuses who connects, and no connection ends.  The forks of the
server itself, from its master and its template, happen before anything is held here.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    class Holder(Protocol):
        """Who holds what no child is to have."""

        def before_fork(self) -> bool:
            """Keep what is held from changing; return whether `after_fork` is to be called."""

        def after_fork(self) -> None:
            """Go on, in the parent."""

        def in_child(self) -> None:
            """Let go of everything."""


_holders: list[Holder] = []
_waiting: dict[int, list[Holder]] = {}
"""Those whose `after_fork` is to be called, by the thread that forks."""


@contextmanager
def held(holder: Holder) -> Iterator[None]:
    """Ask `holder` to let go in whatever is forked within."""
    _holders.append(holder)
    try:
        yield
    finally:
        with suppress(ValueError):  # this is a child
            _holders.remove(holder)


def void(descriptors: Iterable[int]) -> None:
    """Have descriptors refer to nothing.

    They stay open, so that whoever returns to the server's code in a child meets no other file.
    """
    try:
        empty = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # none is left: then there is nothing that could take their place
        for each in descriptors:
            with suppress(OSError):
                os.close(each)
        return
    for each in descriptors:
        os.dup2(empty, each, inheritable=False)
    os.close(empty)


def _before() -> None:
    waiting = _waiting[threading.get_ident()] = []
    for holder in list(_holders):
        if holder.before_fork():
            waiting.append(holder)


def _after() -> None:
    for holder in _waiting.pop(threading.get_ident(), []):
        holder.after_fork()


def _in_child() -> None:
    _waiting.clear()
    while _holders:
        _holders.pop().in_child()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
