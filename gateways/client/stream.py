"""A client's socket: connect, wait for it, send, receive.

The only place where an OSError of a socket becomes one of ours, with what to do about it.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import select
import socket
import stat
import time

from gateways.addresses import Address
from gateways.errors import ConfigurationError, ConnectFailed, TransportError, TransportTimeout

RECEIVE_SIZE = 65536

# A full backlog makes a unix socket answer EAGAIN at once, where TCP would wait.
_FULL_BACKLOG_PAUSE = 0.01


class Stream:
    """A connected, non-blocking socket and the address it leads to."""

    def __init__(
        self, connected: socket.socket, address: Address, timeout: float | None = None
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._address = address
        self._timeout = timeout
        self._poll = select.poll()

    def wait(self, want_to_send: bool, deadline: float | None) -> tuple[bool, bool]:
        """Wait until there is something to receive, or room to send; return which of them.

        Raises TransportTimeout when `deadline`, of the monotonic clock, passes first.
        """
        mask = select.POLLIN | (select.POLLOUT if want_to_send else 0)
        self._poll.register(self._socket, mask)
        milliseconds = None
        if deadline is not None:
            milliseconds = max(0.0, deadline - time.monotonic()) * 1000
        for _, seen in self._poll.poll(milliseconds):
            # A hang-up or an error is learnt from the call that meets it.
            ended = bool(seen & ~(select.POLLIN | select.POLLOUT))
            return ended or bool(seen & select.POLLIN), bool(seen & select.POLLOUT)
        awaited = "take the request" if want_to_send else "answer"
        raise _error(
            TransportTimeout,
            errno.ETIMEDOUT,
            f"{self._address} did not {awaited} within {self._timeout:g} seconds",
        )

    def receive(self) -> bytes | None:
        """Return what has arrived, `b""` at end of file, None when nothing has."""
        try:
            return self._socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            text = f"{self._address} reset the connection before its answer was complete"
            raise _error(TransportError, error.errno, text) from error
        except OSError as error:
            text = f"{self._address}: {error.strerror}"
            raise _error(TransportError, error.errno, text) from error

    def send(self, data: memoryview) -> int | None:
        """Send some of `data` and return how much; None when the peer takes nothing any more.

        A peer may have answered already and closed: then what it sent is still to be received.
        """
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL if _HAS_NOSIGNAL else 0)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            return None
        except OSError as error:
            text = f"{self._address}: {error.strerror}"
            raise _error(TransportError, error.errno, text) from error

    def close(self) -> None:
        self._socket.close()


_HAS_NOSIGNAL = hasattr(socket, "MSG_NOSIGNAL")


def open_stream(address: Address, timeout: float | None) -> Stream:
    """Connect to `address` within `timeout` seconds, for ever when None.

    Raises ConnectFailed, TransportTimeout (both OSErrors), and ConfigurationError for a listening
    descriptor, which nobody can connect to.
    """
    if address.family == "fd":
        raise ConfigurationError(
            f"{address} is a listening descriptor, which only a server can use;"
            f" write the address it is bound to"
        )
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        if address.family == "unix":
            return Stream(_connect_unix(address.path, deadline), address, timeout)
        return Stream(_connect_tcp(address, timeout), address, timeout)
    except TimeoutError as error:
        text = f"{address} did not accept the connection within {timeout or 0:g} seconds"
        raise _error(TransportTimeout, errno.ETIMEDOUT, text) from error
    except UnicodeError as error:
        # What getaddrinfo raises for a name that IDNA cannot encode, such as "a..b".
        text = f'"{address.host}" in {address} cannot be a host name; check its spelling'
        raise _error(ConnectFailed, errno.EINVAL, text) from error
    except OSError as error:
        raise _error(ConnectFailed, error.errno, _why(error, address)) from error


def _error(kind: type[TransportError], number: int | None, text: str) -> TransportError:
    """Make the error so that its text is `text` alone, without OSError's "[Errno 111]"."""
    error = kind(text)
    error.errno = number
    return error


def _connect_tcp(address: Address, timeout: float | None) -> socket.socket:
    connected = socket.create_connection((address.host, address.port), timeout)
    # A record's header and its content are one write, so waiting to fill a packet only costs.
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _connect_unix(path: str, deadline: float | None) -> socket.socket:
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        while True:
            try:
                connecting.connect(path)
                return connecting
            except BlockingIOError:
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(_FULL_BACKLOG_PAUSE)
    except BaseException:
        connecting.close()
        raise


def _why(error: OSError, address: Address) -> str:
    """Say in a line why nothing could be reached, and what to do about it."""
    if isinstance(error, socket.gaierror):
        return f'the host name "{address.host}" in {address} is not known; check its spelling'
    if address.family == "unix":
        return _why_unix(error, address)
    if error.errno == errno.ECONNREFUSED:
        return f"nobody listens at {address}; start the application there, or check the port"
    return f"cannot connect to {address}: {error.strerror or error}"


def _why_unix(error: OSError, address: Address) -> str:
    path = address.path
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no socket file {path}; start the application there, or check the path"
    if error.errno == errno.EACCES:
        return f"no permission to connect to {path}{_owner(path)}; {_permission_remedy(path)}"
    if error.errno == errno.ECONNREFUSED:
        if not _is_socket(path):
            return f"{path} is not a socket; check the path"
        return (
            f"nobody listens at {path}: its server has stopped and left the file behind;"
            f" start the application again"
        )
    return f"cannot connect to {address}: {error.strerror or error}"


def _owner(path: str) -> str:
    """Return who may use the socket file, as " (mode 0660, owner root, group www-data)"."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f" (mode {stat.S_IMODE(status.st_mode):04o}, owner {owner}, group {group})"


def _permission_remedy(path: str) -> str:
    if not os.path.exists(path):
        return "one of the folders above it may not be entered by this user"
    return "join the group, or start the server with a --socket-group that this user is in"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
