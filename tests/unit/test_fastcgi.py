"""FastCGI, both ends, by the bytes.  "§3.4" is a section of the FastCGI 1.0 specification."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways import fastcgi, server
from gateways.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from gateways.events import (
    AUTHORIZER,
    FILTER,
    RESPONDER,
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
from gateways.fastcgi import ClientConnection, RecordType, ServerConnection
from tests.corpus import CHUNKERS, Capture, captures

Connection = ServerConnection | ClientConnection

HEAD = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"
ANSWER = Response(1, "200 OK", [("Content-Type", "text/plain")])


def record(kind: int, request_id: int, content: bytes = b"", padding: int = 0) -> bytes:
    """A record, written without the package's help."""
    lengths = len(content).to_bytes(2, "big") + bytes([padding, 0])
    return bytes([1, kind]) + request_id.to_bytes(2, "big") + lengths + content + b"\xaa" * padding


def begin(request_id: int = 1, role: int = 1, flags: int = 0) -> bytes:
    return record(1, request_id, bytes([0, role, flags, 0, 0, 0, 0, 0]))


def abort(request_id: int = 1) -> bytes:
    return record(2, request_id)


def end(request_id: int = 1, app_status: int = 0, protocol_status: int = 0) -> bytes:
    return record(3, request_id, app_status.to_bytes(4, "big") + bytes([protocol_status, 0, 0, 0]))


def params(content: bytes = b"", request_id: int = 1) -> bytes:
    return record(4, request_id, content)


def stdin(content: bytes = b"", request_id: int = 1) -> bytes:
    return record(5, request_id, content)


def stdout(content: bytes = b"", request_id: int = 1) -> bytes:
    return record(6, request_id, content)


def stderr(content: bytes = b"", request_id: int = 1) -> bytes:
    return record(7, request_id, content)


def filter_data(content: bytes = b"", request_id: int = 1) -> bytes:
    return record(8, request_id, content)


def head(request_id: int = 1, role: int = 1, flags: int = 0, pairs: bytes = b"\1\1NV") -> bytes:
    """A request up to the end of its PARAMS."""
    return begin(request_id, role, flags) + params(pairs, request_id) + params(b"", request_id)


KEPT = head(flags=1)
"""The head of a responder's request, whose connection is to be kept."""


@dataclass
class Heard:
    """What a connection made of some bytes: events, a fault's text, answers of its own accord."""

    events: list[Event] = field(default_factory=list)
    fault: RemoteProtocolError | None = None
    answered: bytes = b""
    must_close: bool = False

    def summary(self) -> tuple[object, ...]:
        return self.events, str(self.fault), self.answered, self.must_close

    @property
    def error(self) -> RemoteProtocolError:
        """The error of the one RequestAborted among the events."""
        (aborted,) = [event for event in self.events if isinstance(event, RequestAborted)]
        assert isinstance(aborted.error, RemoteProtocolError)
        return aborted.error


def joined(events: Iterable[Event]) -> list[Event]:
    """The events with adjacent pieces of one stream joined."""
    result: list[Event] = []
    carriers = (RequestBody, FilterData, ResponseBody, ErrorOutput)
    for (kind, request_id), group in groupby(events, lambda e: (type(e), e.request_id)):
        run = list(group)
        if kind in carriers:
            data = b"".join(event.data for event in run if isinstance(event, carriers))
            result.append(kind(request_id, data))
        else:
            result += run
    return result


def feed(connection: Connection, pieces: Iterable[bytes]) -> Heard:
    """Give a connection the pieces in turn."""
    heard = Heard()
    try:
        for piece in pieces:
            heard.events += connection.receive_data(piece)
    except RemoteProtocolError as error:
        heard.events += error.events
        heard.fault = error
    heard.events = joined(heard.events)
    heard.answered = connection.data_to_send()
    heard.must_close = connection.must_close
    return heard


def hear(make: Callable[[], Connection], *data: bytes, eof: bool = False) -> Heard:
    """Give the bytes to new connections whole, byte by byte, in random pieces, and with a rest.

    All must make the same of it.  With `eof` each then comes to the end of the file.
    """
    all_of_it = b"".join(data)
    end_of_file = [b""] if eof else []
    heard = feed(make(), [*CHUNKERS["whole"](all_of_it), *end_of_file])
    for cut in CHUNKERS.values():
        again = feed(make(), [*cut(all_of_it), *end_of_file])
        assert again.summary() == heard.summary()
    if not eof:
        assert feed(make(), [all_of_it + b"\1"]).summary() == heard.summary()
    return heard


def serve(*data: bytes, eof: bool = False, **options: object) -> Heard:
    """What a server end makes of the bytes, however they are cut."""
    return hear(lambda: ServerConnection(**options), *data, eof=eof)  # type: ignore[arg-type]  # each test gives options of the right types


def opened(*data: bytes, **options: object) -> ServerConnection:
    """A server end that has received the bytes, and whose own answers are out of the way."""
    connection = ServerConnection(**options)  # type: ignore[arg-type]  # each test gives options of the right types
    connection.receive_data(b"".join(data))
    connection.data_to_send()
    return connection


def asking(
    *requests: Request, role: str = RESPONDER, keep_conn: bool = True
) -> Callable[[], ClientConnection]:
    """A maker of client ends that have sent the heads of the requests, by default of request 1."""

    def make() -> ClientConnection:
        connection = ClientConnection()
        for request in requests or (Request(1, [], role, False, keep_conn),):
            connection.send(request)
        connection.data_to_send()
        return connection

    return make


def sent(connection: Connection, *events: Event) -> bytes:
    for event in events:
        connection.send(event)
    return connection.data_to_send()


# Records (§3.3).


@pytest.mark.parametrize("kind", RecordType)
def test_a_record_of_each_type_is_eight_bytes_of_header_and_its_content(kind: RecordType) -> None:
    encoded = fastcgi.Record(kind, 0x0102, b"content").encode()
    assert encoded == bytes([1, kind, 1, 2, 0, 7, 0, 0]) + b"content"


def test_padding_follows_the_content() -> None:
    encoded = fastcgi.Record(RecordType.STDIN, 1, b"abc", padding_length=5).encode()
    assert encoded == b"\1\5\0\1\0\3\5\0abc\0\0\0\0\0"


@pytest.mark.parametrize(
    "bad",
    [
        fastcgi.Record(5, 1, bytes(65536)),
        fastcgi.Record(5, 1, b"", padding_length=256),
        fastcgi.Record(5, 65536),
        fastcgi.Record(5, -1),
        fastcgi.Record(256, 1),
    ],
    ids=repr,
)
def test_what_does_not_fit_into_a_record_is_not_encoded(bad: fastcgi.Record) -> None:
    with pytest.raises(LocalProtocolError, match=r"FastCGI 3\.3"):
        bad.encode()


def test_records_are_read_with_their_offsets_and_padding() -> None:
    data = begin() + record(5, 7, b"abc", padding=13) + record(99, 0) + record(4, 1, b"", padding=3)
    read = list(fastcgi.read_records(data))
    assert [(r.type, r.request_id, r.content, r.padding_length, r.offset) for r in read] == [
        (1, 1, b"\0\1\0\0\0\0\0\0", 0, 0),
        (5, 7, b"abc", 13, 16),
        (99, 0, b"", 0, 40),
        (4, 1, b"", 3, 48),
    ]


@pytest.mark.parametrize("left", [1, 7, 8, 9, 10, 12])
def test_whole_records_are_read_before_a_cut_one_is_reported(left: int) -> None:
    data = begin() + record(5, 1, b"abc", padding=2)[:left]
    records = fastcgi.read_records(data)
    assert next(records).type == RecordType.BEGIN_REQUEST
    with pytest.raises(TruncatedMessage, match=f"ends {left} bytes into the record at offset 16"):
        next(records)


def test_reading_records_stops_at_another_version() -> None:
    records = fastcgi.read_records(begin() + b"\2\5\0\1\0\0\0\0")
    assert next(records).offset == 0
    with pytest.raises(RemoteProtocolError, match="version is 2"):
        next(records)


def test_a_record_tells_what_it_is() -> None:
    assert repr(fastcgi.Record(5, 1, b"abc", 2, 16)) == (
        "<Record FCGI_STDIN id=1 content=3 bytes padding=2 offset=16>"
    )
    assert "record type 99" in repr(fastcgi.Record(99))


# Name-value pairs (§3.4).

LENGTHS = [
    (0, b"\0"),
    (1, b"\1"),
    (127, b"\x7f"),
    (128, b"\x80\0\0\x80"),
    (65536, b"\x80\1\0\0"),
]


@pytest.mark.parametrize(("length", "encoded"), LENGTHS)
def test_a_length_over_127_takes_four_bytes_with_the_high_bit_set(
    length: int, encoded: bytes
) -> None:
    """§3.4: "Lengths of 127 bytes and less can be encoded in one byte, while longer lengths are
    always encoded in four bytes"."""
    value = b"v" * length
    assert fastcgi.encode_pair(b"N", value) == b"\1" + encoded + b"N" + value
    assert fastcgi.decode_pairs(b"\1" + encoded + b"N" + value) == [(b"N", value)]
    name = value + b"n"
    assert fastcgi.decode_pairs(fastcgi.encode_pair(name, b"")) == [(name, b"")]


def test_a_short_length_may_take_four_bytes() -> None:
    """§3.4: lengths of 127 bytes and less *can* be encoded in one byte."""
    assert fastcgi.decode_pairs(b"\x80\0\0\1\x80\0\0\2Nvv") == [(b"N", b"vv")]


def test_repeated_names_are_kept_in_order() -> None:
    pairs = [(b"HTTP_COOKIE", b"a=1"), (b"X", b""), (b"HTTP_COOKIE", b"b=2")]
    assert fastcgi.decode_pairs(fastcgi.encode_pairs(pairs)) == pairs


def test_a_name_of_two_gibibytes_cannot_be_encoded() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 0x80000000

    with pytest.raises(LocalProtocolError, match=r"FastCGI 3\.4"):
        fastcgi.encode_pair(Long(), b"")


@pytest.mark.parametrize("left", range(1, 12))
def test_a_pair_that_the_data_ends_in_is_refused(left: int) -> None:
    data = b"\1\1NV" + b"\x80\0\0\1\x80\0\0\2Nvv"[:left]
    if left == 11:
        assert len(fastcgi.decode_pairs(data)) == 2
        return
    with pytest.raises(TruncatedMessage, match="pair 2 is cut"):
        fastcgi.decode_pairs(data)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="pair 2 has an empty name"):
        fastcgi.decode_pairs(b"\1\1NV\0\1V")


def test_decoding_is_limited_in_number_and_in_bytes() -> None:
    data = b"\1\1NV" * 3
    assert len(fastcgi.decode_pairs(data, max_variables=3, max_variable_bytes=12)) == 3
    with pytest.raises(LimitExceeded, match="more than 2 name"):
        fastcgi.decode_pairs(data, max_variables=2)
    with pytest.raises(LimitExceeded, match="more than 11 bytes"):
        fastcgi.decode_pairs(data, max_variable_bytes=11)


# A server end: requests of the three roles (§6).


def test_a_responder_request_as_nginx_sends_it() -> None:
    """§6.2: a Responder gets PARAMS, then STDIN."""
    heard = serve(
        bytes.fromhex(
            "0101000100080000 0001000000000000"  # BEGIN_REQUEST id 1, responder, flags 0
            "01040001001b0500 0e04524551554553545f4d4554484f44504f5354"  # REQUEST_METHOD=POST
            "04014e414d4556 0000000000"  # NAME=V, padding of 5
            "0104000100000000"  # end of PARAMS
            "0105000100050300 68656c6c6f 000000"  # STDIN hello, padding of 3
            "0105000100000000"  # end of STDIN
        )
    )
    variables = [(b"REQUEST_METHOD", b"POST"), (b"NAME", b"V")]
    assert heard.events == [
        Request(1, variables, RESPONDER, True, False),
        RequestBody(1, b"hello"),
        EndOfRequest(1),
    ]
    assert heard.answered == b""
    assert not heard.must_close


def test_an_authorizer_request_is_complete_when_its_params_end() -> None:
    """§6.3: an Authorizer gets PARAMS only."""
    heard = serve(head(role=2))
    assert heard.events == [Request(1, [(b"N", b"V")], AUTHORIZER, False, False), EndOfRequest(1)]


@pytest.mark.parametrize("late", [stdin(), stdin(b"body") + stdin(), stdin() + stdin()])
def test_stdin_that_an_authorizer_gets_all_the_same_is_ignored(late: bytes) -> None:
    assert serve(head(role=2), late).events == serve(head(role=2)).events


def test_a_filter_gets_stdin_and_then_data() -> None:
    """§6.4: a Filter gets PARAMS, STDIN, and DATA after them."""
    heard = serve(
        head(role=3), stdin(b"form"), stdin(), filter_data(b"fi"), filter_data(b"le"), filter_data()
    )
    assert heard.events == [
        Request(1, [(b"N", b"V")], FILTER, True, False),
        RequestBody(1, b"form"),
        FilterData(1, b"file"),
        EndOfRequest(1),
    ]


@pytest.mark.parametrize(("flags", "keep_conn"), [(0, False), (1, True), (0xFE, False), (3, True)])
def test_keep_conn_is_the_lowest_flag(flags: int, keep_conn: bool) -> None:
    """§5.1: "flags & FCGI_KEEP_CONN"; the other bits mean nothing."""
    (request,) = serve(head(flags=flags)).events
    assert isinstance(request, Request)
    assert request.keep_conn is keep_conn


def test_the_reserved_bytes_may_hold_anything() -> None:
    strange = bytearray(head() + stdin())
    strange[7] = strange[11] = strange[15] = 0xFF
    assert serve(bytes(strange)).events == serve(head() + stdin()).events


def test_a_request_without_variables_is_one() -> None:
    """§6.1: a stream may be empty, "at least one record of the stream type is always transmitted"."""
    assert serve(begin(), params()).events == [Request(1, [], RESPONDER, True, False)]


def test_two_requests_of_a_kept_connection_share_nothing() -> None:
    """CVE-2011-2766: the variables of the first must not be seen in the second."""
    connection = opened(head(flags=1, pairs=b"\6\1SECRETx"), stdin())
    sent(connection, ANSWER, EndOfResponse(1))
    events = connection.receive_data(head(flags=1, pairs=b"\1\1NV") + stdin())
    assert events[0] == Request(1, [(b"N", b"V")], RESPONDER, True, True)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_pair_may_lie_across_two_params_records(cut: int) -> None:
    """§3.4 and §5.2: PARAMS is a stream, so records may end inside a pair and inside a length."""
    pair = b"\x80\0\0\2\x80\0\0\3Nnvvv"
    heard = serve(begin(), params(pair[:cut]), params(pair[cut:]), params())
    assert heard.events == [Request(1, [(b"Nn", b"vvv")], RESPONDER, True, False)]


@pytest.mark.parametrize("size", [65535, 65536, 131072 - 9])
def test_long_values_up_to_the_limit_arrive(size: int) -> None:
    """CVE-2007-4727: headers of 64 KiB and more."""
    pair = b"\1" + (size | 1 << 31).to_bytes(4, "big") + b"N" + b"v" * size
    pieces = [params(pair[at : at + 65535]) for at in range(0, len(pair), 65535)]
    heard = feed(ServerConnection(), [begin(), *pieces, params()])
    assert heard.events == [Request(1, [(b"N", b"v" * size)], RESPONDER, True, False)]


@pytest.mark.parametrize("padding", range(256))
def test_the_longest_content_takes_any_padding(padding: int) -> None:
    """CVE-2026-55203: 65535 bytes of content and padding together pass 16 bits."""
    body = os.urandom(65535)
    data = record(5, 1, body, padding) + stdin()
    heard = feed(opened(KEPT), [data])
    assert heard.events == [RequestBody(1, body), EndOfRequest(1)]
    answer = record(6, 1, HEAD + bytes(65535 - len(HEAD)), padding) + end()
    heard = feed(asking()(), [answer])
    assert heard.events == [ANSWER, ResponseBody(1, bytes(65535 - len(HEAD))), EndOfResponse(1)]


def test_the_longest_params_record_takes_padding() -> None:
    size = 65535 - 6
    pair = b"\1" + (size | 1 << 31).to_bytes(4, "big") + b"N" + b"v" * size
    heard = feed(ServerConnection(), [begin() + record(4, 1, pair, 255) + params()])
    assert heard.events == [Request(1, [(b"N", b"v" * size)], RESPONDER, True, False)]


def test_a_body_is_handed_on_before_its_record_is_complete() -> None:
    connection = opened(KEPT)
    assert connection.receive_data(b"\1\5\0\1\xff\xff\0\0abc") == [RequestBody(1, b"abc")]
    assert connection.receive_data(b"defg") == [RequestBody(1, b"defg")]


def test_requests_on_one_connection_are_told_apart_by_id() -> None:
    """§3.3: "The Web server re-uses FastCGI request IDs"; records of several interleave."""
    heard = serve(
        begin(1, flags=1),
        begin(3, role=3, flags=1),
        params(b"\1\1A1", 1),
        params(b"\1\1B", 3),
        params(b"3", 3),
        params(b"", 3),
        stdin(b"three", 3),
        params(b"", 1),
        stdin(b"one", 1),
        stdin(b"", 3),
        filter_data(b"data", 3),
        stdin(b"", 1),
        filter_data(b"", 3),
    )
    assert heard.events == [
        Request(3, [(b"B", b"3")], FILTER, True, True),
        RequestBody(3, b"three"),
        Request(1, [(b"A", b"1")], RESPONDER, True, True),
        RequestBody(1, b"one"),
        FilterData(3, b"data"),
        EndOfRequest(1),
        EndOfRequest(3),
    ]


# A server end: management records (§4).


def test_values_are_told_for_the_names_that_were_asked() -> None:
    """§4.1: the application answers FCGI_GET_VALUES with the names it understands."""
    asked = b"\x0e\0FCGI_MAX_CONNS\x0d\0FCGI_MAX_REQS\x0f\0FCGI_MPXS_CONNS"
    heard = serve(record(9, 0, asked), max_conns=8, max_reqs=512, mpxs_conns=True)
    told = b"\x0e\1FCGI_MAX_CONNS8\x0d\3FCGI_MAX_REQS512\x0f\1FCGI_MPXS_CONNS1"
    assert heard.answered == record(10, 0, told)
    assert heard.events == []


def test_a_connection_that_does_not_multiplex_says_so() -> None:
    heard = serve(record(9, 0, b"\x0f\0FCGI_MPXS_CONNS"), mpxs_conns=False)
    assert heard.answered == record(10, 0, b"\x0f\1FCGI_MPXS_CONNS0")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (b"", b""),
        (b"\7\0UNKNOWN", b""),
        (b"\7\0UNKNOWN\x0d\0FCGI_MAX_REQS", b"\x0d\1FCGI_MAX_REQS1"),
        (b"\x0d\0FCGI_MAX_REQS\x0d\0FCGI_MAX_REQS", b"\x0d\1FCGI_MAX_REQS1"),
    ],
    ids=["nothing", "an unknown name", "an unknown name beside a known one", "a name twice"],
)
def test_names_that_are_not_understood_are_left_out(asked: bytes, told: bytes) -> None:
    """§4.1: a name that is not understood is omitted from the answer."""
    assert serve(record(9, 0, asked)).answered == record(10, 0, told)


def test_values_are_told_while_a_request_is_open() -> None:
    heard = serve(begin(), params(b"\1"), record(9, 0, b"\x0d\0FCGI_MAX_REQS"), params(b"\1NV"))
    assert heard.answered == record(10, 0, b"\x0d\1FCGI_MAX_REQS1")
    assert heard.fault is None


@pytest.mark.parametrize("content", [b"\1", b"\1\1N", b"\0\0", b"\1\1NV", b"\1\1NV\1\0N"])
def test_a_question_that_is_no_list_of_names_ends_the_connection(content: bytes) -> None:
    """§4.1: FCGI_GET_VALUES holds names with empty values; there is no request to blame."""
    heard = serve(record(9, 0, content))
    assert heard.fault is not None
    assert heard.must_close


@pytest.mark.parametrize("kind", [0, 10, 11, 12, 99, 255])
def test_an_unknown_management_type_is_answered_and_skipped(kind: int) -> None:
    """§4.2: "When an application receives a management record whose type T it does not understand,
    the application responds with {FCGI_UNKNOWN_TYPE, 0, {T}}"."""
    heard = serve(record(kind, 0, b"whatever", 3), head())
    assert heard.answered == record(11, 0, bytes([kind, 0, 0, 0, 0, 0, 0, 0]))
    assert heard.events == serve(head()).events


# A server end: refusals (§5.5).


def refusal(answered: bytes) -> tuple[bytes, int, int]:
    """The text of a refusal and the two statuses, once its form has been checked."""
    output, empty, ended = fastcgi.read_records(answered)
    assert (output.type, empty.type, ended.type) == (6, 6, 3)
    assert output.request_id == empty.request_id == ended.request_id
    assert empty.content == b""
    answer_head, _, text = output.content.partition(b"\r\n\r\n")
    assert answer_head.startswith(
        b"Status: 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    )
    assert b"\r\nRetry-After: " in answer_head
    return text, int.from_bytes(ended.content[:4], "big"), ended.content[4]


@pytest.mark.parametrize("role", [0, 4, 9, 255])
def test_an_unknown_role_is_refused_without_an_event(role: int) -> None:
    """§5.5: FCGI_UNKNOWN_ROLE, "rejecting a new request"."""
    heard = serve(head(role=role, flags=1), stdin(b"body"), stdin())
    text, app_status, protocol_status = refusal(heard.answered)
    assert b"role" in text
    assert (app_status, protocol_status) == (0, 3)
    assert heard.events == []
    assert not heard.must_close


def test_a_role_that_is_not_served_is_unknown() -> None:
    heard = serve(head(role=2, flags=1), roles=(RESPONDER,))
    assert refusal(heard.answered)[2] == 3


def test_past_the_cap_requests_are_overloaded() -> None:
    """§5.5: FCGI_OVERLOADED.  Half-open requests are memory (Go #81548): 10,000 of them here."""
    heard = feed(
        ServerConnection(max_open_requests=64),
        [b"".join(begin(request_id, flags=1) for request_id in range(1, 10_001))],
    )
    records = list(fastcgi.read_records(heard.answered))
    ended = [each for each in records if each.type == RecordType.END_REQUEST]
    assert [each.request_id for each in ended] == list(range(65, 10_001))
    assert {each.content[4] for each in ended} == {2}
    assert refusal(heard.answered[: records[3].offset])[1:] == (0, 2)
    assert heard.fault is None


def test_a_refused_request_hurts_no_other() -> None:
    heard = serve(
        KEPT, head(2, flags=1), stdin(b"x", 2), stdin(b"one"), stdin(), max_open_requests=1
    )
    assert heard.events[1:] == [RequestBody(1, b"one"), EndOfRequest(1)]


def test_a_place_is_free_again_once_a_request_has_ended() -> None:
    connection = opened(KEPT, stdin(), max_open_requests=1)
    sent(connection, ANSWER, EndOfResponse(1))
    assert feed(connection, [head(2, flags=1)]).answered == b""


def test_without_multiplexing_a_second_request_is_refused() -> None:
    """§5.5: FCGI_CANT_MPX_CONN, "a Web server sends concurrent requests over one connection to an
    application that is designed to process one request at a time per connection"."""
    heard = serve(KEPT, head(2, flags=1), stdin(b"one"), stdin(), mpxs_conns=False)
    assert refusal(heard.answered)[1:] == (0, 1)
    assert heard.events[1:] == [RequestBody(1, b"one"), EndOfRequest(1)]


def test_without_multiplexing_one_request_after_the_other_is_served() -> None:
    connection = opened(KEPT, stdin(), mpxs_conns=False)
    sent(connection, ANSWER, EndOfResponse(1))
    heard = feed(connection, [head(2, flags=1)])
    assert isinstance(heard.events[0], Request)
    assert heard.answered == b""


def test_a_refusal_closes_the_connection_where_it_was_not_to_be_kept() -> None:
    """§5.1: without FCGI_KEEP_CONN the application closes the connection after its answer; what
    comes after that is not looked at."""
    heard = serve(begin(role=9), b"no record")
    assert heard.must_close
    assert heard.fault is None


def test_a_refusal_leaves_the_connection_to_the_requests_that_are_open() -> None:
    connection = opened(KEPT, stdin(), begin(2, role=9))
    assert not connection.must_close
    sent(connection, ANSWER, EndOfResponse(1))
    assert connection.must_close


# A server end: aborts (§5.4) and end of file.


def test_an_abort_reaches_a_request_whose_body_is_awaited() -> None:
    heard = serve(KEPT, stdin(b"half"), abort(), stdin(b"late"), stdin())
    assert heard.events[1:] == [RequestBody(1, b"half"), RequestAborted(1)]
    assert heard.answered == b""


def test_an_abort_reaches_a_request_that_is_being_answered() -> None:
    heard = serve(KEPT, stdin(), abort())
    assert heard.events[1:] == [EndOfRequest(1), RequestAborted(1)]


def test_an_aborted_request_is_ended_by_the_application() -> None:
    """§5.4: "After receiving {FCGI_ABORT_REQUEST, R}, the application responds as soon as possible
    with {FCGI_END_REQUEST, R, {FCGI_REQUEST_COMPLETE, appStatus}}"."""
    connection = opened(KEPT, abort())
    assert sent(connection, EndOfResponse(1, app_status=1)) == stdout() + end(app_status=1)
    assert not connection.must_close
    connection = opened(KEPT, abort())
    assert sent(connection, RequestAborted(1)) == end(app_status=1)
    assert not connection.must_close


def test_an_abort_before_the_end_of_params_is_answered_at_once() -> None:
    heard = serve(begin(flags=1), params(b"\1\1NV"), abort(), params(), stdin())
    assert heard.answered == end(app_status=1)
    assert heard.events == [RequestAborted(1)]
    assert not heard.must_close
    connection = opened(begin(flags=1), abort())
    with pytest.raises(LocalProtocolError, match="not open"):
        connection.send(EndOfResponse(1))


def test_the_abort_of_a_connections_only_request_may_end_it() -> None:
    assert serve(begin(), abort()).must_close


@pytest.mark.parametrize("before", [b"", head(2, flags=1)], ids=["none open", "another open"])
def test_records_of_a_request_that_is_not_open_are_ignored(before: bytes) -> None:
    """§3.3: "While a request ID R is inactive, the application ignores records with
    requestId == R, except for FCGI_BEGIN_REQUEST records"."""
    others = b"".join(record(kind, 1, b"12345678") + record(kind, 1) for kind in range(2, 12))
    heard = serve(before, others, record(99, 1, b"?"))
    assert heard.events == serve(before).events
    assert heard.answered == b""
    assert heard.fault is None


def test_what_still_comes_for_an_answered_request_is_ignored() -> None:
    connection = opened(KEPT, b"\1\5\0\1\0\5\0\0he")
    assert sent(connection, ANSWER, EndOfResponse(1)) != b""
    heard = feed(connection, [b"llo", stdin(b"more"), abort(), stdin()])
    assert (heard.events, heard.answered, heard.fault) == ([], b"", None)


def test_an_id_may_be_used_again_once_its_request_has_ended() -> None:
    connection = opened(KEPT, stdin(b"half"))
    sent(connection, ANSWER, EndOfResponse(1))
    heard = feed(connection, [KEPT, stdin(b"new"), stdin()])
    assert heard.events[1:] == [RequestBody(1, b"new"), EndOfRequest(1)]


def test_the_end_of_file_cuts_the_requests_that_are_incomplete() -> None:
    data = head(1, flags=1) + stdin() + head(2) + stdin(b"x", 2) + begin(3) + params(b"\1", 3)
    heard = serve(
        data, begin(4, role=3), params(b"", 4), stdin(b"", 4), filter_data(b"y", 4), eof=True
    )
    cut = [event for event in heard.events if isinstance(event, RequestAborted)]
    assert [event.request_id for event in cut] == [2, 3, 4]
    assert all(isinstance(event.error, TruncatedMessage) for event in cut)
    assert [str(event.error).partition(" (")[0].split()[-1] for event in cut] == [
        "FCGI_STDIN",
        "FCGI_PARAMS",
        "FCGI_DATA",
    ]


def test_after_the_end_of_file_complete_requests_are_still_answered() -> None:
    connection = opened(KEPT, stdin())
    assert connection.receive_data(b"") == []
    assert not connection.must_close
    assert sent(connection, ANSWER, EndOfResponse(1)) == stdout(HEAD) + stdout() + end()
    assert connection.must_close


def test_the_end_of_file_comes_once() -> None:
    connection = opened(KEPT)
    assert len(connection.receive_data(b"")) == 1
    assert connection.receive_data(b"") == []
    assert connection.receive_data(stdin()) == []


def test_the_end_of_file_on_an_idle_connection_closes_it() -> None:
    heard = serve(eof=True)
    assert (heard.events, heard.fault, heard.must_close) == ([], None, True)


@pytest.mark.parametrize("rest", [b"\1", begin()[:12], record(9, 0, b"", 5)[:10]])
def test_the_end_of_file_inside_a_record_of_no_request_is_a_fault(rest: bytes) -> None:
    heard = serve(rest, eof=True)
    assert isinstance(heard.fault, TruncatedMessage)
    assert heard.must_close


# A server end: faults of one request.


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (b"\1\1N", "pair 1 is cut"),
        (b"\1\1NV\x80", "pair 2 is cut"),
        (b"\1\1NV\0\0", "pair 2 has an empty name"),
    ],
)
def test_bad_pairs_hurt_only_their_request(pairs: bytes, words: str) -> None:
    """§3.4: a length beyond the end of the stream is refused, not read as far as it goes."""
    heard = serve(head(1, pairs=pairs), head(2, flags=1), stdin(b"", 2))
    assert words in str(heard.error)
    assert heard.error.status_hint == 400
    assert heard.error.rule == "FastCGI 3.4"
    assert heard.error.request_id == 1
    assert heard.events[1:] == [Request(2, [(b"N", b"V")], RESPONDER, True, True), EndOfRequest(2)]
    assert heard.fault is None


def test_the_request_with_bad_pairs_can_be_answered() -> None:
    connection = opened(head(pairs=b"\0\0"), stdin(b"ignored"), stdin())
    bad = Response(1, "400 Bad Request", [])
    assert sent(connection, bad, EndOfResponse(1)) == (
        stdout(b"Status: 400 Bad Request\r\n\r\n") + stdout() + end()
    )
    assert connection.must_close


def test_lengths_that_overflow_32_bits_together_are_refused() -> None:
    """CVE-2025-23016: nameLen + valueLen overflows in libfcgi.  Refused before a byte is awaited."""
    heard = serve(begin(), params(b"\xff\xff\xff\xff\xff\xff\xff\xff"))
    assert isinstance(heard.error, LimitExceeded)
    assert heard.error.status_hint == 431


def test_a_claimed_length_over_the_limit_is_refused_at_once() -> None:
    claim = b"\1\x80\0\0\x5f"
    assert isinstance(serve(begin(), params(claim), max_variable_bytes=100).error, LimitExceeded)
    fits = b"\1\x80\0\0\x5e"
    assert serve(begin(), params(fits), max_variable_bytes=100).events == []


@pytest.mark.parametrize("size", [1, 7, 8, 50, 100])
def test_the_limit_in_bytes_holds_for_the_stream_whatever_its_records(size: int) -> None:
    stream = b"\1\1NV" * 26
    records = b"".join(params(stream[at : at + size]) for at in range(0, len(stream), size))
    heard = serve(begin(), records, max_variable_bytes=100)
    assert heard.events == [RequestAborted(1, heard.error)]
    assert "more than 100 bytes" in str(heard.error)
    assert heard.error.status_hint == 431


def test_exactly_the_limits_are_allowed() -> None:
    heard = serve(head(pairs=b"\1\1NV" * 25), max_variable_bytes=100, max_variables=25)
    (request,) = heard.events
    assert isinstance(request, Request)
    assert len(request.variables) == 25


def test_one_variable_over_the_limit_is_refused() -> None:
    heard = serve(begin(), params(b"\1\1NV" * 26), max_variables=25)
    assert "more than 25 name-value pairs" in str(heard.error)
    assert isinstance(heard.error, LimitExceeded)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (stdin(b"x"), "FCGI_STDIN in state PARAMS"),
        (stdin(), "an empty FCGI_STDIN in state PARAMS"),
        (params() + filter_data(b"x"), "FCGI_DATA in state STDIN"),
        (params() + params(b"\1\1NV"), "FCGI_PARAMS in state STDIN"),
        (params() + stdin() + stdin(b"x"), "FCGI_STDIN in state READ"),
        (params() + record(2, 1, b"why"), "FCGI_ABORT_REQUEST in state STDIN"),
        (params() + end(), "FCGI_END_REQUEST in state STDIN"),
        (params() + stdout(b"x"), "FCGI_STDOUT in state STDIN"),
        (params() + stderr(b"x"), "FCGI_STDERR in state STDIN"),
        (params() + record(9, 1), "an empty FCGI_GET_VALUES in state STDIN"),
        (params() + record(99, 1, b"x"), "record type 99 in state STDIN"),
        (params() + record(0, 1, b"x"), "record type 0 in state STDIN"),
    ],
)
def test_a_record_out_of_order_hurts_only_its_request(wrong: bytes, words: str) -> None:
    """§6.1 and §6.2: the streams of a role come in its order, and the last is the one that ends it."""
    heard = serve(begin(), wrong, stdin(b"ignored"), head(2, flags=1))
    assert words in str(heard.error)
    assert heard.error.request_id == 1
    assert isinstance(heard.events[-1], Request)
    assert heard.fault is None


def test_data_before_the_end_of_stdin_is_out_of_order() -> None:
    """§6.4: the DATA of a Filter comes after its STDIN."""
    assert "FCGI_DATA in state STDIN" in str(serve(head(role=3), filter_data(b"x")).error)


# A server end: faults of the connection.


@pytest.mark.parametrize("version", [0, 2, 22, 71, 255])
def test_another_version_ends_the_connection(version: int) -> None:
    """§3.3: version is FCGI_VERSION_1; what follows another could be laid out in any way."""
    heard = serve(KEPT, bytes([version]) + stdin(b"x")[1:], stdin())
    assert f"version is {version}, must be 1" in str(heard.fault)
    assert heard.events == serve(KEPT).events
    assert heard.must_close


def test_an_http_request_is_shown_in_the_error() -> None:
    assert "GET / HT" in str(serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").fault)


@pytest.mark.parametrize("size", [0, 1, 6, 7, 9, 16, 65535])
def test_a_begin_request_of_another_size_ends_the_connection(size: int) -> None:
    """§5.1: the body of FCGI_BEGIN_REQUEST is 8 bytes."""
    heard = serve(record(1, 1, bytes(size)))
    assert f"FCGI_BEGIN_REQUEST holds {size} bytes, must be 8 (FastCGI 5.1)" in str(heard.fault)


def test_a_begin_request_for_an_open_id_ends_the_connection() -> None:
    """§3.3: an id is active from FCGI_BEGIN_REQUEST to FCGI_END_REQUEST."""
    heard = serve(KEPT, begin(2), begin(1))
    assert "request 1, which is open" in str(heard.fault)
    assert heard.events == serve(KEPT).events


@pytest.mark.parametrize("kind", range(1, 9))
def test_an_application_record_without_an_id_ends_the_connection(kind: int) -> None:
    """§3.3: management records have request id 0, application records another."""
    heard = serve(record(kind, 0, bytes(8)))
    assert heard.fault is not None
    assert heard.fault.rule == "FastCGI 3.3"


def test_a_fault_of_the_connection_blames_no_request() -> None:
    """The server answers the request that an error names, so a running one must not be named."""
    for fault in (begin(1), b"\2" + bytes(7), record(5, 0)):
        error = serve(KEPT, fault).fault
        assert error is not None
        assert error.request_id == 0


def test_after_a_fault_nothing_more_is_read_and_open_requests_may_be_answered() -> None:
    connection = opened(KEPT, stdin())
    with pytest.raises(RemoteProtocolError):
        connection.receive_data(begin())
    assert connection.receive_data(head(2)) == []
    assert connection.receive_data(b"") == []
    assert sent(connection, ANSWER, EndOfResponse(1)) == stdout(HEAD) + stdout() + end()
    assert connection.must_close


# A server end: the head that deadlines wait for.


def test_a_head_is_pending_from_its_first_byte_to_the_end_of_params() -> None:
    connection = ServerConnection()
    assert not connection.head_pending
    data = head(flags=1)
    for where in range(len(data)):
        connection.receive_data(data[where : where + 1])
        assert bool(connection.head_pending) is (where < len(data) - 1)
    connection.receive_data(begin(2)[:12])
    connection.receive_data(begin(2)[12:])
    assert connection.head_pending


def test_the_oldest_pending_head_is_the_one_that_is_told() -> None:
    connection = ServerConnection()
    assert connection.head_pending == 0
    connection.receive_data(begin(7)[:5])
    assert connection.head_pending == -1
    connection.receive_data(begin(7)[5:] + begin(3))
    assert connection.head_pending == 7
    connection.receive_data(params(b"", 7))
    assert connection.head_pending == 3
    connection.receive_data(params(b"", 3))
    assert connection.head_pending == 0


def test_the_late_body_of_an_answered_request_is_no_pending_head() -> None:
    connection = opened(KEPT, stdin(b"half")[:-1])
    sent(connection, ANSWER, EndOfResponse(1))
    assert not connection.head_pending
    connection.receive_data(b"f" + begin()[:7])
    assert connection.head_pending


# A server end: answers.


def test_an_answer_is_stdout_its_end_and_end_request() -> None:
    """§6.2: STDOUT, STDERR, and END_REQUEST when they are complete; §5.5: its 8 bytes."""
    connection = opened(head(flags=0) + stdin())
    data = sent(connection, ANSWER, ResponseBody(1, b"hello"), EndOfResponse(1))
    assert data == (
        b"\1\6\0\1\0\x2c\0\0" + HEAD + b"\1\6\0\1\0\5\0\0hello"
        b"\1\6\0\1\0\0\0\0"
        b"\1\3\0\1\0\x08\0\0\0\0\0\0\0\0\0\0"
    )
    assert connection.must_close


def test_error_output_goes_to_stderr_and_ends_that_stream_too() -> None:
    """§6.1: FCGI_STDERR need not be transmitted; where it was, an empty record ends it."""
    connection = opened(KEPT, stdin())
    data = sent(connection, ErrorOutput(1, b"oops\n"), ANSWER, ErrorOutput(1, b"!"))
    assert data == stderr(b"oops\n") + stdout(HEAD) + stderr(b"!")
    assert sent(connection, EndOfResponse(1)) == stdout() + stderr() + end()


@pytest.mark.parametrize("event", [ResponseBody(1, b""), ErrorOutput(1, b"")], ids=repr)
def test_no_bytes_write_no_record(event: Event) -> None:
    """§3.3: an empty record would end the stream."""
    connection = opened(KEPT, stdin())
    sent(connection, ANSWER)
    assert sent(connection, event) == b""
    assert sent(connection, EndOfResponse(1)) == stdout() + end()


def test_the_application_may_keep_the_connection() -> None:
    """§5.1: with FCGI_KEEP_CONN "the application does not close the connection"."""
    connection = opened(KEPT, stdin())
    sent(connection, ANSWER, EndOfResponse(1))
    assert not connection.must_close


def test_a_connection_not_to_be_kept_waits_for_the_requests_that_are_open() -> None:
    connection = opened(head(1), head(2, flags=1))
    sent(connection, ANSWER, EndOfResponse(1))
    assert not connection.must_close
    sent(connection, Response(2, "200 OK", []), EndOfResponse(2))
    assert connection.must_close


@pytest.mark.parametrize("size", [1, 65527, 65528, 65529, 65535, 65536, 200_000])
@pytest.mark.parametrize("event", [ResponseBody, ErrorOutput])
def test_no_record_is_longer_than_its_length_field_can_say(
    event: type[ResponseBody | ErrorOutput], size: int
) -> None:
    """§3.3: contentLength is 16 bits; HAProxy once let longer content smuggle records."""
    connection = opened(KEPT, stdin())
    sent(connection, ANSWER)
    body = os.urandom(size)
    records = list(fastcgi.read_records(sent(connection, event(1, body))))
    assert b"".join(each.content for each in records) == body
    assert max(len(each.content) for each in records) <= 65535
    assert len(records) == -(-size // 65528)
    assert all(each.padding_length == 0 for each in records)


def test_a_long_head_is_cut_into_records() -> None:
    connection = opened(KEPT, stdin())
    data = sent(connection, Response(1, "200 OK", [("X", "x" * 100_000)]))
    assert len(list(fastcgi.read_records(data))) == 2


def test_statuses_are_unsigned() -> None:
    """§5.5: appStatus is 32 bits, protocolStatus 8."""
    connection = opened(KEPT, stdin())
    sent(connection, ANSWER)
    data = sent(connection, EndOfResponse(1, 0xFFFFFFFF, 0xFF))
    assert data == stdout() + b"\1\3\0\1\0\x08\0\0\xff\xff\xff\xff\xff\0\0\0"


@pytest.mark.parametrize("statuses", [(-1, 0), (1 << 32, 0), (0, -1), (0, 256)])
def test_a_status_that_does_not_fit_changes_nothing(statuses: tuple[int, int]) -> None:
    connection = opened(KEPT, stdin())
    sent(connection, ANSWER)
    with pytest.raises(LocalProtocolError, match=r"FastCGI 5\.5"):
        connection.send(EndOfResponse(1, *statuses))
    assert sent(connection, EndOfResponse(1)) == stdout() + end()


def test_an_answer_without_a_head_cannot_claim_success() -> None:
    connection = opened(KEPT, stdin())
    with pytest.raises(LocalProtocolError, match="without a Response"):
        connection.send(EndOfResponse(1))
    assert sent(connection, EndOfResponse(1, 0, 2)) == stdout() + end(protocol_status=2)


def test_a_head_that_cannot_be_written_changes_nothing() -> None:
    connection = opened(KEPT, stdin())
    with pytest.raises(LocalProtocolError):
        connection.send(Response(1, "200 OK", [("X", "a\r\nSet-Cookie: b")]))
    assert sent(connection, ANSWER) == stdout(HEAD)


def test_giving_up_the_only_answer_cuts_the_connection() -> None:
    """Web servers ignore appStatus; no END_REQUEST is what they notice."""
    connection = opened(KEPT, stdin())
    sent(connection, ANSWER, ResponseBody(1, b"half"))
    assert sent(connection, RequestAborted(1)) == b""
    assert connection.must_close


def test_giving_up_one_answer_of_several_ends_it_with_a_status() -> None:
    connection = opened(KEPT, stdin(), head(2, flags=1))
    sent(connection, ANSWER, ResponseBody(1, b"half"))
    assert sent(connection, RequestAborted(1)) == end(app_status=1)
    assert not connection.must_close
    assert feed(connection, [stdin(b"", 2)]).events == [EndOfRequest(2)]


def test_an_answer_may_end_before_the_request_has() -> None:
    connection = opened(KEPT)
    assert sent(connection, ANSWER, EndOfResponse(1)) == stdout(HEAD) + stdout() + end()
    with pytest.raises(LocalProtocolError, match="not open"):
        connection.send(ResponseBody(1, b"late"))


def test_a_request_cannot_be_answered_before_it_is_announced() -> None:
    connection = opened(begin(), params(b"\1"))
    with pytest.raises(LocalProtocolError, match="UNANNOUNCED"):
        connection.send(ANSWER)


def test_a_body_before_the_head_is_not_sent() -> None:
    connection = opened(KEPT, stdin())
    with pytest.raises(LocalProtocolError, match="state HEAD"):
        connection.send(ResponseBody(1, b"x"))
    assert connection.data_to_send() == b""


def test_waiting_for_a_body_sends_nothing() -> None:
    connection = opened(KEPT)
    connection.want_body(1)
    assert connection.data_to_send() == b""


# A client end: requests.


def test_a_request_is_begin_request_params_and_their_end() -> None:
    """§5.1, §5.2: exact bytes."""
    connection = ClientConnection()
    variables = [(b"REQUEST_METHOD", b"GET"), (b"X", b"v" * 128)]
    data = sent(connection, Request(0x0102, variables, keep_conn=True))
    assert data == (
        b"\1\1\1\2\0\x08\0\0\0\1\1\0\0\0\0\0"
        b"\1\4\1\2\0\x99\0\0\x0e\3REQUEST_METHODGET\1\x80\0\0\x80X"
        + b"v" * 128
        + b"\1\4\1\2\0\0\0\0"
    )
    assert sent(connection, RequestBody(0x0102, b"hi"), EndOfRequest(0x0102)) == (
        b"\1\5\1\2\0\2\0\0hi\1\5\1\2\0\0\0\0"
    )


@pytest.mark.parametrize(("role", "number"), [(RESPONDER, 1), (AUTHORIZER, 2), (FILTER, 3)])
def test_the_role_and_the_flag_are_sent(role: str, number: int) -> None:
    data = sent(ClientConnection(), Request(1, [], role, False, False))
    assert data == begin(1, number, 0) + params()


@pytest.mark.parametrize(
    ("role", "events", "data"),
    [
        (RESPONDER, [EndOfRequest(1)], stdin()),
        (AUTHORIZER, [EndOfRequest(1)], b""),
        (FILTER, [EndOfRequest(1)], stdin() + filter_data()),
        (
            FILTER,
            [RequestBody(1, b"b"), FilterData(1, b"c"), FilterData(1, b"d"), EndOfRequest(1)],
            stdin(b"b") + stdin() + filter_data(b"c") + filter_data(b"d") + filter_data(),
        ),
        (RESPONDER, [RequestBody(1, b""), RequestAborted(1)], abort()),
    ],
)
def test_the_streams_of_a_role_are_each_ended(role: str, events: list[Event], data: bytes) -> None:
    """§6.2, §6.3, §6.4: the streams of each role; §3.3: each ends with an empty record."""
    assert sent(asking(role=role)(), *events) == data


def test_a_request_is_cut_between_its_pairs() -> None:
    """PHP-FPM and uWSGI drop a connection where a pair lies across two records."""
    variables = [(b"N%d" % number, b"v" * 999) for number in range(200)]
    data = sent(ClientConnection(), Request(1, variables))
    records = [each for each in fastcgi.read_records(data) if each.type == RecordType.PARAMS]
    assert len(records) == 5
    pairs = [pair for each in records for pair in fastcgi.decode_pairs(each.content)]
    assert pairs == variables


def test_a_pair_that_no_record_can_hold_is_cut() -> None:
    variables = [(b"A", b"a"), (b"LONG", b"v" * 100_000), (b"Z", b"z")]
    data = sent(ClientConnection(), Request(1, variables), EndOfRequest(1))
    heard = feed(ServerConnection(), [data])
    assert heard.events == [Request(1, variables, RESPONDER, True, False), EndOfRequest(1)]


@pytest.mark.parametrize(
    "request_",
    [
        Request(0, []),
        Request(65536, []),
        Request(-1, []),
        Request(1, [], "president"),
        Request(1, [(b"", b"v")]),
        Request(1, [(b"N", b"v\0")]),
        Request(1, [(b"N\0", b"v")]),
        Request(2, []),
    ],
    ids=[
        "id 0",
        "id 65536",
        "id -1",
        "no such role",
        "an empty name",
        "NUL in a value",
        "NUL in a name",
        "an id in use",
    ],
)
def test_a_request_that_cannot_be_sent_changes_nothing(request_: Request) -> None:
    connection = asking(Request(2, []))()
    with pytest.raises(LocalProtocolError):
        connection.send(request_)
    assert connection.data_to_send() == b""
    assert sent(connection, Request(1, [])) != b""


def test_a_long_body_is_cut_into_records() -> None:
    body = os.urandom(70_000)
    data = sent(asking(role=FILTER)(), RequestBody(1, body), FilterData(1, body))
    lengths = [(each.type, len(each.content)) for each in fastcgi.read_records(data)]
    assert lengths == [(5, 65528), (5, 4472), (5, 0), (8, 65528), (8, 4472)]


def test_what_a_real_server_sent_passes_through_both_ends_unchanged(
    from_a_server: Capture,
) -> None:
    original = feed(ServerConnection(), [from_a_server.data])
    client, again = ClientConnection(), ServerConnection()
    started = [event for event in original.events if not isinstance(event, RequestAborted)]
    variables = [pair for each in started if isinstance(each, Request) for pair in each.variables]
    if any(b"\0" in value for _, value in variables):
        # haproxy and h2o decode %00; what they may not send (§6.1) is taken, and not sent on.
        with pytest.raises(LocalProtocolError, match="NUL"):
            sent(client, *started)
        return
    # An authorizer's end comes with its head, and RequestAborted of an unannounced one stands alone.
    assert feed(again, [sent(client, *started)]).events == started


@pytest.fixture(params=captures("fastcgi"), ids=str)
def from_a_server(request: pytest.FixtureRequest) -> Capture:
    assert isinstance(request.param, Capture)
    return request.param


# A client end: answers.


def ask(*data: bytes, eof: bool = False, role: str = RESPONDER, keep_conn: bool = True) -> Heard:
    """What a client end with request 1 open makes of the bytes, however they are cut."""
    return hear(asking(role=role, keep_conn=keep_conn), *data, eof=eof)


def test_an_answer_becomes_its_events() -> None:
    """§6.2: the same data as a CGI program writes, in STDOUT and STDERR."""
    heard = ask(
        stderr(b"warn"),
        stdout(HEAD[:20]),
        stdout(HEAD[20:] + b"hel"),
        stdout(b"lo"),
        stdout(),
        stderr(b"ing"),
        stderr(),
        end(app_status=7),
    )
    assert heard.events == [
        ErrorOutput(1, b"warn"),
        ANSWER,
        ResponseBody(1, b"hello"),
        ErrorOutput(1, b"ing"),
        EndOfResponse(1, 7, 0),
    ]
    assert not heard.must_close


def test_an_answer_need_not_end_its_streams() -> None:
    """PHP-FPM sends no empty STDOUT; FCGI_END_REQUEST ends the answer in any case."""
    assert ask(stdout(HEAD), end()).events == [ANSWER, EndOfResponse(1)]


def test_the_connection_is_over_when_it_is_not_kept() -> None:
    assert ask(stdout(HEAD), end(), b"what follows", keep_conn=False).must_close
    assert not ask(stdout(HEAD), end(), keep_conn=True).must_close


def test_no_request_starts_on_a_connection_that_is_over() -> None:
    connection = asking(keep_conn=False)()
    connection.receive_data(stdout(HEAD) + end())
    with pytest.raises(LocalProtocolError, match="no more requests"):
        connection.send(Request(1, []))


def test_an_application_status_is_unsigned() -> None:
    heard = ask(stdout(HEAD), end(app_status=0xFFFFFFFE))
    assert heard.events[-1] == EndOfResponse(1, 0xFFFFFFFE)


@pytest.mark.parametrize("status", [1, 2, 3, 77])
def test_a_refusal_without_an_answer_surfaces(status: int) -> None:
    """§5.5: protocolStatus tells why the application did not take the request."""
    heard = ask(end(protocol_status=status))
    assert heard.events == [EndOfResponse(1, 0, status)]


@pytest.mark.parametrize("answer", [b"", stdout(), stdout(HEAD[:-1]), stderr(b"died")])
def test_an_answer_that_ends_before_its_head_is_lost(answer: bytes) -> None:
    heard = ask(answer, end())
    assert "before its head" in str(heard.error)
    assert heard.error.status_hint == 502
    assert isinstance(heard.events[-1], RequestAborted)


def test_a_head_that_is_none_loses_the_answer_and_no_other() -> None:
    requests = [Request(1, [], keep_conn=True), Request(2, [], keep_conn=True)]
    data = stdout(b"Traceback (most recent call last):\n") + stdout(b"ignored") + stderr(b"too")
    heard = hear(asking(*requests), data, stdout(HEAD, 2), end(1), end(2))
    assert "Traceback" in str(heard.error)
    assert [type(event) for event in heard.events] == [RequestAborted, Response, EndOfResponse]


def test_a_head_is_limited() -> None:
    heard = ask(stdout(b"X: " + b"x" * 40_000 + b"\r\n"), stdout(b"Y: " + b"y" * 40_000 + b"\r\n"))
    assert isinstance(heard.error, LimitExceeded)
    connection = ClientConnection(max_head_bytes=10)
    connection.send(Request(1, []))
    (event,) = connection.receive_data(stdout(HEAD))
    assert isinstance(event, RequestAborted)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (stdout(HEAD) + stdout() + stdout(b"x"), "FCGI_STDOUT in state COMPLETE"),
        (stdout(HEAD) + stdout() + stdout(), "an empty FCGI_STDOUT in state COMPLETE"),
        (stderr() + stderr(b"x"), "FCGI_STDERR after its end"),
        (stdin(b"x"), "FCGI_STDIN in state HEAD"),
        (begin(), "FCGI_BEGIN_REQUEST in state HEAD"),
        (record(9, 1), "an empty FCGI_GET_VALUES in state HEAD"),
        (record(99, 1), "an empty record type 99 in state HEAD"),
    ],
)
def test_a_record_out_of_order_loses_the_answer(wrong: bytes, words: str) -> None:
    heard = ask(wrong, stdout(b"ignored"), end())
    assert words in str(heard.error)
    assert isinstance(heard.events[-1], RequestAborted)
    assert heard.fault is None


def test_the_id_of_a_lost_answer_is_free_after_its_end() -> None:
    connection = asking()()
    connection.receive_data(stdout(b"no head\n"))
    with pytest.raises(LocalProtocolError, match="open"):
        connection.send(Request(1, []))
    connection.receive_data(end())
    assert sent(connection, Request(1, [])) != b""


def test_an_aborted_request_lives_until_its_end() -> None:
    """§5.4: the application answers an abort with FCGI_END_REQUEST."""
    connection = asking()()
    assert sent(connection, RequestAborted(1)) == b"\1\2\0\1\0\0\0\0"
    with pytest.raises(LocalProtocolError):
        connection.send(RequestBody(1, b"x"))
    assert connection.receive_data(end(app_status=1)) == [EndOfResponse(1, 1)]
    with pytest.raises(LocalProtocolError, match="not open"):
        connection.send(RequestAborted(1))


def test_the_end_of_file_cuts_every_open_answer() -> None:
    requests = [Request(each, [], keep_conn=True) for each in (1, 2, 3)]
    heard = hear(asking(*requests), stdout(HEAD), stdout(b"no head\n", 2), end(3, 0, 2), eof=True)
    lost = [event for event in heard.events if isinstance(event, RequestAborted)]
    assert [(event.request_id, type(event.error)) for event in lost] == [
        (2, RemoteProtocolError),
        (1, TruncatedMessage),
    ]
    assert heard.must_close


def test_after_the_end_of_file_nothing_is_open() -> None:
    connection = asking()()
    connection.receive_data(b"")
    for event in (RequestBody(1, b"x"), Request(2, [])):
        with pytest.raises(LocalProtocolError):
            connection.send(event)


@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        record(6, 0, b"x"),
        stdout(HEAD, 2),
        end(2),
        record(3, 1, bytes(7)),
        record(3, 1),
        record(11, 0, bytes(7)),
        record(9, 0),
        record(12, 0),
        record(10, 0, b"\1"),
    ],
    ids=[
        "another version",
        "no id",
        "an id that is not open",
        "the end of one that is not open",
        "a short END_REQUEST",
        "an empty END_REQUEST",
        "a short UNKNOWN_TYPE",
        "GET_VALUES",
        "an unknown management type",
        "values that are no pairs",
    ],
)
def test_what_an_application_cannot_send_ends_the_connection(wrong: bytes) -> None:
    heard = ask(stdout(HEAD), wrong)
    assert heard.events == [ANSWER]
    assert heard.fault is not None
    assert heard.fault.rule.startswith("FastCGI ")
    assert heard.fault.status_hint == 502
    assert heard.must_close


# A client end: management records.


def test_values_are_asked_for_and_kept() -> None:
    """§4.1: FCGI_GET_VALUES holds the names with empty values."""
    connection = ClientConnection()
    connection.get_values()
    assert connection.data_to_send() == record(
        9, 0, b"\x0e\0FCGI_MAX_CONNS\x0d\0FCGI_MAX_REQS\x0f\0FCGI_MPXS_CONNS"
    )
    told = b"\x0e\1FCGI_MAX_CONNS8\x0f\1FCGI_MPXS_CONNS1"
    heard = feed(connection, CHUNKERS["byte by byte"](record(10, 0, told)))
    assert (heard.events, heard.fault) == ([], None)
    assert connection.values == {"FCGI_MAX_CONNS": "8", "FCGI_MPXS_CONNS": "1"}


def test_values_that_nobody_asked_for_are_not_kept() -> None:
    connection = ClientConnection()
    connection.get_values([fastcgi.FCGI_MPXS_CONNS])
    told = b"\x0f\1FCGI_MPXS_CONNS0" + b"".join(b"\2\1%02dx" % number for number in range(50))
    connection.receive_data(record(10, 0, told))
    assert connection.values == {"FCGI_MPXS_CONNS": "0"}


@pytest.mark.parametrize("names", [[""], ["\u20ac"], ["x" * 65536]])
def test_names_that_cannot_be_asked_for_change_nothing(names: list[str]) -> None:
    connection = ClientConnection()
    with pytest.raises(LocalProtocolError):
        connection.get_values(names)
    assert connection.data_to_send() == b""


def test_types_that_the_application_does_not_know_are_kept() -> None:
    """§4.2: FCGI_UNKNOWN_TYPE names the type."""
    connection = ClientConnection()
    connection.receive_data(record(11, 0, bytes([42, 0, 0, 0, 0, 0, 0, 0])))
    assert connection.unknown_types == {42}


def test_both_ends_agree_about_the_limits() -> None:
    client, application = ClientConnection(), ServerConnection(max_conns=3, max_reqs=9)
    client.get_values()
    application.receive_data(client.data_to_send())
    client.receive_data(application.data_to_send())
    assert client.values == {"FCGI_MAX_CONNS": "3", "FCGI_MAX_REQS": "9", "FCGI_MPXS_CONNS": "1"}


# Any bytes.

RECORDS = st.builds(
    record,
    st.one_of(st.integers(1, 8), st.integers(0, 255)),
    st.integers(0, 3),
    st.one_of(
        st.sampled_from([b"", b"\1\1NV", b"\0\1\1\0\0\0\0\0", b"\0\3\0\0\0\0\0\0", HEAD]),
        st.binary(max_size=20),
    ),
    st.sampled_from([0, 0, 1, 7]),
)
STREAMS = st.lists(
    st.one_of(
        RECORDS,
        st.builds(begin, st.integers(1, 3), st.integers(1, 3), st.integers(0, 1)),
        st.builds(head, st.integers(1, 3), st.integers(1, 3), st.integers(0, 1)),
        st.builds(stdout, st.just(HEAD), st.integers(1, 3)),
        st.binary(max_size=10),
    ),
    max_size=12,
).map(b"".join)


@given(STREAMS, st.booleans())
def test_a_server_end_makes_the_same_of_any_bytes_however_they_are_cut(
    data: bytes, mpxs_conns: bool
) -> None:
    serve(
        data,
        eof=True,
        mpxs_conns=mpxs_conns,
        max_open_requests=2,
        max_variables=2,
        max_variable_bytes=9,
    )


@given(STREAMS)
def test_a_client_end_makes_the_same_of_any_bytes_however_they_are_cut(data: bytes) -> None:
    requests = [Request(1, [], keep_conn=True), Request(2, [])]
    hear(asking(*requests), data, eof=True)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=300))))
def test_pairs_are_decoded_as_they_were_encoded(pairs: list[tuple[bytes, bytes]]) -> None:
    assert fastcgi.decode_pairs(fastcgi.encode_pairs(pairs)) == pairs


@given(st.binary(max_size=60), st.integers(0, 4), st.integers(0, 40), st.integers(1, 59))
def test_pairs_are_refused_alike_however_their_stream_is_cut(
    data: bytes, max_variables: int, max_bytes: int, cut: int
) -> None:
    def outcome(*records: bytes) -> Heard:
        return serve(
            begin(), *records, params(), max_variables=max_variables, max_variable_bytes=max_bytes
        )

    whole = outcome(*[params(data)][: len(data)])
    pieces = [params(piece) for piece in (data[:cut], data[cut:]) if piece]
    assert outcome(*pieces).summary() == whole.summary()


# Cost.


def test_a_long_variable_arriving_byte_by_byte_costs_linear_time() -> None:
    size = 400_000
    pair = b"\1" + (size | 1 << 31).to_bytes(4, "big") + b"N" + b"v" * size
    connection = ServerConnection(max_variable_bytes=1 << 20)
    connection.receive_data(begin())
    started = time.process_time()
    for at in range(0, len(pair), 65535):
        data = params(pair[at : at + 65535])
        for where in range(len(data)):
            connection.receive_data(data[where : where + 1])
    (request,) = connection.receive_data(params())
    assert isinstance(request, Request)
    # Half a second here; copying the stream for each byte would take minutes.
    assert time.process_time() - started < 20


def test_a_body_of_one_byte_records_costs_linear_time() -> None:
    connection = opened(KEPT)
    data = stdin(b"x") * 100_000
    started = time.process_time()
    for at in range(0, len(data), 65536):
        connection.receive_data(data[at : at + 65536])
    assert time.process_time() - started < 20


def test_what_is_claimed_is_not_allocated() -> None:
    tracemalloc.start()
    try:
        connections = [
            opened(
                b"\1\5\0\1\xff\xff\xff\0", begin(), params(b"\x04\x80\1\0\0") + b"\1\4\0\1\xff\xff"
            )
            for _ in range(10)
        ]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(connections) == 10
    assert held < 10 * 65536


def test_many_ended_requests_are_not_remembered() -> None:
    connection = ServerConnection(max_open_requests=2)

    def exchange(request_id: int) -> None:
        connection.receive_data(head(request_id, flags=1) + stdin(b"", request_id))
        sent(connection, Response(request_id, "200 OK", []), EndOfResponse(request_id))

    exchange(1)
    tracemalloc.start()
    try:
        for request_id in range(1, 65536, 8):
            exchange(request_id)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 65536


def test_an_idle_connection_holds_on_to_nobodys_body() -> None:
    tracemalloc.start()
    try:
        connection = opened(KEPT, stdin(bytes(60_000)), stdin())
        sent(connection, ANSWER, ResponseBody(1, bytes(60_000)), EndOfResponse(1))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 30_000


# The module.


def test_serve_speaks_fastcgi(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(server, "serve", lambda *args, **options: called.append((args, options)))

    def application(environ: object, start_response: object) -> list[bytes]:
        return []

    fastcgi.serve(application)
    fastcgi.serve(application, "unix:/run/a.sock", threads=2)
    assert called == [
        ((application,), {"default_protocol": "fcgi"}),
        ((application, "unix:/run/a.sock"), {"default_protocol": "fcgi", "threads": 2}),
    ]
