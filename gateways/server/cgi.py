"""One CGI request: meta-variables in the environment, the body on stdin, the answer on stdout.

Everything here runs in the one thread of a process that a web server started for this request
(RFC 3875).  Start-up is what a visitor waits for, so nothing is imported that a bare interpreter
has not loaded already.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import time

from gateways import cgi, errors, events, wsgi
from gateways import environ as environs
from gateways.response import plain_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

STDIN, STDOUT, STDERR = 0, 1, 2

MAX_UNREAD = 64 * 1024 * 1024
"""Bytes of a body that the application did not want which are read all the same."""

UNREAD_SECONDS = 5
"""How long that may take in all."""


def run(
    application: Callable[..., Iterable[bytes]],
    *,
    script_name: str | None = None,
    debug: bool = False,
    remote_user: bool = True,
    crash_log: str = "",
) -> int:
    """Answer the one CGI request that this process was started for; return the exit status.

    The options are as for `gateways serve`.  Whatever the application prints goes to stderr, which the web server logs: on stdout it would stand before the answer's head.  Faults
    of the application are answered with a 500 and a traceback on stderr; a visitor who has gone
    ends the request quietly.  The status is 1 where the answer could not be completed, else 0.
    """
    # A client's Proxy header would name the proxy of every HTTP library in this process.
    os.environ.pop("HTTP_PROXY", None)
    output = _private_stdout()
    exchange = _Exchange(output, script_name, debug, remote_user, crash_log)
    gc.freeze()
    try:
        with _Terminable(exchange):
            exchange.run(application)
        exchange.read_rest()
    except errors.RequestAborted:
        return 1  # the web server has closed our stdout, or ended us: its visitor is gone
    finally:
        os.close(output)
        if _holds_files():
            gc.unfreeze()
    return int(exchange.connection.aborted)


def run_named(name: str, **options: Any) -> int:
    """Load the application of that name and answer the request with it, or with a 500; see `run`.

    What it prints while it is loaded goes to stderr: on stdout it would be no answer's head.
    """
    _open_closed()
    from gateways import loading  # here: a script has its application already

    if options.get("crash_log"):
        options["crash_log"] = os.path.abspath(options["crash_log"])  # it may go elsewhere
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    failure = ""
    try:
        application = loading.load(name)
    except errors.ConfigurationError as error:
        application, failure = loading.unloadable(error), str(error)
    finally:
        sys.stdout.flush()
        os.dup2(kept, STDOUT)
        os.close(kept)
    # The request is answered all the same: the answer says that it failed, not the exit status.
    status = run(application, **options)
    if failure:
        print(f"gateways: {failure}", file=sys.stderr, flush=True)
    return status


def _holds_files() -> bool:
    """Whether this process has opened something that is open still, or nobody can tell.

    The collector would search everything that was loaded twice more as the interpreter ends, which
    is a millisecond of each request; hence gc.freeze above.  But what an application opened as it
    was imported may hang on that search: a file in a cycle of objects is flushed by it.
    """
    try:
        return any(_was_opened(int(name)) for name in os.listdir("/proc/self/fd"))
    except OSError:
        return True


def _was_opened(descriptor: int) -> bool:
    """Whether it is of our opening: what came with the process is inheritable, what Python opens is not."""
    try:
        return descriptor > STDERR and not os.get_inheritable(descriptor)
    except OSError:
        return False  # the listing's own


def _wait_for_room(descriptor: int) -> None:
    import select  # here: a web server's pipe or socket blocks

    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    poller.poll()


class _Terminable:
    """SIGTERM raises RequestAborted in the block, so that the application's close() runs.

    mod_cgid sends it when the visitor has left (RFC 3875 §7.2), lighttpd as soon as it has the
    whole answer: then there is nothing to abort, and close() is not disturbed.  A second one ends
    the process at once.  After the block, too, the first one is only noted: what the process
    has to do at its exit is done.
    """

    def __init__(self, exchange: _Exchange) -> None:
        self.exchange = exchange

    def __enter__(self) -> None:
        # Not the module signal: for its enumerations it costs a millisecond to import.
        import _signal  # type: ignore[import-not-found]  # typeshed leaves it out

        def on_term(number: int, frame: object) -> None:
            _signal.signal(number, _signal.SIG_DFL)
            if not self.exchange.over:
                self.exchange.over = True
                raise errors.RequestAborted("the web server ended the script")

        self.signals = _signal
        try:
            self.before = _signal.signal(_signal.SIGTERM, on_term)
        except ValueError:
            self.before = None  # not in the main thread: somebody embeds us

    def __exit__(self, *_: object) -> None:
        self.exchange.over = True
        if self.before not in (None, self.signals.SIG_DFL):
            self.signals.signal(self.signals.SIGTERM, self.before)


def _open_closed() -> None:
    """Open what of stdin, stdout and stderr is closed, on /dev/null.

    Otherwise a duplicate, or a file of the application's, would take its number, and what is
    printed would go there.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:  # so it is where descriptor 1 was closed at the interpreter's start
        sys.stdout = open(STDOUT, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115 - it is for the whole process


def _private_stdout() -> int:
    """Return the answer's descriptor, and point everything else that writes to stdout at stderr."""
    _open_closed()
    sys.stdout.flush()
    output = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    return output


class _Exchange:
    """The request, the answer, and the codec between them and the two descriptors."""

    def __init__(
        self,
        output: int,
        script_name: str | None,
        debug: bool,
        remote_user: bool,
        crash_log: str,
    ) -> None:
        self.connection = cgi.ServerConnection()
        self.output = output
        self.script_name = script_name
        self.debug = debug
        self.remote_user = remote_user
        # The application may go to another folder.
        self.crash_log = os.path.abspath(crash_log) if crash_log else ""
        self.environ: dict[str, Any] = {}
        self.arrived: list[events.Event] = []
        self.head_only = os.environ.get("REQUEST_METHOD") == "HEAD"
        self.over = False  # the web server has all that it wants, or takes no more

    def run(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.arrived = self.connection.receive_variables(list(os.environb.items()))
        first = self.arrived.pop(0)
        try:
            if isinstance(first, events.RequestAborted):
                raise first.error or errors.RequestAborted("the request was aborted")
            assert isinstance(first, events.Request)
            environ, _ = environs.build(
                first, self.base(), self.script_name, remote_user=self.remote_user
            )
            self.environ = environ
        except errors.RemoteProtocolError as error:
            self.log(f"refused: {error}")
            self.answer(error.status_hint, str(error))
            return
        wsgi.run(
            application, environ, self.send, request_id=0, report=self.report, debug=self.debug
        )

    def base(self) -> dict[str, object]:
        return {
            "wsgi.version": (1, 0),
            "wsgi.input": self.input(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": True,
            "wsgi.file_wrapper": wsgi.FileWrapper,
        }

    def input(self) -> object:
        if not self.connection.wants_data:
            return io.BytesIO()
        from gateways.server.input import Input  # here: most requests have no body

        return Input(self.more)

    def more(self) -> bytes:
        """Return the next piece of the body, reading stdin no further than the body goes."""
        while True:
            while self.arrived:
                event = self.arrived.pop(0)
                if isinstance(event, events.RequestBody):
                    return event.data
                if isinstance(event, events.RequestAborted):
                    self.arrived.insert(0, event)  # a later read meets the same end
                    self.log(str(event.error))
                    raise errors.RequestAborted(str(event.error))
            if not self.connection.wants_data:
                return b""
            self.receive()

    def read_rest(self) -> None:
        """Read what the application left of the body, within limits.

        Under mod_cgid stdin and stdout are one socket: closed over unread bytes it would be
        reset, and the answer lost.
        """
        if not self.connection.wants_data:
            return
        import select  # here: most applications read the body

        poller = select.poll()
        poller.register(STDIN, select.POLLIN)
        deadline = time.monotonic() + UNREAD_SECONDS
        for _ in range(MAX_UNREAD // 65536):
            left = deadline - time.monotonic()
            if not (self.connection.wants_data and left > 0 and poller.poll(left * 1000)):
                return
            self.arrived.clear()
            self.receive()

    def receive(self) -> None:
        # "The script MUST NOT attempt to read more than CONTENT_LENGTH bytes" (RFC 3875 4.2).
        left = self.connection.remaining
        size = 65536 if left is None else min(left, 65536)
        try:
            data = os.read(STDIN, size)
        except OSError as error:
            # Under mod_cgid stdin is a socket, which the visitor's leaving resets.
            raise errors.RequestAborted(f"the web server closed stdin: {error}") from error
        self.arrived = self.connection.receive_data(data)

    def send(self, event: events.Event) -> None:
        self.connection.send(event)
        rest = memoryview(self.connection.data_to_send())
        while rest:
            try:
                rest = rest[os.write(self.output, rest) :]
            except BlockingIOError:  # somebody has made it so
                _wait_for_room(self.output)
            except OSError as error:
                self.over = True
                raise errors.RequestAborted(f"the web server closed stdout: {error}") from error
        if isinstance(event, events.ResponseBody):
            self.over = event.last
        else:
            self.over = self.head_only or not isinstance(event, events.Response)

    def answer(self, status: int, text: str) -> None:
        for event in plain_answer(0, status, text):
            self.send(event)

    def report(self, error: Exception) -> str:
        from gateways.tracebacks import application_traceback  # here: it costs milliseconds

        reference = os.urandom(4).hex()
        self.log(f"error {reference}: {application_traceback(error)}")
        if self.crash_log:
            from gateways.server import crashlog

            try:
                crashlog.record(self.crash_log, error, reference, self.environ)
            except Exception as failure:
                self.log(f"error {reference} is not in the crash log: {failure}")
        return reference

    def log(self, text: str) -> None:
        print(f"gateways: {text}", file=sys.stderr, flush=True)
