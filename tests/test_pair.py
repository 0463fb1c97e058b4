"""The in-memory pair and the strategies' registration, which users of gateways rely on too."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import cgi, errors, events, fastcgi, scgi
from gateways.events import EndOfRequest, EndOfResponse, Event, Request, Response, ResponseBody
from gateways.headparser import HeadParser
from gateways.interface import Buffers
from gateways.response import write_head
from gateways.testing import (
    Pair,
    Pieces,
    bytewise,
    content_of,
    expanded,
    merged,
    strategies,
    whole,
)

# Where gateways is installed, Hypothesis has called this by itself.
strategies._hypothesis_setup_hook()

VARIABLES = [(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"1")]


def scgi_pair() -> Pair:
    return Pair(scgi.ClientConnection(), scgi.ServerConnection(), cut=bytewise)


def test_each_call_returns_only_what_it_moved() -> None:
    pair = scgi_pair()
    assert pair.to_server(Request(0, VARIABLES), EndOfRequest(0)) == [
        Request(0, VARIABLES),
        EndOfRequest(0),
    ]
    assert pair.to_client(Response(0, "200 OK", [])) == [Response(0, "200 OK", [])]
    assert merged(pair.to_client(ResponseBody(0, b"hello"))) == [ResponseBody(0, b"hello")]


def test_an_end_that_must_close_is_closed() -> None:
    pair = scgi_pair()
    pair.to_server(Request(0, VARIABLES), EndOfRequest(0))
    received = pair.to_client(Response(0, "200 OK", []), EndOfResponse(0))
    # SCGI's answer ends where its connection does, so the end of file must have arrived.
    assert received == [Response(0, "200 OK", []), EndOfResponse(0)]


def test_a_client_that_leaves_is_met_as_end_of_file() -> None:
    pair = scgi_pair()
    pair.to_server(Request(0, [(b"CONTENT_LENGTH", b"9"), (b"SCGI", b"1")]))
    (aborted,) = pair.client_closes()
    assert isinstance(aborted, events.RequestAborted)
    assert isinstance(aborted.error, errors.TruncatedMessage)
    assert pair.client_closes() == []


def test_answers_that_a_protocol_owes_arrive_with_the_call_that_caused_them() -> None:
    client = fastcgi.ClientConnection()
    pair = Pair(client, fastcgi.ServerConnection(max_conns=7))
    client.get_values()
    pair.pump()
    assert client.values["FCGI_MAX_CONNS"] == "7"


def test_a_scripts_variables_and_end_of_file_pass_too() -> None:
    pair = Pair(cgi.ClientConnection(), cgi.ServerConnection())
    chunked = [(b"HTTP_TRANSFER_ENCODING", b"chunked")]
    sent: list[Event] = [
        Request(0, chunked, body_delimited=True),
        events.RequestBody(0, b"body"),
        EndOfRequest(0),
    ]
    assert pair.to_server(*sent) == sent


@pytest.mark.parametrize("cut", [whole, bytewise, Pieces(1, 5)])
def test_a_fault_carries_all_events_of_its_bytes(cut: Pieces) -> None:
    class Babbling(fastcgi.ClientConnection):
        """A client that puts a record of version 9 behind each of its outboxes."""

        def data_to_send(self) -> bytes:
            data = super().data_to_send()
            return data and data + b"\x09" + bytes(7)

    pair = Pair(Babbling(), fastcgi.ServerConnection(), cut=cut)
    with pytest.raises(errors.RemoteProtocolError, match="version is 9") as caught:
        pair.to_server(Request(1, [], body_delimited=True))
    assert caught.value.events == [Request(1, [], body_delimited=True)]
    assert pair.server_events == caught.value.events


def test_the_short_cut_is_taken_where_it_may_be() -> None:
    class Counting(scgi.ServerConnection):
        taken = 0

        def receive_whole(self, data: bytes, /) -> tuple[Request, bytes] | None:
            found = super().receive_whole(data)
            Counting.taken += found is not None
            return found

    sent = [Request(0, VARIABLES), EndOfRequest(0)]
    for cut, short_cut in ((whole, True), (bytewise, True), (whole, False)):
        pair = Pair(scgi.ClientConnection(), Counting(), cut=cut, short_cut=short_cut)
        pair.to_server(*sent)
        assert pair.server_events == sent
    assert Counting.taken == 1


def test_a_whole_answer_stands_for_plain_events() -> None:
    answer = events.WholeAnswer(3, "200 OK", [("A", "b")], b"body")
    end = EndOfResponse(4)
    assert expanded([answer, end]) == [
        Response(3, "200 OK", [("A", "b")]),
        ResponseBody(3, b"body"),
        EndOfResponse(3),
        end,
    ]
    empty = events.WholeAnswer(3, "204 No Content", [], b"")
    assert expanded([empty]) == [Response(3, "204 No Content", []), EndOfResponse(3)]


def test_a_range_of_a_file_is_read_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        ranges: Buffers = [b"<", events.FileRange(file.fileno(), 3, 4), memoryview(b">")]
        assert content_of(ranges) == b"<3456>"


def test_sizes_of_pieces_are_positive() -> None:
    for sizes in ((), (0,), (3, -1)):
        with pytest.raises(ValueError, match="sizes"):
            Pieces(*sizes)


def test_pieces_repeat_their_sizes() -> None:
    assert list(Pieces(1, 3)(b"abcdefghij")) == [b"a", b"bcd", b"e", b"fgh", b"i", b"j"]


def test_merging_keeps_requests_and_streams_apart() -> None:
    separate: list[Event] = [
        events.RequestBody(1, b"a"),
        events.RequestBody(2, b"b"),
        events.FilterData(2, b"c"),
        events.ResponseBody(2, b"d"),
        events.ErrorOutput(2, b"e"),
    ]
    assert merged(separate) == separate
    doubled = [event for event in separate for _ in range(2)]
    assert [getattr(event, "data", b"") for event in merged(doubled)] == [
        b"aa",
        b"bb",
        b"cc",
        b"dd",
        b"ee",
    ]


def test_the_entry_point_names_the_hook() -> None:
    # Read from pyproject.toml, because a copied folder has no metadata that could be asked.
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())[
        "project"
    ]
    module, _, name = project["entry-points"]["hypothesis"]["_"].partition(":")
    assert getattr(import_module(module), name) is strategies._hypothesis_setup_hook


CARRIERS = [events.RequestBody, events.FilterData, ResponseBody, events.ErrorOutput]


@pytest.mark.parametrize("kind", CARRIERS)
@settings(max_examples=20)
@given(data=st.data())
def test_events_drawn_by_their_type_are_never_empty(
    kind: type[events.RequestBody], data: st.DataObject
) -> None:
    assert data.draw(st.from_type(kind)).data


@given(st.from_type(Response))
def test_a_response_drawn_by_its_type_can_be_sent(response: Response) -> None:
    parsed, rest = HeadParser(response.request_id).receive(
        write_head(response.status, response.headers)
    )
    assert (parsed, rest) == (response, b"")


@given(st.from_type(fastcgi.Record))
def test_a_record_drawn_by_its_type_can_be_read(record: fastcgi.Record) -> None:
    assert [read.encode() for read in fastcgi.read_records(record.encode())] == [record.encode()]


@given(st.from_type(Request))
def test_a_request_drawn_by_its_type_has_names(request: Request) -> None:
    assert all(name for name, _ in request.variables)
