"""The application behind the web servers: the suite's, and a few pages for questions of our own.

With an X-Row header it is the suite's application.  The rows want to be mounted at "", so a mount
that is exactly /app, in SCRIPT_NAME and in REQUEST_URI, is taken off before a row sees it; any
other SCRIPT_NAME stays, and its row fails.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from tests import suite_app
from tests.suite import state_path, write_record

MOUNT = "/app"


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a row, or the page that the path names; any other path shows the environ."""
    if "HTTP_X_ROW" in environ:
        return suite_app.application(_unmounted(environ), start_response)
    page = environ.get("PATH_INFO", "").rpartition("/")[2]
    if page == "events":
        return _events(environ, start_response)
    if page == "arrivals":
        return _arrivals(environ, start_response)
    shown = {name: value for name, value in environ.items() if isinstance(value, str)}
    headers = [("Content-Type", "application/json")]
    if page == "large-head":
        headers.append(("X-Large", "v" * 12000))
    start_response("200 OK", headers)
    return [json.dumps(shown).encode()]


def _unmounted(environ: WSGIEnvironment) -> WSGIEnvironment:
    uri = environ.get("REQUEST_URI", "")
    if environ.get("SCRIPT_NAME") != MOUNT or not uri.startswith(MOUNT):
        return environ
    return {**environ, "SCRIPT_NAME": "", "REQUEST_URI": uri[len(MOUNT) :] or "/"}


def _events(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """An event stream whose second event is made when the client has seen the first, or never.

    It waits ten seconds for that, half a second with "impatient" in the query.
    """
    headers = [("Content-Type", "text/event-stream")]
    if "unbuffered" in environ["QUERY_STRING"]:
        headers.append(("X-Accel-Buffering", "no"))
    start_response("200 OK", headers)
    patience = 0.5 if "impatient" in environ["QUERY_STRING"] else 10
    return _two_events(state_path(environ), patience)


def _two_events(path: Path, patience: float) -> Iterator[bytes]:
    yield b"data: first\n\n"
    deadline = time.monotonic() + patience
    while "seen" not in (path.read_text() if path.exists() else ""):
        if time.monotonic() > deadline:
            yield b"data: nobody saw the first event\n\n"
            return
        time.sleep(0.01)
    yield b"data: second\n\n"


def _arrivals(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Record the first line of an upload as soon as it is there, then the length of the rest."""
    body = environ["wsgi.input"]
    write_record(state_path(environ), "first " + body.readline().decode("latin-1").strip())
    rest = sum(len(piece) for piece in iter(lambda: body.read(65536), b""))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d more by process %d\n" % (rest, os.getpid())]
