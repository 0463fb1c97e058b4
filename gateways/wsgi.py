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
from gateways.events import EndOfResponse, RequestAborted, Response, ResponseBody
from gateways.response import check_head, plain_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from gateways.events import Event

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_NO_BODY = ("204", "304")
# As for the request's CONTENT_LENGTH: more digits than any file has bytes.
_MAX_LENGTH_DIGITS = 18


def run(
    application: Callable[..., Iterable[bytes]],
    environ: dict[str, Any],
    send: Callable[[Event], None],
    *,
    request_id: int,
    report: Callable[[Exception], str],
    debug: bool = False,
) -> None:
    """Answer one request: send Response, ResponseBody… and EndOfResponse, or RequestAborted.

    `report` is called with each fault of the application; it logs the fault and returns the
    reference that the visitor is shown.  With `debug` the 500 page holds the traceback.

    Whatever `send` raises is raised from here after the iterable's close() was called, and so is
    KeyboardInterrupt.  SystemExit, asyncio's CancelledError and the like out of the application
    are faults like any other: a request cannot stop the server.

    What the application kept of start_response and write() sends nothing once the answer has
    ended, since the request's id may be somebody else's by then; it raises ApplicationError.
    """
    answer = _Answer(send, request_id, head_only=environ.get("REQUEST_METHOD") == "HEAD")
    result: Any = None
    try:
        result = application(environ, answer.start_response)
        _send_result(answer, result, application)
        answer.finish(report)
    except BaseException as error:
        _give_up(answer, error, report, debug)
    finally:
        answer.over = True
        _close(answer, result, report)


class _Answer:
    """One answer under way: what start_response was told, and how much has been sent."""

    __slots__ = (
        "request_id",
        "head_sent",
        "no_body",
        "overrun",
        "send_failure",
        "over",
        "_called",
        "_send",
        "head_only",
        "_status",
        "_headers",
        "_declared",
        "_left",
    )

    def __init__(self, send: Callable[[Event], None], request_id: int, *, head_only: bool) -> None:
        self.request_id = request_id
        self.head_sent = False
        self.no_body = head_only
        self.overrun = False
        self.send_failure: BaseException | None = None
        self.over = False
        self._called = False
        self._send = send
        self.head_only = head_only
        self._status: str | None = None
        self._headers: list[tuple[str, str]] = []
        self._declared: int | None = None
        self._left: int | None = None

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
        elif self._called:
            raise ApplicationError("start_response was called a second time without exc_info")
        self._check_open()
        # A call that fails below counts as well.
        self._called = True
        check_head(status, headers)
        self._declared = self._left = _declared_length(headers)
        self._status = status
        # A copy: what the application does to its list from here on is its own affair.
        self._headers = headers[:]
        self.no_body = self.head_only or status[:3] in _NO_BODY
        return self.write

    def write(self, data: object) -> None:
        """PEP 3333 "The write() Callable": sent before it returns; the first call sends the head."""
        if not isinstance(data, bytes):
            caller = sys._getframe(1)
            where = f"{caller.f_code.co_filename}, line {caller.f_lineno}"
            raise ApplicationError(f"write() was given {_not_bytes(data)} ({where})")
        self._check_open()
        if not self.head_sent:
            self.send_head(None)
        self.send_body(data)

    def _check_open(self) -> None:
        if self.over:
            raise ApplicationError("start_response or write() was used after the answer had ended")

    def send_head(self, length: int | None) -> None:
        """Send what start_response stored; `length` is that of the body where it is known whole."""
        if self._status is None:
            refused = "although start_response refused its head"
            how = refused if self._called else "without calling start_response"
            raise ApplicationError(f"the application gave its answer {how}")
        headers = self._headers
        # RFC 9110 §8.6: none with 204, and with HEAD the one that GET would have.  An empty body says
        # nothing about that, since frameworks empty it for HEAD themselves.
        telling = self._status[:3] not in _NO_BODY and (length or not self.head_only)
        if length is not None and self._declared is None and telling:
            headers = [*headers, ("Content-Length", str(length))]
        self.head_sent = True
        self.transmit(Response(self.request_id, self._status, headers))

    def send_body(self, data: bytes) -> None:
        """Send body bytes, none beyond the declared Content-Length and none where there is no body."""
        if self.no_body:
            return
        if self._left is not None:
            if len(data) > self._left:
                self.overrun = True
                data = data[: self._left]
            self._left -= len(data)
        if data:
            self.transmit(ResponseBody(self.request_id, data))

    def check_complete(self, coming: int = 0) -> None:
        """Raise ApplicationError where the declared Content-Length exceeds what there is to send."""
        if self._left is not None and self._left > coming and not self.no_body:
            raise ApplicationError(
                f"the body is {self._left - coming} bytes shorter than its Content-Length,"
                f" {self._declared}"
            )

    def finish(self, report: Callable[[Exception], str]) -> None:
        """End an answer whose body the application has given in full."""
        self.check_complete()
        if not self.head_sent:
            self.send_head(0)
        self.transmit(EndOfResponse(self.request_id))
        if self.overrun:
            report(
                ApplicationError(
                    f"the body is longer than its Content-Length, {self._declared};"
                    " the rest was not sent"
                )
            )

    def transmit(self, event: Event) -> None:
        """Send, and remember a failure: the application may swallow or wrap it in write()."""
        if self.send_failure is not None:
            raise self.send_failure
        self._check_open()
        self.over = isinstance(event, (EndOfResponse, RequestAborted))
        try:
            self._send(event)
        except BaseException as error:
            self.send_failure = error
            raise


def _declared_length(headers: list[tuple[str, str]]) -> int | None:
    values = [value for name, value in headers if name.lower() == "content-length"]
    if not values:
        return None
    if len(values) > 1:
        raise ApplicationError(f"Content-Length is given {len(values)} times: {values!r}")
    text = values[0]
    if len(text) > _MAX_LENGTH_DIGITS or not (text.isascii() and text.isdigit()):
        raise ApplicationError(f"Content-Length is {text!r}; it is ASCII digits only")
    return int(text)


def _send_result(answer: _Answer, result: Any, application: object) -> None:
    if type(result) is list or type(result) is tuple:
        _send_whole(answer, result, application)
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


def _send_whole(
    answer: _Answer, chunks: list[bytes] | tuple[bytes, ...], application: object
) -> None:
    """Send a list or a tuple as one body, whose length is known."""
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            raise _wrong_chunk(chunk, chunks, application)
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    answer.check_complete(len(body))
    if not answer.head_sent:
        answer.send_head(len(body))
    answer.send_body(body)


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
    answer: _Answer, error: BaseException, report: Callable[[Exception], str], debug: bool
) -> None:
    """Answer after `error` came out of the application, or raise what is not the application's."""
    if answer.send_failure is not None:
        raise answer.send_failure
    if answer.over or isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, Exception):
        fault = error
    else:
        fault = ApplicationError(f"the application raised {error!r}")
        fault.__cause__ = error
    if _peer_is_gone(fault):
        answer.transmit(RequestAborted(answer.request_id, fault))
        return
    reference = report(fault)
    if answer.head_sent:
        answer.transmit(RequestAborted(answer.request_id, fault))
    else:
        _send_error_page(answer, reference, application_traceback(fault) if debug else "")


def _peer_is_gone(error: Exception) -> bool:
    # Django, for one, raises its own exception from the one that wsgi.input raised.
    return isinstance(error, errors.RequestAborted) or isinstance(
        error.__cause__, errors.RequestAborted
    )


def _send_error_page(answer: _Answer, reference: str, details: str) -> None:
    text = f"The application failed. Reference: {reference}"
    if details:
        text += f"\n\n{details}"
    for event in plain_answer(answer.request_id, 500, text, head_only=answer.head_only):
        answer.transmit(event)


def _close(answer: _Answer, result: Any, report: Callable[[Exception], str]) -> None:
    """Call the iterable's close() (PEP 3333 "Specification Details"); the answer is over by now."""
    close = getattr(result, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception as error:
        if error is not answer.send_failure and not _peer_is_gone(error):
            report(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        report(ApplicationError(f"the iterable's close() raised {error!r}"))


def application_traceback(error: BaseException) -> str:
    """Return the traceback of `error` without this package's frames around the application's own.

    Where every frame is this package's the whole traceback is returned, except for an
    ApplicationError, whose text says it all.
    """
    import traceback  # here: it costs the CGI path several milliseconds

    package = __file__.rpartition("/")[0] + "/"
    whole = traceback.TracebackException.from_exception(error)
    pending: list[traceback.TracebackException | None] = [whole]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        ours = [frame.filename.startswith(package) for frame in part.stack]
        if False in ours:
            first = ours.index(False)
            last = len(ours) - ours[::-1].index(False)
            part.stack[:] = part.stack[first:last]
        elif part is whole and isinstance(error, ApplicationError):
            part.stack.clear()
        pending += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return "".join(whole.format()).rstrip("\n")


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
