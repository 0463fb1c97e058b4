"""A Python CGI script as a WSGI application (RFC 3875 from the server's side).

Here the request becomes what a CGI script expects and its output an answer; helpers.py has the
processes in between.
"""

from __future__ import annotations

import os

from gateways.errors import (
    ApplicationError,
    ConfigurationError,
    RemoteProtocolError,
    RequestAborted,
)
from gateways.pycgi import program
from gateways.pycgi.helpers import Busy, Helper, Pool, Run, TooSlow, interpreter_command
from gateways.response import HOP_BY_HOP, HeadParser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from gateways.events import Response

MODES = ("fork", "inprocess")

PATH = "/usr/local/bin:/usr/bin:/bin"
"""PATH for scripts, where this process has none."""

PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TZ")
"""What a script has of this process's own environment."""

STEERING = ("LD_", "DYLD_", "PYTHON", "BASH_")
STEERING_NAMES = frozenset({"PATH", "IFS", "ENV", "SHELLOPTS", "GLIBC_TUNABLES", "GCONV_PATH"})
"""Variables that decide what a process runs: whoever reaches the socket could run anything."""

PIPE_SIZE = 65536
"""Bytes of a body that go to the script through a pipe, where it takes them; others go through a file."""

BUSY_SECONDS = 30.0
"""How long a request waits for a free helper before it is answered 503."""

SHOWN_ERRORS = 16384
"""Bytes of the script's stderr that are shown where it gave no answer."""

SKIP_SECONDS = 0.1
"""How long a script may take to come to its end by itself when the rest is not wanted."""

MAX_ERROR_LINE = 8192
"""Bytes of stderr without a line end that are logged as a line."""


class PythonScript:
    """The WSGI application that a Python CGI script is.

    `path` is the script.  `mode` is "fork", a new process for each request with the interpreter
    and the imports loaded, or "inprocess", where one process runs the script again and again.

    `processes` bounds the processes of "inprocess" mode, which are started as requests come at
    once; each makes way for a new one after `max_requests`.  `time_limit` is in seconds for a
    whole request, 0 for none.  `environment` is added to what scripts find in os.environ; with
    `authorization` the client's Authorization header is too.  `interpreter` is the Python that
    runs the script, by default this one.

    Raises ConfigurationError for a script that cannot be read or compiled, or a mode that does
    not exist.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "fork",
        *,
        processes: int = 4,
        max_requests: int = 1000,
        time_limit: float = 300.0,
        environment: Mapping[str, str] | None = None,
        authorization: bool = False,
        interpreter: str = "",
    ) -> None:
        self.path = os.path.abspath(path)
        self.mode = mode
        self._time_limit = time_limit
        self._authorization = authorization
        self._name = os.path.basename(self.path)
        if mode not in MODES:
            raise ConfigurationError(f'there is no mode "{mode}"; write {" or ".join(MODES)}')
        _check(self.path, interpreter)
        inherited = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own = {"PATH": PATH, **inherited, **(environment or {})}
        arguments = [] if mode == "fork" else [str(max_requests)]
        command = interpreter_command(interpreter, mode, self.path, arguments)
        self._own = frozenset(own)
        base = {os.fsencode(name): os.fsencode(value) for name, value in own.items()}

        def start() -> Helper:
            return Helper(command, base, os.path.dirname(self.path))

        shared = mode == "fork"
        self._pool = Pool(start, 1 if shared else processes, shared=shared)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not os.path.isfile(self.path):
            return _plain(start_response, "404 Not Found", "The script is not there any more.")
        variables = self._variables(environ)
        stdin = _body(environ, variables)
        log = _ErrorLog(environ["wsgi.errors"], self._name)
        try:
            request = _encode(variables, _words(variables))
            try:
                run = Run(self._pool, stdin, request, log.receive, self._time_limit, BUSY_SECONDS)
            finally:
                os.close(stdin)
        except Busy:
            page = "The server is busy; try again in a moment."
            return _plain(start_response, "503 Service Unavailable", page, ("Retry-After", "1"))
        except TooSlow:
            log.end()
            return self._too_slow(start_response, environ)
        answer = _Answer(run, log, self._name, environ.get("REQUEST_METHOD") == "HEAD")
        try:
            head = answer.head()
        except TooSlow:
            answer.close()
            return self._too_slow(start_response, environ)
        except BaseException:
            answer.close()
            raise
        try:
            start_response(head.status, _headers(head))
        except BaseException:
            answer.close()
            raise
        return answer

    def close(self) -> None:
        """End the helper processes.  They also end when this process does."""
        self._pool.close()

    def helpers(self) -> list[int]:
        """Return the process ids of the helpers that run now."""
        return self._pool.processes()

    def _variables(self, environ: dict[str, Any]) -> dict[bytes, bytes]:
        """Return the meta-variables (RFC 3875 §4.1) as the script is to find them in os.environ."""
        variables = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_SOFTWARE": "gateways",
            "QUERY_STRING": "",
            "SCRIPT_NAME": "",
        }
        for name, value in environ.items():
            # Keys with a dot are WSGI's and frameworks' own.
            if type(value) is str and "." not in name and "=" not in name and "\0" not in value:
                variables[name] = value
        for name in [name for name in variables if self._steers(name)]:
            del variables[name]
        # "HTTP_PROXY" would be the client's word for where the script's own requests go (httpoxy).
        for name in ("HTTP_PROXY", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"):
            variables.pop(name, None)
        if not self._authorization:
            # Passwords are not for every script and all that it starts (RFC 3875 §4.1.18).
            variables.pop("HTTP_AUTHORIZATION", None)
            variables.pop("HTTP_PROXY_AUTHORIZATION", None)
        found = {
            name.encode("latin-1"): value.encode("latin-1", "replace")
            for name, value in variables.items()
            if name and name.isascii()
        }
        found[b"SCRIPT_FILENAME"] = os.fsencode(self.path)
        return found

    def _steers(self, name: str) -> bool:
        """Whether a variable is not for a request to set: ours, or one that steers processes."""
        return name in self._own or name in STEERING_NAMES or name.startswith(STEERING)

    def _too_slow(self, start_response: Any, environ: dict[str, Any]) -> Iterable[bytes]:
        environ["wsgi.errors"].write(
            f"{self._name}: ended, since it gave no answer within {self._time_limit:g} s\n"
        )
        page = "The script took too long."
        return _plain(start_response, "504 Gateway Timeout", page)


class _Answer:
    """The body of an answer, as the script writes it."""

    def __init__(self, run: Run, log: _ErrorLog, name: str, bodiless: bool) -> None:
        self._run = run
        self._log = log
        self._name = name
        self._bodiless = bodiless
        self._first = b""

    def head(self) -> Response:
        """Read the head.

        Raises ApplicationError where it is none, with what the script has said on stderr.
        """
        parser = HeadParser()
        while True:
            data = self._run.read()
            if not data:
                raise ApplicationError(self._how(f"{self._name} gave no answer"))
            try:
                head, self._first = parser.receive(data)
            except RemoteProtocolError as error:
                raise ApplicationError(self._how(f"{self._name}: {error}")) from None
            if head is not None:
                self._bodiless = self._bodiless or head.status[:3] in ("204", "304")
                return head

    def __iter__(self) -> Iterator[bytes]:
        data, self._first = self._first, b""
        try:
            while True:
                # Where no body is wanted the script runs to its end all the same.
                if data and not self._bodiless:
                    yield data
                data = self._run.read()
                if not data:
                    break
        except TooSlow:
            raise ApplicationError(self._how(f"{self._name} took too long")) from None
        if self._run.kind != program.EXITED:
            # What was sent is not all: the web server is to see it.
            raise ApplicationError(self._how(f"{self._name} failed within its answer"))
        if self._run.status:
            self._log.say(f"exit status {self._run.status}")

    def close(self) -> None:
        """End the script, if it still runs: its answer is complete, or nobody wants the rest."""
        self._run.skip(SKIP_SECONDS)
        self._run.end()
        self._log.end()

    def _how(self, what: str) -> str:
        run = self._run
        if run.kind == program.SIGNALLED:
            what += f"; it was ended by signal {run.status}" if run.status else "; it was killed"
        elif run.kind:
            what += f"; its exit status is {run.status}"
        said = self._log.tail.decode("utf-8", "backslashreplace").strip()
        return f"{what}\n{said}" if said else what


class _ErrorLog:
    """Hands on what a script writes to stderr, line by line."""

    def __init__(self, stream: Any, name: str) -> None:
        self.tail = b""
        """The last of what was written."""
        self._stream = stream
        self._name = name
        self._partial = b""

    def receive(self, data: bytes) -> None:
        """Take bytes as they were written."""
        self.tail = (self.tail + data)[-SHOWN_ERRORS:]
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._log(line)
        if len(self._partial) > MAX_ERROR_LINE:
            self.end()

    def end(self) -> None:
        """Hand on an unfinished line."""
        if self._partial:
            self._log(self._partial)
            self._partial = b""

    def say(self, text: str) -> None:
        """Add a line of our own."""
        self._stream.write(f"{self._name}: {text}\n")

    def _log(self, line: bytes) -> None:
        self.say(line.rstrip(b"\r").decode("utf-8", "backslashreplace"))


def _check(path: str, interpreter: str) -> None:
    """Raise ConfigurationError for a script that cannot be read or, by this Python, compiled."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise ConfigurationError(f'"{path}" cannot be read: {error.strerror}') from None
    if interpreter:
        return  # another Python may read it otherwise
    try:
        compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigurationError(
            f'"{path}"{line}: {getattr(error, "msg", error)}; a CGI script for Python 2,'
            " or in another language, is not for pycgi"
        ) from None


def _words(variables: dict[bytes, bytes]) -> list[bytes]:
    """Return the arguments that an indexed query makes (RFC 3875 §4.4)."""
    query = variables.get(b"QUERY_STRING", b"")
    if not query or b"=" in query or variables.get(b"REQUEST_METHOD") not in (b"GET", b"HEAD"):
        return []
    from urllib.parse import unquote_to_bytes

    words = [unquote_to_bytes(word) for word in query.split(b"+")]
    # "If the server cannot [encode] any part of the search-string, … no command line" (§4.4).
    return [] if any(b"\0" in word for word in words) else words


def _encode(variables: dict[bytes, bytes], words: list[bytes]) -> bytes:
    block = b"".join(b"%b=%b\0" % pair for pair in variables.items())
    arguments = b"".join(word + b"\0" for word in words)
    return b"".join(
        [len(block).to_bytes(4, "big"), len(arguments).to_bytes(4, "big"), block, arguments]
    )


def _body(environ: dict[str, Any], variables: dict[bytes, bytes]) -> int:
    """Return a descriptor from which the script reads the request's body, and then its end.

    The body is complete before the script starts, so that CONTENT_LENGTH is right where the
    client did not tell it, and no process waits for a slow sender.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    announced = int(length) if length else None
    terminated = bool(environ.get("wsgi.input_terminated"))
    if announced is None:
        variables.pop(b"CONTENT_LENGTH", None)
    if announced == 0 or (announced is None and not terminated):
        return os.open(os.devnull, os.O_RDONLY)
    stream = environ["wsgi.input"]
    if announced is not None and announced <= PIPE_SIZE:
        data = _read(stream, announced)
        if len(data) < announced:
            raise RequestAborted(f"the body ended after {len(data)} of {announced} bytes")
        return _pipe_of(data)
    descriptor, count = _spool(stream, announced)
    variables[b"CONTENT_LENGTH"] = b"%d" % count
    # What has arrived is not chunked any more.
    variables.pop(b"HTTP_TRANSFER_ENCODING", None)
    return descriptor


def _read(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _pipe_of(data: bytes) -> int:
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        if os.write(writer, data) == len(data):
            return reader
    except BlockingIOError:
        pass
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    # The kernel gives small pipes to a user who has many.
    os.close(reader)
    import io

    return _spool(io.BytesIO(data), len(data))[0]


def _spool(stream: Any, announced: int | None) -> tuple[int, int]:
    """Return a descriptor of an unnamed file with the body, at its beginning, and its length."""
    import tempfile

    with tempfile.TemporaryFile(buffering=0) as file:
        count = 0
        while announced is None or count < announced:
            left = PIPE_SIZE if announced is None else min(PIPE_SIZE, announced - count)
            data = stream.read(left)
            if not data:
                break
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            count += len(data)
        if announced is not None and count < announced:
            raise RequestAborted(f"the body ended after {count} of {announced} bytes")
        file.seek(0)
        return os.dup(file.fileno()), count


def _headers(head: Response) -> list[tuple[str, str]]:
    """Return the head's fields, but for those of one connection, as an application may send them."""
    return [
        (name, value.replace("\t", " "))
        for name, value in head.headers
        if name.lower() not in HOP_BY_HOP
    ]


def _plain(
    start_response: Any, status: str, text: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    body = f"{status}\n\n{text}\n".encode()
    kind = ("Content-Type", "text/plain; charset=utf-8")
    start_response(status, [kind, ("Content-Length", str(len(body))), *headers])
    return [body]
