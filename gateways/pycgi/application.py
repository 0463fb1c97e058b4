"""A Python CGI script as a WSGI application (RFC 3875 from the server's side).

Here the request becomes what a CGI script expects and its output an answer; helpers.py has the
processes in between.  What a script is given is what cgihost gives to any other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gateways.cgihost.application import SPOOL_SIZE
from gateways.cgihost.body import Body
from gateways.cgihost.complaints import Complaints
from gateways.cgihost.head import Broken, Head
from gateways.cgihost.reporter import Reporter
from gateways.cgihost.resolving import Refused, Script, path_bytes
from gateways.cgihost.settings import DEFAULT_PATH
from gateways.cgihost.variables import arguments, environment
from gateways.errors import ApplicationError, ConfigurationError, RemoteProtocolError
from gateways.headparser import HeadParser
from gateways.pycgi import program
from gateways.pycgi.helpers import Busy, Helper, Pool, Run, TooSlow, interpreter_command
from gateways.pycgi.settings import Settings
from gateways.server.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MODES = ("fork", "inprocess")

LIBRARIES = b"LD_LIBRARY_PATH"
"""Without it the interpreter itself may not start, so it is passed on where this process has it."""

BUSY_SECONDS = 30.0
"""How long a request waits for a free helper before it is answered 503."""

SKIP_SECONDS = 0.1
"""How long a script may take to come to its end by itself when the rest is not wanted."""


class PythonScript:
    """The WSGI application that a Python CGI script is.

    `path` is the script.  `mode` is "fork", a new process for each request with the interpreter
    and the imports loaded, or "inprocess", where one process runs the script again and again;
    `settings` are those of Settings.

    Raises ConfigurationError for a script that cannot be read or compiled, a mode that does not
    exist, and for a bad setting.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str = "fork", **settings: Any) -> None:
        self.path = os.path.abspath(path)
        self.mode = mode
        self.settings = Settings(**settings)
        self._file = os.fsencode(self.path)
        self._folder = os.path.dirname(self._file)
        self._name = os.path.basename(self.path)
        self._spool = Spool(SPOOL_SIZE, self.settings.spool_folder)
        if mode not in MODES:
            raise ConfigurationError(f'there is no mode "{mode}"; write {" or ".join(MODES)}')
        _check(self.path, self.settings.interpreter)
        most = self.settings.max_requests
        running, grace = self.settings.max_running, self.settings.grace
        words = [str(running), str(grace)] if mode == "fork" else [str(most)]
        command = interpreter_command(self.settings.interpreter, mode, self.path, words)
        # The interpreter reads its own variables before the script has any.
        own = {b"PATH": DEFAULT_PATH.encode(), **_inherited(self.settings), **self.settings.set}

        def start() -> Helper:
            return Helper(command, own, self._folder)

        shared = mode == "fork"
        self._pool = Pool(start, 1 if shared else self.settings.processes, shared=shared)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        reporter = Reporter(environ)
        reporter.name = self._name
        log = Complaints(reporter.log)
        try:
            answer = self._answer(environ, log, reporter)
        except Refused as refusal:
            log.end()
            return reporter.refuse(refusal, start_response)
        try:
            start_response(answer.head.status, answer.head.headers)
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

    def _answer(self, environ: dict[str, Any], log: Complaints, reporter: Reporter) -> _Answer:
        """Run the script up to the end of its answer's head; raise Refused where there is no run."""
        if not os.path.isfile(self.path):
            raise Refused(404, f"{self.path} is not there any more")
        body = Body(environ, self._spool)
        close = body.close
        try:
            run = self._start(environ, body, log)
            answer = _Answer(run, body, log, reporter, environ.get("REQUEST_METHOD") == "HEAD")
            close = answer.close
            answer.read_head()
        except Busy as error:
            close()
            raise Refused(503, str(error)) from None
        except TooSlow as error:
            close()
            raise Refused(504, f"ended, since {error}") from None
        except BaseException:
            close()
            raise
        return answer

    def _start(self, environ: dict[str, Any], body: Body, log: Complaints) -> Run:
        # All of the body, since no process is to wait for a slow sender.
        stdin = body.complete()
        try:
            info = path_bytes(environ.get("PATH_INFO", ""))
            script = Script(self._file, b"", info, [])
            variables = environment(environ, script, self.settings, self._folder, body.length)
            request = _encode(variables, arguments(environ, self.settings))
            # Our own server's; others cannot tell before something is written.
            peer = getattr(environ["wsgi.errors"], "peer_descriptor", -1)
            return Run(self._pool, stdin, request, log.feed, self.settings, BUSY_SECONDS, peer)
        finally:
            os.close(stdin)


class _Answer:
    """The body of an answer, as the script writes it."""

    head: Head

    def __init__(
        self, run: Run, body: Body, log: Complaints, reporter: Reporter, bodiless: bool
    ) -> None:
        self._run = run
        # The script's standard input: what it takes of the spool is free when the run is over.
        self._body = body
        self._log = log
        self._reporter = reporter
        self._bodiless = bodiless
        self._first = b""

    def read_head(self) -> None:
        """Read up to the end of the head.

        Raises ApplicationError where it is none, with what the script has said on stderr.
        """
        parser = HeadParser()
        while True:
            data = self._run.read()
            if not data:
                raise ApplicationError(self._how(f"{self._reporter} gave no answer"))
            try:
                told, self._first = parser.receive(data)
                if told is not None:
                    self.head = Head(told, status_given=parser.status_given)
            except (RemoteProtocolError, Broken) as error:
                raise ApplicationError(self._how(f"{self._reporter}: {error}")) from None
            if told is not None:
                self._bodiless = self._bodiless or self.head.status[:3] in ("204", "304")
                return

    def __iter__(self) -> Iterator[bytes]:
        if self._bodiless:
            return  # close() sees to the script's end
        data, self._first = self._first, b""
        try:
            while True:
                if data:
                    yield data
                data = self._run.read()
                if not data:
                    break
        except TooSlow as error:
            raise ApplicationError(self._how(f"{self._reporter} took too long: {error}")) from None
        if self._run.kind != program.EXITED:
            # What was sent is not all: the web server is to see it.
            raise ApplicationError(self._how(f"{self._reporter} failed within its answer"))
        self._say_status()

    def _say_status(self) -> None:
        if self._run.status:
            self._log.say(f"exit status {self._run.status}")
        if self._run.orphaned:
            self._log.say(
                "it has exited, but a process that it started keeps its output open and silent"
            )

    def close(self) -> None:
        """End the script, if it still runs: its answer is complete, or nobody wants the rest."""
        complete = False
        try:
            self._run.skip(SKIP_SECONDS)
            complete = self._bodiless
        finally:
            # Whatever happens, its helper is given back.
            self._run.end(complete=complete)
            self._body.close()
        if self._bodiless:
            self._say_status()
        self._log.end()

    def _how(self, what: str) -> str:
        run = self._run
        if run.kind == program.SIGNALLED:
            what += f"; it was ended by signal {run.status}" if run.status else "; it was killed"
        elif run.kind:
            what += f"; its exit status is {run.status}"
        said = self._log.last_words()
        return f"{what}\n{said}" if said else what


def _inherited(settings: Settings) -> dict[bytes, bytes]:
    names = (LIBRARIES, *settings.inherit)
    return {name: os.environb[name] for name in names if name in os.environb}


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


def _encode(variables: list[tuple[bytes, bytes]], words: list[bytes]) -> bytes:
    """Return what a helper is told.  Raises Refused where no environment can carry it."""
    for name, value in variables:
        if not name or b"=" in name or b"\0" in name:
            raise Refused(400, f"a variable of the request cannot be named {name[:100]!r}")
        if b"\0" in value:
            raise Refused(400, "a variable of the request holds NUL")
    block = b"".join(b"%b=%b\0" % pair for pair in variables)
    spoken = b"".join(word + b"\0" for word in words)
    return b"".join([len(block).to_bytes(4, "big"), len(spoken).to_bytes(4, "big"), block, spoken])
