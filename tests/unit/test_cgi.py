"""CGI, both ends, by the bytes.  Sections are those of RFC 3875."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateways.server.cgi
from gateways import cgi
from gateways.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways.events import (
    EndOfRequest,
    EndOfResponse,
    Event,
    Request,
    RequestAborted,
    RequestBody,
    Response,
)
from gateways.testing import Pieces
from tests.corpus import CHUNKERS, Chunker, capture, merged, replay, split_cgi, whole
from tests.server.live import PATIENCE, eventually

ROOT = Path(__file__).resolve().parents[2]

Pairs = list[tuple[bytes, bytes]]

GET = [(b"REQUEST_METHOD", b"GET"), (b"SCRIPT_NAME", b"/cgi-bin/x"), (b"QUERY_STRING", b"")]
POST = [(b"REQUEST_METHOD", b"POST"), (b"CONTENT_LENGTH", b"5")]
CHUNKED = [(b"REQUEST_METHOD", b"POST"), (b"HTTP_TRANSFER_ENCODING", b"chunked")]

each_chunking = pytest.mark.parametrize("chunks", CHUNKERS.values(), ids=CHUNKERS)


def receiving(pairs: Pairs) -> cgi.ServerConnection:
    """A server end that has the meta-variables."""
    connection = cgi.ServerConnection()
    connection.receive_variables(pairs)
    return connection


# The server end: what it receives.


@pytest.mark.parametrize("length", [None, b"", b"0", b"000"])
def test_a_request_without_a_body_is_complete_with_its_variables(length: bytes | None) -> None:
    """4.1.2: CONTENT_LENGTH is unset, or empty, where no data is attached; servers also send 0."""
    pairs = GET if length is None else [*GET, (b"CONTENT_LENGTH", length)]
    connection = cgi.ServerConnection()
    assert connection.receive_variables(pairs) == [Request(0, pairs), EndOfRequest(0)]
    assert not connection.wants_data
    assert connection.remaining == 0


@each_chunking
def test_the_body_is_content_length_bytes_long(chunks: Any) -> None:
    """4.2: a message-body is there when CONTENT_LENGTH is, and no more than that is taken."""
    connection = cgi.ServerConnection()
    assert connection.receive_variables(POST) == [Request(0, POST)]
    assert connection.wants_data
    events = replay(connection, b"helloand extension data", chunks)
    assert merged(events) == [RequestBody(0, b"hello"), EndOfRequest(0)]


def test_remaining_is_what_may_be_read() -> None:
    """4.2: the script must not read more than CONTENT_LENGTH bytes."""
    connection = receiving(POST)
    seen = [connection.remaining]
    for byte in b"hello":
        connection.receive_data(bytes([byte]))
        seen.append(connection.remaining)
    assert seen == [5, 4, 3, 2, 1, 0]
    assert not connection.wants_data


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"gzip, chunked"])
@pytest.mark.parametrize("length", [None, b""])
def test_a_chunked_upload_without_a_length_ends_with_standard_input(
    coding: bytes, length: bytes | None
) -> None:
    """Apache decodes a chunked upload and passes it on without a length (4.2 would have one)."""
    pairs = [*GET, (b"HTTP_TRANSFER_ENCODING", coding)]
    if length is not None:
        pairs.append((b"CONTENT_LENGTH", length))
    connection = cgi.ServerConnection()
    assert connection.receive_variables(pairs) == [Request(0, pairs, body_delimited=True)]
    before = (connection.wants_data, connection.remaining)
    assert replay(connection, b"x" * 70000) == [RequestBody(0, b"x" * 70000), EndOfRequest(0)]
    assert before == (True, None)
    assert (connection.wants_data, connection.remaining) == (False, 0)


def test_an_empty_chunked_upload_is_an_empty_body() -> None:
    assert receiving(CHUNKED).receive_data(b"") == [EndOfRequest(0)]


def test_a_content_length_beside_chunked_wins() -> None:
    """lighttpd counts the decoded bytes and leaves the header in place."""
    connection = cgi.ServerConnection()
    pairs = [*CHUNKED, (b"CONTENT_LENGTH", b"5")]
    assert connection.receive_variables(pairs) == [Request(0, pairs)]
    assert connection.remaining == 5


def test_another_transfer_coding_announces_no_body() -> None:
    connection = cgi.ServerConnection()
    pairs = [*GET, (b"HTTP_TRANSFER_ENCODING", b"gzip")]
    assert connection.receive_variables(pairs) == [Request(0, pairs), EndOfRequest(0)]


def test_what_apache_gives_a_script_for_a_chunked_upload_is_read_to_its_end() -> None:
    pairs, _, stdin = split_cgi(capture("apache-mod_cgi-chunked").data)
    connection = receiving(pairs)
    assert connection.remaining is None
    assert merged(replay(connection, stdin)) == [RequestBody(0, stdin), EndOfRequest(0)]


@pytest.mark.parametrize(
    "length", ["+10", "1_0", " 10", "10 ", "٣", "²", "-1", "0x10", "1.0", "1e3", "5,5", "\0"]
)
def test_a_content_length_that_is_no_length_aborts_the_request(length: str) -> None:
    connection = cgi.ServerConnection()
    (event,) = connection.receive_variables([*GET, (b"CONTENT_LENGTH", length.encode())])
    assert isinstance(event, RequestAborted)
    assert isinstance(event.error, RemoteProtocolError)
    assert event.error.status_hint == 400
    assert "expected ASCII digits" in str(event.error)
    assert not connection.wants_data
    assert connection.receive_data(b"hello") == []


@pytest.mark.parametrize("digits", [19, 100000])
def test_a_content_length_of_too_many_digits_is_over_the_limit(digits: int) -> None:
    connection = cgi.ServerConnection()
    (event,) = connection.receive_variables([(b"CONTENT_LENGTH", b"9" * digits)])
    assert isinstance(event, RequestAborted)
    assert isinstance(event.error, LimitExceeded)
    assert event.error.status_hint == 413


def test_two_different_content_lengths_abort_the_request() -> None:
    connection = cgi.ServerConnection()
    (event,) = connection.receive_variables([*POST, (b"CONTENT_LENGTH", b"6")])
    assert isinstance(event, RequestAborted)
    assert "two different" in str(event.error)


def test_nothing_more_is_read_once_the_body_was_cut_short() -> None:
    connection = receiving(POST)
    replay(connection, b"hel")
    assert (connection.wants_data, connection.remaining) == (False, 0)


def test_a_refused_request_may_still_be_answered() -> None:
    connection = receiving([(b"CONTENT_LENGTH", b"x")])
    connection.send(Response(0, "400 Bad Request", []))
    connection.send(EndOfResponse(0))
    assert connection.data_to_send() == b"Status: 400 Bad Request\r\n\r\n"


def test_the_variables_come_once_and_first() -> None:
    connection = cgi.ServerConnection()
    with pytest.raises(LocalProtocolError, match="come first"):
        connection.receive_data(b"x")
    connection.receive_variables(POST)
    with pytest.raises(LocalProtocolError, match="before"):
        connection.receive_variables(POST)
    assert connection.remaining == 5


def test_a_request_head_is_never_pending() -> None:
    assert not cgi.ServerConnection().head_pending
    assert not receiving(POST).head_pending


# The client end.


def test_the_variables_become_the_environment_and_the_body_standard_input() -> None:
    """4.1, 4.2: environment variables of exactly these names and bytes, and the body on stdin."""
    connection = cgi.ClientConnection()
    pairs = [*POST, (b"PATH_INFO", b"/\xe9=\n"), (b"QUERY_STRING", b"")]
    connection.send(Request(0, pairs))
    connection.send(RequestBody(0, b"he"))
    connection.send(RequestBody(0, b"llo"))
    connection.send(EndOfRequest(0))
    assert connection.environment == dict(pairs)
    assert connection.data_to_send() == b"hello"


def test_the_proxy_header_never_reaches_the_environment() -> None:
    """httpoxy, CVE-2016-5385: HTTP_PROXY would name the proxy of the child's HTTP library."""
    connection = cgi.ClientConnection()
    connection.send(Request(0, [*GET, (b"HTTP_PROXY", b"http://evil.example/")]))
    assert connection.environment == dict(GET)


BAD_REQUESTS = {
    "NUL in a name": [(b"A\0B", b"")],
    "NUL in a value": [(b"A", b"\0")],
    "an empty name": [(b"", b"x")],
    "an equals sign in a name": [(b"LD_PRELOAD=x", b"")],
    "a name twice (4.1.18)": [(b"HTTP_COOKIE", b"a=1"), (b"HTTP_COOKIE", b"b=2")],
    "CONTENT_LENGTH -1": [(b"CONTENT_LENGTH", b"-1")],
    "CONTENT_LENGTH 1_0": [(b"CONTENT_LENGTH", b"1_0")],
    "CONTENT_LENGTH too long": [(b"CONTENT_LENGTH", b"1" * 19)],
}


@pytest.mark.parametrize("pairs", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_variables_that_no_environment_can_carry_are_refused(pairs: Pairs) -> None:
    connection = cgi.ClientConnection()
    with pytest.raises(LocalProtocolError):
        connection.send(Request(0, pairs))
    assert connection.environment == {}
    connection.send(Request(0, GET))
    assert connection.environment == dict(GET)


def test_a_body_without_a_content_length_is_refused() -> None:
    """4.1.2: CONTENT_LENGTH is set if and only if there is a message-body."""
    connection = cgi.ClientConnection()
    connection.send(Request(0, GET))
    with pytest.raises(LocalProtocolError, match="CONTENT_LENGTH leaves 0"):
        connection.send(RequestBody(0, b"x"))
    connection.send(EndOfRequest(0))


def test_a_body_that_the_protocol_delimits_may_have_any_length() -> None:
    connection = cgi.ClientConnection()
    connection.send(Request(0, CHUNKED, body_delimited=True))
    connection.send(RequestBody(0, b"x" * 100))
    connection.send(EndOfRequest(0))
    assert connection.data_to_send() == b"x" * 100


# Any bytes, any cuts.

names = st.sampled_from([b"CONTENT_LENGTH", b"HTTP_TRANSFER_ENCODING", b"X", b"Y"])
values = st.one_of(st.sampled_from([b"3", b"07", b"", b"chunked", b"-1"]), st.binary(max_size=5))
cuts = st.lists(st.integers(1, 20), min_size=1, max_size=6).map(lambda sizes: Pieces(*sizes))


@settings(deadline=None)  # the machine may be busy; the suite has its own time limit
@given(st.lists(st.tuples(names, values), max_size=4), st.binary(max_size=20), cuts)
def test_any_request_gives_the_same_events_however_cut(
    pairs: Pairs, stdin: bytes, cut: Pieces
) -> None:
    def outcome(chunks: Chunker) -> list[Event]:
        connection = cgi.ServerConnection()
        events = connection.receive_variables(pairs)
        return merged(events + replay(connection, stdin, chunks))

    once = outcome(whole)
    assert outcome(cut) == once
    state = "VARIABLES"
    for event in once:
        assert type(event) in cgi.ServerConnection.RECEIVED[state]
        state = cgi.ServerConnection.RECEIVED[state][type(event)]
    assert state == "COMPLETE"


@settings(deadline=None)  # the machine may be busy; the suite has its own time limit
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=9).map(lambda name: b"X" + name.translate(None, b"\0=")),
        st.binary(max_size=20).map(lambda value: value.replace(b"\0", b"")),
    ),
    st.binary(max_size=50),
    cuts,
)
def test_the_server_end_receives_what_the_client_end_sends(
    variables: dict[bytes, bytes], body: bytes, cut: Pieces
) -> None:
    variables[b"CONTENT_LENGTH"] = b"%d" % len(body)
    client = cgi.ClientConnection()
    client.send(Request(0, list(variables.items())))
    client.send(RequestBody(0, body))
    client.send(EndOfRequest(0))
    connection = cgi.ServerConnection()
    events = connection.receive_variables(list(client.environment.items()))
    events += replay(connection, client.data_to_send(), cut)
    assert merged(events) == [
        Request(0, list(variables.items())),
        *([RequestBody(0, body)] if body else []),
        EndOfRequest(0),
    ]


# Start-up and the front door.


def test_importing_the_codec_loads_nothing_that_a_bare_interpreter_has_not() -> None:
    """Every CGI request pays for these imports."""
    show = "import sys; print(*sorted(sys.modules))"
    bare = _modules(show)
    assert _modules("import gateways.cgi; " + show) - bare <= {
        "__future__",
        "gateways",
        "gateways.server",
        "gateways.cgi",
        "gateways.document",
        "gateways.errors",
        "gateways.events",
        "gateways.response",
    }


def _modules(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return set(done.stdout.split())


CYCLE = """
class Journal:
    file = open(__file__ + ".journal", "w")

def application(environ, start_response):
    Journal.file.write("answered")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]

from gateways import cgi
cgi.run(application)
"""


def test_what_an_application_wrote_and_never_closed_is_on_the_disk_afterwards(
    tmp_path: Path,
) -> None:
    """A class is a cycle of objects, so that only the collector closes the file at the end."""
    script = tmp_path / "script.py"
    script.write_text(CYCLE)
    environment = {"PYTHONPATH": str(ROOT), "REQUEST_METHOD": "GET"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    assert done.stdout.endswith(b"done")
    assert script.with_name("script.py.journal").read_text() == "answered"


EXIT_WORK = """
import atexit, pathlib, time
HERE = pathlib.Path(__file__).parent

@atexit.register
def work():
    while not (HERE / "told").exists():
        time.sleep(0.01)
    (HERE / "done").touch()

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"answered"]

from gateways import cgi
cgi.run(application)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_SIGTERM_after_the_answer_cuts_no_exit_work_and_the_next_one_does(
    tmp_path: Path, times: int
) -> None:
    """Lighttpd says it as soon as it has the whole answer."""
    (tmp_path / "script.py").write_text(EXIT_WORK)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env={"PYTHONPATH": str(ROOT), "REQUEST_METHOD": "GET"},
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.read().endswith(b"answered")
        for _ in range(times):
            process.terminate()
            eventually(lambda: not _catches_SIGTERM(process.pid), "it has come")
        if times == 1:
            (tmp_path / "told").touch()
        assert process.wait(PATIENCE) == (0 if times == 1 else -signal.SIGTERM)
    assert (tmp_path / "done").exists() == (times == 1)


def test_a_stdout_that_does_not_block_is_waited_for(tmp_path: Path) -> None:
    """Whoever has given it to us may have made it so."""
    (tmp_path / "script.py").write_text(
        "from gateways import cgi\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [b'x' * 1_000_000]\n"
        "cgi.run(application)\n"
    )
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env={"PYTHONPATH": str(ROOT), "REQUEST_METHOD": "GET"},
        stdout=writing,
    )
    os.close(writing)
    with process, open(reading, "rb") as answer:
        assert select.select([answer], [], [], PATIENCE)[0]
        eventually(lambda: _sleeps(process.pid), "it waits for room, or has given up")
        assert answer.read().endswith(b"x" * 1_000_000)
        assert process.wait(PATIENCE) == 0


def _sleeps(pid: int) -> bool:
    """Whether it waits for something, or is over."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "SZ"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _catches_SIGTERM(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "x:0")
    return bool(int(caught.split(":")[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_run_answers_through_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        gateways.server.cgi, "run", lambda *args, **options: calls.append((args, options))
    )
    application: Any = object()
    cgi.run(application, debug=True)
    assert calls == [((application,), {"debug": True})]
