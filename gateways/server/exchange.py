"""One request and its answer: from the events of a connection to the application and back."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from gateways import environ as environs
from gateways import errors, events, wsgi
from gateways.response import plain_answer
from gateways.server.body import MAX_SPOOLED, Body
from gateways.server.input import Input
from gateways.server.log import log, printable

if TYPE_CHECKING:
    from gateways.server.connection import Connection

IN_MEMORY = 65536
"""Bytes of a body that is complete which are offered from memory."""


class Exchange:
    """A request as it arrives, and the run of the application that answers it."""

    def __init__(self, connection: Connection, request: events.Request) -> None:
        self.connection = connection
        self.request = request
        self.body = Body()
        self.filter_data = Body() if request.role == events.FILTER else None
        self.started = False
        self._spool: IO[bytes] | None = None
        self._over = False
        self._errors = self._error_stream()

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

    def abort(self, error: Exception | None) -> None:
        """Wake whoever reads the body: the rest will never come."""
        cause = error or errors.RequestAborted("the web server aborted the request")
        self.body.abort(cause)
        if self.filter_data is not None:
            self.filter_data.abort(cause)

    def run(self) -> None:
        """Run the application in this thread, and answer."""
        connection = self.connection
        try:
            try:
                environ = self._environ()
            except errors.RemoteProtocolError as error:
                head_only = (b"REQUEST_METHOD", b"HEAD") in self.request.variables
                refuse(connection, self.request.request_id, error, head_only=head_only)
            except errors.RequestAborted as error:
                # It came while a body of unknown length was being collected.
                connection.send(events.RequestAborted(self.request.request_id, error))
            except OSError as error:
                full = errors.LimitExceeded(f"the body cannot be stored: {error}", status_hint=503)
                refuse(connection, self.request.request_id, full)
            else:
                self._call(environ)
        except errors.RequestAborted as error:
            log.debug("%s: %s", connection, error)  # visitors leave all the time
        except BaseException:  # a thread must outlive whatever an application raises
            log.exception("%s: the request ended in an error that nobody handled", connection)
            connection.give_up()
        finally:
            self._errors.flush()
            self._close_inputs()
            connection.done(self)

    def _close_inputs(self) -> None:
        for each in (self.body, self.filter_data, self._spool):
            if each is not None:
                with suppress(OSError):  # what a full disk did not take is not missed any more
                    each.close()

    def _environ(self) -> dict[str, Any]:
        worker = self.connection.worker
        environ, length = environs.build(
            self.request,
            base=worker.environ_base,
            script_name=worker.script_name,
            local=self.connection.local,
            remote_user=worker.options.remote_user,
        )
        if self.request.role != events.AUTHORIZER:
            self.body.declare(length)
            if isinstance(self.body.error, errors.RemoteProtocolError):
                raise self.body.error
        environ["wsgi.errors"] = self._errors
        environ["wsgi.input"] = Input(lambda: self._more(self.body))
        if self.body.ended and self.body.received <= IN_MEMORY:
            self._offer_whole(environ)
        elif length is None and not worker.options.stream_requests:
            self._offer_spooled(environ)
        if "CONTENT_LENGTH" not in environ and self.body.ended and self.body.received:
            environ["CONTENT_LENGTH"] = str(self.body.received)
        if self.filter_data is not None:
            filter_data = self.filter_data
            environ["fastcgi.data"] = Input(lambda: self._more(filter_data))
        return environ

    def _offer_whole(self, environ: dict[str, Any]) -> None:
        """Offer a small body that is already here as a seekable stream; some frameworks want one."""
        whole = []
        while piece := self.body.take():
            whole.append(piece)
        environ["wsgi.input"] = io.BytesIO(b"".join(whole))

    def _offer_spooled(self, environ: dict[str, Any]) -> None:
        """Collect a body of unknown length, so that it gets a CONTENT_LENGTH.

        Most frameworks read no further than that.  Past MAX_SPOOLED the application has to read to
        the end of the stream, as wsgi.input_terminated tells.
        """
        self._spool = spool = tempfile.TemporaryFile(prefix="gateways-")  # noqa: SIM115 - closed when the exchange ends
        size = 0
        while size <= MAX_SPOOLED and (piece := self._more(self.body)):
            spool.write(piece)
            size += len(piece)
        spool.seek(0)
        if size > MAX_SPOOLED:
            environ["wsgi.input"] = Input(lambda: spool.read(65536) or self._more(self.body))
        else:
            environ["wsgi.input"] = spool

    def _more(self, body: Body) -> bytes:
        while (piece := body.take()) is None:
            self.connection.wait_for(self.request.request_id, body)
        self.connection.made_room()
        return piece

    def _call(self, environ: dict[str, Any]) -> None:
        def report(error: Exception) -> str:
            reference = os.urandom(4).hex()
            log.error(
                "error %s in %s %s: %s",
                reference,
                printable(environ["REQUEST_METHOD"]),
                printable(environ["SCRIPT_NAME"] + environ["PATH_INFO"]),
                wsgi.application_traceback(error),
            )
            return reference

        wsgi.run(
            self.connection.worker.application,
            environ,
            self._send,
            request_id=self.request.request_id,
            report=report,
            debug=self.connection.worker.options.debug,
        )

    def _send(self, event: events.Event) -> None:
        if isinstance(event, (events.EndOfResponse, events.RequestAborted)):
            self._errors.flush()
            self._over = True
        self.connection.send(event)

    def _error_stream(self) -> ErrorStream:
        target = self.connection.worker.options.error_stream
        sinks: list[Callable[[str], object]] = []
        if target != "web-server":
            sinks.append(_to_log)
        if target != "log":
            sinks.append(self._to_web_server)
        return ErrorStream(sinks)

    def _to_web_server(self, line: str) -> None:
        if self._over:  # the request has no stream any more
            _to_log(line)
            return
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        self.connection.send(events.ErrorOutput(self.request.request_id, data))


def _to_log(line: str) -> None:
    log.error("wsgi.errors: %s", printable(line))


class ErrorStream:
    """wsgi.errors: a text stream whose lines go to logs (PEP 3333, "Input and Error Streams")."""

    def __init__(self, sinks: list[Callable[[str], object]]) -> None:
        self._sinks = sinks
        self._partial = ""

    def write(self, text: str) -> int:
        """Write `text`; whole lines go out at once, the rest with the next line's end or a flush."""
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._emit(line)
        if len(self._partial) > 65536:
            self.flush()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what stands on an unfinished line."""
        if self._partial:
            partial, self._partial = self._partial, ""
            self._emit(partial)

    def _emit(self, line: str) -> None:
        for sink in self._sinks:
            sink(line)


class Refusal:
    """The answer to a request that never reached the application because it broke a rule."""

    def __init__(
        self, connection: Connection, request_id: int, error: errors.RemoteProtocolError
    ) -> None:
        self.connection = connection
        self.request_id = request_id
        self.error = error

    def run(self) -> None:
        """Say so to the log and, where the protocol still allows it, to the web server."""
        try:
            refuse(self.connection, self.request_id, self.error)
        except errors.RequestAborted:
            pass  # the peer who broke the rule did not wait for the answer
        finally:
            self.connection.done(None)


def refuse(
    connection: Connection,
    request_id: int,
    error: errors.RemoteProtocolError,
    *,
    head_only: bool = False,
) -> None:
    """Answer with the status that the error hints at and a line of plain text; log the rule."""
    log.warning("%s: refused: %s", connection, error)
    for event in plain_answer(request_id, error.status_hint, str(error), head_only=head_only):
        try:
            connection.send(event)
        except errors.LocalProtocolError:
            # The fault took the connection with it, and there is no request left to answer; or a
            # filter, which may not answer before its body has ended, is given up.
            with suppress(errors.LocalProtocolError):
                connection.send(events.RequestAborted(request_id, error))
            return
