"""What runs in a helper process: it keeps one Python CGI script warm (see helpers.py).

    python program.py fork PATH DESCRIPTOR GRACE [MODULE …]   a parent that forks for each request
    python program.py inprocess PATH DESCRIPTOR REQUESTS      runs the script itself, again and again

DESCRIPTOR is one end of a stream socket.  Each byte that arrives on it is a request and carries
four descriptors: the script's stdin, stdout and stderr, and a socket on which the request's
variables come and its fate is told:

    ◀─ STARTED                       or STALE: this helper has outlived the script's files
    ◀─ kind, exit status, stays      EXITED, RAISED or SIGNALLED; only the first one counts
    ─▶ RELEASE [milliseconds]        the answer is complete, and the script may run on for so long,
                                     for ever without a number; an end without it ends the script

The end of file on DESCRIPTOR ends this process: whoever started it wants it no more.  GRACE is how
many seconds a script that is ended has between SIGTERM and SIGKILL.

It imports nothing of gateways, so that any Python can run it and nothing stands in the script's
way.  In fork mode it has one thread and runs no code of the script's folder; the imports that it
preloads are the ones from elsewhere.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed leaves it out; without enumerations it is faster
import atexit
import builtins
import fcntl
import gc
import io
import os
import select
import signal
import socket
import sys
import time
import weakref
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType
    from typing import Any, NoReturn

    Signature = tuple[int, int, int] | None

STARTED, STALE = b"R", b"S"
EXITED, RAISED, SIGNALLED = b"E", b"X", b"G"
RELEASE = b"D"

_LIBRARY = os.path.dirname(os.__file__) + os.sep

_BUILTINS = dict(vars(builtins))

_FAILED = 70  # EX_SOFTWARE: our own fault


def signature(path: str) -> Signature:
    """Return what changes when the file does, None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Script:
    """The script's file, compiled when it is new or has changed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = os.path.dirname(path)
        # The interpreter looks for modules beside the file itself, not beside a link to it.
        self.library = os.path.dirname(os.path.realpath(path))
        self.source = b""
        self._signature: Signature = (0, 0, 0)
        self._code: CodeType | None = None
        self._fault: Exception | None = None

    def refresh(self) -> bool:
        """Compile the file if it has changed; return whether it has."""
        found = signature(self.path)
        if found == self._signature:
            return False
        self._signature = found
        self._code = self._fault = None
        try:
            with open(self.path, "rb") as file:
                self.source = file.read()
            self._code = compile(self.source, self.path, "exec", dont_inherit=True)
        except Exception as error:
            self._fault = error
        return True

    def run(self) -> tuple[bytes, int]:
        """Run it as __main__ until the interpreter would end; return how it ended.

        A process that the script forks, and that does not end itself, ends here.
        """
        pid = os.getpid()
        module = ModuleType("__main__")
        module.__file__ = self.path
        own: dict[str, object] = {"__builtins__": builtins, "__cached__": None}
        if sys.version_info < (3, 14):
            own["__annotations__"] = {}
        vars(module).update(own)
        sys.modules["__main__"] = module
        kind, status = EXITED, 0
        try:
            if isinstance(self._fault, OSError):
                sys.stderr.write(
                    f"{sys.executable}: can't open file {self.path!r}: {self._fault}\n"
                )
                raise SystemExit(2)
            if self._fault is not None:
                raise self._fault.with_traceback(None)
            assert self._code is not None
            exec(self._code, module.__dict__)
        except SystemExit as error:
            status = _exit_status(error)
        except BaseException as error:
            kind, status = _show(error)
        # Everything here needs them, whatever the script has done to them.
        names = builtins.__dict__
        names.update(_BUILTINS)
        for name in names.keys() - _BUILTINS.keys():
            del names[name]
        if os.getpid() != pid:
            _end_program(module)
            _flush_files()
            os._exit(status)
        return kind, status


def _exit_status(error: SystemExit) -> int:
    """Return what the interpreter makes of sys.exit's argument."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with suppress(Exception):
        print(error.code, file=sys.stderr)
    return 1


def _show(error: BaseException) -> tuple[bytes, int]:
    """Hand an exception that nobody caught to sys.excepthook, as the interpreter would.

    cgitb.enable() sets that hook; what it prints is an answer.  The interpreter's own hook writes
    to stderr, so the answer is incomplete then.
    """
    # The first frame is that of Script.run.
    below = error.__traceback__.tb_next if error.__traceback__ else None
    error = error.with_traceback(below)
    hook = sys.excepthook
    kind = RAISED if hook is sys.__excepthook__ else EXITED
    try:
        hook(type(error), error, below)
    except SystemExit as exit:
        return EXITED, _exit_status(exit)
    except BaseException as second:
        kind = RAISED
        with suppress(Exception):
            print("Error in sys.excepthook:", file=sys.stderr)
            sys.__excepthook__(type(second), second, second.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(type(error), error, below)
    return kind, 130 if isinstance(error, KeyboardInterrupt) else 1


def _end_program(main: ModuleType | None) -> None:
    """Empty the script's globals, so that its open files are flushed and its objects finalized."""
    _flush()
    # The interpreter stops daemon threads before it does this; here they would meet empty names.
    if main is not None and not _is_threaded():
        main.__dict__.clear()
    _flush()


def _is_threaded() -> bool:
    """Whether there are other threads that run Python."""
    return len(sys._current_frames()) > 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the script may have closed it or put anything in its place
            stream.flush()


class Streams:
    """sys.stdin, stdout and stderr over the descriptors 0, 1 and 2, as this interpreter makes them."""

    def __init__(self) -> None:
        started = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
        self._kinds = [
            (name, stream.encoding, stream.errors, stream.line_buffering, stream.write_through)
            for name, stream in started.items()
            if isinstance(stream, io.TextIOWrapper)
        ]
        # Those of earlier requests that somebody still holds, such as a logging handler.
        self._made: weakref.WeakSet[io.TextIOWrapper] = weakref.WeakSet()
        # Modules that are imported before the first request may keep these.
        self._first = [
            each for each in (sys.stdout, sys.stderr) if isinstance(each, io.TextIOWrapper)
        ]
        self._made.update(self._first)

    def open(self) -> None:
        """Make the three anew.

        The old ones may not serve again: a script that wraps sys.stdout.buffer in a stream of its
        own closes it when that stream goes.
        """
        sys.stdin, sys.stdout, sys.stderr = (self._make(each) for each in range(3))
        for name in ("stdin", "stdout", "stderr"):
            setattr(sys, f"__{name}__", getattr(sys, name))

    def flush(self) -> None:
        """Write out what they hold, whatever the script has put in their places."""
        for stream in self._made:
            with suppress(Exception):  # the script may have closed it, or the reader has gone
                stream.flush()

    def _make(self, descriptor: int) -> io.TextIOWrapper:
        name, encoding, errors, line_buffering, write_through = self._kinds[descriptor]
        mode = "w" if descriptor else "r"
        unbuffered = descriptor and write_through  # PYTHONUNBUFFERED
        binary: Any = open(descriptor, mode + "b", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115  # it stays open
        getattr(binary, "raw", binary).name = f"<{name}>"
        text: Any = io.TextIOWrapper(
            binary, encoding, errors, "\n", line_buffering, write_through=bool(unbuffered)
        )
        text.mode = mode
        if descriptor:
            self._made.add(text)
        return text  # type: ignore[no-any-return]  # its mode can be set, which typeshed does not know


class Request:
    """One request: its descriptors 0, 1 and 2, its control socket, its variables and arguments."""

    def __init__(self, descriptors: list[int], control: socket.socket) -> None:
        """Read it.  Raises EOFError where it was given up meanwhile."""
        self.descriptors = descriptors
        self.control = control
        try:
            self.variables, self.words = read_request(control)
        except (EOFError, ConnectionResetError):
            self.close()
            control.close()
            raise EOFError from None

    def close(self) -> None:
        """Close the descriptors."""
        for each in self.descriptors:
            os.close(each)
        self.descriptors = []


def receive(sock: socket.socket) -> Request | None:
    """Return the next request, None at the end of file; EOFError for one that was given up."""
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, descriptors, _, _ = socket.recv_fds(sock, 1, 4, flags)
    if not data or len(descriptors) != 4:
        for each in descriptors:
            os.close(each)
        return None
    return Request(descriptors[:3], socket.socket(fileno=descriptors[3]))


class Setting:
    """What a script finds when it starts: made once, before any script has run."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.streams = Streams()
        self._environment = dict(os.environb)
        self._environ = os.environ, os.environb
        self._put: set[Any] = set()

    def note_putenv(self) -> None:
        """Have variables that a script sets past os.environ taken away before the next request."""
        putenv = os.putenv

        def noting_putenv(name: Any, value: Any, /) -> None:
            self._put.add(name)
            putenv(name, value)

        os.putenv = noting_putenv

    def prepare(self, request: Request) -> None:
        """Put the request where the script looks."""
        for number, descriptor in enumerate(request.descriptors):
            os.dup2(descriptor, number)
        request.close()
        os.chdir(self.script.folder)
        os.environ, os.environb = self._environ
        os.environb.clear()
        while self._put:
            os.unsetenv(self._put.pop())
        os.environb.update(self._environment)
        os.environb.update(request.variables)
        sys.argv = [self.script.path, *map(os.fsdecode, request.words)]
        self.streams.open()


def read_request(control: socket.socket) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Return the variables and the arguments; EOFError when the socket ends before them."""
    sizes = _read(control, 8)
    variables = _read(control, int.from_bytes(sizes[:4], "big")).split(b"\0")[:-1]
    words = _read(control, int.from_bytes(sizes[4:], "big")).split(b"\0")[:-1]
    pairs = (each.partition(b"=") for each in variables)
    return {name: value for name, _, value in pairs}, words


def _read(control: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = control.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def tell(control: socket.socket, kind: bytes, status: int, *, stays: bool = True) -> None:
    """Say how the script ended."""
    with suppress(OSError):  # nobody waits for it any more
        control.sendall(kind + bytes([status & 0xFF, stays]))


# Fork mode.


class Child:
    """A request that a child process answers.  It stays unreaped until nobody can want to end it."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.over = False
        self.ended = False
        """Whether it was sent SIGTERM, so that what it leaves behind is ended too."""
        self.next_signal_at = float("inf")

    def end(self, grace: float) -> None:
        """Ask it to end, and have it killed later."""
        self.ended = True
        _signal_group(self.pid, signal.SIGKILL if self.over else signal.SIGTERM)
        self.next_signal_at = time.monotonic() + grace


class Forker:
    """The parent of a script's processes."""

    def __init__(self, script: Script, sock: socket.socket, grace: float) -> None:
        self._script = script
        self._sock = sock
        self._grace = grace
        self._setting = Setting(script)
        self._lifeline = Lifeline()
        self._children: dict[int, Child] = {}
        self._released: list[Child] = []
        self._wake = os.pipe()
        self._poller = select.poll()
        self._ending = False
        self._terminated = False

    def run(self) -> None:
        """Serve until whoever started this process is gone."""
        for descriptor in self._wake:
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._poller.register(self._wake[0], select.POLLIN)
        self._poller.register(self._sock, select.POLLIN)
        while not self._ending or self._is_needed():
            for descriptor, _ in self._poller.poll(self._patience()):
                if descriptor == self._sock.fileno():
                    self._start()
                elif descriptor == self._wake[0]:
                    os.read(descriptor, 4096)
                elif descriptor in self._children:
                    self._hear(self._children[descriptor])
            if self._terminated:
                self._terminated = False
                self._end()
            self._look()

    def _on_sigterm(self, number: int, frame: object) -> None:
        self._terminated = True

    def _start(self) -> None:
        try:
            request = receive(self._sock)
        except EOFError:
            return
        if request is None:
            self._end()
            return
        if self._script.refresh():
            # It may import other modules now.  What has begun goes on.
            self._close()
            with request.control, suppress(OSError):
                request.control.send(STALE)
            request.close()
            return
        control = request.control
        try:
            # Said before the fork: whoever does not hear it may ask another helper.
            control.send(STARTED)
            pid = os.fork()
        except OSError as error:
            with suppress(OSError):
                os.write(request.descriptors[2], f"no process could be forked: {error}\n".encode())
            tell(control, RAISED, _FAILED)
            control.close()
        else:
            if pid == 0:
                self._be_child(request)
            with suppress(OSError):  # the child does it too; whoever comes first
                os.setpgid(pid, pid)
            self._children[control.fileno()] = Child(pid, control)
            self._poller.register(control, select.POLLIN)
        request.close()

    def _close(self) -> None:
        """Take no more requests."""
        if not self._ending:
            self._ending = True
            self._poller.unregister(self._sock)
            self._sock.close()

    def _end(self) -> None:
        """End all scripts: nobody wants them any more."""
        self._close()
        for child in (*self._children.values(), *self._released):
            if not child.ended:
                child.end(self._grace)

    def _be_child(self, request: Request) -> NoReturn:
        status = _FAILED
        try:
            with suppress(OSError):
                os.setpgid(0, 0)
            self._lifeline.hold()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for descriptor in self._wake:
                os.close(descriptor)
            self._sock.close()
            for child in self._children.values():
                child.control.close()
            self._setting.prepare(request)
            kind, status = self._script.run()
            main = sys.modules.get("__main__")
            threading: Any = sys.modules.get("threading")
            if threading is not None:
                threading._shutdown()  # waits for threads that are no daemons
            atexit._run_exitfuncs()
            _end_program(main)
            _flush_files()
            self._setting.streams.flush()
            tell(request.control, kind, status)
        except BaseException as error:
            sys.__excepthook__(type(error), error, error.__traceback__)
        finally:
            os._exit(status)

    def _hear(self, child: Child) -> None:
        """A request is over, for whoever made it."""
        try:
            said = child.control.recv(16)
        except ConnectionResetError:
            said = b""
        self._poller.unregister(child.control)
        del self._children[child.control.fileno()]
        child.control.close()
        self._released.append(child)
        if said[:1] != RELEASE:
            child.end(self._grace)
        elif said[1:]:
            child.next_signal_at = time.monotonic() + int(said[1:]) / 1000

    def _look(self) -> None:
        """Tell of the children that have ended, end those whose time has come, reap."""
        for child in (*self._children.values(), *self._released):
            self._look_at(child)
        for child in [each for each in self._released if each.over]:
            if child.ended:
                _signal_group(child.pid, signal.SIGKILL)
            # From here on its number may be another's.
            os.waitpid(child.pid, 0)
            self._released.remove(child)

    def _look_at(self, child: Child) -> None:
        if time.monotonic() >= child.next_signal_at:
            if child.ended:
                _signal_group(child.pid, signal.SIGKILL)
                child.next_signal_at = float("inf")
            else:
                child.end(self._grace)
        if not child.over:
            found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if found is not None:
                child.over = True
                kind = EXITED if found.si_code == os.CLD_EXITED else SIGNALLED
                if child.control.fileno() >= 0:
                    tell(child.control, kind, found.si_status)

    def _is_needed(self) -> bool:
        """Whether there are scripts: they would end with this process."""
        return bool(self._children or self._released)

    def _patience(self) -> float | None:
        now = time.monotonic()
        ends = [each.next_signal_at for each in (*self._children.values(), *self._released)]
        first = min(ends, default=float("inf"))
        return None if first == float("inf") else max(0.0, first - now) * 1000 + 1


class Lifeline:
    """What ends the scripts when this process is killed outright.

    Nobody writes into this pipe.  When its writing end goes with the process, the kernel sends
    SIGKILL to the group that a script has named for its own opening of the other end.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def hold(self) -> None:
        """Have this process, a fork, and its group end with the one that it came from.

        Linux has what it takes; elsewhere nothing is done.
        """
        os.close(self._writer)
        signum = getattr(fcntl, "F_SETSIG", None)
        with suppress(OSError):  # no /proc
            if signum is None:
                return
            own = os.open(f"/proc/self/fd/{self._reader}", os.O_RDONLY)
            fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(own, signum, signal.SIGKILL)
            fcntl.fcntl(own, fcntl.F_SETFL, os.O_ASYNC)
            poller = select.poll()
            poller.register(own, 0)
            if poller.poll(0):
                os._exit(_FAILED)  # it was gone before the kernel was asked
        os.close(self._reader)


def _signal_group(pid: int, number: int) -> None:
    with suppress(OSError):  # it has gone already
        os.killpg(pid, number)


def _flush_files() -> None:
    """Flush files that modules keep open: the interpreter would do so at its end.

    What was there before the fork is frozen and not among these objects.
    """
    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    for each in gc.get_objects():
        if type(each) in kinds:
            with suppress(Exception):
                each.flush()


# Preloading.


def preload(script: Script, without: set[str]) -> str:
    """Import what the script imports from outside its folder, but for the modules in `without`.

    Returns the name of one after which no process may be forked, since it started a thread,
    printed something or imported from the folder; an empty string where all is well.
    """
    import warnings

    # What is printed is looked for behind descriptor 1, since a module may keep sys.stdout.
    reader, writer = os.pipe()
    null = os.dup(1)
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    os.dup2(writer, 1)
    show = warnings.showwarning
    warnings.showwarning = lambda *_, **__: None  # that cgi is deprecated, for one
    try:
        for name, names in imports_of(script):
            if name.partition(".")[0] in without:
                continue
            with suppress(BaseException):  # the script will meet it, or has a way around it
                __import__(name, fromlist=names)
            if _has_come(reader) or _threads() > 1 or _has_neighbours(script.library):
                return name.partition(".")[0]
        return ""
    finally:
        warnings.showwarning = show
        os.dup2(null, 1)
        for each in (reader, writer, null):
            os.close(each)


def _has_come(reader: int) -> bool:
    with suppress(Exception):
        sys.stdout.flush()
    try:
        return bool(os.read(reader, 1))
    except BlockingIOError:
        return False


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        threading: Any = sys.modules.get("threading")
        return threading.active_count() if threading is not None else 1


def _has_neighbours(folder: str) -> bool:
    paths = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return any(_is_below(folder, path) for path in paths)


def _is_below(folder: str, path: object) -> bool:
    """Whether a module's file is the folder's own, and not of an environment that lies in it."""
    if not isinstance(path, str) or not path.startswith(folder + os.sep):
        return False
    if path == __file__ or path.startswith(_LIBRARY):
        return False
    own = sys.prefix + os.sep
    return not (own.startswith(folder + os.sep) and path.startswith(own))


def imports_of(script: Script) -> Iterator[tuple[str, list[str]]]:
    """Yield the modules, and the names out of each, that the script and its neighbours import.

    Neighbours are the modules of its folder.  They are read, not run: what they do when they are
    imported may depend on the request.
    """
    seen: set[str] = set()
    pending = [("", script.path, script.source)]
    while pending:
        package, path, source = pending.pop()
        for name, names in _top_imports(source, path, package):
            for each in (name, *(f"{name}.{inner}" for inner in names)):
                found = _neighbour(script.library, each)
                if found and found not in seen:
                    seen.add(found)
                    is_package = os.path.basename(found) == "__init__.py"
                    inside = each if is_package else each.rpartition(".")[0]
                    with suppress(OSError), open(found, "rb") as file:
                        pending.append((inside, found, file.read()))
            if not _is_of_folder(script.library, name):
                yield name, names


def _top_imports(source: bytes, path: str, package: str) -> list[tuple[str, list[str]]]:
    import ast

    try:
        bodies: list[Any] = [ast.parse(source, path)]
    except (SyntaxError, ValueError):
        return []
    found: list[tuple[str, list[str]]] = []
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)
    while bodies:
        for node in ast.iter_child_nodes(bodies.pop(0)):
            if isinstance(node, ast.Import):
                found += [(alias.name, []) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = package.split(".")
                    parents = parents[: len(parents) - node.level + 1]
                    base = ".".join([*parents, *([base] if base else [])])
                if base and base != "__future__":
                    found.append((base, [each.name for each in node.names if each.name != "*"]))
            elif not isinstance(node, functions):
                bodies.append(node)  # the arms of try, if and with
    return found


def _neighbour(folder: str, name: str) -> str:
    """Return the file of the folder that the module `name` is, or an empty string."""
    stem = os.path.join(folder, *name.split("."))
    for path in (os.path.join(stem, "__init__.py"), stem + ".py"):
        if os.path.isfile(path):
            return path
    return ""


def _is_of_folder(folder: str, name: str) -> bool:
    stem = os.path.join(folder, name.partition(".")[0])
    if os.path.isdir(stem):
        return True
    from importlib.machinery import all_suffixes

    return any(os.path.exists(stem + suffix) for suffix in all_suffixes())


# In-process mode.


class Resident:
    """Runs the script in this process, one request at a time."""

    def __init__(self, script: Script, sock: socket.socket, most: int) -> None:
        self._script = script
        self._sock = sock
        self._setting = Setting(script)
        self._left = most
        self._own_stderr = os.dup(2)
        self._null = os.open(os.devnull, os.O_RDWR)
        self._watched: dict[str, Signature] = {}
        self._known = 0
        self._exits: list[tuple[Callable[..., object], Any, Any]] = []
        self._setting.note_putenv()
        self._wrap_atexit()
        self._state = State()
        self._logging = Logging()

    def run(self) -> None:
        """Serve until whoever started this process is gone, or a new one is to take its place."""
        self._script.refresh()
        if b"logging" in self._script.source:
            import logging  # noqa: F401  # what the script does to it can be told apart from now on
        while True:
            try:
                request = receive(self._sock)
            except EOFError:
                continue
            if request is None:
                return
            with request.control, suppress(BrokenPipeError):  # given up meanwhile
                if self._is_stale():
                    request.control.send(STALE)
                    return
                request.control.send(STARTED)
                # Context variables, decimal's precision for one, are the request's own.
                if not copy_context().run(self._answer, request):
                    return

    def _answer(self, request: Request) -> bool:
        """Answer one request; return whether this process can answer another."""
        self._setting.prepare(request)
        time.tzset()
        self._logging.watch()
        kind, status = self._script.run()
        main = sys.modules.get("__main__")
        self._left -= 1
        threading: Any = sys.modules.get("threading")
        # Threads that a request leaves running would go on in the next one's answer.
        stays = self._left > 0 and not _is_threaded()
        if not stays and threading is not None:
            threading._shutdown()
        while self._exits:
            function, arguments, keywords = self._exits.pop()
            try:
                function(*arguments, **keywords)
            except BaseException as error:
                with suppress(Exception):
                    sys.__excepthook__(type(error), error, error.__traceback__)
        if not stays:
            atexit._run_exitfuncs()
        self._logging.take_back()
        _end_program(main)
        gc.collect(1)
        if not stays:
            _flush_files()
        stays = self._state.restore() and stays
        self._setting.streams.flush()
        for number in range(3):
            os.dup2(self._null if number < 2 else self._own_stderr, number)
        # What could not be written must not stand before the next answer.
        self._setting.streams.flush()
        self._watch()
        tell(request.control, kind, status, stays=stays)
        return stays

    def _is_stale(self) -> bool:
        if self._script.refresh():
            return True
        return any(signature(path) != seen for path, seen in self._watched.items())

    def _watch(self) -> None:
        """Note the modules of the script's folder that have been imported."""
        if len(sys.modules) == self._known:
            return
        self._known = len(sys.modules)
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and _is_below(self._script.library, path):
                self._watched.setdefault(path, signature(path))

    def _wrap_atexit(self) -> None:
        """Take what the script itself registers for the end of each request."""
        register, unregister = atexit.register, atexit.unregister

        def register_for_request(function: Any, /, *arguments: Any, **keywords: Any) -> Any:
            main = sys.modules.get("__main__")
            if main is not None and sys._getframe(1).f_globals is main.__dict__:
                self._exits.append((function, arguments, keywords))
                return function
            return register(function, *arguments, **keywords)

        def unregister_for_request(function: Any, /) -> None:
            self._exits[:] = [each for each in self._exits if each[0] != function]
            unregister(function)

        atexit.register, atexit.unregister = register_for_request, unregister_for_request


class Logging:
    """What the script itself does to loggers, which is taken back when its request is over.

    What a module does to them while it is imported stays, since it is imported once.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []
        self._watched = False

    def watch(self) -> None:
        """Notice handlers that are added and levels that are set, once there is a module logging."""
        module: Any = sys.modules.get("logging")
        if module is None or self._watched:
            return
        self._watched = True
        add, set_level = module.Logger.addHandler, module.Logger.setLevel

        def add_handler(logger: Any, handler: Any) -> None:
            if handler not in logger.handlers and _is_script_at_work():
                self._undo.append(lambda: (logger.removeHandler(handler), handler.close()))
            add(logger, handler)

        def note_and_set_level(logger: Any, level: Any) -> None:
            if _is_script_at_work():
                self._undo.append(partial(set_level, logger, logger.level))
            set_level(logger, level)

        module.Logger.addHandler, module.Logger.setLevel = add_handler, note_and_set_level

    def take_back(self) -> None:
        """Undo it, the last first; a handler that is closed writes out what it holds."""
        while self._undo:
            with suppress(Exception):
                self._undo.pop()()


def _is_script_at_work() -> bool:
    """Whether the caller's caller is the script, itself or through others, and no import of its."""
    names = sys.modules["__main__"].__dict__
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_globals is names:
            return True
        if frame.f_code.co_name == "<module>":
            return False
        frame = frame.f_back
    return False


class State:
    """What a script may change and the next request must not see, as it is before the first one."""

    def __init__(self) -> None:
        import _locale
        import resource

        self._path = list(sys.path)
        hooks: list[list[Any]] = [sys.meta_path, sys.path_hooks]
        self._hooks = [(each, list(each)) for each in hooks]
        self._numbers: list[tuple[Any, Any]] = [
            (set_number, get_number())
            for set_number, get_number in (
                (sys.setrecursionlimit, sys.getrecursionlimit),
                (sys.setswitchinterval, sys.getswitchinterval),
                (
                    getattr(sys, "set_int_max_str_digits", None),
                    getattr(sys, "get_int_max_str_digits", lambda: 0),
                ),
            )
            if set_number is not None
        ]
        self._gc = gc.isenabled(), gc.get_threshold()
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._signals = {number: _signal.getsignal(number) for number in _signal.valid_signals()}
        self._mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self._set_locale = _locale.setlocale
        self._all = _locale.LC_ALL
        self._locale = _locale.setlocale(self._all, None)
        kinds = {getattr(resource, each) for each in dir(resource) if each.startswith("RLIMIT_")}
        self._get_limit, self._set_limit = resource.getrlimit, resource.setrlimit
        self._limits = {kind: resource.getrlimit(kind) for kind in kinds}
        self._rights = self._look_at_rights()

    def restore(self) -> bool:
        """Put it back; return whether that was possible."""
        self._restore_signals()
        self._restore_interpreter()
        os.umask(self._umask)
        if self._set_locale(self._all, None) != self._locale:
            self._set_locale(self._all, self._locale)
        self._restore_modules()
        with suppress(ChildProcessError):  # children that the script did not wait for
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return self._restore_limits() and self._look_at_rights() == self._rights

    def _look_at_rights(self) -> tuple[object, ...]:
        """Return what cannot be put back: who this process is, and how nice."""
        return os.getresuid(), os.getresgid(), os.getpriority(os.PRIO_PROCESS, 0)

    def _restore_signals(self) -> None:
        for timer in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF):
            _signal.setitimer(timer, 0)
        _signal.set_wakeup_fd(-1)
        for number, handler in self._signals.items():
            if _signal.getsignal(number) is not handler and handler is not None:
                _signal.signal(number, handler)
        # After the handlers: one that was blocked may be waiting.
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)

    def _restore_interpreter(self) -> None:
        if sys.path != self._path:
            sys.path[:] = self._path
        for hooks, then in self._hooks:
            if hooks != then:
                # A module that is imported once, six for example, may need its own.
                added = [each for each in hooks if each not in then and not _is_of_script(each)]
                hooks[:] = [*then, *added]
                sys.path_importer_cache.clear()
        sys.excepthook, sys.displayhook = sys.__excepthook__, sys.__displayhook__
        sys.unraisablehook, sys.breakpointhook = sys.__unraisablehook__, sys.__breakpointhook__
        sys.settrace(None)
        sys.setprofile(None)
        for set_number, number in self._numbers:
            set_number(number)
        (gc.enable if self._gc[0] else gc.disable)()
        gc.set_threshold(*self._gc[1])

    def _restore_modules(self) -> None:
        modules: Any = sys.modules
        if "warnings" in modules:
            warnings = modules["warnings"]
            warnings.resetwarnings()
            warnings.filters[:] = _FILTERS
            warnings._filters_mutated()
        if "socket" in modules and modules["socket"].getdefaulttimeout() is not None:
            modules["socket"].setdefaulttimeout(None)
        if "threading" in modules and hasattr(modules["threading"], "__excepthook__"):
            modules["threading"].excepthook = modules["threading"].__excepthook__
        if "random" in modules:
            modules["random"].seed()

    def _restore_limits(self) -> bool:
        for kind, limits in self._limits.items():
            if self._get_limit(kind) != limits:
                try:
                    self._set_limit(kind, limits)
                except (OSError, ValueError):
                    return False  # a hard limit that was lowered stays so
        return True


def _is_of_script(hook: object) -> bool:
    return "__main__" in (getattr(hook, "__module__", ""), type(hook).__module__)


_FILTERS: list[Any] = []


def main(arguments: list[str]) -> int:
    """Run this program; return its exit status."""
    mode, path, descriptor, *rest = arguments
    sock = socket.socket(fileno=int(descriptor))
    sock.set_inheritable(False)
    script = Script(path)
    # Where the interpreter has put this program's folder, the script's belongs.
    sys.path[0] = script.library
    if mode == "inprocess":
        import warnings

        _FILTERS[:] = warnings.filters
        Resident(script, sock, int(rest[0])).run()
        return 0
    script.refresh()
    grace, *without = rest
    culprit = preload(script, set(without))
    if culprit:
        # Begin anew without it: the script imports it by itself, after the fork.
        sock.set_inheritable(True)
        os.execv(sys.executable, [sys.executable, __file__, *arguments, culprit])
    gc.collect()
    gc.freeze()
    Forker(script, sock, float(grace)).run()
    return 0


if __name__ == "__main__":
    _ourselves = sys.modules["__main__"]  # the script takes its place there
    try:
        _status = main(sys.argv[1:])
    except BaseException as _error:
        sys.__excepthook__(type(_error), _error, _error.__traceback__)
        _flush()
        # Not an exit status: that would be the script's own.
        os.kill(os.getpid(), signal.SIGKILL)
        raise
    _flush()
    os._exit(_status)
