"""The CGI response head, written, checked and parsed (RFC 3875 §6)."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from gateways import response
from gateways.errors import (
    ApplicationError,
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
)
from gateways.events import Response
from gateways.headparser import HeadParser
from gateways.response import check_head, checked_head, write_head
from tests.corpus import CHUNKERS, Chunker

# Every control character of latin-1's lower half but the tab, which a value may hold.
CONTROLS = [chr(code) for code in (*range(0x20), 0x7F)]


class TestWriteHead:
    def test_a_head_is_the_status_the_headers_and_an_empty_line(self) -> None:
        head = write_head("404 Not Found", [("Content-Type", "text/plain"), ("X-Empty", "")])
        assert head == b"Status: 404 Not Found\r\nContent-Type: text/plain\r\nX-Empty: \r\n\r\n"

    def test_a_head_may_have_no_headers(self) -> None:
        assert write_head("204 No Content", []) == b"Status: 204 No Content\r\n\r\n"

    def test_repeated_names_stay_in_order(self) -> None:
        head = write_head("200 OK", [("Set-Cookie", "b=1"), ("Set-Cookie", "a=2")])
        assert head == b"Status: 200 OK\r\nSet-Cookie: b=1\r\nSet-Cookie: a=2\r\n\r\n"

    def test_characters_are_bytes_as_pep_3333_has_them(self) -> None:
        assert write_head("200 OK", [("X", "caf\xe9")]) == b"Status: 200 OK\r\nX: caf\xe9\r\n\r\n"

    @pytest.mark.parametrize("smuggled", ["\r\n", "\n", "\r", "\0", "\r\nSet-Cookie: a=1"])
    @pytest.mark.parametrize("place", ["status", "name", "value"])
    def test_what_could_forge_a_header_is_refused(self, place: str, smuggled: str) -> None:
        spoilt = {"status": "200 OK", "name": "X-Name", "value": "value"}
        spoilt[place] += smuggled
        with pytest.raises(LocalProtocolError, match="CR, LF or NUL"):
            write_head(spoilt["status"], [("A", "b"), (spoilt["name"], spoilt["value"])])

    def test_the_error_shows_the_header_at_fault(self) -> None:
        with pytest.raises(LocalProtocolError, match=r"X-Two: b\\nc"):
            write_head("200 OK", [("X-One", "a"), ("X-Two", "b\nc")])

    def test_a_character_outside_latin_1_is_refused(self) -> None:
        with pytest.raises(LocalProtocolError, match="outside latin-1: 'X: 5 €'"):
            write_head("200 OK", [("A", "b"), ("X", "5 €")])


class TestCheckHead:
    @pytest.mark.parametrize("status", ["200 OK", "299 Odd Thing", "404 ", "204", "999 Message"])
    def test_these_statuses_pass(self, status: str) -> None:
        check_head(status, [("Content-Type", "text/plain")])

    @pytest.mark.parametrize(
        "status",
        ["", " ", "OK", "20", "2000 OK", "200OK", " 200 OK", "+20 OK", "20\u0663 OK", "200\tOK"],
    )
    def test_a_status_needs_three_digits_and_a_space(self, status: str) -> None:
        with pytest.raises(ApplicationError, match="three digits"):
            check_head(status, [])

    @pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints", "000 None", "099 Low"])
    def test_an_interim_status_is_refused(self, status: str) -> None:
        with pytest.raises(ApplicationError, match="1xx"):
            check_head(status, [])

    @pytest.mark.parametrize(
        "status", [200, b"200 OK", None, type("Text", (str,), {})("200 OK")], ids=repr
    )
    def test_a_status_is_exactly_a_str(self, status: Any) -> None:
        with pytest.raises(ApplicationError, match=f"status is {type(status).__name__}, not str"):
            check_head(status, [])

    @pytest.mark.parametrize("control", [*CONTROLS, "€"], ids=repr)
    def test_no_control_character_passes_in_a_status(self, control: str) -> None:
        with pytest.raises(ApplicationError, match="status holds a control character"):
            check_head(f"200 a{control}b", [])

    @pytest.mark.parametrize("control", [*CONTROLS, "€"], ids=repr)
    @pytest.mark.parametrize("form", ["{}b", "a{}b", "a{}"])
    def test_no_control_character_passes_in_a_value(self, control: str, form: str) -> None:
        with pytest.raises(ApplicationError, match="'X-Name' holds a control character"):
            check_head("200 OK", [("X-Name", form.format(control))])

    @pytest.mark.parametrize("value", ["", " ", "caf\xe9", "\x80\xff", 'a: b; c="d", e'])
    def test_these_values_pass(self, value: str) -> None:
        check_head("200 OK", [("X-Name", value)])

    @pytest.mark.parametrize("name", ["X", "x-1", "!#$%&'*+-.^_`|~", "ETag"])
    def test_every_token_is_a_name(self, name: str) -> None:
        check_head("200 OK", [(name, "value")])

    @pytest.mark.parametrize(
        "name", ["", " X", "X ", "X:", "a b", 'a"b', "a(b", "a/b", "caf\xe9", "a\r\nb", "a\0", "€"]
    )
    def test_what_is_no_token_is_no_name(self, name: str) -> None:
        with pytest.raises(ApplicationError, match="header name"):
            check_head("200 OK", [(name, "value")])

    @pytest.mark.parametrize(
        "name",
        [
            "Connection",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Trailers",
            "Transfer-Encoding",
            "Upgrade",
            "CONNECTION",
            "transfer-encoding",
        ],
    )
    def test_hop_by_hop_headers_are_refused(self, name: str) -> None:
        with pytest.raises(ApplicationError, match="hop-by-hop"):
            check_head("200 OK", [(name, "x")])

    @pytest.mark.parametrize("name", ["Status", "status", "STATUS"])
    def test_a_status_header_is_refused(self, name: str) -> None:
        with pytest.raises(ApplicationError, match="Status"):
            check_head("200 OK", [(name, "404 Not Found")])

    @pytest.mark.parametrize("name", ["Content-Type", "location"])
    def test_a_field_of_cgi_is_refused_a_second_time(self, name: str) -> None:
        with pytest.raises(ApplicationError, match=f"'{name}' is there twice"):
            check_head("200 OK", [(name.upper(), "a"), ("X", "b"), (name, "")])
        check_head("200 OK", [("Set-Cookie", "a=1"), (name, "a"), ("Set-Cookie", "b=2")])

    @pytest.mark.parametrize(
        ("headers", "message"),
        [
            ((("A", "b"),), "headers are tuple, not a list"),
            ({"A": "b"}, "headers are dict, not a list"),
            (None, "headers are NoneType, not a list"),
            ([["A", "b"]], "not a tuple"),
            ([("A", "b", "c")], "not a tuple"),
            (["AB"], "not a tuple"),
            ([(b"A", "b")], "name is bytes, not str"),
            ([("A", b"b")], "'A' has bytes, not str"),
            ([("A", 5)], "'A' has int, not str"),
            ([("A", None)], "'A' has NoneType, not str"),
        ],
    )
    def test_headers_are_a_list_of_pairs_of_str(self, headers: Any, message: str) -> None:
        with pytest.raises(ApplicationError, match=message):
            check_head("200 OK", headers)


def parse(data: bytes, chunks: Chunker, **options: Any) -> tuple[Response, bytes]:
    """Feed `data`; return the head and everything after it."""
    parser = HeadParser(**options)
    response = None
    body = b""
    for piece in chunks(data):
        if response is not None:
            body += piece
            continue
        response, rest = parser.receive(piece)
        body += rest
        assert response is not None or rest == b""
    assert response is not None, "the head was not complete"
    return response, body


@pytest.fixture(params=CHUNKERS)
def chunks(request: pytest.FixtureRequest) -> Chunker:
    return CHUNKERS[request.param]


class Text(str):
    """A string that equals a plain one and is none."""


@pytest.fixture
def no_heads(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """The memory of heads, empty, and put back afterwards."""
    heads: dict[Any, Any] = {}
    monkeypatch.setattr(response, "_known_heads", heads)
    return heads


class TestCheckedHead:
    HEADERS = [("Content-Type", "text/plain"), ("X", "y")]

    @pytest.mark.parametrize("again", [False, True])
    def test_it_is_what_was_given_and_its_bytes(self, again: bool, no_heads: object) -> None:
        for _ in range(1 + again):
            head = checked_head("200 OK", [*self.HEADERS])
        assert (head.status, head.headers) == ("200 OK", self.HEADERS)
        assert head.lines + b"\r\n" == write_head("200 OK", self.HEADERS)
        assert (head.declared, head.bodiless) == (None, False)

    def test_a_length_can_be_added(self) -> None:
        head = checked_head("200 OK", self.HEADERS)
        for length in (0, 5, 5, 123456, 5):
            headers = [*self.HEADERS, ("Content-Length", str(length))]
            assert head.with_length(length) == write_head("200 OK", headers)

    def test_a_declared_length_is_known(self) -> None:
        assert checked_head("200 OK", [("content-length", "007")]).declared == 7

    @pytest.mark.parametrize(
        ("status", "bodiless"), [("204", True), ("304 Not Modified", True), ("200 OK", False)]
    )
    def test_some_statuses_have_no_body(self, status: str, bodiless: bool) -> None:
        assert checked_head(status, []).bodiless is bodiless

    def test_what_the_application_does_to_its_list_afterwards_is_its_own_affair(self) -> None:
        headers = [*self.HEADERS]
        head = checked_head("200 OK", headers)
        headers.append(("Set-Cookie", "forged=1\r\n"))
        assert head.headers == self.HEADERS
        assert checked_head("200 OK", self.HEADERS).headers == self.HEADERS

    def test_a_known_head_is_not_made_again(self, no_heads: object) -> None:
        first = checked_head("200 OK", self.HEADERS)
        assert checked_head("200 OK", [("Content-Type", "text/plain"), ("X", "y")]) is first
        assert checked_head("200 OK", self.HEADERS[::-1]) is not first

    @pytest.mark.parametrize(
        ("status", "headers"),
        [
            (Text("200 OK"), HEADERS),
            ("200 OK", [(Text("Content-Type"), "text/plain"), ("X", "y")]),
            ("200 OK", [("Content-Type", Text("text/plain")), ("X", "y")]),
            ("200 OK", [("Content-Type", "text/plain"), ("X", Text("y"))]),
            ("200 OK", tuple(HEADERS)),
            ("200 OK", iter(HEADERS)),
            ("200 OK", [["Content-Type", "text/plain"], ("X", "y")]),
            ("200 OK", [("Content-Type", "text/plain"), {}]),
            ("200 OK", [("Content-Type", "text/plain"), ("X", [])]),
            ("200 OK", None),
            (None, HEADERS),
            ([], HEADERS),
        ],
        ids=repr,
    )
    def test_what_only_resembles_a_known_head_is_judged_like_an_unknown_one(
        self, status: Any, headers: Any, no_heads: dict[Any, Any]
    ) -> None:
        checked_head("200 OK", [*self.HEADERS])
        with pytest.raises(ApplicationError) as known:
            checked_head(status, headers)
        no_heads.clear()
        with pytest.raises(ApplicationError) as unknown:
            checked_head(status, headers)
        # An iterator is another one after it was looked at, and says so in the message.
        assert str(known.value) == str(unknown.value)

    def test_a_tuple_of_another_kind_is_no_header(self, no_heads: object) -> None:
        class Header(NamedTuple):
            name: str
            value: str

        checked_head("200 OK", [("X", "y")])
        with pytest.raises(ApplicationError, match="not a tuple"):
            checked_head("200 OK", [Header("X", "y")])

    @pytest.mark.parametrize("headers", [[("X", "a\nb")], [("Content-Length", "x")], [("X", 5)]])
    def test_a_refused_head_is_refused_again(self, headers: Any, no_heads: dict[Any, Any]) -> None:
        for _ in range(2):
            with pytest.raises(ApplicationError):
                checked_head("200 OK", headers)
        assert no_heads == {}

    @pytest.mark.parametrize("name", ["Set-Cookie", "set-cookie", "SET-COOKIE"])
    def test_a_visitors_cookie_is_not_remembered(self, name: str, no_heads: dict[Any, Any]) -> None:
        assert checked_head("200 OK", [(name, "session=secret")]).lines.endswith(b"secret\r\n")
        assert no_heads == {}

    def test_what_is_remembered_is_bounded(self, no_heads: dict[Any, Any]) -> None:
        for number in range(1000):
            checked_head("200 OK", [("ETag", f'"{number}"')])
            assert len(no_heads) <= 256
        no_heads.clear()
        checked_head("200 OK", [("X", "x" * 1024)])
        assert no_heads == {}
        checked_head("200 OK", [("X", "x" * 900)])
        assert len(no_heads) == 1


class TestHeadParser:
    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    def test_the_half_comment_of_cgitb_is_dropped_from_the_first_line_alone(
        self, end: bytes
    ) -> None:
        spam, kind = b"<!--: spam" + end, b"Content-Type: text/html" + end
        head, body = HeadParser().receive(spam + kind + end + b"page")
        assert head is not None
        assert (head.status, head.headers) == ("200 OK", [("Content-Type", "text/html")])
        assert body == b"page"
        with pytest.raises(RemoteProtocolError):
            HeadParser().receive(kind + spam + end)
        with pytest.raises(RemoteProtocolError):
            HeadParser().receive(spam + end)

    @pytest.mark.parametrize(
        ("head", "status", "headers"),
        [
            (b"Status: 404 Not Found\r\nA: b\r\n\r\n", "404 Not Found", [("A", "b")]),
            (b"A: b\r\nstatus: 404\r\n\r\n", "404", [("A", "b")]),
            (b"Status: 299 Odd Thing\n\n", "299 Odd Thing", []),
            (b"Status:201 Created\nA:b\r\n\n", "201 Created", [("A", "b")]),
            (b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n", "404 Not Found", [("A", "b")]),
            (b"HTTP/1.0 200\n\n", "200", []),
            (b"HTTP/2 200 \nA: b\n\n", "200", [("A", "b")]),
            (b"HTTP/1.1 200 OK\nStatus: 200 Fine\nA: b\n\n", "200 OK", [("A", "b")]),
            (b"Content-Type: text/plain\n\n", "200 OK", [("Content-Type", "text/plain")]),
            (b"Location: /x\r\n\r\n", "302 Found", [("Location", "/x")]),
            (b"A: b\nlocation: /x\n\n", "302 Found", [("A", "b"), ("location", "/x")]),
            (b"Status: 201 Created\nLocation: /x\n\n", "201 Created", [("Location", "/x")]),
            (b"A:\t b c \t\r\nA: d:e\r\n\r\n", "200 OK", [("A", "b c"), ("A", "d:e")]),
            (b"A:\n\n", "200 OK", [("A", "")]),
            (b"Status:\n\n", "200 OK", []),
            (b"Status: \t\nA: b\n\n", "200 OK", [("A", "b")]),
            (b"Status:\nStatus: 404\nstatus:\n\n", "404", []),
            (b"Location:\nA: b\n\n", "200 OK", [("A", "b")]),
            (b"Location: \r\nLocation: /x\r\n\r\n", "302 Found", [("Location", "/x")]),
            (b"Location:\n\n", "200 OK", []),
            (b"Content-Type:\nContent-Type: a/b\n\n", "200 OK", [("Content-Type", "a/b")]),
            (b"Content-Type: a/b\ncontent-type: a/b\n\n", "200 OK", [("Content-Type", "a/b")]),
            (b"A: caf\xe9\n\n", "200 OK", [("A", "caf\xe9")]),
        ],
    )
    @pytest.mark.parametrize("body", [b"", b"x", b"\r\n\r\nA: b\n\n\0"])
    def test_a_head_is_the_same_however_it_is_cut(
        self,
        head: bytes,
        status: str,
        headers: list[tuple[str, str]],
        body: bytes,
        chunks: Chunker,
    ) -> None:
        assert parse(head + body, chunks, request_id=7) == (Response(7, status, headers), body)

    def test_what_write_head_wrote_is_read_back(self, chunks: Chunker) -> None:
        headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X", "caf\xe9 \t x")]
        head = write_head("418 I'm a teapot", headers)
        assert parse(head, chunks) == (Response(0, "418 I'm a teapot", headers), b"")

    @pytest.mark.parametrize(
        ("head", "message"),
        [
            (b"Hello, world!\n", "begins with b'Hello, world!', which is no header"),
            (b"<html>\r\n", "begins with b'<html>'"),
            (b": b\n", "no header"),
            (b"A b: c\n", "no header"),
            (b"A : c\n", "no header"),
            (b"A: b\n c\n", "has the line b' c'"),
            (b"A: b\nhello\n", "has the line b'hello'"),
            (b"A: b\nHTTP/1.1 200 OK\n", "has the line b'HTTP/1.1 200 OK'"),
            (b"A: b\rC: d\n", "control character"),
            (b"A: b\0\n", "control character"),
            (b"A: b\r\r\n", "control character"),
            (b"A: \x1b[0m\n", "control character"),
            (b"Status: OK\n", "status is 'OK'"),
            (b"Status: 20\n", "status is '20'"),
            (b"Status: 2000\n", "status is '2000'"),
            (b"Status: 100 Continue\n", "no interim answers"),
            (b"HTTP/1.1 103 Early Hints\n", "no interim answers"),
            (b"HTTP/1.1\n", "status is ''"),
            (b"HTTP/x 200 OK\n", "no status line"),
            (b"HTTP/ 200 OK\n", "no status line"),
            (b"Status: 200 OK\nStatus: 404 Not Found\n", "two statuses, '200 OK' and '404"),
            (b"HTTP/1.1 200 OK\nStatus: 404\n", "two statuses"),
            (b"Location:\nHTTP/1.1 200 OK\n", "has the line b'HTTP/1.1 200 OK'"),
            (b"Location: /x\nA: b\nlocation: /y\n", "two different locations, '/x' and '/y'"),
            (b"Content-Type: a/b\nContent-Type: a/B\n", "two different Content-Types"),
            (b"\n", "head is missing"),
            (b"\r\nA: b\n\n", "head is missing"),
        ],
    )
    def test_what_is_no_head_is_refused(self, head: bytes, message: str, chunks: Chunker) -> None:
        with pytest.raises(RemoteProtocolError, match=message.replace("(", r"\(")) as caught:
            parse(head, chunks, request_id=3)
        assert (caught.value.status_hint, caught.value.request_id) == (502, 3)

    def test_errors_name_the_rule_and_the_protocol(self) -> None:
        with pytest.raises(RemoteProtocolError, match=r"\(FastCGI 6\.2\)") as caught:
            HeadParser(rule="FastCGI 6.2").receive(b"oops\n")
        assert caught.value.protocol == "FastCGI"
        with pytest.raises(RemoteProtocolError) as caught:
            HeadParser().receive(b"oops\n")
        assert caught.value.protocol == "CGI"

    def test_a_head_may_be_exactly_as_long_as_allowed(self, chunks: Chunker) -> None:
        head = b"A: " + b"x" * 90 + b"\r\n\r\n"
        response, body = parse(head + b"body" * 50, chunks, max_bytes=len(head))
        assert response.headers == [("A", "x" * 90)]
        assert body == b"body" * 50

    @pytest.mark.parametrize(
        "head", [b"A: " + b"x" * 200, b"A: b\n" * 40, b"A: b\n" * 19 + b"A:b\n\n"]
    )
    def test_a_longer_head_is_refused(self, head: bytes, chunks: Chunker) -> None:
        with pytest.raises(LimitExceeded, match="longer than 99 bytes") as caught:
            parse(head, chunks, max_bytes=99)
        assert caught.value.status_hint == 502

    def test_the_parser_is_spent_after_the_head(self) -> None:
        parser = HeadParser()
        assert parser.receive(b"A: b\n\nrest")[1] == b"rest"
        with pytest.raises(LocalProtocolError):
            parser.receive(b"more")

    def test_the_parser_is_spent_after_an_error(self) -> None:
        parser = HeadParser()
        with pytest.raises(RemoteProtocolError):
            parser.receive(b"oops\n")
        with pytest.raises(LocalProtocolError):
            parser.receive(b"A: b\n\n")

    @pytest.mark.parametrize(
        ("head", "given"),
        [
            (b"Location: /x\n\n", False),
            (b"Status:\nLocation: /x\n\n", False),
            (b"Status: 302 Found\nLocation: /x\n\n", True),
        ],
    )
    def test_a_local_redirect_is_told_from_a_client_redirect(
        self, head: bytes, given: bool
    ) -> None:
        parser = HeadParser()
        parser.receive(head)
        assert parser.status_given is given
