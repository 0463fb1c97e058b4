"""Tracebacks of an application's faults, without the frames of this package around its own.

An exception is the application's object: asked for its text, its notes or its line it may raise,
and it may hold a hundred thousand others.  None of that stops what is here.

Imported when there is a fault: the standard library's traceback module costs a CGI request several
milliseconds.
"""

from __future__ import annotations

import traceback

from gateways.errors import ApplicationError, ConfigurationError
from gateways.masking import cut, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PACKAGE = __file__.rpartition("/")[0] + "/"

MAX_TRACEBACK = 64 * 1024
"""Characters of a bounded traceback: the first and the last half of that."""

MAX_EXCEPTIONS = 20
"""Exceptions that are told of a fault that has to do with more than MAX_LINKED."""

MAX_LINKED = 500
"""Causes, contexts and members of groups; of more the standard library's traceback takes too long."""

MAX_MESSAGE = 4000
"""Characters of one exception's text, where it is not the standard library that formats it."""


def application_traceback(error: BaseException) -> str:
    """Return the traceback of `error` without this package's frames around the application's own.

    Where every frame is this package's the whole traceback is returned, except where the text of
    `error` says it all.  Nothing is raised, whatever `error` does (but KeyboardInterrupt).
    """
    return _formatted(error, lambda whole: _cut(whole, error))


def whole_traceback(error: BaseException) -> str:
    """Return the traceback of `error` with each frame; nothing is raised, as above."""
    return _formatted(error, lambda whole: None)


def summary(error: BaseException) -> str:
    """Return the type and the text of `error`; nothing is raised, as above."""
    try:
        if not _is_too_much(error):
            told = traceback.TracebackException(type(error), error, None, compact=True)
            told.__notes__ = None  # they would stand last
            return list(told.format_exception_only())[-1].strip().partition("\n")[0]
    except KeyboardInterrupt:
        raise
    except BaseException:
        pass  # it is told without the standard library's help
    return _line(error).partition("\n")[0]


def _formatted(
    error: BaseException, shorten: Callable[[traceback.TracebackException], None]
) -> str:
    try:
        if _is_too_much(error):
            return _plain(error, f"more than {MAX_LINKED} exceptions have to do with it")
        whole = traceback.TracebackException.from_exception(error, compact=True)
        shorten(whole)
        return "".join(whole.format()).rstrip("\n")
    except KeyboardInterrupt:
        raise
    except BaseException as failure:
        return _plain(error, f"it cannot be formatted: {_line(failure)}")


def _cut(whole: traceback.TracebackException, error: BaseException) -> None:
    """Take the frames that are not to be shown out of each part."""
    pending: list[traceback.TracebackException | None] = [whole]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        silent = part is whole and says_it_all(error)
        kept = applications_frames([frame.filename for frame in part.stack], silent)
        part.stack[:] = part.stack[kept]
        pending += [part.__cause__, part.__context__, *(part.exceptions or ())]


def bounded_traceback(error: BaseException) -> str:
    """Return the same in MAX_TRACEBACK characters and a few, without control characters."""
    text = application_traceback(error)
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        left_out = f"\n… {len(text) - MAX_TRACEBACK:,} characters left out …\n"
        text = text[:half] + left_out + text[-half:]
    return printable(text, "\n")


# What is asked of an exception without its own code being run.


def slot(error: BaseException, name: str) -> Any:
    """Return what a base class of exceptions holds under `name`, past whatever a subclass made of it."""
    base = BaseExceptionGroup if name == "exceptions" else BaseException
    return base.__dict__[name].__get__(error)


def title(error: BaseException) -> str:
    """Return the name of the type, with its module."""
    kind = type(error)
    module, name = kind.__dict__.get("__module__"), type.__dict__["__qualname__"].__get__(kind)
    prefix = f"{module}." if type(module) is str and module != "builtins" else ""
    return printable(cut(f"{prefix}{name}", 200))


def message(error: BaseException) -> str:
    """Return the text, in as many lines as it has; where it cannot be had, words on that."""
    try:
        return printable(cut(str(error), MAX_MESSAGE), "\n")
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "<its str() raised>"


def chain(error: BaseException) -> list[tuple[str, BaseException]]:
    """Return MAX_EXCEPTIONS that have to do with the fault, with words on how; first the fault itself."""
    found: list[tuple[str, BaseException]] = []
    pending: list[tuple[str, BaseException]] = [("", error)]
    seen: set[int] = set()
    while pending and len(found) < MAX_EXCEPTIONS:
        how, each = pending.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        found.append((how, each))
        name = title(each)
        for one in _members(each)[:MAX_EXCEPTIONS]:
            pending.append((f"One of those in {name}", one))
        if (cause := slot(each, "__cause__")) is not None:
            pending.append((f"What {name} was raised from", cause))
        elif (context := _context(each)) is not None:
            pending.append((f"What was being handled when {name} was raised", context))
    return found


def _members(error: BaseException) -> tuple[BaseException, ...]:
    if not issubclass(type(error), BaseExceptionGroup):
        return ()
    members: tuple[BaseException, ...] = slot(error, "exceptions")
    return members


def _context(error: BaseException) -> BaseException | None:
    held: BaseException | None = slot(error, "__context__")
    return None if slot(error, "__suppress_context__") else held


def _is_too_much(error: BaseException) -> bool:
    """Whether more than MAX_LINKED exceptions hang on `error`, each counted as often as it is told."""
    count = 0
    pending = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        members = _members(each)
        count += 1 + len(members)
        if count > MAX_LINKED:
            return True
        pending += members
        for link in (slot(each, "__cause__"), _context(each)):
            if link is not None and id(link) not in seen:
                seen.add(id(link))
                pending.append(link)
    return False


def _plain(error: BaseException, why: str) -> str:
    """Return what can be told of `error` without the standard library's TracebackException."""
    parts = []
    told = chain(error)
    for how, each in told:
        parts.append(f"{how}:" if how else f"Traceback (most recent call last; {why}):")
        parts += _places(each, not how and says_it_all(each))
        parts.append(_line(each))
        if members := _members(each):
            parts[-1] += f", a group of {len(members):,}"
    if len(told) == MAX_EXCEPTIONS:
        parts.append("… and more, which are left out")
    return "\n".join(parts)


def _places(error: BaseException, silent: bool) -> list[str]:
    """Return the frames, as the standard library shows them."""
    try:
        walked = list(traceback.walk_tb(slot(error, "__traceback__")))
        names = [frame.f_code.co_filename for frame, _ in walked]
        walked = walked[applications_frames(names, silent)]
    except KeyboardInterrupt:
        raise
    except BaseException:
        return []
    try:
        shown = traceback.StackSummary.extract(iter(walked)).format()
        return [each.rstrip("\n") for each in shown]
    except KeyboardInterrupt:
        raise
    except BaseException:  # a module's loader may raise anything when it is asked for the source
        return [f'  File "{frame.f_code.co_filename}", line {line}' for frame, line in walked[-50:]]


def _line(error: BaseException) -> str:
    text = message(error)
    return f"{title(error)}: {text}" if text else title(error)


# Which frames.


def says_it_all(error: BaseException) -> bool:
    """Whether the text of `error` says what to mend and where, so that our own frames would not."""
    return issubclass(type(error), (ApplicationError, ConfigurationError, SyntaxError))


def applications_frames(filenames: list[str], silent: bool) -> slice:
    """Return which of a traceback's frames to show, from the first of the application's to its last.

    Where every frame is this package's that is all of them, or with `silent` none.
    """
    ours = [name.startswith(_PACKAGE) for name in filenames]
    if False in ours:
        return slice(ours.index(False), len(ours) - ours[::-1].index(False))
    return slice(0, 0) if silent else slice(None)
