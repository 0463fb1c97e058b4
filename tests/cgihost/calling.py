"""Scripts in a folder, and a WSGI server of a few lines that asks for them."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PATIENCE = 10.0
"""Seconds that a test waits for something that happens at once on an idle machine."""

SHELL = "#!/bin/sh\n"
PYTHON = f"#!{sys.executable} -S\n"

# A shell script that prints what it was given, after a head.
PRINT_ENVIRONMENT = SHELL + "echo Content-Type: text/plain\necho\nexec env\n"


def write(folder: Path, name: str, text: str, mode: int = 0o755) -> Path:
    """Write a script."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


class Called:
    """An answer: as much as has been taken of it, and the log."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.errors = io.StringIO()
        self.result: Any = None

    @property
    def code(self) -> int:
        """The status as a number."""
        return int(self.status[:3])

    @property
    def log(self) -> str:
        """What stands in wsgi.errors."""
        return self.errors.getvalue()

    @property
    def variables(self) -> dict[str, str]:
        """What a script's `env` printed."""
        lines = self.body.decode("latin-1").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def header(self, name: str) -> str | None:
        """The value of a header."""
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)


def begin(application: Callable[..., Iterable[bytes]], path: str = "/", **environ: Any) -> Called:
    """Call an application; the pieces of its answer are in `result`, and not taken yet."""
    called = Called()
    path, _, query = path.partition("?")
    body = environ.pop("body", b"")
    sent: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body) if isinstance(body, bytes) else body,
        "wsgi.errors": called.errors,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body and isinstance(body, bytes):
        sent |= {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body))}
    sent |= environ
    sent = {name: value for name, value in sent.items() if value is not None}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        called.status, called.headers = status, headers
        return called.errors.write

    called.result = application(sent, start_response)
    return called


def call(application: Callable[..., Iterable[bytes]], path: str = "/", **environ: Any) -> Called:
    """Call an application and take its whole answer."""
    called = begin(application, path, **environ)
    try:
        called.body = b"".join(called.result)
    finally:
        if hasattr(called.result, "close"):
            called.result.close()
    return called


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition()`; fail with `what` when it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie: nobody may be left to reap a grandchild."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def written_pid(path: Path) -> int:
    """The process id in a file, once a script has written it there, with its line's end."""
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), f"{path} is written")
    return int(path.read_text())
