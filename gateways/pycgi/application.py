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
from gateways.server.log import printable

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

REQUEST_NAMES = frozenset(
    {
        "AUTH_TYPE",
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "DOCUMENT_ROOT",
        "DOCUMENT_URI",
        "GATEWAY_INTERFACE",
        "HTTPS",
        "PATH_INFO",
        "PATH_TRANSLATED",
        "QUERY_STRING",
        "REDIRECT_QUERY_STRING",
        "REDIRECT_STATUS",
        "REDIRECT_URL",
        "REQUEST_METHOD",
        "REQUEST_SCHEME",
        "REQUEST_URI",
        "SCRIPT_NAME",
        "UNIQUE_ID",
    }
)
REQUEST_PREFIXES = ("HTTP_", "REMOTE_", "SERVER_")
"""What a request may set: RFC 3875 §4.1 and what web servers add to it."""

# "HTTP_PROXY" would be the client's word for where the script's own requests go (httpoxy), and
# "HTTP_REDIRECT_STATUS" what only a web server says (CVE-2024-8927).
NOT_FROM_CLIENTS = frozenset(
    {"HTTP_PROXY", "HTTP_REDIRECT_STATUS", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"}
)

NAME_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

MAX_LENGTH_DIGITS = 18
"""Digits of a Content-Length: an exabyte."""

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

MAX_LOGGED = 256 * 1024
"""Characters of one request's stderr that are logged; a script in a loop would fill the disk."""


class PythonScript:
    """The WSGI application that a Python CGI script is.

    `path` is the script.  `mode` is "fork", a new process for each request with the interpreter
    and the imports loaded, or "inprocess", where one process runs the script again and again.

    `processes` bounds the processes of "inprocess" mode, which are started as requests come at
    once; each makes way for a new one after `max_requests`.  `time_limit` is in seconds for a
    whole request, 0 for none.  `environment` is added to what scripts find in os.environ; with
    `authorization` the client's Authorization header is too.  `pass_on` names variables that the
    script is to have of a request beside those of RFC 3875 §4.1 and web servers' usual ones; "SSL_*"
    means all that begin so.  `interpreter` is the Python that runs the script, by default this one.

    Raises ConfigurationError for a script that cannot be read or compiled, a mode that does not
    exist, or a name in `pass_on` that no request may set.
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
        pass_on: Iterable[str] = (),
        interpreter: str = "",
    ) -> None:
        self.path = os.path.abspath(path)
        self.mode = mode
        self._time_limit = time_limit
        self._authorization = authorization
        self._name = os.path.basename(self.path)
        if mode not in MODES:
            raise ConfigurationError(f'there is no mode "{mode}"; write {" or ".join(MODES)}')
        names = _checked_names(pass_on)
        self._names = REQUEST_NAMES.union(each for each in names if not each.endswith("*"))
        self._prefixes = tuple(each[:-1] for each in names if each.endswith("*"))
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
        length = environ.get("CONTENT_LENGTH") or ""
        if length and not _is_length(length):
            # int() takes "-1", which would read without end, and other things that are no length.
            return _plain(start_response, "400 Bad Request", "CONTENT_LENGTH is not a length.")
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
            return self._too_slow(start_response, log)
        answer = _Answer(run, log, self._name, environ.get("REQUEST_METHOD") == "HEAD")
        try:
            head = answer.head()
        except TooSlow:
            answer.close()
            return self._too_slow(start_response, log)
        except BaseException:
            answer.close()
            raise
        try:
            start_response(head.status.replace("\t", " "), _headers(head))
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
            # Keys with a dot, which WSGI and frameworks have, are none of these.
            if type(value) is str and "\0" not in value and self._is_passed_on(name):
                variables[name] = value
        for name in [name for name in variables if self._steers(name)]:
            del variables[name]
        if not self._authorization:
            # Passwords are not for every script and all that it starts (RFC 3875 §4.1.18).
            variables.pop("HTTP_AUTHORIZATION", None)
            variables.pop("HTTP_PROXY_AUTHORIZATION", None)
        found = {
            name.encode("ascii"): value.encode("latin-1", "replace")
            for name, value in variables.items()
        }
        found[b"SCRIPT_FILENAME"] = os.fsencode(self.path)
        return found

    def _steers(self, name: str) -> bool:
        """Whether a variable is not for a request to set: ours, or one that steers processes."""
        return name in self._own or _decides(name)

    def _is_passed_on(self, name: str) -> bool:
        """Whether a variable of the request is for the script."""
        if name in self._names:
            return True
        if name in NOT_FROM_CLIENTS or not _is_name(name):
            return False
        return name.startswith(REQUEST_PREFIXES + self._prefixes)

    def _too_slow(self, start_response: Any, log: _ErrorLog) -> Iterable[bytes]:
        log.say(f"ended, since it gave no answer within {self._time_limit:g} s")
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
                fault = _fault(head)
                if fault:
                    raise ApplicationError(self._how(f"{self._name}: {fault}"))
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
        try:
            self._run.skip(SKIP_SECONDS)
        finally:
            # Whatever happens, its helper is given back.
            self._run.end()
        self._log.end()

    def _how(self, what: str) -> str:
        run = self._run
        if run.kind == program.SIGNALLED:
            what += f"; it was ended by signal {run.status}" if run.status else "; it was killed"
        elif run.kind:
            what += f"; its exit status is {run.status}"
        lines = self._log.tail.decode("utf-8", "backslashreplace").strip().split("\n")
        said = "\n".join(printable(line.rstrip("\r")) for line in lines)
        return f"{what}\n{said}" if said else what


class _ErrorLog:
    """Hands on what a script writes to stderr, line by line, until it is too much.

    A log that cannot be written to costs its lines, not the script's answer.
    """

    def __init__(self, stream: Any, name: str) -> None:
        self.tail = b""
        """The last of what was written."""
        self._stream = stream
        self._name = name
        self._partial = b""
        self._left = MAX_LOGGED
        self._broken = False

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
        if self._broken:
            return
        try:
            self._stream.write(f"{self._name}: {text}\n")
        except Exception:
            # There is nowhere else to say so, and the visitor's answer does not depend on it.
            self._broken = True

    def _log(self, line: bytes) -> None:
        if self._left <= 0:
            return
        text = printable(line.rstrip(b"\r").decode("utf-8", "backslashreplace"))
        # With the name and the line's end, so that many short lines are bounded too.
        self._left -= len(self._name) + len(text) + 3
        if self._left > 0:
            self.say(text)
        else:
            self.say(f"the rest of its stderr is dropped, after {MAX_LOGGED // 1024} KiB")


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


def _decides(name: str) -> bool:
    """Whether a variable decides what a process runs."""
    return name in STEERING_NAMES or name.startswith(STEERING)


def _is_name(name: str) -> bool:
    """Whether a variable's name is one that web servers make: no "=", no NUL, nothing odd."""
    return name.isascii() and not name.encode().translate(None, NAME_CHARACTERS)


def _checked_names(pass_on: Iterable[str]) -> list[str]:
    """Return the names.  Raises ConfigurationError for one that no request may set."""
    names = [pass_on] if isinstance(pass_on, str) else list(pass_on)
    for each in names:
        bare = each.removesuffix("*")
        plain = bare.isascii() and bare.isprintable() and not {"=", " "}.intersection(bare)
        if not bare or not plain or _decides(bare) or each in NOT_FROM_CLIENTS:
            raise ConfigurationError(f"pass_on: {each!r} is no variable that a request may set")
    return names


def _is_length(text: str) -> bool:
    # The digits are counted first: int() of very many takes long.
    return text.isascii() and text.isdigit() and len(text) <= MAX_LENGTH_DIGITS


def _words(variables: dict[bytes, bytes]) -> list[bytes]:
    """Return the arguments that an indexed query makes (RFC 3875 §4.4).

    None where one of them could be an option: what a visitor types is never a switch of the
    script's (CVE-2012-1823).
    """
    query = variables.get(b"QUERY_STRING", b"")
    if not query or b"=" in query or variables.get(b"REQUEST_METHOD") not in (b"GET", b"HEAD"):
        return []
    from urllib.parse import unquote_to_bytes

    words = [unquote_to_bytes(word) for word in query.split(b"+")]
    # "If the server cannot [encode] any part of the search-string, … no command line" (§4.4).
    return [] if any(word[:1] == b"-" or b"\0" in word for word in words) else words


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


def _fault(head: Response) -> str:
    """Return what is wrong with how the head says where the body ends, "" for nothing."""
    if any(name.lower() == "transfer-encoding" for name, _ in head.headers):
        return "it has a Transfer-Encoding, which is the web server's to choose"
    lengths = {value for name, value in head.headers if name.lower() == "content-length"}
    if len(lengths) > 1 or not all(map(_is_length, lengths)):
        return f"its Content-Length is {' and '.join(sorted(lengths))[:80]!r}"
    return ""


def _headers(head: Response) -> list[tuple[str, str]]:
    """Return the head's fields, but for those of one connection, as an application may send them."""
    headers = []
    has_length = False
    for name, value in head.headers:
        lower = name.lower()
        # A length that is said twice, the same each time, is passed on once.
        if lower in HOP_BY_HOP or (lower == "content-length" and has_length):
            continue
        has_length = has_length or lower == "content-length"
        # A tab is white space as good as a space (RFC 9110 §5.5); PEP 3333 has none.
        headers.append((name, value.replace("\t", " ")))
    return headers


def _plain(
    start_response: Any, status: str, text: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    body = f"{status}\n\n{text}\n".encode()
    kind = ("Content-Type", "text/plain; charset=utf-8")
    start_response(status, [kind, ("Content-Length", str(len(body))), *headers])
    return [body]
