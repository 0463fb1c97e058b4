"""Hypothesis strategies for everything that travels on these wires, well-formed and broken.

    @given(conversations("FastCGI"), cuts())
    def test_whatever_is_sent_arrives(conversation: Conversation, cut: Pieces) -> None: ...

The well-formed family: `records`, `requests`, `plain_requests`, `responses`, `conversations`,
`environs`; what they give is allowed by the specification, odd as it may look.  The broken family: `broken_records`,
`broken_streams`, `broken_netstrings`, `broken_requests`, `broken_answers`; what they give is wrong
more often than not, and near enough to right to be parsed deeply.  `chunkings` and `cuts` say
where bytes are cut.

With this package and Hypothesis installed, `st.from_type` knows the events and records: the entry
point of `_hypothesis_setup_hook` sees to that.
"""

from __future__ import annotations

import io
import sys
from struct import pack
from typing import Any

from gateways import cgi, environ, events, fastcgi, scgi
from gateways.events import AUTHORIZER, FILTER, RESPONDER, Event, Request, Response
from gateways.testing.pair import Pieces


def _hypothesis_setup_hook() -> None:
    """Teach `st.from_type` the events and records; Hypothesis calls this when it is imported.

    It stands before that import, and asks for each strategy only when one is wanted: whoever
    imports this module first has Hypothesis call it while the rest of the module is not there yet.
    """
    from hypothesis import strategies as st

    def ids() -> st.SearchStrategy[int]:
        return st.integers(0, 0xFFFF)

    def carrier(kind: type[Event]) -> st.SearchStrategy[Event]:
        return st.builds(kind, ids(), st.binary(min_size=1, max_size=60))

    st.register_type_strategy(Request, lambda _: requests())
    st.register_type_strategy(Response, lambda _: ids().flatmap(responses))
    st.register_type_strategy(fastcgi.Record, lambda _: records())
    for kind in (events.RequestBody, events.FilterData, events.ResponseBody, events.ErrorOutput):
        st.register_type_strategy(kind, carrier)
    st.register_type_strategy(events.EndOfRequest, lambda kind: st.builds(kind, ids()))
    st.register_type_strategy(
        events.EndOfResponse,
        lambda kind: st.builds(kind, ids(), st.integers(0, 0xFFFFFFFF), st.integers(0, 3)),
    )
    st.register_type_strategy(
        events.WholeAnswer,
        lambda kind: st.builds(kind, ids(), statuses(), header_lists(), st.binary(max_size=60)),
    )
    st.register_type_strategy(events.RequestAborted, lambda kind: st.builds(kind, ids(), st.none()))


try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "gateways.testing.strategies needs Hypothesis; install it with: pip install 'gateways[testing]'"
    ) from error

PROTOCOLS = ("FastCGI", "SCGI", "CGI")

# Bytes.


def chunkings(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Every way to cut `data` into pieces that are not empty."""
    if len(data) < 2:
        return st.just([data] if data else [])
    places = st.lists(st.integers(1, len(data) - 1), max_size=12, unique=True)
    return places.map(lambda found: _cut(data, sorted(found)))


def cuts() -> st.SearchStrategy[Pieces]:
    """Ways to cut bytes that are not known yet, for Pair.

    One size is large, so that a body of 64 KiB does not take as many calls; for every single byte
    there is `gateways.testing.bytewise`.
    """
    small = st.lists(st.integers(1, 20), max_size=5)
    return st.builds(lambda sizes, large: Pieces(*sizes, large), small, st.integers(400, 70000))


def bodies(*, large: bool = True) -> st.SearchStrategy[bytes]:
    """Bodies of every kind of length: none, few bytes, and with `large` some of about 64 KiB."""
    lengths = [1, 7, 8, 127, 128, 255, 256]
    if large:
        lengths += [8191, 65527, 65535, 65536, 70001]
    repeated = st.builds(
        lambda block, length: (block * length)[:length],
        st.binary(min_size=1, max_size=4),
        st.sampled_from(lengths),
    )
    return st.one_of(st.binary(max_size=40), st.binary(max_size=40), repeated)


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


# Meta-variables and requests.

_NAMES = [
    b"REQUEST_METHOD", b"SCRIPT_NAME", b"PATH_INFO", b"QUERY_STRING", b"CONTENT_TYPE",
    b"CONTENT_LENGTH", b"SERVER_NAME", b"SERVER_PORT", b"SERVER_PROTOCOL", b"REQUEST_URI",
    b"DOCUMENT_URI", b"SCRIPT_FILENAME", b"PATH_TRANSLATED", b"REMOTE_ADDR", b"REMOTE_PORT",
    b"SERVER_ADDR", b"REMOTE_USER", b"AUTH_TYPE", b"HTTPS", b"REQUEST_SCHEME", b"GATEWAY_INTERFACE",
    b"HTTP_HOST", b"HTTP_COOKIE", b"HTTP_PROXY", b"HTTP_CONTENT_LENGTH", b"HTTP_CONTENT_TYPE",
    b"HTTP_TRANSFER_ENCODING", b"HTTP_AUTHORIZATION", b"HTTP_X_ODD", b"wsgi.input", b"SCGI",
]  # fmt: skip
_VALUES = [
    b"", b"/", b"//", b"/app", b"/app/a%2Fb", b"/caf\xc3\xa9", b"*", b"0", b"5", b"-1", b"+5",
    b"1_0", b"\xb2", b"\xd9\xa3", b"9" * 30, b"GET", b"POST", b"on", b"https", b"HTTP/1.1", b"chunked", b"1",
    b"gzip, chunked", b"proxy:fcgi://127.0.0.1/", b"http://a.example/p?q", b"%", b"%zz%4",
]  # fmt: skip


def variable_names() -> st.SearchStrategy[bytes]:
    """Names that an environment can carry: not empty, no NUL, no `=`."""
    odd = st.binary(min_size=1, max_size=12).map(_without_nul_and_equals)
    return st.one_of(st.sampled_from(_NAMES), odd)


def variable_values() -> st.SearchStrategy[bytes]:
    """Values without NUL, most of them short."""
    odd = st.binary(max_size=20).map(lambda value: value.replace(b"\0", b"0"))
    long = st.integers(120, 300).map(lambda length: b"v" * length)
    return st.one_of(st.sampled_from(_VALUES), odd, long)


def _without_nul_and_equals(name: bytes) -> bytes:
    return name.replace(b"\0", b"0").replace(b"=", b"E")


def variables() -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    """Pairs of names and values, whatever they mean; names may come twice.

    Half of them begin with a likely REQUEST_METHOD, since little is looked at without one.
    """
    pairs = st.lists(st.tuples(variable_names(), variable_values()), max_size=8)
    method = _methods().map(lambda name: [(b"REQUEST_METHOD", name)])
    return st.one_of(pairs, st.builds(lambda first, rest: first + rest, method, pairs))


def requests() -> st.SearchStrategy[Request]:
    """Request events of every role, their variables likely and unlikely, sensible or not."""
    return st.builds(
        Request,
        st.integers(0, 0xFFFF),
        variables(),
        st.sampled_from([RESPONDER, AUTHORIZER, FILTER]),
        st.booleans(),
        st.booleans(),
    )


def plausible_requests() -> st.SearchStrategy[Request]:
    """Requests as a web server makes them of what a browser sends."""
    return st.builds(_plausible, _methods(), _paths(), _paths(), st.binary(max_size=9), bodies())


def plain_requests(protocol: str) -> st.SearchStrategy[bytes]:
    """A whole request in bytes, as a server end may take it at once, and nothing behind it.

    Names may come twice; few are odd, and none is empty.  FastCGI's have the ids 1 and 2, and its
    bodies come in records of any size, with padding.
    """
    if protocol == "CGI":
        raise ValueError("a CGI request is no bytes")
    _module(protocol)
    return _fastcgi_in_bytes() if protocol == "FastCGI" else _document_in_bytes(protocol)


@st.composite
def _document_in_bytes(draw: st.DrawFn, protocol: str) -> bytes:
    body = draw(bodies(large=False))
    first = [(b"CONTENT_LENGTH", b"%d" % len(body)), (b"SCGI", b"1")]
    names = {name for name, _ in first}
    client = client_end(protocol)
    client.send(Request(0, first + [pair for pair in draw(variables()) if pair[0] not in names]))
    return client.data_to_send() + body


@st.composite
def _fastcgi_in_bytes(draw: st.DrawFn) -> bytes:
    request_id = draw(st.integers(1, 2))
    pairs = draw(variables()) or [(b"A", b"b")]
    kinds = fastcgi.RecordType
    content = fastcgi.encode_pairs(pairs)
    padding = st.integers(0, 9)
    parts = [
        _begin(request_id, 1, draw(st.integers(0, 1))),
        fastcgi.Record(kinds.PARAMS, request_id, content, draw(padding)).encode(),
        _params(request_id, b""),
    ]
    for piece in draw(chunkings(draw(bodies(large=False)))):
        parts.append(fastcgi.Record(kinds.STDIN, request_id, piece, draw(padding)).encode())
    return b"".join([*parts, fastcgi.Record(kinds.STDIN, request_id).encode()])


def _methods() -> st.SearchStrategy[bytes]:
    return st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PROPFIND"])


def _paths() -> st.SearchStrategy[bytes]:
    return st.lists(
        st.sampled_from([b"/", b"/a", b"/caf\xc3\xa9", b"/b c", b"/%"]), max_size=3
    ).map(b"".join)


def _plausible(method: bytes, script: bytes, info: bytes, cookie: bytes, body: bytes) -> Request:
    return Request(
        0,
        [
            (b"CONTENT_LENGTH", b"%d" % len(body)),
            (b"SCGI", b"1"),
            (b"REQUEST_METHOD", method),
            (b"SCRIPT_NAME", script.rstrip(b"/")),
            (b"PATH_INFO", info),
            (b"QUERY_STRING", b"x=1"),
            (b"SERVER_NAME", b"suite.example"),
            (b"SERVER_PORT", b"8080"),
            (b"SERVER_PROTOCOL", b"HTTP/1.1"),
            (b"HTTP_COOKIE", cookie.replace(b"\0", b"0")),
        ],
    )


def environs() -> st.SearchStrategy[dict[str, Any]]:
    """Complete WSGI environs, with an input of the announced length: ready for an application."""
    return st.builds(_environ, plausible_requests())


def _environ(request: Request) -> dict[str, Any]:
    length = int(request.variables[0][1])
    base: dict[str, object] = {
        "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(b"x" * length),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    return environ.build(request, base=base)[0]


# Answers.

_TOKEN = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
# Every character that a header's value may hold: latin-1 without controls, and the tab.
_VALUE = "\t" + "".join(map(chr, [*range(0x20, 0x7F), *range(0x80, 0x100)]))


def statuses() -> st.SearchStrategy[str]:
    """Statuses as PEP 3333 has them, in the shape in which they arrive: no blank at the end."""
    reasons = st.text(_VALUE, max_size=15)
    return st.builds(
        lambda code, reason: f"{code} {reason.strip(' ' + chr(9))}".strip(" "),
        st.integers(200, 999),
        reasons,
    )


def header_lists() -> st.SearchStrategy[list[tuple[str, str]]]:
    """Header fields that arrive as they were sent: names are tokens, values have no blank ends."""
    names = st.text(_TOKEN, min_size=1, max_size=12).filter(lambda name: name.lower() != "status")
    values = st.text(_VALUE, max_size=20).map(lambda value: value.strip(" \t"))
    return st.lists(st.tuples(names, values), max_size=5)


def responses(request_id: int = 0) -> st.SearchStrategy[Response]:
    """Heads of answers."""
    return st.builds(Response, st.just(request_id), statuses(), header_lists())


# Conversations.


class Conversation:
    """All events of one connection: `sent` by the client end, then `answered` by the server end.

    Each end may send its events in this order.  What arrives is equal, once neighbouring pieces
    are merged (`gateways.testing.pair.merged`).
    """

    def __init__(self, protocol: str, sent: list[Event], answered: list[Event]) -> None:
        self.protocol = protocol
        self.sent = sent
        self.answered = answered

    def __repr__(self) -> str:
        return f"Conversation({self.protocol!r}, {self.sent!r:.900}, {self.answered!r:.900})"

    def request_bytes(self) -> bytes:
        """What the client end sends, in bytes; of a CGI request only the body is bytes."""
        client = client_end(self.protocol)
        for event in self.sent:
            client.send(event)
        return client.data_to_send()

    def answer_bytes(self) -> bytes:
        """What the server end sends, in bytes."""
        server = server_end(self.protocol)
        client = client_end(self.protocol)
        for event in self.sent:
            client.send(event)
        if isinstance(client, cgi.ClientConnection):
            assert isinstance(server, cgi.ServerConnection)
            server.receive_variables(list(client.environment.items()))
        data = client.data_to_send()
        if data:
            server.receive_data(data)
        for event in self.answered:
            server.send(event)
        return server.data_to_send()


AnyServer = fastcgi.ServerConnection | scgi.ServerConnection | cgi.ServerConnection
AnyClient = fastcgi.ClientConnection | scgi.ClientConnection | cgi.ClientConnection


def server_end(protocol: str) -> AnyServer:
    """A new server end of the protocol of this name."""
    end: AnyServer = _module(protocol).ServerConnection()
    return end


def client_end(protocol: str) -> AnyClient:
    """A new client end of the protocol of this name."""
    end: AnyClient = _module(protocol).ClientConnection()
    return end


def _module(protocol: str) -> Any:
    """Return the protocol's module; ValueError that names those there are."""
    modules = {"FastCGI": fastcgi, "SCGI": scgi, "CGI": cgi}
    if protocol not in modules:
        raise ValueError(f"there is no protocol {protocol!r}; write one of {', '.join(PROTOCOLS)}")
    return modules[protocol]


def conversations(protocol: str, *, large: bool = True) -> st.SearchStrategy[Conversation]:
    """Whole conversations: FastCGI's hold several requests at once, of every role.

    Without `large` they stay within a few KiB.  Raises ValueError for a protocol there is not.
    """
    _module(protocol)
    if protocol == "FastCGI":
        return _fastcgi_conversations(large)
    return _single_conversations(protocol, large)


@st.composite
def _single_conversations(draw: st.DrawFn, protocol: str, large: bool) -> Conversation:
    body = draw(bodies(large=large))
    pairs = _once_each(draw(variables()))
    delimited = protocol == "CGI" and draw(st.booleans())
    head = [(b"CONTENT_LENGTH", b"%d" % len(body)), (b"SCGI", b"1")]
    if delimited:
        head = [(b"HTTP_TRANSFER_ENCODING", b"chunked"), (b"SCGI", b"1")]
    sent: list[Event] = [Request(0, head + pairs, RESPONDER, delimited)]
    sent += [events.RequestBody(0, piece) for piece in draw(chunkings(body))]
    sent.append(events.EndOfRequest(0))
    answered = [event for turn in draw(_answers(0, large, errors=False)) for event in turn]
    return Conversation(protocol, sent, answered)


def _once_each(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    taken = {b"CONTENT_LENGTH", b"SCGI", b"HTTP_PROXY", b"HTTP_TRANSFER_ENCODING"}
    return [(name, value) for name, value in dict(pairs).items() if name not in taken]


@st.composite
def _fastcgi_conversations(draw: st.DrawFn, large: bool) -> Conversation:
    ids = draw(st.lists(st.integers(1, 0xFFFF), min_size=1, max_size=3, unique=True))
    sent = draw(_interleaved([draw(_fastcgi_requests(each, large)) for each in ids]))
    answered = draw(_interleaved([draw(_answers(each, large, errors=True)) for each in ids]))
    return Conversation("FastCGI", sent, answered)


# Events that arrive together stand in one list: other requests' come before or after them all.
_Turns = list[list[Event]]


@st.composite
def _fastcgi_requests(draw: st.DrawFn, request_id: int, large: bool) -> _Turns:
    role = draw(st.sampled_from([RESPONDER, RESPONDER, AUTHORIZER, FILTER]))
    request = Request(request_id, draw(variables()), role, role != AUTHORIZER, draw(st.booleans()))
    end = events.EndOfRequest(request_id)
    if role == AUTHORIZER:
        # It has no body, so it is complete with its variables (FastCGI §6.3).
        return [[request, end]]
    script: _Turns = [[request]]
    body = draw(chunkings(draw(bodies(large=large))))
    script += [[events.RequestBody(request_id, piece)] for piece in body]
    if role == FILTER:
        data = draw(chunkings(draw(bodies(large=large))))
        script += [[events.FilterData(request_id, piece)] for piece in data]
    return [*script, [end]]


@st.composite
def _answers(draw: st.DrawFn, request_id: int, large: bool, errors: bool) -> _Turns:
    pieces = draw(chunkings(draw(bodies(large=large))))
    answer: _Turns = [[draw(responses(request_id))]]
    answer += [[events.ResponseBody(request_id, piece)] for piece in pieces]
    if errors:
        for text in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=2)):
            place = draw(st.integers(0, len(answer)))
            answer.insert(place, [events.ErrorOutput(request_id, text)])
    status = draw(st.sampled_from([0, 0, 1, 0xFFFFFFFF])) if errors else 0
    return [*answer, [events.EndOfResponse(request_id, status)]]


@st.composite
def _interleaved(draw: st.DrawFn, scripts: list[_Turns]) -> list[Event]:
    turns = [number for number, script in enumerate(scripts) for _ in script]
    iterators = [iter(script) for script in scripts]
    return [event for turn in draw(st.permutations(turns)) for event in next(iterators[turn])]


# FastCGI records.


def records() -> st.SearchStrategy[fastcgi.Record]:
    """Single records that keep FastCGI §3.3: any type, id, content and padding."""
    types = st.one_of(st.sampled_from(list(fastcgi.RecordType)), st.integers(0, 255))
    content = st.one_of(st.binary(max_size=40), bodies().map(lambda data: data[:65535]))
    return st.builds(fastcgi.Record, types, _request_ids(), content, st.integers(0, 255))


def _request_ids() -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, 3), st.integers(0, 0xFFFF))


def broken_records() -> st.SearchStrategy[bytes]:
    """Bytes of one record that lies: about its version, its length, its padding or its content."""
    return st.one_of(
        st.builds(
            lambda version, type_, request_id, length, padding, content: (
                pack(">BBHHBx", version, type_, request_id, length, padding) + content
            ),
            st.sampled_from([0, 1, 1, 1, 2, 255]),
            st.integers(0, 12),
            _request_ids(),
            st.sampled_from([0, 1, 7, 8, 9, 65535]),
            st.sampled_from([0, 1, 255]),
            st.binary(max_size=30),
        ),
        st.builds(_begin, _request_ids(), st.integers(0, 5), st.integers(0, 3)),
        st.builds(_params, _request_ids(), st.binary(max_size=30)),
    )


def _begin(request_id: int, role: int, flags: int) -> bytes:
    body = pack(">HB5x", role, flags)
    return fastcgi.Record(fastcgi.RecordType.BEGIN_REQUEST, request_id, body).encode()


def _params(request_id: int, content: bytes) -> bytes:
    return fastcgi.Record(fastcgi.RecordType.PARAMS, request_id, content).encode()


@st.composite
def broken_streams(draw: st.DrawFn) -> bytes:
    """Records of one request in good order, then in any: the faults are in the pairs and the order."""
    request_id = draw(st.integers(1, 2))
    content = b"".join(draw(st.lists(_pairs_on_the_wire(), max_size=4)))
    kinds = fastcgi.RecordType
    parts = [_begin(request_id, draw(st.integers(1, 3)), draw(st.integers(0, 1)))]
    parts += [_params(request_id, piece) for piece in draw(chunkings(content))]
    parts.append(_params(request_id, b""))
    later = st.tuples(
        st.sampled_from([kinds.STDIN, kinds.STDIN, kinds.DATA, kinds.PARAMS, kinds.ABORT_REQUEST]),
        st.sampled_from([b"", b"", b"body"]),
    )
    for kind, data in draw(st.lists(later, max_size=5)):
        parts.append(fastcgi.Record(kind, request_id, data).encode())
    return b"".join(parts)


def _pairs_on_the_wire() -> st.SearchStrategy[bytes]:
    """Name-value pairs as bytes: good ones, ones without a name, ones whose lengths lie."""
    names, values = st.binary(min_size=1, max_size=9), st.binary(max_size=9)
    good = st.builds(_short_pair, names, values)
    nameless = values.map(lambda value: _short_pair(b"", value))
    lengths = st.sampled_from([0, 1, 127, 128, 131072, 0x7FFFFFFF])
    lying = st.builds(
        lambda name, value: pack(">LL", name | 1 << 31, value | 1 << 31) + b"v" * 9,
        lengths,
        lengths,
    )
    return st.one_of(good, good, nameless, lying)


def _short_pair(name: bytes, value: bytes) -> bytes:
    return bytes((len(name), len(value))) + name + value


# SCGI netstrings.


def broken_netstrings() -> st.SearchStrategy[bytes]:
    """Bytes like SCGI's netstring of headers: lengths and headers that do not fit each other."""
    lengths = st.one_of(
        st.integers(0, 200).map(lambda length: b"%d" % length),
        st.sampled_from([b"", b"-1", b"+5", b" 5", b"05", b"1_0", b"0x5", b"\xb2", b"9" * 40]),
    )
    headers = st.lists(st.one_of(variable_names(), variable_values()), max_size=8).map(
        lambda strings: b"CONTENT_LENGTH\0" + b"\0".join(strings)
    )
    ends = st.sampled_from([b",", b"\0,", b"", b"\0", b";"])
    lying = st.builds(lambda length, text, end: length + b":" + text + end, lengths, headers, ends)
    right = st.builds(lambda text, end: b"%d:%b%b" % (len(text), text, end), headers, ends)
    return st.one_of(lying, right)


# Broken conversations.


def broken_requests(protocol: str) -> st.SearchStrategy[bytes]:
    """What a hostile or mistaken client might send: a conversation damaged, or never one."""
    damaged = conversations(protocol, large=False).flatmap(
        lambda talk: mutations(talk.request_bytes())
    )
    return st.one_of(damaged, *_garbage(protocol))


def broken_answers(protocol: str) -> st.SearchStrategy[bytes]:
    """What a hostile or mistaken application might answer."""
    damaged = conversations(protocol, large=False).flatmap(
        lambda talk: mutations(talk.answer_bytes())
    )
    head = st.lists(st.sampled_from(_HEAD_PIECES), max_size=12).map(b"".join)
    return st.one_of(damaged, head, *_garbage(protocol))


_HEAD_PIECES = [
    b"Status: 200 OK", b"status:404", b"Status: 100 Continue", b"HTTP/1.1 200 OK", b"HTTP/", b"\r",
    b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b":", b" ", b"X-A: b", b"X-A", b"\x00", b"\xff", b"Location: /x",
    b"Content-Length: 5", b"body", b" folded", b"X" * 70000,
]  # fmt: skip


def _garbage(protocol: str) -> list[st.SearchStrategy[bytes]]:
    if protocol == "FastCGI":
        scattered = st.lists(st.one_of(broken_records(), broken_streams()), max_size=6)
        return [st.binary(max_size=60), broken_streams(), scattered.map(b"".join)]
    if protocol == "SCGI":
        return [st.binary(max_size=60), broken_netstrings()]
    return [st.binary(max_size=60)]


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` after one to four accidents: a byte changed, a slice lost, doubled or moved, an end."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        # Heads are at the front, so most accidents happen there.
        start = min(start, draw(st.sampled_from([16, 64, 256, len(data)])))
        end = min(len(data), start + draw(st.integers(1, 12)))
        kind = draw(st.sampled_from(["change", "lose", "double", "insert", "end"]))
        if kind == "change":
            data = data[:start] + draw(st.binary(min_size=1, max_size=2)) + data[start + 1 :]
        elif kind == "lose":
            data = data[:start] + data[end:]
        elif kind == "double":
            data = data[:end] + data[start:]
        elif kind == "insert":
            data = data[:start] + draw(st.binary(max_size=9)) + data[start:]
        else:
            data = data[:start]
    return data
