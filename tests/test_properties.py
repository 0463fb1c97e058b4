"""What holds for every conversation and for all bytes: properties of codecs, environ and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.validate import validator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateways import cgi, environ, errors, events, fastcgi, scgi, wsgi
from gateways.events import RESPONDER, Event, Request, Response
from gateways.headparser import HeadParser
from gateways.response import write_head
from gateways.testing import Pair, bytewise, deliver, expanded, merged, whole
from gateways.testing.strategies import (
    PROTOCOLS,
    AnyClient,
    AnyServer,
    Conversation,
    bodies,
    broken_answers,
    broken_requests,
    client_end,
    conversations,
    cuts,
    environs,
    mutations,
    plain_requests,
    plausible_requests,
    records,
    requests,
    responses,
    server_end,
)
from tests.doors import MemoryServer
from tests.twins import Twins

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)

# Where faults hide deeper than elsewhere.
TWICE = settings(max_examples=2 * settings().max_examples)

Cuts = Callable[[bytes], Iterable[bytes]]


def cut_anyhow() -> st.SearchStrategy[Cuts]:
    return st.one_of(cuts(), st.just(whole))


# What one end sends the other receives.


@each_protocol
@given(data=st.data(), cut=cut_anyhow())
def test_what_one_end_sends_the_other_receives(
    protocol: str, data: st.DataObject, cut: Cuts
) -> None:
    conversation = data.draw(conversations(protocol))
    pair = Pair(client_end(protocol), server_end(protocol), cut=cut)
    received = pair.to_server(*conversation.sent)
    assert merged(received) == merged(conversation.sent)
    received = pair.to_client(*conversation.answered)
    assert merged(received) == merged(conversation.answered)


@each_protocol
@given(data=st.data())
def test_the_same_holds_byte_by_byte(protocol: str, data: st.DataObject) -> None:
    conversation = data.draw(conversations(protocol, large=False))
    pair = Pair(client_end(protocol), server_end(protocol), cut=bytewise)
    assert merged(pair.to_server(*conversation.sent)) == merged(conversation.sent)
    assert merged(pair.to_client(*conversation.answered)) == merged(conversation.answered)


@given(st.lists(records(), max_size=6))
def test_records_are_read_as_they_were_written(written: list[fastcgi.Record]) -> None:
    data = b"".join(record.encode() for record in written)
    read = list(fastcgi.read_records(data))
    assert [record.encode() for record in read] == [record.encode() for record in written]
    offsets = [record.offset for record in read]
    assert [data[offset + 1] for offset in offsets] == [record.type for record in written]


# Any bytes give events or RemoteProtocolError, the same however they are cut.


class Heard:
    """What an end made of some bytes and the end of file: its events, its fault, its own answers."""

    def __init__(self, end: AnyClient | AnyServer, pieces: Iterable[bytes]) -> None:
        self.events: list[Event] = []
        self.fault: tuple[type[Exception], str] | None = None
        try:
            deliver(end, [*pieces, b""], self.events)
        except errors.RemoteProtocolError as error:
            self.fault = (type(error), str(error))
        self.owed = end.data_to_send()
        self.must_close = end.must_close
        self.events = merged(self.events)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Heard) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"Heard({vars(self)!r:.2000})"


LIMITS: dict[str, list[dict[str, Any]]] = {
    "FastCGI": [
        {},
        {"max_variables": 2},
        {"max_variable_bytes": 20},
        {"max_open_requests": 1},
        {"mpxs_conns": False, "roles": (RESPONDER,)},
    ],
    "SCGI": [{}, {"max_variables": 2}, {"max_variable_bytes": 40}],
    "CGI": [{}],
}
"""Limits of server ends that short conversations reach."""


def server_awaiting(protocol: str, limits: dict[str, Any] | None = None) -> AnyServer:
    """A server end that waits for bytes; a script's variables have arrived and announce a body."""
    if protocol == "FastCGI":
        return fastcgi.ServerConnection(**limits or {})
    if protocol == "SCGI":
        return scgi.ServerConnection(**limits or {})
    server = cgi.ServerConnection()
    server.receive_variables([(b"CONTENT_LENGTH", b"20")])
    return server


def client_awaiting(protocol: str) -> AnyClient:
    """A client end that has made its requests: FastCGI's has two open, 1 and 2."""
    client = client_end(protocol)
    ids = (1, 2) if protocol == "FastCGI" else (0,)
    for request_id in ids:
        client.send(Request(request_id, [], keep_conn=True))
        client.send(events.EndOfRequest(request_id))
    client.data_to_send()
    return client


@each_protocol
@TWICE
@given(data=st.data(), cut=cuts())
def test_whatever_a_server_end_hears_is_the_same_however_it_is_cut(
    protocol: str, data: st.DataObject, cut: Cuts
) -> None:
    heard = data.draw(broken_requests(protocol))
    limits = data.draw(st.sampled_from(LIMITS[protocol]))
    at_once = Heard(server_awaiting(protocol, limits), whole(heard))
    assert Heard(server_awaiting(protocol, limits), cut(heard)) == at_once
    if len(heard) < 2000:
        assert Heard(server_awaiting(protocol, limits), bytewise(heard)) == at_once
    for event in at_once.events:
        if isinstance(event, Request) and protocol != "CGI":
            assert all(name for name, _ in event.variables)
            assert len(event.variables) <= limits.get("max_variables", 1000)
            size = sum(len(name) + len(value) for name, value in event.variables)
            assert size <= limits.get("max_variable_bytes", 131072)


@each_protocol
@TWICE
@given(data=st.data(), cut=cuts())
def test_whatever_a_client_end_hears_is_the_same_however_it_is_cut(
    protocol: str, data: st.DataObject, cut: Cuts
) -> None:
    heard = data.draw(broken_answers(protocol))
    at_once = Heard(client_awaiting(protocol), whole(heard))
    assert Heard(client_awaiting(protocol), cut(heard)) == at_once
    if len(heard) < 2000:
        assert Heard(client_awaiting(protocol), bytewise(heard)) == at_once


@each_protocol
@given(data=st.data())
def test_after_its_end_an_end_hears_nothing_and_raises_only_its_own_fault(
    protocol: str, data: st.DataObject
) -> None:
    for end, heard in (
        (server_awaiting(protocol), data.draw(broken_requests(protocol))),
        (client_awaiting(protocol), data.draw(broken_answers(protocol))),
    ):
        first = Heard(end, whole(heard))
        late = data.draw(broken_requests(protocol))
        for piece in (late, b"", late):
            try:
                assert end.receive_data(piece) == []
            except errors.RemoteProtocolError as error:
                assert (type(error), str(error)) == first.fault  # noqa: PT017 (raising is optional)


@each_protocol
@given(data=st.data())
def test_an_event_that_may_not_be_sent_changes_nothing(protocol: str, data: st.DataObject) -> None:
    conversation = data.draw(conversations(protocol, large=False))
    pair = Pair(client_end(protocol), server_end(protocol))
    for event in [*conversation.sent, *conversation.answered]:
        for end in (pair.client, pair.server):
            stray = data.draw(_stray_events(conversation))
            try:
                end.send(stray)
            except errors.LocalProtocolError:
                assert end.data_to_send() == b""
            else:
                return  # It was allowed, so from here on this is another conversation.
        if event in conversation.sent:
            pair.to_server(event)
        else:
            pair.to_client(event)
    assert merged(pair.server_events) == merged(conversation.sent)
    assert merged(pair.client_events) == merged(conversation.answered)


def _stray_events(conversation: Conversation) -> st.SearchStrategy[Event]:
    ids = sorted({event.request_id for event in conversation.sent} | {0, 1})
    makers: list[Callable[[int], Event]] = [
        lambda request_id: Request(request_id, [(b"A", b"b")]),
        lambda request_id: events.RequestBody(request_id, b"stray"),
        lambda request_id: events.FilterData(request_id, b"stray"),
        events.EndOfRequest,
        lambda request_id: Response(request_id, "200 OK", [("X-A", "forged\r\nX-B: c")]),
        lambda request_id: events.ResponseBody(request_id, b"stray"),
        events.EndOfResponse,
    ]
    return st.builds(
        lambda make, request_id: make(request_id), st.sampled_from(makers), st.sampled_from(ids)
    )


# The short cut.  `Twins` compares after every step: what was received, what each end then sends
# and says of itself.  Requests that it takes are drawn first, so that much of this is about it.

each_byte_protocol = pytest.mark.parametrize("protocol", ["FastCGI", "SCGI"])


def twins(protocol: str, limits: dict[str, Any] | None = None) -> Twins:
    return Twins(protocol, **limits or {})


@each_byte_protocol
@given(data=st.data())
def test_the_short_cut_is_taken_where_it_says_and_is_the_long_way(
    protocol: str, data: st.DataObject
) -> None:
    request = data.draw(plain_requests(protocol))
    pair = twins(protocol)
    received, fault = pair.receive(request)
    assert fault is None
    assert isinstance(received[0], Request)
    names = [name for name, _ in received[0].variables]
    odd = b"wsgi." in request if protocol == "SCGI" else any(b"." in name for name in names)
    assert pair.taken == (not odd)


@each_byte_protocol
@TWICE
@given(data=st.data())
def test_what_happens_after_the_short_cut_is_what_happens_after_the_long_way(
    protocol: str, data: st.DataObject
) -> None:
    pair = twins(protocol, data.draw(st.sampled_from(LIMITS[protocol])))
    pair.receive(data.draw(plain_requests(protocol)))
    for step in data.draw(st.lists(_steps(protocol), max_size=8)):
        if isinstance(step, bytes):
            pair.receive(step)
        else:
            pair.send(step)


def _steps(protocol: str) -> st.SearchStrategy[bytes | Event]:
    ids = (1, 2) if protocol == "FastCGI" else (0,)
    plain = plain_requests(protocol)
    pieces = st.tuples(plain, st.integers(0, 200), st.integers(1, 200)).map(
        lambda drawn: drawn[0][drawn[1] :][: drawn[2]]
    )
    received = [plain, plain, pieces, plain.flatmap(mutations), st.just(b"")]
    if protocol == "FastCGI":
        kinds = st.sampled_from(
            [kind for kind in fastcgi.RecordType if kind != fastcgi.RecordType.BEGIN_REQUEST]
        )
        contents = st.sampled_from([b"", b"x", fastcgi.encode_pairs([(b"FCGI_MAX_CONNS", b"")])])
        record = st.builds(fastcgi.Record, kinds, st.integers(0, 3), contents, st.integers(0, 1))
        received.append(record.map(fastcgi.Record.encode))
    head = ("200 OK", [("Content-Type", "text/plain")])
    makers: list[Callable[[int], Event]] = [
        lambda request_id: events.WholeAnswer(request_id, *head, b"hello"),
        lambda request_id: events.WholeAnswer(request_id, *head, b"x" * 70_000),
        lambda request_id: events.WholeAnswer(request_id, "200 OK", [("A", "b\nc")], b""),
        lambda request_id: Response(request_id, *head),
        lambda request_id: events.ResponseBody(request_id, b"hello"),
        lambda request_id: events.ErrorOutput(request_id, b"oops"),
        events.EndOfResponse,
        lambda request_id: events.EndOfResponse(request_id, 1),
        events.RequestAborted,
    ]
    sent = st.builds(
        lambda make, request_id: make(request_id), st.sampled_from(makers), st.sampled_from(ids)
    )
    return st.one_of(sent, *received)


@each_byte_protocol
@TWICE
@given(data=st.data())
def test_a_damaged_request_takes_the_short_cut_only_to_the_same_events(
    protocol: str, data: st.DataObject
) -> None:
    pair = twins(protocol)
    pair.receive(data.draw(mutations(data.draw(plain_requests(protocol)))))
    pair.receive(b"")


@each_byte_protocol
@given(data=st.data(), cut=cut_anyhow())
def test_the_short_cut_makes_no_difference_to_whatever_a_server_end_hears(
    protocol: str, data: st.DataObject, cut: Cuts
) -> None:
    pair = twins(protocol, data.draw(st.sampled_from(LIMITS[protocol])))
    for piece in cut(data.draw(broken_requests(protocol))):
        pair.receive(piece)
    pair.receive(b"")


@each_byte_protocol
@given(data=st.data(), cut=cut_anyhow())
def test_conversations_are_the_same_with_the_short_cut(
    protocol: str, data: st.DataObject, cut: Cuts
) -> None:
    conversation = data.draw(conversations(protocol))
    pair = Pair(client_end(protocol), server_end(protocol), cut=cut, short_cut=True)
    received: list[Event] = []
    # A request travels in one piece, so that it can come whole.
    for event in conversation.sent:
        pair.client.send(event)
        if isinstance(event, events.EndOfRequest):
            pair.pump()
    assert merged(pair.server_events) == merged(conversation.sent)
    received = pair.to_client(*conversation.answered)
    assert merged(received) == merged(conversation.answered)


@each_byte_protocol
@given(data=st.data(), cut=cut_anyhow())
def test_a_whole_answer_is_received_as_the_events_that_it_stands_for(
    protocol: str, data: st.DataObject, cut: Cuts
) -> None:
    request_id = 1 if protocol == "FastCGI" else 0
    pair = Pair(client_end(protocol), server_end(protocol), cut=cut, short_cut=True)
    pair.to_server(Request(request_id, [(b"A", b"b")]), events.EndOfRequest(request_id))
    head = data.draw(responses(request_id))
    answer = events.WholeAnswer(request_id, head.status, head.headers, data.draw(bodies()))
    assert merged(pair.to_client(answer)) == expanded([answer])


# A server behind which an application stands.


def _application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = b"".join(iter(lambda: environ["wsgi.input"].read(999), b""))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d bytes" % len(body)]


VARIABLES = [(b"CONTENT_LENGTH", b"7"), (b"REQUEST_METHOD", b"POST"), (b"PATH_INFO", b"/")]


class MemoryConnection:
    """One connection to a server that lives through everything: its answers, as bytes."""

    def __init__(self, protocol: str, variables: list[tuple[bytes, bytes]] = VARIABLES) -> None:
        self.end = server_end(protocol)
        self.variables = variables
        self.open: dict[int, list[Event]] = {}
        self.output = b""
        self.server = MemoryServer(validator(_application), self._send)

    def hear(self, pieces: Iterable[bytes]) -> bytes:
        """Everything the server answers to these bytes and the end of file."""
        if isinstance(self.end, cgi.ServerConnection):
            self._handle(self.end.receive_variables(self.variables))
        for piece in [*pieces, b""]:
            try:
                self._handle(self.end.receive_data(piece))
            except errors.RemoteProtocolError as error:
                self._handle(error.events)
                break
        self.output += self.end.data_to_send()
        return self.output

    def _handle(self, received: list[Event]) -> None:
        # All that was received is looked at before anything runs: a fault may follow the end of
        # its request in the same bytes.
        complete: list[int] = []
        for event in received:
            request_id = event.request_id
            self.open.setdefault(request_id, []).append(event)
            if isinstance(event, events.EndOfRequest):
                complete.append(request_id)
            elif isinstance(event, events.RequestAborted):
                del self.open[request_id]
                complete = [each for each in complete if each != request_id]
                if event.error is not None:
                    self.server.refuse(request_id, event.error)
        for request_id in complete:
            collected = self.open.pop(request_id)
            head = collected[0]
            assert isinstance(head, Request)
            self.server.run(head, _bodies(collected))

    def _send(self, event: Event) -> None:
        self.end.send(event)
        self.output += self.end.data_to_send()


def _bodies(collected: list[Event]) -> Callable[[], bytes]:
    pieces: Iterator[bytes] = (
        event.data for event in collected if isinstance(event, events.RequestBody)
    )
    return lambda: next(pieces, b"")


@each_protocol
@given(data=st.data(), cut=cuts())
def test_a_server_lives_through_everything_and_answers_the_next_connection(
    protocol: str, data: st.DataObject, cut: Cuts
) -> None:
    variables = data.draw(requests()).variables if protocol == "CGI" else []
    broken = MemoryConnection(protocol, variables)
    broken.hear(cut(data.draw(broken_requests(protocol))))
    client = client_end(protocol)
    request_id = 1 if protocol == "FastCGI" else 0
    client.send(Request(request_id, VARIABLES))
    client.send(events.RequestBody(request_id, b"healthy"))
    client.send(events.EndOfRequest(request_id))
    received = client.receive_data(MemoryConnection(protocol).hear([client.data_to_send()]))
    bodies = [event for event in received if isinstance(event, events.ResponseBody)]
    assert bodies == [events.ResponseBody(request_id, b"7 bytes")]


# environ and the head of an answer.


POST = (b"REQUEST_METHOD", b"POST")


def wild_requests() -> st.SearchStrategy[Request]:
    """Requests whose variables are any bytes at all, NUL and empty names among them."""
    pairs = st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=6)
    return st.builds(Request, st.just(0), pairs, body_delimited=st.booleans())


@TWICE
@given(st.one_of(requests(), wild_requests()), st.sampled_from([None, "", "/", "/app", "/café"]))
@example(Request(0, [(b"SCRIPT_NAME", b""), (b"PATH_INFO", b"")]), None)
@example(Request(0, [POST, (b"CONTENT_LENGTH", b"1"), (b"CONTENT_LENGTH", b"2")]), None)
@example(Request(0, [POST, (b"CONTENT_LENGTH", b"\xb2")]), None)
def test_any_request_is_an_environ_of_strings_or_a_fault_of_the_peer(
    request: Request, script_name: str | None
) -> None:
    before = list(request.variables)
    base: dict[str, object] = {"wsgi.input": object()}
    try:
        built, length = environ.build(request, base=base, script_name=script_name)
    except errors.RemoteProtocolError as error:
        assert error.status_hint in (400, 413, 431)  # noqa: PT017 (a fault is only one outcome)
        return
    assert request.variables == before
    assert base == {"wsgi.input": base["wsgi.input"]}
    ours = {"wsgi.input", "wsgi.url_scheme", "wsgi.input_terminated"}
    for name, value in built.items():
        assert type(name) is str
        assert name in ours or (type(value) is str and max(value, default="") <= "\xff")
    assert ours >= {name for name in built if name.startswith("wsgi.")}
    for name in ("REQUEST_METHOD", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"):
        assert built[name]
    assert not built.keys() & {"HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}
    assert built["SCRIPT_NAME"] != "/"
    assert built["SCRIPT_NAME"] or built["PATH_INFO"]
    assert length is None or 0 <= length < 10**18
    assert (length is None) == built.get("wsgi.input_terminated", False)


def plain_variables() -> st.SearchStrategy[dict[str, str]]:
    """Variables as `Request.text` has them: any strings of latin-1, the names plain."""
    names = st.sampled_from(
        [
            *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE"),
            *("CONTENT_LENGTH", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REQUEST_URI"),
            *("DOCUMENT_URI", "SCRIPT_FILENAME", "REMOTE_USER", "AUTH_TYPE", "HTTPS"),
            *("REQUEST_SCHEME", "SERVER_ADDR", "HTTP_HOST", "HTTP_PROXY", "HTTP_CONTENT_LENGTH"),
            *("HTTP_CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "wsgi", "MODE", "X\xff"),
        ]
    )
    likely = ["", "/", "//x", "/app", "/app/x", "GET", "0", "7", "-1", "x", "on", "off", "https"]
    likely += ["http", "HTTP", "localhost", "HTTP/1.1", "/app/x?y", "proxy:fcgi://b/", "chunked"]
    values = st.one_of(st.sampled_from(likely), st.text("".join(map(chr, range(256))), max_size=4))
    usual = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
    }
    changes = st.dictionaries(names, st.one_of(values, st.none()), max_size=6)

    def changed(start: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
        together = {**start, **changes}
        return {name: value for name, value in together.items() if value is not None}

    return st.builds(changed, st.sampled_from([usual, usual, {}]), changes)


def by_every_rule(
    variables: dict[str, str],
    body_delimited: bool,
    base: dict[str, object],
    script_name: str | None,
    local: tuple[str, str],
    remote_user: bool,
) -> tuple[dict[str, Any], int | None]:
    """What `environ.build` promises, without its judgement of which rules can have an effect."""
    request = Request(9, [], body_delimited=body_delimited)
    built: dict[str, Any] = dict(variables)
    environ._drop_forbidden(built)
    environ._drop_user(built, remote_user)
    environ._check_method(built, 9)
    length = environ._content_length(built, request)
    environ._set_paths(built, script_name, 9)
    environ._fill_missing(built, local)
    built["wsgi.url_scheme"] = environ._scheme(built)
    if length is None:
        built["wsgi.input_terminated"] = True
    built.update(base)
    return built, length


Outcome = tuple[dict[str, Any], int | None] | str


def outcome(build: Callable[[], tuple[dict[str, Any], int | None]]) -> Outcome:
    try:
        return build()
    except errors.RemoteProtocolError as error:
        return f"{error.status_hint} {error}"


@TWICE
@given(
    plain_variables(),
    st.booleans(),
    st.sampled_from([None, None, "", "/", "/app", "/app/"]),
    st.sampled_from([("", ""), ("192.0.2.1", "8080")]),
    st.booleans(),
)
def test_no_rule_is_skipped_that_has_an_effect(
    variables: dict[str, str],
    delimited: bool,
    script_name: str | None,
    local: tuple[str, str],
    remote_user: bool,
) -> None:
    base: dict[str, object] = {"wsgi.input": "ours", "wsgi.version": (1, 0), "MODE": "ours"}
    more = (base, script_name, local, remote_user)
    expected = outcome(lambda: by_every_rule(variables, delimited, *more))
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in variables.items()]
    fresh = Request(9, pairs, body_delimited=delimited, text=dict(variables))
    assert outcome(lambda: environ.build(fresh, *more)) == expected
    # The text is given away by now; the variables are not.
    assert outcome(lambda: environ.build(fresh, *more)) == expected


@given(plausible_requests())
def test_a_request_as_browsers_make_it_is_never_refused(request: Request) -> None:
    built, length = environ.build(request, base={})
    sent = dict(request.variables)
    assert length == int(sent[b"CONTENT_LENGTH"])
    path = (sent[b"SCRIPT_NAME"] + sent[b"PATH_INFO"]).decode("latin-1") or "/"
    assert built["SCRIPT_NAME"] + built["PATH_INFO"] == path


@given(environs())
def test_every_environ_satisfies_the_validator(environ: WSGIEnvironment) -> None:
    sent: list[Event] = []
    faults: list[Exception] = []

    def report(error: Exception) -> str:
        faults.append(error)
        return "reference"

    application = validator(_application)
    if environ["REQUEST_METHOD"] == "PROPFIND":
        environ["REQUEST_METHOD"] = "PUT"  # the validator warns of methods it has not heard of
    wsgi.run(application, environ, sent.append, request_id=0, report=report)
    assert faults == []
    assert isinstance(sent[0], Response)
    assert sent[0].status == "200 OK"


@given(responses(), st.binary(max_size=20), cut_anyhow())
def test_a_head_is_parsed_as_it_was_written(response: Response, body: bytes, cut: Cuts) -> None:
    parser = HeadParser()
    parsed: Response | None = None
    rest = b""
    for piece in cut(write_head(response.status, response.headers) + body):
        if parsed is None:
            parsed, rest = parser.receive(piece)
        else:
            rest += piece
    assert parsed == response
    assert rest == body


@given(st.text(max_size=20), st.lists(st.tuples(st.text(max_size=9), st.text(max_size=20))))
def test_no_string_forges_a_line_in_a_head(status: str, headers: list[tuple[str, str]]) -> None:
    try:
        head = write_head(status, headers)
    except errors.LocalProtocolError:
        return
    assert head.count(b"\n") == head.count(b"\r\n") == len(headers) + 2
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r") == head.count(b"\n")
    assert b"\0" not in head
