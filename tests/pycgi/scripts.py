"""Requests to a CGI script: as an application of ours, and by running the file itself."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateways import events, wsgi
from gateways.cgihost.settings import DEFAULT_PATH
from gateways.headparser import HeadParser
from gateways.pycgi import PythonScript
from gateways.tracebacks import application_traceback

MODES = ["fork", "inprocess"]


class Answer:
    """What a web server would be given, and what would be logged."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.cut = False
        self.log = ""
        self.reported = ""

    def take(self, event: events.Event) -> None:
        """Take an event of the answer."""
        if isinstance(event, events.WholeAnswer | events.Response):
            self.status, self.headers = event.status, event.headers
        if isinstance(event, events.WholeAnswer | events.ResponseBody):
            self.body += event.data
        self.cut = self.cut or isinstance(event, events.RequestAborted)


def variables(body: bytes = b"", query: str = "", method: str = "", **more: str) -> dict[str, str]:
    """Return a request's meta-variables."""
    found = {
        "REQUEST_METHOD": method or ("POST" if body else "GET"),
        "SCRIPT_NAME": "/form.py",
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        **more,
    }
    if body:
        found.setdefault("CONTENT_LENGTH", str(len(body)))
    return found


def environ(body: bytes = b"", **more: Any) -> dict[str, Any]:
    """Return a request as an application gets it."""
    return {
        **variables(body, **more),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }


def ask(app: PythonScript, body: bytes = b"", *, debug: bool = False, **more: Any) -> Answer:
    """Have `app` answer one request, as the server does."""
    answer = Answer()
    request = environ(body, **more)

    def report(error: Exception) -> str:
        answer.reported += application_traceback(error)
        return "REFERENCE"

    wsgi.run(app, request, answer.take, 0, report, debug)
    # Each line begins with "cgi", a reference and the script's name.
    answer.log = re.sub(r"(?m)^cgi [0-9a-f]{8} ", "", request["wsgi.errors"].getvalue())
    return answer


def execute(path: Path, body: bytes = b"", **more: Any) -> tuple[Answer, int]:
    """Run the script as a web server does that can only exec; return its exit status too."""
    environment = {"PATH": DEFAULT_PATH, **variables(body, **more)}
    environment |= {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "gateways",
        "SCRIPT_FILENAME": str(path),
    }
    done = subprocess.run(
        [sys.executable, str(path)],
        input=body,
        env=environment,
        cwd=path.parent,
        capture_output=True,
        timeout=30,
        check=False,
    )
    answer = Answer()
    # cgitb's page begins so; Apache takes it for a header.
    output = done.stdout.removeprefix(b"<!--: spam\n")
    head, answer.body = HeadParser().receive(output)
    assert head is not None
    answer.status, answer.headers = head.status, head.headers
    answer.log = done.stderr.decode()
    return answer, done.returncode


@contextmanager
def script(folder: Path, source: str, mode: str = "fork", **options: Any) -> Iterator[PythonScript]:
    """Write the script and keep it warm."""
    app = PythonScript(write(folder, source), mode, **options)
    try:
        yield app
    finally:
        app.close()


def write(folder: Path, source: str, name: str = "form.py") -> Path:
    """Write a file; never with the time stamps of the one that it replaces."""
    path = folder / name
    new = folder / f"{name}.new"
    new.write_text(source, encoding="utf-8")
    new.replace(path)
    return path


def exists(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False  # the second: it ended between opening and reading
    return state != "Z"
