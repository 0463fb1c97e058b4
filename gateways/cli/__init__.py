"""The command `gateways`.

A web server waits for `gateways cgi` to start before every answer, so that command comes first
and goes past click and rich, which the others use.  `gateways serve` goes past them where it can,
to be small.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrongly used, 130 interrupted."""
    try:
        sys.exit(_run(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        # The imports take most of the time until a command handles it itself.
        sys.exit(130)


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["cgi"] and arguments[1:2] not in (["--help"], ["-h"]):
        from gateways.cli import cgi

        return cgi.main(arguments[1:])
    if arguments[:1] == ["serve"]:
        from gateways.cli import plain, told

        read = plain.read(arguments[1:], os.environ)
        if read is not None:
            return told.tell(lambda: plain.serve(*read))
    try:
        from gateways.cli import group
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        # A folder that was copied instead of installed still serves and answers CGI.
        sys.exit(f'gateways: the command line needs {error.name}; run "pip install {error.name}"')
    return group.main(arguments)
