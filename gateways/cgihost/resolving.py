"""From the path of a request to the file that answers it: never outside the folder, never its text.

The path has been decoded once, by the web server, and is not decoded again.  It is walked a
segment at a time, as bytes; the first file on the way is the script, and what follows is its
PATH_INFO (RFC 3875 §4.1.5).
"""

from __future__ import annotations

import os
import stat

from gateways.cgihost.settings import Settings
from gateways.errors import ConfigurationError


class Refused(Exception):
    """No script is run.  `status` is the answer's; the text is for the log, never for the visitor."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Script:
    """A file that may be run: `name` is its URL path below the mount, `info` the path after it."""

    __slots__ = ("file", "name", "info", "interpreter")

    def __init__(self, file: bytes, name: bytes, info: bytes, interpreter: list[bytes]) -> None:
        self.file = file
        self.name = name
        self.info = info
        self.interpreter = interpreter

    @property
    def folder(self) -> bytes:
        """The folder it stands in, which is its working directory (RFC 3875 §7.2)."""
        return self.file.rpartition(b"/")[0] or b"/"

    @property
    def is_nph(self) -> bool:
        """Whether it gives the whole HTTP answer itself (RFC 3875 §5)."""
        return self.file.rpartition(b"/")[2].startswith(b"nph-")


class Scripts:
    """What `path` holds: one script, or a folder of them.

    Raises ConfigurationError where there is neither.
    """

    def __init__(self, path: str, settings: Settings) -> None:
        self._settings = settings
        full = os.path.abspath(path)
        if not os.path.exists(full):
            raise ConfigurationError(f'there is no script or folder "{path}"; check the path')
        self.is_folder = os.path.isdir(full)
        # Links above the folder are the administrator's; only those within are looked at.
        self.root = os.fsencode(os.path.realpath(full) if self.is_folder else full)
        if not self.is_folder:
            try:
                self._check(self.root)
            except Refused as refusal:
                raise ConfigurationError(str(refusal)) from None

    def find(self, path: bytes) -> Script:
        """Return the script that answers for `path`, which begins below the mount.

        Raises Refused: 400 for NUL, 404 for what is not there, `..`, and hidden files; 403 for a
        file that may not be run, and for links that lead out of the folder.
        """
        if b"\0" in path:
            raise Refused(400, "the path holds NUL")
        parts = path.split(b"/")
        # Web servers resolve these before they ask; whoever still sends one wants to leave.
        if b".." in parts:
            raise Refused(404, 'the path holds ".."')
        if parts[0]:
            raise Refused(404, 'the path does not begin with "/"')
        if not self.is_folder:
            return Script(self.root, b"", path, self._check(self.root))
        return self._walk(parts)

    def _walk(self, parts: list[bytes]) -> Script:
        here = self.root
        last = len(parts) - 1
        for index in range(1, len(parts)):
            part = parts[index]
            if not part and index == last:
                return self._index(here, b"/".join(parts))
            if not part or part[0] == 0x2E:
                raise Refused(404, "a segment of the path is empty or hidden: it begins with a dot")
            here += b"/" + part
            mode = self._mode(here)
            if stat.S_ISDIR(mode):
                continue
            interpreter = self._check(here, mode)
            info = b"/" + b"/".join(parts[index + 1 :]) if index < last else b""
            return Script(here, b"/".join(parts[: index + 1]), info, interpreter)
        raise Refused(404, f"{os.fsdecode(here)} is a folder")

    def _index(self, folder: bytes, path: bytes) -> Script:
        for name in self._settings.index:
            file = folder + b"/" + name
            if os.path.lexists(file):
                interpreter = self._check(file, self._mode(file))
                return Script(file, path + name, b"", interpreter)
        raise Refused(404, f"{os.fsdecode(folder)} is a folder without an index script")

    def _mode(self, path: bytes) -> int:
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(path)
                inside = real == self.root or real.startswith(self.root.rstrip(b"/") + b"/")
                if not (inside or self._settings.follow_symlinks):
                    raise Refused(
                        403,
                        f"{os.fsdecode(path)} is a link that leads out of {os.fsdecode(self.root)};"
                        " follow_symlinks would allow it",
                    )
                mode = os.stat(path).st_mode
        except OSError as error:
            status = 403 if isinstance(error, PermissionError) else 404
            raise Refused(status, f"{os.fsdecode(path)}: {error.strerror}") from None
        return mode

    def _check(self, file: bytes, mode: int | None = None) -> list[bytes]:
        """Return the interpreter's command, empty where the file itself is run; or raise Refused."""
        shown = os.fsdecode(file)
        if mode is None:
            try:
                mode = os.stat(file).st_mode
            except OSError as error:
                raise Refused(404, f"{shown}: {error.strerror}") from None
        if not stat.S_ISREG(mode):
            raise Refused(403, f"{shown} is neither a file nor a folder")
        extension = os.path.splitext(file)[1]
        interpreter = self._settings.interpreters.get(extension)
        if interpreter is not None:
            if not os.access(file, os.R_OK):
                raise Refused(403, f"{shown} cannot be read; allow it: chmod a+r {shown}")
            return interpreter
        if not os.access(file, os.X_OK):
            raise Refused(403, f"{shown} is not executable; if it is a script: chmod a+x {shown}")
        return []


def check_encoding(target: bytes, name: bytes) -> None:
    """Refuse an encoded slash in that part of the request's target which names the script.

    One name would otherwise have many spellings, of which the web server's own rules for a path
    see only one (CVE-2014-4650).  In PATH_INFO it is the script's affair.  `name` is the whole URL
    path of the script.  Raises Refused, 404.
    """
    path = target.partition(b"?")[0]
    if b"%2" not in path:
        return
    if not path.startswith(b"/"):
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    # The web server has merged slashes and resolved dots in what it sent as the path.
    parts: list[bytes] = []
    for part in path.split(b"/"):
        plain = part.lower().replace(b"%2e", b".")
        if plain == b"..":
            del parts[-1:]
        elif plain not in (b"", b"."):
            parts.append(part.lower())
    depth = sum(1 for part in name.split(b"/") if part)
    if any(b"%2f" in part for part in parts[:depth]):
        raise Refused(404, "an encoded slash stands in the script's part of the path")


def path_bytes(text: str) -> bytes:
    """Return the bytes of a path in an environ.  Raises Refused, 400, where PEP 3333 forbids it."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refused(400, "the path is not latin-1, as PEP 3333 has it") from None
