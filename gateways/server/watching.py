"""Whether the application's files have changed since it was loaded.

Files are looked at, not subscribed to: that works on every file system, the network's included,
and costs a few hundred stat() a second at the most.  Modules that are just being written are waited
for: they have changed when they look the same twice in a row.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateways.server.options import Options

    _Signature = tuple[int, ...]
    _Changes = dict[str, _Signature]

PACKAGES = ("site-packages", "dist-packages")
"""Folders of what is installed; they are not watched, as an upgrade changes hundreds of files."""

_UNSEEN = (0,)


def watch_for(options: Options) -> Watch | None:
    """Return the watch that the options ask for, None when they ask for none.

    Call it before the application is loaded: what changes while that goes on has changed.
    """
    if not (options.touch_reload or options.reload_on_change):
        return None
    return Watch(options.touch_reload, options.reload_on_change)


class Watch:
    """Watches `files`, and with `modules` the files of the application's own modules.

    Those are all that is imported from elsewhere than the standard library, installed packages and
    gateways itself.  A module that is first seen now and whose file has changed since the last look
    may have been read before it did, so it counts as changed.

    `state` stands for everything that has changed since the watch was made.  It is never 0, and
    the same in every process forked from this one that has seen the same changes.
    """

    def __init__(self, files: Sequence[str], modules: bool) -> None:
        self.state = 0
        self._files = {path: _signature(path, touch=True) for path in files}
        self._modules = modules
        self._since = time.time()
        self._known: dict[str, _Signature] = {}
        self._settling: _Changes = {}
        self._settled: _Changes = {}
        self._told: _Changes = {}
        self._count = -1
        self._ours = tuple(
            folder + os.sep
            for folder in (os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__)))
        )

    def changed(self) -> str:
        """Return the path of a file that has changed since the last call, "" when there is none."""
        changes = self._touched()
        if self._modules:
            changes |= self._edited()
        news = [path for path, found in changes.items() if self._told.get(path) != found]
        self._told = changes
        if not news:
            return ""
        self.state = hash(frozenset(changes.items())) or 1
        return news[0]

    def _touched(self) -> _Changes:
        found = {path: _signature(path, touch=True) for path in self._files}
        return {
            path: each
            for path, each in found.items()
            if each is not None and each != self._files[path]
        }

    def _edited(self) -> _Changes:
        if len(sys.modules) != self._count:
            self._find_modules()
        found = {path: _signature(path) for path in self._known}
        changes = {
            path: each
            for path, each in found.items()
            if each is not None and each != self._known[path]
        }
        if changes == self._settling:
            self._settled = changes
        self._settling = changes
        return self._settled

    def _find_modules(self) -> None:
        self._count = len(sys.modules)
        now = time.time()
        for path in self._paths():
            if path in self._known:
                continue
            found = _signature(path)
            if found is not None:
                late = self._since < found[0] / 1e9 <= now
                self._known[path] = _UNSEEN if late else found
        self._since = now

    def _paths(self) -> Iterator[str]:
        for module in list(sys.modules.values()):
            try:
                # Not getattr: one that is loaded when it is first used would be.
                path = object.__getattribute__(module, "__dict__").get("__file__")
                if not isinstance(path, str) or path.startswith(self._ours):
                    continue
                if not any(f"{os.sep}{each}{os.sep}" in path for each in PACKAGES):
                    yield os.path.abspath(path)
            except Exception:  # applications put there what they like
                continue


def _signature(path: str, *, touch: bool = False) -> _Signature | None:
    """Return what tells a file from what it was; with `touch` also from the same one uploaded again."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None  # it is being replaced, or gone, or no path; what is loaded goes on
    signature = found.st_mtime_ns, found.st_size, found.st_ino
    return (*signature, found.st_ctime_ns) if touch else signature
