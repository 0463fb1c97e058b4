"""A WSGI application that runs CGI scripts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gateways.cgi import ClientConnection
from gateways.cgihost import starting, variables
from gateways.cgihost.answer import Answer
from gateways.cgihost.body import Body
from gateways.cgihost.head import Broken
from gateways.cgihost.reporter import Reporter
from gateways.cgihost.resolving import Refused, Script, Scripts, check_encoding, path_bytes
from gateways.cgihost.run import NotStarted, Overdue, Run
from gateways.cgihost.settings import Settings
from gateways.errors import LocalProtocolError
from gateways.events import Request
from gateways.server.spool import Spool

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SPOOL_SIZE = 1024 * 1024 * 1024
"""Bytes of bodies whose length nobody announced, in temporary files at the same time."""


class CGIApplication:
    """Runs the script at `path`, or the scripts of the folder there; `settings` are those of Settings.

    Below a folder the request's path names the script.  One script alone answers every path.
    What goes wrong is one line on wsgi.errors, which begins with the reference that the visitor is
    shown; the script's own error output goes there too, line by line.

    Raises ConfigurationError where there is no such script or folder, and for a bad setting.
    """

    def __init__(self, path: str | os.PathLike[str], **settings: Any) -> None:
        self.settings = Settings(**settings)
        self._scripts = Scripts(os.fspath(path), self.settings)
        root = self._scripts.root
        self._root = root if self._scripts.is_folder else os.path.dirname(root)
        self._spool = Spool(SPOOL_SIZE, self.settings.spool_folder)
        self._places = threading.BoundedSemaphore(self.settings.max_running)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        reporter = Reporter(environ)
        try:
            answer, body = self._answer(reporter, environ)
        except Refused as refusal:
            return reporter.refuse(refusal, start_response)
        try:
            start_response(answer.status, answer.headers)
        except BaseException:
            answer.close()
            raise
        return answer if body is None else body

    def _answer(
        self, reporter: Reporter, environ: WSGIEnvironment
    ) -> tuple[Answer, list[bytes] | None]:
        """Return the answer, and its body where it is complete already."""
        script = self._find(environ)
        # First, since a body of unknown length may come slowly.
        body = Body(environ, self._spool)
        if not self._places.acquire(blocking=False):
            body.close()
            raise Refused(503, f"{self.settings.max_running} scripts are running (max_running)")
        place = _Place(self._places.release)
        most = self.settings.local_redirects
        try:
            for _ in range(most + 1):
                reporter.name = os.fsdecode(os.path.basename(script.file))
                run, answer = self._run(reporter, script, environ, body, place)
                with _ended_by_faults(run):
                    answer.read_head()
                    target = answer.local_redirect if most else ""
                    found = self._redirected(environ, target) if target else None
                    if found is None:
                        return answer, answer.gather()
                    answer.discard()
                script, environ = found
                body = Body(environ, self._spool)
            raise Refused(
                500, f"more than {most} local redirects (local_redirects), the last one to {target}"
            )
        finally:
            place.leave()

    def _find(self, environ: WSGIEnvironment) -> Script:
        path = path_bytes(environ.get("PATH_INFO", ""))
        script = self._scripts.find(path)
        mount = path_bytes(environ.get("SCRIPT_NAME", ""))
        check_encoding(path_bytes(environ.get("REQUEST_URI", "")), mount + script.name)
        return script

    def _redirected(
        self, environ: WSGIEnvironment, target: str
    ) -> tuple[Script, WSGIEnvironment] | None:
        """Return the script for a local redirect and its environ; None where it leads out of here.

        What is not ours to answer, a page of the web server's for example, the visitor asks for.
        """
        path, _, query = target.partition("?")
        decoded = unquote_to_bytes(path_bytes(path)).decode("latin-1")
        mount = environ.get("SCRIPT_NAME", "")
        below = decoded[len(mount) :]
        if not decoded.startswith(mount) or below[:1] not in ("", "/"):
            return None
        following = {
            name: value
            for name, value in environ.items()
            if name not in ("CONTENT_LENGTH", "CONTENT_TYPE", "wsgi.input_terminated")
        }
        following.update(
            REQUEST_METHOD="HEAD" if environ.get("REQUEST_METHOD") == "HEAD" else "GET",
            PATH_INFO=below,
            QUERY_STRING=query,
            REQUEST_URI=target,
            REDIRECT_STATUS="200",
            REDIRECT_URL=mount + environ.get("PATH_INFO", ""),
            REDIRECT_QUERY_STRING=environ.get("QUERY_STRING", ""),
        )
        try:
            return self._find(following), following
        except Refused:
            return None

    def _run(
        self,
        reporter: Reporter,
        script: Script,
        environ: WSGIEnvironment,
        body: Body,
        place: _Place,
    ) -> tuple[Run, Answer]:
        """Start a script; raise Refused where that fails."""
        place.share()
        try:
            run, connection = self._start(reporter, script, environ, body, place.leave)
        except BaseException:
            place.leave()
            raise
        head_only = environ.get("REQUEST_METHOD") == "HEAD"
        return run, Answer(run, connection, nph=script.is_nph, head_only=head_only)

    def _start(
        self,
        reporter: Reporter,
        script: Script,
        environ: WSGIEnvironment,
        body: Body,
        over: Callable[[], None],
    ) -> tuple[Run, ClientConnection]:
        try:
            found = variables.environment(environ, script, self.settings, self._root, body.length)
            connection = ClientConnection()
            connection.send(Request(0, found))
            words = starting.command(script, variables.arguments(environ, self.settings))
            log = reporter.log
            # Our own server's; others cannot tell before something is written.
            peer = getattr(environ["wsgi.errors"], "peer_descriptor", -1)
            folder = script.folder
            run = Run(connection, words, folder, body, self.settings, log, over, peer)
            return run, connection
        except LocalProtocolError as error:
            body.close()
            raise Refused(400, str(error)) from None
        except NotStarted as error:
            body.close()
            raise starting.failure(error.cause, script) from None
        except BaseException:
            body.close()
            raise


class _Place:
    """One of max_running: a request's, until the last of the scripts that local redirects name is gone."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._sharers = 1
        self._lock = threading.Lock()

    def share(self) -> None:
        """Count one more script."""
        with self._lock:
            self._sharers += 1

    def leave(self) -> None:
        """Count one less; the last one gives the place back."""
        with self._lock:
            self._sharers -= 1
            if self._sharers:
                return
        self._release()


@contextmanager
def _ended_by_faults(run: Run) -> Iterator[None]:
    """End the script when the block raises; make its faults Refused."""
    try:
        yield
    except Broken as error:
        run.close(complete=False)
        raise Refused(502, str(error)) from None
    except Overdue as error:
        run.close(complete=False)
        raise Refused(504, str(error)) from None
    except BaseException:
        run.close(complete=False)
        raise
