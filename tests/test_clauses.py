"""Clauses of the specifications that no other test names; tests/specifications.py has them all.

Each docstring begins with the clause.  A clause that is not kept on purpose has its reason in that
table instead of a test.
"""

from __future__ import annotations

import gc
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import client, events, fastcgi, scgi, wsgi
from gateways import environ as environs
from gateways.client.variables import variables
from gateways.errors import ApplicationError, LocalProtocolError
from gateways.response import REASONS, plain_answer
from gateways.server.input import Input
from gateways.testing import expanded, merged
from tests.doors import ROOT
from tests.peers import wire
from tests.server.live import PATIENCE, Peer, raw, request, running

Environ = dict[str, Any]
Start = Callable[..., Any]

TEXT = [("Content-Type", "text/plain")]


# FastCGI 1.0.


DESCRIPTORS = """
import os
from contextlib import suppress
def application(environ, start_response):
    print("printed")
    for descriptor in (1, 2):
        with suppress(OSError):
            os.write(descriptor, b"written")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_started_with_nothing_but_the_listening_socket_serves(
    short_path: Path, workers: int
) -> None:
    """FastCGI 2.2: descriptor 0 is the listening socket, and 1 and 2 are closed.

    What takes their numbers must not carry what the application prints into an answer.
    """
    (short_path / "app.py").write_text(DESCRIPTORS)
    path = str(short_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        command = [sys.executable, "-m", "gateways", "serve", str(short_path / "app.py")]
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', *command, f"--workers={workers}"],
            stdin=listener.fileno(),
            cwd=ROOT,
        )
    try:
        for target in ("/one", "/two", "/three"):
            with Peer(path) as peer:
                peer.get(target)
                assert peer.answer() == target.encode()
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


VARIABLES = {"N": b"v", "LONG": b"x" * 300, "LAST": b""}
PAIRS = [(name.encode(), value) for name, value in VARIABLES.items()]


def stream(kind: int, value: bytes, size: int) -> bytes:
    """A stream, its value divided into records of `size` bytes."""
    cut = [value[at : at + size] for at in range(0, len(value), size)]
    return b"".join(wire.record(kind, piece) for piece in [*cut, b""])


@pytest.mark.parametrize("size", [1, 2, 7, 8, 300, 65535])
def test_the_value_of_a_stream_does_not_depend_on_its_records(size: int) -> None:
    """FastCGI 3.3: what counts are the bytes of a stream, not how its records divide them."""
    data = wire.begin(role=3, flags=wire.KEEP)
    data += stream(wire.PARAMS, wire.pairs(VARIABLES), size)
    data += stream(wire.STDIN, b"b" * 400, size) + stream(wire.DATA, b"d" * 500, size)
    assert merged(fastcgi.ServerConnection().receive_data(data)) == [
        events.Request(1, PAIRS, events.FILTER, True, True),
        events.RequestBody(1, b"b" * 400),
        events.FilterData(1, b"d" * 500),
        events.EndOfRequest(1),
    ]

    web_server = fastcgi.ClientConnection()
    web_server.send(events.Request(1, PAIRS))
    output = b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\n" + b"b" * 400
    data = stream(wire.STDERR, b"e" * 300, size) + stream(wire.STDOUT, output, size)
    data += wire.record(wire.END, bytes(8))
    assert merged(web_server.receive_data(data)) == [
        events.ErrorOutput(1, b"e" * 300),
        events.Response(1, "404 Not Found", TEXT),
        events.ResponseBody(1, b"b" * 400),
        events.EndOfResponse(1),
    ]


def test_the_role_is_a_number_of_two_bytes() -> None:
    """FastCGI 5.1: roleB1 counts too, so that 257 is no responder."""
    connection = fastcgi.ServerConnection()
    assert connection.receive_data(wire.begin(role=0x0101) + wire.record(wire.PARAMS)) == []
    *_, ended = fastcgi.read_records(connection.data_to_send())
    assert (ended.type, ended.content[4]) == (wire.END, 3)


def test_no_value_of_a_variable_holds_nul() -> None:
    """FastCGI 6.1: a value in PARAMS does not include a null byte."""
    connection = fastcgi.ClientConnection()
    with pytest.raises(LocalProtocolError):
        connection.send(events.Request(1, [(b"FINE", b"v"), (b"NAME", b"one\0two")]))
    assert connection.data_to_send() == b""


def asked_of(path: Path, role: str) -> events.Request:
    """What our client sends to a FastCGI server that is asked to take a role."""
    heard: list[events.Event] = []

    def answer(listener: socket.socket) -> None:
        codec = fastcgi.ServerConnection()
        connected, _ = listener.accept()
        with connected:
            connected.settimeout(PATIENCE)
            while not any(isinstance(event, events.EndOfRequest) for event in heard):
                heard.extend(codec.receive_data(connected.recv(65536)))
            codec.send(events.Response(1, "200 OK", TEXT))
            codec.send(events.EndOfResponse(1))
            connected.sendall(codec.data_to_send())

    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(PATIENCE)
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        client.request(f"fcgi+unix:{path}", "/private?x=1", role=role).read()
        thread.join(PATIENCE)
    asked = heard[0]
    assert isinstance(asked, events.Request)
    return asked


def test_an_authorizer_is_not_sent_what_belongs_to_the_script(socket_path: Path) -> None:
    """FastCGI 6.3: no CONTENT_LENGTH, PATH_INFO, PATH_TRANSLATED or SCRIPT_NAME."""
    names = {name for name, _ in asked_of(socket_path, events.AUTHORIZER).variables}
    assert b"REQUEST_METHOD" in names
    assert not names & {b"CONTENT_LENGTH", b"PATH_INFO", b"PATH_TRANSLATED", b"SCRIPT_NAME"}


def filtering(*records: bytes) -> fastcgi.ServerConnection:
    connection = fastcgi.ServerConnection()
    connection.receive_data(wire.begin(role=3) + stream(wire.PARAMS, b"\1\1NV", 100))
    connection.receive_data(b"".join(records))
    return connection


def test_a_filter_does_not_answer_before_its_stdin_has_ended() -> None:
    """FastCGI 6.4: a Filter must read STDIN to its end before it writes STDOUT or STDERR."""
    connection = filtering(wire.record(wire.STDIN, b"half"))
    for early in (events.Response(1, "200 OK", TEXT), events.ErrorOutput(1, b"error")):
        with pytest.raises(LocalProtocolError):
            connection.send(early)
    assert connection.data_to_send() == b""
    connection.receive_data(wire.record(wire.STDIN))
    connection.send(events.Response(1, "200 OK", TEXT))
    assert connection.data_to_send()


def test_a_filter_may_answer_before_its_data_has_ended() -> None:
    """FastCGI 6.4: a Filter need not read DATA to its end before it writes."""
    connection = filtering(wire.record(wire.STDIN), wire.record(wire.DATA, b"half"))
    connection.send(events.Response(1, "200 OK", TEXT))
    connection.send(events.ResponseBody(1, b"early"))
    assert b"early" in connection.data_to_send()
    late = connection.receive_data(wire.record(wire.DATA, b"rest") + wire.record(wire.DATA))
    assert late == [events.FilterData(1, b"rest"), events.EndOfRequest(1)]


def test_a_filter_can_tell_that_data_are_missing(socket_path: Path) -> None:
    """FastCGI 6.4: a Filter compares what DATA holds with FCGI_DATA_LENGTH, so it sees both."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", TEXT)
        told = f"{environ['FCGI_DATA_LENGTH']} {environ['FCGI_DATA_LAST_MOD']}"
        return [f"{told} {len(environ['fastcgi.data'].read())}".encode()]

    with running(application, socket_path) as live, live.peer() as peer:
        asked = request("/", role=events.FILTER)
        asked.variables += [(b"FCGI_DATA_LENGTH", b"10"), (b"FCGI_DATA_LAST_MOD", b"86400")]
        peer.send(asked, events.FilterData(1, b"four"), events.EndOfRequest(1))
        assert peer.answer() == b"10 86400 4"


def test_the_numbers_are_those_of_the_specification() -> None:
    """FastCGI 8: every constant, under its own name."""
    assert fastcgi.FCGI_LISTENSOCK_FILENO == 0
    assert (fastcgi.FCGI_HEADER_LEN, fastcgi.FCGI_VERSION_1, fastcgi.FCGI_MAX_LENGTH) == (
        (8, 1, 65535)
    )
    assert (fastcgi.FCGI_NULL_REQUEST_ID, fastcgi.FCGI_KEEP_CONN) == (0, 1)
    assert [(each.name, each.value) for each in fastcgi.RecordType] == [
        ("BEGIN_REQUEST", 1),
        ("ABORT_REQUEST", 2),
        ("END_REQUEST", 3),
        ("PARAMS", 4),
        ("STDIN", 5),
        ("STDOUT", 6),
        ("STDERR", 7),
        ("DATA", 8),
        ("GET_VALUES", 9),
        ("GET_VALUES_RESULT", 10),
        ("UNKNOWN_TYPE", 11),
    ]
    assert [(each.name, each.value) for each in fastcgi.Role] == [
        ("RESPONDER", 1),
        ("AUTHORIZER", 2),
        ("FILTER", 3),
    ]
    assert [(each.name, each.value) for each in fastcgi.ProtocolStatus] == [
        ("REQUEST_COMPLETE", 0),
        ("CANT_MPX_CONN", 1),
        ("OVERLOADED", 2),
        ("UNKNOWN_ROLE", 3),
    ]
    values = (fastcgi.FCGI_MAX_CONNS, fastcgi.FCGI_MAX_REQS, fastcgi.FCGI_MPXS_CONNS)
    assert values == ("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS")


# SCGI.


def test_the_connection_is_closed_after_the_answer(socket_path: Path) -> None:
    """SCGI 2: the server sends its answer and closes the connection, whatever the client does."""
    with running(echo, socket_path, protocol="scgi") as live:
        # `raw` reads up to the end of file and closes nothing before it.
        answer = raw(live.path, wire.scgi({"REQUEST_METHOD": "POST"}, b"hello"))
    assert answer.endswith(b"\r\n\r\nPOST hello")


def echo(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", TEXT)
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["wsgi.input"].read()]


def test_a_request_over_scgi_has_the_variables_of_cgi() -> None:
    """SCGI 3: the standard variables of CGI should be provided as headers."""
    connection = scgi.ClientConnection()
    connection.send(events.Request(0, variables("/x?y=1")))
    (asked,) = scgi.ServerConnection().receive_data(connection.data_to_send())[:1]
    assert isinstance(asked, events.Request)
    assert asked.variables[:2] == [(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"1")]
    assert dict(asked.variables).items() >= dict(variables("/x?y=1")).items()


# RFC 3875.


def environ_of(*pairs: tuple[bytes, bytes]) -> Environ:
    return environs.build(events.Request(1, list(pairs)), base={})[0]


CLOSING = """
import sys, time
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        yield b"one"
        time.sleep(60)
        yield b"two"
    finally:
        print("closed", file=sys.stderr)
if __name__ == "__main__":
    from gateways import cgi
    sys.exit(cgi.run(application))
"""


def test_a_script_that_is_ended_closes_what_its_application_opened(tmp_path: Path) -> None:
    """RFC 3875 3.4: a script should be prepared for its termination in the middle of an answer."""
    (tmp_path / "script.py").write_text(CLOSING)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REQUEST_METHOD": "GET"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        seen = b""
        while not seen.endswith(b"one"):
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, "the script ended by itself"
            seen += piece
        process.send_signal(signal.SIGTERM)
        rest, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (rest, said) == (b"", b"closed\n")
    assert process.returncode == 1


ENDED_IN_CLOSE = """
import os, signal, sys
class Body:
    pieces = [b"whole"]
    def __iter__(self):
        return iter(self.pieces)
    def close(self):
        os.kill(os.getpid(), signal.SIGTERM)
        print("closed", file=sys.stderr)
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return Body()
if __name__ == "__main__":
    from gateways import cgi
    sys.exit(cgi.run(application))
"""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_script_that_is_ended_after_its_answer_still_closes(tmp_path: Path, method: str) -> None:
    """RFC 3875 3.4: lighttpd ends a script as soon as it has what the head declares."""
    (tmp_path / "script.py").write_text(ENDED_IN_CLOSE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REQUEST_METHOD": method},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.endswith(b"\r\n\r\nwhole" if method == "GET" else b"\r\n\r\n")
    assert (done.stderr, done.returncode) == (b"closed\n", 0)


def test_a_visitor_who_has_gone_and_the_signal_after_it_leave_close_in_peace(
    tmp_path: Path,
) -> None:
    """RFC 3875 3.4: lighttpd closes the script's stdout, and then ends it."""
    (tmp_path / "script.py").write_text(ENDED_IN_CLOSE)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, str(tmp_path / "script.py")],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REQUEST_METHOD": "GET"},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.stderr, done.returncode) == (b"closed\n", 1)


def test_an_empty_value_and_none_are_the_same() -> None:
    """RFC 3875 4.1: a NULL value and a missing one are not distinguished."""
    method = (b"REQUEST_METHOD", b"GET")
    nothing = [(name, b"") for name in (b"CONTENT_LENGTH", b"CONTENT_TYPE", b"QUERY_STRING")]
    assert environ_of(method, *nothing) == environ_of(method)


def test_values_keep_their_case() -> None:
    """RFC 3875 4.1, 4.1.5, 4.1.7, 4.1.12: values are case-sensitive, the method's too."""
    seen = environ_of(
        (b"REQUEST_METHOD", b"get"), (b"PATH_INFO", b"/A/b"), (b"QUERY_STRING", b"C=d&c=D")
    )
    assert seen["REQUEST_METHOD"] == "get"
    assert seen["PATH_INFO"] == "/A/b"
    assert seen["QUERY_STRING"] == "C=d&c=D"


def test_our_requests_have_every_variable_that_a_server_must_set() -> None:
    """RFC 3875 4.1.4, 4.1.7, 4.1.8, 4.1.12 to 4.1.17: set always, with the syntax given there."""
    made = {name.decode(): value.decode() for name, value in variables("/%61;b", method="POST")}
    assert made["GATEWAY_INTERFACE"] == "CGI/1.1"
    assert made["QUERY_STRING"] == ""
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", made["REMOTE_ADDR"])
    assert made["REQUEST_METHOD"] == "POST"
    assert (made["SCRIPT_NAME"], made["PATH_INFO"]) == ("", "/a;b")
    assert made["SERVER_NAME"]
    assert made["SERVER_PORT"] == "80"
    assert re.fullmatch(r"HTTP/\d+\.\d+", made["SERVER_PROTOCOL"])
    assert made["SERVER_SOFTWARE"]


def refused(*headers: tuple[str, str], status: str = "200 OK") -> bool:
    """Whether an application's head becomes a 500 and is reported."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response(status, list(headers))
        return [b"body"]

    answer, faults = answer_of(application)
    assert isinstance(answer[0], events.Response)
    return answer[0].status.startswith("500 ") and isinstance(faults[0], ApplicationError)


def answer_of(application: Callable[..., Any]) -> tuple[list[events.Event], list[Exception]]:
    """Run an application for a GET; return its answer and its faults."""
    sent: list[events.Event] = []
    faults: list[Exception] = []

    def report(error: Exception) -> str:
        faults.append(error)
        return "reference"

    environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": wsgi.FileWrapper}
    wsgi.run(application, environ, sent.append, request_id=1, report=report)
    return expanded(sent), faults


@pytest.mark.parametrize("name", ["Content-Type", "Location"])
def test_a_field_of_cgi_stands_only_once(name: str) -> None:
    """RFC 3875 6.3: Content-Type, Location and Status must not appear more than once."""
    assert refused((name, "a/b"), (name.lower(), "c/d"))
    assert refused((name, "a/b"), ("X", "between"), (name, "a/b"))
    assert not refused((name, "a/b"), ("X-" + name, "c/d"))


@pytest.mark.parametrize("field", ["Status", "Location"])
def test_a_field_without_a_value_counts_as_absent(field: str) -> None:
    """RFC 3875 6.3: a NULL field value is equivalent to a field that was not sent."""
    connection = scgi.ClientConnection()
    connection.send(events.Request(0, []))
    (head, _) = connection.receive_data(f"{field}:\nContent-Type: text/plain\n\nbody".encode())
    assert isinstance(head, events.Response)
    assert head.status == "200 OK"


@pytest.mark.parametrize("status", REASONS)
def test_our_own_pages_tell_their_type_and_charset(status: int) -> None:
    """RFC 3875 6.3.1: with a body comes a Content-Type, and a charset with text."""
    head, body, _ = plain_answer(0, status, "naïve")
    assert isinstance(head, events.Response)
    assert isinstance(body, events.ResponseBody)
    assert ("Content-Type", "text/plain; charset=utf-8") in head.headers
    assert body.data.decode("utf-8").endswith("naïve\n")


@pytest.mark.parametrize("status", fastcgi.ServerConnection.REFUSALS)
def test_our_refusals_tell_their_type_and_charset(status: int) -> None:
    """RFC 3875 6.3.1: with a body comes a Content-Type, and a charset with text."""
    refusal = fastcgi.ServerConnection.REFUSALS[fastcgi.ProtocolStatus(status)]
    assert re.search(rb"\r\nContent-Type: text/plain; *charset=", refusal)


# PEP 3333.


def test_an_iterable_is_iterated_and_closed_and_not_asked_for_anything_else() -> None:
    """Specification Details: a server must not use any other attribute of the iterable."""
    used: set[str] = set()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            yield b"two"

        def close(self) -> None:
            used.add("closed")

        def __getattribute__(self, name: str) -> Any:
            used.add(name)
            return super().__getattribute__(name)

    def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return Body()

    sent, faults = answer_of(application)
    assert merged(sent)[1:] == [events.ResponseBody(1, b"onetwo"), events.EndOfResponse(1)]
    assert faults == []
    assert "closed" in used
    assert used <= {"closed", "close", "__iter__", "__class__"}


@pytest.mark.parametrize("name", ["REMOTE_USER", "AUTH_TYPE"])
def test_who_was_not_asked_for_a_name_has_none(name: str) -> None:
    """environ Variables: missing variables, such as REMOTE_USER, should be left out."""
    assert name not in environ_of((b"REQUEST_METHOD", b"GET"), (name.encode(), b""))


def test_variables_of_the_servers_own_have_lower_case_names(socket_path: Path) -> None:
    """environ Variables: letters in lower case, digits, dots and underscores, with a prefix."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", TEXT)
        given = {name for name in environ if not re.fullmatch("[A-Z_]+", name)}
        return [" ".join(sorted(given)).encode()]

    with running(application, socket_path) as live, live.peer() as peer:
        peer.send(request("/", role=events.FILTER), events.EndOfRequest(1))
        named = peer.answer().decode().split()
    assert "fastcgi.data" in named
    assert all(re.fullmatch(r"(wsgi|fastcgi)\.[a-z_]+", name) for name in named)


def test_the_input_has_an_end_that_stays() -> None:
    """Input and Error Streams: reading an exhausted stream gives empty bytestrings."""
    pieces = iter([b"two\nli", b"nes"])
    stream = Input(lambda: next(pieces, b""))
    assert stream.read() == b"two\nlines"
    for _ in range(2):
        assert (stream.read(), stream.read(1), stream.read(0)) == (b"", b"", b"")
        assert (stream.readline(), stream.readline(1)) == (b"", b"")
        assert (stream.readlines(), stream.readlines(1), list(stream)) == ([], [], [])


def test_the_error_stream_takes_any_text(socket_path: Path) -> None:
    """Input and Error Streams: write, writelines and flush, and arbitrary unicode."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        stream = environ["wsgi.errors"]
        stream.write("€ and \udc80")
        stream.writelines([" end\n", "two\n"])
        stream.write("unfinished")
        stream.flush()
        start_response("200 OK", TEXT)
        return [b"fine"]

    with running(application, socket_path, error_stream="web-server") as live, live.peer() as peer:
        peer.get()
        peer.read_until(lambda: peer.ended(1))
        said = b"".join(each.data for each in peer.seen if isinstance(each, events.ErrorOutput))
        assert said == "€ and \\udc80 end\ntwo\nunfinished\n".encode()
        assert peer.answer() == b"fine"


def test_a_second_call_is_fatal_even_if_the_first_one_failed() -> None:
    """The start_response() Callable: a call that raised an error counts as a call."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        with pytest.raises(ApplicationError):
            start_response("200 OK", [("Name", "two\nlines")])
        with pytest.raises(ApplicationError):
            start_response("200 OK", TEXT)
        raise ValueError("both calls failed, as they must")

    _, faults = answer_of(application)
    assert [type(fault) for fault in faults] == [ValueError]


def test_no_reference_to_exc_info_is_kept() -> None:
    """The start_response() Callable: nothing holds the traceback once the call is over."""

    class Local:
        pass

    alive: list[weakref.ref[Local]] = []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        try:
            local = Local()
            alive.append(weakref.ref(local))
            raise ValueError("error")
        except ValueError:
            start_response("500 Oops", TEXT, sys.exc_info())
        del local
        return [b"oops", str(alive[0]() is None).encode()]

    gc.disable()  # it would find a circle of references, too
    try:
        sent, _ = answer_of(application)
    finally:
        gc.enable()
    assert events.ResponseBody(1, b"oopsTrue") in sent


def test_names_of_headers_are_compared_without_regard_to_case() -> None:
    """The start_response() Callable: the names of HTTP headers are case-insensitive."""

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("cOnTeNt-LeNgTh", "3")])
        return [b"four"]

    sent, _ = answer_of(application)
    assert sent[:2] == [
        events.Response(1, "200 OK", [("cOnTeNt-LeNgTh", "3")]),
        events.ResponseBody(1, b"fou"),
    ]
    assert refused(("tRaNsFeR-eNcOdInG", "chunked"))
    assert refused(("sTaTuS", "200 OK"))


def test_a_file_wrapper_that_is_not_returned_sends_nothing() -> None:
    """Optional Platform-Specific File Handling: nothing is sent until the server gets it back."""
    file = io.BytesIO(b"secret")

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", TEXT)
        environ["wsgi.file_wrapper"](file, 2)
        return [b"another body"]

    sent, faults = answer_of(application)
    assert merged(sent)[1:] == [events.ResponseBody(1, b"another body"), events.EndOfResponse(1)]
    assert file.tell() == 0
    assert faults == []
