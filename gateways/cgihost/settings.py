"""What can be set for CGI scripts, and the text that sets it: `cgi:PATH?name=value&name=value`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateways.errors import ConfigurationError

if TYPE_CHECKING:
    from gateways.cgihost.application import CGIApplication

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
"""The PATH of a script, unless `set` names another."""

_SWITCHES = {
    **dict.fromkeys(("1", "on", "yes", "true"), True),
    **dict.fromkeys(("0", "off", "no", "false"), False),
}
_NUMBERS = {"time_limit": float, "idle_limit": float, "grace": float, "max_running": int}
_SWITCHED = ("authorization", "indexed_query", "follow_symlinks")
_LISTED = {"pass": "pass_", "inherit": "inherit", "index": "index"}
_PAIRS = ("set", "interpreter")


class Settings:
    """How scripts are run.

    - `set`: variables that every script gets; they win over all others.
    - `inherit`: names of variables taken from the server's own environment, which is withheld
      otherwise.
    - `pass_`: names of variables that the web server may send beside those of CGI, such as
      "GIT_PROJECT_ROOT"; a last `*` stands for anything.
    - `interpreters`: extension → the command that runs such a file, `{".py": "/usr/bin/python3"}`.
      A file with such an extension need not be executable.
    - `authorization`: scripts see the Authorization header (RFC 3875 §4.1.18 has it withheld).
    - `indexed_query`: the words of a query without "=" are the script's arguments (§4.4).
    - `follow_symlinks`: symbolic links may lead out of the folder.
    - `index`: files that answer for a folder, when its path ends with "/".
    - `document_root`: what PATH_TRANSLATED is made with; by default the web server's DOCUMENT_ROOT,
      else the folder itself.
    - `time_limit`: seconds that a whole run may take; `idle_limit`: that a script may neither write
      nor read; 0 is no limit.  `grace`: between SIGTERM and SIGKILL.
    - `max_running`: scripts at once in one process; more are answered with 503.

    Raises ConfigurationError for a number below its bound, a name that no variable can have, and
    an extension without its dot.
    """

    def __init__(
        self,
        *,
        set: Mapping[str, str] | None = None,
        inherit: Iterable[str] = (),
        pass_: Iterable[str] = (),
        interpreters: Mapping[str, str | Sequence[str]] | None = None,
        authorization: bool = False,
        indexed_query: bool = False,
        follow_symlinks: bool = False,
        index: Iterable[str] = ("index.cgi",),
        document_root: str = "",
        time_limit: float = 3600.0,
        idle_limit: float = 60.0,
        grace: float = 3.0,
        max_running: int = 64,
    ) -> None:
        for name, number, least in (
            ("time_limit", time_limit, 0),
            ("idle_limit", idle_limit, 0),
            ("grace", grace, 0),
            ("max_running", max_running, 1),
        ):
            if not number >= least:
                raise ConfigurationError(f"{name} is {number:g}; it is {least} or more")
        self.set = {_checked(name): os.fsencode(value) for name, value in (set or {}).items()}
        self.inherit = tuple(_checked(name) for name in inherit)
        self.passed = frozenset(name for name in pass_ if not name.endswith("*"))
        self.prefixes = tuple(name[:-1] for name in pass_ if name.endswith("*"))
        self.interpreters = {
            _extension(name): _command(command) for name, command in (interpreters or {}).items()
        }
        self.authorization = authorization
        self.indexed_query = indexed_query
        self.follow_symlinks = follow_symlinks
        self.index = tuple(map(os.fsencode, index))
        self.document_root = os.fsencode(document_root).rstrip(b"/")
        self.time_limit = time_limit or float("inf")
        self.idle_limit = idle_limit or float("inf")
        self.grace = grace
        self.max_running = max_running


def _checked(name: str) -> bytes:
    if not name or "=" in name or "\0" in name:
        raise ConfigurationError(f'"{name}" cannot be the name of an environment variable')
    return os.fsencode(name)


def _extension(text: str) -> bytes:
    if not text.startswith(".") or "/" in text or len(text) < 2:
        raise ConfigurationError(f'"{text}" is no extension; write it with its dot, as in ".py"')
    return os.fsencode(text)


def _command(command: str | Sequence[str]) -> list[bytes]:
    words = [command] if isinstance(command, str) else list(command)
    if not words or not os.path.isabs(words[0]):
        raise ConfigurationError(
            f"the interpreter {command!r} is no absolute path, as /usr/bin/python3 is"
        )
    return [os.fsencode(word) for word in words]


def load(text: str) -> CGIApplication:
    """Return the application that `cgi:TEXT` means: a path, and settings after a `?`.

    A name in the text is that of `Settings`, but `pass` for `pass_` and `interpreter=.py=COMMAND`
    for `interpreters`; names that hold lists may be repeated; `%` begins a percent-encoding.
    Raises ConfigurationError.
    """
    from gateways.cgihost.application import CGIApplication

    # A file whose name holds a "?" is that file.
    path, _, query = (text, "", "") if os.path.exists(text) else text.partition("?")
    if not path:
        raise ConfigurationError('"cgi:" names no script; write for example "cgi:/srv/cgi-bin"')
    given: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        _take(given, name, unquote(value, errors="surrogateescape"))
    return CGIApplication(path, **given)


def _take(given: dict[str, Any], name: str, value: str) -> None:
    if name in _NUMBERS:
        try:
            given[name] = _NUMBERS[name](value)
        except ValueError:
            raise ConfigurationError(f'{name} is "{value}", which is not a number') from None
    elif name in _SWITCHED:
        if value.lower() not in _SWITCHES:
            raise ConfigurationError(f'{name} is "{value}"; write yes or no')
        given[name] = _SWITCHES[value.lower()]
    elif name in _LISTED:
        given.setdefault(_LISTED[name], []).append(value)
    elif name == "document_root":
        given[name] = value
    elif name in _PAIRS:
        key, equals, what = value.partition("=")
        if not equals:
            raise ConfigurationError(f'{name}={value} lacks its value; write "{name}={value}=…"')
        if name == "set":
            given.setdefault("set", {})[key] = what
        else:
            given.setdefault("interpreters", {})[key] = what.split(" ")
    else:
        from difflib import get_close_matches

        known = [*_NUMBERS, *_SWITCHED, *_LISTED, *_PAIRS, "document_root"]
        near = get_close_matches(name, known, 1, 0.6)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
        raise ConfigurationError(f'"{name}" cannot be set for CGI scripts; {hint}')
