"""Holes that were found in others, tried on gateways where a user would notice: through a socket.

Each test is named after the entry it comes from; the docstring says what was wrong elsewhere.  An
entry's own module tests go further into detail.  tests/holes.py is the table of all entries, those
included that concern parts which are not there yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import resource
import socket
import subprocess
import sys
import threading
import wsgiref.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateways import client
from gateways.errors import LocalProtocolError, RemoteProtocolError, RequestAborted
from tests.doors import ROOT, LiveServer, free_port
from tests.peers import wire
from tests.peers.application import STATE
from tests.peers.wire import (
    KEEP,
    Answer,
    ask,
    begin,
    descriptors,
    fastcgi,
    fastcgi_answer,
    gateway,
    head,
    is_closed,
    record,
    records,
    request,
    resident_kilobytes,
    scgi_headers,
    send,
    stdin,
    threads,
    until,
    workers_of,
)

MEGABYTE = 1024  # in the unit of resident_kilobytes


@pytest.fixture(scope="module")
def fcgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with gateway(tmp_path_factory.mktemp("fcgi"), threads=4, head_timeout=30) as server:
        yield server


@pytest.fixture(scope="module")
def scgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with gateway(tmp_path_factory.mktemp("scgi"), protocol="scgi", threads=4) as server:
        yield server


@pytest.fixture(params=["fcgi", "scgi"])
def server(request: pytest.FixtureRequest) -> LiveServer:
    """Each protocol in turn."""
    server: LiveServer = request.getfixturevalue(request.param)
    return server


def run_cgi(folder: Path, values: dict[str, str | bytes], body: bytes = b"") -> Answer:
    """Answer one request as a CGI program; its exit status is 0."""
    variables = {**wire.VARIABLES, "GATEWAY_INTERFACE": "CGI/1.1", **values}
    environment = {name.encode(): wire.as_bytes(value) for name, value in variables.items()}
    environment |= {b"PATH": os.environb[b"PATH"], STATE.encode(): bytes(folder)}
    command = [sys.executable, "-m", "tests.peers.application", "cgi", "{}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=body, stdout=subprocess.PIPE, timeout=30
    )
    assert done.returncode == 0
    return Answer(done.stdout)


def leaves_no_trace(server: LiveServer, attack: Callable[[], None]) -> None:
    """Check that after an attack the server answers, with the descriptors and threads it had."""
    request(server)
    pid = server.process.pid
    # A thread that waits for a body makes itself one descriptor, once.
    most = descriptors(pid) + threads(pid)
    running = threads(pid)
    attack()
    assert request(server).status == 200
    until(lambda: descriptors(pid) <= most, lambda: (descriptors(pid), most, server.log_text()))
    assert threads(pid) == running


# What a request may set.


def test_httpoxy_a_proxy_header_does_not_become_http_proxy(server: LiveServer) -> None:
    """CVE-2016-5385 to 5388, CVE-2016-1000109, CVE-2016-1000110: it named the proxy of HTTP libraries."""
    told = request(server, {"HTTP_PROXY": "http://evil.example:8080", "HTTP_OTHER": "1"}).told
    assert "HTTP_PROXY" not in told
    assert told["HTTP_OTHER"] == "1"
    assert "HTTP_PROXY" not in told["own"]


def test_httpoxy_a_proxy_header_does_not_become_http_proxy_over_cgi(tmp_path: Path) -> None:
    """CVE-2016-5385 and its kin, where they were worst."""
    told = run_cgi(tmp_path, {"HTTP_PROXY": "http://evil.example:8080", "HTTP_OTHER": "1"}).told
    assert "HTTP_PROXY" not in told
    assert told["HTTP_OTHER"] == "1"


def test_httpoxy_a_proxy_header_is_not_left_in_the_environment_of_a_cgi_program(
    tmp_path: Path,
) -> None:
    """CVE-2016-5385 and its kin: the variable is read there by whatever the application calls."""
    assert "HTTP_PROXY" not in run_cgi(tmp_path, {"HTTP_PROXY": "http://evil.example"}).told["own"]


def test_cve_2011_2766_nothing_of_a_request_is_seen_by_the_next(fcgi: LiveServer) -> None:
    """Perl's FCGI left variables of the request before in the environment."""
    with fcgi.connect() as sock:
        first = {"REMOTE_USER": "root", "HTTP_SECRET": "1", "HTTPS": "on"}
        sock.sendall(fastcgi(first, flags=KEEP))
        assert fastcgi_answer(sock).told["REMOTE_USER"] == "root"
        sock.sendall(fastcgi(flags=KEEP))
        second = fastcgi_answer(sock).told
    assert not second.keys() & first.keys()
    assert second["wsgi.url_scheme"] == "http"
    assert second["own"] == []


def test_cve_2024_8927_no_header_makes_a_variable_that_servers_are_trusted_for(
    server: LiveServer,
) -> None:
    """PHP took a client's HTTP_REDIRECT_STATUS for the web server's REDIRECT_STATUS."""
    forged = {
        "Redirect-Status": "200",
        "Remote-User": "root",
        "Script-Filename": "/etc/passwd",
        "Script-Name": "/elsewhere",
        "Https": "on",
        "Auth-Type": "Basic",
    }
    told = json.loads(client.request(server.address, headers=list(forged.items())).read())
    names = {name.upper().replace("-", "_") for name in forged}
    assert {f"HTTP_{name}" for name in names} <= told.keys()
    assert told.keys() & names == {"SCRIPT_NAME"}
    assert told["SCRIPT_NAME"] == ""
    assert told["wsgi.url_scheme"] == "http"


def test_go_2026_5346_a_forged_header_cannot_stand_alone_for_the_trusted_one(
    server: LiveServer,
) -> None:
    """GO-2026-5346, CVE-2015-0219, CVE-2026-3902, GHSA-9hf4-67fc-4vf4, gunicorn 2799: a client's
    X_Auth_User won over the proxy's X-Auth-User, for both are HTTP_X_AUTH_USER.  The web server
    has the choice of dropping one; here both are seen, so that no comparison takes either's word."""
    forged, trusted = wire.pair(b"HTTP_X_AUTH_USER", b"forged"), {"HTTP_X_AUTH_USER": "trusted"}
    if server.protocol == "FastCGI":
        content = wire.pairs({**wire.VARIABLES, **trusted}) + forged
        params = record(wire.PARAMS, content) + record(wire.PARAMS)
        answer = ask(server, begin() + params + record(wire.STDIN))
    else:
        headers = scgi_headers({"CONTENT_LENGTH": "0", "SCGI": "1", **wire.VARIABLES, **trusted})
        answer = ask(server, wire.netstring(headers + b"HTTP_X_AUTH_USER\0forged\0"))
    assert answer.told["HTTP_X_AUTH_USER"] == "trusted, forged"


# Paths.

PATHS = {
    "empty": ("/index.php", b""),
    "longer than the script's": ("/i", b"/" + b"x" * 3000),
    "a line end": ("/index.php", b"/a\nb"),
    "a line end first": ("/index.php", b"/\n"),
    "every byte": ("", b"/" + bytes(range(1, 256))),
}


@pytest.mark.parametrize(("script", "info"), PATHS.values(), ids=PATHS)
def test_cve_2019_11043_an_odd_path_arrives_as_it_was_sent(
    server: LiveServer, script: str, info: bytes
) -> None:
    """PHP-FPM took a newline in the path for an empty PATH_INFO, and ran off its front."""
    told = request(server, {"SCRIPT_NAME": script, "PATH_INFO": info}).told
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == (script, info.decode("latin-1"))


def test_cve_2018_6758_a_very_long_path_arrives(server: LiveServer) -> None:
    """uWSGI expanded it on its stack."""
    path = "/" + "x" * 60000
    told = request(server, {"PATH_INFO": path, "REQUEST_URI": path}).told
    assert told["PATH_INFO"] == path


def test_cve_2024_38473_an_encoded_path_is_decoded_once(server: LiveServer) -> None:
    """Apache and its backend had different ideas of what %2f and %3f mean."""
    target = "/a%2fb%3fc%252fd?q=%2f"
    told = json.loads(client.request(server.address, target).read())
    assert told["PATH_INFO"] == "/a/b?c%2fd"
    assert told["REQUEST_URI"] == target
    assert told["QUERY_STRING"] == "q=%2f"


def test_cve_2024_38473_an_encoded_path_is_decoded_once_where_the_server_sends_none(
    server: LiveServer,
) -> None:
    """The same for a bare nginx, which leaves the decoding to the gateway."""
    sent = {"SCRIPT_NAME": "/a%2fb%00%252f", "REQUEST_URI": "/a%2fb%00%252f?q=%3f"}
    values = {**wire.VARIABLES, **sent}
    del values["PATH_INFO"], values["SCRIPT_NAME"], values["QUERY_STRING"]
    if server.protocol == "FastCGI":
        params = record(wire.PARAMS, wire.pairs(values)) + record(wire.PARAMS)
        told = ask(server, begin() + params + record(wire.STDIN)).told
    else:
        headers = scgi_headers({"CONTENT_LENGTH": "0", "SCGI": "1", **values})
        told = ask(server, wire.netstring(headers)).told
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("", "/a/b\0%2f")
    assert told["QUERY_STRING"] == "q=%3f"


def test_cve_2024_38473_nul_in_a_path_passes_or_is_refused_but_cuts_nothing(
    fcgi: LiveServer, scgi: LiveServer
) -> None:
    """What a FastCGI server sends arrives; our own client sends NUL to nobody.

    SCGI could not carry it: there NUL ends a string, so that what follows would be another name.
    """
    values = {**wire.VARIABLES, "PATH_INFO": "/a\0b"}
    params = record(wire.PARAMS, wire.pairs(values)) + record(wire.PARAMS)
    assert ask(fcgi, begin() + params + record(wire.STDIN)).told["PATH_INFO"] == "/a\0b"
    for server in (fcgi, scgi):
        with pytest.raises(LocalProtocolError):
            client.request(server.address, "/a%00b")


@pytest.mark.parametrize(
    ("mount", "path", "split"),
    [
        ("/straße", "/STRASSE/x", ("", "/STRASSE/x")),
        ("/app", "/APP/x", ("", "/APP/x")),
        ("/i̇", "/İ/x", ("", "/İ/x")),
        ("/İ", "/İ/x", ("/İ", "/x")),
    ],
)
def test_go_2026_5492_a_path_is_split_by_its_bytes(
    tmp_path: Path, mount: str, path: str, split: tuple[str, str]
) -> None:
    """GO-2026-5492, GO-2026-4639, CVE-2026-30851: Caddy split where the case-folded path, whose length differs, said."""
    with gateway(tmp_path, script_name=mount) as server:
        told = request(server, {"PATH_INFO": path.encode(), "REQUEST_URI": path.encode()}).told
    got = (told["SCRIPT_NAME"], told["PATH_INFO"])
    assert got == tuple(part.encode().decode("latin-1") for part in split)


def test_a_decoded_path_is_encoded_again_when_it_is_forwarded(server: LiveServer) -> None:
    """Perl's Reverse::Proxy (2026, no id) put a decoded PATH_INFO into a request line."""
    environ: dict[str, Any] = {"PATH_INFO": "/a\r\nX-Forged: 1\r\n b?c%d"}
    wsgiref.util.setup_testing_defaults(environ)
    body = client.ProxyApplication(server.address)(environ, lambda *_: lambda data: None)
    told = json.loads(b"".join(body))
    assert told["PATH_INFO"] == environ["PATH_INFO"]
    assert told["REQUEST_URI"] == "/a%0D%0AX-Forged:%201%0D%0A%20b%3Fc%25d"


# Lengths.


@pytest.mark.parametrize(
    ("name_length", "value_length"),
    [(0x7FFFFFFF, 0x7FFFFFFF), (1, 0x7FFFFFFF), (0x7FFFFFFF, 1), (0x7FFFFFFF, 0)],
)
def test_cve_2025_23016_lengths_that_overflow_are_refused_and_allocate_nothing(
    fcgi: LiveServer, name_length: int, value_length: int
) -> None:
    """CVE-2025-23016 and CVE-2025-40907: libfcgi added the two in 32 bits."""
    request(fcgi)
    before, ran = resident_kilobytes(fcgi.process.pid), records(fcgi)
    lengths = (name_length | 0x80000000).to_bytes(4, "big") + wire.length(value_length)
    with fcgi.connect() as sock:
        # The stream has not ended, but the answer is here: nobody waits for those bytes.
        sock.sendall(begin() + record(wire.PARAMS, lengths + b"N"))
        assert fastcgi_answer(sock).status == 431
    assert resident_kilobytes(fcgi.process.pid) - before < 20 * MEGABYTE
    assert records(fcgi) == ran


def test_cve_2026_55203_the_longest_content_with_any_padding_keeps_its_frame(
    fcgi: LiveServer,
) -> None:
    """HAProxy added the two in 16 bits."""
    pieces = [bytes([padding]) * 65535 for padding in range(256)]
    size = 65535 * 256
    digest = hashlib.sha256(b"".join(pieces)).hexdigest()
    with fcgi.connect() as sock:
        sock.sendall(head({"PROBE": "read", "CONTENT_LENGTH": str(size)}, flags=KEEP))
        for padding, piece in enumerate(pieces):
            sock.sendall(record(wire.STDIN, piece, padding=padding))
        sock.sendall(record(wire.STDIN))
        assert fastcgi_answer(sock).told["digest"] == digest
        # The padding of a record that is full of variables, too.
        pair = wire.pair(b"HTTP_LONG", b"x" * (65535 - 14))
        rest = record(wire.PARAMS, wire.pairs(wire.VARIABLES)) + record(wire.PARAMS)
        sock.sendall(begin() + record(wire.PARAMS, pair, padding=255) + rest + record(wire.STDIN))
        assert len(fastcgi_answer(sock).told["HTTP_LONG"]) == 65535 - 14


def test_cve_2026_55203_the_longest_answer_with_any_padding_keeps_its_frame(
    short_path: Path,
) -> None:
    """The same in the other direction."""
    pieces = [bytes([padding]) * 65535 for padding in range(256)]
    sent = [record(wire.STDOUT, b"Status: 200 OK\r\n\r\n")]
    sent += [record(wire.STDOUT, piece, padding=at) for at, piece in enumerate(pieces)]
    with backend(short_path, "fcgi", [[*sent, END]]) as address:
        assert client.request(address).read() == b"".join(pieces)


@pytest.mark.parametrize("size", [65527, 65528, 65529, 65535, 65536, 65537, 131070, 131072])
def test_haproxy_65544_no_record_claims_less_than_it_holds(fcgi: LiveServer, size: int) -> None:
    """HAProxy (no id) cut the length of a record at 16 bits when its buffer was larger."""
    with fcgi.connect() as sock:
        values = {"PROBE": "bytes", "PROBE_ARGUMENT": str(size)}
        for _ in range(2):
            sock.sendall(fastcgi(values, flags=KEEP))
            assert fastcgi_answer(sock).body == bytes(size)
    body = bytes(size)
    sent = client.request(fcgi.address, method="POST", body=body, extra={"PROBE": "read"})
    assert json.loads(sent.read())["length"] == size


SPELLINGS = [
    b"+10",
    b"1_0",
    b" 10",
    b"10 ",
    "٣".encode(),
    b"0x5",
    b"1e1",
    b"-2",
    b"1" * 19,
    b"\xb2",
]


@pytest.mark.parametrize("length", SPELLINGS)
def test_cve_2022_24761_a_length_is_ascii_digits(server: LiveServer, length: bytes) -> None:
    """CVE-2022-24761, CVE-2019-16785, CVE-2019-16789: waitress asked int(), which takes more than
    the server in front does, so that the two saw different requests."""
    ran = records(server)
    values: dict[str, str | bytes] = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": length}
    assert request(server, values, b"0123456789").status in (400, 413)
    assert records(server) == ran


@pytest.mark.parametrize("length", [b"-1", *SPELLINGS])
def test_cve_2022_24761_a_length_is_ascii_digits_over_cgi(tmp_path: Path, length: bytes) -> None:
    """The same for a CGI program."""
    answer = run_cgi(tmp_path, {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": length}, b"0123456789")
    assert answer.status in (400, 413)
    assert not (tmp_path / "records").exists()


def test_cve_2022_24761_minus_one_is_a_length_only_where_the_body_has_an_end_of_its_own(
    fcgi: LiveServer, scgi: LiveServer
) -> None:
    """caddy sends it over FastCGI for a chunked upload."""
    values = {"PROBE": "read", "CONTENT_LENGTH": "-1"}
    assert request(fcgi, values, b"0123456789").told["length"] == 10
    assert request(scgi, values, b"0123456789").status == 400


def test_two_different_lengths_are_refused(server: LiveServer) -> None:
    """CVE-2019-16785 and its kin: which of the two counts is what smuggling lives on."""
    ran = records(server)
    if server.protocol == "FastCGI":
        content = wire.pairs({**wire.VARIABLES, "CONTENT_LENGTH": "1"})
        content += wire.pair(b"CONTENT_LENGTH", b"10")
        params = record(wire.PARAMS, content) + record(wire.PARAMS)
        answer = ask(server, begin() + params + stdin(b"0123456789") + record(wire.STDIN))
    else:
        headers = scgi_headers({"CONTENT_LENGTH": "1", "SCGI": "1", **wire.VARIABLES})
        answer = ask(server, wire.netstring(headers + b"CONTENT_LENGTH\x0010\0") + b"0123456789")
    assert answer.status == 400
    assert records(server) == ran


@pytest.mark.parametrize("length", [65535, 65536, 131072 - 400])
def test_cve_2007_4727_a_long_header_arrives_whole(server: LiveServer, length: int) -> None:
    """lighttpd's mod_fastcgi ran over its buffer and dropped or overwrote variables."""
    told = request(server, {"HTTP_LONG": "x" * length, "HTTP_AFTER": "here"}).told
    assert len(told["HTTP_LONG"]) == length
    assert told["HTTP_AFTER"] == "here"


@pytest.mark.parametrize("length", [131072 + 1, 1_000_000])
def test_cve_2007_4727_a_header_beyond_the_limit_is_answered_with_431(
    server: LiveServer, length: int
) -> None:
    """The same, past the bound that is documented."""
    ran = records(server)
    assert request(server, {"HTTP_LONG": "x" * length}).status == 431
    assert records(server) == ran


def test_gh_119452_a_huge_content_length_allocates_nothing(server: LiveServer) -> None:
    """http.server asked for the whole body in one allocation."""
    request(server)
    before = resident_kilobytes(server.process.pid)
    values = {"PROBE": "read", "CONTENT_LENGTH": str(10**12)}
    made = head(values) + stdin(bytes(100_000))
    if server.protocol == "SCGI":
        made = wire.scgi(values) + bytes(100_000)
    for _ in range(5):
        with server.connect() as sock:
            sock.sendall(made)
            sock.shutdown(socket.SHUT_WR)
            assert is_closed(sock)
    assert resident_kilobytes(server.process.pid) - before < 30 * MEGABYTE
    assert request(server).status == 200


# Answers.

SMUGGLED = {
    "CRLF in a value": ("200 OK", "X-One", "1\r\nX-Smuggled: 2"),
    "LF in a value": ("200 OK", "X-One", "1\nX-Smuggled: 2"),
    "CR in a value": ("200 OK", "X-One", "1\rX-Smuggled: 2"),
    "NUL in a value": ("200 OK", "X-One", "1\0X-Smuggled: 2"),
    "a line end at the end": ("200 OK", "X-One", "1\r\n"),
    "a body in a value": ("200 OK", "X-One", "1\r\n\r\nX-Smuggled"),
    "CRLF in a name": ("200 OK", "X-One\r\nX-Smuggled", "1"),
    "CR in a name": ("200 OK", "X-One\rX-Smuggled", "1"),
    "NUL in a name": ("200 OK", "X-Smuggled\0", "1"),
    "a colon in a name": ("200 OK", "X-Smuggled: 1, X", "1"),
    "CRLF in the status": ("200 OK\r\nX-Smuggled: 1", "X-One", "1"),
    "LF in the status": ("200 OK\nX-Smuggled: 1", "X-One", "1"),
    "CR in the status": ("200 OK\rX-Smuggled: 1", "X-One", "1"),
    "NUL in the status": ("200 OK\0X-Smuggled: 1", "X-One", "1"),
}


@pytest.fixture(scope="module", params=["fcgi", "fcgi -O", "scgi -O"])
def optimized(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """A server as usual, and under `python -O`, which takes every assert away."""
    protocol, _, flag = request.param.partition(" ")
    folder = tmp_path_factory.mktemp("optimized")
    with gateway(folder, protocol=protocol, python=(flag,) if flag else ()) as server:
        yield server


@pytest.mark.parametrize(("status", "name", "value"), SMUGGLED.values(), ids=SMUGGLED)
def test_cve_2023_27522_a_control_character_in_the_head_is_a_500_and_a_line_in_the_log(
    optimized: LiveServer, status: str, name: str, value: str
) -> None:
    """CVE-2023-27522, CVE-2024-24795, CVE-2023-38709, CVE-2022-37436: answers were split or cut.
    CVE-2026-0865, gh-144370, gh-150726: wsgiref let them pass, and under -O all of them."""
    lines = optimized.log_text().count("error ")
    argument = json.dumps([status, [[name, value]]])
    answer = request(optimized, {"PROBE": "head", "PROBE_ARGUMENT": argument})
    assert answer.status == 500
    assert b"X-Smuggled" not in answer.output
    until(lambda: optimized.log_text().count("error ") == lines + 1)


MALFORMED = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "no header": b"Traceback (most recent call last):\n\n",
    "a status of letters": b"Status: abc\r\n\r\nbody",
    "a status of two digits": b"Status: 20\r\n\r\nbody",
    "a status of five digits": b"Status: 20000\r\n\r\nbody",
    "a negative status": b"Status: -200 OK\r\n\r\nbody",
    "two statuses": b"Status: 200 OK\r\nStatus: 404 Not Found\r\n\r\nbody",
    "an interim answer": b"Status: 100 Continue\r\n\r\nStatus: 200 OK\r\n\r\n",
    "a bad HTTP version": b"HTTP/x.y 200 OK\r\n\r\nbody",
    "a status line alone": b"HTTP/1.1\r\n\r\nbody",
    "a bare CR": b"Status: 200 OK\r\nX-One: 1\rX-Two: 2\r\n\r\nbody",
    "NUL in a value": b"Status: 200 OK\r\nX-One: 1\0\r\n\r\nbody",
    "NUL in a name": b"Status: 200 OK\r\nX-O\0ne: 1\r\n\r\nbody",
    "a space before the colon": b"Status: 200 OK\r\nX-One : 1\r\n\r\nbody",
    "a continuation": b"Status: 200 OK\r\nX-One: 1\r\n two\r\n\r\nbody",
    "no colon": b"Status: 200 OK\r\nX-One\r\n\r\nbody",
    "no name": b"Status: 200 OK\r\n: 1\r\n\r\nbody",
    "no end": b"Status: 200 OK\r\nX-One: 1\r\n",
    "no end of a line": b"Status: 200 OK",
    "65 KiB": b"X-Long: " + b"x" * 65 * 1024 + b"\r\n\r\n",
    "many headers": b"X-Many: 1\r\n" * 10000 + b"\r\n",
}

END = wire.record(wire.END, bytes(8))


@contextmanager
def backend(folder: Path, protocol: str, scripts: Iterable[Iterable[bytes]]) -> Iterator[str]:
    """A backend that reads a request and then sends the pieces of a script, one script a connection."""
    path = str(folder / "backend.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        read = _read_fastcgi if protocol == "fcgi" else _read_scgi
        thread = threading.Thread(target=_play, args=(listener, list(scripts), read))
        thread.start()
        try:
            yield f"{protocol}+unix:{path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def _play(
    listener: socket.socket,
    scripts: list[Iterable[bytes]],
    read: Callable[[socket.socket], None],
) -> None:
    for script in scripts:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # the test is over before all were asked for
        with sock, contextlib.suppress(BrokenPipeError, ConnectionResetError, wire.Closed):
            read(sock)
            for piece in script:
                sock.sendall(piece)


def _read_fastcgi(sock: socket.socket) -> None:
    while wire.receive_record(sock)[::2] != (wire.STDIN, b""):
        pass


def _read_scgi(sock: socket.socket) -> None:
    digits = b""
    while not digits.endswith(b":"):
        digits += wire.receive_exactly(sock, 1)
    wire.receive_exactly(sock, int(digits[:-1]) + 1)


def framed(protocol: str, *pieces: bytes) -> list[bytes]:
    """What a backend sends so that its output arrives in these pieces."""
    if protocol == "scgi":
        return list(pieces)
    cut = [piece[at : at + 65535] for piece in pieces for at in range(0, len(piece), 65535)]
    return [*(record(wire.STDOUT, piece) for piece in cut), record(wire.STDOUT), END]


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_cve_2026_42946_a_malformed_answer_is_an_error_and_never_an_answer(
    short_path: Path, protocol: str
) -> None:
    """nginx read past the end of malformed answers from SCGI and uwsgi backends."""
    scripts = [framed(protocol, output) for output in MALFORMED.values()]
    with backend(short_path, protocol, scripts) as address:
        for name in MALFORMED:
            with pytest.raises((RemoteProtocolError, RequestAborted)):
                pytest.fail(f"{name}: {client.request(address, timeout=10).status}")


HEAD = b"Status: 404 Not Found\r\nX-One: 1\nX-Two:2\r\n\r\n"


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_cve_2014_3583_a_head_may_be_split_at_every_byte(short_path: Path, protocol: str) -> None:
    """Apache's mod_proxy_fcgi looked for the end of the head beyond the bytes it had."""
    cuts = range(1, len(HEAD) + 4)
    whole = HEAD + b"body"
    scripts = [framed(protocol, whole[:cut], whole[cut:]) for cut in cuts]
    scripts.append(framed(protocol, *(whole[at : at + 1] for at in range(len(whole)))))
    with backend(short_path, protocol, scripts) as address:
        for _ in scripts:
            answer = client.request(address)
            assert (answer.status, answer.reason) == (404, "Not Found")
            assert answer.headers == [("X-One", "1"), ("X-Two", "2")]
            assert answer.read() == b"body"


# Too many, and too few.


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Allow this process, and those it starts, `count` open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"this machine allows a process {hard} open files, the test needs {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("count", [1, 4])
def test_cve_2012_6687_descriptors_beyond_1024_work(tmp_path: Path, count: int) -> None:
    """libfcgi wrote past the end of select()'s set; flup 1.0.3 raises (its defect 17)."""
    with ExitStack() as stack:
        stack.enter_context(many_descriptors(3000))
        server = stack.enter_context(gateway(tmp_path, threads=count, max_connections=2000))
        kept = [stack.enter_context(server.connect()) for _ in range(1100)]
        for sock in kept:
            sock.sendall(fastcgi(flags=KEEP))
        for sock in kept:
            assert fastcgi_answer(sock).status == 200
        assert descriptors(server.process.pid) > 1100
        assert request(server).status == 200
        # Waiting for a body, and for a peer that does not read, are waits of their own.
        for sock in (kept[0], kept[-1]):
            sock.sendall(head({"PROBE": "read", "CONTENT_LENGTH": "70000"}) + stdin(bytes(69000)))
            sock.sendall(stdin(bytes(1000)) + record(wire.STDIN))
            assert fastcgi_answer(sock).told["length"] == 70000


def test_go_81548_half_open_requests_are_bounded_and_their_memory_comes_back(
    fcgi: LiveServer,
) -> None:
    """Go's net/http/fcgi (issue 81548) kept as many as a peer cared to begin."""
    filler = wire.pair(b"HTTP_FILLER", b"x" * 60000)

    def begin_many() -> None:
        with fcgi.connect() as sock:
            for request_id in range(1, 101):
                params = record(wire.PARAMS, filler, request_id)
                sock.sendall(begin(request_id, flags=KEEP) + params)
            refused = wire.answers(sock, *range(65, 101))
            assert {each.ended for each in refused.values()} == {(0, 2)}
            assert {each.status for each in refused.values()} == {503}

    for _ in range(3):
        begin_many()
    before = resident_kilobytes(fcgi.process.pid)

    def begin_many_often() -> None:
        for _ in range(15):
            begin_many()

    # Were it kept, this would be 60 megabytes.
    leaves_no_trace(fcgi, begin_many_often)
    assert resident_kilobytes(fcgi.process.pid) - before < 20 * MEGABYTE


def test_go_11552_aborts_while_bodies_are_read_leave_nothing_behind(fcgi: LiveServer) -> None:
    """Go's net/http/fcgi (issue 11552) raced between the abort and the body."""

    def abort_many() -> None:
        with fcgi.connect() as sock:
            for number in range(300):
                size = (0, 1000, 70_000)[number % 3]
                values = {"PROBE": "follow", "CONTENT_LENGTH": "100000"}
                sock.sendall(head(values, flags=KEEP) + stdin(bytes(size)))
                if number % 2:
                    sock.sendall(record(wire.STDIN, bytes(500)))
                sock.sendall(record(wire.ABORT))
                assert fastcgi_answer(sock).ended is not None

    leaves_no_trace(fcgi, abort_many)


def test_cve_2022_41556_peers_that_half_close_leave_nothing_behind(server: LiveServer) -> None:
    """lighttpd never let go of a slot whose peer had closed its half in mid-request."""

    def half_close_many() -> None:
        for number in range(300):
            size = (0, 1000, 70_000)[number % 3]
            values = {"PROBE": "follow", "CONTENT_LENGTH": "100000"}
            with server.connect() as sock:
                if server.protocol == "FastCGI":
                    sock.sendall(head(values, flags=KEEP) + stdin(bytes(size)))
                else:
                    sock.sendall(wire.scgi(values) + bytes(size))
                sock.shutdown(socket.SHUT_WR)
                if number % 2:
                    assert is_closed(sock)

    leaves_no_trace(server, half_close_many)


def test_cve_2024_49769_peers_that_close_between_requests_leave_nothing_behind(
    fcgi: LiveServer,
) -> None:
    """CVE-2024-49768, CVE-2024-49769: waitress leaked sockets and raced when a peer closed early."""

    def close_many() -> None:
        for number in range(200):
            with fcgi.connect() as sock:
                sock.sendall(fastcgi(flags=KEEP))
                if number % 2:
                    assert fastcgi_answer(sock).status == 200
                if number % 3:
                    sock.sendall(fastcgi(flags=KEEP, request_id=2))

    leaves_no_trace(fcgi, close_many)


# Who may talk, and what gets into the log.


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_an_exposed_port_is_refused_with_exit_status_2(host: str) -> None:
    """No id: whoever reaches a FastCGI port says which file is run and who is asking."""
    address = f"fcgi://{host}:{free_port()}"
    command = ["serve", "tests.peers.application:application", "-b", address]
    done = subprocess.run(
        [sys.executable, "-m", "gateways", *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "--allow" in done.stderr
    assert "Traceback" not in done.stderr


def test_cve_2024_9026_a_line_for_the_log_arrives_whole_however_it_was_cut(
    fcgi: LiveServer,
) -> None:
    """PHP-FPM changed lines that lay across two reads of its workers' pipe."""
    text = "the quick brown fox jumps over the lazy dog"
    assert request(fcgi, {"PROBE": "complain", "PROBE_ARGUMENT": text}).status == 200
    found = re.findall(rf"(\d\d\d) {text}$", fcgi.log_text(), re.MULTILINE)
    assert found == [f"{cut:03}" for cut in range(len(text) + 1)]


def test_cve_2024_9026_a_request_cannot_write_a_line_of_its_own_into_the_log(
    server: LiveServer,
) -> None:
    """The same hole let a request forge lines."""
    path = b"/x\n2026-01-01 00:00:00 [1] ERROR forged\r\x1b[2Jforged"
    assert request(server, {"PROBE": "fail", "PATH_INFO": path}).status == 500
    assert request(server, {"CONTENT_LENGTH": b"1\nforged\x1b"}).status == 400
    until(lambda: server.log_text().count("forged") >= 3, server.log_text)
    assert not re.search(r"^(2026-01-01|forged)", server.log_text(), re.MULTILINE)
    assert "\x1b" not in server.log_text()


def test_cve_2021_21703_nothing_a_worker_writes_harms_its_master(tmp_path: Path) -> None:
    """PHP-FPM's master trusted memory that its workers could write."""
    with gateway(tmp_path, workers=2) as server:
        assert request(server, {"PROBE": "scribble"}).told > 0
        workers = workers_of(server.process.pid)
        for pid in workers:
            wire.kill(pid)
        # The master still does its work: it replaces the dead and stops when it is asked.
        until(lambda: len(workers_of(server.process.pid) - workers) == 2, server.log_text)
        assert request(server).status == 200
        assert server.stop() == 0


def test_cve_2015_9253_workers_that_die_at_once_are_replaced_ever_more_slowly(
    tmp_path: Path,
) -> None:
    """PHP-FPM restarted them as fast as it could, and filled the log."""
    dies = "import os, threading\nthreading.Timer(1, os._exit, [9]).start()\ndef application(*_): ...\n"
    (tmp_path / "dies.py").write_text(dies)
    application = str(tmp_path / "dies.py")
    with gateway(tmp_path, workers=2, lazy=True, application=application) as server:

        def pauses() -> list[float]:
            return [float(each) for each in re.findall(r"another in ([\d.]+) s", server.log_text())]

        until(lambda: len(pauses()) >= 4, server.log_text)
        assert pauses()[:4] == [0.1, 0.2, 0.4, 0.8]
        assert server.log_text().count("exited with 9") <= len(pauses()) + 1


# Slow and broken peers.


def broken_messages(protocol: str) -> Iterator[bytes]:
    """Every beginning of a request, requests with a byte changed, and noise; always the same."""
    dice = random.Random(2026)
    values = {"PROBE": "read", "HTTP_LONG": "x" * 200}
    whole = fastcgi(values, b"body") if protocol == "FastCGI" else wire.scgi(values, b"body")
    for end in range(1, len(whole), 7):
        yield whole[:end]
    for _ in range(150):
        changed = bytearray(whole)
        changed[dice.randrange(len(whole))] = dice.randrange(256)
        yield bytes(changed)
    for size in (1, 8, 100, 10_000):
        yield dice.randbytes(size)
    yield b"GET / HTTP/1.1\r\nHost: peer.example\r\n\r\n"


def test_broken_messages_leave_a_server_that_still_answers(server: LiveServer) -> None:
    """CVE-2014-3583, CVE-2026-42946 and their kin: what the other readers here fell over."""

    def break_many() -> None:
        for message in broken_messages(server.protocol):
            with server.connect() as sock:
                send(sock, message)
                sock.shutdown(socket.SHUT_WR)
                assert is_closed(sock)

    leaves_no_trace(server, break_many)


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_slow_heads_hold_no_thread_and_are_cut_off(tmp_path: Path, protocol: str) -> None:
    """Slowloris (no id): peers that never finish a head used up the threads."""
    with gateway(tmp_path, protocol=protocol, threads=1, head_timeout=0.5) as server:
        with ExitStack() as stack:
            slow = [stack.enter_context(server.connect()) for _ in range(20)]
            message = next(iter(broken_messages(server.protocol)))
            for sock in slow:
                sock.sendall(message)
            assert request(server).status == 200
            for sock in slow:
                assert is_closed(sock)
        assert request(server).status == 200
