"""What can be set for scripts, and the text that sets it: `cgi:PATH?name=value&name=value`.

`ScriptSettings` is what every kind of script has; docs/cgi-scripts.md has all of them in one table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateways.errors import ConfigurationError
from gateways.variables import may_be_passed

if TYPE_CHECKING:
    from gateways.cgihost.application import CGIApplication

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
"""The PATH of a script, unless `set` or `inherit` has another."""

_SWITCHES = {
    **dict.fromkeys(("1", "on", "yes", "true"), True),
    **dict.fromkeys(("0", "off", "no", "false"), False),
}


class ScriptSettings:
    """How scripts are run, of whichever kind.

    - `set`: variables that every script gets; they win over all others.
    - `inherit`: names of variables taken from the server's own environment, which is withheld
      otherwise.
    - `pass_`: names of variables that the web server may send beside those of CGI, such as
      "SSL_CLIENT_S_DN"; "SSL_*" is all that begin so, where a word and "_" stand before the `*`.
    - `authorization`: scripts see the Authorization header (RFC 3875 §4.1.18 has it withheld).
    - `indexed_query`: the words of a query without "=" are the script's arguments (§4.4).
    - `document_root`: what PATH_TRANSLATED is made with; by default the web server's DOCUMENT_ROOT,
      else the folder itself.
    - `time_limit`: seconds that a whole run may take; `idle_limit`: that a script may neither write
      nor read; 0 is no limit.  `grace`: between SIGTERM and SIGKILL.
    - `max_running`: scripts at once in one process, with those that work on after their answer;
      those that local redirects name count as one; more are answered with 503.
    - `spool_folder`: where bodies of unknown length are stored; "" chooses one.

    Raises ConfigurationError for a number below its bound, and for a name that no variable can
    have or no request may set.
    """

    def __init__(
        self,
        *,
        set: Mapping[str, str] | None = None,
        inherit: Iterable[str] = (),
        pass_: Iterable[str] = (),
        authorization: bool = False,
        indexed_query: bool = False,
        document_root: str = "",
        time_limit: float = 3600.0,
        idle_limit: float = 60.0,
        grace: float = 3.0,
        max_running: int = 64,
        spool_folder: str = "",
    ) -> None:
        check_least(0, time_limit=time_limit, idle_limit=idle_limit, grace=grace)
        check_least(1, max_running=max_running)
        self.set = {_checked(name): _value(name, value) for name, value in (set or {}).items()}
        self.inherit = tuple(_checked(name) for name in _listed("inherit", inherit))
        names = [_passable(name) for name in _listed("pass_", pass_)]
        self.passed = frozenset(name for name in names if not name.endswith("*"))
        self.prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
        self.authorization = authorization
        self.indexed_query = indexed_query
        self.document_root = os.fsencode(document_root).rstrip(b"/")
        self.time_limit = time_limit or float("inf")
        self.idle_limit = idle_limit or float("inf")
        self.grace = grace
        self.max_running = max_running
        if spool_folder and not os.path.isdir(spool_folder):
            raise ConfigurationError(f'spool_folder: there is no folder "{spool_folder}"')
        self.spool_folder = spool_folder


class Settings(ScriptSettings):
    """How executables are run: what ScriptSettings has, and

    - `interpreters`: extension → the command that runs such a file, `{".py": "/usr/bin/python3"}`.
      A file with such an extension need not be executable.
    - `follow_symlinks`: symbolic links may lead out of the folder.
    - `index`: files that answer for a folder, when its path ends with "/".
    - `local_redirects`: how many one request may take (§6.2.2); with 0 the visitor is sent there.

    Raises ConfigurationError also for an extension without its dot.
    """

    def __init__(
        self,
        *,
        interpreters: Mapping[str, str | Sequence[str]] | None = None,
        follow_symlinks: bool = False,
        index: Iterable[str] = ("index.cgi",),
        local_redirects: int = 10,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_least(0, local_redirects=local_redirects)
        self.interpreters = {
            _extension(name): _command(command) for name, command in (interpreters or {}).items()
        }
        self.follow_symlinks = follow_symlinks
        self.index = tuple(map(os.fsencode, index))
        self.local_redirects = local_redirects


def check_least(least: int, **numbers: float) -> None:
    """Raise ConfigurationError for a number that is below `least`, or none."""
    for name, number in numbers.items():
        if not number >= least:
            raise ConfigurationError(f"{name} is {number:g}; it is {least} or more")


def _listed(name: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise ConfigurationError(f'{name} is "{names}"; give a list of names')
    return list(names)


def _checked(name: str) -> bytes:
    if not name or "=" in name or "\0" in name:
        raise ConfigurationError(f'"{name}" cannot be the name of an environment variable')
    return os.fsencode(name)


def _value(name: str, value: str) -> bytes:
    if "\0" in value:
        raise ConfigurationError(f"set: the value of {name} holds NUL, which no variable can")
    return os.fsencode(value)


def _passable(name: str) -> str:
    bare = name.removesuffix("*")
    if bare != name and bare.startswith("HTTP_"):
        raise ConfigurationError(
            f"pass: {name!r} is not needed: a request's headers reach a script anyway"
            " (Authorization with authorization=yes)"
        )
    if bare != name and not (bare.endswith("_") and bare.strip("_")):
        raise ConfigurationError(
            f'pass: {name!r} is too wide; before the "*" stands a word and "_", as in "SSL_*"'
        )
    # "LD_*" as much as "LD_PRELOAD".
    plain = bare.isascii() and bare.isprintable() and not {"=", " ", "*"}.intersection(bare)
    if not bare or not plain or not may_be_passed(bare):
        raise ConfigurationError(f"pass: {name!r} is no variable that a request may set")
    return name


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


# The text.

Take = dict[str, Any]


def _number(given: Take, name: str, value: str) -> None:
    try:
        given[name] = float(value)
    except ValueError:
        raise ConfigurationError(f'{name} is "{value}", which is not a number') from None


def _whole(given: Take, name: str, value: str) -> None:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise ConfigurationError(f'{name} is "{value}", which is not a whole number')
    given[name] = int(value)


def _switch(given: Take, name: str, value: str) -> None:
    if value.lower() not in _SWITCHES:
        raise ConfigurationError(f'{name} is "{value}"; write yes or no')
    given[name] = _SWITCHES[value.lower()]


def _text(given: Take, name: str, value: str) -> None:
    given[name] = value


def _list(given: Take, name: str, value: str) -> None:
    given.setdefault("pass_" if name == "pass" else name, []).append(value)


def _pair(name: str, value: str) -> tuple[str, str]:
    key, equals, what = value.partition("=")
    if not equals:
        raise ConfigurationError(f'{name}={value} lacks its value; write "{name}={value}=…"')
    return key, what


def _set(given: Take, name: str, value: str) -> None:
    key, what = _pair(name, value)
    given.setdefault("set", {})[key] = what


def _interpreters(given: Take, name: str, value: str) -> None:
    key, what = _pair(name, value)
    given.setdefault("interpreters", {})[key] = what.split(" ")


SHARED = {
    "set": _set,
    "inherit": _list,
    "pass": _list,
    "authorization": _switch,
    "indexed_query": _switch,
    "document_root": _text,
    "time_limit": _number,
    "idle_limit": _number,
    "grace": _number,
    "max_running": _whole,
    "spool_folder": _text,
}
"""Name in the text → what takes its value, for every kind of script."""

OF_EXECUTABLES = {
    **SHARED,
    "interpreter": _interpreters,
    "follow_symlinks": _switch,
    "index": _list,
    "local_redirects": _whole,
}

OF_PYTHON = {**SHARED, "processes": _whole, "max_requests": _whole, "interpreter": _text}


def split(text: str, names: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the path and the settings that `PATH?name=value&name=value` has.

    `names` is one of the tables above.  A name in the text is that of the settings, but `pass` for
    `pass_` and, for executables, `interpreter=.py=COMMAND` for `interpreters`; names that hold
    lists may be repeated; `%` begins a percent-encoding.  Raises ConfigurationError.
    """
    # A file whose name holds a "?" is that file.
    path, _, query = (text, "", "") if os.path.exists(text) else text.partition("?")
    given: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name not in names:
            raise _unknown(name, names)
        names[name](given, name, unquote(value, errors="surrogateescape"))
    return path, given


def _unknown(name: str, names: Iterable[str]) -> ConfigurationError:
    from difflib import get_close_matches

    near = get_close_matches(name, names, 1, 0.6)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names))}"
    return ConfigurationError(f'"{name}" cannot be set for CGI scripts; {hint}')


def load(text: str) -> CGIApplication:
    """Return the application that `cgi:TEXT` means: a path, and settings after a `?`.

    Raises ConfigurationError.
    """
    from gateways.cgihost.application import CGIApplication

    path, given = split(text, OF_EXECUTABLES)
    if not path:
        raise ConfigurationError('"cgi:" names no script; write for example "cgi:/srv/cgi-bin"')
    return CGIApplication(path, **given)
