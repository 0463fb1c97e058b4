"""A real lighttpd before each fault: the page it shows, the lines it writes, and what is told of both."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gateways.doctor import loglines
from tests.doctor.conftest import codes
from tests.doctor.test_real_servers import WEB, said, told_of
from tests.doctor.test_sockets import answering, stale
from tests.interop import servers
from tests.server.live import plain, running

pytestmark = pytest.mark.interop

SCRIPTS = {
    "well": (b"#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhi'\n", 0o755, []),
    "mode": (b"#!/bin/sh\n", 0o644, ["lighttpd-exec", "not-executable"]),
    "crlf": (b"#!/bin/sh\r\necho hi\r\n", 0o755, ["lighttpd-exec", "crlf"]),
    "bom": (b"\xef\xbb\xbf#!/bin/sh\necho hi\n", 0o755, ["lighttpd-exec", "bom"]),
    "lost": (b"#!/usr/bin/nothing\n", 0o755, ["lighttpd-exec", "interpreter-missing"]),
    "killed": (b"#!/bin/sh\nkill -SEGV $$\n", 0o755, ["lighttpd-cgi-died"]),
}
"""A CGI script, its mode, and what is told of lighttpd's log about it."""


def configure(folder: Path, port: int, backends: dict[str, str], *rest: str) -> list[str]:
    """Write a lighttpd.conf with a FastCGI backend below each name, and return the command."""
    log = folder / "error.log"
    log.touch()
    log.chmod(0o666)  # lighttpd opens it when it is www-data already
    servers_ = ",\n".join(
        f'"/{name}" => (( {where}, "check-local" => "disable" ))'
        for name, where in backends.items()
    )
    lines = [
        f'server.document-root = "{folder}"',
        f'server.errorlog = "{log}"',
        'server.bind = "127.0.0.1"',
        f"server.port = {port}",
        f'server.username = "{WEB}"',
        f'server.groupname = "{WEB}"',
        'server.modules = ( "mod_fastcgi", "mod_cgi" )',
        f"fastcgi.server = ( {servers_} )",
        'cgi.assign = ( ".cgi" => "", ".php" => "/usr/bin/no-such-php-cgi" )',
        *rest,
    ]
    (folder / "lighttpd.conf").write_text("\n".join(lines) + "\n")
    return [servers.program("lighttpd"), "-D", "-f", f"{folder}/lighttpd.conf"]


@contextlib.contextmanager
def lighttpd(folder: Path, backends: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Its URL and its error log."""
    servers.require("lighttpd")
    port = servers.free_port()
    log = folder / "error.log"
    process = servers.Process(configure(folder, port, backends), log, cwd=folder)
    try:
        process.wait_for([port])
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.stop()


def unix(path: Path) -> str:
    return f'"socket" => "{path}"'


def tcp(port: int) -> str:
    return f'"host" => "127.0.0.1", "port" => {port}'


def told_from(log: Path, start: int, awaited: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What doctor says of that which was added, once the line awaited is there, each code once."""

    def lines() -> list[str]:
        known = map(loglines.find, log.read_text()[start:].splitlines())
        return [each[0].code for each in known if each]

    servers.wait_until(lambda: awaited in lines(), f"{awaited} in {log.read_text()[start:]}")
    return list(dict.fromkeys(told_of(log, start, monkeypatch, timeout=0.2)))


def test_a_healthy_lighttpd_is_met_with_silence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scripts(folder)
    with (
        running(plain, folder / "well.sock", socket_mode=0o666),
        lighttpd(folder, {"app": unix(folder / "well.sock")}) as (url, log),
    ):
        assert codes(f"{url}/app/a", user=WEB) == []
        assert codes(f"{url}/cgi-bin/well.cgi", user=WEB) == []
    assert "server stopped" in log.read_text()
    assert told_of(log, 0, monkeypatch) == []


def test_sockets_that_lighttpd_cannot_reach(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shut").mkdir(mode=0o700)
    places = {
        "none": unix(folder / "none.sock"),
        "dead": unix(stale(folder / "dead.sock")),
        "shut": unix(folder / "shut" / "app.sock"),
        "mode": unix(folder / "mode.sock"),
        "port": tcp(servers.free_port()),
    }
    with (
        running(plain, folder / "shut" / "app.sock", socket_mode=0o666),
        running(plain, folder / "mode.sock", socket_mode=0o600),
        lighttpd(folder, places) as (url, log),
    ):
        for name, expected in {
            "none": ["lighttpd-connect", "socket-missing"],
            "dead": ["lighttpd-connect", "stale-socket"],
            "shut": ["lighttpd-permission", "folder-barred"],
            "mode": ["lighttpd-permission", "socket-barred"],
            "port": ["lighttpd-connect", "nobody-listens"],
        }.items():
            start = log.stat().st_size
            assert codes(f"{url}/{name}") == ["http-503"], name
            told = told_from(log, start, expected[0], monkeypatch)
            assert told == [*expected, "lighttpd-down"], name


def test_a_backlog_that_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "full.sock"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as first,
    ):
        listener.bind(str(path))
        listener.listen(0)
        path.chmod(0o666)
        first.connect(str(path))
        with lighttpd(folder, {"full": unix(path)}) as (url, log):
            start = log.stat().st_size
            assert codes(f"{url}/full") == ["http-500"]
            told = told_from(log, start, "lighttpd-overloaded", monkeypatch)
    assert told == ["lighttpd-overloaded", "lighttpd-eof", "backlog-full", "lighttpd-no-response"]


def test_what_backends_do_to_lighttpd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answering(b"") as ends,
        answering(said(b"Primary script unknown")) as php,
        answering(said(b"the database is gone")) as loud,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        backends = {
            "ends": tcp(ends),
            "php": tcp(php),
            "loud": tcp(loud),
            "slow": f'{tcp(silent.getsockname()[1])}, "read-timeout" => 1',
        }
        with lighttpd(folder, backends) as (url, log):
            for name, status, expected in (
                ("ends", "http-500", {"lighttpd-eof", "lighttpd-no-response"}),
                ("php", "http-404", {"lighttpd-php"}),
                ("loud", "http-404", {"lighttpd-stderr"}),
                ("slow", "http-504", {"lighttpd-timeout"}),
            ):
                start = log.stat().st_size
                assert codes(f"{url}/{name}", timeout=30) == [status], name
                told = told_from(log, start, min(expected), monkeypatch)
                lines = {each for each in told if each.startswith("lighttpd-")}
                assert lines == expected, name


def write_scripts(folder: Path) -> Path:
    where = folder / "cgi-bin"
    where.mkdir()
    where.chmod(0o755)
    for name, (text, mode, _) in SCRIPTS.items():
        path = where / f"{name}.cgi"
        path.write_bytes(text)
        path.chmod(mode)
    return where


def asked_again(url: str, log: Path, start: int) -> bool:
    codes(url)
    return "died with signal" in log.read_text()[start:]


def test_scripts_that_lighttpd_cannot_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = write_scripts(folder)
    (where / "page.php").write_text("<?php phpinfo();")
    with lighttpd(folder, {"unused": unix(folder / "none.sock")}) as (url, log):
        for name, (_, _, expected) in SCRIPTS.items():
            start = log.stat().st_size
            found = codes(f"{url}/cgi-bin/{name}.cgi")
            assert found == (["http-500"] if expected else []), name
            if name == "killed":
                # lighttpd tells of it only where it learns of the death before the end of output.
                servers.wait_until(
                    partial(asked_again, f"{url}/cgi-bin/{name}.cgi", log, start), f"{name} is told"
                )
            if expected:
                assert told_from(log, start, expected[0], monkeypatch) == expected, name
        start = log.stat().st_size
        assert codes(f"{url}/cgi-bin/page.php") == ["http-500"]
        told = told_from(log, start, "lighttpd-cgi-missing", monkeypatch)
        assert told == ["lighttpd-cgi-missing"]


@pytest.mark.parametrize(
    ("name", "text", "where", "expected"),
    [
        ("mended", "#!/bin/sh\r\nexit 0\r\n", "", ["lighttpd-spawn", "crlf"]),
        ("placed", "#!/bin/sh\nsleep 60\n", "no-folder/", ["lighttpd-bind"]),
    ],
)
def test_programs_that_lighttpd_cannot_start(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
    where: str,
    expected: list[str],
) -> None:
    servers.require("lighttpd")
    program = folder / f"{name}.fcgi"
    program.write_text(text)
    program.chmod(0o755)
    folder.chmod(0o777)
    backend = f'"bin-path" => "{program}", "max-procs" => 1, {unix(folder / where / "a.sock")}'
    command = configure(folder, servers.free_port(), {"": backend})
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode != 0
    told = list(dict.fromkeys(told_of(folder / "error.log", 0, monkeypatch)))
    assert [code for code in told if code in expected] == expected
    assert set(told) - {*expected} <= {"lighttpd-spawn", "writable"}
