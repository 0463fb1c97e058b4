"""Real nginx and Apache before each fault: the page they show, the line they write, and what is told of both.

The loop that a user goes round: the URL says 502 or 500, the error log says a line, the line names a
socket or a script, and there the fault is.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateways.fastcgi import RecordType
from tests.doctor.conftest import examine
from tests.doctor.test_sockets import END, answering, record, stale
from tests.http_client import HTTPRequest, http_exchange
from tests.interop import servers
from tests.server.live import plain, running

pytestmark = pytest.mark.interop

WEB = "www-data"


def told_of(
    log: Path, start: int, monkeypatch: pytest.MonkeyPatch, timeout: float = 2
) -> list[str]:
    """What doctor says about that which was added to a log."""
    monkeypatch.setattr("sys.stdin", io.StringIO(log.read_text()[start:]))
    return [each.code for each in examine("-", user=WEB, timeout=timeout).findings]


@contextmanager
def nginx_before(folder: Path, backends: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Its URL and its error log; in front of a FastCGI backend for each name."""
    servers.require("nginx")
    port = servers.free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind}; "
        for kind in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
    )
    places = "".join(
        f"location /{name} {{ fastcgi_pass {where}; }}\n" for name, where in backends.items()
    )
    (folder / "nginx.conf").write_text(
        f"user {WEB}; daemon off; pid {folder}/pid; error_log {folder}/error.log;"
        f" worker_processes 1; events {{}}\nhttp {{ access_log off; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port}; include /etc/nginx/fastcgi_params;\n{places} }} }}\n"
    )
    command = [servers.program("nginx"), "-p", str(folder), "-c", f"{folder}/nginx.conf"]
    process = servers.Process([*command, "-e", f"{folder}/error.log"], folder / "out", cwd=folder)
    process.wait_for([port])
    try:
        yield f"http://127.0.0.1:{port}", folder / "error.log"
    finally:
        process.stop()


@pytest.fixture
def nginx(folder: Path) -> Iterator[tuple[str, Path]]:
    """Its URL and its error log; in front of a socket for each fault."""
    names = ("well", "none", "dead", "shut/app", "mode", "scgi")
    backends = {name.partition("/")[0]: f"unix:{folder}/{name}.sock" for name in names}
    with nginx_before(folder, backends) as running_nginx:
        yield running_nginx


def test_nginx_and_what_it_writes(
    nginx: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, log = nginx
    (folder / "shut").mkdir(mode=0o700)
    stale(folder / "dead.sock")
    with (
        running(plain, folder / "well.sock", socket_mode=0o666),
        running(plain, folder / "shut" / "app.sock", socket_mode=0o666),
        running(plain, folder / "mode.sock", socket_mode=0o600),
        running(plain, folder / "scgi.sock", protocol="scgi", socket_mode=0o666),
    ):
        report = examine(f"{url}/well")
        assert report.findings == []
        assert told_of(log, 0, monkeypatch) == []
        assert report.checked[-1].startswith("GET /well: 200 from nginx")
        for name, expected in {
            "none": ["nginx-no-socket", "socket-missing"],
            "dead": ["nginx-refused", "stale-socket"],
            "shut": ["nginx-permission", "folder-barred"],
            "mode": ["nginx-permission", "socket-barred"],
            "scgi": ["nginx-version", "wrong-protocol"],
        }.items():
            start = log.stat().st_size
            assert [each.code for each in examine(f"{url}/{name}").findings] == ["http-502"]
            assert told_of(log, start, monkeypatch) == expected, name


@contextmanager
def resetting() -> Iterator[int]:
    """A server that resets each connection as soon as it has been asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def loop() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1)
                        linger = struct.pack("ii", 1, 0)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def said(words: bytes) -> bytes:
    """An answer, and words on FastCGI's error output."""
    head = record(
        RecordType.STDOUT, b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnone"
    )
    return record(RecordType.STDERR, words) + head + END


def test_what_backends_do_to_nginx(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(folder / "full.sock")
    wrapped = said(
        b"Cannot get script name, are DOCUMENT_ROOT and SCRIPT_NAME (or SCRIPT_FILENAME) set"
    )
    with (
        resetting() as resets,
        answering(wrapped) as fcgiwrap,
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as first,
    ):
        listener.bind(path)
        listener.listen(0)
        os.chmod(path, 0o666)
        first.connect(path)
        backends = {
            "full": f"unix:{path}",
            "reset": f"127.0.0.1:{resets}",
            "wrap": f"127.0.0.1:{fcgiwrap}",
        }
        with nginx_before(folder, backends) as (url, log):
            for name, status, expected in (
                ("full", "http-502", "nginx-backlog"),
                ("reset", "http-502", "nginx-reset"),
                ("wrap", "http-404", "nginx-fcgiwrap"),
            ):
                start = log.stat().st_size
                assert [each.code for each in examine(f"{url}/{name}").findings] == [status]
                told = told_of(log, start, monkeypatch, timeout=0.2)
                assert [each for each in told if each.startswith("nginx-")] == [expected], name


SCRIPTS = {
    "well": (b"#!/usr/bin/python3\nprint('Content-Type: text/plain\\n')\n", 0o755, []),
    "mode": (b"#!/bin/sh\n", 0o644, ["apache-exec-permission", "not-executable"]),
    "crlf": (b"#!/bin/sh\r\necho hi\r\n", 0o755, ["apache-exec-missing", "crlf"]),
    "bom": (b"\xef\xbb\xbf#!/bin/sh\necho hi\n", 0o755, ["apache-exec-format", "bom"]),
    "bare": (b"print('x')\n", 0o755, ["apache-exec-format", "no-shebang"]),
    "lost": (b"#!/usr/bin/nothing\n", 0o755, ["apache-exec-missing", "interpreter-missing"]),
    "html": (b"#!/bin/sh\necho '<html>'\n", 0o755, ["apache-malformed"]),
    "half": (b"#!/bin/sh\necho 'Content-Type: text/html'\n", 0o755, ["apache-premature"]),
    "fail": (
        b"#!/usr/bin/python3\nimport no_such_module_here\n",
        0o755,
        ["apache-traceback"],
    ),
}
"""A script, its mode, and what is told of Apache's error log about it, but for "End of script output
before headers", which comes with each that could not be started."""


@pytest.fixture
def apache(folder: Path) -> Iterator[tuple[str, Path]]:
    """Its URL and its error log; in front of a script for each fault."""
    servers.require("apache")
    port = servers.free_port()
    (folder / "cgi-bin").mkdir()
    (folder / "cgi-bin").chmod(0o755)
    for name, (text, mode, _) in SCRIPTS.items():
        path = folder / "cgi-bin" / f"{name}.cgi"
        path.write_bytes(text)
        path.chmod(mode)
    modules = "".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
        for name in ("mpm_prefork", "authz_core", "alias", "cgi")
    )
    (folder / "apache.conf").write_text(
        f"ServerRoot {folder}\nServerName localhost\nListen 127.0.0.1:{port}\nUser {WEB}\n"
        f"Group {WEB}\nPidFile {folder}/pid\nErrorLog {folder}/error.log\n{modules}"
        f"ScriptAlias /cgi-bin/ {folder}/cgi-bin/\nAlias /plain/ {folder}/cgi-bin/\n"
        f"<Directory {folder}>\nRequire all granted\n</Directory>\n"
    )
    command = [servers.program("apache2"), "-f", f"{folder}/apache.conf", "-DFOREGROUND"]
    process = servers.Process(command, folder / "out", cwd=folder)
    process.wait_for([port])
    yield f"http://127.0.0.1:{port}", folder / "error.log"
    process.stop()


def test_apache_and_what_it_writes(
    apache: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, log = apache
    assert examine(f"{url}/cgi-bin/well.cgi").findings == []
    assert told_of(log, 0, monkeypatch) == []
    for name, (_, _, expected) in SCRIPTS.items():
        path = folder / "cgi-bin" / f"{name}.cgi"
        start = log.stat().st_size
        by_url = [each.code for each in examine(f"{url}/cgi-bin/{name}.cgi").findings]
        by_log = [c for c in told_of(log, start, monkeypatch) if c != "apache-no-output"]
        by_script = examine(path, user=WEB, run=True).findings
        assert by_log == expected, name
        assert by_url == (["http-500"] if expected else []), name
        assert bool(by_script) == bool(expected), name
    # Without ScriptAlias the same file is a document, and everybody can read it.
    assert [each.code for each in examine(f"{url}/plain/well.cgi").findings] == ["source-shown"]


def test_a_mended_script_runs_under_apache(apache: tuple[str, Path], folder: Path) -> None:
    url, _ = apache
    path = folder / "cgi-bin" / "crlf.cgi"
    path.write_bytes(b"\xef\xbb\xbf#!/bin/sh\r\nprintf 'Content-Type: text/plain\\n\\nhi'\r\n")
    path.chmod(0o644)
    assert [each.code for each in examine(f"{url}/cgi-bin/crlf.cgi").findings] == ["http-500"]
    assert examine(path, user=WEB, run=True, fix=True).healthy
    assert examine(f"{url}/cgi-bin/crlf.cgi").findings == []
    # The copy that was kept is no way to the source.
    kept = examine(f"{url}/plain/crlf.cgi.orig")
    assert [each.code for each in kept.findings] == ["http-403"]


def test_what_backends_do_to_apache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.require("apache")
    port = servers.free_port()
    modules = "".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
        for name in ("mpm_prefork", "authz_core", "alias", "proxy", "proxy_fcgi", "fcgid")
    )
    program = folder / "app.fcgi"
    program.write_text("#!/bin/sh\nsleep 1\n")
    program.chmod(0o755)
    (folder / "fcgid").mkdir(mode=0o777)
    (folder / "fcgid").chmod(0o777)
    log = folder / "error.log"
    with answering(said(b"the database is gone")) as loud:
        (folder / "apache.conf").write_text(
            f"ServerRoot {folder}\nServerName localhost\nListen 127.0.0.1:{port}\nUser {WEB}\n"
            f"Group {WEB}\nPidFile {folder}/pid\nErrorLog {log}\n{modules}"
            f"FcgidIPCDir {folder}/fcgid\nFcgidProcessTableFile {folder}/fcgid_shm\n"
            f"FcgidMaxRequestLen 100\nAlias /program {program}\n"
            f'ProxyPass /none "unix:{folder}/none.sock|fcgi://none/"\n'
            f"ProxyPass /loud fcgi://127.0.0.1:{loud}/\n"
            f"<Directory {folder}>\nRequire all granted\nOptions +ExecCGI\n"
            "SetHandler fcgid-script\n</Directory>\n"
        )
        command = [servers.program("apache2"), "-f", f"{folder}/apache.conf", "-DFOREGROUND"]
        process = servers.Process(command, folder / "out", cwd=folder)
        try:
            process.wait_for([port])
            for name, body, status, expected in (
                ("none", b"", 503, ["apache-proxy-socket", "socket-missing", "apache-AH01079"]),
                ("loud", b"", 404, ["apache-AH01071"]),
                ("program", bytes(200), 500, ["fcgid-body"]),
            ):
                start = log.stat().st_size
                request = HTTPRequest("POST" if body else "GET", f"/{name}".encode(), body=body)
                answer = http_exchange("127.0.0.1", port, request)
                assert answer.status == status, (name, log.read_text())
                told = told_of(log, start, monkeypatch, timeout=0.2)
                assert list(dict.fromkeys(told)) == expected, name
        finally:
            process.stop()
