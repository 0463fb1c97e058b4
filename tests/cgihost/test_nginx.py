"""nginx/cgihost.conf with a real nginx, and scripts behind it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways.cgihost import CGIApplication
from tests.cgihost.calling import PATIENCE, PRINT_ENVIRONMENT, SHELL, eventually, write
from tests.interop import servers
from tests.server import live

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
FILE = servers.REPOSITORY / "nginx" / "cgihost.conf"
SOCKET = "/run/gateways/cgi.sock"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        NGINX is None and not os.environ.get("CI"),
        reason="nginx is not installed; where CI is set that is a failure",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="nginx would be another user than the socket's"),
]


@pytest.fixture
def site(short_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a running nginx, and the folder of scripts behind it."""
    assert NGINX is not None
    scripts = short_path / "cgi-bin"
    scripts.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    text = FILE.read_text()
    assert text.count("127.0.0.1:8088;") == text.count(f"{SOCKET};") == 1
    text = text.replace("127.0.0.1:8088;", f"127.0.0.1:{port};")
    (short_path / "site.conf").write_text(text.replace(f"{SOCKET};", f"{short_path}/cgi.sock;"))
    main = servers.nginx_main(short_path, [short_path / "site.conf"], user="root")
    with live.running(
        CGIApplication(scripts),
        short_path / "cgi.sock",
        script_name="/cgi-bin",
        error_stream="both",
    ):
        nginx = subprocess.Popen(servers.nginx_command(main), cwd=short_path)
        try:
            eventually(lambda: servers.listens(port), "nginx listens")
            yield f"http://127.0.0.1:{port}/cgi-bin", scripts
        finally:
            nginx.terminate()
            nginx.wait(PATIENCE)


def get(url: str, data: bytes | Iterator[bytes] | None = None) -> tuple[int, bytes]:
    # An iterator goes out in chunks.
    request = urllib.request.Request(url, data=data)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_scripts_behind_nginx(site: tuple[str, Path]) -> None:
    url, scripts = site
    write(scripts, "sub/env", PRINT_ENVIRONMENT)
    code, body = get(f"{url}/sub/env/a%20b?x=%20")
    seen = dict(line.split("=", 1) for line in body.decode().splitlines())
    assert code == 200
    assert seen["SCRIPT_NAME"] == "/cgi-bin/sub/env"
    assert seen["PATH_INFO"] == "/a b"
    assert seen["QUERY_STRING"] == "x=%20"
    assert seen["SCRIPT_FILENAME"] == str(scripts / "sub/env")
    assert seen["HTTP_HOST"] == url.split("/")[2]
    assert seen["REMOTE_ADDR"] == "127.0.0.1"

    write(scripts, "there", f"{SHELL}printf 'Location: /cgi-bin/sub/env/x\\n\\n'\n")
    code, body = get(f"{url}/there")
    assert b"PATH_INFO=/x\n" in body


def test_chunked_uploads_have_a_length(site: tuple[str, Path]) -> None:
    url, scripts = site
    head = "printf 'Content-Type: a/b\\n\\n'\n"
    write(scripts, "count", f"{SHELL}{head}echo $CONTENT_LENGTH; wc -c\n")
    assert get(f"{url}/count", iter([b"x" * 50_000] * 20)) == (200, b"1000000\n1000000\n")


def test_faults_are_statuses_and_lines_in_nginxs_log(site: tuple[str, Path]) -> None:
    url, scripts = site
    write(scripts, "fails", f"{SHELL}echo no database >&2\nexit 1\n")
    write(scripts, "text.py", "print('secret')\n", 0o644)
    assert get(f"{url}/fails")[0] == 502
    code, body = get(f"{url}/text.py")
    assert code == 403
    assert b"secret" not in body
    assert get(f"{url}/%2e%2e/%2e%2e/etc/passwd")[0] in (400, 404)
    log = scripts.parent / "error.log"
    eventually(lambda: "fails: no database" in log.read_text(), "nginx has logged it")
    assert "chmod a+x" in log.read_text()
