"""Calls a WSGI application and turns what it does into response events (PEP 3333).

`run` is the whole of it: start_response, write(), the iterable, close(), and what becomes of each
fault.  Before the head is sent a fault is a plain 500; afterwards the answer is given up so that
the web server can see that it is incomplete, never ended as if it were whole.

Three parties can fail and are kept apart.  The application's faults are reported.  A failing
`send` means that the peer is gone; its exception goes to the caller whatever the application
makes of it.  RequestAborted out of wsgi.input means the same and is nobody's fault.

The CGI path imports this module, so it imports nothing that costs time.
"""

from __future__ import annotations

import sys

from gateways import errors
from gateways.errors import ApplicationError
from gateways.events import (
    EndOfResponse,
    RequestAborted,
    Response,
    ResponseBody,
    ResponseFile,
    WholeAnswer,
)
from gateways.response import CheckedHead, checked_head, own_answer, plain_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from gateways.events import Event

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

FILE_PIECE = 16 * 65528
"""Bytes of a file in one ResponseFile, a whole number of FastCGI records: it bounds what an edge holds."""


def run(
    application: Callable[..., Iterable[bytes]],
    environ: dict[str, Any],
    send: Callable[[Event], None],
    request_id: int,
    report: Callable[[Exception], str],
    debug: bool = False,
    file_range: Callable[[Any], tuple[int, int, int] | None] | None = None,
) -> None:
    """Answer one request: send Response, ResponseBody… and EndOfResponse, or RequestAborted.

    Where the application returns a list or a tuple, and wrote nothing before, the three are one
    WholeAnswer.  `report` is called with each fault of the application; it logs the fault and
    returns the reference that the visitor is shown.  With `debug` the 500 page is that of `debugpage`.
    `file_range` is asked about the file of a FileWrapper: where it returns a descriptor, an offset
    and the number of bytes from there on, they are sent as ResponseFile instead of being read.

    Whatever `send` raises is raised from here after the iterable's close() was called, and so is
    KeyboardInterrupt.  SystemExit, asyncio's CancelledError and the like out of the application
    are faults like any other: a request cannot stop the server.

    What the application kept of start_response and write() sends nothing once the answer has
    ended, since the request's id may be somebody else's by then; it raises ApplicationError.
    """
    answer = _Answer(send, request_id, environ.get("REQUEST_METHOD") == "HEAD")
    result: Any = None
    try:
        result = application(environ, answer.start_response)
        kind = type(result)
        if kind is list or kind is tuple:
            if len(result) == 1 and type(result[0]) is bytes:
                body = result[0]
            else:
                body = _joined(result, application)
            whole = None
            head = answer.head
            if head is None or head.bodiless or answer.head_only or answer.head_sent:
                pass
            elif head.declared is None:
                data = head.with_length(len(body))
                whole = WholeAnswer(request_id, head.status, head.headers, body, data, True)
            elif head.declared == len(body):
                data = head.lines + b"\r\n"
                whole = WholeAnswer(request_id, head.status, head.headers, body, data)
            if whole is not None:
                answer.head_sent = answer.over = True
                send(whole)
            else:
                # Something about the head or the length wants a closer look.
                answer.send_known(body)
                answer.finish(report)
        else:
            _send_result(answer, result, application, file_range)
            answer.finish(report)
    except BaseException as error:
        _give_up(answer, error, report, environ if debug else None)
    finally:
        answer.over = True
        if type(result) is not list:
            _close(answer, result, report)


class _Answer:
    """One answer under way: what start_response was told, and how much has been sent."""

    __slots__ = (
        "request_id",
        "head_only",
        "head",
        "head_sent",
        "no_body",
        "left",
        "overrun",
        "over",
        "send_failure",
        "send",
        "called",
    )

    # Known when the head is sent: whether a body may follow, and the bytes of it that the declared
    # Content-Length leaves.
    no_body: bool
    left: int | None

    def __init__(self, send: Callable[[Event], None], request_id: int, head_only: bool) -> None:
        self.request_id = request_id
        self.head_only = head_only
        self.head: CheckedHead | None = None
        self.head_sent = False
        self.overrun = False
        self.over = False
        self.send_failure: BaseException | None = None
        self.send = send
        self.called = False

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """PEP 3333 "The start_response() Callable"; raises ApplicationError for what it forbids."""
        if exc_info:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                # The traceback holds this frame, and this frame would hold the traceback.
                exc_info = None
        elif self.called:
            raise ApplicationError("start_response was called a second time without exc_info")
        if self.over:
            raise _too_late()
        # A call that fails below counts as well.
        self.called = True
        self.head = checked_head(status, headers)
        return self.write

    def write(self, data: object) -> None:
        """PEP 3333 "The write() Callable": sent before it returns; the first call sends the head."""
        if not isinstance(data, bytes):
            caller = sys._getframe(1)
            where = f"{caller.f_code.co_filename}, line {caller.f_lineno}"
            raise ApplicationError(f"write() was given {_not_bytes(data)} ({where})")
        if self.over:
            raise _too_late()
        if not self.head_sent:
            self.send_head(None)
        self.send_body(data)

    def known_head(self) -> CheckedHead:
        """Return what start_response stored; ApplicationError where that is nothing."""
        if self.head is None:
            refused = "although start_response refused its head"
            how = refused if self.called else "without calling start_response"
            raise ApplicationError(f"the application gave its answer {how}")
        return self.head

    def check_length(self, left: int | None, coming: int) -> None:
        """Raise ApplicationError where the declared length leaves more than there is to come."""
        if left is not None and left > coming:
            raise ApplicationError(
                f"the body is {left - coming} bytes shorter than its Content-Length,"
                f" {self.known_head().declared}"
            )

    def send_head(self, length: int | None) -> None:
        """Send what start_response stored; `length` is that of the body where it is known whole.

        Raises ApplicationError, having sent nothing, where more is declared.
        """
        head = self.known_head()
        headers, data = head.headers, head.lines
        no_body = self.head_only or head.bodiless
        if length is not None and not no_body:
            self.check_length(head.declared, length)
        # RFC 9110 §8.6: none with 204, and with HEAD the one that GET would have.  An empty body says
        # nothing about that, since frameworks empty it for HEAD themselves.
        telling = not head.bodiless and (length or not self.head_only)
        if length is not None and head.declared is None and telling:
            headers = [*headers, ("Content-Length", str(length))]
            data = head.with_length(length)
        else:
            data = head.lines + b"\r\n"
        self.no_body = no_body
        self.left = head.declared
        self.head_sent = True
        self.transmit(Response(self.request_id, head.status, headers, data))

    def send_body(self, data: bytes) -> None:
        """Send body bytes, none beyond the declared Content-Length and none where there is no body."""
        if self.no_body:
            return
        if self.left is not None:
            if len(data) > self.left:
                self.overrun = True
                data = data[: self.left]
            self.left -= len(data)
        if data:
            self.transmit(ResponseBody(self.request_id, data, self.left == 0))

    def send_known(self, body: bytes) -> None:
        """Send the whole of what is left to send, with its length where the head can still tell it."""
        if not self.head_sent:
            self.send_head(len(body))
        self.send_body(body)

    def send_file(self, descriptor: int, offset: int, size: int) -> None:
        """Send the bytes of a file, up to the declared Content-Length."""
        if not self.head_sent:
            self.send_head(size)
        if self.no_body:
            return
        self.check_length(self.left, size)
        if self.left is not None:
            size = min(size, self.left)
            self.left -= size
        end = offset + size
        while offset < end:
            count = min(end - offset, FILE_PIECE)
            last = offset + count == end
            self.transmit(ResponseFile(self.request_id, descriptor, offset, count, last))
            offset += count

    def finish(self, report: Callable[[Exception], str]) -> None:
        """End an answer whose body the application has given in full."""
        if not self.head_sent:
            self.send_head(0)
        if not self.no_body:
            self.check_length(self.left, 0)
        self.transmit(EndOfResponse(self.request_id))
        if self.overrun:
            report(
                ApplicationError(
                    f"the body is longer than its Content-Length, {self.known_head().declared};"
                    " the rest was not sent"
                )
            )

    def transmit(self, event: Event) -> None:
        """Send, and remember a failure: the application may swallow or wrap it in write()."""
        if self.send_failure is not None:
            raise self.send_failure
        if self.over:
            raise _too_late()
        self.over = isinstance(event, (EndOfResponse, RequestAborted))
        try:
            self.send(event)
        except BaseException as error:
            self.send_failure = error
            raise


def _too_late() -> ApplicationError:
    return ApplicationError("start_response or write() was used after the answer had ended")


def _joined(chunks: list[bytes] | tuple[bytes, ...], application: object) -> bytes:
    """Return a list or a tuple of chunks as one body."""
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            raise _wrong_chunk(chunk, chunks, application)
    return b"".join(chunks)


def _send_result(
    answer: _Answer,
    result: Any,
    application: object,
    file_range: Callable[[Any], tuple[int, int, int] | None] | None,
) -> None:
    """Send what is no list, as it comes."""
    kind = type(result)
    if kind is FileWrapper and file_range is not None:
        found = file_range(result.filelike)
        if found is not None:
            answer.send_file(*found)
            return
    _check_iterable(result, application)
    for chunk in result:
        if not isinstance(chunk, bytes):
            raise _wrong_chunk(chunk, result, application)
        if chunk:
            # Sent before the next chunk is asked for (PEP 3333 "Buffering and Streaming").
            if not answer.head_sent:
                answer.send_head(None)
            answer.send_body(chunk)
            if answer.no_body or answer.overrun:
                break
    if kind is FileWrapper:
        # A file is sent "until Content-Length bytes have been written" (PEP 3333 "Optional
        # Platform-Specific File Handling"): to declare less than there is, is no fault.
        answer.overrun = False


def _check_iterable(result: Any, application: object) -> None:
    kind = type(result)
    iterable = hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")
    if iterable and kind is not str and kind is not bytes:
        return
    remedy = {
        "str": "; return a list, [text.encode()]",
        "bytes": "; return a list, [body]",
        "coroutine": "; an async function is no WSGI application",
    }.get(kind.__name__, "")
    raise ApplicationError(
        f"the application returned {kind.__name__} where an iterable of bytes belongs{remedy}"
        f"{_line_of(result, application)}"
    )


def _wrong_chunk(chunk: object, result: object, application: object) -> ApplicationError:
    return ApplicationError(
        f"the application's body holds {_not_bytes(chunk)}{_line_of(result, application)}"
    )


def _not_bytes(thing: object) -> str:
    remedy = {
        "str": "; make it bytes with .encode()",
        "bytearray": "; make it bytes with bytes()",
        "memoryview": "; make it bytes with bytes()",
    }.get(type(thing).__name__, "")
    return f"{type(thing).__name__}, not bytes{remedy}"


def _line_of(result: object, application: object) -> str:
    """Say where in the application a body came from: a generator's yield, else the function."""
    frame = getattr(result, "gi_frame", None)
    if frame is not None:
        return f" ({frame.f_code.co_filename}, line {frame.f_lineno})"
    call = getattr(type(application), "__call__", None)  # noqa: B004 - the method itself is wanted, not whether there is one
    code = getattr(application, "__code__", None) or getattr(call, "__code__", None)
    if code is None:
        return ""
    return f" ({code.co_name} in {code.co_filename}, line {code.co_firstlineno})"


def _give_up(
    answer: _Answer,
    error: BaseException,
    report: Callable[[Exception], str],
    debugged: dict[str, Any] | None,
) -> None:
    """Answer after `error` came out of the application, or raise what is not the application's.

    `debugged` is the environ where the page is to be that of `debugpage`.
    """
    if answer.send_failure is not None:
        raise answer.send_failure
    # Not isinstance, which asks the application's own class for its __class__.
    if answer.over or issubclass(type(error), KeyboardInterrupt):
        raise error
    if issubclass(type(error), Exception):
        fault: Exception = error  # type: ignore[assignment]  # its type was looked at
    else:
        fault = ApplicationError(f"the application raised {_repr(error)}")
        fault.__cause__ = error
    if _peer_is_gone(fault):
        answer.transmit(RequestAborted(answer.request_id, fault))
        return
    reference = report(fault)
    if answer.head_sent:
        answer.transmit(RequestAborted(answer.request_id, fault))
    elif debugged is None or not _send_debug_page(answer, fault, reference, report, debugged):
        text = f"The application failed. Reference: {reference}"
        for event in plain_answer(answer.request_id, 500, text, head_only=answer.head_only):
            answer.transmit(event)


def _repr(error: BaseException) -> str:
    try:
        return repr(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the application's classes may do what they like
        return type(error).__name__


def _peer_is_gone(error: Exception) -> bool:
    # Django, for one, raises its own exception from the one that wsgi.input raised.
    cause = BaseException.__dict__["__cause__"].__get__(error)
    return any(issubclass(type(each), errors.RequestAborted) for each in (error, cause))


def _send_debug_page(
    answer: _Answer,
    fault: Exception,
    reference: str,
    report: Callable[[Exception], str],
    environ: dict[str, Any],
) -> bool:
    """Send the page of `debugpage`; return false, having sent nothing, where it cannot be made."""
    try:
        from gateways import debugpage  # here: only a fault with --debug needs it

        media_type, headers, text = debugpage.render(fault, reference, environ)
        body = text.encode("utf-8", "backslashreplace")
    except Exception as error:  # it looks into the application's own objects
        report(error)
        return False
    headers = [("Content-Type", media_type), *headers]
    for event in own_answer(answer.request_id, 500, headers, body, head_only=answer.head_only):
        answer.transmit(event)
    return True


def _close(answer: _Answer, result: Any, report: Callable[[Exception], str]) -> None:
    """Call the iterable's close() (PEP 3333 "Specification Details"); the answer is over by now."""
    try:
        close = getattr(result, "close", None)
        if close is not None:
            close()
    except Exception as error:
        if error is not answer.send_failure and not _peer_is_gone(error):
            report(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        report(ApplicationError(f"the iterable's close() raised {_repr(error)}"))


class FileWrapper:
    """wsgi.file_wrapper: a file as an iterable of blocks (PEP 3333 "Optional Platform-Specific File Handling").

    `filelike` and `blksize` are what it was made with, for a server that can send the file faster.
    """

    def __init__(self, filelike: Any, blksize: int = 65536) -> None:
        self.filelike = filelike
        self.blksize = blksize

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """Close the file, where it can be closed."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()
