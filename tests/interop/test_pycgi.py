"""A Python CGI script, kept warm behind nginx, which could not run it itself."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_client import HTTPRequest, http_exchange
from tests.interop import servers
from tests.pycgi.scripts import MODES, execute, write

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("cgi") is None, reason="Python has no cgi module since 3.13"
)

SCRIPT = """
import cgi, hashlib, os, sys
form = cgi.FieldStorage()
print("Status: 201 Made")
print("Content-Type: text/plain; charset=utf-8\\n")
for name in ("REQUEST_METHOD", "QUERY_STRING", "CONTENT_LENGTH", "HTTP_X_A", "GATEWAY_INTERFACE"):
    print(name, os.environ.get(name))
for name in sorted(form):
    field = form[name]
    if field.filename:
        print(name, field.filename, hashlib.sha256(field.file.read()).hexdigest())
    else:
        print(name, form.getlist(name))
sys.stdout.flush()
sys.stdout.buffer.write(bytes(range(256)))
"""

CONFIGURATION = """
server {{
    listen 127.0.0.1:{port};
    client_max_body_size 10m;
    location / {{
        include fastcgi_params;
        fastcgi_pass unix:{socket};
    }}
}}
"""


def multipart(content: bytes) -> bytes:
    return (
        b'--B\r\nContent-Disposition: form-data; name="who"\r\n\r\nJos\xc3\xa9\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a b.bin"\r\n\r\n'
        + content
        + b"\r\n--B--\r\n"
    )


@pytest.fixture(params=MODES)
def port(request: pytest.FixtureRequest, tmp_path: Path, short_path: Path) -> Iterator[int]:
    """nginx in front of a daemon that keeps tmp_path/form.py warm."""
    servers.require("nginx")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number: int = sock.getsockname()[1]
    path = write(tmp_path, SCRIPT)
    address = short_path / "sock"
    command = [sys.executable, "-m", "gateways", "serve", f"pycgi+{request.param}:{path}"]
    daemon = servers.Process(
        [*command, "-b", f"fcgi+unix:{address}"],
        short_path / "daemon.log",
        cwd=servers.REPOSITORY,
    )
    configuration = short_path / "site.conf"
    configuration.write_text(CONFIGURATION.format(port=number, socket=address))
    main = servers.nginx_main(short_path, [configuration], user="root")
    try:
        daemon.wait_for([address])
        nginx = servers.Process(
            servers.nginx_command(main), short_path / "output.log", cwd=short_path
        )
        try:
            nginx.wait_for([number])
            yield number
        finally:
            nginx.stop()
    finally:
        daemon.stop()


def test_a_form_behind_nginx_gets_what_running_the_script_gives(port: int, tmp_path: Path) -> None:
    kind = "multipart/form-data; boundary=B"
    for content in (b"", bytes(range(256)) * 10, bytes(5_000_000)):
        body = multipart(content)
        expected, _ = execute(
            tmp_path / "form.py", body, query="a=1&b", CONTENT_TYPE=kind, HTTP_X_A="caf\xe9"
        )
        for sent in (body, [body[:100], body[100:]]):
            headers: list[tuple[str, str | bytes]] = [
                ("Content-Type", kind),
                ("X-A", b"caf\xc3\xa9"),
            ]
            answer = http_exchange(
                "127.0.0.1", port, HTTPRequest("POST", b"/form.py?a=1&b", headers, sent)
            )
            assert answer.status == 201
            assert answer.body == expected.body
            assert answer.header("Content-Type") == "text/plain; charset=utf-8"
