"""URLs: real HTTP answers with each fault."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from gateways.errors import ConfigurationError
from tests.doctor.conftest import codes, examine
from tests.doctor.test_sockets import answering


class Answer:
    """What the web server is to say."""

    def __init__(self, status: int = 200, body: bytes = b"<p>hello", **headers: str) -> None:
        self.status = status
        self.body = body
        self.headers = {
            "Content-Type": "text/html",
            **{n.replace("_", "-"): v for n, v in headers.items()},
        }


@contextlib.contextmanager
def serving(answer: Answer, server: str = "nginx/1.22.1") -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(answer.status)
            self.send_header("Server", server)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join(5)


def test_a_page_is_met_with_silence() -> None:
    with serving(Answer()) as url:
        report = examine(f"{url}/app/page?a=1")
    assert report.findings == []
    assert report.checked[-1] == "GET /app/page?a=1: 200 from nginx/1.22.1"


def test_a_redirect_is_noted() -> None:
    with serving(Answer(302, b"", Location="/app/login")) as url:
        report = examine(f"{url}/app/")
    assert report.findings == []
    assert "/app/login" in report.notes[0]


@pytest.mark.parametrize("status", [403, 404, 405, 413, 500, 502, 503, 504, 501])
def test_what_the_statuses_mean(status: int) -> None:
    with serving(Answer(status)) as url:
        (finding,) = examine(url).findings
    assert finding.code == f"http-{status}"
    assert "nginx/1.22.1 answers" in finding.seen


@pytest.mark.parametrize(
    ("server", "log"),
    [
        ("nginx", "nginx/error.log"),
        ("Apache/2.4.57", "apache2/error.log"),
        ("lighttpd/1.4.69", "lighttpd/"),
    ],
)
def test_the_error_log_is_the_next_thing_to_look_at(server: str, log: str) -> None:
    with serving(Answer(502), server) as url:
        (finding,) = examine(url).findings
    assert log in finding.commands[0]
    assert finding.commands[0].endswith("| gateways doctor -")


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"#!/usr/bin/python3\nprint()\n", "text/plain", "source-shown"),
        (b"import os\nprint()\n", "text/html", "source-shown"),
        (b"from flask import Flask\n", "text/plain", "source-shown"),
        (b"#!/usr/bin/python3\n", "application/octet-stream", "source-downloaded"),
        (b"print()", "text/x-python", "source-downloaded"),
        (b"\x7fELF\x02\x01", "application/octet-stream", "source-downloaded"),
        (b"important news", "text/plain", ""),
        (b"from now on import is free", "text/html", ""),
        (b"\x89PNG", "application/octet-stream", ""),
    ],
)
def test_source_that_is_served_and_not_executed(body: bytes, kind: str, code: str) -> None:
    with serving(Answer(200, body, Content_Type=kind)) as url:
        assert codes(f"{url}/hello.cgi") == ([code] if code else [])


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/app/", Answer(302, b"", Location="/app/app/login")),
        ("/app/", Answer(302, b"", Location="http://localhost/app/app/login")),
        ("/app/", Answer(200, b"<a href='/app/app/next'>")),
        ("/", Answer(200, b'<a href="/app.fcgi/app.fcgi/next">')),
        ("/app/x", Answer(200, b"SCRIPT_NAME = '/app'\nPATH_INFO = '/app/x'\n")),
    ],
)
def test_a_mount_point_that_stands_twice(target: str, answer: Answer) -> None:
    with serving(answer) as url:
        assert codes(url + target) == ["doubled-script-name"]


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/app/", Answer(302, b"", Location="/app/login")),
        ("/app/", Answer(200, b"<a href='/app/application/next'>")),
        ("/app/x", Answer(200, b"SCRIPT_NAME = '/app'\nPATH_INFO = '/x'\n")),
        ("/app/app/x", Answer(200, b"SCRIPT_NAME = '/app'\nPATH_INFO = '/app/x'\n")),
    ],
)
def test_mount_points_that_stand_once(target: str, answer: Answer) -> None:
    with serving(answer) as url:
        assert codes(url + target) == []


def test_an_answer_that_is_cut() -> None:
    with serving(Answer(200, b"half", Content_Length="8")) as url:
        assert codes(url) == ["answer-cut"]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert codes(f"http://127.0.0.1:{port}/") == ["nobody-listens"]


def test_what_listens_is_no_web_server() -> None:
    with answering(bytes.fromhex("0103000100080000") + bytes(8)) as port:
        assert codes(f"http://127.0.0.1:{port}/", timeout=5) == ["wrong-protocol"]
    with answering(b"") as port:
        assert codes(f"http://127.0.0.1:{port}/", timeout=5) == ["closed-without-answer"]


def test_an_answer_that_does_not_come() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert codes(f"http://127.0.0.1:{port}/", timeout=0.3) == ["no-answer"]


@pytest.mark.parametrize("url", ["http://", "http://localhost:99999/", "http://localhost/ü"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match="URL"):
        examine(url)
