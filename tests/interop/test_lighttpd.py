"""What is special about lighttpd's configurations: programs it starts, files it must not show."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.http_client import HTTPAnswer, HTTPRequest, http_exchange
from tests.interop.servers import Daemon, wait_until

CGI, SPAWNED, FASTCGI, SCGI = 8096, 8097, 8098, 8099


@pytest.fixture(autouse=True)
def _plain_daemon(lighttpd: Path, daemon: Daemon) -> None:
    daemon.with_options()


def _get(port: int, target: bytes = b"/", *headers: tuple[str, str | bytes]) -> HTTPAnswer:
    request = HTTPRequest(target=target, headers=[("Host", "localhost"), *headers])
    return http_exchange("127.0.0.1", port, request)


def _process_of(port: int) -> int:
    """The process that answers."""
    request = HTTPRequest("POST", target=b"/arrivals", headers=[("X-Case", "0" * 32)], body=b"x")
    answer = http_exchange("127.0.0.1", port, request)
    assert answer.status == 200, answer
    return int(answer.body.split()[-1])


@pytest.mark.parametrize("target", [b"/app.orig", b"/app.cgi", b"/.orig", b"/../gateways/cgi.py"])
def test_what_lies_beside_the_program_is_not_shown(lighttpd: Path, target: bytes) -> None:
    beside = lighttpd / "root" / "app.cgi.orig"
    beside.write_text("a secret")
    answer = _get(CGI, target)
    assert answer.status == 200
    assert answer.json()["SCRIPT_NAME"] == ""  # the application, for which each is a path


@pytest.mark.parametrize("port", [CGI, SPAWNED, FASTCGI, SCGI])
def test_a_user_name_that_nobody_checked_is_not_REMOTE_USER(port: int) -> None:
    answer = _get(port, b"/", ("Authorization", "Basic YWxpY2U6c2VjcmV0"))
    assert answer.json()["HTTP_AUTHORIZATION"] == "Basic YWxpY2U6c2VjcmV0"
    assert "REMOTE_USER" not in answer.json()


@pytest.mark.parametrize("port", [CGI, SPAWNED, FASTCGI, SCGI])
def test_an_answer_s_head_may_be_larger_than_a_page(port: int) -> None:
    answer = _get(port, b"/large-head")
    assert answer.status == 200
    assert len(answer.header("X-Large") or "") == 12000


def test_a_program_that_was_killed_is_started_again() -> None:
    killed = set()
    # One more than there are processes: the last may only be a new one.
    for _ in range(3):
        wait_until(lambda: _get(SPAWNED).status == 200, "lighttpd has an answer again")
        process = _process_of(SPAWNED)
        assert process not in killed
        killed.add(process)
        os.kill(process, signal.SIGKILL)
        wait_until(partial(_is_gone, process), "the process has ended")
    wait_until(lambda: _get(SPAWNED).status == 200, "lighttpd has an answer again")


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return "State:\tZ" in Path(f"/proc/{process}/status").read_text()


def test_without_a_daemon_the_visitor_gets_503_and_with_one_an_answer(daemon: Daemon) -> None:
    daemon.stop()
    assert _get(FASTCGI).status == 503
    assert _get(SCGI).status == 503
    daemon.with_options()
    # lighttpd leaves a backend that it could not reach alone for a second.
    wait_until(lambda: _get(FASTCGI).status == 200, "FastCGI is answered again")
    wait_until(lambda: _get(SCGI).status == 200, "SCGI is answered again")
