"""What CGI and SCGI share: the body of one request and one answer, at both ends.

Sections are those of RFC 3875.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import cgi, interface, scgi
from gateways.document import DocumentServer, Table
from gateways.documentclient import DocumentClient
from gateways.errors import LocalProtocolError, RemoteProtocolError, TruncatedMessage
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
from gateways.testing import Pieces
from tests.corpus import CHUNKERS, Chunker, merged, replay, whole

each_protocol = pytest.mark.parametrize("protocol", [cgi, scgi], ids=["CGI", "SCGI"])
each_chunking = pytest.mark.parametrize("chunks", CHUNKERS.values(), ids=CHUNKERS)

VARIABLES = [(b"CONTENT_LENGTH", b"5"), (b"SCGI", b"1")]
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


Server = cgi.ServerConnection | scgi.ServerConnection


def answering(protocol: ModuleType, state: str) -> Server:
    """A server end whose answer is in `state`; five bytes of body are announced."""
    connection: Server = protocol.ServerConnection()
    if state == "IDLE":
        return connection
    if isinstance(connection, cgi.ServerConnection):
        connection.receive_variables(VARIABLES)
    else:
        connection.receive_data(b"24:CONTENT_LENGTH\x005\0SCGI\x001\0,")
    if state in ("BODY", "ENDED"):
        connection.send(ANSWER)
    if state == "ENDED":
        connection.send(EndOfResponse(0))
    connection.data_to_send()
    return connection


def requesting(protocol: ModuleType, state: str) -> DocumentClient:
    """A client end whose request is in `state`; five bytes of body are announced."""
    connection: DocumentClient = protocol.ClientConnection()
    if state != "IDLE":
        connection.send(Request(0, VARIABLES))
    if state == "COMPLETE":
        connection.send(RequestBody(0, b"hello"))
        connection.send(EndOfRequest(0))
    if state == "ENDED":
        connection.send(RequestAborted(0))
    connection.data_to_send()
    return connection


# The server end: the body of the request.


@each_protocol
def test_the_body_is_handed_on_as_it_arrives(protocol: ModuleType) -> None:
    connection = answering(protocol, "HEAD")
    assert connection.receive_data(b"he") == [RequestBody(0, b"he")]
    assert connection.receive_data(b"llo") == [RequestBody(0, b"llo"), EndOfRequest(0)]


@each_protocol
@each_chunking
def test_end_of_file_inside_the_body_aborts_the_request(
    protocol: ModuleType, chunks: Chunker
) -> None:
    connection = answering(protocol, "HEAD")
    body, aborted = merged(replay(connection, b"hel", chunks))
    assert body == RequestBody(0, b"hel")
    assert isinstance(aborted, RequestAborted)
    assert isinstance(aborted.error, TruncatedMessage)
    assert "3 of 5 bytes" in str(aborted.error)
    assert connection.receive_data(b"lo") == []


@each_protocol
def test_an_aborted_request_may_still_be_answered(protocol: ModuleType) -> None:
    connection = answering(protocol, "HEAD")
    connection.receive_data(b"hell")
    connection.receive_data(b"")
    assert not connection.must_close
    connection.send(Response(0, "400 Bad Request", []))
    connection.send(EndOfResponse(0))
    assert connection.data_to_send() == b"Status: 400 Bad Request\r\n\r\n"
    assert connection.must_close


@each_protocol
def test_a_half_closed_peer_still_gets_its_answer(protocol: ModuleType) -> None:
    connection = answering(protocol, "HEAD")
    connection.receive_data(b"hello")
    assert connection.receive_data(b"") == []
    assert connection.receive_data(b"") == []
    assert not connection.must_close
    connection.send(ANSWER)
    assert connection.data_to_send().startswith(b"Status: 200 OK")


@each_protocol
def test_want_body_is_accepted_and_does_nothing(protocol: ModuleType) -> None:
    connection = answering(protocol, "HEAD")
    connection.want_body(0)
    connection.want_body(0)
    assert connection.data_to_send() == b""
    assert connection.receive_data(b"hello") == [RequestBody(0, b"hello"), EndOfRequest(0)]


# The server end: the answer.


@each_protocol
def test_the_answer_is_a_document_response(protocol: ModuleType) -> None:
    """6.2.1, 6.3.3, 6.4: header fields with a Status, an empty line, and the body as it is."""
    connection = answering(protocol, "HEAD")
    connection.send(Response(0, "404 Not Found", [("Content-Type", "text/plain"), ("X", "\xe9")]))
    connection.send(ResponseBody(0, b"no\n"))
    connection.send(ResponseBody(0, b"such page"))
    closes_before_the_end = connection.must_close
    connection.send(EndOfResponse(0))
    assert connection.data_to_send() == (
        b"Status: 404 Not Found\r\nContent-Type: text/plain\r\nX: \xe9\r\n\r\nno\nsuch page"
    )
    assert connection.data_to_send() == b""
    assert not closes_before_the_end
    assert connection.must_close
    assert not connection.aborted


@each_protocol
def test_an_answer_without_a_head_is_refused(protocol: ModuleType) -> None:
    """6.1: a script must always give a non-empty answer."""
    connection = answering(protocol, "HEAD")
    with pytest.raises(LocalProtocolError):
        connection.send(EndOfResponse(0))
    assert not connection.must_close


@each_protocol
def test_a_head_that_cannot_be_written_changes_nothing(protocol: ModuleType) -> None:
    connection = answering(protocol, "HEAD")
    with pytest.raises(LocalProtocolError):
        connection.send(Response(0, "200 OK", [("X", "a\r\nSet-Cookie: b")]))
    assert connection.data_to_send() == b""
    connection.send(ANSWER)
    assert connection.data_to_send().startswith(b"Status: 200 OK\r\n")


@each_protocol
def test_an_answer_may_end_before_the_body_has_arrived(protocol: ModuleType) -> None:
    """4.2: a script is not obliged to read any of the data."""
    connection = answering(protocol, "HEAD")
    connection.receive_data(b"he")
    connection.send(ANSWER)
    connection.send(EndOfResponse(0))
    assert connection.must_close
    assert connection.receive_data(b"llo") == [RequestBody(0, b"llo"), EndOfRequest(0)]


@each_protocol
@pytest.mark.parametrize("state", ["HEAD", "BODY"])
def test_an_answer_given_up_is_not_taken_for_complete(protocol: ModuleType, state: str) -> None:
    connection = answering(protocol, state)
    connection.send(RequestAborted(0))
    assert connection.must_close
    assert connection.aborted


@each_protocol
@pytest.mark.parametrize("state", ["HEAD", "BODY"])
def test_error_output_is_no_part_of_the_answer(protocol: ModuleType, state: str) -> None:
    connection = answering(protocol, state)
    connection.send(ErrorOutput(0, b"oops"))
    assert connection.data_to_send() == b""


# The tables.


def table_rows(table: Table) -> list[Any]:
    return [
        pytest.param(state, event, type(event) in row, id=f"{state}-{type(event).__name__}")
        for state, row in table.items()
        for event in EVERY_EVENT
    ]


@each_protocol
@pytest.mark.parametrize(("state", "event", "allowed"), table_rows(DocumentServer.SENT))
def test_the_server_end_sends_what_its_table_allows(
    protocol: ModuleType, state: str, event: Event, allowed: bool
) -> None:
    check_row(answering(protocol, state), event, allowed)


@each_protocol
@pytest.mark.parametrize(("state", "event", "allowed"), table_rows(DocumentClient.SENT))
def test_the_client_end_sends_what_its_table_allows(
    protocol: ModuleType, state: str, event: Event, allowed: bool
) -> None:
    if state == "BODY" and isinstance(event, EndOfRequest):
        event = RequestBody(0, b"x")  # a body must be complete before its end is another test
    check_row(requesting(protocol, state), event, allowed)


def check_row(connection: DocumentServer | DocumentClient, event: Event, allowed: bool) -> None:
    before = connection.must_close
    if allowed:
        connection.send(event)
        return
    with pytest.raises(LocalProtocolError, match=f"{type(event).__name__} cannot be sent"):
        connection.send(event)
    assert connection.data_to_send() == b""
    assert connection.must_close == before


@each_protocol
def test_a_request_id_is_refused(protocol: ModuleType) -> None:
    server_end, client_end = answering(protocol, "HEAD"), requesting(protocol, "IDLE")
    with pytest.raises(LocalProtocolError, match=f"but {server_end.protocol} has no request ids"):
        server_end.send(Response(1, "200 OK", []))
    with pytest.raises(LocalProtocolError, match=f"but {client_end.protocol} has no request ids"):
        client_end.send(Request(1, []))


def test_all_ends_have_the_types_of_the_contract() -> None:
    server_ends: list[interface.ServerConnection] = [
        cgi.ServerConnection(),
        scgi.ServerConnection(),
    ]
    client_ends: list[interface.ClientConnection] = [
        cgi.ClientConnection(),
        scgi.ClientConnection(),
    ]
    assert [end.protocol for end in server_ends] == ["CGI", "SCGI"]
    assert [end.protocol for end in client_ends] == ["CGI", "SCGI"]


# The client end.


@each_protocol
def test_a_body_longer_than_its_content_length_is_refused(protocol: ModuleType) -> None:
    connection = requesting(protocol, "BODY")
    with pytest.raises(LocalProtocolError, match="CONTENT_LENGTH leaves 5"):
        connection.send(RequestBody(0, b"hello!"))
    connection.send(RequestBody(0, b"hello"))
    assert connection.data_to_send() == b"hello"


@each_protocol
def test_a_body_shorter_than_its_content_length_is_refused(protocol: ModuleType) -> None:
    """4.2: the server must make at least CONTENT_LENGTH bytes available."""
    connection = requesting(protocol, "BODY")
    connection.send(RequestBody(0, b"hell"))
    with pytest.raises(LocalProtocolError, match="1 bytes shorter"):
        connection.send(EndOfRequest(0))
    connection.send(RequestBody(0, b"o"))
    connection.send(EndOfRequest(0))


@each_protocol
def test_an_aborted_request_sends_nothing_and_hears_nothing(protocol: ModuleType) -> None:
    connection = requesting(protocol, "BODY")
    connection.send(RequestAborted(0))
    assert connection.data_to_send() == b""
    assert connection.must_close
    assert connection.receive_data(b"Status: 200 OK\r\n\r\n") == []
    assert connection.receive_data(b"") == []


@each_protocol
@each_chunking
@pytest.mark.parametrize(
    "head",
    [b"Content-Type: text/plain\n\n", b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"],
    ids=["LF", "CRLF"],
)
def test_the_answer_ends_with_the_file(protocol: ModuleType, head: bytes, chunks: Chunker) -> None:
    """6.4: the body is everything up to end of file."""
    connection = requesting(protocol, "COMPLETE")
    assert merged(replay(connection, head + b"hello", chunks)) == [
        ANSWER,
        ResponseBody(0, b"hello"),
        EndOfResponse(0),
    ]
    assert connection.must_close


@each_protocol
@pytest.mark.parametrize("status", ["200 OK", "413 Content Too Large"])
def test_an_answer_may_end_before_the_request_does(protocol: ModuleType, status: str) -> None:
    """4.2: a script is not obliged to read any of the data."""
    events = replay(requesting(protocol, "BODY"), b"Status: %b\n\n" % status.encode())
    assert events == [Response(0, status, []), EndOfResponse(0)]


@each_protocol
@pytest.mark.parametrize("answer", [b"", b"Sta", b"Status: 200 OK\r\n"])
def test_an_answer_without_a_whole_head_is_aborted(protocol: ModuleType, answer: bytes) -> None:
    """6.1: a script must always give a non-empty answer."""
    (event,) = replay(requesting(protocol, "COMPLETE"), answer)
    assert isinstance(event, RequestAborted)
    assert isinstance(event.error, TruncatedMessage)
    assert event.error.status_hint == 502


@each_protocol
@each_chunking
@pytest.mark.parametrize("answer", [b"Traceback (most recent call last):\n", b"x" * 65537, b"\n"])
def test_an_answer_without_a_head_is_a_fault(
    protocol: ModuleType, answer: bytes, chunks: Chunker
) -> None:
    connection = requesting(protocol, "COMPLETE")
    with pytest.raises(RemoteProtocolError) as caught:
        replay(connection, answer, chunks)
    assert caught.value.events == []
    assert connection.must_close
    assert connection.receive_data(b"more") == []
    assert connection.receive_data(b"") == []


@each_protocol
def test_an_answer_before_the_request_is_a_fault(protocol: ModuleType) -> None:
    connection = requesting(protocol, "IDLE")
    with pytest.raises(RemoteProtocolError, match="before a request"):
        connection.receive_data(b"S")
    with pytest.raises(LocalProtocolError):
        connection.send(Request(0, []))


@each_protocol
def test_a_peer_that_closed_first_cannot_be_asked(protocol: ModuleType) -> None:
    connection = requesting(protocol, "IDLE")
    assert connection.receive_data(b"") == []
    assert connection.must_close
    with pytest.raises(LocalProtocolError):
        connection.send(Request(0, []))


# Any bytes, any cuts.

cuts = st.lists(st.integers(1, 20), min_size=1, max_size=6).map(lambda sizes: Pieces(*sizes))
lines = st.sampled_from([b"Status: 200 OK\r\n", b"Location: /\n", b"X: y\r\n", b"\n"])
header_values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=20
).map(lambda value: value.strip(" "))
headers = st.lists(st.tuples(st.from_regex(r"\AX-[A-Za-z0-9-]{1,10}\Z"), header_values), max_size=6)


@each_protocol
@settings(deadline=None)  # the machine may be busy; the suite has its own time limit
@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(lambda line, rest: line + b"\n" + rest, lines, st.binary(max_size=40)),
    ),
    cuts,
)
def test_any_bytes_give_the_client_end_the_same_events_however_cut(
    protocol: ModuleType, data: bytes, cut: Pieces
) -> None:
    def outcome(chunks: Chunker) -> tuple[list[Event], str]:
        try:
            return merged(replay(requesting(protocol, "COMPLETE"), data, chunks)), ""
        except RemoteProtocolError as error:
            return merged(error.events), repr(error)

    once = outcome(whole)
    assert outcome(cut) == once
    state = "HEAD"
    for event in once[0]:
        assert type(event) in DocumentClient.RECEIVED[state]
        state = DocumentClient.RECEIVED[state][type(event)]


@each_protocol
@settings(deadline=None)  # the machine may be busy; the suite has its own time limit
@given(
    st.sampled_from(["200 OK", "404 Not Found", "299 Odd"]), headers, st.binary(max_size=60), cuts
)
def test_the_client_end_receives_what_the_server_end_sends(
    protocol: ModuleType, status: str, fields: list[tuple[str, str]], body: bytes, cut: Pieces
) -> None:
    connection = answering(protocol, "HEAD")
    connection.send(Response(0, status, fields))
    connection.send(ResponseBody(0, body))
    connection.send(EndOfResponse(0))
    received = replay(requesting(protocol, "COMPLETE"), connection.data_to_send(), cut)
    assert merged(received) == [
        Response(0, status, fields),
        *([ResponseBody(0, body)] if body else []),
        EndOfResponse(0),
    ]
