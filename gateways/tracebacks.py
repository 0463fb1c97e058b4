"""Tracebacks of an application's faults, without the frames of this package around its own.

Imported when there is a fault: the standard library's traceback module costs a CGI request several
milliseconds.
"""

from __future__ import annotations

import traceback

from gateways.errors import ApplicationError, ConfigurationError
from gateways.masking import printable

_PACKAGE = __file__.rpartition("/")[0] + "/"

MAX_TRACEBACK = 64 * 1024
"""Characters of a bounded traceback: the first and the last half of that."""


def application_traceback(error: BaseException) -> str:
    """Return the traceback of `error` without this package's frames around the application's own.

    Where every frame is this package's the whole traceback is returned, except where the text of
    `error` says it all.
    """
    whole = traceback.TracebackException.from_exception(error)
    pending: list[traceback.TracebackException | None] = [whole]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        silent = part is whole and says_it_all(error)
        kept = applications_frames([frame.filename for frame in part.stack], silent)
        part.stack[:] = part.stack[kept]
        pending += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return "".join(whole.format()).rstrip("\n")


def bounded_traceback(error: BaseException) -> str:
    """Return the same in MAX_TRACEBACK characters and a few, without control characters."""
    text = application_traceback(error)
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        left_out = f"\n… {len(text) - MAX_TRACEBACK:,} characters left out …\n"
        text = text[:half] + left_out + text[-half:]
    return printable(text, "\n")


def says_it_all(error: BaseException) -> bool:
    """Whether the text of `error` says what to mend and where, so that our own frames would not."""
    return isinstance(error, (ApplicationError, ConfigurationError, SyntaxError))


def applications_frames(filenames: list[str], silent: bool) -> slice:
    """Return which of a traceback's frames to show, from the first of the application's to its last.

    Where every frame is this package's that is all of them, or with `silent` none.
    """
    ours = [name.startswith(_PACKAGE) for name in filenames]
    if False in ours:
        return slice(ours.index(False), len(ours) - ours[::-1].index(False))
    return slice(0, 0) if silent else slice(None)
