"""Exceptions that cannot be formatted: the visitor has an answer, the server lives, the log says what it can."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateways import client, loading, wsgi
from gateways.errors import ConfigurationError
from gateways.server.log import log_exception
from gateways.tracebacks import (
    MAX_LINKED,
    application_traceback,
    bounded_traceback,
    summary,
    whole_traceback,
)
from tests.server.live import running
from tests.server.test_crashlog import entries, run_cgi

ROOT = Path(__file__).parents[2]


class APIError(Exception):
    """As client libraries have it: attributes come out of the answer's JSON."""

    def __init__(self, data: dict[str, object]) -> None:
        self.data = data

    def __getattr__(self, name: str) -> object:
        return self.data[name]


class Notes(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # the fault that is tried
        raise RuntimeError("no notes")


class Deaf(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit("nothing is told")


class Mute(BaseException):
    def __str__(self) -> str:
        raise SystemExit("nothing is said")

    __repr__ = __str__


BYTES: Any = ("page.html", 3, 2, b"{% if %}")
OFFSET: Any = ("page.html", 3, "5", "{% if %}")

FAULTS: list[Callable[[], BaseException]] = [
    lambda: APIError({"code": 7}),
    lambda: SyntaxError("bad template", BYTES),
    lambda: SyntaxError("bad template", OFFSET),
    lambda: Notes("a text"),
    lambda: Deaf("a text"),
    lambda: Mute("a text"),
    lambda: type("Loud", (APIError,), {"__str__": lambda self: 5})({}),
]

faults = pytest.mark.parametrize("make", FAULTS)


@faults
@pytest.mark.parametrize("debug", [False, True])
def test_a_worker_answers_it_and_goes_on(
    short_path: Path, make: Callable[[], BaseException], debug: bool
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/fault":
            raise make()
        start_response("200 OK", [])
        return [b"fine"]

    log = short_path / "crash.log"
    with running(application, short_path / "s", threads=1, crash_log=str(log), debug=debug) as live:
        for _ in range(2):
            with client.request(f"fcgi+unix:{live.path}", "/fault") as answer:
                assert answer.status == 500
                text = answer.read().decode()
            assert "Reference: " in text
            with client.request(f"fcgi+unix:{live.path}", "/") as answer:
                assert answer.read() == b"fine"
    assert len(entries(log.read_text())) == 2
    assert "test_untellable_faults.py" in log.read_text()


@faults
def test_a_close_that_raises_it_leaves_the_worker_alive(
    short_path: Path, make: Callable[[], BaseException]
) -> None:
    class Body:
        def __iter__(self) -> Any:
            return iter([b"body"])

        def close(self) -> None:
            raise make()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return Body()

    log = short_path / "crash.log"
    with running(application, short_path / "s", threads=1, crash_log=str(log)) as live:
        for _ in range(2):
            with client.request(f"fcgi+unix:{live.path}", "/") as answer:
                assert answer.read() == b"body"
    assert len(entries(log.read_text())) == 2


def test_a_body_whose_close_cannot_be_asked_for_is_answered_and_reported() -> None:
    class Body:
        def __iter__(self) -> Any:
            return iter([b"body"])

        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return Body()

    reports: list[Exception] = []

    def report(error: Exception) -> str:
        reports.append(error)
        return "ref"

    wsgi.run(application, {"REQUEST_METHOD": "GET"}, lambda event: None, 1, report)
    assert [type(error) for error in reports] == [KeyError]


SOURCE = """
class APIError(Exception):
    def __init__(self, data):
        self.data = data
    def __getattr__(self, name):
        return self.data[name]
"""

IN_A_REQUEST = f"{SOURCE}\ndef application(environ, start_response):\n    raise APIError({{}})\n"
AT_IMPORT = f"{SOURCE}\nraise APIError({{}})\n"


@pytest.mark.parametrize("source", [IN_A_REQUEST, AT_IMPORT], ids=["in a request", "at import"])
def test_a_CGI_request_is_answered(tmp_path: Path, source: str) -> None:
    out, err = run_cgi(tmp_path, "crash.log", source)
    assert out.startswith("Status: 500")
    reference = out.split()[-1]
    assert f"error {reference}: Traceback" in err
    assert "app.py" in err
    assert "APIError: {}" in err
    assert entries((tmp_path / "crash.log").read_text()) == [reference]


def test_a_daemon_says_why_its_application_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(AT_IMPORT)
    result = subprocess.run(
        [sys.executable, "-m", "gateways", "serve", "app.py", "-b", "scgi://127.0.0.1:0"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode
    assert "APIError: {}" in result.stderr.splitlines()[-1]
    assert str(tmp_path / "app.py") in result.stderr


@pytest.mark.parametrize("make", FAULTS[:4])
def test_loading_names_the_fault(tmp_path: Path, make: Callable[[], BaseException]) -> None:
    loading_fault = make()
    failure = loading._import_failure(loading_fault, "app.py")
    assert isinstance(failure, ConfigurationError)
    assert type(loading_fault).__name__ in str(failure)


def caught(make: Callable[[], BaseException]) -> BaseException:
    try:
        raise make()
    except BaseException as error:
        return error


@faults
def test_what_is_told_of_it(make: Callable[[], BaseException]) -> None:
    error = caught(make)
    kind = type(error).__name__
    for each in (application_traceback, bounded_traceback, whole_traceback):
        assert "raise make()" in each(error)
        assert kind in each(error)
    assert kind in summary(error)


def test_the_log_takes_it(caplog: pytest.LogCaptureFixture) -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the disk is full")

    handler = Raises()
    for given in (None, handler):
        if given:
            logging.getLogger("gateways").addHandler(given)
        try:
            raise APIError({"code": 7})
        except APIError:
            log_exception("%s: it happened", "here")
        finally:
            logging.getLogger("gateways").removeHandler(handler)
    assert "here: it happened\n" in caplog.text
    assert "APIError: {'code': 7}" in caplog.text


def wide() -> BaseException:
    return ExceptionGroup("wide", [ValueError(n) for n in range(100_000)])


def nested() -> BaseException:
    group: Exception = ValueError("inside")
    for _ in range(30):
        group = ExceptionGroup("nested", [group, group, group])
    return group


def long() -> BaseException:
    first = last = ValueError(0)
    for number in range(1, 50_000):
        last.__cause__ = ValueError(number)
        last = last.__cause__
    last.__cause__ = first
    return first


@pytest.mark.parametrize("make", [wide, nested, long])
def test_of_very_many_exceptions_the_first_are_told(make: Callable[[], BaseException]) -> None:
    error = make()
    text = application_traceback(error)
    assert f"more than {MAX_LINKED} exceptions" in text
    assert "and more" in text
    assert type(error).__name__ in text
    assert len(text) < 20_000
    assert summary(error)


def test_a_wide_group_says_how_many_it_holds() -> None:
    assert "a group of 100,000" in application_traceback(wide())


def test_a_note_does_not_stand_for_its_exception() -> None:
    error = ValueError("bad")
    error.add_note("a hint")
    assert summary(error) == "ValueError: bad"
