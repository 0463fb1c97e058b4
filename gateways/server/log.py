"""The server's log: one logger, lines on stderr, in the form that one's eyes can follow at night."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from contextlib import suppress

from gateways.masking import printable as printable  # of a line in this log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

log = logging.getLogger("gateways")


def configure(level: str) -> None:
    """Log to stderr at `level` and above, unless the program that embeds us has its own handlers."""
    log.setLevel(level.upper())
    if log.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(
            "%(asctime)s [%(process)d] %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"
        )
    )
    log.addHandler(handler)


def log_exception(message: str, *values: object) -> None:
    """Log the exception that is being handled, with its traceback and after `message` % `values`.

    Nothing is raised, as log.exception would for an exception that cannot be formatted: who calls
    this has a thread to keep alive.
    """
    error = sys.exc_info()[1]
    with suppress(Exception):
        from gateways.tracebacks import whole_traceback  # here: it is needed in an emergency only

        text = whole_traceback(error) if error is not None else "no exception"
        log.error(f"{message}\n%s", *values, text)


def flush() -> None:
    """Write out what stdout and stderr still hold; either may be closed, or None."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()


def leave(status: int) -> NoReturn:
    """End this process now, as exit() would but for threads that the application has left running."""
    atexit._run_exitfuncs()
    flush()
    os._exit(status)
