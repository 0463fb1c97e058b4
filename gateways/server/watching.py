"""Whether the application's files have changed since it was loaded.

Files are looked at, not subscribed to: that works on every file system, the network's included,
and costs a few hundred stat() a second at the most.  A file that is just being written is waited
for: it has changed when it looks the same twice in a row.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    _Signature = tuple[int, int, int]

PACKAGES = ("site-packages", "dist-packages")
"""Folders of what is installed; they are not watched, as an upgrade changes hundreds of files."""

_UNSEEN = (0, 0, 0)


class Watch:
    """Watches `files`, and with `modules` the files of the application's own modules.

    Those are all that is imported from elsewhere than the standard library, installed packages and
    gateways itself.  `since` is when the loading of the application began (time.time()): a file
    that has changed between then and now may have been read before it did.
    """

    def __init__(self, files: Sequence[str], modules: bool, since: float) -> None:
        self._files = {path: _signature(path) for path in files}
        self._modules = modules
        self._since = since
        self._known: dict[str, _Signature] = {}
        self._settling: dict[str, _Signature] = {}
        self._count = -1
        self._ours = tuple(
            folder + os.sep
            for folder in (os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__)))
        )
        self.changed()

    def changed(self) -> str:
        """Return the path of a file that has changed since the last call, "" when there is none."""
        for path, known in self._files.items():
            found = _signature(path)
            if found is not None and found != known:
                self._files[path] = found
                return path
        if self._modules:
            if len(sys.modules) != self._count:
                self._find_modules()
            for path, seen in self._known.items():
                found = _signature(path)
                if found is not None and found != seen and self._has_settled(path, found):
                    self._known[path] = found
                    return path
        return ""

    def _has_settled(self, path: str, found: _Signature) -> bool:
        if self._settling.get(path) == found:
            del self._settling[path]
            return True
        self._settling[path] = found
        return False

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
            path = getattr(module, "__file__", None)
            if not isinstance(path, str) or path.startswith(self._ours):
                continue
            if not any(f"{os.sep}{each}{os.sep}" in path for each in PACKAGES):
                yield os.path.abspath(path)


def _signature(path: str) -> _Signature | None:
    try:
        found = os.stat(path)
    except OSError:
        return None  # it is being replaced, or gone; what is loaded goes on
    return found.st_mtime_ns, found.st_size, found.st_ino
