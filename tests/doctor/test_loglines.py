"""Lines of error logs: as the servers wrote them, and followed to what they name."""

from __future__ import annotations

import io
import re
import socket
from pathlib import Path

import pytest

from gateways.doctor import loglines
from gateways.doctor.loglines import GATEWAYS, TABLE, LogLine
from gateways.errors import ConfigurationError
from tests.doctor.conftest import Script, codes, examine
from tests.doctor.test_sockets import stale
from tests.server.live import plain, raw, running
from tests.test_docs import words_in_the_code

RECORDED = [
    line.partition(" ")[::2]
    for line in (Path(__file__).parent / "recorded.log").read_text().splitlines()
]
"""Unchanged lines of nginx 1.22.1, Apache 2.4.71, mod_fcgid 2.3.9 and lighttpd 1.4.69, each made by its
fault; before them stands what they are."""


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.code)
def test_each_example_is_known_for_what_it_is(kind: LogLine) -> None:
    found = loglines.find(kind.example)
    assert found is not None
    assert found[0].code == kind.code


@pytest.mark.parametrize(("code", "line"), RECORDED, ids=[code for code, _ in RECORDED])
def test_recorded_lines_are_known_for_what_they_are(code: str, line: str) -> None:
    found = loglines.find(line)
    assert (found[0].code if found else "unknown") == code


NOT_MADE = {
    "nginx-host-unreachable": "no address is unreachable on every machine that runs the tests",
    "apache-suexec": "suexec is compiled for one document root, and not installed",
    "apache-proxy-selinux": "a kernel with SELinux is needed",
    "fcgid-slot": "mod_fcgid waits for a slot a minute before it says so",
}
"""What no test and no recorded line was made by, and why: these lines are as people quote them."""


def test_each_line_of_a_web_server_was_made_by_its_fault() -> None:
    live = "".join(
        (Path(__file__).parent / name).read_text()
        for name in ("test_real_servers.py", "test_lighttpd.py")
    )
    recorded = {code for code, _ in RECORDED}
    made = {kind.code for kind in TABLE if kind.code in recorded or f'"{kind.code}"' in live}
    assert {kind.code for kind in TABLE if kind.server != GATEWAYS} - made == NOT_MADE.keys()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Premature end of script headers", "apache-premature"),
        ("malformed header from script", "apache-malformed"),
        ("End of script output before headers", "apache-no-output"),
        ("upstream sent unexpected FastCGI record", "nginx-unexpected-record"),
        (
            "upstream prematurely closed connection while reading response header from upstream",
            "nginx-closed",
        ),
        ("connect() to unix:/run/app.sock failed (13: Permission denied)", "nginx-permission"),
        ("connect() to unix:/a failed (2: No such file or directory)", "nginx-no-socket"),
        ("connect() failed (111: Connection refused)", "nginx-refused"),
        ("connect() to unix:/a failed (11: Resource temporarily unavailable)", "nginx-backlog"),
        ("upstream timed out (110", "nginx-timeout"),
        ("Primary script unknown", "nginx-php"),
        ("File not found.", "nginx-php"),
        ("upstream sent too big header", "nginx-big-header"),
        ("client intended to send too large body", "nginx-big-body"),
        ("Exec format error: exec of", "apache-exec-format"),
        ("(13)Permission denied: exec of", "apache-exec-permission"),
        ("suexec policy violation", "apache-suexec"),
        ("mod_fcgid: read data timeout", "fcgid-timeout"),
        ("mod_fcgid: can't apply process slot", "fcgid-slot"),
        ("AH01075", "apache-AH01075"),
        ("AH01079", "apache-AH01079"),
        ("unexpected end-of-file", "lighttpd-eof"),
        ("all handlers for ... are down", "lighttpd-down"),
        ("backend is overloaded", "lighttpd-overloaded"),
    ],
)
def test_the_words_that_people_search_for_are_enough(words: str, code: str) -> None:
    found = loglines.find(words)
    assert found is not None
    assert found[0].code == code


def test_the_codes_are_all_different() -> None:
    assert len({kind.code for kind in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    "kind", [kind for kind in TABLE if kind.server == GATEWAYS], ids=lambda kind: kind.code
)
def test_our_own_lines_are_those_of_the_code(kind: LogLine) -> None:
    text = words_in_the_code()
    for piece in kind.words.split("…"):
        piece = piece.strip(" :,").replace(": Traceback", "")
        # The program says "has left threads running" of the application, in two pieces.
        assert piece in text or "left threads" in piece, piece


@pytest.mark.parametrize(
    "line",
    [
        '192.0.2.7 - - [21/Nov/2026:19:12:41 +0000] "GET / HTTP/1.1" 200 612 "-" "curl/7.88.1"',
        '2026/11/21 19:12:40 [notice] 978#978: using the "epoll" event method',
        "2026/11/21 19:12:41 [info] 983#983: *1 client 127.0.0.1 closed keepalive connection",
        "[Sat Nov 21 19:13:16 2026] [mpm_prefork:notice] [pid 12:tid 12] AH00163: Apache/2.4.71"
        " configured -- resuming normal operations",
        "2026-11-21 19:20:01: (server.c.1704) server started (lighttpd/1.4.69)",
        "2026-11-21 19:20:01 [4711] INFO serving at fcgi+unix:/run/app.sock",
        "2026-11-21 19:20:01 [4711] INFO worker ready",
        "2026-11-21 19:20:01 [4711] INFO SIGTERM: stopping once running requests are answered",
    ],
)
def test_lines_that_tell_of_no_fault_are_met_with_silence(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{line}\n"))
    report = examine("-")
    assert report.findings == []
    assert report.checked == ["1 lines, 0 of them known"]
    with pytest.raises(ConfigurationError, match="no line of an error log that doctor knows"):
        examine(line)


# What a line names is looked at.


def nginx_line(what: str, upstream: str, request: str = "GET /a HTTP/1.1") -> str:
    return (
        f"2026/11/21 19:12:42 [error] 983#983: *7 {what}, client: 192.0.2.7, server: example.org,"
        f' request: "{request}", upstream: "{upstream}", host: "example.org"'
    )


def connecting(path: Path, why: str) -> str:
    return nginx_line(
        f"connect() to unix:{path} failed ({why}) while connecting to upstream",
        f"fastcgi://unix:{path}:",
    )


def test_the_socket_that_nginx_names_is_looked_at(folder: Path) -> None:
    path = folder / "app.sock"
    line = connecting(path, "2: No such file or directory")
    assert codes(line) == ["nginx-no-socket", "socket-missing"]
    line = connecting(stale(path), "111: Connection refused")
    assert codes(line) == ["nginx-refused", "stale-socket"]
    path.unlink()
    with running(plain, path, socket_mode=0o666):
        report = examine(line)
        assert [each.code for each in report.findings] == ["nginx-refused"]
        assert report.notes == [f"fcgi+unix:{path} answers now"]


def test_every_folder_that_kept_nginx_out_is_named(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir(mode=0o700)
    with running(plain, inner / "app.sock", socket_mode=0o666):
        line = connecting(inner / "app.sock", "13: Permission denied")
        assert codes(line, user="other") == ["nginx-permission", "folder-barred"]
        # What is copied into a search engine is less than the line.
        short = f"connect() to unix:{inner}/app.sock failed (13: Permission denied)"
        assert codes(short, user="other") == ["nginx-permission", "folder-barred"]


def test_the_wrong_protocol_behind_unexpected_bytes(folder: Path) -> None:
    with running(plain, folder / "app.sock", protocol="scgi", tcp=True) as live:
        line = nginx_line(
            "upstream sent unsupported FastCGI protocol version: 83 while reading response header"
            " from upstream",
            f"fastcgi://127.0.0.1:{live.address.port}",
        )
        assert codes(line, timeout=2) == ["nginx-version", "wrong-protocol"]


def test_apache_s_sockets_are_looked_at(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    line = (
        "(111)Connection refused: AH00957: FCGI: attempt to connect to"
        f" 127.0.0.1:{port} (127.0.0.1:{port}) failed"
    )
    assert codes(line) == ["apache-proxy-refused", "nobody-listens"]
    path = folder / "app.sock"
    line = (
        "(2)No such file or directory: AH02454: SCGI: attempt to connect to Unix domain socket"
        f" {path} (localhost:8000) failed"
    )
    assert codes(line) == ["apache-proxy-socket", "socket-missing"]
    with running(plain, path, protocol="scgi"):
        assert codes(line) == ["apache-proxy-socket"]


def test_lighttpd_s_sockets_are_looked_at_in_any_protocol(folder: Path) -> None:
    path = folder / "app.sock"
    line = (
        "2026-11-21 19:20:01: (gw_backend.c.290) establishing connection failed: socket:"
        f" unix:{path}: Connection refused"
    )
    assert codes(line) == ["lighttpd-connect", "socket-missing"]
    with running(plain, path, protocol="scgi"):
        assert codes(line) == ["lighttpd-connect"]


def test_the_script_that_apache_names_is_looked_at(script: Script) -> None:
    path = script("print('x')\n")
    line = f"AH01215: stderr from {path}: (8)Exec format error: exec of '{path}' failed"
    assert codes(line) == ["apache-exec-format", "no-shebang"]
    path = script()
    report = examine(line)
    assert [each.code for each in report.findings] == ["apache-exec-format"]
    assert "no fault from outside" in report.notes[0]


# A line may hold what a visitor wrote.


def test_a_visitor_cannot_name_another_socket(folder: Path) -> None:
    forged = ', referrer: "x", upstream: "fastcgi://127.0.0.1:1"'
    line = nginx_line(
        "upstream prematurely closed connection while reading response header from upstream",
        f"fastcgi://unix:{folder}/app.sock:",
    )
    assert codes(line + forged) == ["nginx-closed"]
    assert codes(line) == ["nginx-closed", "socket-missing"]
    no_upstream = "client intended to send too large body: 9 bytes, client: 192.0.2.7"
    assert codes(no_upstream + forged) == ["nginx-big-body"]
    down = "(gw_backend.c.972) all handlers for /a socket: tcp:127.0.0.1:1 on /a are down."
    assert codes(down) == ["lighttpd-down"]


def test_other_machines_are_not_connected_to() -> None:
    line = nginx_line(
        "connect() failed (111: Connection refused) while connecting to upstream",
        "fastcgi://192.0.2.1:9000",
    )
    report = examine(line, timeout=1)
    assert [each.code for each in report.findings] == ["nginx-refused"]
    assert "gateways doctor fcgi://192.0.2.1:9000 does" in report.notes[0]


def test_a_script_that_a_line_names_is_neither_run_nor_mended_nor_interpreted(
    script: Script, folder: Path
) -> None:
    python = folder / "python3"
    python.write_text(f"#!/bin/sh\ntouch {folder}/ran\n")
    python.chmod(0o755)
    path = script(f"#!{python}\r\ntouch {folder}/ran\r\n", mode=0o644)
    before = path.read_bytes()
    line = f"(13)Permission denied: exec of '{path}' failed"
    report = examine(line, run=True, fix=True)
    assert [each.code for each in report.findings] == [
        "apache-exec-permission",
        "not-executable",
        "crlf",
    ]
    path.chmod(0o755)
    path.write_bytes(before.replace(b"\r", b""))
    examine(line, run=True, fix=True)
    assert not (folder / "ran").exists()


# Whole logs.


def test_a_log_on_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "app.sock"
    lines = [connecting(path, "2: No such file or directory")] * 3
    lines += ["something else", "End of script output before headers: hello.cgi"]
    lines += ["End of script output before headers: other.cgi"] * 2
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    report = examine("-")
    assert [each.code for each in report.findings] == [
        "nginx-no-socket",
        "socket-missing",
        "apache-no-output",
        "apache-no-output",
    ]
    assert report.checked[-1] == "7 lines, 6 of them known"


def test_our_daemon_s_line_about_another_protocol_is_known(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(plain, folder / "app.sock") as live, caplog.at_level("WARNING", "gateways"):
        raw(live.path, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    (told,) = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    found = loglines.find(f"2026-11-21 19:20:01 [4711] WARNING {told}")
    assert found is not None
    assert found[0].code == "gateways-refused"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    line = "malformed header from script 'a.cgi': Bad header: \x1b[2J\x07"
    (finding,) = examine(line).findings
    assert not re.search(r"[\x00-\x1f]", finding.seen)
