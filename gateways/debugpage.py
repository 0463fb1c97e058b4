"""The page about a fault of the application that `--debug` shows: what cgitb gave.

Every frame with its source and variables, the exceptions that led to it, the request's environ.
It is HTML for a browser and plain text for anything else.  Everything is escaped, secrets are
masked by their names, and each part and the whole are bounded; the page needs no other file and
no script.  It is made from live frames, so their reprs run: those of the application's own classes
may do what they like, but not raise; how long they take together is bounded.

Imported when there is a fault and --debug is on.  No I/O but that linecache reads the source.
"""

from __future__ import annotations

import linecache
import sys
import time
import traceback

from gateways.masking import MAX_NAME, bounded_repr, cut, printable, shown
from gateways.tracebacks import (
    MAX_MESSAGE,
    applications_frames,
    bounded_traceback,
    chain,
    message,
    says_it_all,
    slot,
    title,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType
    from typing import Any

MAX_PAGE = 512 * 1024
"""Characters after which no more frames, variables or environ are added to a page."""

MAX_SECONDS = 2.0
"""How long the values of a page may take to tell; after that they are left out."""

MAX_FRAMES = 40
"""Frames of one exception: the first and the last half of that."""

MAX_VARIABLES = 60
MAX_ROWS = 300
MAX_LINE = 300
CONTEXT = 4
"""Lines of source above and below the one that failed."""

WARNING = (
    "This is the debug page: it shows source and variables to everyone who meets a fault."
    " Turn --debug off where strangers can see it."
)

HEADERS = [
    ("Cache-Control", "no-store"),
    ("Vary", "Accept"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Robots-Tag", "noindex"),
    # Should something slip through the escaping, it runs nothing and fetches nothing.
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
]


def render(
    error: BaseException, reference: str, environ: Mapping[Any, Any]
) -> tuple[str, list[tuple[str, str]], str]:
    """Return the media type, the other headers and the text of the page about `error`."""
    if wants_html(environ):
        return "text/html; charset=utf-8", HEADERS, "".join(_html(error, reference, environ))
    return "text/plain; charset=utf-8", HEADERS, "".join(_text(error, reference, environ))


def wants_html(environ: Mapping[Any, Any]) -> bool:
    """Whether the visitor's Accept (RFC 9110 §12.5.1) names HTML, and no less than plain text.

    `*/*` is what programs say, which are better served with text.
    """
    accept = environ.get("HTTP_ACCEPT")
    if not isinstance(accept, str):
        return False
    weights: dict[str, float] = {}
    for part in accept[:4000].lower().split(","):
        media, _, parameters = part.partition(";")
        weights[media.strip()] = _weight(parameters)
    html = max(weights.get("text/html", 0.0), weights.get("application/xhtml+xml", 0.0))
    return html > 0 and html >= weights.get("text/plain", 0.0)


def _weight(parameters: str) -> float:
    for each in parameters.split(";"):
        name, _, value = each.partition("=")
        if name.strip() == "q":
            digits = value.strip().replace(".", "", 1)
            return float(value) if digits.isascii() and digits.isdecimal() else 0.0
    return 1.0


# What is told.


class _Values:
    """What may be shown of values, as long as there is time for it: their reprs may be slow."""

    def __init__(self) -> None:
        self.until = time.monotonic() + MAX_SECONDS

    def shown(self, name: object, value: object) -> str:
        if time.monotonic() > self.until:
            return "… (left out: to tell the values took too long)"
        return shown(name, value)


class _Frame:
    """One frame: where it stands, the lines around, its variables in the order of their making."""

    def __init__(self, frame: FrameType, line: int | None, values: _Values) -> None:
        code = frame.f_code
        self.file = printable(cut(code.co_filename, MAX_LINE))
        self.line = line or code.co_firstlineno
        self.function = printable(cut(code.co_qualname, MAX_NAME))
        self.lines = list(_source(frame, self.line))
        self.variables = list(_variables(frame, values))


def _source(frame: FrameType, line: int) -> Iterator[tuple[int, str]]:
    """Yield the numbers and texts of the lines around `line`, as far as there is a source."""
    file = frame.f_code.co_filename
    try:
        linecache.checkcache(file)
        lines = linecache.getlines(file, frame.f_globals)
    except Exception:  # a module's loader may raise anything when it is asked for the source
        return
    for number in range(max(1, line - CONTEXT), min(len(lines), line + CONTEXT) + 1):
        text = lines[number - 1].rstrip("\r\n").expandtabs(4)
        yield number, printable(cut(text, MAX_LINE))


def _variables(frame: FrameType, values: _Values) -> Iterator[tuple[str, str]]:
    """Yield what may be shown of the arguments and the other local variables."""
    found = frame.f_locals
    left = MAX_VARIABLES
    for name, value in list(found.items()):
        if found is frame.f_globals and _is_definition(name, value):
            continue
        if left == 0:
            yield "…", f"{len(found) - MAX_VARIABLES:,} more"
            return
        left -= 1
        yield _named(name), values.shown(name, value)


def _is_definition(name: str, value: object) -> bool:
    """Whether a module's variable is what its source tells anyhow: an import, a function, a class."""
    kinds = (type(sys), type, type(_is_definition), type(len))
    return name.startswith("__") or issubclass(type(value), kinds)


def _named(name: object) -> str:
    return printable(cut(name if type(name) is str else bounded_repr(name), MAX_NAME))


def _frames(error: BaseException, silent: bool, values: _Values) -> tuple[list[_Frame], int]:
    """Return the frames to show of an exception, and how many were left out in their middle."""
    walked = list(traceback.walk_tb(slot(error, "__traceback__")))
    kept = applications_frames([frame.f_code.co_filename for frame, _ in walked], silent)
    walked = walked[kept]
    over = max(0, len(walked) - MAX_FRAMES)
    if over:
        half = MAX_FRAMES // 2
        walked = walked[:half] + walked[-half:]
    # The last one is where it happened: it has the time first.
    return [_Frame(frame, line, values) for frame, line in walked[::-1]][::-1], over


def _message(error: BaseException) -> str:
    """Return the exception's text and notes, in as many lines as it has."""
    text = _syntax(error) if issubclass(type(error), SyntaxError) else message(error)
    try:
        notes = getattr(error, "__notes__", None)
        if type(notes) is list:
            text = "\n".join([text, *(str(note) for note in notes[:20])])
    except KeyboardInterrupt:
        raise
    except BaseException:
        pass  # it has none that could be told
    return printable(cut(text, MAX_MESSAGE), "\n")


def _rows(environ: Mapping[Any, Any], values: _Values) -> list[tuple[str, str]]:
    """Return the environ's names and what may be shown of their values, in the order of the names."""
    rows = list(environ.items())[:MAX_ROWS]
    return sorted((_named(name), values.shown(name, value)) for name, value in rows)


def _request(environ: Mapping[Any, Any]) -> str:
    parts = (environ.get("REQUEST_METHOD"), environ.get("SCRIPT_NAME"), environ.get("PATH_INFO"))
    method, script, path = (each if type(each) is str else "" for each in parts)
    return printable(cut(f"{method} {script}{path}", MAX_LINE))


def _syntax(error: BaseException) -> str:
    """Return the text of a SyntaxError with the file, the line and the mark below it."""
    try:
        return "".join(traceback.format_exception_only(error)).rstrip("\n")
    except KeyboardInterrupt:
        raise
    except BaseException:  # what the application made it of is no place in a file
        return message(error)


# As plain text.


def _text(error: BaseException, reference: str, environ: Mapping[Any, Any]) -> Iterator[str]:
    yield "500 Internal Server Error\n\n"
    yield f"The application failed. Reference: {reference}\n{WARNING}\n\n"
    size = 0
    for part in _text_parts(error, environ):
        size += len(part)
        if size > MAX_PAGE:
            yield "\n… the rest is left out: the page is too long\n"
            return
        yield part


def _text_parts(error: BaseException, environ: Mapping[Any, Any]) -> Iterator[str]:
    values = _Values()
    yield f"{bounded_traceback(error)}\n"
    for how, each in chain(error):
        frames, _ = _frames(each, not how and says_it_all(each), values)
        for frame in frames:
            yield f"\nVariables of {frame.function}, {frame.file} line {frame.line}\n"
            yield "".join(f"    {name} = {value}\n" for name, value in frame.variables)
    yield f"\nThe request: {_request(environ)}\n"
    yield "".join(f"    {name} = {value}\n" for name, value in _rows(environ, values))


# As HTML.

_STYLE = """
:root{color-scheme:light dark;--b:#fff;--f:#1b1b1f;--m:#666;--l:#ddd;--c:#f5f5f7;--h:#ffe9e7;--r:#b3261e}
@media(prefers-color-scheme:dark){:root{--b:#17171a;--f:#e6e6ea;--m:#9a9aa3;--l:#3a3a40;--c:#212126;--h:#4a2320;--r:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:0 1rem 3rem;background:var(--b);color:var(--f);font:1rem/1.5 system-ui,sans-serif}
.warning{margin:0 -1rem;padding:.5rem 1rem;background:var(--r);color:var(--b);font-weight:600}
h1{margin:1.2rem 0 .3rem;color:var(--r);font-size:1.4rem;overflow-wrap:anywhere}
h2{margin:2rem 0 .3rem;font-size:1.1rem;overflow-wrap:anywhere}
pre,code,td,th{font-family:ui-monospace,monospace;font-size:.85rem}
pre{margin:.3rem 0;overflow-x:auto}
pre.message{white-space:pre-wrap;overflow-wrap:anywhere;font-size:1rem}
p.meta{color:var(--m);margin:.2rem 0;overflow-wrap:anywhere}
.frame{margin:.8rem 0;border:1px solid var(--l);border-radius:.4rem}
.frame>p{margin:0;padding:.4rem .7rem;background:var(--c);overflow-wrap:anywhere}
.frame>pre{padding:.3rem 0}
.frame pre span{display:block;min-width:max-content;padding:0 .7rem}
.frame pre span.here{background:var(--h);font-weight:700}
i{display:inline-block;min-width:3.2em;padding-right:1em;color:var(--m);font-style:normal;text-align:right;user-select:none}
details{padding:.2rem .7rem}
summary{cursor:pointer;color:var(--m)}
table{width:100%;border-collapse:collapse;table-layout:fixed}
th,td{padding:.2rem .4rem;border-top:1px solid var(--l);text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{width:30%;font-weight:600}
@media(max-width:40rem){th,td{display:block;width:auto}td{border-top:0;padding-top:0}}
"""


def _escape(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#x27;")


def _html(error: BaseException, reference: str, environ: Mapping[Any, Any]) -> Iterator[str]:
    heading = _escape(title(error))
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f'<p class="warning">{_escape(WARNING)}</p>\n'
    )
    size = 0
    for part in _html_parts(error, reference, environ):
        size += len(part)
        if size > MAX_PAGE:
            yield "<p>… the rest is left out: the page is too long</p>\n"
            break
        yield part
    yield "</body></html>\n"


def _html_parts(error: BaseException, reference: str, environ: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the page in parts that are whole in themselves, so that any end of them is a page."""
    values = _Values()
    for how, each in chain(error):
        if how:
            yield f"<h2>{_escape(how)}: {_escape(title(each))}</h2>\n"
        else:
            yield f"<h1>{_escape(title(each))}</h1>\n"
        yield f'<pre class="message">{_escape(_message(each))}</pre>\n'
        if not how:
            yield (
                f'<p class="meta">{_escape(_request(environ))} · Reference: {_escape(reference)}'
                f" · Python {_escape(sys.version.split()[0])}, {_escape(sys.executable or '')}</p>\n"
            )
        yield from _html_frames(*_frames(each, not how and says_it_all(each), values))
    yield _folded("The traceback as text", f"<pre>{_escape(bounded_traceback(error))}</pre>")
    yield _folded("The request: its environ", _table(_rows(environ, values)))


def _html_frames(frames: list[_Frame], left_out: int) -> Iterator[str]:
    for number, frame in enumerate(frames, 1):
        if left_out and number == len(frames) // 2 + 1:
            yield f"<p>… {left_out:,} frames left out …</p>\n"
        # The last one is where it happened.
        yield _html_frame(frame, opened=number == len(frames))


def _html_frame(frame: _Frame, opened: bool) -> str:
    lines = "".join(
        f"<span{' class=here' if number == frame.line else ''}><i>{number}</i>{_escape(text)}</span>"
        for number, text in frame.lines
    )
    table = _folded("Variables", _table(frame.variables), opened) if frame.variables else ""
    return (
        f'<div class="frame"><p><code>{_escape(frame.function)}</code> in'
        f" <code>{_escape(frame.file)}</code>, line {frame.line}</p>\n"
        f"<pre>{lines}</pre>{table}</div>\n"
    )


def _folded(title: str, content: str, opened: bool = False) -> str:
    attribute = " open" if opened else ""
    return f"<details{attribute}><summary>{_escape(title)}</summary>{content}</details>\n"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = (f"<tr><th>{_escape(name)}</th><td>{_escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{''.join(cells)}</table>"
