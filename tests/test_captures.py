"""What real web servers sent, replayed through the codecs (interop facts, `captures/index.json`).

What each capture holds is worked out here a second time, by decoders of a few lines that share
nothing with the package and know no limits and no faults.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from gateways import cgi, fastcgi, scgi
from gateways.events import (
    AUTHORIZER,
    RESPONDER,
    EndOfRequest,
    Event,
    Request,
    RequestAborted,
    RequestBody,
)
from gateways.testing import taken_whole
from tests import corpus
from tests.corpus import Capture, Chunker
from tests.twins import Twins

ALL = corpus.captures()

every_capture = pytest.mark.parametrize("capture", ALL, ids=str)


@dataclass
class Sent:
    """One request of a capture: what went over the wire, or what the codec made of it."""

    variables: list[tuple[bytes, bytes]] = field(default_factory=list)
    role: str = RESPONDER
    body: bytes = b""
    end: str = "cut"


def decode_fastcgi(data: bytes) -> dict[int, Sent]:
    requests: dict[int, Sent] = {}
    params: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        kind, request_id = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        length, padding = int.from_bytes(data[at + 4 : at + 6], "big"), data[at + 6]
        content = data[at + 8 : at + 8 + length]
        at += 8 + length + padding
        if kind == 1:
            role = {1: RESPONDER, 2: AUTHORIZER}[content[1]]
            requests[request_id] = Sent(role=role)
            params[request_id] = b""
        elif kind == 2:
            requests[request_id].end = "aborted"
        elif kind == 4:
            params[request_id] += content
            if not content:
                requests[request_id].variables = decode_pairs(params[request_id])
                # An authorizer's input is complete here; the servers send no STDIN or an empty one.
                if requests[request_id].role == AUTHORIZER:
                    requests[request_id].end = "complete"
        elif kind == 5:
            requests[request_id].body += content
            if not content:
                requests[request_id].end = "complete"
    return requests


def decode_pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    pairs = []
    at = 0
    while at < len(data):
        lengths = []
        for _ in range(2):
            size = 4 if data[at] & 0x80 else 1
            lengths.append(
                int.from_bytes(data[at : at + size], "big") & (0x7FFFFFFF if size == 4 else 0x7F)
            )
            at += size
        middle = at + lengths[0]
        end = middle + lengths[1]
        pairs.append((data[at:middle], data[middle:end]))
        at = end
    return pairs


def decode_scgi(data: bytes) -> dict[int, Sent]:
    colon = data.index(b":")
    end = colon + 1 + int(data[:colon])
    strings = data[colon + 1 : end].split(b"\0")
    variables = [(strings[i], strings[i + 1]) for i in range(0, len(strings) - 1, 2)]
    length = int(dict(variables)[b"CONTENT_LENGTH"])
    body = data[end + 1 :][:length]
    return {0: Sent(variables, body=body, end="complete" if len(body) == length else "cut")}


def decode_cgi(data: bytes) -> dict[int, Sent]:
    environment_size, rest = data.split(b":", 1)
    block, rest = rest[: int(environment_size)], rest[int(environment_size) + 1 :]
    command_size, rest = rest.split(b":", 1)
    body = rest[int(command_size) + 1 :]
    variables = [
        (name, value) for name, value in (line.split(b"=", 1) for line in block.split(b"\0")[:-1])
    ]
    length = dict(variables).get(b"CONTENT_LENGTH", b"%d" % len(body))
    return {0: Sent(variables, body=body, end="complete" if len(body) == int(length) else "cut")}


DECODERS = {"fastcgi": decode_fastcgi, "scgi": decode_scgi, "cgi": decode_cgi}


def receive(capture: Capture, chunks: Chunker) -> list[Event]:
    if capture.protocol == "fastcgi":
        return corpus.replay(fastcgi.ServerConnection(), capture.data, chunks)
    if capture.protocol == "scgi":
        return corpus.replay(scgi.ServerConnection(), capture.data, chunks)
    connection = cgi.ServerConnection()
    pairs, _, stdin = corpus.split_cgi(capture.data)
    return connection.receive_variables(pairs) + corpus.replay(connection, stdin, chunks)


def requests_in(events: list[Event]) -> dict[int, Sent]:
    requests: dict[int, Sent] = {}
    for event in events:
        request = requests.setdefault(event.request_id, Sent())
        if isinstance(event, Request):
            request.variables = event.variables
            request.role = event.role
        elif isinstance(event, RequestBody):
            request.body += event.data
        elif isinstance(event, EndOfRequest):
            request.end = "complete"
        elif isinstance(event, RequestAborted):
            request.end = "cut" if event.error else "aborted"
    return requests


def described(capture: Capture, requests: dict[int, Sent]) -> Sent:
    """The request that the index describes; a kept connection may hold others beside it."""
    decoded = capture.decoded or {}
    (found,) = [
        request for request in requests.values() if decoded.items() <= as_text(request).items()
    ]
    return found


def as_text(request: Sent) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.variables}


def test_the_corpus_is_whole() -> None:
    index = json.loads((corpus.FOLDER / "index.json").read_text("utf-8"))
    for entry in index["captures"]:
        data = (corpus.FOLDER / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["file"]
    files = {path.name for path in corpus.FOLDER.glob("*.bin")}
    assert files == {entry["file"] for entry in index["captures"]}
    counts = {protocol: len(corpus.captures(protocol)) for protocol in DECODERS}
    assert counts == {"fastcgi": 234, "scgi": 76, "cgi": 40}


@every_capture
def test_a_capture_gives_the_same_events_however_it_is_cut(capture: Capture) -> None:
    seen = {name: corpus.merged(receive(capture, cut)) for name, cut in corpus.CHUNKERS.items()}
    assert seen["byte by byte"] == seen["whole"]
    assert seen["in random pieces"] == seen["whole"]


@every_capture
def test_a_capture_holds_what_an_independent_decoding_finds(capture: Capture) -> None:
    assert requests_in(receive(capture, corpus.whole)) == DECODERS[capture.protocol](capture.data)


@every_capture
def test_the_variables_of_a_capture_are_those_of_the_index(capture: Capture) -> None:
    if capture.decoded is None:
        # The index has no variables for CGI, nor where none were sent; the independent decoding
        # is the measure of those.
        assert capture.protocol == "cgi" or str(capture) == "haproxy-fcgi-options"
        return
    variables = as_text(described(capture, requests_in(receive(capture, corpus.whole))))
    left_out = {name for name in variables if name not in capture.decoded}
    left_out -= corpus.ERRATA_VARIABLES.get(capture.file, set())
    assert all(len(variables[name]) >= corpus.INDEX_VALUE_LIMIT for name in left_out)


@every_capture
def test_the_body_of_a_capture_is_as_long_as_the_one_sent(capture: Capture) -> None:
    body = described(capture, requests_in(receive(capture, corpus.whole))).body
    assert len(body) == capture.body_bytes


@pytest.mark.parametrize(
    "capture", [each for each in ALL if each.case.endswith(("abort-body", "abort-up"))], ids=str
)
def test_an_upload_that_the_visitor_cut_is_never_taken_for_complete(capture: Capture) -> None:
    request = described(capture, requests_in(receive(capture, corpus.whole)))
    assert request.end in ("cut", "aborted")


# The short cut, which must make the same of every capture, and of every damaged one, as the long way.

ENDS = {"fastcgi": fastcgi.ServerConnection, "scgi": scgi.ServerConnection}
NAMES = {"fastcgi": "FastCGI", "scgi": "SCGI"}
BYTES = [each for each in ALL if each.protocol in ENDS]


@pytest.mark.parametrize("capture", BYTES, ids=str)
def test_a_capture_is_the_same_by_the_short_cut(capture: Capture) -> None:
    twins = Twins(NAMES[capture.protocol])
    twins.receive(capture.data)
    twins.receive(b"")


def test_most_of_what_real_servers_send_takes_the_short_cut() -> None:
    taken = {str(each): taken_whole(ENDS[each.protocol](), each.data) for each in BYTES}
    refused = {name for name, events in taken.items() if events is None}
    # What does not: uploads that were cut, authorizers, heads of several records, and files that
    # hold several requests.
    reasons = ("abort", "authorizer", "authnz", "headers80k", "haproxy-fcgi-keep", "options")
    assert [name for name in refused if not any(reason in name for reason in reasons)] == []
    assert len(refused) < 40


def damaged() -> Iterator[tuple[str, bytes]]:
    """Thousands of captures with a few bytes changed, lost, doubled or put in; always the same ones."""
    chooser = random.Random(20240229)
    small = [each for each in BYTES if len(each.data) < 3000]
    for _ in range(6000):
        capture = chooser.choice(small)
        data = bytearray(capture.data)
        for _ in range(chooser.choice((1, 1, 1, 2, 5))):
            # Anywhere, and more often where the framing is.
            size = len(data)
            at = chooser.randrange(chooser.choice((min(24, size), size, size, size)))
            match chooser.choice("ssssrrffdti"):
                case "s":
                    data[at] = chooser.choice(b"\0\0\1\x7f\x80\xff.:,1")
                case "r":
                    data[at] = chooser.randrange(256)
                case "f":
                    data[at] ^= 1 << chooser.randrange(8)
                case "d":
                    del data[at : at + chooser.randrange(1, 4)]
                case "t":
                    data[at:at] = data[at : at + chooser.randrange(1, 9)]
                case "i":
                    data[at:at] = chooser.choice((b"\0", b"\1", b"\x80", b":", b"A"))
        yield capture.protocol, bytes(data)


def differences() -> tuple[list[bytes], int]:
    """The damaged captures of which the two ways make different things; how many were taken."""
    found: list[bytes] = []
    taken = 0
    for protocol, data in damaged():
        twins = Twins(NAMES[protocol])
        try:
            twins.receive(data)
            twins.receive(b"")
        except Exception:  # whatever a spoilt short cut leads to
            found.append(data)
        taken += twins.taken
    return found, taken


def test_a_damaged_capture_takes_the_short_cut_only_where_it_is_the_same() -> None:
    found, taken = differences()
    assert found == []
    # A changed byte of a value leaves a plain request.
    assert taken > 1000


def _spoilt(module: ModuleType, check: str, instead: str) -> Callable[..., object]:
    """The module's `plain_text` with one of its checks replaced."""
    source = inspect.getsource(module.plain_text)
    assert check in source
    names = dict(vars(module))
    exec(source.replace(check, instead), names)
    planted: Callable[..., object] = names["plain_text"]
    return planted


PLANTED = {
    "a cut pair": (fastcgi.pairs, "start != size or ", ""),
    "a name with NUL": (fastcgi.pairs, '"\\0" in joined or ', ""),
    "repeated names": (fastcgi.pairs, "repeated_names(names, len(variables))", "()"),
    "an odd number of strings": (scgi, "if len(strings) % 2:", "if False:"),
    "another SCGI": (scgi, 'headers.get("SCGI") != "1" or ', ""),
    "repeated headers": (scgi, "repeated_names(strings[0::2], len(headers))", "()"),
}


@pytest.mark.parametrize(("module", "check", "instead"), PLANTED.values(), ids=PLANTED)
def test_a_missing_check_would_be_found(
    module: ModuleType, check: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = fastcgi.server if module is fastcgi.pairs else scgi
    monkeypatch.setattr(user, "plain_text", _spoilt(module, check, instead))
    assert differences()[0]
