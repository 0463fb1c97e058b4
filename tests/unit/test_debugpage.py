"""The debug page: what it tells, what it keeps to itself, and that nothing breaks it."""

from __future__ import annotations

import collections
import html.parser
import linecache
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateways import debugpage, wsgi
from gateways.debugpage import MAX_PAGE, wants_html
from gateways.events import EndOfResponse, Response, ResponseBody

NOTHING: dict[str, str] = {}
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Page:
    """The answer of an application under --debug, and what was reported of it."""

    def __init__(
        self, application: Callable[..., Any], *, accept: str = BROWSER, **environ: Any
    ) -> None:
        self.sent: list[Any] = []
        self.reports: list[Exception] = []
        given = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_ACCEPT": accept, **environ}
        wsgi.run(application, given, self.sent.append, 1, self.report, debug=True)
        (self.head,) = [event for event in self.sent if isinstance(event, Response)]
        body = b"".join(event.data for event in self.sent if isinstance(event, ResponseBody))
        self.size = len(body)
        self.text = body.decode()
        self.headers = dict(self.head.headers)
        assert self.head.status == "500 Internal Server Error"
        assert self.sent[-1] == EndOfResponse(1)

    def report(self, error: Exception) -> str:
        self.reports.append(error)
        return "ref-1"


def failing(environ: dict[str, Any], start_response: Any) -> Any:
    argument = "what was given"
    return inner(argument, password="hunter2", card={"api_key": "hunter2", "who": "ada"})


def inner(given: str, **more: Any) -> Any:
    raise ValueError("it is broken")  # this very line


both = pytest.mark.parametrize("accept", [BROWSER, "*/*"])


class Structure(html.parser.HTMLParser):
    """Whether each element is closed, which there are, and what text the page shows."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.shown = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += data


OUR_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "p", "h1", "h2", "pre", "div", "code"),
    *("span", "i", "details", "summary", "table", "tr", "th", "td"),
}
OUR_ATTRIBUTES = {"lang", "charset", "name", "content", "class", "open"}


def structure(page: Page) -> Structure:
    """The page's structure, once nothing is in it that this project does not write itself."""
    found = Structure(page.text)
    assert found.tags <= OUR_TAGS
    assert found.attributes <= OUR_ATTRIBUTES
    return found


@both
def test_it_tells_what_happened_where_and_with_what(accept: str) -> None:
    page = Page(failing, accept=accept, PATH_INFO="/shop", HTTP_HOST="example.org")
    shown = structure(page).shown if accept == BROWSER else page.text
    assert 'raise ValueError("it is broken")  # this very line' in shown
    for told in ("ValueError", "it is broken", "ref-1", "GET /shop", __file__, "inner", "failing"):
        assert told in shown
    assert "'what was given'" in shown
    assert "'who': 'ada'" in shown
    assert "'example.org'" in shown
    assert "--debug off" in shown
    # The frame around the application is this package's and tells nothing.
    assert "gateways/wsgi.py" not in shown


@both
def test_secrets_are_masked(accept: str) -> None:
    page = Page(
        failing,
        accept=accept,
        HTTP_COOKIE="sid=geheim",
        HTTP_AUTHORIZATION="Basic geheim",
        DB_PASSWORD="geheim",
        DATABASE_URL="postgres://me:geheim@db/x",
    )
    assert "geheim" not in page.text
    # The call's own line is in the source that is shown, the values of the variables are not.
    assert page.text.count("hunter2") == page.text.count("return inner(argument") * 2
    assert "HTTP_COOKIE" in page.text


def test_the_line_that_failed_stands_out_among_its_neighbours() -> None:
    page = Page(failing)
    line = inner.__code__.co_firstlineno + 1
    assert f"<span class=here><i>{line}</i>" in page.text
    assert f"<span><i>{line - 1}</i>def inner(" in page.text


@both
def test_it_is_never_stored_and_runs_nothing(accept: str) -> None:
    page = Page(failing, accept=accept)
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Content-Length"] == str(page.size)
    kind = "text/html" if accept == BROWSER else "text/plain"
    assert page.headers["Content-Type"] == f"{kind}; charset=utf-8"


def test_it_needs_no_other_file() -> None:
    page = Page(failing)
    assert not {"src", "href", "url("} & set(page.text.replace("=", " ").split())
    assert "prefers-color-scheme:dark" in page.text
    assert 'name="viewport"' in page.text


def test_HEAD_has_the_head_alone() -> None:
    page = Page(failing, REQUEST_METHOD="HEAD")
    assert page.size == 0
    assert int(page.headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML;q=0.1", True),
        ("application/xhtml+xml", True),
        ("text/plain, text/html", True),
        ("text/plain, text/html;q=0.5", False),
        ("text/html;q=0", False),
        ("text/html;q=nan", False),
        ("text/html;q=-1", False),
        ("text/html;q=", False),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("text/htmlx", False),
        ("," * 100_000, False),
        (None, False),
        (5, False),
    ],
)
def test_HTML_is_for_who_asks_for_it(accept: object, expected: bool) -> None:
    assert wants_html({"HTTP_ACCEPT": accept}) is expected


# Hostile values.

EVIL = "</pre><script>alert(1)</script><img src=x onerror=\"alert('2')\">&lt;\u202e\0\udc80"


class Evil(Exception):
    def __repr__(self) -> str:
        return EVIL


Evil.__name__ = Evil.__qualname__ = "<script>alert(3)</script>"


def evil_application(environ: dict[str, Any], start_response: Any) -> Any:
    plain = EVIL.encode("ascii", "ignore").decode().replace("\0", "")
    source = f"def f(a):\n    b = {plain!r}\n    raise a\n"
    scope: dict[str, Any] = {"__name__": "<b>module</b>"}
    name = "/srv/<script>alert(4)</script>.py"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), scope)
    scope["f"](Evil(EVIL))


@both
def test_nothing_that_is_shown_is_markup(accept: str) -> None:
    page = Page(evil_application, accept=accept, **{"<script>": EVIL, "HTTP_X": EVIL})
    if accept == BROWSER:
        assert "<script" not in page.text
        assert "<img" not in page.text
        assert "<script>alert(1)</script>" in structure(page).shown
    for character in ("\u202e", "\0", "\udc80"):
        assert character not in page.text
    assert "\\u202e" in page.text


class Raising:
    def __repr__(self) -> str:
        raise RuntimeError("from repr")


class RaisingError(Exception):
    def __str__(self) -> str:
        raise SystemExit("from str")


def with_hostile_variables(environ: dict[str, Any], start_response: Any) -> Any:
    huge = "x" * 10_000_000
    many = list(range(1_000_000))
    recursive: list[Any] = []
    recursive.append(recursive)
    raising = Raising()
    raise RaisingError(huge, many, recursive, raising)


@both
def test_what_raises_and_what_is_huge_leaves_a_page(accept: str) -> None:
    page = Page(with_hostile_variables, accept=accept, **{"x": "y" * 10_000_000})
    assert page.size < 200_000
    assert "whose repr raised RuntimeError" in page.text
    assert "with_hostile_variables" in page.text
    assert len(page.reports) == 1


def too_deep(environ: dict[str, Any], start_response: Any, level: int = 0) -> Any:
    return too_deep(environ, start_response, level + 1)


def with_many_variables(environ: dict[str, Any], start_response: Any) -> Any:
    exec("\n".join(f"v{n} = 'x' * 10_000" for n in range(5000)) + "\n1 / 0", {}, {})


def a_long_message(environ: dict[str, Any], start_response: Any) -> Any:
    raise ValueError("m" * 50_000_000)


def a_wide_group(environ: dict[str, Any], start_response: Any) -> Any:
    raise ExceptionGroup("wide", [ValueError("v" * 10_000) for _ in range(5000)])


def a_long_chain(environ: dict[str, Any], start_response: Any) -> Any:
    error = None
    for number in range(300):
        try:
            raise ValueError(f"{number} " + "é<" * 5000) from error
        except ValueError as caught:
            error = caught
    assert error
    raise error


def a_circle(environ: dict[str, Any], start_response: Any) -> Any:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


@both
@pytest.mark.parametrize(
    "application",
    [too_deep, with_many_variables, a_long_message, a_wide_group, a_long_chain, a_circle],
)
def test_the_page_is_bounded(application: Any, accept: str) -> None:
    page = Page(application, accept=accept, **{f"HTTP_X{n}": "z" * 5000 for n in range(2000)})
    assert page.size < 4 * MAX_PAGE
    assert len(page.reports) == 1
    if accept == BROWSER:
        structure(page)


class Slow:
    told = 0

    def __repr__(self) -> str:
        Slow.told += 1
        time.sleep(0.05)
        return "told"


def slow(environ: dict[str, Any], start_response: Any, level: int = 10) -> Any:
    if level:
        first = second = third = Slow()
        return slow(environ, start_response, level - 1) or (first, second, third)
    raise ValueError("it is broken")


@both
def test_values_that_are_slow_to_tell_are_told_for_a_while(
    accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debugpage, "MAX_SECONDS", 0.2)
    Slow.told = 0
    page = Page(slow, accept=accept)
    assert Slow.told <= 5
    assert "left out: to tell the values took too long" in page.text
    assert "it is broken" in page.text


def with_containers(environ: dict[str, Any], start_response: Any, level: int = 38) -> Any:
    many, rows = MANY, ROWS
    if level:
        return with_containers(environ, start_response, level - 1) or (many, rows)
    raise ValueError("it is broken")


class Item:
    told = 0

    def __repr__(self) -> str:
        Item.told += 1
        return "x" * 400


MANY = collections.deque([Item()] * 300_000)
ROWS = [[[Item()] * 12] * 12] * 12


@both
def test_of_what_is_large_only_the_beginning_is_asked_for(accept: str) -> None:
    Item.told = 0
    Page(with_containers, accept=accept)
    assert Item.told < 40 * 2 * 12


def test_frames_in_the_middle_of_a_recursion_are_left_out() -> None:
    shown = structure(Page(too_deep)).shown
    assert "frames left out" in shown
    assert shown.count("too_deep in ") == debugpage.MAX_FRAMES


# Exceptions that belong to others.


def chained(environ: dict[str, Any], start_response: Any) -> Any:
    try:
        try:
            NOTHING["first"]
        except KeyError:
            int("second")
    except ValueError as error:
        fault = LookupError("third")
        fault.add_note("a note on it")
        raise fault from error


def test_causes_and_contexts_are_told_with_their_frames() -> None:
    shown = structure(Page(chained)).shown
    assert "What LookupError was raised from: ValueError" in shown
    assert "What was being handled when ValueError was raised: KeyError" in shown
    assert shown.index("third") < shown.index("second")
    assert "a note on it" in shown
    for line in ('NOTHING["first"]', 'int("second")', "raise fault from error"):
        assert line in shown


def grouped(environ: dict[str, Any], start_response: Any) -> Any:
    try:
        NOTHING["inside"]
    except KeyError as error:
        raise ExceptionGroup("several", [error, TypeError("other")]) from None


def test_groups_are_told_one_by_one() -> None:
    shown = structure(Page(grouped)).shown
    assert "One of those in ExceptionGroup: KeyError" in shown
    assert "One of those in ExceptionGroup: TypeError" in shown
    assert 'NOTHING["inside"]' in shown


def test_SystemExit_is_told_as_what_it_is() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        sys.exit("enough")

    shown = structure(Page(application)).shown
    assert "SystemExit" in shown
    assert 'sys.exit("enough")' in shown


def test_a_broken_rule_of_WSGI_is_told_in_its_words() -> None:
    shown = structure(Page(lambda environ, start_response: None)).shown
    assert "the application returned NoneType" in shown
    assert "gateways/wsgi.py" not in shown


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("x = 1\ny = (2 +* 3)\n")

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        exec(compile(file.read_text(), str(file), "exec"))

    shown = structure(Page(application)).shown
    assert f'File "{file}", line 2' in shown
    assert "y = (2 +* 3)" in shown


def test_what_a_module_imports_and_defines_is_not_listed_among_its_variables(
    tmp_path: Path,
) -> None:
    source = "import os\ndef helper(): pass\nanswer = 42\nraise ValueError\n"

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        exec(compile(source, "module.py", "exec"), {"__name__": "module"})

    shown = structure(Page(application)).shown
    assert "answer42" in shown
    assert "helper<" + "function" not in shown  # in two parts, since this line may be shown as well


# When the page itself fails.


def test_a_page_that_cannot_be_made_is_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("the page's own fault")

    monkeypatch.setattr(debugpage, "_variables", broken)
    page = Page(failing)
    assert page.text == "500 Internal Server Error\n\nThe application failed. Reference: ref-1\n"
    assert [str(error) for error in page.reports] == ["it is broken", "the page's own fault"]


def test_an_environ_that_the_application_has_spoilt_is_survived() -> None:
    def application(environ: dict[Any, Any], start_response: Any) -> Any:
        environ.clear()
        environ[Raising] = Raising()
        environ["PATH_INFO"] = 5
        environ["REQUEST_METHOD"] = None
        raise ValueError("it is broken")

    page = Page(application)
    assert "it is broken" in page.text
