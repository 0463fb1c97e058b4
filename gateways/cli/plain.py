"""`gateways serve` without click, for command lines in which everything is in order.

A daemon keeps in memory what it has imported, in each of its processes, and click with what it
needs takes 3 MiB.  So known options with values of their kinds are read here.  Everything else,
--help among it, is left to click, which has the words for what is wrong.  A test proves that both
read the same.
"""

from __future__ import annotations

import os

from gateways import server
from gateways.errors import ConfigurationError
from gateways.server.options import BY_NAME, OPTIONS, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

ENVIRONMENT_PREFIX = "GATEWAYS_"

BIND = Option("bind", "str", (), "", "", multiple=True)

_WORDS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


class _NotPlain(Exception):
    """There is more to say about this command line than is known here."""


def read(
    arguments: Iterable[str], environ: Mapping[str, str]
) -> tuple[str, tuple[str, ...], dict[str, Any]] | None:
    """Return the application, the addresses and the other options; None to leave it to click."""
    try:
        given = _read_environment(environ)
        applications, told = _read_arguments(list(arguments))
    except (_NotPlain, ValueError):
        return None
    if len(applications) != 1:
        return None
    given.update(told)
    bind: tuple[str, ...] = given.pop("bind", ())
    return applications[0], bind, given


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        option = _option(name.removeprefix(ENVIRONMENT_PREFIX).lower())
        if option is None or not name.isupper():
            raise _NotPlain
        if not text:
            continue
        if option.multiple:
            given[option.name] = tuple(text.split())
        elif option.kind == "bool":
            if text.strip().lower() not in _WORDS:
                raise _NotPlain
            given[option.name] = _WORDS[text.strip().lower()]
        else:
            given[option.name] = _value(option, text)
    return given


def _read_arguments(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    applications: list[str] = []
    given: dict[str, Any] = {}
    while arguments:
        word = arguments.pop(0)
        if not word.startswith("-"):
            applications.append(word)
            continue
        if word.startswith("-b") and not word.startswith("--"):
            name, equals, text = "bind", word[2:], word[2:]
        else:
            flag, equals, text = word.partition("=")
            name = flag.removeprefix("--")
            if name == flag:
                raise _NotPlain
        option = _option(name.replace("-", "_")) if "_" not in name else None
        negated = name.startswith("no-") and not equals
        if negated and (option := _option(name[3:].replace("-", "_"))) and option.kind != "bool":
            option = None
        if option is None or (option.kind == "bool" and equals):
            raise _NotPlain
        if option.kind == "bool":
            given[option.name] = not negated
            continue
        if not equals:
            if not arguments or arguments[0].startswith("-"):
                raise _NotPlain
            text = arguments.pop(0)
        if option.multiple:
            given[option.name] = (*given.get(option.name, ()), text)
        else:
            given[option.name] = _value(option, text)
    return applications, given


def _option(name: str) -> Option | None:
    return BIND if name == "bind" else BY_NAME.get(name)


def _value(option: Option, text: str) -> Any:
    """Return the text as the option's kind; ValueError or _NotPlain where it is not of it."""
    if option.choices and text not in option.choices:
        raise _NotPlain
    if option.kind == "mode":
        return int(text, 8)
    if option.kind == "int":
        return int(text)
    return float(text) if option.kind == "float" else text


def serve(application: str, bind: tuple[str, ...], given: dict[str, Any]) -> int:
    """Serve where the command line says, or else do what this was started for; see `server.run`.

    Return the exit code.
    """
    check_environment(os.environ)
    options = {name: value for name, value in given.items() if value not in (None, ())}
    if not bind:
        return server.run(application, **options)
    server.serve(application, *bind, **options)
    return 0


def check_environment(names: Iterable[str]) -> None:
    """Refuse environment variables that are meant as options and would not be read as any.

    Others that begin with the prefix are left alone: Kubernetes makes GATEWAYS_SERVICE_HOST and the
    like for a service of that name.  Raises ConfigurationError with the right spelling.
    """
    known = {"BIND": "", **{option.name.upper(): option.kind for option in OPTIONS}}
    for name in sorted(names):
        word = name.removeprefix(ENVIRONMENT_PREFIX)
        if word == name or word in known:
            continue
        negated = word.upper().removeprefix("NO_")
        if negated != word.upper() and known.get(negated) == "bool":
            raise ConfigurationError(
                f"{name} in the environment is no option; write {ENVIRONMENT_PREFIX}{negated}=no"
            )
        from difflib import get_close_matches

        near = get_close_matches(word.upper(), known, 1, 0.8)
        if near:
            raise ConfigurationError(
                f"{name} in the environment is no option;"
                f" did you mean {ENVIRONMENT_PREFIX}{near[0]}?"
            )
