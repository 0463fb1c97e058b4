"""CGI, both ends, by the bytes.  Sections are those of RFC 3875."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateways.server.cgi
from gateways import cgi, interface
from gateways.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from gateways.events import (
    EndOfRequest,
    EndOfResponse,
    ErrorOutput,
    Event,
    FilterData,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
)
from tests.corpus import CHUNKERS, capture, merged, replay, split_cgi

Pairs = list[tuple[bytes, bytes]]

GET = [(b"REQUEST_METHOD", b"GET"), (b"SCRIPT_NAME", b"/cgi-bin/x"), (b"QUERY_STRING", b"")]
POST = [(b"REQUEST_METHOD", b"POST"), (b"CONTENT_LENGTH", b"5")]
CHUNKED = [(b"REQUEST_METHOD", b"POST"), (b"HTTP_TRANSFER_ENCODING", b"chunked")]

ANSWER = Response(0, "200 OK", [("Content-Type", "text/plain")])
EVERY_EVENT: list[Event] = [
    Request(0, []),
    RequestBody(0, b"x"),
    FilterData(0, b"x"),
    EndOfRequest(0),
    RequestAborted(0),
    ANSWER,
    ResponseBody(0, b"x"),
    ErrorOutput(0, b"x"),
    EndOfResponse(0),
]

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


def test_the_body_is_handed_on_as_it_arrives() -> None:
    connection = receiving(POST)
    assert connection.receive_data(b"he") == [RequestBody(0, b"he")]
    assert connection.receive_data(b"llo") == [RequestBody(0, b"llo"), EndOfRequest(0)]


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


@each_chunking
def test_end_of_file_inside_the_body_aborts_the_request(chunks: Any) -> None:
    connection = receiving(POST)
    events = merged(replay(connection, b"hel", chunks))
    assert events[0] == RequestBody(0, b"hel")
    assert isinstance(events[1], RequestAborted)
    assert isinstance(events[1].error, TruncatedMessage)
    assert "3 of 5 bytes" in str(events[1].error)
    assert not connection.wants_data
    assert connection.receive_data(b"lo") == []


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


# The server end: what it sends.


def test_the_answer_is_a_document_response() -> None:
    """6.2.1, 6.3.3, 6.4: header fields with a Status, an empty line, and the body as it is."""
    connection = receiving(GET)
    connection.send(Response(0, "404 Not Found", [("Content-Type", "text/plain"), ("X", "\xe9")]))
    connection.send(ResponseBody(0, b"no\n"))
    connection.send(ResponseBody(0, b"such page"))
    connection.send(EndOfResponse(0))
    assert connection.data_to_send() == (
        b"Status: 404 Not Found\r\nContent-Type: text/plain\r\nX: \xe9\r\n\r\nno\nsuch page"
    )
    assert connection.data_to_send() == b""
    assert connection.must_close
    assert not connection.aborted


def test_an_answer_without_a_head_is_refused() -> None:
    """6.1: a script must always give a non-empty answer."""
    connection = receiving(GET)
    with pytest.raises(LocalProtocolError):
        connection.send(EndOfResponse(0))
    assert not connection.must_close


def test_the_body_need_not_be_read() -> None:
    """4.2: a script is not obliged to read any of the data."""
    connection = receiving(POST)
    connection.send(ANSWER)
    connection.send(EndOfResponse(0))
    assert connection.must_close


@pytest.mark.parametrize("state", ["HEAD", "BODY"])
def test_an_answer_given_up_is_not_taken_for_complete(state: str) -> None:
    connection = answering(state)
    connection.send(RequestAborted(0))
    assert connection.must_close
    assert connection.aborted


def test_error_output_is_no_part_of_the_answer() -> None:
    connection = answering("BODY")
    connection.send(ErrorOutput(0, b"oops"))
    assert connection.data_to_send() == b""


def test_want_body_is_accepted_and_does_nothing() -> None:
    connection = receiving(POST)
    connection.want_body(0)
    assert connection.remaining == 5


def answering(state: str) -> cgi.ServerConnection:
    """A server end whose answer is in `state`."""
    connection = cgi.ServerConnection()
    if state != "IDLE":
        connection.receive_variables(GET)
    if state in ("BODY", "ENDED"):
        connection.send(ANSWER)
    if state == "ENDED":
        connection.send(EndOfResponse(0))
    connection.data_to_send()
    return connection


def requesting(state: str) -> cgi.ClientConnection:
    """A client end whose request is in `state`."""
    connection = cgi.ClientConnection()
    if state != "IDLE":
        connection.send(Request(0, POST))
    if state == "COMPLETE":
        connection.send(RequestBody(0, b"hello"))
        connection.send(EndOfRequest(0))
    if state == "ENDED":
        connection.send(RequestAborted(0))
    connection.data_to_send()
    return connection


def table_rows(table: dict[str, dict[type[Event], str]]) -> list[Any]:
    return [
        pytest.param(state, event, type(event) in row, id=f"{state}-{type(event).__name__}")
        for state, row in table.items()
        for event in EVERY_EVENT
    ]


@pytest.mark.parametrize(("state", "event", "allowed"), table_rows(cgi.ServerConnection.SENT))
def test_the_server_end_sends_what_its_table_allows(
    state: str, event: Event, allowed: bool
) -> None:
    check_row(answering, state, event, allowed)


@pytest.mark.parametrize(("state", "event", "allowed"), table_rows(cgi.ClientConnection.SENT))
def test_the_client_end_sends_what_its_table_allows(
    state: str, event: Event, allowed: bool
) -> None:
    if state == "BODY" and isinstance(event, EndOfRequest):
        event = RequestBody(0, b"x")  # a body must be complete before its end is another test
    check_row(requesting, state, event, allowed)


def check_row(
    reach: Callable[[str], cgi.ServerConnection | cgi.ClientConnection],
    state: str,
    event: Event,
    allowed: bool,
) -> None:
    connection = reach(state)
    before = connection.must_close
    if allowed:
        connection.send(event)
        return
    with pytest.raises(LocalProtocolError, match=f"{type(event).__name__} cannot be sent"):
        connection.send(event)
    assert connection.data_to_send() == b""
    assert connection.must_close == before


@pytest.mark.parametrize(
    ("connection", "event"),
    [(answering("HEAD"), Response(1, "200 OK", [])), (requesting("IDLE"), Request(1, []))],
)
def test_a_request_id_is_refused(
    connection: cgi.ServerConnection | cgi.ClientConnection, event: Event
) -> None:
    with pytest.raises(LocalProtocolError, match="CGI has no request ids"):
        connection.send(event)


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


def test_a_body_longer_than_its_content_length_is_refused() -> None:
    connection = requesting("BODY")
    with pytest.raises(LocalProtocolError, match="CONTENT_LENGTH leaves 5"):
        connection.send(RequestBody(0, b"hello!"))
    connection.send(RequestBody(0, b"hello"))
    assert connection.data_to_send() == b"hello"


def test_a_body_shorter_than_its_content_length_is_refused() -> None:
    """4.2: the server must make at least CONTENT_LENGTH bytes available."""
    connection = requesting("BODY")
    connection.send(RequestBody(0, b"hell"))
    with pytest.raises(LocalProtocolError, match="1 bytes shorter"):
        connection.send(EndOfRequest(0))
    connection.send(RequestBody(0, b"o"))
    connection.send(EndOfRequest(0))


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


def test_an_aborted_request_hears_nothing() -> None:
    connection = requesting("BODY")
    connection.send(RequestAborted(0))
    assert connection.must_close
    assert connection.receive_data(b"Status: 200 OK\r\n\r\n") == []
    assert connection.receive_data(b"") == []


@each_chunking
def test_the_answer_ends_with_standard_output(chunks: Any) -> None:
    """6.4: the body is everything up to end of file."""
    connection = requesting("COMPLETE")
    answer = b"Content-Type: text/plain\n\nhello"
    assert merged(replay(connection, answer, chunks)) == [
        ANSWER,
        ResponseBody(0, b"hello"),
        EndOfResponse(0),
    ]
    assert connection.must_close


def test_a_script_may_answer_without_reading_the_body() -> None:
    """4.2: it is not obliged to read any of the data."""
    events = replay(requesting("BODY"), b"Status: 200 OK\n\n")
    assert events == [Response(0, "200 OK", []), EndOfResponse(0)]


@pytest.mark.parametrize("answer", [b"", b"Sta", b"Status: 200 OK\r\n"])
def test_a_script_that_ends_without_a_head_has_not_answered(answer: bytes) -> None:
    """6.1: a script must always give a non-empty answer."""
    (event,) = replay(requesting("COMPLETE"), answer)
    assert isinstance(event, RequestAborted)
    assert isinstance(event.error, TruncatedMessage)
    assert event.error.status_hint == 502


@each_chunking
@pytest.mark.parametrize("answer", [b"Traceback (most recent call last):\n", b"x" * 65537, b"\n"])
def test_an_answer_without_a_head_is_a_fault(answer: bytes, chunks: Any) -> None:
    connection = requesting("COMPLETE")
    with pytest.raises(RemoteProtocolError) as caught:
        replay(connection, answer, chunks)
    assert caught.value.events == []
    assert connection.must_close
    assert connection.receive_data(b"more") == []


def test_an_answer_before_the_request_is_a_fault() -> None:
    connection = cgi.ClientConnection()
    with pytest.raises(RemoteProtocolError, match="before a request"):
        connection.receive_data(b"S")
    with pytest.raises(LocalProtocolError):
        connection.send(Request(0, []))


def test_a_child_that_closed_first_cannot_be_asked() -> None:
    connection = cgi.ClientConnection()
    assert connection.receive_data(b"") == []
    assert connection.must_close
    with pytest.raises(LocalProtocolError):
        connection.send(Request(0, []))


def test_both_ends_have_the_types_of_the_contract() -> None:
    server_end: interface.ServerConnection = cgi.ServerConnection()
    client_end: interface.ClientConnection = cgi.ClientConnection()
    assert (server_end.protocol, client_end.protocol) == ("CGI", "CGI")


# Any bytes, any cuts.

names = st.sampled_from([b"CONTENT_LENGTH", b"HTTP_TRANSFER_ENCODING", b"X", b"Y"])
values = st.one_of(st.sampled_from([b"3", b"07", b"", b"chunked", b"-1"]), st.binary(max_size=5))
cuts = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = turn = 0
    while start < len(data):
        end = start + sizes[turn % len(sizes)]
        yield data[start:end]
        start, turn = end, turn + 1


@settings(deadline=None)  # the machine may be busy; the suite has its own time limit
@given(st.lists(st.tuples(names, values), max_size=4), st.binary(max_size=20), cuts)
def test_any_request_gives_the_same_events_however_cut(
    pairs: Pairs, stdin: bytes, sizes: list[int]
) -> None:
    def outcome(sizes: list[int]) -> list[Event]:
        connection = cgi.ServerConnection()
        events = connection.receive_variables(pairs)
        return merged(events + replay(connection, stdin, lambda data: cut(data, sizes)))

    once = outcome([len(stdin) + 1])
    assert outcome(sizes) == once
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
    variables: dict[bytes, bytes], body: bytes, sizes: list[int]
) -> None:
    variables[b"CONTENT_LENGTH"] = b"%d" % len(body)
    client = cgi.ClientConnection()
    client.send(Request(0, list(variables.items())))
    client.send(RequestBody(0, body))
    client.send(EndOfRequest(0))
    connection = cgi.ServerConnection()
    events = connection.receive_variables(list(client.environment.items()))
    events += replay(connection, client.data_to_send(), lambda data: cut(data, sizes))
    assert merged(events) == [
        Request(0, list(variables.items())),
        *([RequestBody(0, body)] if body else []),
        EndOfRequest(0),
    ]


@settings(deadline=None)  # the machine may be busy; the suite has its own time limit
@given(st.binary(max_size=50), cuts)
def test_the_client_end_receives_what_the_server_end_sends(body: bytes, sizes: list[int]) -> None:
    server = answering("HEAD")
    for event in (ANSWER, ResponseBody(0, body), EndOfResponse(0)):
        server.send(event)
    client = requesting("COMPLETE")
    events = replay(client, server.data_to_send(), lambda data: cut(data, sizes))
    assert merged(events) == [
        ANSWER,
        *([ResponseBody(0, body)] if body else []),
        EndOfResponse(0),
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
        "gateways.errors",
        "gateways.events",
        "gateways.response",
    }


def _modules(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return set(done.stdout.split())


def test_run_answers_through_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        gateways.server.cgi, "run", lambda *args, **options: calls.append((args, options))
    )
    application: Any = object()
    cgi.run(application, debug=True)
    assert calls == [((application,), {"debug": True})]
