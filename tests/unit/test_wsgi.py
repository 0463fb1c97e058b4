"""Running a WSGI application: what is sent, what is reported, and what is raised to the caller."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import pytest

from gateways import errors
from gateways.errors import ApplicationError
from gateways.events import (
    EndOfResponse,
    Event,
    RequestAborted,
    Response,
    ResponseBody,
    ResponseFile,
    WholeAnswer,
)
from gateways.response import write_head
from gateways.testing import expanded
from gateways.tracebacks import application_traceback
from gateways.wsgi import FILE_PIECE, FileWrapper, run

TEXT = [("Content-Type", "text/plain")]
ERROR_PAGE = b"500 Internal Server Error\n\nThe application failed. Reference: ref-1\n"
# What is no Exception, and none of the server's business either.
LEAVING = [
    SystemExit(3),
    GeneratorExit(),
    asyncio.CancelledError(),
    BaseExceptionGroup("x", [SystemExit()]),
]
App = Callable[[dict[str, Any], Any], Any]


class Seen:
    """What a run sent and reported; in `events` each WholeAnswer is the plain events it stands for."""

    def __init__(self) -> None:
        self.sent: list[Event] = []
        self.reports: list[Exception] = []

    def send(self, event: Event) -> None:
        if isinstance(event, (Response, WholeAnswer)) and event.head:
            assert event.head == write_head(event.status, event.headers)
        self.sent.append(event)

    @property
    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.sent]

    @property
    def events(self) -> list[Event]:
        return expanded(self.sent)

    def report(self, error: Exception) -> str:
        self.reports.append(error)
        return f"ref-{len(self.reports)}"

    def run(
        self,
        application: App,
        *,
        method: str = "GET",
        debug: bool = False,
        file_range: Callable[[Any], tuple[int, int, int] | None] | None = None,
    ) -> Seen:
        run(
            application,
            {"REQUEST_METHOD": method},
            self.send,
            request_id=5,
            report=self.report,
            debug=debug,
            file_range=file_range,
        )
        return self

    @property
    def head(self) -> Response:
        events = self.events
        (head,) = [event for event in events if isinstance(event, Response)]
        assert head is events[0]
        return head

    @property
    def chunks(self) -> list[bytes]:
        return [event.data for event in self.events if isinstance(event, ResponseBody)]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def length(self) -> str | None:
        return dict(self.head.headers).get("Content-Length")

    @property
    def complete(self) -> bool:
        return self.events[-1] == EndOfResponse(5)

    def fault(self, match: str = "") -> Exception:
        """The one fault that was reported."""
        (error,) = self.reports
        assert match in str(error)
        return error

    def is_error_page(self) -> bool:
        return (
            self.head.status == "500 Internal Server Error"
            and self.body == ERROR_PAGE
            and self.complete
        )


def answering(
    result: Any, status: str = "200 OK", headers: list[tuple[str, str]] | None = None
) -> App:
    """An application that returns `result`, or what it returns when it can be called."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, TEXT if headers is None else headers)
        return result() if callable(result) else result

    return application


def with_length(length: object, result: Any) -> App:
    return answering(result, headers=[*TEXT, ("Content-Length", str(length))])


class Closing:
    """An iterable that counts its close() calls."""

    def __init__(self, chunks: Iterable[Any], error: BaseException | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.chunks)

    def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


def failing(*chunks: bytes, error: BaseException | None = None) -> Generator[bytes, None, None]:
    yield from chunks
    raise error or ValueError("mid-way")


class TestAnswers:
    @pytest.mark.parametrize("kind", [list, tuple])
    def test_a_list_is_one_body_with_its_length(self, kind: type) -> None:
        seen = Seen().run(answering(kind([b"ab", b"", b"cd"])))
        assert seen.events == [
            Response(5, "200 OK", [*TEXT, ("Content-Length", "4")]),
            ResponseBody(5, b"abcd"),
            EndOfResponse(5),
        ]
        assert seen.reports == []

    def test_an_iterator_is_sent_chunk_by_chunk_without_a_length(self) -> None:
        seen = Seen().run(answering(iter([b"ab", b"", b"cd"])))
        assert seen.events == [
            Response(5, "200 OK", TEXT),
            ResponseBody(5, b"ab"),
            ResponseBody(5, b"cd"),
            EndOfResponse(5),
        ]

    @pytest.mark.parametrize("result", [[], (), [b""], iter([]), iter([b"", b""])])
    def test_an_empty_body_has_length_0_and_no_body_event(self, result: Any) -> None:
        seen = Seen().run(answering(result))
        assert seen.events == [
            Response(5, "200 OK", [*TEXT, ("Content-Length", "0")]),
            EndOfResponse(5),
        ]

    def test_a_declared_length_is_not_declared_again(self) -> None:
        seen = Seen().run(answering([b"abcd"], headers=[("content-length", "4")]))
        assert seen.head.headers == [("content-length", "4")]
        assert (seen.body, seen.complete, seen.reports) == (b"abcd", True, [])

    def test_a_length_may_have_18_digits(self) -> None:
        seen = Seen().run(with_length("9" * 18, []), method="HEAD")
        assert (seen.length, seen.reports) == ("9" * 18, [])

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "204"])
    @pytest.mark.parametrize("result", [list, lambda: [b"body"], lambda: iter([b"body"])])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_204_and_304_have_no_body_and_no_computed_length(
        self, status: str, result: Any, method: str
    ) -> None:
        seen = Seen().run(answering(result, status), method=method)
        assert seen.events == [Response(5, status, TEXT), EndOfResponse(5)]
        assert seen.reports == []

    def test_an_error_status_has_a_body_like_any_other(self) -> None:
        seen = Seen().run(answering([b"gone"], "404 Not Found"))
        assert (seen.head.status, seen.length, seen.body) == ("404 Not Found", "4", b"gone")

    def test_an_iterable_by_getitem_is_an_iterable(self) -> None:
        class Old:
            def __getitem__(self, index: int) -> bytes:
                return [b"ab", b"cd"][index]

        assert Seen().run(answering(Old())).body == b"abcd"

    def test_a_subclass_of_list_may_be_lazy_and_is_iterated(self) -> None:
        class Lazy(list[bytes]):
            def __iter__(self) -> Iterator[bytes]:
                return iter([b"ab", b"cd"])

        assert Seen().run(answering(Lazy())).chunks == [b"ab", b"cd"]


class TestWholeAnswers:
    PLAIN = [Response, ResponseBody, EndOfResponse]

    @pytest.mark.parametrize("kind", [list, tuple])
    @pytest.mark.parametrize("chunks", [[b"ab"], [b"ab", b"cd"], [], [b""], [b"x" * 100_000]])
    def test_a_list_or_a_tuple_is_one_event(self, kind: type, chunks: list[bytes]) -> None:
        seen = Seen().run(answering(kind(chunks)))
        assert seen.kinds == [WholeAnswer]
        assert (seen.body, seen.length) == (b"".join(chunks), str(len(b"".join(chunks))))

    def test_so_is_one_that_declares_its_length(self) -> None:
        seen = Seen().run(with_length(4, [b"ab", b"cd"]))
        assert seen.kinds == [WholeAnswer]
        assert (seen.length, seen.body) == ("4", b"abcd")

    def test_each_answer_has_its_own_length(self) -> None:
        lengths = [Seen().run(answering([b"x" * size])).length for size in (3, 3, 5, 0, 3)]
        assert lengths == ["3", "3", "5", "0", "3"]

    def test_a_subclass_of_bytes_is_bytes(self) -> None:
        class Markup(bytes):
            pass

        seen = Seen().run(answering([Markup(b"ab")]))
        assert (seen.kinds, seen.body) == ([WholeAnswer], b"ab")

    def test_what_follows_write_is_sent_behind_it(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", TEXT)(b"ab")
            return [b"cd"]

        seen = Seen().run(application)
        assert seen.kinds == [Response, ResponseBody, ResponseBody, EndOfResponse]

    @pytest.mark.parametrize("method", ["HEAD", "GET"])
    @pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
    @pytest.mark.parametrize("declared", [None, 2, 4, 6])
    def test_what_is_sent_does_not_depend_on_the_event(
        self, method: str, status: str, declared: int | None
    ) -> None:
        """A list may be one event or several; an iterator that is as long is several."""
        headers = [*TEXT] if declared is None else [*TEXT, ("Content-Length", str(declared))]
        whole = Seen().run(answering([b"abcd"], status, headers), method=method)
        pieces = Seen().run(answering(iter([b"abcd"]), status, headers), method=method)
        bodiless = method == "HEAD" or status[0:3] != "200"
        if declared == 6 and not bodiless:
            # The one is known to be short before its head is sent, the other is not.
            assert whole.is_error_page()
            assert isinstance(pieces.events[-1], RequestAborted)
        else:
            assert (whole.body, whole.complete) == (pieces.body, pieces.complete)
            assert [str(error) for error in whole.reports] == [
                str(error) for error in pieces.reports
            ]
            assert whole.head.status == pieces.head.status
            known = declared is None and status[:3] == "200"
            assert whole.head.headers == [
                *pieces.head.headers,
                *([("Content-Length", "4")] if known else []),
            ]

    def test_a_failing_send_is_raised_and_nothing_more_is_sent(self) -> None:
        kept: list[Any] = []

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            kept.append(start_response("200 OK", TEXT))
            return [b"body"]

        connection = Breaking(WholeAnswer, BrokenPipeError("gone"))
        with pytest.raises(BrokenPipeError) as caught:
            connection.run(application)
        assert caught.value is connection.error
        assert (connection.attempts, connection.sent, connection.reports) == (1, [], [])
        with pytest.raises(ApplicationError, match="after the answer had ended"):
            kept[0](b"late")

    def test_the_last_piece_of_a_declared_body_says_so(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [("Content-Length", "6")])(b"ab")
            yield b"cd"
            yield b"ef"
            yield b""

        seen = Seen().run(application)
        assert [event.last for event in seen.sent if isinstance(event, ResponseBody)] == [
            False,
            False,
            True,
        ]

    def test_nobody_knows_the_last_piece_of_a_body_without_a_length(self) -> None:
        seen = Seen().run(answering(iter([b"ab", b"cd"])))
        assert not any(event.last for event in seen.sent if isinstance(event, ResponseBody))


class TestHead:
    def test_the_body_is_dropped_and_the_length_of_a_list_told(self) -> None:
        seen = Seen().run(answering([b"abcd"]), method="HEAD")
        assert seen.events == [
            Response(5, "200 OK", [*TEXT, ("Content-Length", "4")]),
            EndOfResponse(5),
        ]

    @pytest.mark.parametrize("result", [[], iter([])])
    def test_an_empty_body_says_nothing_about_gets_length(self, result: Any) -> None:
        # Flask empties the body for HEAD itself.
        assert Seen().run(answering(result), method="HEAD").length is None

    @pytest.mark.parametrize("result", [[], [b"ab"], [b"abcdef"], iter([b"ab"])])
    def test_a_declared_length_stands_whatever_the_body(self, result: Any) -> None:
        seen = Seen().run(with_length(4, result), method="HEAD")
        assert (seen.length, seen.body, seen.complete) == ("4", b"", True)
        assert seen.reports == []

    def test_an_iterator_is_left_after_its_first_chunk_and_closed(self) -> None:
        taken = []

        def chunks() -> Iterator[bytes]:
            for chunk in (b"", b"ab", b"cd"):
                taken.append(chunk)
                yield chunk

        result = Closing(chunks())
        seen = Seen().run(answering(result), method="HEAD")
        assert taken == [b"", b"ab"]
        assert result.closed == 1
        assert seen.events == [Response(5, "200 OK", TEXT), EndOfResponse(5)]

    def test_an_error_page_has_no_body_either(self) -> None:
        seen = Seen().run(answering(None), method="HEAD")
        assert (seen.head.status, seen.body) == ("500 Internal Server Error", b"")
        assert seen.length == str(len(ERROR_PAGE))
        assert seen.complete

    def test_the_application_cannot_change_the_method_for_us(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            environ["REQUEST_METHOD"] = "GET"  # as middleware does
            start_response("200 OK", TEXT)
            return [b"body"]

        assert Seen().run(application, method="HEAD").body == b""


class TestContentLength:
    @pytest.mark.parametrize(
        "result", [[b"abcdef"], (b"abc", b"def"), iter([b"abc", b"def"]), iter([b"abcd", b"ef"])]
    )
    def test_a_longer_body_is_cut_and_reported(self, result: Any) -> None:
        seen = Seen().run(with_length(4, result))
        assert (seen.head.status, seen.body, seen.complete) == ("200 OK", b"abcd", True)
        seen.fault("longer than its Content-Length, 4")

    def test_an_endless_body_ends_at_its_length(self) -> None:
        result = Closing(iter(lambda: b"x", b""))
        seen = Seen().run(with_length(4, result))
        assert (seen.body, seen.complete, result.closed) == (b"xxxx", True, 1)

    def test_what_write_gives_beyond_the_length_is_cut_and_reported_once(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            write = start_response("200 OK", [*TEXT, ("Content-Length", "4")])
            for _ in range(3):
                write(b"abc")
            return []

        seen = Seen().run(application)
        assert (seen.body, seen.complete) == (b"abca", True)
        seen.fault("longer")

    @pytest.mark.parametrize("result", [[b"ab"], [], iter([]), iter([b""])])
    def test_a_shorter_body_known_in_time_is_a_500(self, result: Any) -> None:
        seen = Seen().run(with_length(4, result))
        assert seen.is_error_page()
        seen.fault("bytes shorter than its Content-Length, 4")

    def test_a_shorter_body_is_given_up_where_the_peer_sees_it(self) -> None:
        seen = Seen().run(with_length(4, iter([b"ab"])))
        error = seen.fault("2 bytes shorter than its Content-Length, 4")
        assert seen.events[1:] == [ResponseBody(5, b"ab"), RequestAborted(5, error)]

    @pytest.mark.parametrize(
        "length", ["", " 4", "4 ", "+4", "-4", "4_0", "٣", "4.0", "four", "4, 4", "9" * 19]
    )
    def test_what_is_no_length_is_a_500(self, length: str) -> None:
        seen = Seen().run(with_length(length, [b"abcd"]))
        assert seen.is_error_page()
        assert isinstance(seen.fault(), ApplicationError)

    @pytest.mark.parametrize("other", ["4", "5"])
    def test_two_lengths_are_a_500(self, other: str) -> None:
        headers = [("Content-Length", "4"), ("content-length", other)]
        seen = Seen().run(answering([b"abcd"], headers=headers))
        assert seen.is_error_page()
        seen.fault("given 2 times")

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
    def test_a_304_may_tell_the_length_it_would_have(self, status: str) -> None:
        seen = Seen().run(answering([], status, [("Content-Length", "99")]))
        assert seen.events == [Response(5, status, [("Content-Length", "99")]), EndOfResponse(5)]
        assert seen.reports == []

    def test_a_replaced_head_replaces_the_length(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Length", "99")])
            try:
                raise ValueError
            except ValueError:
                start_response("500 Oops", TEXT, sys.exc_info())
            return [b"abc"]

        seen = Seen().run(application)
        assert (seen.head.status, seen.length, seen.body) == ("500 Oops", "3", b"abc")


class TestFaultsBeforeTheHead:
    def test_an_exception_is_a_plain_500_with_a_reference(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Set-Cookie", "a=1")])
            raise ValueError("secret")

        seen = Seen().run(application)
        assert seen.events == [
            Response(
                5,
                "500 Internal Server Error",
                [
                    ("Content-Type", "text/plain; charset=utf-8"),
                    ("Content-Length", str(len(ERROR_PAGE))),
                ],
            ),
            ResponseBody(5, ERROR_PAGE),
            EndOfResponse(5),
        ]
        assert isinstance(seen.fault("secret"), ValueError)

    def test_the_traceback_is_on_the_page_only_with_debug(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            raise ValueError("geheim é \udc80")

        page = Seen().run(application, debug=True).body.decode()
        assert "Reference: ref-1" in page
        assert 'raise ValueError("geheim é' in page
        assert "ValueError: geheim é \\udc80" in page
        assert b"ValueError" not in Seen().run(application).body

    @pytest.mark.parametrize("error", LEAVING)
    def test_a_request_cannot_stop_the_server(self, error: BaseException) -> None:
        seen = Seen().run(lambda environ, start_response: failing_call(error))
        assert seen.is_error_page()
        fault = seen.fault(repr(error))
        assert isinstance(fault, ApplicationError)
        assert fault.__cause__ is error

    def test_an_oserror_of_the_applications_own_is_its_fault(self) -> None:
        seen = Seen().run(lambda environ, start_response: failing_call(FileNotFoundError("x")))
        assert seen.is_error_page()
        assert isinstance(seen.fault(), FileNotFoundError)

    @pytest.mark.parametrize("chunks", [[b"", 5], [b"ab", "cd"], ["", b"cd"], [None]])
    def test_every_chunk_of_a_list_is_checked_before_the_head(self, chunks: list[Any]) -> None:
        seen = Seen().run(answering(chunks))
        assert seen.is_error_page()
        seen.fault("not bytes")

    def test_a_generator_may_fail_before_its_first_chunk(self) -> None:
        seen = Seen().run(answering(failing(b"")))
        assert seen.is_error_page()

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            (None, "returned NoneType where an iterable of bytes belongs"),
            (5, "returned int"),
            ("text", "returned str where an iterable of bytes belongs; return a list, [text.enc"),
            (b"body", "returned bytes where an iterable of bytes belongs; return a list, [body]"),
        ],
    )
    def test_what_is_no_iterable_of_bytes_is_named(self, result: Any, message: str) -> None:
        seen = Seen().run(answering(result))
        assert seen.is_error_page()
        fault = seen.fault(message)
        # The line is where the application is defined; nothing nearer is known.
        assert f"(application in {__file__}, line " in str(fault)

    def test_an_async_application_is_told_so_and_leaves_no_warning(self) -> None:
        async def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            return []

        seen = Seen().run(application)
        assert seen.is_error_page()
        seen.fault("returned coroutine where an iterable of bytes belongs; an async function")

    @pytest.mark.parametrize(
        ("chunk", "message"),
        [
            ("text", "holds str, not bytes; make it bytes with .encode()"),
            (bytearray(b"x"), "holds bytearray, not bytes; make it bytes with bytes()"),
            (memoryview(b"x"), "holds memoryview, not bytes; make it bytes with bytes()"),
            (5, "holds int, not bytes"),
            (None, "holds NoneType, not bytes"),
        ],
    )
    def test_a_chunk_of_another_type_is_named_with_the_line_of_the_yield(
        self, chunk: Any, message: str
    ) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> Iterator[Any]:
            start_response("200 OK", TEXT)
            yield b""
            yield chunk

        line = application.__code__.co_firstlineno + 3
        seen = Seen().run(application)
        assert seen.is_error_page()
        seen.fault(f"{message} ({__file__}, line {line})")

    def test_the_line_of_a_class_is_that_of_its_call(self) -> None:
        class Application:
            def __call__(self, environ: dict[str, Any], start_response: Any) -> list[str]:
                start_response("200 OK", TEXT)
                return ["text"]

        Seen().run(Application()).fault(f"(__call__ in {__file__}, line ")

    def test_an_application_without_a_line_is_reported_all_the_same(self) -> None:
        seen = Seen().run(functools.partial(answering(["text"])))
        assert str(seen.fault("holds str")).endswith(".encode()")

    @pytest.mark.parametrize("result", [[], [b"x"], iter([]), iter([b"x"]), iter([b""])])
    def test_an_application_that_never_calls_start_response_is_told_so(self, result: Any) -> None:
        seen = Seen().run(lambda environ, start_response: result)
        assert seen.is_error_page()
        seen.fault("without calling start_response")

    def test_a_refused_start_response_may_be_mended_with_exc_info(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            try:
                start_response("200 OK", [("X", "a\nb")])
            except ApplicationError:
                start_response("200 OK", [("X", "ab")], sys.exc_info())
            return [b"fine"]

        seen = Seen().run(application)
        assert (seen.head.headers[0], seen.body, seen.reports) == (("X", "ab"), b"fine", [])

    def test_a_refused_start_response_leaves_no_head_for_a_body(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            with contextlib.suppress(ApplicationError):
                start_response("200 OK", [("X", "a\nb")])
            return [b"body"]

        seen = Seen().run(application)
        assert seen.is_error_page()
        seen.fault("although start_response refused its head")


def failing_call(error: BaseException) -> Any:
    raise error


class TestFaultsAfterTheHead:
    def test_an_exception_gives_the_answer_up(self) -> None:
        seen = Seen().run(answering(failing(b"ab")))
        error = seen.fault("mid-way")
        assert seen.events == [
            Response(5, "200 OK", TEXT),
            ResponseBody(5, b"ab"),
            RequestAborted(5, error),
        ]

    @pytest.mark.parametrize("error", LEAVING)
    def test_leaving_gives_the_answer_up(self, error: BaseException) -> None:
        seen = Seen().run(answering(failing(b"ab", error=error)))
        assert isinstance(seen.events[-1], RequestAborted)
        seen.fault(repr(error))

    def test_a_late_str_gives_the_answer_up(self) -> None:
        seen = Seen().run(answering(iter([b"ab", "cd"])))
        assert seen.events[-1] == RequestAborted(5, seen.fault("str, not bytes"))
        assert seen.body == b"ab"

    def test_an_error_page_is_not_appended_to_half_an_answer(self) -> None:
        assert Seen().run(answering(failing(b"ab")), debug=True).body == b"ab"


class TestThePeerIsGone:
    def aborted(self) -> errors.RequestAborted:
        return errors.RequestAborted("the web server went away")

    def test_the_abort_out_of_wsgi_input_is_nobodys_fault(self) -> None:
        error = self.aborted()
        seen = Seen().run(lambda environ, start_response: failing_call(error))
        assert seen.events == [RequestAborted(5, error)]
        assert seen.reports == []

    def test_nor_is_what_a_framework_raises_from_it(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            try:
                raise self.aborted()
            except OSError as error:
                raise ValueError("unreadable") from error

        seen = Seen().run(application)
        assert [type(event) for event in seen.events] == [RequestAborted]
        assert seen.reports == []

    def test_nor_is_it_in_close(self) -> None:
        seen = Seen().run(answering(Closing([b"ab"], self.aborted())))
        assert (seen.complete, seen.reports) == (True, [])

    def test_an_application_may_answer_all_the_same(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            try:
                raise self.aborted()
            except OSError:
                start_response("400 Bad Request", TEXT)
                return [b"where are you?"]

        assert Seen().run(application).head.status == "400 Bad Request"


class Breaking(Seen):
    """A connection that breaks when the given kind of event is sent."""

    def __init__(self, kind: type[Event], error: BaseException) -> None:
        super().__init__()
        self.kind = kind
        self.error = error
        self.attempts = 0

    def send(self, event: Event) -> None:
        if isinstance(event, self.kind):
            self.attempts += 1
            raise self.error
        super().send(event)


class TestSendFails:
    @pytest.mark.parametrize("kind", [Response, ResponseBody, EndOfResponse])
    @pytest.mark.parametrize(
        "error", [BrokenPipeError("gone"), errors.LocalProtocolError("no"), KeyboardInterrupt()]
    )
    def test_it_is_raised_after_close_and_is_not_the_applications_fault(
        self, kind: type[Event], error: BaseException
    ) -> None:
        result = Closing(iter([b"ab"]))
        connection = Breaking(kind, error)
        with pytest.raises(type(error)) as caught:
            connection.run(answering(result))
        assert caught.value is error
        assert result.closed == 1
        assert connection.reports == []
        assert connection.attempts == 1

    def swallow(self, write: Any) -> list[bytes]:
        with contextlib.suppress(OSError):
            write(b"ab")
        return [b"more"]

    def swallow_twice(self, write: Any) -> list[bytes]:
        self.swallow(write)
        return self.swallow(write)

    def wrap(self, write: Any) -> list[bytes]:
        try:
            write(b"ab")
        except OSError as error:
            raise ValueError("wrapped") from error
        return []

    def hide(self, write: Any) -> list[bytes]:
        self.swallow(write)
        raise ValueError("something else")

    def leave(self, write: Any) -> list[bytes]:
        self.swallow(write)
        raise SystemExit

    @pytest.mark.parametrize("manner", ["swallow", "swallow_twice", "wrap", "hide", "leave"])
    def test_whatever_the_application_makes_of_it_in_write(self, manner: str) -> None:
        error = BrokenPipeError("gone")
        connection = Breaking(ResponseBody, error)

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            return getattr(self, manner)(start_response("200 OK", TEXT))

        with pytest.raises(BrokenPipeError) as caught:
            connection.run(application)
        assert caught.value is error
        assert connection.reports == []
        assert connection.attempts == 1, "nothing is sent after the connection broke"

    def test_a_failing_error_page_is_raised_too(self) -> None:
        connection = Breaking(Response, BrokenPipeError("gone"))
        with pytest.raises(BrokenPipeError):
            connection.run(answering(None))
        assert len(connection.reports) == 1

    def test_a_failing_close_does_not_hide_it(self) -> None:
        connection = Breaking(ResponseBody, BrokenPipeError("gone"))
        with pytest.raises(BrokenPipeError):
            connection.run(answering(Closing([b"ab"], ValueError("close"))))
        connection.fault("close")


class TestClose:
    def test_it_is_called_once_after_the_answer_is_over(self) -> None:
        seen = Seen()
        order: list[object] = []

        class Result(Closing):
            def close(self) -> None:
                order.extend(seen.events)
                super().close()

        result = Result([b"ab"])
        seen.run(answering(result))
        assert result.closed == 1
        assert order == seen.events
        assert seen.complete

    @pytest.mark.parametrize("chunks", [[b"ab", "cd"], ["ab"], failing(), failing(b"ab")])
    def test_it_is_called_after_a_fault(self, chunks: Any) -> None:
        result = Closing(chunks)
        Seen().run(answering(result))
        assert result.closed == 1

    def test_it_is_called_where_start_response_was_not(self) -> None:
        result = Closing([])
        Seen().run(lambda environ, start_response: result)
        assert result.closed == 1

    def test_it_is_called_though_the_result_is_no_iterable(self) -> None:
        class Odd:
            closed = 0

            def close(self) -> None:
                Odd.closed += 1

        Seen().run(answering(Odd()))
        assert Odd.closed == 1

    def test_a_generators_finally_runs(self) -> None:
        ran = []

        def chunks() -> Iterator[bytes]:
            try:
                yield b"ab"
                yield b"cd"
            finally:
                ran.append(True)

        Seen().run(with_length(1, chunks()))
        assert ran == [True]

    @pytest.mark.parametrize("error", [ValueError("close"), OSError("close"), *LEAVING])
    def test_its_fault_is_reported_and_the_answer_stands(self, error: BaseException) -> None:
        seen = Seen().run(answering(Closing([b"ab"], error)))
        assert (seen.head.status, seen.body, seen.complete) == ("200 OK", b"ab", True)
        assert repr(error) in repr(seen.fault())

    def test_both_faults_are_reported(self) -> None:
        seen = Seen().run(answering(Closing(failing(b"ab"), ValueError("close"))))
        assert [str(error) for error in seen.reports] == ["mid-way", "close"]

    def test_keyboard_interrupt_passes_after_close(self) -> None:
        result = Closing(failing(b"ab", error=KeyboardInterrupt()))
        seen = Seen()
        with pytest.raises(KeyboardInterrupt):
            seen.run(answering(result))
        assert result.closed == 1
        assert seen.reports == []
        assert seen.body == b"ab"

    def test_keyboard_interrupt_in_close_passes(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            Seen().run(answering(Closing([], KeyboardInterrupt())))


class TestAfterTheEnd:
    """The id of a request that has ended may be another's: what was kept of it sends nothing."""

    def kept(self, result: Any, **options: Any) -> tuple[Seen, Any, Any]:
        """Run an application that keeps its start_response and write()."""
        kept: list[Any] = []

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            kept[:] = [start_response, start_response("200 OK", TEXT)]
            return result

        return Seen().run(application, **options), *kept

    @pytest.mark.parametrize(
        "result", [[b"ab"], [], iter([b"ab"]), failing(), failing(b"ab"), None]
    )
    @pytest.mark.parametrize("data", [b"", b"late"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_write_raises(self, result: Any, data: bytes, method: str) -> None:
        seen, _, write = self.kept(result, method=method)
        before = list(seen.events)
        for _ in range(2):
            with pytest.raises(ApplicationError, match="after the answer had ended"):
                write(data)
        assert seen.events == before

    @pytest.mark.parametrize("result", [[b"ab"], failing(b"ab"), None])
    def test_start_response_raises(self, result: Any) -> None:
        seen, start_response, _ = self.kept(result)
        before = list(seen.events)
        with pytest.raises(ApplicationError):
            start_response("200 OK", TEXT)
        mine = ValueError("mine")
        with pytest.raises((ApplicationError, ValueError)):
            start_response("500 Oops", TEXT, (ValueError, mine, None))
        assert seen.events == before

    def test_start_response_raises_though_it_was_never_called_before(self) -> None:
        kept: list[Any] = []

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            kept.append(start_response)
            raise ValueError

        seen = Seen().run(application)
        with pytest.raises(ApplicationError, match="after the answer had ended"):
            kept[0]("200 OK", TEXT)
        assert seen.is_error_page()

    def test_close_cannot_write_any_more(self) -> None:
        class Result(Closing):
            write: Any = None

            def close(self) -> None:
                self.write(b"late")

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            Result.write = start_response("200 OK", TEXT)
            return Result([b"ab"])

        seen = Seen().run(application)
        assert (seen.body, seen.complete) == (b"ab", True)
        seen.fault("after the answer had ended")

    def test_it_is_over_too_when_the_run_was_interrupted(self) -> None:
        seen = Seen()
        kept: list[Any] = []

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            kept.append(start_response("200 OK", TEXT))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            seen.run(application)
        with pytest.raises(ApplicationError, match="after the answer had ended"):
            kept[0](b"late")
        assert seen.events == []


class TestApplicationTraceback:
    def reported(self, application: App) -> str:
        (error,) = Seen().run(application).reports
        return application_traceback(error)

    def test_it_begins_with_the_applications_first_frame(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            return inner()

        def inner() -> Any:
            raise ValueError("here")

        text = self.reported(application)
        assert "gateways/wsgi.py" not in text
        lines = [line.strip() for line in text.splitlines()]
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[1].startswith(f'File "{__file__}"')
        assert lines[1].endswith("in application")
        assert lines[-1] == "ValueError: here"

    def test_it_ends_with_the_applications_last_frame(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            start_response("200 OK", [("X", "a\nb")])

        text = self.reported(application)
        assert "gateways/wsgi.py" not in text
        assert "gateways/response.py" not in text
        assert 'start_response("200 OK", [("X", "a\\nb")])' in text
        assert text.splitlines()[-1].startswith("gateways.errors.ApplicationError: the header 'X'")

    def test_our_own_verdict_needs_no_frames(self) -> None:
        text = self.reported(answering(None))
        assert text.startswith("gateways.errors.ApplicationError: the application returned")

    def test_the_causes_are_told_too(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            try:
                start_response("200 OK", [("X", 5)])
            except ApplicationError as error:
                raise LookupError("outer") from error

        text = self.reported(application)
        assert "ApplicationError: the header 'X' has int, not str" in text
        assert "LookupError: outer" in text
        assert "gateways/wsgi.py" not in text

    def test_groups_of_exceptions_are_told_too(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            try:
                start_response("200 OK", [("X", 5)])
            except ApplicationError as error:
                raise ExceptionGroup("several", [error, ValueError("second")]) from None

        text = self.reported(application)
        assert "ValueError: second" in text
        assert "gateways/wsgi.py" not in text

    def test_a_fault_of_this_package_is_told_whole(self) -> None:
        # The file's read fails inside FileWrapper: with no frame of the application's left, ours
        # are all there is.
        broken = FileWrapper(None)
        text = self.reported(answering(broken))
        assert "self.filelike.read" in text


class TestFileWrapper:
    def test_it_yields_blocks_and_closes_the_file(self) -> None:
        file = io.BytesIO(b"abcdefg")
        seen = Seen().run(answering(FileWrapper(file, 3)))
        assert seen.chunks == [b"abc", b"def", b"g"]
        assert file.closed

    def test_its_file_and_block_size_can_be_seen(self) -> None:
        file = io.BytesIO()
        wrapper = FileWrapper(file, 3)
        assert (wrapper.filelike, wrapper.blksize) == (file, 3)
        assert FileWrapper(file).blksize == 65536

    def test_what_has_no_close_is_not_closed(self) -> None:
        class Reader:
            def __init__(self) -> None:
                self.left = [b"ab", b""]

            def read(self, size: int) -> bytes:
                return self.left.pop(0)

        seen = Seen().run(answering(FileWrapper(Reader())))
        assert (seen.body, seen.reports) == (b"ab", [])

    @pytest.mark.parametrize("length", [0, 1, 5])
    def test_a_file_may_be_longer_than_declared(self, length: int) -> None:
        """PEP 3333: "until Content-Length bytes have been written"."""
        seen = Seen().run(with_length(length, FileWrapper(io.BytesIO(b"abcdefg"), 3)))
        assert (seen.body, seen.complete) == (b"abcdefg"[:length], True)
        assert seen.reports == []

    def test_another_iterable_may_not(self) -> None:
        class Other(FileWrapper):
            pass

        seen = Seen().run(with_length(2, Other(io.BytesIO(b"abcdefg"), 3)))
        seen.fault("longer than its Content-Length")


class TestFileRange:
    """The edge may know a better way to send a file than to read it."""

    @staticmethod
    def asked(size: int, seen: Seen, result: Any, **options: Any) -> Seen:
        def file_range(filelike: Any) -> tuple[int, int, int] | None:
            assert filelike == "the file"
            return 7, 100, size

        headers = options.pop("headers", TEXT)
        status = options.pop("status", "200 OK")
        return seen.run(answering(result, status, headers), file_range=file_range, **options)

    def test_a_file_is_sent_as_a_range_of_it(self) -> None:
        seen = self.asked(20, Seen(), FileWrapper("the file"))
        assert seen.sent == [
            Response(5, "200 OK", [*TEXT, ("Content-Length", "20")]),
            ResponseFile(5, 7, 100, 20, True),
            EndOfResponse(5),
        ]
        assert seen.reports == []

    def test_a_large_file_is_sent_in_pieces(self) -> None:
        seen = self.asked(2 * FILE_PIECE + 1, Seen(), FileWrapper("the file"))
        assert seen.sent[1:-1] == [
            ResponseFile(5, 7, 100, FILE_PIECE),
            ResponseFile(5, 7, 100 + FILE_PIECE, FILE_PIECE),
            ResponseFile(5, 7, 100 + 2 * FILE_PIECE, 1, True),
        ]

    @pytest.mark.parametrize("declared", [1, 19, 20])
    def test_no_more_than_the_declared_length_is_sent(self, declared: int) -> None:
        headers = [("Content-Length", str(declared))]
        seen = self.asked(20, Seen(), FileWrapper("the file"), headers=headers)
        assert seen.sent == [
            Response(5, "200 OK", headers),
            ResponseFile(5, 7, 100, declared, True),
            EndOfResponse(5),
        ]
        assert seen.reports == []

    def test_a_file_that_is_too_short_is_a_500(self) -> None:
        headers = [("Content-Length", "21")]
        seen = self.asked(20, Seen(), FileWrapper("the file"), headers=headers)
        assert seen.is_error_page()
        seen.fault("1 bytes shorter than its Content-Length, 21")

    @pytest.mark.parametrize("declared", [None, 0])
    def test_an_empty_file_is_an_empty_body(self, declared: int | None) -> None:
        headers = TEXT if declared is None else [("Content-Length", "0")]
        seen = self.asked(0, Seen(), FileWrapper("the file"), headers=headers)
        assert seen.kinds == [Response, EndOfResponse]
        assert seen.length == "0"

    def test_for_HEAD_only_its_length_is_told(self) -> None:
        seen = self.asked(20, Seen(), FileWrapper("the file"), method="HEAD")
        assert (seen.kinds, seen.length) == ([Response, EndOfResponse], "20")

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
    def test_some_statuses_have_no_body(self, status: str) -> None:
        seen = self.asked(20, Seen(), FileWrapper("the file"), status=status)
        assert seen.sent == [Response(5, status, TEXT), EndOfResponse(5)]

    def test_what_was_written_before_comes_first(self) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> FileWrapper:
            start_response("200 OK", [("Content-Length", "5")])(b"ab")
            return FileWrapper("the file")

        seen = Seen().run(application, file_range=lambda filelike: (7, 0, 20))
        assert seen.sent[1:3] == [ResponseBody(5, b"ab"), ResponseFile(5, 7, 0, 3, True)]
        assert seen.complete

    def test_without_a_range_the_file_is_read(self) -> None:
        result = FileWrapper(io.BytesIO(b"abc"))
        seen = Seen().run(answering(result), file_range=lambda filelike: None)
        assert (seen.body, seen.complete) == (b"abc", True)

    @pytest.mark.parametrize("result", [[b"ab"], iter([b"ab"]), Closing([b"ab"])])
    def test_only_file_wrappers_are_asked_about(self, result: Any) -> None:
        def file_range(filelike: Any) -> tuple[int, int, int] | None:
            raise AssertionError("not about this")

        assert Seen().run(answering(result), file_range=file_range).body == b"ab"

    def test_an_answer_that_was_not_started_is_a_500(self) -> None:
        result = FileWrapper("the file")
        seen = Seen().run(lambda environ, start_response: result, file_range=lambda _: (7, 0, 9))
        assert seen.is_error_page()
        seen.fault("without calling start_response")

    def test_the_file_is_closed_after_the_end(self) -> None:
        file = io.BytesIO(b"abc")
        open_at_the_end = []

        class Watching(Seen):
            def send(self, event: Event) -> None:
                open_at_the_end.append(not file.closed)
                super().send(event)

        Watching().run(answering(FileWrapper(file)), file_range=lambda _: (7, 0, 3))
        assert open_at_the_end == [True, True, True]
        assert file.closed


def test_the_cgi_path_loads_no_module_that_a_bare_interpreter_has_not() -> None:
    code = """if True:
        import sys
        before = set(sys.modules)
        import gateways.environ, gateways.response, gateways.wsgi
        added = {name for name in set(sys.modules) - before if not name.startswith("gateways")}
        import json
        print(json.dumps(sorted(added)))
    """
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    assert json.loads(loaded.stdout) == ["__future__"]
