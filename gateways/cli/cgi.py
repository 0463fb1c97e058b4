"""`gateways cgi APP`: answer the one CGI request in the environment, for wrappers and #! lines.

The arguments are read by hand: click costs more than the whole request.  Options stand before APP,
and everything after APP is ignored.  Web servers put the words of a query without "=" there
(RFC 3875 §4.4), so that visitors may write them.
"""

from __future__ import annotations

import os
import sys

from gateways.errors import ConfigurationError

USAGE = "gateways cgi [--script-name PATH] [--debug] APP"


def main(arguments: list[str]) -> int:
    """Answer the request; return the exit code."""
    try:
        application, script_name, debug = parse(arguments)
        _check_environment()
    except ConfigurationError as error:
        print(f"gateways: {error}", file=sys.stderr)
        return 2
    from gateways.server import cgi

    return cgi.run_named(application, script_name=script_name, debug=debug)


def parse(arguments: list[str]) -> tuple[str, str | None, bool]:
    """Return APP, the script name and whether to debug; ConfigurationError with the usage."""
    script_name = None
    debug = False
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        name, equals, value = option.partition("=")
        if option == "--debug":
            debug = True
        elif name == "--script-name" and equals:
            script_name = value
        elif name == "--script-name" and rest:
            script_name = rest.pop(0)
        else:
            raise ConfigurationError(f'"{option}" is not understood; write {USAGE}')
    if not rest:
        raise ConfigurationError(f"no application is named; write {USAGE}")
    return rest[0], script_name, debug


def _check_environment() -> None:
    if "REQUEST_METHOD" not in os.environ and "GATEWAY_INTERFACE" not in os.environ:
        raise ConfigurationError(
            "there is no CGI request in the environment: a web server runs this command;"
            ' by hand, serve the application with "gateways serve" and ask it with "gateways get"'
        )
