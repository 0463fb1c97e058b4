"""The shared behaviour suite: one table of rows, run through every door.

A row is a request, a WSGI application and a check of the answer.  A door is anything that carries
an HTTP request to `tests/suite_app.py` behind gateways and brings the answer back: a pair in
memory, our client and our server, a CGI process, nginx, Apache.  What a user of any of them can
notice is a row here; a protocol's own tests hold only what is special about that protocol.

    @pytest.mark.parametrize(("row", "validate"), cases())
    def test_the_suite(row: Row, validate: bool, door: Door) -> None:
        run_row(row, door, validate=validate)

Checks are strict, and true behind every web server: where one alters something on the way, its
door says so in `traits`, and the check says what follows from the trait.

Applications tell the check what happened after the answer (close() was called, the client's
leaving was noticed) through a file in the directory that the environment variable
GATEWAYS_SUITE_STATE names, which works over threads, processes and CGI alike.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tests.http_client import HTTPAnswer, HTTPRequest, http_exchange

__all__ = [
    "ROWS",
    "TRAITS",
    "Case",
    "Door",
    "HTTPAnswer",
    "HTTPRequest",
    "Row",
    "cases",
    "http_exchange",
    "row_named",
    "run_row",
]

TRAITS = {
    "merges-slashes": "`//` in a path arrives as `/`",
    "keeps-encoded-slashes": "`%2F` in a path arrives undecoded",
    "joins-cookies-with-comma": "two Cookie lines arrive as one, joined with a comma",
    "streams-requests": "the application starts before the request's body is complete",
    "buffers-answers": "nothing is sent before the answer is complete: a late fault gets a 5xx",
    "cut-looks-complete": "a body without Content-Length that is cut short looks complete",
    "length-ignored": "the application's Content-Length is not passed on",
    "own-reasons": "the words after the status's number are the web server's, or none",
    "drops-empty-headers": "a header of the request without a value does not arrive",
}
"""What a door may do to requests and answers, and what that means."""


class Door(Protocol):
    """Carries requests to `tests.suite_app.application` and answers back."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> frozenset[str]: ...

    @property
    def state(self) -> Path:
        """The directory that GATEWAYS_SUITE_STATE names for the application."""

    def exchange(self, request: HTTPRequest) -> HTTPAnswer: ...


Check = Callable[[HTTPAnswer, "Case"], None]


@dataclass(frozen=True)
class Row:
    """One behaviour.  `name` is a sentence with hyphens; `application` runs for every request.

    `validate` tells that PEP 3333 allows the application, so that it also runs wrapped in
    `wsgiref.validate`.  Of several requests, made one after another, the check gets the last
    answer; all are in `case.answers`.
    """

    name: str
    request: HTTPRequest | list[HTTPRequest]
    application: WSGIApplication
    check: Check
    validate: bool = True

    @property
    def requests(self) -> list[HTTPRequest]:
        return self.request if isinstance(self.request, list) else [self.request]


class Case:
    """One run of a row through a door."""

    def __init__(self, row: Row, door: Door) -> None:
        self.row = row
        self.traits = door.traits
        self.key = uuid.uuid4().hex
        self.path = door.state / self.key
        self.answers: list[HTTPAnswer] = []

    def recorded(self) -> list[str]:
        """What the application recorded so far, in order."""
        return self.path.read_text().splitlines() if self.path.exists() else []

    def awaited(self, word: str, seconds: float = 10.0) -> str:
        """The first recorded line that starts with `word`; AssertionError when none comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.recorded():
                if line.startswith(word):
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no {word!r} within {seconds} s, only {self.recorded()}")

    def dressed(self, request: HTTPRequest, validate: bool) -> HTTPRequest:
        """The request with the headers by which the application finds its row and its file."""
        choice = self.row.name + (";validate" if validate else "")
        headers = [*request.headers, ("X-Row", choice), ("X-Case", self.key)]
        return replace(request, headers=headers, hold=self._hold(request))

    def _hold(self, request: HTTPRequest) -> Callable[[], None] | None:
        if request.abort == "answer":
            return lambda: write_record(self.path, "client-leaves")
        if request.abort == "upload" and "streams-requests" in self.traits:
            return lambda: void(self.awaited("started"))
        return None


def run_row(row: Row, door: Door, *, validate: bool = False) -> None:
    """Make the row's requests through the door and check the answer; AssertionError if wrong."""
    unknown = door.traits - TRAITS.keys()
    if unknown:
        raise AssertionError(f"{door.name} has traits that nobody knows: {sorted(unknown)}")
    case = Case(row, door)
    for request in row.requests:
        case.answers.append(door.exchange(case.dressed(request, validate)))
    row.check(case.answers[-1], case)


def cases() -> list[Any]:
    """Every row bare, and wrapped in wsgiref.validate where it may be: parameters for pytest."""
    import pytest

    bare = [pytest.param(row, False, id=row.name) for row in ROWS]
    wrapped = [pytest.param(row, True, id=f"{row.name};validate") for row in ROWS if row.validate]
    return bare + wrapped


def row_named(name: str) -> Row:
    """The row of this name; KeyError when there is none."""
    return _BY_NAME[name]


ROWS: list[Row] = []
_BY_NAME: dict[str, Row] = {}


def add(row: Row) -> None:
    if row.name in _BY_NAME:
        raise ValueError(f"two rows are called {row.name}")
    ROWS.append(row)
    _BY_NAME[row.name] = row


def row(
    request: HTTPRequest | list[HTTPRequest],
    application: WSGIApplication,
    *,
    validate: bool = True,
) -> Callable[[Check], Check]:
    """Make a row of a check; the function's name is the row's."""

    def decorate(check: Check) -> Check:
        name = check.__name__.replace("_", "-")
        add(Row(name, request, application, check, validate))
        return check

    return decorate


# What applications are made of.


def void(_: object) -> None:
    """Nothing, whatever was given."""


def write_record(path: Path, word: str) -> None:
    # One short write to a file opened for appending is never mixed with another process's.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, word.encode() + b"\n")
    finally:
        os.close(descriptor)


def state_path(environ: WSGIEnvironment) -> Path:
    """The file of this run, which the request names."""
    key = uuid.UUID(environ["HTTP_X_CASE"]).hex
    return Path(os.environ["GATEWAYS_SUITE_STATE"], key)


def record(environ: WSGIEnvironment, word: str) -> None:
    """Tell the check that something happened."""
    write_record(state_path(environ), word)


def read_all(environ: WSGIEnvironment) -> bytes:
    """The request's body, read in the one style that PEP 3333 and wsgiref.validate always allow."""
    return b"".join(iter(lambda: environ["wsgi.input"].read(65536), b""))


def answer_json(start_response: StartResponse, value: object) -> list[bytes]:
    body = json.dumps(value).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with everything the application saw, as JSON."""
    body = read_all(environ)
    return answer_json(
        start_response,
        {
            "method": environ["REQUEST_METHOD"],
            "script_name": environ.get("SCRIPT_NAME", ""),
            "path_info": environ.get("PATH_INFO", ""),
            "query": environ.get("QUERY_STRING"),
            "request_uri": environ.get("REQUEST_URI"),
            "content_type": environ.get("CONTENT_TYPE"),
            "content_length": environ.get("CONTENT_LENGTH"),
            "server_port": environ["SERVER_PORT"],
            "server_name": environ["SERVER_NAME"],
            "server_protocol": environ["SERVER_PROTOCOL"],
            "remote_addr": environ.get("REMOTE_ADDR"),
            "http": {name: value for name, value in environ.items() if name.startswith("HTTP_")},
            "not_str": sorted(
                name
                for name, value in environ.items()
                if "." not in name and type(value) is not str
            ),
            "wsgi": {
                name: environ[f"wsgi.{name}"]
                for name in ("version", "url_scheme", "multithread", "multiprocess", "run_once")
            },
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "body": body.decode("latin-1") if len(body) <= 4096 else None,
        },
    )


def says(
    status: str = "200 OK",
    headers: Iterable[tuple[str, str]] = (),
    body: Iterable[bytes] = (b"said\n",),
) -> WSGIApplication:
    """An application that always answers the same, its body a list."""
    listed = list(body)

    def application(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "text/plain"), *headers])
        return listed

    return application


def latin1(text: str) -> str:
    """How UTF-8 text looks in an environ (PEP 3333, "Unicode issues")."""
    return text.encode().decode("latin-1")


def saw(answer: HTTPAnswer) -> dict[str, Any]:
    """What the echo application saw, once the answer is known to be whole."""
    assert (answer.status, answer.complete) == (200, True), answer
    seen: dict[str, Any] = answer.json()
    assert seen["not_str"] == []
    return seen


def is_server_error(answer: HTTPAnswer) -> None:
    """The answer is a plain 500 that betrays nothing of the application."""
    assert answer.status == 500, answer
    assert b"Traceback" not in answer.body, answer
    assert b"a secret of the application" not in answer.body, answer
    assert answer.header("X-Injected") is None, answer


def body_is(answer: HTTPAnswer, body: bytes) -> None:
    assert (answer.status, answer.complete) == (200, True), (answer.status, answer.complete)
    assert len(answer.body) == len(body)
    assert answer.body == body


# Methods.


def _check_method(answer: HTTPAnswer, case: Case) -> None:
    (request,) = case.row.requests
    seen = saw(answer)
    assert seen["method"] == request.method
    assert seen["body"] == request.payload.decode()


for _method in ("GET", "DELETE", "OPTIONS", "PROPFIND", "FOO"):
    add(
        Row(
            f"the-method-{_method}-arrives",
            HTTPRequest(_method),
            echo,
            _check_method,
            # The validator warns of methods that it has not heard of.
            validate=_method not in ("PROPFIND", "FOO"),
        )
    )
for _method in ("POST", "PUT", "PATCH", "DELETE"):
    _request = HTTPRequest(_method, body=b"some of the body")
    add(Row(f"the-method-{_method}-arrives-with-a-body", _request, echo, _check_method))


@row(HTTPRequest("HEAD"), says(headers=[("X-Seen", "yes")], body=[b"never sent"]))
def an_answer_to_HEAD_has_a_head_and_no_body(answer: HTTPAnswer, _: Case) -> None:
    assert (answer.status, answer.complete, answer.body) == (200, True, b"")
    assert answer.header("X-Seen") == "yes"


@row([HTTPRequest("HEAD"), HTTPRequest("GET")], says(body=[b"x" * 70000]))
def a_HEAD_leaves_nothing_behind_for_the_next_request(answer: HTTPAnswer, case: Case) -> None:
    assert case.answers[0].body == b""
    body_is(answer, b"x" * 70000)


# Paths and queries.


def _path_row(name: str, target: bytes, path: str) -> None:
    def check(answer: HTTPAnswer, _: Case) -> None:
        seen = saw(answer)
        assert (seen["script_name"], seen["path_info"]) == ("", path)

    add(Row(name, HTTPRequest(target=target), echo, check))


_path_row("the-root-is-a-slash", b"/", "/")
_path_row("a-plain-path-arrives", b"/a/b.txt", "/a/b.txt")
_path_row("a-trailing-slash-stays", b"/a/b/", "/a/b/")
_path_row("encoded-spaces-are-decoded", b"/a%20b", "/a b")
_path_row("a-plus-in-a-path-stays-a-plus", b"/a+b", "/a+b")
_path_row(
    "sub-delimiters-in-a-path-arrive", b"/a;b=c,d~e!f$g&h'(i)*@:j", "/a;b=c,d~e!f$g&h'(i)*@:j"
)
_path_row("an-encoded-percent-is-decoded-once", b"/100%25%2541", "/100%%41")
_path_row("an-encoded-question-mark-is-part-of-the-path", b"/a%3Fb?c", "/a?b")
_path_row("encoded-UTF-8-arrives-as-latin-1", b"/caf%C3%A9/%E2%82%AC", latin1("/café/€"))
_path_row("raw-UTF-8-arrives-as-latin-1", "/café/€".encode(), latin1("/café/€"))
_path_row("encoded-bytes-that-are-not-UTF-8-arrive", b"/%FF%FE", "/\xff\xfe")
_path_row("a-long-path-arrives", b"/" + b"long/" * 700, "/" + "long/" * 700)


@row(HTTPRequest(target=b"/a//b"), echo)
def a_double_slash_in_a_path(answer: HTTPAnswer, case: Case) -> None:
    path = "/a/b" if "merges-slashes" in case.traits else "/a//b"
    assert saw(answer)["path_info"] == path


@row(HTTPRequest(target=b"/a%2Fb"), echo)
def an_encoded_slash_in_a_path(answer: HTTPAnswer, case: Case) -> None:
    path = "/a%2Fb" if "keeps-encoded-slashes" in case.traits else "/a/b"
    assert saw(answer)["path_info"] == path


@row(HTTPRequest(target=b"/a%0Ab"), echo)
def an_encoded_line_feed_in_a_path_is_only_a_character(answer: HTTPAnswer, _: Case) -> None:
    assert saw(answer)["path_info"] == "/a\nb"


def _query_row(name: str, target: bytes, query: str) -> None:
    def check(answer: HTTPAnswer, _: Case) -> None:
        seen = saw(answer)
        assert (seen["path_info"], seen["query"]) == ("/q", query)

    add(Row(name, HTTPRequest(target=target), echo, check))


_query_row("an-absent-query-is-empty", b"/q", "")
_query_row("an-empty-query-is-empty", b"/q?", "")
_query_row(
    "a-query-arrives-undecoded", b"/q?a=%20b+c&d=%C3%A9&&e=%2F;f", "a=%20b+c&d=%C3%A9&&e=%2F;f"
)
_query_row("a-query-without-equals-arrives", b"/q?-s", "-s")
_query_row("a-second-question-mark-is-part-of-the-query", b"/q?a?b", "a?b")
_query_row("a-long-query-arrives", b"/q?" + b"x" * 4000, "x" * 4000)


@row(HTTPRequest(target=b"/%C3%A9%20a?b=%20c"), echo)
def REQUEST_URI_is_the_target_as_it_was_sent(answer: HTTPAnswer, _: Case) -> None:
    assert saw(answer)["request_uri"] == "/%C3%A9%20a?b=%20c"


# Request headers.


def _header_row(
    name: str, headers: list[tuple[str, str | bytes]], expected: dict[str, str | None]
) -> None:
    def check(answer: HTTPAnswer, _: Case) -> None:
        http = saw(answer)["http"]
        assert {name: http.get(name) for name in expected} == expected

    add(Row(name, HTTPRequest(headers=headers), echo, check))


_header_row("a-header-arrives", [("X-Plain", "some value")], {"HTTP_X_PLAIN": "some value"})


@row(HTTPRequest(headers=[("X-Empty", "")]), echo)
def a_header_without_a_value_is_empty(answer: HTTPAnswer, case: Case) -> None:
    seen = saw(answer)["http"].get("HTTP_X_EMPTY")
    assert seen == (None if "drops-empty-headers" in case.traits else "")


_header_row("a-header-s-inner-blanks-stay", [("X-Blanks", "a  b\tc")], {"HTTP_X_BLANKS": "a  b\tc"})
_header_row(
    "odd-characters-in-a-header-arrive",
    [("X-Odd", "\"quoted\", 'x'; <y> {z} \\ | ^ ` ~ % =")],
    {"HTTP_X_ODD": "\"quoted\", 'x'; <y> {z} \\ | ^ ` ~ % ="},
)
_header_row("a-header-in-latin-1-arrives", [("X-Name", b"caf\xe9")], {"HTTP_X_NAME": "caf\xe9"})
_header_row(
    "a-header-in-UTF-8-arrives-as-latin-1",
    [("X-Name", "café €".encode())],
    {"HTTP_X_NAME": latin1("café €")},
)
_header_row(
    "a-repeated-header-is-joined-in-order",
    [("X-Dup", "a"), ("X-Other", "-"), ("X-Dup", "b"), ("X-Dup", "c")],
    {"HTTP_X_DUP": "a, b, c"},
)
_header_row("one-cookie-line-stays-as-it-is", [("Cookie", "a=1; b=2")], {"HTTP_COOKIE": "a=1; b=2"})
_header_row(
    "Authorization-arrives",
    [("Authorization", "Basic YWxpY2U6c2VjcmV0")],
    {"HTTP_AUTHORIZATION": "Basic YWxpY2U6c2VjcmV0"},
)
_header_row("Host-arrives-with-its-port", [("Host", "a.example:81")], {"HTTP_HOST": "a.example:81"})
_header_row("a-Proxy-header-never-becomes-HTTP_PROXY", [("Proxy", "evil:1")], {"HTTP_PROXY": None})
_header_row("a-header-of-4000-bytes-arrives", [("X-Long", "v" * 4000)], {"HTTP_X_LONG": "v" * 4000})
_header_row(
    "sixty-headers-arrive",
    [(f"X-Many-{n}", f"value {n}") for n in range(60)],
    {f"HTTP_X_MANY_{n}": f"value {n}" for n in range(60)},
)


@row(HTTPRequest(headers=[("Cookie", "c1=1"), ("Cookie", "c2=2")]), echo)
def two_cookie_lines_are_joined(answer: HTTPAnswer, case: Case) -> None:
    comma = "joins-cookies-with-comma" in case.traits
    assert saw(answer)["http"]["HTTP_COOKIE"] == ("c1=1, c2=2" if comma else "c1=1; c2=2")


@row(HTTPRequest("POST", headers=[("Content-Type", "text/x-odd; a=b")], body=b"typed"), echo)
def the_body_s_type_and_length_have_one_name_each(answer: HTTPAnswer, _: Case) -> None:
    seen = saw(answer)
    assert (seen["content_type"], seen["content_length"]) == ("text/x-odd; a=b", "5")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & seen["http"].keys()


@row(HTTPRequest(), echo)
def the_required_keys_are_there_and_native_strings(answer: HTTPAnswer, _: Case) -> None:
    seen = saw(answer)
    assert seen["server_port"].isdecimal()
    assert seen["server_name"]
    assert seen["server_protocol"].startswith("HTTP/")
    assert seen["remote_addr"] == "127.0.0.1"
    wsgi = seen["wsgi"]
    assert (wsgi["version"], wsgi["url_scheme"]) == ([1, 0], "http")
    flags = [wsgi[name] for name in ("multithread", "multiprocess", "run_once")]
    assert all(type(flag) is bool for flag in flags)


# Request bodies.


@row(HTTPRequest("GET"), echo)
def a_request_without_a_length_has_an_empty_body(answer: HTTPAnswer, _: Case) -> None:
    seen = saw(answer)
    assert seen["content_length"] in (None, "", "0")
    assert seen["length"] == 0


@row(HTTPRequest("POST", headers=[("Content-Length", "0")]), echo)
def a_POST_of_length_0_has_an_empty_body(answer: HTTPAnswer, _: Case) -> None:
    seen = saw(answer)
    assert (seen["content_length"], seen["length"]) == ("0", 0)


@row(HTTPRequest("GET", body=b"unusual"), echo)
def a_GET_may_have_a_body(answer: HTTPAnswer, _: Case) -> None:
    assert saw(answer)["body"] == "unusual"


def pattern(length: int) -> bytes:
    """Bytes in which every displacement shows."""
    block = b"".join(b"%07d\n" % n for n in range(1250))
    return (block * (length // len(block) + 1))[:length]


def _check_upload(answer: HTTPAnswer, case: Case) -> None:
    (request,) = case.row.requests
    seen = saw(answer)
    payload = request.payload
    assert seen["length"] == len(payload)
    assert seen["sha256"] == hashlib.sha256(payload).hexdigest()
    # A chunked upload has no length, unless somebody on the way knew the whole of it.
    allowed = (None, "", str(len(payload))) if request.chunked else (str(len(payload)),)
    assert seen["content_length"] in allowed


_TEN_MEGABYTES = 10 * 1024 * 1024
for _name, _body in {
    "a-body-of-every-byte-value-arrives": bytes(range(256)) * 4,
    "a-body-of-100-KiB-arrives": pattern(102400),
    "a-body-of-exactly-65535-bytes-arrives": pattern(65535),
    "a-body-of-exactly-65536-bytes-arrives": pattern(65536),
    "a-body-of-10-MiB-arrives": pattern(_TEN_MEGABYTES),
}.items():
    add(Row(_name, HTTPRequest("POST", body=_body), echo, _check_upload))
for _name, _chunks in {
    "a-chunked-upload-arrives": [b"first", b"and second", b"\n"],
    "an-empty-chunked-upload-is-an-empty-body": [],
    "a-chunked-upload-of-single-bytes-arrives": [bytes([65 + n % 26]) for n in range(300)],
    "a-chunked-upload-of-1-MiB-arrives": [pattern(65536)] * 16,
}.items():
    add(Row(_name, HTTPRequest("POST", body=_chunks), echo, _check_upload))
add(
    Row(
        "a-client-that-waits-for-100-Continue-is-served",
        HTTPRequest("POST", body=pattern(5000), expect=True),
        echo,
        _check_upload,
    )
)


_early = says(body=[b"answered without reading\n"])


@row([HTTPRequest("POST", body=pattern(200000)), HTTPRequest()], _early)
def a_body_that_nobody_read_harms_neither_answer_nor_next(answer: HTTPAnswer, case: Case) -> None:
    body_is(case.answers[0], b"answered without reading\n")
    body_is(answer, b"answered without reading\n")


# Every way to read wsgi.input; BytesIO says what is right.

_LINES = b"first line\nsecond\n\n" + b"long " * 30000 + b"\n\x00\xff binary\r\nlast without end"


def _until_empty(read: Callable[[], bytes]) -> list[bytes]:
    return [*iter(read, b""), read()]


def _mixed(stream: Any) -> list[bytes]:
    pieces = [stream.readline(), stream.read(3), stream.readline(2), *stream.readlines(1)]
    pieces += [next(iter(stream)), stream.read(70000), stream.readline(), stream.read(65536 * 4)]
    return [*pieces, stream.read(1), stream.readline()]


READ_STYLES: dict[str, Callable[[Any], list[bytes]]] = {
    "read()": lambda stream: _until_empty(stream.read),
    "read(-1)": lambda stream: [stream.read(-1), stream.read(-1)],
    "read(7)": lambda stream: _until_empty(lambda: stream.read(7)),
    "read(65536)": lambda stream: _until_empty(lambda: stream.read(65536)),
    "read(more)": lambda stream: _until_empty(lambda: stream.read(10**9)),
    "read(0)": lambda stream: [stream.read(0), stream.read(5), stream.read(0)],
    "readline()": lambda stream: _until_empty(stream.readline),
    "readline(5)": lambda stream: _until_empty(lambda: stream.readline(5)),
    "readline(-1)": lambda stream: _until_empty(lambda: stream.readline(-1)),
    "readlines()": lambda stream: [*stream.readlines(), *stream.readlines()],
    "readlines(20)": lambda stream: [*stream.readlines(20), b"|", *stream.readlines(20)],
    "iteration": list,
    "mixed": _mixed,
}


def _reader(style: Callable[[Any], list[bytes]]) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        digests = [hashlib.md5(piece).hexdigest() for piece in style(environ["wsgi.input"])]
        return answer_json(start_response, digests)

    return application


def _check_reading(style: Callable[[Any], list[bytes]]) -> Check:
    def check(answer: HTTPAnswer, _: Case) -> None:
        expected = [hashlib.md5(piece).hexdigest() for piece in style(io.BytesIO(_LINES))]
        assert (answer.status, answer.complete) == (200, True), answer
        assert answer.json() == expected

    return check


for _name, _style in READ_STYLES.items():
    add(
        Row(
            f"wsgi.input-gives-the-body-by-{_name}",
            HTTPRequest("POST", body=_LINES),
            _reader(_style),
            _check_reading(_style),
            # The validator wants exactly one argument to read().
            validate=_name != "read()",
        )
    )


def _seeks(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    stream = environ["wsgi.input"]
    if not hasattr(stream, "tell"):
        return answer_json(start_response, "no tell")
    start = stream.tell()
    first = stream.read(5)
    stream.seek(start)
    return answer_json(start_response, [start, first.decode(), stream.read().decode()])


@row(HTTPRequest("POST", body=b"rewind me"), _seeks, validate=False)
def an_input_that_can_tell_can_seek(answer: HTTPAnswer, _: Case) -> None:
    assert (answer.status, answer.complete) == (200, True), answer
    assert answer.json() in ("no tell", [0, "rewin", "rewind me"])


# Answers: status, headers, lengths.


def _status_row(status: str) -> None:
    code, _, reason = status.partition(" ")

    def check(answer: HTTPAnswer, case: Case) -> None:
        assert answer.status == int(code)
        assert answer.reason == reason or "own-reasons" in case.traits
        assert (answer.body, answer.complete) == (b"said\n", True)

    add(Row(f"the-status-{code}-is-passed-on", HTTPRequest(), says(status), check))


for _status in ("201 Created", "299 Odd Thing", "404 Not Found", "418 I'm a Teapot"):
    _status_row(_status)


def _bodiless(status: str, body: list[bytes]) -> WSGIApplication:
    def application(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [("ETag", '"x"')])
        return body

    return application


def _check_bodiless(answer: HTTPAnswer, case: Case) -> None:
    code = 204 if "-204-" in case.row.name else 304
    for each in case.answers:
        assert (each.status, each.body, each.complete) == (code, b"", True)
        assert each.header("ETag") == '"x"'
        assert each.header("Transfer-Encoding") is None
    assert answer.header("Content-Length") in (None, "0")


for _status in ("204 No Content", "304 Not Modified"):
    for _body_name, _answer_body in {"none": list[bytes](), "one-anyway": [b"never sent"]}.items():
        add(
            Row(
                f"an-answer-of-{_status[:3]}-has-no-body-when-the-application-gives-{_body_name}",
                [HTTPRequest(), HTTPRequest()],
                _bodiless(_status, _answer_body),
                _check_bodiless,
            )
        )


@row(
    HTTPRequest(),
    says(headers=[("Set-Cookie", "a=1"), ("X-One", "1"), ("Set-Cookie", "b=2; Path=/")]),
)
def two_cookies_are_set_in_order(answer: HTTPAnswer, _: Case) -> None:
    assert answer.all("Set-Cookie") == ["a=1", "b=2; Path=/"]
    assert answer.header("X-One") == "1"


@row(HTTPRequest(), says(headers=[("X-Name", "caf\xe9"), ("X-Euro", latin1("€"))]))
def answer_headers_keep_their_bytes(answer: HTTPAnswer, _: Case) -> None:
    assert answer.header("X-Name") == "caf\xe9"
    assert answer.header("X-Euro") == latin1("€")


@row(HTTPRequest(), says(headers=[("X-Long", "v" * 3000), ("X-Odd", 'a, "b"; <c> = d')]))
def long_and_odd_answer_headers_are_passed_on(answer: HTTPAnswer, _: Case) -> None:
    assert answer.header("X-Long") == "v" * 3000
    assert answer.header("X-Odd") == 'a, "b"; <c> = d'


@row(HTTPRequest(), says("302 Found", headers=[("Location", "/elsewhere?x=1")]))
def a_redirect_reaches_the_client(answer: HTTPAnswer, _: Case) -> None:
    assert (answer.status, answer.body, answer.complete) == (302, b"said\n", True)
    assert (answer.header("Location") or "").endswith("/elsewhere?x=1")


_KEPT_HEADERS = [("Content-Type", "text/plain")]


def _keeps_headers(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = repr(_KEPT_HEADERS).encode()
    start_response("200 OK", _KEPT_HEADERS)
    return [body]


@row([HTTPRequest(), HTTPRequest(), HTTPRequest("HEAD"), HTTPRequest()], _keeps_headers)
def the_application_s_own_header_list_is_never_changed(answer: HTTPAnswer, case: Case) -> None:
    body_is(case.answers[0], b"[('Content-Type', 'text/plain')]")
    body_is(answer, case.answers[0].body)


def _changes_headers(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    headers = [("Content-Type", "text/plain"), ("X-Kept", "yes")]
    start_response("200 OK", headers)
    headers[1] = ("X-Late", "yes")
    return [b"said\n"]


@row(HTTPRequest(), _changes_headers)
def what_happens_to_the_header_list_later_is_not_sent(answer: HTTPAnswer, _: Case) -> None:
    body_is(answer, b"said\n")
    assert (answer.header("X-Kept"), answer.header("X-Late")) == ("yes", None)


# Answers: bodies and how they are made.


def _yields(*pieces: bytes, headers: Iterable[tuple[str, str]] = ()) -> WSGIApplication:
    def application(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), *headers])
        return iter(pieces)

    return application


def _body_row(
    name: str, application: WSGIApplication, body: bytes, *, validate: bool = True
) -> None:
    def check(answer: HTTPAnswer, _: Case) -> None:
        body_is(answer, body)

    add(Row(name, HTTPRequest(), application, check, validate))


def _generator(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"piece %d\n" % n for n in range(100))


def _late_generator(_: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"started "
    yield b"late"


def _tuple(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"one ", b"", b"two")


_TEN_MIB = pattern(_TEN_MEGABYTES)
_body_row("a-list-is-an-answer", says(body=[b"one ", b"two"]), b"one two")
_body_row("a-tuple-with-an-empty-piece-is-an-answer", _tuple, b"one two")
_body_row("an-empty-list-is-an-empty-answer", says(body=[]), b"")
_body_row("an-empty-piece-is-an-empty-answer", says(body=[b""]), b"")
_body_row("an-iterator-without-pieces-is-an-empty-answer", _yields(), b"")
_body_row("empty-pieces-do-not-end-an-answer", _yields(b"", b"a", b"", b"b", b""), b"ab")
_body_row("a-generator-is-an-answer", _generator, b"".join(b"piece %d\n" % n for n in range(100)))
_body_row(
    # The validator wants start_response called before the first piece is asked for.
    "a-generator-that-starts-when-asked-is-an-answer",
    _late_generator,
    b"started late",
    validate=False,
)
_body_row(
    "an-answer-of-every-byte-value", says(body=[bytes(range(256)) * 4]), bytes(range(256)) * 4
)
_body_row("an-answer-of-exactly-65535-bytes", says(body=[pattern(65535)]), pattern(65535))
_body_row("an-answer-of-exactly-65536-bytes", says(body=[pattern(65536)]), pattern(65536))
_body_row("an-answer-of-10-MiB-in-one-piece", says(body=[_TEN_MIB]), _TEN_MIB)
_body_row(
    "an-answer-of-10-MiB-in-pieces-without-a-length",
    _yields(*[_TEN_MIB[at : at + 49999] for at in range(0, len(_TEN_MIB), 49999)]),
    _TEN_MIB,
)


@row(
    HTTPRequest(),
    _yields(b"half ", b"half", headers=[("Content-Length", "9"), ("X-Whole", "yes")]),
)
def a_declared_length_is_passed_on(answer: HTTPAnswer, case: Case) -> None:
    body_is(answer, b"half half")
    length = answer.header("Content-Length")
    assert length == "9" or (length is None and "length-ignored" in case.traits)


@row(HTTPRequest("HEAD"), _yields(b"half ", b"half", headers=[("Content-Length", "9")]))
def a_length_declared_for_HEAD_is_not_a_fault(answer: HTTPAnswer, case: Case) -> None:
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)
    length = answer.header("Content-Length")
    assert length == "9" or (length is None and "length-ignored" in case.traits)


def _write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written, ")
    write(b"")
    write(b"written again, ")
    return [b"returned"]


_body_row("write-comes-before-what-is-returned", _write, b"written, written again, returned")


def _write_only(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])(pattern(300000))
    return []


_body_row("write-alone-is-an-answer", _write_only, pattern(300000))


# file_wrapper.


def _file_wrapper(
    make: Callable[[], Any], skip: int, headers: Iterable[tuple[str, str]] = ()
) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        file = make()
        file.seek(skip)
        start_response("200 OK", [("Content-Type", "application/octet-stream"), *headers])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 8192)
        return wrapped

    return application


def _real_file() -> Any:
    # Closing it is the server's duty (PEP 3333, "Optional Platform-Specific File Handling").
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the wrapper's close() closes it)
    file.write(pattern(300000))
    return file


class _NoDescriptor(io.BytesIO):
    """A file-like object without a descriptor."""


_body_row("a-wrapped-file-is-sent-whole", _file_wrapper(_real_file, 0), pattern(300000))
_body_row(
    "a-wrapped-file-is-sent-from-where-it-stands",
    _file_wrapper(_real_file, 1001),
    pattern(300000)[1001:],
)
_body_row(
    "a-wrapped-file-with-its-length-is-sent",
    _file_wrapper(_real_file, 0, [("Content-Length", "300000")]),
    pattern(300000),
)
_body_row(
    "a-wrapped-object-without-a-descriptor-is-sent",
    _file_wrapper(lambda: _NoDescriptor(pattern(100000)), 5),
    pattern(100000)[5:],
)


class _RecordsClose(io.BytesIO):
    def __init__(self, environ: WSGIEnvironment) -> None:
        super().__init__(b"closed after use")
        self.environ = environ

    def close(self) -> None:
        if not self.closed:
            record(self.environ, "closed")
        super().close()


def _closing_wrapper(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](_RecordsClose(environ))
    return wrapped


@row(HTTPRequest(), _closing_wrapper)
def a_wrapped_file_is_closed(answer: HTTPAnswer, case: Case) -> None:
    body_is(answer, b"closed after use")
    case.awaited("closed")


# close().


class _Closing:
    """An iterable that records what the server does to it."""

    def __init__(
        self, environ: WSGIEnvironment, pieces: Iterable[bytes], raises: bool = False
    ) -> None:
        self.environ = environ
        self.pieces = iter(pieces)
        self.raises = raises
        self.count = 0

    def __iter__(self) -> _Closing:
        return self

    def __next__(self) -> bytes:
        for piece in self.pieces:
            self.count += 1
            return piece
        if self.raises:
            raise RuntimeError("a secret of the application")
        raise StopIteration

    def close(self) -> None:
        record(self.environ, f"closed after {self.count}")


def _closing(
    pieces: list[bytes], *, raises: bool = False, headers: Iterable[tuple[str, str]] = ()
) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), *headers])
        return _Closing(environ, pieces, raises)

    return application


@row(HTTPRequest(), _closing([b"a", b"b"]))
def close_is_called_once_after_the_answer(answer: HTTPAnswer, case: Case) -> None:
    body_is(answer, b"ab")
    case.awaited("closed after 2")
    assert case.recorded() == ["closed after 2"]


@row(HTTPRequest("HEAD"), _closing([b"a", b"b"]))
def close_is_called_after_HEAD(answer: HTTPAnswer, case: Case) -> None:
    assert (answer.status, answer.body) == (200, b"")
    case.awaited("closed after ")
    assert len(case.recorded()) == 1


def was_cut(answer: HTTPAnswer, case: Case, beginning: bytes, *, length: bool) -> None:
    """The answer broke off after `beginning`, and the client could see it.

    `length` tells that the application had declared one.
    """
    if "buffers-answers" in case.traits and answer.status >= 500:
        return
    hidden = "cut-looks-complete" in case.traits
    assert answer.status == 200, answer
    assert beginning.startswith(answer.body), answer
    if length and "length-ignored" not in case.traits:
        assert not answer.complete, answer
    else:
        assert not answer.complete or hidden, answer


@row(HTTPRequest(), _closing([b"a", b"b"], raises=True))
def close_is_called_after_an_exception(answer: HTTPAnswer, case: Case) -> None:
    was_cut(answer, case, b"ab", length=False)
    case.awaited("closed after 2")
    assert case.recorded() == ["closed after 2"]


# Faults of the application.


def _raises(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("a secret of the application")


def _raises_after_start(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Lost", "yes")])
    raise RuntimeError("a secret of the application")


def _raises_at_once(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Lost", "yes")])
    return _Closing(environ, [], raises=True)


@row([HTTPRequest(), HTTPRequest()], _raises)
def an_exception_is_a_plain_500(answer: HTTPAnswer, case: Case) -> None:
    is_server_error(case.answers[0])
    is_server_error(answer)


@row(HTTPRequest("POST", body=pattern(200000)), _raises)
def an_exception_before_the_body_is_read_is_a_plain_500(answer: HTTPAnswer, _: Case) -> None:
    is_server_error(answer)


@row(HTTPRequest(), _raises_after_start)
def an_exception_after_start_response_is_a_plain_500(answer: HTTPAnswer, _: Case) -> None:
    is_server_error(answer)
    assert answer.header("X-Lost") is None


@row(HTTPRequest(), _raises_at_once)
def an_exception_before_the_first_piece_is_a_plain_500(answer: HTTPAnswer, case: Case) -> None:
    is_server_error(answer)
    assert answer.header("X-Lost") is None
    case.awaited("closed after 0")


@row(
    HTTPRequest(),
    _closing([pattern(20000)] * 3, raises=True, headers=[("Content-Length", "99999")]),
)
def an_exception_within_a_declared_length_is_seen(answer: HTTPAnswer, case: Case) -> None:
    was_cut(answer, case, pattern(20000) * 3, length=True)


@row([HTTPRequest(), HTTPRequest()], _closing([pattern(20000)] * 3, raises=True))
def an_exception_in_the_middle_is_seen_where_it_can_be(answer: HTTPAnswer, case: Case) -> None:
    was_cut(case.answers[0], case, pattern(20000) * 3, length=False)
    was_cut(answer, case, pattern(20000) * 3, length=False)


def _raises_while_writing(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])(pattern(20000))
    raise RuntimeError("a secret of the application")


@row(HTTPRequest(), _raises_while_writing)
def an_exception_after_write_is_seen_where_it_can_be(answer: HTTPAnswer, case: Case) -> None:
    was_cut(answer, case, pattern(20000), length=False)


def _replaces_head(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Lost", "yes")])
    try:
        raise RuntimeError("handled by the application")
    except RuntimeError:
        start_response(
            "503 Handled", [("Content-Type", "text/plain"), ("X-Kept", "yes")], sys.exc_info()
        )
    return [b"handled"]


@row(HTTPRequest(), _replaces_head)
def exc_info_replaces_a_head_that_is_not_sent(answer: HTTPAnswer, case: Case) -> None:
    assert (answer.status, answer.body) == (503, b"handled")
    assert answer.reason == "Handled" or "own-reasons" in case.traits
    assert (answer.header("X-Lost"), answer.header("X-Kept")) == (None, "yes")


def _too_late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    try:
        yield pattern(20000)
        raise RuntimeError("a secret of the application")
    except RuntimeError:
        start_response("500 Too Late", [("Content-Type", "text/plain")], sys.exc_info())
        record(environ, "not raised")
        yield b"never sent"


def _replaces_late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return _too_late(environ, start_response)


@row(HTTPRequest(), _replaces_late)
def exc_info_is_raised_again_once_the_head_is_sent(answer: HTTPAnswer, case: Case) -> None:
    was_cut(answer, case, pattern(20000), length=False)
    assert case.recorded() == []


def _fault_row(name: str, application: WSGIApplication) -> None:
    def check(answer: HTTPAnswer, _: Case) -> None:
        is_server_error(answer)

    # PEP 3333 forbids what these applications do, so the validator has no place here.
    add(Row(name, HTTPRequest(), application, check, validate=False))


def _returns(value: Any, *, start: bool = True) -> WSGIApplication:
    def application(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if start:
            start_response("200 OK", [("Content-Type", "text/plain")])
        returned: Iterable[bytes] = value
        return returned

    return application


def _starts_twice(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    start_response("201 Created", [("Content-Type", "text/plain")])
    return [b"never sent"]


_fault_row("an-application-that-never-starts-a-response-is-a-500", _returns([b"x"], start=False))
_fault_row("nothing-returned-and-nothing-started-is-a-500", _returns([], start=False))
_fault_row("None-returned-is-a-500", _returns(None))
_fault_row("a-str-in-the-body-is-a-500", _returns(["text"]))
_fault_row("a-number-in-the-body-is-a-500", _returns([1]))
_fault_row("start_response-called-twice-is-a-500", _starts_twice)
_odd: Any
for _name, _odd in {
    "a-line-break-in-a-header-s-value": ("200 OK", [("X-A", "a\r\nX-Injected: 1")]),
    "a-bare-line-feed-in-a-header-s-value": ("200 OK", [("X-A", "a\nX-Injected: 1")]),
    "a-bare-carriage-return-in-a-header-s-value": ("200 OK", [("X-A", "a\rX-Injected: 1")]),
    "a-NUL-in-a-header-s-value": ("200 OK", [("X-A", "a\x00b")]),
    "a-line-break-in-a-header-s-name": ("200 OK", [("X-A: 1\r\nX-Injected", "1")]),
    "a-blank-in-a-header-s-name": ("200 OK", [("X A", "1")]),
    "an-empty-header-name": ("200 OK", [("", "1")]),
    "a-character-beyond-latin-1-in-a-header": ("200 OK", [("X-A", "€")]),
    "a-line-break-in-the-status": ("200 OK\r\nX-Injected: 1", []),
    "a-status-without-a-number": ("OK", []),
    "a-status-of-two-digits": ("20 OK", []),
    "a-status-that-is-a-number": (200, []),
    "an-interim-status": ("100 Continue", []),
    "headers-that-are-no-list": ("200 OK", None),
    "bytes-as-a-header": ("200 OK", [(b"X-A", b"1")]),
    "a-hop-by-hop-header": ("200 OK", [("Transfer-Encoding", "chunked")]),
    "a-Connection-header": ("200 OK", [("Connection", "close")]),
    "a-length-that-is-no-number": ("200 OK", [("Content-Length", "+4")]),
}.items():

    def _odd_head(
        _: WSGIEnvironment, start_response: StartResponse, head: Any = _odd
    ) -> Iterable[bytes]:
        start_response(*head)
        return [b"body"]

    _fault_row(f"{_name}-is-a-500", _odd_head)


@row(HTTPRequest(), _yields(pattern(20000), headers=[("Content-Length", "30000")]), validate=False)
def a_body_shorter_than_declared_is_seen(answer: HTTPAnswer, case: Case) -> None:
    was_cut(answer, case, pattern(20000), length=True)


def _check_overrun(answer: HTTPAnswer, case: Case) -> None:
    for each in case.answers:
        body_is(each, b"x" * 10 + b"y" * 5)


for _name, _overrun in {
    "no-byte-beyond-the-declared-length-is-sent": _yields(
        b"x" * 10, b"y" * 10, b"z", headers=[("Content-Length", "15")]
    ),
    "no-byte-of-a-list-beyond-the-declared-length-is-sent": says(
        headers=[("Content-Length", "15")], body=[b"x" * 10, b"y" * 10]
    ),
}.items():
    add(Row(_name, [HTTPRequest(), HTTPRequest()], _overrun, _check_overrun, validate=False))


def _writes_errors(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    errors = environ["wsgi.errors"]
    errors.write("suite: a line for the log, caf\xe9 €\n")
    errors.writelines(["suite: two\n", "suite: three\n"])
    errors.write("suite: " + "x" * 9000 + "\n")
    errors.flush()
    start_response("200 OK", [("Content-Type", "text/plain")])

    def body() -> Iterator[bytes]:
        yield b"before"
        errors.write("suite: between\n")
        yield b" and after"

    return body()


_body_row("what-goes-to-wsgi.errors-stays-out-of-the-answer", _writes_errors, b"before and after")


# Clients that leave.


def _uploads(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "POST":
        record(environ, "started")
        try:
            record(environ, f"complete: {len(read_all(environ))}")
        except OSError:
            record(environ, "aborted")
            raise
    return answer_json(start_response, "still here")


@row(
    [
        HTTPRequest(
            "POST", headers=[("Content-Length", "200000")], body=pattern(5000), abort="upload"
        ),
        HTTPRequest(),
    ],
    _uploads,
)
def a_client_that_leaves_its_upload_is_noticed(answer: HTTPAnswer, case: Case) -> None:
    assert (answer.status, answer.json()) == (200, "still here")
    if "streams-requests" in case.traits or "started" in case.recorded():
        case.awaited("aborted")
    assert not [line for line in case.recorded() if line.startswith("complete")]


_GIGABYTE_OF_PIECES = 16384


def _endless(environ: WSGIEnvironment) -> Iterator[bytes]:
    piece = pattern(65536)
    yield piece * 4
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and "client-leaves" not in state_path(environ).read_text():
        time.sleep(0.005)
    for _ in range(_GIGABYTE_OF_PIECES):
        yield piece


def _downloads(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"] == "/long":
        record(environ, "started")
        return _Closing(environ, _endless(environ))
    return [b"still here"]


@row([HTTPRequest(target=b"/long", abort="answer"), HTTPRequest(target=b"/short")], _downloads)
def a_client_that_leaves_its_answer_stops_the_application(answer: HTTPAnswer, case: Case) -> None:
    body_is(answer, b"still here")
    assert case.answers[0].status == 200
    line = case.awaited("closed after ", seconds=20)
    assert int(line.rpartition(" ")[2]) < _GIGABYTE_OF_PIECES
