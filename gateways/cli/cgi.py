"""`gateways cgi APP`: answer the one CGI request in the environment, for wrappers and #! lines.

The arguments are read by hand: click costs more than the whole request.  Options stand before APP,
and everything after APP is ignored.  Web servers put the words of a query without "=" there
(RFC 3875 §4.4), so that visitors may write them.
"""

from __future__ import annotations

import os
import sys

from gateways.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "gateways cgi [--script-name PATH] [--crash-log PATH] [--debug] APP"

_WITH_VALUE = {"--script-name": "script_name", "--crash-log": "crash_log"}


def main(arguments: list[str]) -> int:
    """Answer the request; return the exit code."""
    try:
        application, options = parse(arguments)
        _check_environment()
    except ConfigurationError as error:
        print(f"gateways: {error}", file=sys.stderr)
        return 2
    from gateways.server import cgi

    return cgi.run_named(application, **options)


def parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Return APP and the options that are given; ConfigurationError with the usage."""
    options: dict[str, Any] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        name, equals, value = option.partition("=")
        if option == "--debug":
            options["debug"] = True
        elif name in _WITH_VALUE and equals:
            options[_WITH_VALUE[name]] = value
        elif name in _WITH_VALUE and rest:
            options[_WITH_VALUE[name]] = rest.pop(0)
        else:
            raise ConfigurationError(f'"{option}" is not understood; write {USAGE}')
    if not rest:
        raise ConfigurationError(f"no application is named; write {USAGE}")
    return rest[0], options


def _check_environment() -> None:
    if "REQUEST_METHOD" not in os.environ and "GATEWAY_INTERFACE" not in os.environ:
        raise ConfigurationError(
            "there is no CGI request in the environment: a web server runs this command;"
            ' by hand, serve the application with "gateways serve" and ask it with "gateways get"'
        )
