"""One request and its answer: from the events of a connection to the application and back."""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress

from gateways import environ as environs
from gateways import errors, events, wsgi
from gateways.events import EndOfResponse, RequestAborted, WholeAnswer
from gateways.response import plain_answer
from gateways.server.body import COMPLETE, Body
from gateways.server.input import Input
from gateways.server.log import log, log_exception, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gateways.server.connection import Connection

OVERLOADED = 2
"""FCGI_OVERLOADED (FastCGI 5.5); other protocols have no such number and leave it out."""


class Exchange:
    """A request as it arrives, and the run of the application that answers it.

    `whole` is the request's body where all of it came with the head, None where it is still to
    come; then `prepare` is called before anything else.
    """

    # What most requests never change stands here.
    body: Body = COMPLETE
    filter_data: Body | None = None
    started = False
    _counted = False
    _streams = False
    _over = False
    _errors: ErrorStream | None = None
    _file = -1
    _environ: dict[str, Any] | None = None
    _mark = 0.0
    _received_at_mark = 0

    def __init__(
        self, connection: Connection, request: events.Request, whole: bytes | None = None
    ) -> None:
        self.connection = connection
        self.request = request
        self._whole = whole

    @property
    def received(self) -> int:
        """Bytes that have come of the body, and of a filter's file."""
        data = self.filter_data
        return self.body.received + (data.received if data is not None else 0)

    def prepare(self, *, overloaded: bool = False) -> None:
        """Make the environ, and what takes in the body.

        Raises RemoteProtocolError for a request that is to be refused without its body being
        waited for; with `overloaded` that is every request.
        """
        worker = self.connection.worker
        options = worker.options
        request = self.request
        self._counted = True
        if worker.count_request() or overloaded:
            raise errors.LimitExceeded(
                "too many requests are open; try again in a moment", status_hint=503
            )
        length = self._build()
        if request.role == events.AUTHORIZER:
            return
        self.body = Body(worker.spool, options, length)
        if request.role == events.FILTER:
            self.filter_data = Body(worker.spool, options, None)
        else:
            self._streams = options.stream_requests
        self._mark = time.monotonic()

    def _build(self) -> int | None:
        worker = self.connection.worker
        self._environ, length = environs.build(
            self.request,
            worker.environ_base,
            worker.script_name,
            self.connection.local,
            worker.options.remote_user,
        )
        return length

    def on_event(self, event: events.Event, *, spill: bool) -> None:
        """Take in a RequestBody, FilterData or EndOfRequest."""
        if isinstance(event, events.RequestBody):
            self.body.feed(event.data, spill)
        elif isinstance(event, events.FilterData) and self.filter_data is not None:
            self.body.end()
            self.filter_data.feed(event.data, spill=True)
        elif isinstance(event, events.EndOfRequest):
            self.body.end()
            if self.filter_data is not None:
                self.filter_data.end()

    def is_ready(self) -> bool:
        """Whether enough has arrived for the application to start."""
        if self.filter_data is not None:
            return self.body.ended  # a filter writes nothing before that (FastCGI 6.4)
        most = self.connection.worker.options.max_spooled_body
        return self.body.ended or self._streams or self.body.received > most

    def is_too_slow(self, now: float) -> bool:
        """Whether less has come of an awaited body than min_rate asks for in a window that is over."""
        options = self.connection.worker.options
        if self.started or now - self._mark < options.rate_window:
            return False
        if self.received - self._received_at_mark < options.min_rate * options.rate_window:
            return True
        self.excuse(now)
        return False

    def excuse(self, now: float) -> None:
        """Begin the window of min_rate anew."""
        self._mark, self._received_at_mark = now, self.received

    def abort(self, error: Exception | None) -> None:
        """Wake whoever reads the body: the rest will never come."""
        cause = error or errors.RequestAborted("the web server aborted the request")
        self.body.abort(cause)
        if self.filter_data is not None:
            self.filter_data.abort(cause)

    def close(self) -> None:
        """Let go of everything; the request is over."""
        if self._counted:
            self._counted = False
            self.connection.worker.discount_request()
        if self.body is not COMPLETE:
            for each in (self.body, self.filter_data):
                if each is not None:
                    with suppress(OSError):  # what a full disk did not take is not missed any more
                        each.close()

    def run(self) -> None:
        """Run the application in this thread, and answer."""
        connection = self.connection
        worker = connection.worker
        request = self.request
        try:
            try:
                environ = self._environ
                if environ is None:
                    environ, length = environs.build(
                        request,
                        worker.environ_base,
                        worker.script_name,
                        connection.local,
                        worker.options.remote_user,
                    )
                    self._environ = environ
                    whole, self._whole = self._whole or b"", None
                    fits = len(whole) <= worker.options.body_memory
                    if fits and (length == len(whole) or (length is None and not whole)):
                        stream = io.BytesIO(whole)
                    else:
                        self._take_whole(whole, length)
                        del whole  # it may be in a file now
                        stream = self._start(environ)
                else:
                    stream = self._start(environ)
            except errors.RemoteProtocolError as error:
                refuse(connection, request, error)
            else:
                environ["wsgi.input"] = stream
                environ["wsgi.errors"] = self._errors = ErrorStream(self)
                wsgi.run(
                    worker.application,
                    environ,
                    self._send,
                    request.request_id,
                    self._report,
                    worker.options.debug,
                    self._file_range,
                )
        except errors.RequestAborted as error:
            log.debug("%s: %s", connection, error)  # visitors leave all the time
        except BaseException:  # a thread must outlive whatever an application raises
            connection.give_up()  # first of all: whatever becomes of the log
            log_exception("%s: the request ended in an error that nobody handled", connection)
        finally:
            self._over = True  # what stands unfinished in wsgi.errors goes to the log
            if self._errors is not None and self._errors.partial:
                self._errors.flush()
            if self._file >= 0 and not connection.keep_file(self._file):
                os.close(self._file)
            if self.body is not COMPLETE or self._counted:
                self.close()
            connection.done(self)
            # They refer to this object: without a circle it is freed at once, and nothing is left
            # for the garbage collector to look for.
            self._environ = self._errors = None

    def _take_whole(self, whole: bytes, length: int | None) -> None:
        """Check the body of a request that came whole; RemoteProtocolError as for any other."""
        worker = self.connection.worker
        self.body = body = Body(worker.spool, worker.options, length)
        if whole:
            body.feed(whole, spill=False)
        body.end()
        if isinstance(body.error, errors.RemoteProtocolError):
            raise body.error

    def _start(self, environ: dict[str, Any]) -> Any:
        """Complete the environ of a request with a body; return its input."""
        body = self.body
        stream: Any = body.start() if body is not COMPLETE else io.BytesIO()
        if stream is None:
            stream = Input(
                lambda: self._more(body),
                lambda seconds: self._arrives(body, seconds),
                self.connection.worker.spool,
            )
        if "CONTENT_LENGTH" not in environ and body.ended and body.received:
            environ["CONTENT_LENGTH"] = str(body.received)
        if self.filter_data is not None:
            filter_data = self.filter_data
            environ["fastcgi.data"] = Input(lambda: self._more(filter_data))
        return stream

    def _more(self, body: Body) -> bytes:
        while True:
            piece = body.take()
            if piece is not None:
                self.connection.made_room()
                return piece
            self.connection.wait_for(self.request.request_id, body)

    def _arrives(self, body: Body, seconds: float) -> bool:
        """Whether `_more` would return at once, after waiting for at most so long."""
        if not body.wait_on(-1):
            return True
        self.connection.wait_for(self.request.request_id, body, seconds)
        return not body.wait_on(-1)

    def _report(self, error: Exception) -> str:
        from gateways.tracebacks import application_traceback

        reference = os.urandom(4).hex()
        trace = application_traceback(error)
        log.error("error %s in %s: %s", reference, self, trace)
        if self.connection.worker.options.error_stream != "log" and not self._over:
            data = f"error {reference} in {self}: {trace}\n".encode("utf-8", "backslashreplace")
            with suppress(errors.RequestAborted, errors.LocalProtocolError):  # it is gone, or cut
                self.connection.send(events.ErrorOutput(self.request.request_id, data), False)
        self._record(error, reference)
        return reference

    def _record(self, error: Exception, reference: str) -> None:
        path = self.connection.worker.crash_log
        if not path:
            return
        from gateways.server import crashlog  # here: only a fault needs it

        try:
            crashlog.record(path, error, reference, self._environ or {})
        except Exception as failure:
            log.error("error %s is not in the crash log: %s", reference, failure)

    def _send(self, event: events.Event) -> None:
        kind = type(event)
        if kind is WholeAnswer or kind is EndOfResponse or kind is RequestAborted:
            if self._errors is not None and self._errors.partial:
                self._errors.flush()
            self._over = True
            self.connection.send(event, True)
        else:
            self.connection.send(event, getattr(event, "last", False))

    def _file_range(self, filelike: Any) -> tuple[int, int, int] | None:
        """Return a descriptor, offset and size for a regular file, None for anything else."""
        if self._file >= 0:
            return None
        # Others that have a descriptor, such as gzip's, give other bytes than the file's.
        file = getattr(filelike, "file", filelike)  # tempfile's wrapper
        if type(file) not in (io.FileIO, io.BufferedReader, io.BufferedRandom):
            return None
        try:
            descriptor = file.fileno()
            found = os.fstat(descriptor)
            offset = file.tell()
            # A file in /proc says that it is empty.
            if not stat.S_ISREG(found.st_mode) or found.st_size <= offset:
                return None
            # The application closes its own while this one may still be sent from.
            self._file = os.dup(descriptor)
        except Exception:  # it only looks like a file; it is read then, and tells its own mind
            return None
        return self._file, offset, max(0, found.st_size - offset)

    def emit(self, line: str) -> None:
        """Send a line of wsgi.errors to where error_stream says."""
        target = self.connection.worker.options.error_stream
        if target != "web-server" or self._over:  # after its end a request has no stream any more
            log.error("wsgi.errors: %s", printable(line))
        if target != "log" and not self._over:
            data = line.encode("utf-8", "backslashreplace") + b"\n"
            self.connection.send(events.ErrorOutput(self.request.request_id, data), False)

    def __str__(self) -> str:
        environ = self._environ or {}
        path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        return printable(f"{environ.get('REQUEST_METHOD', 'a request')} {path}"[:200])


class ErrorStream:
    """wsgi.errors: a text stream whose lines go to logs (PEP 3333, "Input and Error Streams")."""

    partial = ""  # what stands on an unfinished line

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def peer_descriptor(self) -> int:
        """The connection's descriptor, for an application that waits for something else.

        A poll that finds POLLHUP or POLLERR there tells that the web server has gone, and the
        visitor with it.  An end of file alone does not: some peers close their half early.
        """
        return self._exchange.connection.descriptor

    def write(self, text: str) -> int:
        """Write `text`; whole lines go out at once, the rest with the next line's end or a flush."""
        *lines, self.partial = (self.partial + text).split("\n")
        for line in lines:
            self._exchange.emit(line)
        if len(self.partial) > 65536:
            self.flush()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what stands on an unfinished line."""
        if self.partial:
            partial, self.partial = self.partial, ""
            self._exchange.emit(partial)


class Refusal:
    """The answer to a request that never reached the application because it broke a rule."""

    def __init__(
        self, connection: Connection, request: events.Request, error: errors.RemoteProtocolError
    ) -> None:
        self.connection = connection
        self.request = request
        self.error = error

    def run(self) -> None:
        """Say so to the log and, where the protocol still allows it, to the web server."""
        try:
            refuse(self.connection, self.request, self.error)
        except errors.RequestAborted:
            pass  # the peer who broke the rule did not wait for the answer
        finally:
            self.connection.done(self)


def refuse(
    connection: Connection, request: events.Request, error: errors.RemoteProtocolError
) -> None:
    """Answer with the status that the error hints at and a line of plain text; log the rule.

    A 503 says when to come again, and over FastCGI that it was for want of room (5.5).
    """
    log.warning("%s: refused: %s", connection, error)
    request_id = request.request_id
    head_only = (b"REQUEST_METHOD", b"HEAD") in request.variables
    for event in plain_answer(request_id, error.status_hint, str(error), head_only=head_only):
        if error.status_hint == 503:
            if isinstance(event, events.Response):
                event.headers.append(("Retry-After", "1"))
            elif isinstance(event, events.EndOfResponse):
                event.protocol_status = OVERLOADED
        try:
            connection.send(event, last=isinstance(event, events.EndOfResponse))
        except errors.LocalProtocolError:
            # The fault took the connection with it, and there is no request left to answer; or a
            # filter, which may not answer before its body has ended, is given up.
            with suppress(errors.LocalProtocolError):
                connection.send(events.RequestAborted(request_id, error), last=True)
            return
