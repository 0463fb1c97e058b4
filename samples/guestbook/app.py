"""Run:  gateways demo samples/guestbook/app.py

A guestbook in Flask, Jinja and SQLite: the sample that uses what a gateway must carry.  Pages, a
form with an upload, a streamed download, a live event stream, error pages, cookies, redirects.

It is an ordinary WSGI application and knows nothing of gateways.  The same file runs as a daemon

    gateways serve samples/guestbook/app.py -b 127.0.0.1:9000 --threads 8 --workers 2

or for a single CGI request (`gateways cgi samples/guestbook/app.py`), at the root of a site or
below any prefix, since every address in it comes from `url_for`.

Entries are kept in the SQLite file that GUESTBOOK_DATABASE names, by default
`instance/guestbook.sqlite3` beside this file.  Uploads lie in a folder beside the database.

Processes and threads.  A server may import this file before it forks its workers, so importing it
opens nothing.  `database()` opens one connection for each thread of each process, on first use:
SQLite connections must neither be carried across a fork nor shared between threads.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sqlite3
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flask import (
    Flask,
    Response,
    abort,
    g,
    redirect,
    render_template,
    request,
    send_file,
    url_for,
)
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

HERE = Path(__file__).resolve().parent

NAME_LENGTH = 60
MESSAGE_LENGTH = 1000
UPLOAD_BYTES = 4 << 20
ENTRIES_PER_PAGE = 20
LARGEST_ID = 2**63 - 1  # SQLite's integers have 64 bits

# A stream occupies a thread for as long as it lasts, so there may be only so many of them; see
# `events` for what the others get.
STREAMS = 4
# Seconds a stream lasts before the browser is told to come back: a server that is asked to stop
# waits for the answers under way, and this is the longest that one of these makes it wait.
STREAM_SECONDS = 5.0
POLL_SECONDS = 0.25
# A server notices that the reader has gone when it writes to him.
HEARTBEAT_SECONDS = 1.0
RETRY_SECONDS = 0.2
POLITE_RETRY_SECONDS = 3.0  # where each question costs a thread or a process

# The loader of an application file need not register the module, so Flask is told where it is.
application = Flask(__name__, root_path=str(HERE))
application.config["MAX_CONTENT_LENGTH"] = UPLOAD_BYTES + (64 << 10)  # the file and the fields


# The database


class Entry(NamedTuple):
    id: int
    name: str
    message: str
    written: str
    file_name: str | None
    file_key: str | None
    file_size: int | None


SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    message TEXT NOT NULL,
    written TEXT NOT NULL,
    file_name TEXT,
    file_key TEXT,
    file_size INTEGER
)
"""

_thread = threading.local()


def database_path() -> Path:
    """The SQLite file, in a folder that exists."""
    path = Path(os.environ.get("GUESTBOOK_DATABASE") or HERE / "instance" / "guestbook.sqlite3")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def database() -> sqlite3.Connection:
    """This thread's connection in this process, opened on first use and kept.

    The dictionary is keyed by process: after a fork the child finds no entry of its own and
    opens a new connection.  The parent's stays referenced there, because dropping it would close
    it, and a child must not close what the parent is using.
    """
    path = database_path()
    connections: dict[tuple[int, Path], sqlite3.Connection]
    connections = _thread.__dict__.setdefault("connections", {})
    key = (os.getpid(), path)
    if key not in connections:
        connection = sqlite3.connect(path, timeout=10)
        connection.execute(SCHEMA)
        connections[key] = connection
    return connections[key]


def close_connections() -> None:
    """Close this thread's connections (a server need not: they end with their threads)."""
    for (process, _), connection in _thread.__dict__.pop("connections", {}).items():
        if process == os.getpid():
            connection.close()


def entries(where: str, *values: object) -> list[Entry]:
    """The entries that match; `where` is SQL from this file, never from a visitor."""
    rows = database().execute(f"SELECT * FROM entries {where}", values)
    return [Entry(*row) for row in rows]


def entry_or_404(entry_id: int) -> Entry:
    found = entries("WHERE id = ?", entry_id)
    if not found:
        abort(404)
    return found[0]


def count() -> int:
    (number,) = database().execute("SELECT count(*) FROM entries").fetchone()
    return int(number)


def latest_id() -> int:
    (number,) = database().execute("SELECT coalesce(max(id), 0) FROM entries").fetchone()
    return int(number)


def add_entry(name: str, message: str, upload: FileStorage | None) -> int:
    """Write an entry, and the file first, so that no entry ever names a file that is not there."""
    file_name = file_key = file_size = None
    if upload is not None:
        file_name = safe_name(upload.filename or "")
        # The visitor's name for the file is only shown.  On the disk it has one of ours.
        file_key = secrets.token_hex(16)
        path = upload_path(file_key)
        upload.save(path)
        file_size = path.stat().st_size
    written = datetime.now(UTC).isoformat(timespec="seconds")
    with database() as transaction:
        cursor = transaction.execute(
            "INSERT INTO entries (name, message, written, file_name, file_key, file_size)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (name, message, written, file_name, file_key, file_size),
        )
    assert cursor.lastrowid is not None  # an INSERT that did not raise has made a row
    return cursor.lastrowid


def upload_path(file_key: str) -> Path:
    folder = database_path().with_suffix(".files")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / file_key


def safe_name(name: str) -> str:
    """The last part of the path, without control characters, no longer than a name should be."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if unicodedata.category(c)[0] != "C").strip(" .")
    return name[-100:] or "file"


# Forms


def csrf_token() -> str:
    """The visitor's token, which `keep_csrf_token` puts into a cookie and forms send back.

    Another site can make a browser send this cookie but cannot read it, so it cannot fill in the
    field.  Nothing is kept on the server: any process and any CGI run can check the next request.
    """
    if "csrf_token" not in g:
        sent = request.cookies.get("guestbook_token", "")
        g.csrf_token = sent if len(sent) == 43 and sent.isascii() else secrets.token_urlsafe(32)
    return str(g.csrf_token)


def refuse_forgery() -> None:
    cookie = request.cookies.get("guestbook_token", "").encode()
    field = request.form.get("token", "").encode()
    if not cookie or not hmac.compare_digest(cookie, field):
        abort(400, "This form is out of date. Go back, reload the page and send it again.")


def has_control_characters(text: str) -> bool:
    return any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in text)


def form_errors(name: str, message: str) -> dict[str, str]:
    """What is wrong with the form, by field; nothing is cut or repaired silently."""
    errors = {}
    if not name:
        errors["name"] = "Please give your name."
    elif len(name) > NAME_LENGTH:
        errors["name"] = f"A name can have at most {NAME_LENGTH} characters; this has {len(name)}."
    elif has_control_characters(name) or "\n" in name:
        errors["name"] = "A name cannot contain control characters."
    if not message:
        errors["message"] = "Please write a message."
    elif len(message) > MESSAGE_LENGTH:
        errors["message"] = (
            f"A message can have at most {MESSAGE_LENGTH} characters; this has {len(message)}."
        )
    elif has_control_characters(message):
        errors["message"] = "A message cannot contain control characters."
    return errors


# Pages


@application.get("/")
def index() -> str:
    return guestbook_page({}, {})


def guestbook_page(values: dict[str, str], errors: dict[str, str]) -> str:
    page = request.args.get("page", 1, type=int)
    total = count()
    pages = max(1, -(-total // ENTRIES_PER_PAGE))
    if not 1 <= page <= pages:
        abort(404)
    shown = entries(
        "ORDER BY id DESC LIMIT ? OFFSET ?", ENTRIES_PER_PAGE, (page - 1) * ENTRIES_PER_PAGE
    )
    return render_template(
        "index.html",
        entries=shown,
        values=values,
        errors=errors,
        page=page,
        pages=pages,
        total=total,
        latest=shown[0].id if page == 1 and shown else latest_id(),
        limits={"name": NAME_LENGTH, "message": MESSAGE_LENGTH, "upload": UPLOAD_BYTES},
    )


@application.post("/")
def sign() -> BaseResponse | tuple[str, int]:
    """Write an entry, then redirect: reloading the page that follows posts nothing again."""
    refuse_forgery()
    name = request.form.get("name", "").strip()
    # A browser ends the lines of a text area with CR LF.
    message = request.form.get("message", "").replace("\r\n", "\n").strip()
    errors = form_errors(name, message)
    if errors:
        return guestbook_page({"name": name, "message": message}, errors), 422
    upload = request.files.get("file")
    # A file field that was left empty arrives as a part with an empty file name.
    entry_id = add_entry(name, message, upload if upload and upload.filename else None)
    return redirect(url_for("index", _anchor=f"entry-{entry_id}"), 303)


@application.get(f"/entry/<int(max={LARGEST_ID}):entry_id>")
def entry(entry_id: int) -> str:
    return render_template("entry.html", entry=entry_or_404(entry_id))


@application.get(f"/entry/<int(max={LARGEST_ID}):entry_id>/file")
def download(entry_id: int) -> Response:
    """The uploaded file, always as an attachment of no particular type.

    A browser that showed it would run a stranger's HTML in the name of this site.
    """
    found = entry_or_404(entry_id)
    if found.file_key is None:
        abort(404)
    return send_file(
        upload_path(found.file_key),
        mimetype="application/octet-stream",
        as_attachment=True,
        download_name=found.file_name,
    )


@application.get("/about")
def about() -> str:
    """Who answered, and over what; only names that tell a visitor nothing about the machine."""
    names = ("SERVER_SOFTWARE", "GATEWAY_INTERFACE", "SERVER_PROTOCOL", "SCRIPT_NAME", "PATH_INFO")
    facts = {name: str(request.environ.get(name, "")) for name in names}
    for name in ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.url_scheme"):
        facts[name] = str(request.environ[name])
    facts["process"] = str(os.getpid())
    facts["thread"] = threading.current_thread().name
    facts["Python"] = sys.version.partition(" ")[0]
    return render_template("about.html", facts=facts)


# The live stream

_free_streams = threading.BoundedSemaphore(STREAMS)


@application.get("/events")
def events() -> Response:
    """New entries as server-sent events, each the piece of HTML that the page inserts.

    A lasting stream needs a thread of its own.  Where there is none to spare (a single-threaded
    server, a CGI run, STREAMS others open) the answer holds what is new and ends; the browser
    asks again after the `retry` time with the last id it saw, so nothing is lost, only later.
    """
    after = request.headers.get("Last-Event-ID", type=int)
    if after is None:
        after = request.args.get("after", type=int)
    if after is None:
        after = latest_id()
    after = max(0, min(after, LARGEST_ID))
    # HEAD arrives here too, and wants no body.
    lasting = (
        request.method == "GET"
        and bool(request.environ["wsgi.multithread"])
        and _free_streams.acquire(blocking=False)
    )
    response = Response(
        new_entries(request.environ, after, STREAM_SECONDS if lasting else 0.0),
        mimetype="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx would hold the events back
    )
    if lasting:
        # Called when the server closes the answer, also when the generator was never started.
        response.call_on_close(_free_streams.release)
    return response


def new_entries(environ: WSGIEnvironment, after: int, seconds: float) -> Iterator[str]:
    """Events for the entries that come after `after`, and a comment now and then.

    Flask's request context is there only while an event is made, for `url_for`, and never across
    a `yield`: whoever closes a generator that was left in the middle need not be in its context.
    """
    retry = RETRY_SECONDS if seconds else POLITE_RETRY_SECONDS
    yield f"retry: {retry * 1000:.0f}\n\n"
    end = time.monotonic() + seconds
    spoken = time.monotonic()
    while True:
        for new in entries("WHERE id > ? ORDER BY id LIMIT 50", after):
            after = new.id
            spoken = time.monotonic()
            with application.request_context(environ):
                html = render_template("_entry.html", entry=new)
            data = "".join(f"data: {line}\n" for line in html.splitlines())
            yield f"id: {new.id}\nevent: entry\n{data}\n"
        if time.monotonic() >= end:
            return
        time.sleep(POLL_SECONDS)
        if time.monotonic() - spoken >= HEARTBEAT_SECONDS:
            spoken = time.monotonic()
            yield ": still here\n\n"


# Every answer, and errors


@application.after_request
def secure(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


@application.after_request
def keep_csrf_token(response: Response) -> Response:
    if "csrf_token" in g and request.cookies.get("guestbook_token") != g.csrf_token:
        response.set_cookie(
            "guestbook_token",
            g.csrf_token,
            path=request.script_root or "/",
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )
    return response


@application.errorhandler(HTTPException)
def error_page(error: HTTPException) -> BaseResponse:
    """A page for every status that is an error; an exception of ours arrives here as the 500."""
    response = error.get_response()
    if response.status_code >= 400 and error.response is None:
        # The response keeps its other headers: a 405 says what is allowed.
        response.data = render_template(
            "error.html", code=error.code, name=error.name, text=error.description
        )
        response.content_type = "text/html; charset=utf-8"
    return response


application.jinja_env.globals["csrf_token"] = csrf_token


@application.template_filter("size")
def size(number: int) -> str:
    """A number of bytes as people say it."""
    if number < 1024:
        return f"{number} bytes"
    if number < 1 << 20:
        return f"{number / 1024:.0f} KiB"
    return f"{number / (1 << 20):.1f} MiB"


@application.template_filter("moment")
def moment(written: str) -> str:
    return datetime.fromisoformat(written).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
