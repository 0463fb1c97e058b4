"""SCGI, both ends, by the bytes.  "SCGI 3" is a section of the SCGI text of 2008-06-23."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateways import scgi, server
from gateways.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from gateways.events import (
    EndOfRequest,
    EndOfResponse,
    Event,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
)
from gateways.testing import Pieces
from tests.corpus import CHUNKERS, Chunker, capture, merged, replay, whole

# The example of SCGI 4.
EXAMPLE_VARIABLES = [
    (b"CONTENT_LENGTH", b"27"),
    (b"SCGI", b"1"),
    (b"REQUEST_METHOD", b"POST"),
    (b"REQUEST_URI", b"/deepthought"),
]
EXAMPLE_BODY = b"What is the answer to life?"
EXAMPLE = (
    b"70:CONTENT_LENGTH\x0027\0SCGI\x001\0REQUEST_METHOD\0POST\0REQUEST_URI\0/deepthought\0,"
    + EXAMPLE_BODY
)
EXAMPLE_EVENTS = [Request(0, EXAMPLE_VARIABLES), RequestBody(0, EXAMPLE_BODY), EndOfRequest(0)]
EXAMPLE_ANSWER = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n42"

HEAD = b"CONTENT_LENGTH\x000\0SCGI\x001\0"
ANSWER = Response(0, "200 OK", [("Content-Type", "text/plain")])

each_chunking = pytest.mark.parametrize("chunks", CHUNKERS.values(), ids=CHUNKERS)


def netstring(data: bytes) -> bytes:
    return b"%d:%b," % (len(data), data)


def request(*pairs: tuple[bytes, bytes], body: bytes = b"") -> bytes:
    """A request with the headers that every request has, and `pairs`."""
    headers = [(b"CONTENT_LENGTH", b"%d" % len(body)), (b"SCGI", b"1"), *pairs]
    return netstring(b"".join(b"%b\0%b\0" % pair for pair in headers)) + body


# The server end: what it receives.


@each_chunking
def test_the_example_of_the_specification_is_received(chunks: Any) -> None:
    assert merged(replay(scgi.ServerConnection(), EXAMPLE, chunks)) == EXAMPLE_EVENTS


def test_a_request_without_a_body_is_complete_with_its_headers() -> None:
    """SCGI 3: CONTENT_LENGTH is always there, even if it is 0."""
    events = scgi.ServerConnection().receive_data(request())
    assert [type(event) for event in events] == [Request, EndOfRequest]


def test_the_body_is_handed_on_as_it_arrives() -> None:
    connection = scgi.ServerConnection()
    head = len(EXAMPLE) - len(EXAMPLE_BODY)
    assert connection.receive_data(EXAMPLE[: head + 4]) == [
        Request(0, EXAMPLE_VARIABLES),
        RequestBody(0, b"What"),
    ]
    assert connection.receive_data(b" is") == [RequestBody(0, b" is")]


def test_an_empty_value_is_a_value() -> None:
    """SCGI 3: value ::= notnull*, though a name has at least one byte."""
    (received, _) = scgi.ServerConnection().receive_data(request((b"QUERY_STRING", b"")))
    assert isinstance(received, Request)
    assert received.variables[-1] == (b"QUERY_STRING", b"")


def test_names_and_values_keep_every_byte_but_nul() -> None:
    pair = (b"X=,:\xff\n", bytes(range(1, 256)))
    (received, _) = scgi.ServerConnection().receive_data(request(pair))
    assert isinstance(received, Request)
    assert received.variables[-1] == pair


def test_repeated_names_are_kept_in_order() -> None:
    """SCGI 3 forbids them, but nginx sends HTTP_COOKIE once for each Cookie line."""
    events = replay(scgi.ServerConnection(), capture("nginx-scgi-root-auth").data)
    assert isinstance(events[0], Request)
    cookies = [value for name, value in events[0].variables if name == b"HTTP_COOKIE"]
    assert cookies == [b"c1=1", b"c2=2"]


@pytest.mark.parametrize("more", [b"x", b"12:another one,", EXAMPLE, b"\0" * 100000])
def test_bytes_past_the_body_are_ignored(more: bytes) -> None:
    """nginx without request buffering announces only what it holds and then sends the rest."""
    connection = scgi.ServerConnection()
    assert connection.receive_data(EXAMPLE + more) == EXAMPLE_EVENTS
    assert connection.receive_data(more) == []
    connection.send(ANSWER)
    assert not connection.must_close


def test_the_length_that_nginx_gives_a_slow_upload_is_the_length_of_the_body() -> None:
    """CONTENT_LENGTH says 1000 and HTTP_CONTENT_LENGTH 3000: the protocol's own word counts."""
    events = merged(
        replay(scgi.ServerConnection(), capture("nginx-scgi-stream-slowpost").data + b"x" * 2000)
    )
    assert isinstance(events[0], Request)
    assert (b"HTTP_CONTENT_LENGTH", b"3000") in events[0].variables
    assert isinstance(events[1], RequestBody)
    assert len(events[1].data) == 1000
    assert events[2:] == [EndOfRequest(0)]


def test_a_length_with_leading_zeros_is_a_sequence_of_digits() -> None:
    """SCGI 3 asks CONTENT_LENGTH for ASCII digits and no more; only the netstring forbids zeros."""
    data = netstring(b"CONTENT_LENGTH\x00003\0SCGI\x001\0") + b"abc"
    assert merged(replay(scgi.ServerConnection(), data))[1:] == [
        RequestBody(0, b"abc"),
        EndOfRequest(0),
    ]


def test_a_request_head_is_pending_from_its_first_byte_to_its_last() -> None:
    connection = scgi.ServerConnection()
    assert not connection.head_pending
    for byte in EXAMPLE[: -len(EXAMPLE_BODY) - 1]:
        connection.receive_data(bytes([byte]))
        assert connection.head_pending
    connection.receive_data(b",")
    assert not connection.head_pending


# The server end: end of file.


def test_a_connection_that_closes_without_a_byte_is_no_fault() -> None:
    connection = scgi.ServerConnection()
    assert connection.receive_data(b"") == []
    assert connection.must_close
    assert connection.receive_data(EXAMPLE) == []


@pytest.mark.parametrize("length", [1, 2, 3, 40, len(EXAMPLE) - len(EXAMPLE_BODY) - 1])
def test_end_of_file_inside_the_headers_is_a_fault(length: int) -> None:
    connection = scgi.ServerConnection()
    assert connection.receive_data(EXAMPLE[:length]) == []
    with pytest.raises(TruncatedMessage, match="inside the headers"):
        connection.receive_data(b"")
    assert connection.must_close


@each_chunking
def test_end_of_file_inside_the_body_aborts_the_request(chunks: Any) -> None:
    events = merged(replay(scgi.ServerConnection(), EXAMPLE[:-7], chunks))
    assert events[1] == RequestBody(0, b"What is the answer t")
    assert isinstance(events[2], RequestAborted)
    assert isinstance(events[2].error, TruncatedMessage)
    assert "20 of 27 bytes" in str(events[2].error)


# The server end: what it refuses.

FAULTS = {
    "a length with a plus sign": (b"+10:", "'+' where an ASCII digit belongs"),
    "a length with an underscore": (b"1_0:", "'_' where an ASCII digit belongs"),
    "a length with a space": (b" 10:", "' ' where an ASCII digit belongs"),
    "a length with a space after it": (b"10 :", "' ' where an ASCII digit belongs"),
    "a length in Arabic digits": ("٣:".encode(), "where an ASCII digit belongs"),
    "a negative length": (b"-1:", "'-' where an ASCII digit belongs"),
    "a hexadecimal length": (b"0x46:", "'x' where an ASCII digit belongs"),
    "no length": (b":CONTENT_LENGTH", "':' where an ASCII digit belongs"),
    "a length with a leading zero (netstrings)": (b"070" + EXAMPLE[2:], "begins with '0'"),
    "a length of several zeros (netstrings)": (b"00:,", "begins with '0'"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "'G' where an ASCII digit belongs"),
    "FastCGI": (b"\1\1\0\1\0\x08\0\0", r"x01' where an ASCII digit belongs"),
    "a NUL": (b"\0", r"x00' where an ASCII digit belongs"),
    "no comma": (EXAMPLE.replace(b"\0,", b"\0;"), "end with b';', expected ','"),
    "a length that is too short": (b"69" + EXAMPLE[2:], "expected ','"),
    "a length that is too long": (b"71" + EXAMPLE[2:], "expected ','"),
    "no headers": (b"0:,", "headers are empty"),
    "headers that do not end with NUL": (netstring(HEAD[:-1]), "end without NUL"),
    "a name without a value": (netstring(HEAD + b"X\0"), "a name and no value"),
    "an empty name": (netstring(HEAD + b"\0x\0"), "an empty name"),
    "two empty strings": (netstring(HEAD + b"\0\0"), "an empty name"),
    "CONTENT_LENGTH not first (SCGI 3)": (
        netstring(b"SCGI\x001\0CONTENT_LENGTH\x000\0"),
        "the first header is b'SCGI', expected CONTENT_LENGTH",
    ),
    "CONTENT_LENGTH absent (SCGI 3)": (
        netstring(b"SCGI\x001\0REQUEST_METHOD\0GET\0"),
        "the first header is b'SCGI'",
    ),
    "CONTENT_LENGTH in small letters": (
        netstring(HEAD.replace(b"CONTENT_LENGTH", b"content_length")),
        "the first header is b'content_length'",
    ),
    "CONTENT_LENGTH empty (SCGI 3)": (netstring(HEAD.replace(b"0", b"")), "is b''"),
    "CONTENT_LENGTH twice (SCGI 3)": (
        netstring(HEAD + b"CONTENT_LENGTH\x000\0"),
        "CONTENT_LENGTH is there twice",
    ),
    "SCGI absent (SCGI 3)": (netstring(b"CONTENT_LENGTH\x000\0"), "no header SCGI"),
    "SCGI not 1 (SCGI 3)": (netstring(HEAD.replace(b"\x001", b"\x002")), "no header SCGI"),
    "SCGI twice (SCGI 3)": (netstring(HEAD + b"SCGI\x001\0"), "SCGI is there twice"),
} | {
    f"CONTENT_LENGTH is {value!r}": (
        netstring(b"CONTENT_LENGTH\0%b\0SCGI\x001\0" % value.encode()),
        "expected ASCII digits",
    )
    for value in ("+10", "1_0", " 10", "10 ", "٣", "²", "-1", "0x10", "1.0", "1e3", "10,10")
}

LIMITS = {
    "a length of eleven digits": (b"99999999999:", "headers are over 131072 bytes"),
    "a length without an end": (b"1" * 1000, "headers are over 131072 bytes"),
    "a length one over the limit": (b"131073:", "headers are over 131072 bytes"),
    "too many headers": (netstring(HEAD + b"X\0\0" * 999), "over 1000 headers"),
    "a CONTENT_LENGTH of nineteen digits": (
        netstring(b"CONTENT_LENGTH\0" + b"1" * 19 + b"\0SCGI\x001\0"),
        "has 19 digits",
    ),
    "a CONTENT_LENGTH that int() would take long for": (
        netstring(b"CONTENT_LENGTH\0" + b"9" * 100000 + b"\0SCGI\x001\0"),
        "has 100000 digits",
    ),
}


@pytest.mark.parametrize(("data", "words"), FAULTS.values(), ids=FAULTS)
@each_chunking
def test_a_malformed_head_is_refused(data: bytes, words: str, chunks: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        replay(scgi.ServerConnection(), data + b"more", chunks)
    assert words in str(caught.value)
    assert not isinstance(caught.value, LimitExceeded | TruncatedMessage)
    assert (caught.value.protocol, caught.value.status_hint) == ("SCGI", 400)
    assert caught.value.events == []


@pytest.mark.parametrize(("data", "words"), LIMITS.values(), ids=LIMITS)
@each_chunking
def test_a_head_over_a_limit_is_refused(data: bytes, words: str, chunks: Any) -> None:
    with pytest.raises(LimitExceeded, match=words) as caught:
        replay(scgi.ServerConnection(), data + b"more", chunks)
    assert caught.value.status_hint == (413 if "digits" in words else 431)
    assert caught.value.events == []


def test_a_fault_may_be_answered_and_ends_the_connection() -> None:
    connection = scgi.ServerConnection()
    with pytest.raises(RemoteProtocolError):
        connection.receive_data(b"GET / HTTP/1.1\r\n")
    assert connection.must_close
    assert not connection.head_pending
    connection.send(Response(0, "400 Bad Request", []))
    connection.send(ResponseBody(0, b"no"))
    connection.send(EndOfResponse(0))
    assert connection.data_to_send() == b"Status: 400 Bad Request\r\n\r\nno"


@pytest.mark.parametrize("more", [EXAMPLE, b"x", b""])
def test_nothing_is_received_after_a_fault(more: bytes) -> None:
    connection = scgi.ServerConnection()
    with pytest.raises(RemoteProtocolError):
        connection.receive_data(b"x")
    assert connection.receive_data(more) == []


def test_the_limits_are_the_largest_sizes_that_pass() -> None:
    body = b"".join(b"%b\0%b\0" % (b"X%d" % i, b"v") for i in range(3))
    headers = HEAD + body
    exact = {"max_variables": 5, "max_variable_bytes": len(headers)}
    assert len(scgi.ServerConnection(**exact).receive_data(netstring(headers))) == 2
    for name in exact:
        with pytest.raises(LimitExceeded):
            scgi.ServerConnection(**exact | {name: exact[name] - 1}).receive_data(
                netstring(headers)
            )


def test_a_length_field_allocates_nothing() -> None:
    """CONTENT_LENGTH=10**12 and then nothing: memory stays flat."""
    data = netstring(b"CONTENT_LENGTH\x001000000000000\0SCGI\x001\0")
    tracemalloc.start()
    try:
        for prefix in (b"131072:", b"99999:CONTENT_LENGTH", data):
            scgi.ServerConnection().receive_data(prefix)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_the_cost_of_a_head_is_linear_in_its_bytes() -> None:
    """Eight times the bytes, one by one, cost about eight times the time; quadratic would be 64."""

    def cost(size: int) -> float:
        data = request((b"X", b"x" * size))
        best = 60.0
        for _ in range(3):
            connection = scgi.ServerConnection()
            start = time.perf_counter()
            for where in range(len(data)):
                connection.receive_data(data[where : where + 1])
            best = min(best, time.perf_counter() - start)
        return best

    assert cost(120_000) < 32 * cost(15_000)


# The server end: what it sends.


def test_the_answer_of_the_specification_is_sent() -> None:
    """SCGI 2: the server sends its answer and closes the connection."""
    connection = scgi.ServerConnection()
    connection.receive_data(EXAMPLE)
    connection.send(ANSWER)
    connection.send(ResponseBody(0, b"4"))
    connection.send(ResponseBody(0, b"2"))
    connection.send(EndOfResponse(0))
    assert connection.data_to_send() == EXAMPLE_ANSWER
    assert connection.must_close


# The client end.


def test_the_example_of_the_specification_is_sent() -> None:
    connection = scgi.ClientConnection()
    connection.send(Request(0, EXAMPLE_VARIABLES))
    connection.send(RequestBody(0, EXAMPLE_BODY[:10]))
    connection.send(RequestBody(0, EXAMPLE_BODY[10:]))
    connection.send(EndOfRequest(0))
    assert connection.data_to_send() == EXAMPLE
    assert connection.data_to_send() == b""


@pytest.mark.parametrize(
    "variables",
    [
        EXAMPLE_VARIABLES[::-1],
        [*EXAMPLE_VARIABLES[2:], (b"CONTENT_LENGTH", b"27")],
    ],
    ids=["backwards", "SCGI absent"],
)
def test_content_length_is_sent_first_and_scgi_always(
    variables: list[tuple[bytes, bytes]],
) -> None:
    """SCGI 3: the first header is CONTENT_LENGTH, and there is always SCGI with the value 1."""
    connection = scgi.ClientConnection()
    connection.send(Request(0, variables))
    sent = connection.data_to_send()
    assert sent.startswith(b"70:CONTENT_LENGTH\x0027\0SCGI\x001\0")
    assert len(sent) == 74


@pytest.mark.parametrize("variables", [[], [(b"CONTENT_LENGTH", b"")]], ids=["absent", "empty"])
def test_no_content_length_is_sent_as_0(variables: list[tuple[bytes, bytes]]) -> None:
    """SCGI 3: always present, even if its value is 0.  RFC 3875 4.1.2: empty means no body."""
    connection = scgi.ClientConnection()
    connection.send(Request(0, variables))
    connection.send(EndOfRequest(0))
    assert connection.data_to_send() == netstring(HEAD)


BAD_REQUESTS = {
    "NUL in a name": [(b"A\0B", b"")],
    "NUL in a value": [(b"A", b"\0")],
    "an empty name": [(b"", b"x")],
    "CONTENT_LENGTH twice": [(b"CONTENT_LENGTH", b"0")] * 2,
    "CONTENT_LENGTH empty, then given": [(b"CONTENT_LENGTH", b""), (b"CONTENT_LENGTH", b"1")],
    "SCGI twice": [(b"SCGI", b"1")] * 2,
    "another SCGI": [(b"SCGI", b"2")],
    "CONTENT_LENGTH -1": [(b"CONTENT_LENGTH", b"-1")],
    "CONTENT_LENGTH 1_0": [(b"CONTENT_LENGTH", b"1_0")],
    "CONTENT_LENGTH too long": [(b"CONTENT_LENGTH", b"1" * 19)],
}


@pytest.mark.parametrize("variables", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_variables_that_scgi_cannot_carry_are_refused(
    variables: list[tuple[bytes, bytes]],
) -> None:
    connection = scgi.ClientConnection()
    with pytest.raises(LocalProtocolError):
        connection.send(Request(0, variables))
    assert connection.data_to_send() == b""
    connection.send(Request(0, []))
    assert connection.data_to_send() == netstring(HEAD)


# Any bytes, any cuts.

names = st.binary(min_size=1, max_size=12).map(lambda name: b"X" + name.replace(b"\0", b""))
values = st.binary(max_size=30).map(lambda value: value.replace(b"\0", b""))
variables = st.lists(st.tuples(names, values), max_size=8)
bodies = st.binary(max_size=60)
cuts = st.lists(st.integers(1, 20), min_size=1, max_size=6).map(lambda sizes: Pieces(*sizes))


@st.composite
def broken_requests(draw: st.DrawFn) -> bytes:
    """A request with some bytes replaced, so that every rule is met and broken somewhere."""
    data = request(*draw(variables), body=draw(bodies))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 4)))
    return data[:start] + draw(st.binary(max_size=4)) + data[end:]


@settings(deadline=None)  # the machine may be busy; the suite has its own time limit
@given(st.one_of(st.binary(max_size=80), broken_requests()), cuts)
@example(b"0", Pieces(1))
@example(b"0:x", Pieces(1))
@example(b"123x", Pieces(1))
@example(b"1234x", Pieces(1))
def test_any_bytes_give_the_server_end_the_same_events_however_cut(
    data: bytes, cut: Pieces
) -> None:
    def outcome(chunks: Chunker) -> tuple[list[Event], str]:
        connection = scgi.ServerConnection(max_variable_bytes=400, max_variables=9)
        try:
            return merged(replay(connection, data, chunks)), ""
        except RemoteProtocolError as error:
            return merged(error.events), repr(error)

    once = outcome(whole)
    assert outcome(cut) == once
    state = "HEAD"
    for event in once[0]:
        assert type(event) in scgi.ServerConnection.RECEIVED[state]
        state = scgi.ServerConnection.RECEIVED[state][type(event)]


@settings(deadline=None)  # the machine may be busy; the suite has its own time limit
@given(variables, bodies, cuts)
def test_the_server_end_receives_what_the_client_end_sends(
    pairs: list[tuple[bytes, bytes]], body: bytes, cut: Pieces
) -> None:
    client = scgi.ClientConnection()
    length = (b"CONTENT_LENGTH", b"%d" % len(body))
    client.send(Request(0, [*pairs, length]))
    client.send(RequestBody(0, body))
    client.send(EndOfRequest(0))
    assert merged(replay(scgi.ServerConnection(), client.data_to_send(), cut)) == [
        Request(0, [length, (b"SCGI", b"1"), *pairs]),
        *([RequestBody(0, body)] if body else []),
        EndOfRequest(0),
    ]


# The front door.


def test_serve_takes_bare_addresses_for_scgi(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda *args, **options: calls.append((args, options)))
    application: Any = object()
    scgi.serve(application)
    scgi.serve(application, "127.0.0.1:5000", "unix:/run/app.sock", threads=2)
    assert calls == [
        ((application,), {"default_protocol": "scgi"}),
        (
            (application, "127.0.0.1:5000", "unix:/run/app.sock"),
            {"default_protocol": "scgi", "threads": 2},
        ),
    ]
