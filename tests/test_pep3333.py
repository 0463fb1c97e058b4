"""PEP 3333, rule by rule: what a server must do, and what it can see an application do wrong.

Each test's docstring gives the section and its rule in our words.  Requests come in
through `environ.build` and answers go out through `wsgi.run`, as they do for every protocol.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from gateways import environ as environs
from gateways import errors, wsgi
from gateways.events import EndOfResponse, Event, Request, RequestAborted, Response, ResponseBody
from gateways.response import write_head
from gateways.testing import expanded

TEXT = [("Content-Type", "text/plain")]
VARIABLES = {
    b"REQUEST_METHOD": b"POST",
    b"SCRIPT_NAME": b"/app",
    b"PATH_INFO": b"/caf\xc3\xa9",
    b"QUERY_STRING": b"a=b",
    b"CONTENT_TYPE": b"text/plain",
    b"CONTENT_LENGTH": b"11",
    b"SERVER_NAME": b"example.org",
    b"SERVER_PORT": b"80",
    b"SERVER_PROTOCOL": b"HTTP/1.1",
    b"HTTP_HOST": b"example.org",
    b"HTTP_X_NAME": b"value",
}
BODY = b"first\nsecon"


class Answer:
    """The events of one answer and the faults reported on the way."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.faults: list[Exception] = []
        self.environ: dict[str, Any] = {}

    def send(self, event: Event) -> None:
        self.events += expanded([event])

    def report(self, error: Exception) -> str:
        self.faults.append(error)
        return "ref"

    @property
    def head(self) -> Response:
        (head,) = [event for event in self.events if isinstance(event, Response)]
        return head

    @property
    def body(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, ResponseBody))

    @property
    def complete(self) -> bool:
        return isinstance(self.events[-1], EndOfResponse)

    @property
    def refused(self) -> bool:
        """A 500 page took the answer's place, and the fault was reported as the application's."""
        return (
            self.head.status.startswith("500 ")
            and self.complete
            and [type(fault) for fault in self.faults] == [errors.ApplicationError]
        )


def environ(**changes: str) -> dict[str, Any]:
    variables = {**VARIABLES, **{name.encode(): value.encode() for name, value in changes.items()}}
    base: dict[str, object] = {
        "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(BODY),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": wsgi.FileWrapper,
    }
    return environs.build(Request(1, list(variables.items())), base=base)[0]


def serve(application: Callable[..., Any], **changes: str) -> Answer:
    """Run `application` with the request above, its variables changed."""
    answer = Answer()
    answer.environ = environ(**changes)
    wsgi.run(application, answer.environ, answer.send, request_id=1, report=answer.report)
    return answer


def starting(*arguments: Any, result: Any = (b"body",)) -> Callable[..., Any]:
    """An application that calls start_response with `arguments` and returns `result`."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(*arguments)
        return result

    return application


class TestTheApplicationSide:
    def test_the_application_is_called_with_two_positional_arguments(self) -> None:
        """The Application/Framework Side: environ and start_response, by position, not by name."""
        received = []

        def application(*arguments: Any, **keywords: Any) -> list[bytes]:
            received.append((arguments, keywords))
            arguments[1]("200 OK", TEXT)
            return []

        answer = serve(application)
        ((arguments, keywords),) = received
        assert len(arguments) == 2
        assert arguments[0] is answer.environ
        assert keywords == {}

    def test_any_callable_will_do(self) -> None:
        """The Application/Framework Side: a function, a class or an object with __call__."""

        class ByClass:
            def __init__(self, environ: dict[str, Any], start_response: Any) -> None:
                self.start_response = start_response

            def __iter__(self) -> Iterator[bytes]:
                self.start_response("200 OK", TEXT)
                yield b"by class"

        class ByInstance:
            def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
                start_response("200 OK", TEXT)
                return [b"by instance"]

        assert serve(ByClass).body == b"by class"
        assert serve(ByInstance()).body == b"by instance"

    def test_the_application_may_be_called_again(self) -> None:
        """The Application/Framework Side: nothing of one request stays for the next."""
        application = starting("200 OK", TEXT)
        assert serve(application).events == serve(application).events


class TestSpecificationDetails:
    def test_each_chunk_is_sent_before_the_next_is_asked_for(self) -> None:
        """Specification Details, Buffering and Streaming: no chunk waits for the next one."""
        sent: list[Event] = []
        seen_at_next: list[int] = []

        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            for chunk in (b"one", b"two", b"three"):
                seen_at_next.append(len(sent))
                yield chunk
            seen_at_next.append(len(sent))

        wsgi.run(application, environ(), sent.append, request_id=1, report=lambda error: "ref")
        assert seen_at_next == [0, 2, 3, 4]

    def test_what_write_is_given_is_sent_before_it_returns(self) -> None:
        """The write() Callable: the bytes are on their way when it returns."""
        sent: list[Event] = []

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            write = start_response("200 OK", TEXT)
            write(b"one")
            assert sent[-1] == ResponseBody(1, b"one")
            write(b"two")
            assert sent[-1] == ResponseBody(1, b"two")
            return [b"three"]

        wsgi.run(application, environ(), sent.append, request_id=1, report=lambda error: "ref")
        assert sent == [
            Response(1, "200 OK", TEXT),
            ResponseBody(1, b"one"),
            ResponseBody(1, b"two"),
            ResponseBody(1, b"three"),
            EndOfResponse(1),
        ]

    def test_close_is_called_however_the_request_ends(self) -> None:
        """Specification Details: the iterable's close() is called, after an error or an abort too."""
        closed = []

        class Result:
            def __init__(self, last: Any) -> None:
                self.last = last

            def __iter__(self) -> Iterator[Any]:
                yield b"chunk"
                if isinstance(self.last, BaseException):
                    raise self.last
                yield self.last

            def close(self) -> None:
                closed.append(self.last)

        lasts = [b"last", ValueError("error"), errors.RequestAborted("abort"), "text"]
        for last in lasts:
            serve(starting("200 OK", TEXT, result=Result(last)))
        assert closed == lasts

    def test_a_chunk_that_is_not_bytes_is_an_error(self) -> None:
        """Specification Details, Unicode Issues: the iterable yields bytestrings."""
        for chunk in ("text", bytearray(b"x"), None, 5):
            assert serve(starting("200 OK", TEXT, result=[chunk])).refused
            assert serve(starting("200 OK", TEXT, result=iter([chunk]))).refused

    def test_what_write_is_given_must_be_bytes(self) -> None:
        """The write() Callable: its one argument is a bytestring."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", TEXT)("text")
            return []

        answer = serve(application)
        assert answer.refused
        line = application.__code__.co_firstlineno + 1
        assert f"str, not bytes; make it bytes with .encode() ({__file__}, line {line})" in str(
            answer.faults[0]
        )

    def test_a_return_value_that_is_no_iterable_of_bytes_is_an_error(self) -> None:
        """Specification Details: the application returns an iterable that yields bytestrings."""
        for result in (None, 5, "text", b"bytes"):
            assert serve(starting("200 OK", TEXT, result=result)).refused

    def test_the_chunks_are_not_altered(self) -> None:
        """Specification Details: no line end changed, nothing added or taken away."""
        everything = bytes(range(256)) * 3 + b"\r\n\n\r"
        assert serve(starting("200 OK", TEXT, result=[everything])).body == everything
        assert serve(starting("200 OK", TEXT, result=iter([everything]))).body == everything


class TestEnviron:
    def test_environ_is_a_builtin_dict_that_the_application_may_change(self) -> None:
        """Specification Details: exactly dict, no subclass and no other mapping."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            environ.clear()
            start_response("200 OK", TEXT)
            return [b"fine"]

        assert type(environ()) is dict
        assert serve(application).body == b"fine"

    def test_the_required_variables_are_there_and_not_empty(self) -> None:
        """environ Variables: REQUEST_METHOD, SERVER_NAME, SERVER_PORT, SERVER_PROTOCOL."""
        seen = environs.build(Request(1, []), base={})[0]
        for name in ("REQUEST_METHOD", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"):
            assert seen[name]
            assert type(seen[name]) is str

    def test_cgi_variables_are_native_strings_of_latin_1(self) -> None:
        """environ Variables, Unicode Issues: str, one character for each byte."""
        seen = environ()
        for name, value in seen.items():
            if "." not in name:
                assert type(value) is str
                value.encode("latin-1")
        assert seen["PATH_INFO"].encode("latin-1").decode("utf-8") == "/café"

    def test_the_wsgi_variables_are_there(self) -> None:
        """environ Variables: all eight of the table, the version being (1, 0)."""
        seen = environ()
        assert seen["wsgi.version"] == (1, 0)
        for name in ("input", "errors", "multithread", "multiprocess", "run_once", "url_scheme"):
            assert f"wsgi.{name}" in seen

    def test_the_url_can_be_put_together_again(self) -> None:
        """URL Reconstruction: scheme, host, SCRIPT_NAME, PATH_INFO and QUERY_STRING suffice."""
        from wsgiref.util import request_uri

        assert request_uri(environ(HTTPS="on")) == "https://example.org/app/caf%C3%A9?a=b"

    def test_the_input_stream_is_the_servers_own(self) -> None:
        """Input and Error Streams: read, readline, readlines, iteration, to the body's end."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", TEXT)
            stream = environ["wsgi.input"]
            return [stream.readline(), stream.read(3), *stream.readlines(), stream.read()]

        assert serve(application).body == BODY


class TestStartResponse:
    def test_it_takes_its_arguments_by_position_and_returns_write(self) -> None:
        """The start_response() Callable: two arguments, a third optional; write() comes back."""
        returned = []

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            returned.append(start_response("200 OK", TEXT, None))
            return []

        assert serve(application).complete
        assert callable(returned[0])

    def test_the_head_waits_for_the_first_chunk_that_is_not_empty(self) -> None:
        """The start_response() Callable: headers are stored until there is a body, or an end."""
        sent: list[Event] = []

        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            yield b""
            assert sent == []
            start_response("404 Not Found", TEXT, exc_info())
            yield b"body"
            assert sent[0] == Response(1, "404 Not Found", TEXT)

        wsgi.run(application, environ(), sent.append, request_id=1, report=lambda error: "ref")
        assert sent[1:] == [ResponseBody(1, b"body"), EndOfResponse(1)]

    def test_the_first_write_sends_the_head_even_when_it_writes_nothing(self) -> None:
        """The start_response() Callable: or until write() is first called."""
        sent: list[Event] = []

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", TEXT)(b"")
            assert sent == [Response(1, "200 OK", TEXT)]
            return []

        wsgi.run(application, environ(), sent.append, request_id=1, report=lambda error: "ref")
        assert sent[1:] == [EndOfResponse(1)]

    def test_a_generator_may_call_it_at_its_first_chunk(self) -> None:
        """Specification Details: start_response need not be called before the iterable's first item."""

        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            yield b"late"

        assert serve(application).body == b"late"

    @pytest.mark.parametrize("result", [[b"body"], iter([b"body"]), [], iter([])])
    def test_it_must_be_called_before_the_body(self, result: Any) -> None:
        """Specification Details: without it there is no answer to send."""
        assert serve(lambda environ, start_response: result).refused

    def test_a_second_call_needs_exc_info(self) -> None:
        """The start_response() Callable: calling it again without exc_info is a fatal error."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", TEXT)
            start_response("200 OK", TEXT)
            return []

        assert serve(application).refused

    def test_with_exc_info_the_stored_head_is_replaced(self) -> None:
        """The start_response() Callable: before the head is sent, the new one takes its place."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("X-Old", "1")])
            start_response("500 Oops", [("X-New", "1")], exc_info())
            return [b"sorry"]

        answer = serve(application)
        assert answer.head == Response(1, "500 Oops", [("X-New", "1"), ("Content-Length", "5")])
        assert answer.faults == []

    def test_exc_info_may_come_with_the_first_call(self) -> None:
        """The start_response() Callable: exc_info is allowed from the first call on."""
        assert serve(starting("500 Oops", TEXT, exc_info())).head.status == "500 Oops"

    @pytest.mark.parametrize("by_write", [False, True])
    def test_with_exc_info_after_the_head_the_error_is_raised(self, by_write: bool) -> None:
        """The start_response() Callable: once the head is out, exc_info's exception is re-raised."""
        caught: list[BaseException] = []

        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            write = start_response("200 OK", TEXT)
            if by_write:
                write(b"begun")
            else:
                yield b"begun"
            try:
                start_response("500 Oops", TEXT, exc_info("mine"))
            except ValueError as error:
                caught.append(error)
                raise

        answer = serve(application)
        assert [str(error) for error in caught] == ["mine"]
        assert answer.faults == caught
        assert answer.events == [
            Response(1, "200 OK", TEXT),
            ResponseBody(1, b"begun"),
            RequestAborted(1, answer.faults[0]),
        ]

    def test_the_status_is_a_str_of_three_digits_and_a_reason(self) -> None:
        """The start_response() Callable: as in "200 OK", without control characters."""
        for status in (b"200 OK", 200, "OK", "20 OK", " 200 OK", "200\nOK", "200 OK\r\n", "200 €"):
            assert serve(starting(status, TEXT)).refused
        assert serve(starting("999 Message here", TEXT)).head.status == "999 Message here"

    def test_the_headers_are_a_list_of_tuples_of_str(self) -> None:
        """The start_response() Callable: exactly a list, of (name, value), of exactly str."""

        class Text(str):
            pass

        for headers in (
            tuple(TEXT),
            dict(TEXT),
            None,
            [["A", "b"]],
            [("A", "b", "c")],
            [(b"A", "b")],
            [("A", b"b")],
            [("A", 5)],
            [("A", Text("b"))],
            [(Text("A"), "b")],
        ):
            assert serve(starting("200 OK", headers)).refused

    def test_header_names_and_values_hold_no_control_characters(self) -> None:
        """The start_response() Callable: neither CR nor LF nor any other, inside or at the end."""
        for control in (*range(9), *range(10, 32), 127):
            assert serve(starting("200 OK", [("X", f"a{chr(control)}b")])).refused
            assert serve(starting("200 OK", [("X", f"a{chr(control)}")])).refused
            assert serve(starting("200 OK", [(f"X{chr(control)}", "a")])).refused

    def test_strings_outside_latin_1_are_an_error(self) -> None:
        """Unicode Issues: no code point above U+00FF passes."""
        assert serve(starting("200 €", TEXT)).refused
        assert serve(starting("200 OK", [("X", "5 €")])).refused
        assert serve(starting("200 OK", [("X", "\xe9\xff")])).head.headers[0] == ("X", "\xe9\xff")

    def test_a_colon_does_not_belong_to_a_name(self) -> None:
        """The start_response() Callable: a name is an HTTP field name, without colon."""
        assert serve(starting("200 OK", [("X:", "a")])).refused

    def test_status_is_no_header(self) -> None:
        """The start_response() Callable: the status is the first argument, never a header."""
        assert serve(starting("200 OK", [("Status", "404 Not Found")])).refused

    def test_the_head_is_taken_as_it_is_at_the_call(self) -> None:
        """The start_response() Callable: what the list becomes later is the application's affair."""
        headers = [("A", "b")]

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", headers)
            headers.append(("X", "evil\r\nheader"))
            return [b"body"]

        assert serve(application).head.headers == [("A", "b"), ("Content-Length", "4")]
        assert headers == [("A", "b"), ("X", "evil\r\nheader")], "ours was not added to it"


class TestContentLength:
    def test_it_is_computed_where_the_whole_body_is_known(self) -> None:
        """Handling the Content-Length Header: a list of one may be measured; so may a longer one."""
        assert ("Content-Length", "4") in serve(starting("200 OK", TEXT)).head.headers
        answer = serve(starting("200 OK", TEXT, result=[b"ab", b"cde"]))
        assert ("Content-Length", "5") in answer.head.headers

    def test_no_more_than_the_declared_length_is_sent(self) -> None:
        """Handling the Content-Length Header: the server must not send more bytes than declared."""
        headers = [*TEXT, ("Content-Length", "4")]
        for result in ([b"too long"], iter([b"too ", b"long"]), iter([b"too", b" long"])):
            answer = serve(starting("200 OK", headers, result=result))
            assert answer.body == b"too "
            assert answer.complete
            assert len(answer.faults) == 1

    def test_write_raises_nothing_but_sends_no_more_either(self) -> None:
        """Handling the Content-Length Header: bytes given to write() count as well."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Length", "4")])(b"abc")
            return [b"def"]

        assert serve(application).body == b"abcd"

    def test_too_few_bytes_are_an_error_that_the_client_can_see(self) -> None:
        """Handling the Content-Length Header: end the connection and report, if it falls short."""
        answer = serve(starting("200 OK", [("Content-Length", "4")], result=iter([b"ab"])))
        assert isinstance(answer.events[-1], RequestAborted)
        assert len(answer.faults) == 1


class TestErrorHandling:
    def test_an_error_before_the_head_is_an_error_page_without_a_traceback(self) -> None:
        """Error Handling: log the traceback, show the visitor a plain error."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            raise ValueError("secret")

        answer = serve(application)
        assert answer.head.status == "500 Internal Server Error"
        assert ("Content-Type", "text/plain; charset=utf-8") in answer.head.headers
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        assert b"ref" in answer.body
        assert [str(fault) for fault in answer.faults] == ["secret"]

    def test_an_error_after_the_head_ends_the_answer_visibly(self) -> None:
        """Error Handling: what was begun is given up, never completed with something else."""

        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            yield b"begun"
            raise ValueError("secret")

        answer = serve(application)
        assert answer.body == b"begun"
        assert isinstance(answer.events[-1], RequestAborted)

    def test_the_application_can_catch_its_own_errors(self) -> None:
        """Error Handling: an error page of the application's own, through exc_info."""

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", TEXT)
            try:
                raise ValueError
            except ValueError:
                start_response("503 Busy", TEXT, sys.exc_info())
                return [b"later"]

        answer = serve(application)
        assert (answer.head.status, answer.body, answer.faults) == ("503 Busy", b"later", [])


class TestHTTP:
    @pytest.mark.parametrize(
        "name",
        [
            "Connection",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "TE",
            "Trailers",
            "Transfer-Encoding",
            "Upgrade",
        ],
    )
    def test_hop_by_hop_headers_are_a_fatal_error(self, name: str) -> None:
        """Other HTTP Features: an application may not speak for the connection."""
        assert serve(starting("200 OK", [(name, "x")])).refused
        assert serve(starting("200 OK", [(name.lower(), "x")])).refused

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "FOO"])
    def test_every_method_reaches_the_application(self, method: str) -> None:
        """Other HTTP Features: the application decides which methods it knows."""
        seen = []

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            seen.append(environ["REQUEST_METHOD"])
            start_response("200 OK", TEXT)
            return [b"body"]

        answer = serve(application, REQUEST_METHOD=method)
        assert seen == [method]
        assert answer.body == (b"" if method == "HEAD" else b"body")

    def test_the_answer_has_no_headers_but_those_of_the_application_and_the_length(self) -> None:
        """The start_response() Callable: a server may add what the protocol needs, no more."""
        assert serve(starting("200 OK", [])).head.headers == [("Content-Length", "4")]

    def test_file_wrapper_is_an_iterable_of_blocks_that_closes_the_file(self) -> None:
        """Optional Platform-Specific File Handling: same bytes as any iterable, then close()."""
        file = io.BytesIO(b"x" * 100_000)

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            start_response("200 OK", TEXT)
            return environ["wsgi.file_wrapper"](file, 32768)

        answer = serve(application)
        assert answer.body == b"x" * 100_000
        assert file.closed


def exc_info(text: str = "error") -> Any:
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["wsgi.input"].read(11)]


def generator(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    yield b"one"
    yield b"two"


def writer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"written ")
    return [b"returned"]


def replacer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    start_response("404 Not Found", TEXT, exc_info())
    return [b"replaced"]


def nothing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def reader(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    stream = environ["wsgi.input"]
    environ["wsgi.errors"].write("a line for the log\n")
    environ["wsgi.errors"].flush()
    return [stream.readline(), b"|", *stream]


@pytest.mark.parametrize(
    ("application", "status", "body"),
    [
        (echo, "200 OK", b"POST first\nsecon"),
        (generator, "200 OK", b"onetwo"),
        (writer, "200 OK", b"written returned"),
        (replacer, "404 Not Found", b"replaced"),
        (nothing, "204 No Content", b""),
        (reader, "200 OK", b"first\n|secon"),
    ],
)
def test_wsgirefs_validator_finds_no_fault(
    application: Callable[..., Iterable[bytes]], status: str, body: bytes
) -> None:
    """The standard library's checker stands between us and the application, and both sides pass."""
    answer = serve(validator(application))
    assert answer.faults == []
    assert (answer.head.status, answer.body, answer.complete) == (status, body, True)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PATCH", "PUT", "DELETE", "TRACE"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"SCRIPT_NAME": "/", "PATH_INFO": "/x"},
        {"SCRIPT_NAME": "", "PATH_INFO": ""},
        {"CONTENT_LENGTH": "", "CONTENT_TYPE": ""},
        {"HTTP_CONTENT_TYPE": "text/plain", "HTTP_CONTENT_LENGTH": "5", "HTTP_PROXY": "x"},
        {"SERVER_NAME": "", "SERVER_PORT": "", "SERVER_PROTOCOL": ""},
        {"HTTPS": "on"},
    ],
    ids=repr,
)
def test_wsgirefs_validator_accepts_every_environ(changes: dict[str, str], method: str) -> None:
    """Including what real servers send and the validator refuses from others."""
    answer = serve(validator(generator), REQUEST_METHOD=method, **changes)
    assert answer.faults == []


INJECTIONS = [
    'start_response("200 OK", [("X", "a\\r\\nSet-Cookie: b=c")])',
    'start_response("200 OK", [("X", "a\\nb")])',
    'start_response("200 OK", [("X", "a\\rb")])',
    'start_response("200 OK", [("X", "a\\0b")])',
    'start_response("200 OK", [("X\\r\\nY", "a")])',
    'start_response("200 OK\\r\\nX: y", [])',
    'start_response("200 OK", [("Content-Length", "1_0")])',
    'start_response("200 OK", [("Transfer-Encoding", "chunked")])',
    'start_response("200 OK", [("Status", "404 Not Found")])',
    "start_response(b'200 OK', [])",
]


def test_no_check_depends_on_assertions() -> None:
    """`python -O` takes assert statements away; the refusal of forged headers stays."""
    program = f"""if True:
        assert False, "assertions are on"
        import io
        from gateways import environ, wsgi
        from gateways.events import Request, Response

        for injection in {INJECTIONS!r}:
            def application(environ, start_response):
                eval(injection)
                return [b"x" * 10]

            events, faults = [], []
            seen, _ = environ.build(Request(1, []), base={{}})
            wsgi.run(application, seen, events.append, request_id=1,
                     report=lambda error: str(faults.append(error)))
            print(events[0].status, len(faults), len(events))
    """
    finished = subprocess.run(
        [sys.executable, "-O", "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    assert finished.stdout.splitlines() == ["500 Internal Server Error 1 3"] * len(INJECTIONS)


def test_the_last_line_of_defence_does_not_depend_on_them_either() -> None:
    """What makes the bytes refuses forged headers once more, for answers that are no application's."""
    program = """if True:
        assert False, "assertions are on"
        from gateways.errors import LocalProtocolError
        from gateways.response import write_head

        for status, name, value in [
            ("200 OK", "X", "a\\nb"), ("200 OK", "X", "a\\rb"), ("200 OK", "X", "a\\0b"),
            ("200 OK", "X\\r\\nY", "a"), ("200\\n OK", "X", "a"), ("200 OK", "X", "\\u20ac"),
        ]:
            try:
                write_head(status, [(name, value)])
            except LocalProtocolError:
                print("refused")
    """
    finished = subprocess.run(
        [sys.executable, "-O", "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    assert finished.stdout.splitlines() == ["refused"] * 6


def test_what_passes_the_check_can_be_written() -> None:
    """Whatever start_response takes, the server's end of every protocol can make bytes of."""
    headers = [("X", "".join(map(chr, [*range(32, 127), *range(128, 256)])))]
    answer = serve(starting("200 \xe9", headers))
    assert answer.faults == []
    assert write_head(answer.head.status, answer.head.headers).startswith(b"Status: 200 \xe9\r\n")
