"""--debug over each protocol, and that nobody has it who has not asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateways import client
from gateways.errors import GatewayError
from gateways.server.options import Options
from tests.server.live import running

ROOT = Path(__file__).parents[2]
BROWSER = [("Accept", "text/html,*/*;q=0.8")]

CGI = {
    "REQUEST_METHOD": "GET",
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SCRIPT_NAME": "/x",
    "PATH_INFO": "/wrong",
    "QUERY_STRING": "",
    "HTTP_ACCEPT": "text/html",
    "HTTP_COOKIE": "geheim",
}

SOURCE = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/late":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])
        def pieces():
            yield b"half"
            raise RuntimeError("too late for a page")
        return pieces()
    raise RuntimeError("the application is wrong")
"""


def application() -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(SOURCE, scope)
    found: Callable[..., Any] = scope["application"]
    return found


def run_cgi(folder: Path, *command: str) -> str:
    (folder / "app.py").write_text(SOURCE)
    (folder / "script.cgi").write_text(
        f"{SOURCE}\nimport gateways.cgi\ngateways.cgi.run(application)\n"
    )
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **CGI}
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "the application is wrong" in result.stderr  # the log has it in any case
    return result.stdout


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_a_daemon_shows_the_page(short_path: Path, protocol: str) -> None:
    where = short_path / "s"
    with running(application(), where, protocol=protocol, debug=True):
        address = f"{protocol}+unix:{where}"
        answer = client.request(address, "/wrong", headers=[*BROWSER, ("Cookie", "geheim")])
        page = answer.read().decode()
        assert answer.status == 500
        assert ("Cache-Control", "no-store") in answer.headers
        assert page.startswith("<!doctype html>")
        assert page.endswith("</html>\n")
        assert "the application is wrong" in page
        assert "geheim" not in page
        plain = client.request(address, "/wrong").read().decode()
        assert plain.startswith("500 Internal Server Error\n\nThe application failed. Reference: ")
        assert "RuntimeError: the application is wrong" in plain


def test_gateways_cgi_shows_the_page(tmp_path: Path) -> None:
    out = run_cgi(tmp_path, "-m", "gateways", "cgi", "--debug", "app.py")
    head, _, page = out.replace("\r\n", "\n").partition("\n\n")
    assert "Cache-Control: no-store" in head
    assert page.startswith("<!doctype html>")
    assert "the application is wrong" in page
    assert "geheim" not in page


def test_after_the_head_nothing_is_added_and_the_answer_is_cut(short_path: Path) -> None:
    where = short_path / "s"
    with running(application(), where, debug=True):
        seen: list[bytes] = []
        with client.request(f"fcgi+unix:{where}", "/late", headers=BROWSER) as answer:
            assert answer.status == 200
            with pytest.raises(GatewayError):
                seen.extend(answer.iter_body())
        assert b"".join(seen) == b"half"


# Off unless asked for.


def nothing_is_told(page: str) -> None:
    assert "The application failed. Reference: " in page
    assert "RuntimeError" not in page
    assert "is wrong" not in page
    assert "<" not in page
    assert len(page) < 200


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_a_daemon_tells_a_stranger_nothing(short_path: Path, protocol: str) -> None:
    where = short_path / "s"
    with running(application(), where, protocol=protocol):
        answer = client.request(f"{protocol}+unix:{where}", "/wrong", headers=BROWSER)
        nothing_is_told(answer.read().decode())


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "gateways", "cgi", "app.py"],
        ["script.cgi"],
        ["-c", "import gateways; gateways.run('app.py')"],
    ],
    ids=["cgi", "cgi.run", "run"],
)
def test_a_CGI_script_tells_a_stranger_nothing(tmp_path: Path, command: list[str]) -> None:
    nothing_is_told(run_cgi(tmp_path, *command).replace("\r\n", "\n").partition("\n\n")[2])


def test_the_option_is_off_by_default() -> None:
    assert Options().debug is False
