"""Every cell of FastCGI's state tables: what the specification allows happens, the rest is refused.

What is allowed is written down here a second time, from the specification's role protocols (§6),
together with what it does; every other combination must hurt the request, and only the request.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gateways.errors import LocalProtocolError, RemoteProtocolError
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
    ResponseFile,
    WholeAnswer,
)
from gateways.fastcgi import ClientConnection, Record, RecordType, ServerConnection, read_records
from tests.twins import Twins

T = RecordType

VARIABLES = [(b"N", b"V")]
BEGIN = {RESPONDER: b"\0\1\1", AUTHORIZER: b"\0\2\1", FILTER: b"\0\3\1"}
HEAD = b"Status: 200 OK\r\n\r\n"
ANSWER = Response(1, "200 OK", [])

# Every type of the specification and two that are none, with content and without.
CONTENTS = {T.PARAMS: b"\1\1NV", T.STDOUT: HEAD, T.END_REQUEST: bytes(8)}
RECORDS = [
    Record(kind, 1, content)
    for kind in [0, *RecordType, 12]
    for content in (CONTENTS.get(RecordType(kind) if 0 < kind < 12 else T.STDIN, b"x"), b"")
]


def wire(*records: Record) -> bytes:
    return b"".join(record.encode() for record in records)


def key(record: Record) -> tuple[int, bool]:
    """A record as the tables below have it: its type, and whether it has content."""
    return record.type, bool(record.content)


# What a server end receives.

# How a request comes into each state of its role, after its FCGI_BEGIN_REQUEST.
END_OF_PARAMS = Record(T.PARAMS, 1)
END_OF_STDIN = Record(T.STDIN, 1)
END_OF_DATA = Record(T.DATA, 1)
REACHED: dict[str, dict[str, list[Record]]] = {
    RESPONDER: {"PARAMS": [], "STDIN": [END_OF_PARAMS], "READ": [END_OF_PARAMS, END_OF_STDIN]},
    AUTHORIZER: {"PARAMS": [], "READ": [END_OF_PARAMS]},
    FILTER: {
        "PARAMS": [],
        "STDIN": [END_OF_PARAMS],
        "DATA": [END_OF_PARAMS, END_OF_STDIN],
        "READ": [END_OF_PARAMS, END_OF_STDIN, END_OF_DATA],
    },
}


def _request(role: str) -> Request:
    return Request(1, [], role, role != AUTHORIZER, True)


ABORTED: dict[tuple[int, bool], list[Event]] = {(T.ABORT_REQUEST, False): [RequestAborted(1)]}
ALLOWED: dict[tuple[str, str], dict[tuple[int, bool], list[Event]]] = {
    # §6.2
    (RESPONDER, "PARAMS"): {
        **ABORTED,
        (T.PARAMS, True): [],
        (T.PARAMS, False): [_request(RESPONDER)],
    },
    (RESPONDER, "STDIN"): {
        **ABORTED,
        (T.STDIN, True): [RequestBody(1, b"x")],
        (T.STDIN, False): [EndOfRequest(1)],
    },
    (RESPONDER, "READ"): {**ABORTED},
    # §6.3; the STDIN that lighttpd sends does nothing.
    (AUTHORIZER, "PARAMS"): {
        **ABORTED,
        (T.PARAMS, True): [],
        (T.PARAMS, False): [_request(AUTHORIZER), EndOfRequest(1)],
    },
    (AUTHORIZER, "READ"): {**ABORTED, (T.STDIN, True): [], (T.STDIN, False): []},
    # §6.4
    (FILTER, "PARAMS"): {
        **ABORTED,
        (T.PARAMS, True): [],
        (T.PARAMS, False): [_request(FILTER)],
    },
    (FILTER, "STDIN"): {
        **ABORTED,
        (T.STDIN, True): [RequestBody(1, b"x")],
        (T.STDIN, False): [],
    },
    (FILTER, "DATA"): {
        **ABORTED,
        (T.DATA, True): [FilterData(1, b"x")],
        (T.DATA, False): [EndOfRequest(1)],
    },
    (FILTER, "READ"): {**ABORTED},
}


def receiving(role: str, state: str) -> ServerConnection:
    connection = ServerConnection()
    begin = Record(T.BEGIN_REQUEST, 1, BEGIN[role].ljust(8, b"\0"))
    connection.receive_data(wire(begin, *REACHED[role][state]))
    assert connection.data_to_send() == b""
    return connection


def test_the_server_ends_table_of_records_has_these_states() -> None:
    assert {
        (role, state) for role, states in ServerConnection.RECEIVED.items() for state in states
    } == (set(ALLOWED))


@pytest.mark.parametrize(("role", "state"), ALLOWED)
@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_a_server_end_takes_what_the_role_allows_and_nothing_else(
    role: str, state: str, record: Record
) -> None:
    connection = receiving(role, state)
    if record.type == T.BEGIN_REQUEST:
        # There is no request left to which the fault could be confined.
        with pytest.raises(RemoteProtocolError):
            connection.receive_data(wire(record))
        return
    events = connection.receive_data(wire(record))
    expected = ALLOWED[role, state].get(key(record))
    if expected is None:
        (aborted,) = events
        assert isinstance(aborted, RequestAborted)
        assert isinstance(aborted.error, RemoteProtocolError)
        assert aborted.error.rule == "FastCGI 6.1"
        # The request is still open for an answer, and what else comes for it is ignored.
        connection.send(Response(1, "400 Bad Request", []))
        assert connection.receive_data(wire(*(each for each in RECORDS if each.type != 1))) == []
    else:
        assert events == expected


@pytest.mark.parametrize(("role", "state"), ALLOWED)
def test_an_abort_is_the_last_thing_that_a_server_end_hears_of_a_request(
    role: str, state: str
) -> None:
    connection = receiving(role, state)
    connection.receive_data(wire(Record(T.ABORT_REQUEST, 1)))
    assert connection.receive_data(wire(*(each for each in RECORDS if each.type != 1))) == []


PLAIN = wire(
    Record(T.BEGIN_REQUEST, 1, BEGIN[RESPONDER].ljust(8, b"\0")),
    Record(T.PARAMS, 1, b"\1\1NV"),
    END_OF_PARAMS,
    END_OF_STDIN,
)
"""A request that `receive_whole` takes; it leads to the state READ."""


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_a_request_that_came_whole_is_in_the_state_that_its_records_lead_to(record: Record) -> None:
    twins = Twins("FastCGI")
    twins.receive(PLAIN)
    assert twins.taken == 1
    if record.type != T.BEGIN_REQUEST:
        events, _ = twins.receive(wire(record))
        expected = ALLOWED[RESPONDER, "READ"].get(key(record))
        assert expected is None or events == expected
    for late in RECORDS:
        twins.receive(wire(late))


# What a server end sends.

EVERY_EVENT: list[Event] = [
    Request(1, VARIABLES),
    RequestBody(1, b"x"),
    FilterData(1, b"x"),
    EndOfRequest(1),
    RequestAborted(1),
    ANSWER,
    ResponseBody(1, b"x"),
    ErrorOutput(1, b"x"),
    EndOfResponse(1, 1),
    WholeAnswer(1, "200 OK", [], b"x"),
]


def _records(data: bytes) -> list[tuple[int, bytes]]:
    return [(record.type, record.content) for record in read_records(data)]


ENDED = (T.END_REQUEST, b"\0\0\0\1\0\0\0\0")
ANSWERED: dict[str, dict[type[Event], list[tuple[int, bytes]]]] = {
    "UNANNOUNCED": {},
    "UNREAD": {RequestAborted: [ENDED]},
    "HEAD": {
        Response: [(T.STDOUT, HEAD)],
        ErrorOutput: [(T.STDERR, b"x")],
        WholeAnswer: [(T.STDOUT, HEAD + b"x"), (T.STDOUT, b""), (T.END_REQUEST, bytes(8))],
        EndOfResponse: [(T.STDOUT, b""), ENDED],
        RequestAborted: [ENDED],
    },
    "BODY": {
        ResponseBody: [(T.STDOUT, b"x")],
        ErrorOutput: [(T.STDERR, b"x")],
        EndOfResponse: [(T.STDOUT, b""), ENDED],
        RequestAborted: [ENDED],
    },
}


def answering(state: str) -> ServerConnection:
    connection = ServerConnection()
    # A second request is open, so that giving up the first ends it and not the connection.
    role = BEGIN[FILTER if state == "UNREAD" else RESPONDER].ljust(8, b"\0")
    for request_id in (2, 1):
        connection.receive_data(wire(Record(T.BEGIN_REQUEST, request_id, role)))
    if state != "UNANNOUNCED":
        connection.receive_data(wire(END_OF_PARAMS))
    if state in ("HEAD", "BODY"):
        connection.receive_data(wire(END_OF_STDIN))
    if state == "BODY":
        connection.send(ANSWER)
        connection.data_to_send()
    return connection


def test_the_server_ends_table_of_events_has_these_states() -> None:
    assert set(ServerConnection.SENT) == set(ANSWERED)


@pytest.mark.parametrize("state", ANSWERED)
@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_a_server_end_sends_what_the_answer_allows_and_nothing_else(
    state: str, event: Event
) -> None:
    connection = answering(state)
    expected = ANSWERED[state].get(type(event))
    if expected is None:
        with pytest.raises(LocalProtocolError):
            connection.send(event)
        assert connection.data_to_send() == b""
        return
    connection.send(event)
    assert _records(connection.data_to_send()) == expected
    if expected[-1][0] == T.END_REQUEST:
        for late in EVERY_EVENT:
            with pytest.raises(LocalProtocolError, match="not open"):
                connection.send(late)


@pytest.mark.parametrize("state", ANSWERED)
def test_a_server_end_sends_a_file_where_it_may_send_a_body(state: str) -> None:
    connection = answering(state)
    event = ResponseFile(1, 0, 0, 5)
    if state == "BODY":
        connection.send(event)
        assert len(connection.buffers_to_send()) == 2
        return
    with pytest.raises(LocalProtocolError):
        connection.send(event)
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside another"])
def test_a_request_that_came_whole_is_answered_like_any_other(event: Event, others: bool) -> None:
    twins = Twins("FastCGI")
    twins.receive(PLAIN)
    assert twins.taken == 1
    if others:
        twins.receive(wire(Record(T.BEGIN_REQUEST, 2, BEGIN[RESPONDER].ljust(8, b"\0"))))
    sent = twins.send(event)
    expected = ANSWERED["HEAD"].get(type(event))
    if others or type(event) is not RequestAborted:
        assert (None if sent is None else _records(sent)) == expected
    for late in EVERY_EVENT:
        twins.send(late)


# What a client end sends.

ASKED: dict[tuple[str, str], dict[type[Event], list[tuple[int, bytes]]]] = {
    (RESPONDER, "STDIN"): {
        RequestBody: [(T.STDIN, b"x")],
        EndOfRequest: [(T.STDIN, b"")],
        RequestAborted: [(T.ABORT_REQUEST, b"")],
    },
    (AUTHORIZER, "NO STDIN"): {EndOfRequest: [], RequestAborted: [(T.ABORT_REQUEST, b"")]},
    (FILTER, "STDIN, DATA"): {
        RequestBody: [(T.STDIN, b"x")],
        FilterData: [(T.STDIN, b""), (T.DATA, b"x")],
        EndOfRequest: [(T.STDIN, b""), (T.DATA, b"")],
        RequestAborted: [(T.ABORT_REQUEST, b"")],
    },
    (FILTER, "DATA"): {
        FilterData: [(T.DATA, b"x")],
        EndOfRequest: [(T.DATA, b"")],
        RequestAborted: [(T.ABORT_REQUEST, b"")],
    },
    (RESPONDER, "SENT"): {RequestAborted: [(T.ABORT_REQUEST, b"")]},
    (AUTHORIZER, "SENT"): {RequestAborted: [(T.ABORT_REQUEST, b"")]},
    (FILTER, "SENT"): {RequestAborted: [(T.ABORT_REQUEST, b"")]},
    (RESPONDER, "ABORTED"): {},
    (AUTHORIZER, "ABORTED"): {},
    (FILTER, "ABORTED"): {},
}
INTO: dict[str, Event] = {
    "DATA": FilterData(1, b"x"),
    "SENT": EndOfRequest(1),
    "ABORTED": RequestAborted(1),
}


def test_the_client_ends_table_of_events_has_these_states() -> None:
    assert set(ClientConnection.SENT) == {state for _, state in ASKED}


@pytest.mark.parametrize(("role", "state"), ASKED)
@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_a_client_end_sends_what_the_role_allows_and_nothing_else(
    role: str, state: str, event: Event
) -> None:
    connection = ClientConnection()
    connection.send(Request(1, VARIABLES, role))
    if state in INTO:
        connection.send(INTO[state])
    connection.data_to_send()
    expected = ASKED[role, state].get(type(event))
    if expected is None:
        with pytest.raises(LocalProtocolError):
            connection.send(event)
        assert connection.data_to_send() == b""
    else:
        connection.send(event)
        assert _records(connection.data_to_send()) == expected


# What a client end receives.

OUTPUT = Record(T.STDOUT, 1, HEAD)
END_OF_OUTPUT = Record(T.STDOUT, 1)
COME_TO: dict[str, list[Record]] = {
    "HEAD": [],
    "NO HEAD": [END_OF_OUTPUT],
    "BODY": [OUTPUT],
    "COMPLETE": [OUTPUT, END_OF_OUTPUT],
}
ERRORS: dict[tuple[int, bool], list[Event]] = {
    (T.STDERR, True): [ErrorOutput(1, b"x")],
    (T.STDERR, False): [],
}
END: dict[tuple[int, bool], list[Event]] = {(T.END_REQUEST, True): [EndOfResponse(1)]}
ANSWERS: dict[str, dict[tuple[int, bool], list[Event]]] = {
    "HEAD": {**ERRORS, (T.STDOUT, True): [ANSWER], (T.STDOUT, False): []},
    "NO HEAD": {**ERRORS},
    "BODY": {
        **ERRORS,
        **END,
        (T.STDOUT, True): [ResponseBody(1, HEAD)],
        (T.STDOUT, False): [],
    },
    "COMPLETE": {**ERRORS, **END},
}


def hearing(records: Iterable[Record]) -> ClientConnection:
    connection = ClientConnection()
    connection.send(Request(1, VARIABLES, keep_conn=True))
    for record in records:
        connection.receive_data(record.encode())
    return connection


def test_the_client_ends_table_of_records_has_these_states() -> None:
    assert set(ClientConnection.RECEIVED) == set(ANSWERS)


@pytest.mark.parametrize("state", ANSWERS)
@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_a_client_end_takes_what_an_answer_allows_and_nothing_else(
    state: str, record: Record
) -> None:
    connection = hearing(COME_TO[state])
    if key(record) == (T.END_REQUEST, False):
        with pytest.raises(RemoteProtocolError, match="must be 8"):
            connection.receive_data(wire(record))
        return
    events = connection.receive_data(wire(record))
    expected = ANSWERS[state].get(key(record))
    if expected is not None:
        assert events == expected
        return
    (aborted,) = events
    assert isinstance(aborted, RequestAborted)
    assert isinstance(aborted.error, RemoteProtocolError)
    if record.type != T.END_REQUEST:
        # The answer is lost; until its end nothing is heard of it.
        others = [each for each in RECORDS if each.type != T.END_REQUEST]
        assert connection.receive_data(wire(*others)) == []
        assert connection.receive_data(wire(Record(T.END_REQUEST, 1, bytes(8)))) == []
    connection.send(Request(1, VARIABLES))
