"""The stub: hands one CGI request to the resident daemon, which it starts where there is none.

Every request pays for this file, so it imports nothing that a bare interpreter would have to load
but sockets and poll; gateways itself it does not import.  `stub.c` is the same in C: change both.

    private folder (0700, ours) ─ NAME        the daemon's socket; bound and listening before the
                                              daemon runs, so that nobody waits for it to come up
                                ─ NAME.note   how often it has started and not ended by itself
                                ─ NAME.log    what it and the application print
    flock on the folder         ─ held while somebody looks, binds, listens and forks

It speaks FastCGI.  What may be done twice without harm (GET, HEAD, OPTIONS without a body) is sent
at once, and answered by plain CGI should the daemon die over it.  Everything else first asks the
daemon for its values (FastCGI §4.1): only when that is answered is stdin read and the request sent,
so that until then it may still go to another daemon or to plain CGI.
"""

import _socket
import posix
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SAFE = (b"GET", b"HEAD", b"OPTIONS")
MAX_VARIABLES = 1000
MAX_VARIABLE_BYTES = 131072
"""What the daemon takes (its options max_variables, max_variable_bytes); more is for plain CGI."""

PATIENCE = 5.0
"""Seconds for a lock or a place in the backlog; after them the request is plain CGI."""

PONG_SECONDS = 30.0
"""Seconds within which the daemon must have come up and answered a question."""

UNREAD_REQUEST_SECONDS = 15.0
"""So long a request that may be made twice waits in the socket before it is plain CGI."""

BACKLOG = 1024
PIECE = 32768
SAFE_WRITE = 4096
"""What a pipe that is ready takes without blocking (PIPE_BUF)."""

FREE_STARTS = 3
"""So many starts in a row that did not end well cost no pause."""

LONGEST_PAUSE = 60
LONG_LIFE = 120
"""Seconds after which a death is the first one again."""

MAX_LOG = 1_000_000
UNREAD_SECONDS = 5.0
MAX_UNREAD = 64 * 1024 * 1024

KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
        "VIRTUAL_ENV", "LD_LIBRARY_PATH")  # fmt: skip
KEPT_PREFIXES = (b"LC_", b"PYTHON")
"""The daemon's environment.  Everything else may be about the visitor who happened to be first."""

_GET_VALUES = b"\1\x09\0\0\0\x11\0\0\x0f\0FCGI_MPXS_CONNS"
_BEGIN = b"\1\1\0\1\0\x08\0\0\0\1\0\0\0\0\0\0"
_END_PARAMS = b"\1\4\0\1\0\0\0\0"
_END_STDIN = b"\1\5\0\1\0\0\0\0"

_SO_PEERCRED = getattr(_socket, "SO_PEERCRED", 17)


class _Unanswered(Exception):
    """The daemon has ended before it looked at the request: another may have it."""


class _Unseen(Exception):
    """The request is not with the daemon, and nothing of it is lost: plain CGI can have it."""


def run(
    name: str,
    folder: str,
    daemon: "list[str]",
    application: str,
    keep: "list[str]",
    plain: "Callable[[], int]",
    environment: "dict[bytes, bytes] | None" = None,
) -> int:
    """Answer the CGI request in the environment; return the exit status.

    `name` is the socket's, `folder` the private one ("" chooses it), `daemon` the command that
    serves on descriptor 0, `application` its file (or ""), `keep` more names of the environment for it.
    `plain` answers without a daemon.  `environment` is that of the process where it is not given.
    """
    _fill_standard_descriptors()
    if environment is None:
        environment = posix.environ
    try:
        request = _Request(environment)
        here = _open_folder(folder or _usual_folder(environment))
        try:
            start = _Start(here, name, daemon, application, _kept(environment, keep))
            sock = _reach(here, name, start)
            try:
                if not request.safe:
                    try:
                        _question(sock)
                    except _Unanswered:
                        sock.close()
                        sock = _reach(here, name, start)
                        _question(sock)
                return _Exchange(sock, request).run()
            finally:
                sock.close()
        finally:
            posix.close(here)
    except (_Unseen, _Unanswered) as why:
        _say(f"gateways: warm CGI: {why}; answering as plain CGI")
    return plain()


def _fill_standard_descriptors() -> None:
    """Open /dev/null where 0, 1 or 2 is closed: a socket would take its number."""
    opened = 0
    try:
        while opened < 3:
            opened = posix.open("/dev/null", posix.O_RDWR)
    except OSError:
        return  # a jail has none
    posix.close(opened)


def _say(text: str) -> None:
    try:  # noqa: SIM105 - contextlib is an import
        posix.write(2, text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        pass  # nobody logs


# The private folder.


def _usual_folder(environment: "dict[bytes, bytes]") -> str:
    uid = posix.geteuid()
    runtime = environment.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    if runtime.startswith("/"):
        try:
            found = posix.lstat(runtime)
            if found.st_uid == uid and found.st_mode & 0o170077 == 0o040000:
                return f"{runtime}/gateways"
        except OSError:
            pass  # the session is over, and its folder gone
    return f"/tmp/gateways-{uid}"


def _open_folder(folder: str) -> int:
    """Return a descriptor of the private folder, made where it is missing."""
    uid = posix.geteuid()
    try:
        posix.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise _Unseen(f"cannot make the folder {folder}: {error.strerror}") from None
    flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
    try:
        here = posix.open(folder, flags)
    except OSError as error:
        raise _Unseen(
            f"{folder} is no folder of ours ({error.strerror}); choose another: --runtime-dir"
        ) from None
    found = posix.fstat(here)
    if found.st_uid != uid or found.st_mode & 0o777 != 0o700:
        posix.close(here)
        raise _Unseen(
            f"{folder} belongs to uid {found.st_uid} with mode {found.st_mode & 0o777:o}, and must"
            f" belong to {uid} with mode 700; choose another: --runtime-dir"
        )
    return here


def _within(here: int, action: "Callable[[], None]") -> None:
    """Do something in the folder: the address of a socket has room for 107 bytes of path only."""
    try:  # with O_PATH since it may not be readable
        back = posix.open(".", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as error:
        raise _Unseen(f"cannot open the script's folder: {error.strerror}") from None
    try:
        posix.fchdir(here)
        action()
    finally:
        posix.fchdir(back)
        posix.close(back)


def _connect(here: int, name: str) -> "_socket.socket | None":
    """Return a connection to the daemon, None where nobody listens."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    sock.settimeout(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            _within(here, lambda: sock.connect(name))
            break
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except BlockingIOError:  # the backlog is full
            if time.monotonic() > deadline:
                sock.close()
                raise _Unseen("too many requests wait for the daemon") from None
            time.sleep(0.01)
        except OSError as error:
            sock.close()
            raise _Unseen(f"cannot connect to the daemon: {error.strerror or error}") from None
    owner = int.from_bytes(
        sock.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, 12)[4:8], sys.byteorder
    )
    if owner != posix.geteuid():
        sock.close()
        raise _Unseen(f"the daemon's socket is uid {owner}'s")
    return sock


# Starting the daemon.


class _Start:
    """What it takes to start the daemon."""

    def __init__(
        self,
        here: int,
        name: str,
        daemon: "list[str]",
        application: str,
        environment: "dict[bytes, bytes]",
    ) -> None:
        self.here = here
        self.name = name
        self.daemon = daemon
        self.application = application
        self.environment = environment


def _kept(environment: "dict[bytes, bytes]", keep: "list[str]") -> "dict[bytes, bytes]":
    wanted = {each.encode() for each in (*KEPT, *keep)}
    return {
        key: value
        for key, value in environment.items()
        if key in wanted or key.startswith(KEPT_PREFIXES)
    }


def _reach(here: int, name: str, start: _Start) -> "_socket.socket":
    """Return a connection to the daemon, started where nobody listens."""
    sock = _connect(here, name)
    if sock is not None:
        return sock
    import fcntl

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if not isinstance(error, BlockingIOError | InterruptedError):
                raise _Unseen(
                    f"cannot lock the private folder ({error.strerror}); choose another:"
                    " --runtime-dir"
                ) from None
            if time.monotonic() > deadline:
                raise _Unseen("the lock of the private folder is not to be had") from None
            time.sleep(0.005)
    try:
        sock = _connect(here, name)
        if sock is None:
            _start(start)
            sock = _connect(here, name)
    except OSError as error:
        raise _Unseen(f"cannot start the daemon: {error.strerror or error}") from None
    finally:
        fcntl.flock(here, fcntl.LOCK_UN)
    if sock is None:
        raise _Unseen("the daemon ended at once")
    return sock


def _start(start: _Start) -> None:
    """Listen, and start the daemon on it.  The folder is locked."""
    here, name = start.here, start.name
    note = _open_file(here, f"{name}.note", posix.O_RDWR)
    listener = None
    try:
        _note_start(note, start.application)
        output = _open_file(here, f"{name}.log", posix.O_WRONLY)
        if posix.fstat(output).st_size > MAX_LOG:
            posix.ftruncate(output, 0)
        try:  # noqa: SIM105 - contextlib is an import
            posix.unlink(name, dir_fd=here)
        except FileNotFoundError:
            pass
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        listener.setblocking(True)
        before = posix.umask(0o077)
        try:
            _within(here, lambda: listener.bind(name))
        finally:
            posix.umask(before)
        listener.listen(BACKLOG)
        pid = posix.fork()
        if pid == 0:
            try:
                _become(listener.fileno(), output, note, start)
            finally:
                posix._exit(127)
        try:  # noqa: SIM105 - contextlib is an import
            posix.waitpid(pid, 0)
        except ChildProcessError:
            pass  # SIGCHLD is ignored: it has ended, and the kernel has buried it
        posix.close(output)
    finally:
        posix.close(note)
        if listener is not None:
            listener.close()


def _open_file(here: int, name: str, access: int) -> int:
    """Open a plain file of the private folder, made where it is missing."""
    # A pipe would be waited for without O_NONBLOCK; to a file it means nothing.
    flags = posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_APPEND | posix.O_NONBLOCK
    try:
        file = posix.open(name, flags | access, 0o600, dir_fd=here)
    except OSError as error:
        raise _Unseen(f"cannot write to {name} in the private folder: {error.strerror}") from None
    if posix.fstat(file).st_mode & 0o170000 != 0o100000:
        posix.close(file)
        raise _Unseen(f"in the private folder, remove {name}: it is no plain file")
    return file


def _note_start(note: int, application: str) -> None:
    """Count this start; _Unseen when the last ones failed and it is too early for another."""
    found = posix.fstat(note)
    starts = found.st_size
    now = time.time()
    age = now - found.st_mtime
    try:
        mended = bool(application) and found.st_mtime < posix.stat(application).st_mtime <= now
    except OSError:
        mended = False
    if age < 0 or age > LONG_LIFE or mended:
        starts = 0
        posix.ftruncate(note, 0)
    pause = 0 if starts < FREE_STARTS else min(1 << min(starts - FREE_STARTS, 6), LONGEST_PAUSE)
    if age < pause and starts:
        raise _Unseen(
            f"the daemon has failed {starts} times, the next start is in {pause - age:.0f} s;"
            " its .log in the private folder says why"
        )
    posix.write(note, b"+")


def _become(listener: int, output: int, note: int, start: _Start) -> None:
    """In the child: turn into the daemon, which belongs to nobody."""
    import _signal  # type: ignore[import-not-found]  # typeshed leaves it out

    posix.setsid()
    if posix.fork():
        posix._exit(0)
    for number in range(1, 32):
        if number not in (9, 19):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
    # Out of the way first: any of them may be 0, 1, 2 or 3 where those were closed.
    moved = []
    for descriptor in (listener, output, note):
        while descriptor < 10:
            descriptor = posix.dup(descriptor)
        moved.append(descriptor)
    for descriptor, target in ((moved[0], 0), (moved[1], 1), (moved[1], 2), (moved[2], 3)):
        posix.dup2(descriptor, target)
    posix.closerange(4, posix.sysconf("SC_OPEN_MAX"))
    posix.execve(start.daemon[0], start.daemon, start.environment)


# The request.


class _Request:
    """The request in the environment: its head as FastCGI, and how much body follows."""

    def __init__(self, environment: "dict[bytes, bytes]") -> None:
        pieces = []
        for name, value in environment.items():
            pieces += [_length(len(name)), _length(len(value)), name, value]
        params = b"".join(pieces)
        if len(environment) > MAX_VARIABLES or len(params) > MAX_VARIABLE_BYTES:
            raise _Unseen("the request's head is longer than the daemon takes")
        records = [_BEGIN]
        for start in range(0, len(params), 65528):
            piece = params[start : start + 65528]
            records += [b"\1\4\0\1", len(piece).to_bytes(2, "big"), b"\0\0", piece]
        records.append(_END_PARAMS)
        self.head = b"".join(records)
        length = environment.get(b"CONTENT_LENGTH", b"")
        self.body: int | None = 0
        """Bytes of body to read, None to the end of file."""
        if length.isdigit() and len(length) < 19:
            self.body = int(length)
        elif length:
            raise _Unseen("its CONTENT_LENGTH is no length")
        elif environment.get(b"HTTP_TRANSFER_ENCODING"):
            self.body = None
        self.safe = self.body == 0 and environment.get(b"REQUEST_METHOD") in SAFE


def _length(number: int) -> bytes:
    """FastCGI 3.4."""
    return bytes((number,)) if number < 128 else (number | 0x80000000).to_bytes(4, "big")


def _question(sock: "_socket.socket") -> None:
    """Ask the daemon for its values, so as to know that it lives; _Unanswered where it does not."""
    try:
        sock.settimeout(PONG_SECONDS)
        # The request is opened at once, so that a daemon which is about to end waits for the rest of
        # it; no application is told of a request whose variables have not all come.
        sock.send(_GET_VALUES + _BEGIN)
        answer = b""
        while len(answer) < 8 or len(answer) < 8 + answer[4] * 256 + answer[5] + answer[6]:
            piece = sock.recv(256)
            if not piece:
                raise _Unanswered("the daemon ended before it took the request")
            answer += piece
    except TimeoutError:
        raise _Unseen("the daemon does not answer") from None
    except OSError as error:
        raise _Unanswered(
            f"the daemon ended before it took the request: {error.strerror}"
        ) from None
    if answer[1] != 10:
        raise _Unseen("something else than the daemon answers at its socket")


class _Gone(Exception):
    """The web server does not want the answer any more."""


class _Exchange:
    """One request on its way to the daemon, and the answer on its way back."""

    def __init__(self, sock: "_socket.socket", request: _Request) -> None:
        self.sock = sock
        self.safe = request.safe
        self.left = request.body
        begun = 0 if request.safe else len(_BEGIN)  # _question has sent that
        self.outbox = memoryview(request.head + (_END_STDIN if request.body == 0 else b""))[begun:]
        self.sent_all = request.body == 0
        self.inbox = b""
        self.answer = b""
        self.answered = False
        self.started = False
        self.refused = False
        self.status = -1

    def run(self) -> int:
        sock = self.sock
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        poll.register(1, 0)
        try:
            while self.status < 0:
                self.send()
                self.wait(poll)
                broken = self.receive()
                self.deliver()
                if broken and self.status < 0:
                    return self.give_up(broken)
            if not self.answered:
                return self.give_up(
                    "it did not take the request" if self.refused else "it sent no answer"
                )
            while self.answer:
                self.deliver(True)
            self.read_rest()
        except _Gone:
            return 1
        return min(self.status, 255)

    def wait(self, poll: "select.poll") -> None:
        poll.modify(
            self.sock.fileno(),
            (0 if self.answer else select.POLLIN) | (select.POLLOUT if self.outbox else 0),
        )
        poll.modify(1, select.POLLOUT if self.answer else 0)
        reading = not self.outbox and not self.sent_all
        if reading:
            poll.register(0, select.POLLIN)
        unsure = self.safe and not self.answered
        found = dict(poll.poll(UNREAD_REQUEST_SECONDS * 1000 if unsure else None))
        if not found:
            self.check_taken()
        if reading:
            poll.unregister(0)
            if found.get(0):
                self.take_body()
        if found.get(1, 0) & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            raise _Gone

    def check_taken(self) -> None:
        """Nothing has come for long: plain CGI if the daemon has not even read the request.

        It may be stopped, or out of threads or descriptors.  What it has read takes as long as the
        application does.
        """
        import fcntl
        import termios

        try:
            # What the other end has not read: SIOCOUTQ is the same number.
            unread = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return  # not this kernel
        if any(unread):
            raise _Unseen("the daemon does not come to read the request")

    def take_body(self) -> None:
        size = PIECE if self.left is None else min(PIECE, self.left)
        try:
            data = posix.read(0, size)
        except BlockingIOError:
            return
        except OSError as error:
            raise _Gone from error  # under mod_cgid stdin is a socket: the visitor has left
        if self.left is not None:
            self.left -= len(data)
        if data:
            framed = b"\1\5\0\1" + len(data).to_bytes(2, "big") + b"\0\0" + data
        else:
            framed = b""
        if not data or self.left == 0:
            self.sent_all = True
            framed += _END_STDIN
        self.outbox = memoryview(framed)

    def send(self) -> None:
        """Send what waits."""
        while self.outbox:
            try:
                self.outbox = self.outbox[self.sock.send(self.outbox) :]
            except BlockingIOError:
                return
            except OSError:
                # It may have answered before it closed; if not, that is seen when it is read.
                self.outbox = self.outbox[:0]
                self.sent_all = True

    def receive(self) -> str:
        """Take what has come; return what is wrong, if anything."""
        if self.answer:
            return ""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return ""
        except OSError as error:
            return str(error.strerror)
        self.inbox += data
        inbox = self.inbox
        at = 0
        while len(inbox) - at >= 8 and self.status < 0:
            size = inbox[at + 4] * 256 + inbox[at + 5]
            end = at + 8 + size
            if len(inbox) < end + inbox[at + 6]:
                break
            kind, content = inbox[at + 1], inbox[at + 8 : end]
            if kind == 6:
                self.answer += content
                self.answered = self.answered or bool(content)
            elif kind == 7:
                _log(content)
            elif kind == 3:
                self.status = int.from_bytes(content[:4], "big")
                self.refused = content[4:5] > b"\0"  # protocolStatus (FastCGI 5.5)
            at = end + inbox[at + 6]
        self.inbox = inbox[at:]
        return "" if data else "it closed the connection"

    def deliver(self, all_sent: bool = False) -> None:
        """Write of the answer what the web server takes."""
        if not self.answer:
            return
        # While the body is on its way, writing must not block: the web server may do so as well.
        size = len(self.answer) if self.sent_all or all_sent else SAFE_WRITE
        if size == SAFE_WRITE:
            poll = select.poll()
            poll.register(1, select.POLLOUT)
            if not poll.poll(0):
                return
        self.started = True
        try:
            self.answer = self.answer[posix.write(1, self.answer[:size]) :]
        except BlockingIOError:  # somebody has made it so
            if self.sent_all or all_sent:
                poll = select.poll()
                poll.register(1, select.POLLOUT)
                poll.poll()
        except OSError as error:
            raise _Gone from error

    def give_up(self, why: str) -> int:
        """The daemon has died over this request."""
        while self.answer:
            self.deliver(True)
        if self.started:
            _say(f"gateways: warm CGI: the daemon broke the answer off: {why}")
            return 1
        if self.safe:
            raise _Unseen(f"the daemon ended over the request: {why}")
        _say(
            f"gateways: warm CGI: the daemon ended over the request: {why}; whether the application"
            " has acted on it is not known, so it is not sent again"
        )
        self.answer = (
            b"Status: 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
            b"The application ended before it answered. It may or may not have acted on this"
            b" request.\n"
        )
        while self.answer:
            self.deliver(True)
        return 1

    def read_rest(self) -> None:
        """Read what is left of the body: closed over it, a mod_cgid socket would lose the answer."""
        if self.sent_all and not self.left:
            return
        poll = select.poll()
        poll.register(0, select.POLLIN)
        deadline = time.monotonic() + UNREAD_SECONDS
        most = MAX_UNREAD if self.left is None else min(MAX_UNREAD, self.left)
        while most > 0 and (rest := deadline - time.monotonic()) > 0 and poll.poll(rest * 1000):
            try:
                size = len(posix.read(0, min(PIECE, most)))
            except OSError:
                return
            if not size:
                return
            most -= size


def _log(content: bytes) -> None:
    try:
        while content:
            content = content[posix.write(2, content) :]
    except OSError:
        pass  # nobody logs
