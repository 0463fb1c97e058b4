"""Whole requests and whole answers: `receive_whole`, WholeAnswer, ResponseFile, `factory`.

What may take the short cut, what must not, and that nothing else differs.
"""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from gateways import cgi, fastcgi, scgi
from gateways.errors import LocalProtocolError
from gateways.events import (
    AUTHORIZER,
    FILTER,
    RESPONDER,
    EndOfRequest,
    EndOfResponse,
    ErrorOutput,
    Event,
    FileRange,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
    ResponseFile,
    WholeAnswer,
)
from gateways.fastcgi import encode_pairs
from gateways.interface import ServerConnection
from gateways.response import write_head
from gateways.testing import Pair, content_of, expanded, merged
from tests.twins import Twins

TEXT = [("Content-Type", "text/plain")]
PAIRS = [(b"REQUEST_METHOD", b"GET"), (b"QUERY_STRING", b""), (b"PATH_INFO", b"/caf\xc3\xa9")]
# nginx's fastcgi_params with the lines that set some of them again, and two Cookie lines.
REPEATED = [
    (b"SCRIPT_NAME", b"/whole"),
    (b"HTTP_HOST", b"localhost"),
    (b"SCRIPT_NAME", b""),
    (b"PATH_INFO", b"/whole"),
    (b"HTTP_HOST", b"localhost:8080"),
    (b"HTTP_COOKIE", b"a=1"),
    (b"HTTP_COOKIE", b"b=2"),
]


def record(kind: int, request_id: int, content: bytes = b"", padding: int = 0) -> bytes:
    """A record, written without the package's help."""
    lengths = len(content).to_bytes(2, "big") + bytes([padding, 0])
    return bytes([1, kind]) + request_id.to_bytes(2, "big") + lengths + content + b"\xaa" * padding


def begin(request_id: int = 1, flags: int = 1, role: int = 1) -> bytes:
    return record(1, request_id, bytes([0, role, flags, 0, 0, 0, 0, 0]))


def fcgi(
    pairs: list[tuple[bytes, bytes]] | bytes = PAIRS,
    *bodies: bytes,
    request_id: int = 1,
    flags: int = 1,
    role: int = 1,
    padding: int = 0,
) -> bytes:
    """A FastCGI request whose body comes in the given records."""
    block = pairs if isinstance(pairs, bytes) else encode_pairs(pairs)
    return (
        begin(request_id, flags, role)
        + record(4, request_id, block, padding)
        + record(4, request_id)
        + b"".join(record(5, request_id, body, padding) for body in bodies)
        + record(5, request_id)
    )


def netstring(data: bytes) -> bytes:
    return b"%d:%b," % (len(data), data)


def scgi_request(*pairs: tuple[bytes, bytes], body: bytes = b"") -> bytes:
    headers = [(b"CONTENT_LENGTH", b"%d" % len(body)), (b"SCGI", b"1"), *pairs]
    return netstring(b"".join(b"%b\0%b\0" % pair for pair in headers)) + body


def new(protocol: str) -> ServerConnection:
    return fastcgi.ServerConnection() if protocol == "FastCGI" else scgi.ServerConnection()


PLAIN: dict[str, tuple[str, bytes]] = {
    "FastCGI": ("FastCGI", fcgi()),
    "FastCGI, closed afterwards": ("FastCGI", fcgi(flags=0)),
    "FastCGI, id 2": ("FastCGI", fcgi(request_id=2)),
    "FastCGI, id 256": ("FastCGI", fcgi(request_id=256)),
    "FastCGI, id 65535, closed": ("FastCGI", fcgi(request_id=65535, flags=0)),
    "FastCGI, padded": ("FastCGI", fcgi(padding=255)),
    "FastCGI, ASCII only": ("FastCGI", fcgi([(b"A", b"b"), (b"C", b"")])),
    "FastCGI, a long value": ("FastCGI", fcgi([(b"A", b"v" * 128), (b"B", b"b")])),
    "FastCGI, a long name": ("FastCGI", fcgi([(b"A" * 300, b"v"), (b"B", b"b")])),
    "FastCGI, long for no reason": (
        "FastCGI",
        fcgi(b"\x80\0\0\1\x80\0\0\1AB" + b"\1\1CD"),
    ),
    "FastCGI, the longest record": ("FastCGI", fcgi([(b"A", b"v" * 65529)])),
    "FastCGI, any bytes": ("FastCGI", fcgi([(b"\xff\x01", bytes(range(256)))])),
    "FastCGI, repeated names": ("FastCGI", fcgi(REPEATED)),
    "FastCGI, a repeated length": (
        "FastCGI",
        fcgi([(b"CONTENT_LENGTH", b"4"), (b"CONTENT_LENGTH", b"5")], b"body"),
    ),
    "SCGI, repeated names": ("SCGI", scgi_request(*REPEATED)),
    "FastCGI, a body": ("FastCGI", fcgi(PAIRS, b"body")),
    "FastCGI, a body in pieces": ("FastCGI", fcgi(PAIRS, b"b", b"o", b"dy")),
    "FastCGI, a padded body": ("FastCGI", fcgi(PAIRS, b"bo", b"dy", padding=6)),
    "FastCGI, a large body": ("FastCGI", fcgi(PAIRS, b"x" * 65535, b"y" * 9)),
    "SCGI": ("SCGI", scgi_request(*PAIRS)),
    "SCGI, a body": ("SCGI", scgi_request(*PAIRS, body=b"bo\0dy")),
    "SCGI, a large body": ("SCGI", scgi_request(*PAIRS, body=bytes(100_000))),
    "SCGI, any bytes": (
        "SCGI",
        scgi_request((b"\xff\1", bytes(range(1, 256))), body=b"x"),
    ),
}
each_plain = pytest.mark.parametrize(("protocol", "data"), PLAIN.values(), ids=PLAIN)


# What takes the short cut.


@each_plain
def test_a_plain_request_is_taken_and_is_the_same(protocol: str, data: bytes) -> None:
    twins = Twins(protocol)
    twins.receive(data)
    assert twins.taken == 1


@each_plain
def test_its_text_is_what_its_variables_are(protocol: str, data: bytes) -> None:
    taken = new(protocol).receive_whole(data)
    assert taken is not None
    request, _ = taken
    text = request.text
    assert text is not None
    as_text = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.variables
    ]
    assert text == dict(as_text)
    names = [name for name, _ in as_text]
    again_there = [name for at, name in enumerate(names) if name in names[:at]]
    assert list(request.repeated) == again_there
    # The text may be given away: the variables are the block's, not the dict's.
    again, _ = new(protocol).receive_whole(data) or (None, None)
    assert again is not None
    again.text = None
    assert again == request


@each_plain
def test_a_part_of_a_request_is_not_taken_and_changes_nothing(protocol: str, data: bytes) -> None:
    ends = range(len(data)) if len(data) < 1000 else [*range(400), len(data) // 2, len(data) - 1]
    for end in ends:
        connection = new(protocol)
        assert connection.receive_whole(data[:end]) is None
        expected = new(protocol).receive_data(data)
        pieces = [piece for piece in (data[:end], data[end:]) if piece]
        received = [event for piece in pieces for event in connection.receive_data(piece)]
        assert merged(received) == merged(expected)


@each_plain
def test_nor_is_one_with_something_behind_it(protocol: str, data: bytes) -> None:
    for more in (b"\0", b"\1", record(5, 1), record(2, 1), record(9, 0), data):
        twins = Twins(protocol)
        twins.receive(data + more)
        assert twins.taken == 0


# What does not.

NOT_FASTCGI_S: dict[str, tuple[dict[str, Any], bytes]] = {
    "an authorizer": ({}, fcgi(role=2)),
    "a filter": ({}, fcgi(role=3)),
    "an unknown role": ({}, fcgi(role=4)),
    "unknown flags": ({}, fcgi(flags=3)),
    "a role of two bytes": ({}, record(1, 1, b"\1\1\1\0\0\0\0\0") + fcgi()[16:]),
    "request id 0": ({}, fcgi(request_id=0)),
    "another version": ({}, b"\2" + fcgi()[1:]),
    "PARAMS of another request": ({}, fcgi()[:16] + fcgi(request_id=2)[16:]),
    "the end of another's PARAMS": ({}, fcgi()[:-16] + record(4, 2) + record(5, 1)),
    "the end of another's STDIN": ({}, fcgi()[:-16] + record(4, 1) + record(5, 2)),
    "another's STDIN": ({}, fcgi()[:-8] + record(5, 2, b"x") + record(5, 1)),
    "no STDIN": ({}, fcgi()[:-8] + record(8, 1)),
    "no PARAMS": ({}, begin() + record(4, 1) + record(5, 1)),
    "PARAMS in two records": (
        {},
        begin() + record(4, 1, b"\1\1A") + record(4, 1, b"B") + record(4, 1) + record(5, 1),
    ),
    "a padded BEGIN_REQUEST": ({}, begin()[:6] + b"\1" + begin()[7:] + b"\0" + fcgi()[16:]),
    "an abort": ({}, fcgi()[:-8] + record(2, 1)),
    "an empty name": ({}, fcgi([(b"", b"value")])),
    "an empty name in the middle": ({}, fcgi([(b"A", b"b"), (b"", b""), (b"C", b"d")])),
    "a name with NUL": ({}, fcgi([(b"A\0B", b"value")])),
    "a name of the server's": ({}, fcgi([(b"wsgi.input", b"value")])),
    "a cut pair": ({}, fcgi(b"\1\1A")),
    "a pair cut before its second length": ({}, fcgi(b"\1\1AB\1")),
    "a cut long length": ({}, fcgi(b"\1\1AB\x80\0\0")),
    "a second long length that is cut": ({}, fcgi(b"\1\x80\0\0")),
    "a length of 2 GiB": ({}, fcgi(b"\xff\xff\xff\xff\xff\xff\xff\xffA")),
    "too many variables": ({"max_variables": 2}, fcgi()),
    "too many bytes": ({"max_variable_bytes": 20}, fcgi()),
    "a role that is not served": ({"roles": (AUTHORIZER, FILTER)}, fcgi()),
    "no request allowed": ({"max_open_requests": 0}, fcgi()),
}


@pytest.mark.parametrize(("options", "data"), NOT_FASTCGI_S.values(), ids=NOT_FASTCGI_S)
def test_an_odd_fastcgi_request_goes_the_long_way(options: dict[str, Any], data: bytes) -> None:
    twins = Twins("FastCGI", **options)
    twins.receive(data)
    assert twins.taken == 0


def test_exactly_the_limits_are_allowed() -> None:
    size = len(encode_pairs(PAIRS))
    twins = Twins("FastCGI", max_variables=3, max_variable_bytes=size)
    twins.receive(fcgi())
    assert twins.taken == 1
    size = len(scgi_request(*PAIRS)) - len("12:,")
    twins = Twins("SCGI", max_variables=5, max_variable_bytes=size)
    twins.receive(scgi_request(*PAIRS))
    assert twins.taken == 1
    assert scgi.ServerConnection(max_variables=4).receive_whole(scgi_request(*PAIRS)) is None
    connection = scgi.ServerConnection(max_variable_bytes=size - 1)
    assert connection.receive_whole(scgi_request(*PAIRS)) is None


HEADERS = b"CONTENT_LENGTH\x000\0SCGI\x001\0"
NOT_SCGI_S: dict[str, bytes] = {
    "a body that is longer": scgi_request(body=b"body") + b"more",
    "a length with zeros in front": netstring(b"CONTENT_LENGTH\x0007\0SCGI\x001\0") + b"1234567",
    "a length that is none": netstring(b"CONTENT_LENGTH\0+1\0SCGI\x001\0") + b"x",
    "an empty length": netstring(b"CONTENT_LENGTH\0\0SCGI\x001\0"),
    "a superscript length": netstring(b"CONTENT_LENGTH\0\xb2\0SCGI\x001\0") + b"xx",
    "no CONTENT_LENGTH": netstring(b"SCGI\x001\0"),
    "CONTENT_LENGTH not first": netstring(b"SCGI\x001\0CONTENT_LENGTH\x000\0"),
    "no SCGI": netstring(b"CONTENT_LENGTH\x000\0"),
    "another SCGI": netstring(b"CONTENT_LENGTH\x000\0SCGI\x002\0"),
    "CONTENT_LENGTH twice": netstring(HEADERS + b"CONTENT_LENGTH\x000\0"),
    "SCGI twice": netstring(HEADERS + b"SCGI\x001\0"),
    "an empty name": netstring(HEADERS + b"\0value\0"),
    "a name of the server's": scgi_request((b"wsgi.input", b"x")),
    "a name without a value": netstring(HEADERS + b"NAME\0"),
    "no NUL at the end": netstring(HEADERS + b"NAME\0value"),
    "no headers": netstring(b""),
    "no comma": b"26:" + HEADERS + b";",
    "a netstring's length with zeros in front": b"026:" + HEADERS + b",",
    "one with a sign": b"+26:" + HEADERS + b",",
    "one with a space": b" 26:" + HEADERS + b",",
    "one with an underscore": b"2_6:" + HEADERS + b",",
    "one of other digits": "٢٦:".encode() + HEADERS + b",",
    "none": b":" + HEADERS + b",",
    "one that is too short": b"25:" + HEADERS + b",",
    "one of many digits": b"9" * 30 + b":" + HEADERS + b",",
    "no colon": b"1" * 100,
}


@pytest.mark.parametrize("data", NOT_SCGI_S.values(), ids=NOT_SCGI_S)
def test_an_odd_scgi_request_goes_the_long_way(data: bytes) -> None:
    twins = Twins("SCGI")
    twins.receive(data)
    assert twins.taken == 0


BUSY: dict[str, list[bytes | Event]] = {
    "a whole request": [fcgi()],
    "a request that came the long way": [fcgi()[:30], fcgi()[30:]],
    "part of a header": [b"\1\1"],
    "part of a record": [record(9, 0, b"\1\0A")[:-1]],
    "part of padding": [record(9, 0, b"\1\0A", 4)[:-1]],
    "a request that is not complete": [begin(7)],
    "an answered request that was not to be kept": [
        fcgi(flags=0),
        WholeAnswer(1, "200 OK", TEXT, b""),
    ],
    "one that came the long way": [
        fcgi(flags=0)[:9],
        fcgi(flags=0)[9:],
        Response(1, "200 OK", TEXT),
        EndOfResponse(1),
    ],
    "a fault": [b"\2" * 8],
    "the end of the file": [b""],
    "an answer that was given up": [fcgi(), RequestAborted(1)],
}


@pytest.mark.parametrize("before", BUSY.values(), ids=BUSY)
def test_a_busy_connection_takes_nothing(before: list[bytes | Event]) -> None:
    twins = Twins("FastCGI")
    for each in before:
        if isinstance(each, bytes):
            twins.receive(each)
        else:
            twins.send(each)
    assert twins.short.receive_whole(fcgi(request_id=9)) is None
    twins.receive(fcgi(request_id=9))


IDLE: dict[str, list[bytes | Event]] = {
    "a whole answer": [fcgi(), WholeAnswer(1, "200 OK", TEXT, b"hello")],
    "a plain answer": [fcgi(), Response(1, "200 OK", TEXT), EndOfResponse(1)],
    "a request that came the long way": [
        fcgi()[:9],
        fcgi()[9:],
        WholeAnswer(1, "200 OK", TEXT, b"hello"),
    ],
    "a question": [record(9, 0, encode_pairs([(b"FCGI_MAX_CONNS", b"")]))],
    "a refusal": [fcgi(role=9)],
    "an abort": [fcgi(), record(2, 1), EndOfResponse(1, 1)],
    "records of no request": [record(5, 3, b"late", 8)],
}


@pytest.mark.parametrize("before", IDLE.values(), ids=IDLE)
def test_an_idle_connection_takes_the_next_request(before: list[bytes | Event]) -> None:
    twins = Twins("FastCGI")
    for each in before:
        if isinstance(each, bytes):
            twins.receive(each)
        else:
            twins.send(each)
    taken = twins.taken
    twins.receive(fcgi(request_id=9))
    assert twins.taken == taken + 1
    assert twins.send(WholeAnswer(9, "200 OK", TEXT, b"hello"))


def test_an_scgi_connection_takes_one_request() -> None:
    for first in (scgi_request(), b"1", b""):
        twins = Twins("SCGI")
        twins.receive(first)
        assert twins.short.receive_whole(scgi_request()) is None
        twins.receive(scgi_request())


def test_a_script_s_request_does_not_come_as_bytes() -> None:
    connection = cgi.ServerConnection()
    assert connection.receive_whole(b"whatever") is None
    connection.receive_variables([(b"CONTENT_LENGTH", b"4")])
    assert connection.receive_whole(b"body") is None
    assert connection.receive_data(b"body") == [RequestBody(0, b"body"), EndOfRequest(0)]


def test_a_request_in_two_reads_has_its_text_too() -> None:
    """Its head came whole; only what is odd about the variables asks for pairs."""
    (request,) = fastcgi.ServerConnection().receive_data(fcgi()[:-8])
    assert isinstance(request, Request)
    assert request.text is not None
    assert request.variables == PAIRS
    data = scgi_request(*PAIRS, body=b"body")
    request, *_ = scgi.ServerConnection().receive_data(data[:-1])
    assert isinstance(request, Request)
    assert request.text is not None
    assert request.variables[2:] == PAIRS


# Whole answers.


def opened(protocol: str, request_id: int = 1) -> ServerConnection:
    """A server end that has received a request by the short cut."""
    if protocol == "SCGI":
        connection: ServerConnection = scgi.ServerConnection()
        assert connection.receive_whole(scgi_request())
    else:
        connection = fastcgi.ServerConnection()
        assert connection.receive_whole(fcgi(request_id=request_id))
    return connection


def test_a_short_answer_over_fastcgi_is_one_buffer() -> None:
    connection = opened("FastCGI")
    connection.send(WholeAnswer(1, "200 OK", TEXT, b"hello"))
    head = write_head("200 OK", TEXT)
    size = len(head) + 5
    assert connection.buffers_to_send() == [
        b"\1\6\0\1" + size.to_bytes(2, "big") + b"\0\0" + head + b"hello"
        b"\1\6\0\1\0\0\0\0"
        b"\1\3\0\1\0\x08\0\0\0\0\0\0\0\0\0\0"
    ]
    assert connection.buffers_to_send() == []


def test_a_short_answer_over_scgi_is_one_buffer() -> None:
    connection = opened("SCGI")
    connection.send(WholeAnswer(0, "200 OK", TEXT, b"hello"))
    assert connection.buffers_to_send() == [write_head("200 OK", TEXT) + b"hello"]
    assert connection.must_close


@pytest.mark.parametrize("protocol", ["FastCGI", "SCGI"])
def test_a_long_answer_is_not_copied(protocol: str) -> None:
    body = bytes(1_000_000)
    connection = opened(protocol)
    connection.send(WholeAnswer(int(protocol == "FastCGI"), "200 OK", TEXT, body))
    buffers = connection.buffers_to_send()
    shown = sum(
        len(each)
        for each in buffers
        if each is body or (isinstance(each, memoryview) and each.obj is body)
    )
    assert shown == len(body)


SIZES = [0, 1, 8100, 8192, 8193, 65400, 65527, 65528, 65529, 65535, 65536, 131056, 131057, 300_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head_size", [0, 8200, 65480, 70_000])
@pytest.mark.parametrize("protocol", ["FastCGI", "FastCGI long way", "SCGI"])
def test_a_client_end_sees_a_whole_answer_as_the_plain_events(
    protocol: str, head_size: int, size: int
) -> None:
    request_id = 0 if protocol == "SCGI" else 1
    headers = [*TEXT, *(("X", "x" * 60) for _ in range(head_size // 65))]
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    answer = WholeAnswer(request_id, "404 Not Found", headers, body)
    connection = opened(protocol)
    if protocol == "FastCGI long way":
        connection.receive_data(record(9, 0))
        connection.data_to_send()
    client = scgi.ClientConnection() if protocol == "SCGI" else fastcgi.ClientConnection()
    client.send(Request(request_id, [], keep_conn=True))
    connection.send(answer)
    data = connection.data_to_send()
    assert protocol == "SCGI" or all(
        each.padding_length == 0 and len(each.content) <= 65528
        for each in fastcgi.read_records(data)
    )
    if head_size > 65536 - 200:
        return  # more than our own client takes
    received = client.receive_data(data)
    if protocol == "SCGI":
        received += client.receive_data(b"")
    assert merged(received) == expanded([answer])


def test_a_head_that_is_known_is_sent_as_it_is() -> None:
    for protocol, kinds in (("FastCGI", 1), ("SCGI", 0)):
        connection = opened(protocol)
        connection.send(WholeAnswer(kinds, "200 OK", TEXT, b"x", b"Status: 200 OK\r\nA: b\r\n\r\n"))
        assert b"\r\nA: b\r\n\r\nx" in connection.data_to_send()
        connection = opened(protocol)
        connection.send(Response(kinds, "200 OK", TEXT, b"Status: 200 OK\r\nA: b\r\n\r\n"))
        assert connection.data_to_send().endswith(b"\r\nA: b\r\n\r\n")


def test_a_whole_answer_ends_the_error_stream_that_was_begun() -> None:
    """FastCGI §6.1: what was sent on FCGI_STDERR is ended by an empty record."""
    twins = Twins("FastCGI")
    twins.receive(fcgi())
    twins.send(ErrorOutput(1, b"oops"))
    data = twins.send(WholeAnswer(1, "200 OK", TEXT, b"hello"))
    assert data is not None
    assert [(each.type, each.content) for each in fastcgi.read_records(data)][-3:] == [
        (6, b""),
        (7, b""),
        (3, bytes(8)),
    ]
    assert twins.send(ErrorOutput(1, b"late")) is None


@pytest.mark.parametrize("protocol", ["FastCGI", "SCGI"])
def test_an_answer_that_cannot_be_written_changes_nothing(protocol: str) -> None:
    request_id = int(protocol == "FastCGI")
    connection = opened(protocol)
    forged = WholeAnswer(request_id, "200 OK", [("X", "a\r\nSet-Cookie: b")], b"")
    wrong_id = WholeAnswer(request_id + 1, "200 OK", TEXT, b"")
    for wrong in (forged, wrong_id, EndOfRequest(request_id), ResponseBody(request_id, b"x")):
        with pytest.raises(LocalProtocolError):
            connection.send(wrong)
        assert connection.buffers_to_send() == []
    connection.send(WholeAnswer(request_id, "200 OK", TEXT, b"hello"))
    assert b"hello" in connection.data_to_send()
    for late in (forged, WholeAnswer(request_id, "200 OK", TEXT, b""), Response(1, "200 OK", [])):
        with pytest.raises(LocalProtocolError):
            connection.send(late)


def test_a_whole_answer_after_the_head_is_refused() -> None:
    twins = Twins("FastCGI")
    twins.receive(fcgi())
    twins.send(Response(1, "200 OK", TEXT))
    assert twins.send(WholeAnswer(1, "200 OK", TEXT, b"")) is None
    assert twins.send(EndOfResponse(1)) is not None


def test_a_whole_answer_is_the_end_of_a_response() -> None:
    answer = WholeAnswer(1, "200 OK", TEXT, b"hello")
    assert isinstance(answer, EndOfResponse)
    assert (answer.app_status, answer.protocol_status) == (0, 0)
    assert answer != EndOfResponse(1)
    assert answer == WholeAnswer(1, "200 OK", TEXT, b"hello", b"known already")


def test_the_length_of_a_measured_answer_is_among_its_headers() -> None:
    measured = WholeAnswer(1, "200 OK", TEXT, b"hello", measured=True)
    assert measured.headers == [*TEXT, ("Content-Length", "5")]
    assert measured == WholeAnswer(1, "200 OK", [*TEXT, ("Content-Length", "5")], b"hello")


@pytest.mark.parametrize("protocol", ["FastCGI", "SCGI"])
def test_a_connection_holds_on_to_nothing_that_it_has_handed_on(protocol: str) -> None:
    body = bytes(60_000)
    data = fcgi(PAIRS, body) if protocol == "FastCGI" else scgi_request(*PAIRS, body=body)
    answer = WholeAnswer(int(protocol == "FastCGI"), "200 OK", TEXT, body)
    tracemalloc.start()
    try:
        connection = new(protocol)
        assert connection.receive_whole(data)
        connection.send(answer)
        connection.buffers_to_send()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 30_000


# Files.


@pytest.fixture
def descriptor() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(range(256)) * 1000)
        file.flush()
        yield file.fileno()


@pytest.mark.parametrize("protocol", ["FastCGI", "SCGI"])
@pytest.mark.parametrize(
    ("offset", "count"), [(0, 1), (5, 65528), (7, 65529), (0, 256_000), (1, 200_000)]
)
def test_a_file_arrives_as_a_body(protocol: str, offset: int, count: int, descriptor: int) -> None:
    request_id = int(protocol == "FastCGI")
    client: Any = fastcgi.ClientConnection() if request_id else scgi.ClientConnection()
    pair = Pair(client, fastcgi.ServerConnection() if request_id else scgi.ServerConnection())
    pair.to_server(Request(request_id, []), EndOfRequest(request_id))
    received = pair.to_client(
        Response(request_id, "200 OK", TEXT),
        ResponseFile(request_id, descriptor, offset, count),
        EndOfResponse(request_id),
    )
    assert merged(received) == [
        Response(request_id, "200 OK", TEXT),
        ResponseBody(request_id, os.pread(descriptor, count, offset)),
        EndOfResponse(request_id),
    ]


def test_the_records_of_a_file_are_headers_and_ranges() -> None:
    connection = opened("FastCGI")
    connection.send(Response(1, "200 OK", TEXT))
    connection.data_to_send()
    connection.send(ResponseFile(1, 9, 100, 65528 + 10))
    header, first, second_header, second = connection.buffers_to_send()
    assert (header, second_header) == (b"\1\6\0\1\xff\xf8\0\0", b"\1\6\0\1\0\x0a\0\0")
    for found, offset, count in ((first, 100, 65528), (second, 65628, 10)):
        assert isinstance(found, FileRange)
        assert (found.descriptor, found.offset, found.count) == (9, offset, count)
        assert len(found) == count


@pytest.mark.parametrize("protocol", ["FastCGI", "SCGI"])
def test_a_file_is_no_bytes_and_stays_where_it_is(protocol: str) -> None:
    request_id = int(protocol == "FastCGI")
    connection = opened(protocol)
    connection.send(Response(request_id, "200 OK", TEXT))
    connection.send(ResponseFile(request_id, 9, 0, 10))
    with pytest.raises(TypeError):
        connection.data_to_send()
    assert any(isinstance(each, FileRange) for each in connection.buffers_to_send())


def test_a_file_before_the_head_is_refused() -> None:
    for protocol in ("FastCGI", "SCGI"):
        connection = opened(protocol)
        with pytest.raises(LocalProtocolError):
            connection.send(ResponseFile(int(protocol == "FastCGI"), 9, 0, 10))
        assert connection.buffers_to_send() == []


# What is received may be shown in a buffer that is used again.


@pytest.mark.parametrize("cut", [1, 7, 30, 60, 1000])
@pytest.mark.parametrize(("protocol", "data"), PLAIN.values(), ids=PLAIN)
def test_nothing_of_a_memoryview_is_kept(protocol: str, data: bytes, cut: int) -> None:
    data = data[:4000]
    connection = new(protocol)
    received: list[Event] = []
    buffer = bytearray(cut)
    for start in range(0, len(data), cut):
        piece = data[start : start + cut]
        buffer[: len(piece)] = piece
        received += connection.receive_data(memoryview(buffer)[: len(piece)])
        buffer[:] = bytes(cut)
    assert all(type(event.data) is bytes for event in received if isinstance(event, RequestBody))
    assert merged(received) == merged(new(protocol).receive_data(data))


def test_the_pieces_of_a_body_that_come_together_are_one_event() -> None:
    connection = fastcgi.ServerConnection()
    connection.receive_data(fcgi()[:-8])
    data = b"".join(record(5, 1, bytes([number]), number % 9) for number in range(200))
    assert connection.receive_data(data) == [RequestBody(1, bytes(range(200)))]


def test_pieces_of_two_bodies_keep_their_order() -> None:
    connection = fastcgi.ServerConnection()
    connection.receive_data(fcgi()[:-8] + fcgi(request_id=2)[:-8])
    data = [record(5, number, b"%d" % number) for number in (1, 1, 2, 2, 1)]
    bodies = [RequestBody(1, b"11"), RequestBody(2, b"22"), RequestBody(1, b"1")]
    assert connection.receive_data(b"".join(data)) == bodies
    received = connection.receive_data(data[0] + record(2, 2) + data[0] + record(5, 1))
    assert received == [
        RequestBody(1, b"1"),
        RequestAborted(2),
        RequestBody(1, b"1"),
        EndOfRequest(1),
    ]


# Many connections with the same options.


def test_a_factory_s_connections_are_those_of_the_class() -> None:
    options: dict[str, Any] = {"max_variables": 2, "max_conns": 7, "roles": (RESPONDER,)}
    make = fastcgi.ServerConnection.factory(**options)
    first, second = make(), make()
    assert isinstance(first, fastcgi.ServerConnection)
    assert first is not second
    plain = fastcgi.ServerConnection(**options)
    heard = []
    asked = record(9, 0, encode_pairs([(b"FCGI_MAX_CONNS", b"")]))
    for connection in (first, second, plain):
        events = connection.receive_data(asked + fcgi() + fcgi(role=2, request_id=2))
        heard.append((events, connection.data_to_send()))
    assert heard[0] == heard[1] == heard[2]
    assert b"FCGI_MAX_CONNS7" in heard[0][1]
    limited = scgi.ServerConnection.factory(max_variables=2)
    assert limited().receive_whole(scgi_request()) is not None
    assert limited().receive_whole(scgi_request(*PAIRS)) is None


def test_two_connections_of_a_factory_share_nothing() -> None:
    for make, data in (
        (fastcgi.ServerConnection.factory(), fcgi()),
        (scgi.ServerConnection.factory(), scgi_request()),
    ):
        first: ServerConnection = make()
        second: ServerConnection = make()
        first.receive_data(data[:9])
        assert second.receive_whole(data) is not None
        second.send(WholeAnswer(int(data[:1] == b"\1"), "200 OK", TEXT, b""))
        assert first.buffers_to_send() == []
        assert content_of(second.buffers_to_send())
