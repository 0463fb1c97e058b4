"""A folder with an application and its warm CGI file, which is run as a web server runs it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateways.warm import Plan
from gateways.warm.writing import write_stub
from tests.cgihost.calling import PATIENCE

ROOT = Path(__file__).parents[2]

STRICT = ("-O1", "-Wall", "-Wextra", "-Werror")
SANITIZED = (*STRICT, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
"""The compiler's flags in the tests; with the second, whatever C leaves undefined ends the stub."""

APPLICATION = """
import os, time
def application(environ, start_response):
    path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
    if path == "/note":
        with open("noted", "ab", 0) as file:
            file.write(body + b"\\n")
    if path == "/environ":
        text = "\\n".join(f"{k}={v!r}" for k, v in sorted(environ.items()) if type(v) is str)
    elif path == "/process":
        text = "\\n".join(f"{k}={v!r}" for k, v in sorted(os.environ.items()))
    elif path == "/folder":
        text = os.getcwd()
    elif path == "/gate":
        open("reached", "w").close()
        while not os.path.exists("gate"):
            time.sleep(0.01)
        text = f"{os.getpid()} {'plain' if environ['wsgi.run_once'] else 'warm'}"
    elif path == "/exit":
        os._exit(3)
    elif path == "/fail":
        raise RuntimeError("planted")
    else:
        text = f"{os.getpid()} {'plain' if environ['wsgi.run_once'] else 'warm'} {len(body)}"
    if path == "/log":
        print("a line for the log", file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
"""

META = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "/app.cgi",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "192.0.2.1",
    "HTTP_HOST": "localhost",
}


class Answer:
    """What a CGI program has written."""

    def __init__(self, output: bytes, errors: bytes, status: int) -> None:
        head, _, self.body = output.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        self.text = self.body.decode("latin-1")
        self.errors = errors.decode("utf-8", "replace")
        self.exit = status

    @property
    def code(self) -> int:
        """The status, 0 where there is no answer."""
        first = self.head.partition("\r\n")[0]
        return int(first.split()[1]) if first.startswith("Status: ") else 0

    @property
    def pid(self) -> int:
        """The process that has answered."""
        return int(self.text.split()[0])

    @property
    def warm(self) -> bool:
        """Whether the daemon has answered."""
        return self.text.split()[1] == "warm"


class Site:
    """The folder, and how the CGI file in it is made and run."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        self.private = folder / "run"
        self.cgi = folder / "app.cgi"
        self.before: list[str] = []
        """The start of a command that runs the CGI file."""

    def write(self, application: str = APPLICATION) -> None:
        """Write the application, in one step since somebody may be reading it."""
        (self.folder / "new").write_text(application)
        (self.folder / "new").rename(self.folder / "app.py")

    def make(
        self,
        *,
        idle: float = 60,
        threads: int = 4,
        keep: tuple[str, ...] = (),
        unread: float = 60,
    ) -> None:
        """Write the CGI file; `unread` is for how long a request lies unread before it is plain."""
        setting = f"stub.UNREAD_REQUEST_SECONDS = {unread}\n"
        if self.kind == "by hand":
            self.cgi.write_text(
                f"#!{sys.executable}\nimport sys; sys.path.insert(0, {str(ROOT)!r})\n"
                f"from gateways import warm\nfrom gateways.warm import stub\n{setting}"
                f"warm.run('app.py', idle={idle}, threads={threads},"
                f" runtime_dir={str(self.private)!r}, keep={keep!r})\n"
            )
            self.cgi.chmod(0o755)
            return
        plan = Plan("app.py", str(self.folder), idle=idle, threads=threads, keep=keep)
        python = self.kind == "python"
        kind = write_stub(
            plan,
            str(self.cgi),
            python=python,
            runtime_dir=str(self.private),
            flags=(
                *(SANITIZED if "sanitized" in self.kind else STRICT),
                f"-DUNREAD_REQUEST_SECONDS={unread}",
            ),
        )
        assert kind.startswith("a Python" if python else "a C"), kind
        if python:
            written = self.cgi.read_text().replace("import stub\n", f"import stub\n{setting}")
            self.cgi.write_text(written)

    def start(
        self, path: str = "/", body: bool = False, /, **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start the CGI program; the body is written by the caller."""
        environment = {**os.environ, **META, "PATH_INFO": path, **variables}
        return subprocess.Popen(
            [*self.before, str(self.cgi)],
            cwd=self.folder,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE if body else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def get(self, path: str = "/", **variables: str) -> Answer:
        """Ask, and wait for the answer."""
        return finish(self.start(path, **variables))

    def post(self, body: bytes, path: str = "/", **variables: str) -> Answer:
        """Send a body, and wait for the answer."""
        length = (
            {"CONTENT_LENGTH": str(len(body))} if "HTTP_TRANSFER_ENCODING" not in variables else {}
        )
        process = self.start(path, True, REQUEST_METHOD="POST", **length, **variables)
        return finish(process, body)

    def daemons(self) -> set[int]:
        """The daemons that serve this folder's application."""
        return set(_daemons(str(self.folder / "app.py")))

    def close(self) -> None:
        """End the daemons, and wait until they hold nothing any more."""
        for pid in self.daemons():
            with suppress(ProcessLookupError):
                kill(pid)


def kill(pid: int) -> None:
    """Kill a process, and wait until the kernel says that its last thread is dead."""
    with open(os.pidfd_open(pid), "rb") as process:
        os.kill(pid, signal.SIGKILL)
        assert select.select([process], [], [], PATIENCE)[0]


def finish(process: subprocess.Popen[bytes], body: bytes | None = None) -> Answer:
    """Wait for a CGI program's end."""
    output, errors = process.communicate(body, timeout=50)
    return Answer(output, errors, process.returncode)


def _daemons(application: str) -> Iterator[int]:
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError):
                words = (each / "cmdline").read_bytes().split(b"\0")
                if application.encode() in words and any(b"warm.daemon" in word for word in words):
                    yield int(each.name)


@contextmanager
def site(folder: Path, kind: str) -> Iterator[Site]:
    """A site that leaves no daemon behind."""
    made = Site(folder, kind)
    made.write()
    made.make()
    try:
        yield made
    finally:
        made.close()
