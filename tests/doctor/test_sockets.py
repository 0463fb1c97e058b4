"""Addresses: real sockets with each fault, and real servers that are well."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import demo_app

import pytest

from gateways import fastcgi
from gateways.addresses import Address
from gateways.doctor import Report, sockets, wire
from gateways.doctor.access import User
from gateways.doctor.findings import Wishes
from gateways.errors import ConfigurationError
from tests.doctor.conftest import as_owner, codes, examine
from tests.server.live import plain, running

STRANGER = User("www-data", 54321, 54321, frozenset({54321}))

Application = Callable[..., Iterable[bytes]]


@contextmanager
def answering(reply: bytes, *, at: str = "127.0.0.1", greets: bool = False) -> Iterator[int]:
    """A server that answers whatever it is asked with these bytes, and closes."""
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with socket.create_server((at, 0), family=family) as listener:
        stopped = threading.Event()

        def one(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(5)
                try:
                    if not greets:
                        connection.recv(65536)
                    connection.sendall(reply)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass

        def loop() -> None:
            while not stopped.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def record(kind: int, content: bytes, request_id: int = 1) -> bytes:
    return bytes([1, kind, 0, request_id]) + len(content).to_bytes(2, "big") + b"\0\0" + content


END = record(fastcgi.RecordType.END_REQUEST, bytes(8))


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_daemon_that_answers_is_met_with_silence(folder: Path, protocol: str, tcp: bool) -> None:
    with running(plain, folder / "app.sock", protocol=protocol, tcp=tcp, socket_mode=0o666) as live:
        report = examine(live.address, user="other")
        assert report.findings == []
        assert report.notes == []
        assert report.checked[-1].endswith("200")


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_without_a_scheme_any_of_the_protocols_will_do(folder: Path, protocol: str) -> None:
    with running(plain, folder / "app.sock", protocol=protocol) as live:
        assert codes(live.path) == []
    with running(plain, folder / "app.sock", protocol=protocol, tcp=True) as live:
        assert codes(f"127.0.0.1:{live.address.port}") == []


def test_a_target_behind_the_address_is_asked_for(folder: Path) -> None:
    asked: list[str] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        asked.append(environ["PATH_INFO"] + "?" + environ["QUERY_STRING"])
        return plain(environ, start_response)

    with running(application, folder, tcp=True) as live:
        assert codes(f"{live.address}/a/b?c=d") == []
    assert asked == ["/a/b?c=d"]


def test_a_404_is_an_answer(folder: Path) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such page"]

    with running(application, folder / "app.sock") as live:
        assert codes(live.address) == []


# Nobody there.


def test_nobody_listens_at_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (finding,) = examine(f"fcgi://127.0.0.1:{port}").findings
    assert finding.code == "nobody-listens"
    assert str(port) in finding.commands[0]


def test_somebody_listens_at_the_other_loopback_address() -> None:
    try:
        with answering(b"", at="::1") as port:
            (finding,) = examine(f"fcgi://127.0.0.1:{port}").findings
    except OSError:
        pytest.skip("there is no IPv6 here")  # a container may be without
    assert finding.code == "nobody-listens"
    assert f"fcgi://[::1]:{port}" in finding.seen


def test_a_host_that_is_not_known() -> None:
    assert codes("fcgi://no-such-host.invalid:9000") == ["host-unknown"]
    assert codes("fcgi://a..b:9000") == ["host-unknown"]


def test_a_machine_that_does_not_answer() -> None:
    # A full backlog drops what comes, as a firewall does.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        held = []
        for _ in range(4):
            held.append(socket.socket())
            held[-1].setblocking(False)
            held[-1].connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        assert codes(f"fcgi://127.0.0.1:{port}", timeout=0.3) == ["connect-timeout"]
        for each in held:
            each.close()


def test_an_address_that_cannot_be_reached() -> None:
    # Multicast takes no connections, and Linux says so at once.
    assert codes("fcgi://224.0.0.1:9000", timeout=2) == ["unreachable"]


def test_a_descriptor_belongs_to_another_process() -> None:
    with pytest.raises(ConfigurationError, match="descriptor"):
        examine("fcgi+fd:0")


def test_no_socket_file(folder: Path) -> None:
    (folder / "application.sock").touch()
    (finding,) = examine(f"unix:{folder}/aplication.sock").findings
    assert finding.code == "socket-missing"
    assert "application.sock" in finding.seen
    assert codes(folder / "none" / "app.sock") == ["folder-missing"]


def test_a_file_that_is_no_socket(folder: Path) -> None:
    (folder / "app.sock").touch()
    assert codes(f"fcgi+unix:{folder}/app.sock") == ["not-a-socket"]


def stale(path: Path, mode: int = 0o666) -> Path:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen(1)
    path.chmod(mode)
    return path


def test_a_socket_whose_server_is_dead(folder: Path) -> None:
    assert codes(stale(folder / "app.sock")) == ["stale-socket"]


def test_a_socket_whose_backlog_is_full(folder: Path) -> None:
    path = str(folder / "app.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        os.chmod(path, 0o666)
        first.connect(path)
        assert codes(path, timeout=0.3) == ["backlog-full"]


# Permissions.


def look(path: Path, user: User = STRANGER) -> Report:
    report = Report("address", str(path), user)
    sockets.examine(f"fcgi+unix:{path}", Wishes(user, timeout=5), report)
    return report


def test_a_socket_that_the_web_server_may_not_write_to(folder: Path) -> None:
    path = folder / "app.sock"
    with running(plain, path, socket_mode=0o660):
        report = look(path)
        assert [each.code for each in report.findings] == ["socket-barred"]
        assert "--socket-group" in report.findings[0].advice
        path.chmod(0o666)
        assert look(path).findings == []


def test_every_folder_that_bars_the_web_server_is_named(folder: Path) -> None:
    inner = folder / "one" / "two"
    inner.mkdir(parents=True)
    inner.chmod(0o700)
    inner.parent.chmod(0o750)
    path = inner / "app.sock"
    with running(plain, path, socket_mode=0o666):
        report = look(path)
        assert [each.about for each in report.findings] == [str(inner.parent), str(inner)]
        assert {each.code for each in report.findings} == {"folder-barred"}
        for each in report.findings:
            subprocess.run(each.commands[0], shell=True, check=True)
        assert look(path).findings == []


def test_a_socket_that_doctor_itself_may_not_connect_to(folder: Path, powerless: None) -> None:
    inner = folder / "inner"
    with as_owner():
        inner.mkdir()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(inner / "app.sock"))
        listener.listen(1)
        (inner / "app.sock").chmod(0)
    report = Report("address", "", STRANGER)
    sockets.examine(f"fcgi+unix:{inner}/app.sock", Wishes(STRANGER), report)
    assert [each.code for each in report.findings] == ["socket-barred", "not-allowed-here"]
    with as_owner():
        inner.chmod(0)
    assert codes(f"fcgi+unix:{inner}/app.sock") == ["hidden"]
    listener.close()
    with as_owner():
        inner.chmod(0o700)


# The wrong protocol.


def test_a_web_server_at_a_fastcgi_address() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            report = examine(f"fcgi://127.0.0.1:{server.server_port}", timeout=2)
        finally:
            server.shutdown()
            thread.join(5)
    (finding,) = report.findings
    assert finding.code == "wrong-protocol"
    assert "speaks HTTP, not FastCGI" in finding.seen
    assert "proxy_pass" in finding.advice


@pytest.mark.parametrize(
    ("spoken", "asked", "words"),
    [("fcgi", "scgi", "speaks FastCGI, not SCGI"), ("scgi", "fcgi", "speaks SCGI, not FastCGI")],
)
def test_our_daemons_asked_in_the_wrong_protocol(
    folder: Path, spoken: str, asked: str, words: str
) -> None:
    with running(plain, folder / "app.sock", protocol=spoken) as live:
        (finding,) = examine(f"{asked}+unix:{live.path}", timeout=2).findings
        assert finding.code == "wrong-protocol"
        assert words in finding.seen
        assert finding.commands == (f"gateways doctor {spoken}+unix:{live.path}",)
        assert codes(finding.commands[0].split()[-1]) == []


@pytest.mark.parametrize(
    ("reply", "greets", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", True, "speaks SSH"),
        (b"220 mail.example.org ESMTP Postfix\r\n", True, "speaks SMTP"),
        (b"-ERR unknown command\r\n", False, "speaks Redis"),
        (b"J\0\0\0\x0a8.0.36\0" + bytes(60), True, "speaks MySQL"),
        (bytes.fromhex("15030100020246"), False, "speaks TLS"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port",
            False,
            "speaks TLS",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n", False, "speaks HTTP"),
        (b"Status: 200 OK\r\n\r\n", False, "speaks SCGI"),
        (b"AB\0\x01\x09", False, "speaks AJP13"),
    ],
)
def test_what_other_programs_say(reply: bytes, greets: bool, words: str) -> None:
    with answering(reply, greets=greets) as port:
        (finding,) = examine(f"fcgi://127.0.0.1:{port}", timeout=2).findings
    assert finding.code == "wrong-protocol"
    assert words in finding.seen


@pytest.mark.skipif(shutil.which("openssl") is None, reason="it makes the certificate")
def test_a_server_of_tls(folder: Path) -> None:
    import ssl

    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-keyout", folder / "key", "-out", folder / "cert", "-days", "1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.settimeout(2)
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    connection.close()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        (finding,) = examine(f"fcgi://127.0.0.1:{port}", timeout=2).findings
        over_http = codes(f"https://localhost:{port}/", timeout=2)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert finding.code == "wrong-protocol"
    assert "speaks TLS" in finding.seen
    assert over_http == ["certificate"]


@pytest.mark.parametrize("scheme", ["uwsgi", "ajp", "http+unix"])
def test_protocols_that_the_client_does_not_speak(folder: Path, scheme: str) -> None:
    right = {"uwsgi": b"HTTP/1.1 200 OK\r\n\r\n", "ajp": b"AB\0\x01\x09"}
    if scheme in right:
        with answering(right[scheme]) as port:
            assert codes(f"{scheme}://127.0.0.1:{port}") == []
        with answering(b"Status: 200 OK\r\n\r\n") as port:
            assert codes(f"{scheme}://127.0.0.1:{port}") == ["wrong-protocol"]
        with answering(b"\xff\xfe") as port:
            assert codes(f"{scheme}://127.0.0.1:{port}", timeout=5) == ["broken-answer"]
        return
    with running(plain, folder / "app.sock") as live:
        (finding,) = examine(f"http+unix:{live.path}", timeout=5).findings
        assert finding.code == "wrong-protocol"
        assert "speaks FastCGI, not HTTP" in finding.seen


def test_an_http_server_on_a_unix_socket(folder: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.end_headers()

    path = str(folder / "http.sock")
    with socketserver.UnixStreamServer(path, Handler) as server:
        os.chmod(path, 0o666)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            assert codes(f"http+unix:{path}") == []
            report = examine(path)
        finally:
            server.shutdown()
            thread.join(5)
    assert report.findings == []
    assert report.notes == [f"what listens there speaks HTTP: http+unix:{path}"]


def test_a_web_server_that_fails() -> None:
    with answering(b"HTTP/1.1 500 Internal Server Error\r\n\r\n") as port:
        report = Report("address", "", STRANGER)
        where = Address("http", "tcp", host="127.0.0.1", port=port)
        sockets.check(where, "/", Wishes(STRANGER, timeout=2), report)
    assert [each.code for each in report.findings] == ["answer-5xx"]


def test_an_http_server_answers_the_uwsgi_packet_with_a_complaint() -> None:
    assert wire.identify(b"HTTP/1.1 400 Bad Request\r\n", wire.UWSGI) == wire.HTTP


# What is answered.


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (b"", "closed-without-answer", "closed before an answer"),
        (b"\x01\x06", "closed-without-answer", "closed before an answer"),
        (record(6, b"hello there\n\n") + END, "broken-answer", "no header"),
        (record(7, b"Traceback\nValueError: no\n") + END, "broken-answer", "ValueError: no"),
        (record(3, bytes([0, 0, 0, 0, 2, 0, 0, 0])), "refused", "FCGI_OVERLOADED"),
        (
            record(6, b"Status: 200 OK\n\nhalf") + record(3, bytes([0, 0, 0, 1, 0, 0, 0, 0])),
            "exit-status",
            "exit status 1",
        ),
        (
            record(7, b"Primary script unknown")
            + record(6, b"Status: 404 Not Found\nContent-type: text/html\n\nFile not found.\n")
            + END,
            "php-script-unknown",
            "Primary script unknown",
        ),
        (
            record(7, b"Cannot get script name, are DOCUMENT_ROOT and SCRIPT_NAME set\n")
            + record(6, b"Status: 403 Forbidden\nContent-type: text/plain\n\n403")
            + END,
            "fcgiwrap-script",
            "Cannot get script name",
        ),
        (record(6, b"Status: 503 Busy\n\n") + END, "answer-5xx", "503"),
    ],
)
def test_answers_that_are_none(reply: bytes, code: str, words: str) -> None:
    with answering(reply) as port:
        (finding,) = examine(f"fcgi://127.0.0.1:{port}", timeout=5).findings
    assert finding.code == code
    assert words in finding.seen


def test_an_application_that_fails(folder: Path) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise ValueError("no")

    with running(application, folder / "app.sock") as live:
        assert codes(live.address) == ["answer-5xx"]


def test_an_application_that_does_not_answer(folder: Path) -> None:
    over = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        over.wait(10)
        return plain(environ, start_response)

    with running(application, folder / "app.sock", threads=1) as live:
        try:
            assert codes(live.address, timeout=0.3) == ["no-answer"]
        finally:
            over.set()


def test_an_event_stream_without_an_end_is_an_answer(folder: Path) -> None:
    over = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        while not over.wait(0.05):
            yield b"data: x\n\n"

    with running(application, folder / "app.sock") as live:
        try:
            assert codes(live.address, timeout=0.5) == []
        finally:
            over.set()


# SCRIPT_NAME twice.


def redirecting(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """An application that knows its place, and is told it twice where the web server is wrong."""
    where = environ["SCRIPT_NAME"] + environ["PATH_INFO"] + "login"
    start_response("302 Found", [("Location", where), ("Content-Type", "text/plain")])
    return [b""]


def linking(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    where = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/html")])
    return [f'<a href="{where}next">next</a>'.encode()]


@pytest.mark.parametrize("application", [redirecting, linking, demo_app])
def test_a_mount_point_that_stands_twice(folder: Path, application: Application) -> None:
    def doubled(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["PATH_INFO"] = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
        return application(environ, start_response)

    with running(application, folder / "app.sock") as live:
        assert codes(live.address, script_name="/app") == []
    with running(doubled, folder / "app.sock") as live:
        (finding,) = examine(live.address, script_name="/app").findings
        assert finding.code == "doubled-script-name"
        assert "--script-name /app" in finding.advice
