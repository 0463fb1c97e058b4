"""Listening sockets: opened, taken over from whoever started us, and cleaned up after.

A unix socket's path is taken over from a dead server only when it is a socket, nobody answers
there, and no other start is looking at it at the same moment: the folder is locked while we look,
unlink, bind and listen, so that two starts cannot steal each other's socket.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from gateways.addresses import Address
from gateways.errors import ConfigurationError
from gateways.server.log import log
from gateways.server.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ipaddress
    from typing import Any

    _Network = ipaddress.IPv4Network | ipaddress.IPv6Network
    _Address = ipaddress.IPv4Address | ipaddress.IPv6Address

WEB_SERVER_USERS = ("www-data", "nginx", "apache", "http", "www")
"""The users that distributions run nginx and Apache as."""

WEB_SERVER_ADDRS = "FCGI_WEB_SERVER_ADDRS"
"""The variable in which a process manager names the web servers' addresses (FastCGI 1.0 §3.2)."""

LOCK_SECONDS = 3.0
"""How long a start or a stop waits for others who are starting or stopping in the same folder."""

Accepted = tuple[int, int, tuple[str, str], tuple[str, str]]
"""A descriptor, its address family, the peer's address and this end's own."""


class Listener:
    """A listening socket at an address."""

    def __init__(self, address: Address, sock: socket.socket, options: Options) -> None:
        self.address = address
        if address.family == "tcp" and not address.port:
            # The kernel has chosen a port; the log is to name it.
            port = sock.getsockname()[1]
            self.address = Address(address.protocol, "tcp", host=address.host, port=port)
        self.inherited = address.family == "fd"
        self.managed = self.inherited and address.fd == 0
        """Whether a process manager that knows FastCGI has started us, and stops us its own way."""
        self._socket = sock
        self._is_unix = sock.family == socket.AF_UNIX
        self._networks = _networks(options)
        self._web_servers = web_servers()
        self._owner = os.getpid()
        self._refuses = self._is_unix and (options.exclusive or not self.inherited)
        self._identity = _identity(address.path) if address.family == "unix" else None
        sock.setblocking(False)
        # What socket.accept itself calls.
        self._accept: Callable[[], tuple[int, Any]] = sock._accept  # type: ignore[attr-defined]  # typeshed leaves it out

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def accept(self) -> Accepted | None:
        """Accept a connection; None where it came from somewhere that is not allowed in.

        Raises BlockingIOError when there is none, OSError for what accept(2) can fail with.
        """
        # A socket object would cost as much as the rest of accepting; most connections that carry
        # one request never need it.
        descriptor, name = self._accept()
        os.set_blocking(descriptor, False)
        if self._is_unix:
            return descriptor, socket.AF_UNIX, ("", ""), ("", "")
        return self._accepted_over_tcp(descriptor, name)

    def _accepted_over_tcp(self, descriptor: int, name: Any) -> Accepted | None:
        host = str(name[0])
        sock = socket.socket(self._socket.family, socket.SOCK_STREAM, 0, descriptor)
        if refused := self._why_refused(host):
            log.warning("refused a connection from %s: %s", host, refused)
            sock.close()
            return None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        local = sock.getsockname()
        family, peer = sock.family, (host, str(name[1]))
        return sock.detach(), family, peer, (str(local[0]), str(local[1]))

    def _why_refused(self, host: str) -> str:
        """Return why nobody at this address may connect, "" where they may."""
        if self._networks and not _is_allowed(host, self._networks):
            return "it is in no --allow network"
        if self._web_servers and _address(host) not in self._web_servers:
            return f"it is not in {WEB_SERVER_ADDRS}"
        return ""

    def unlink(self) -> None:
        """Remove a unix socket's path, if it still is the one that this process made."""
        if self._identity is None or os.getpid() != self._owner:
            return
        try:
            with _locked_folder(self.address.path):
                if _identity(self.address.path) == self._identity:
                    os.unlink(self.address.path)
        except OSError as error:
            log.warning("cannot remove the socket %s: %s", self.address.path, error)
        self._identity = None

    def refuse(self) -> None:
        """Have the kernel refuse who connects from now on, where that harms nobody else.

        Those who have connected before wait to be accepted, as they did.  So nobody is reset
        between the last accept and the close.  Only the process that opened the socket may say so
        for all who share it, and only of a unix socket: on Linux its shutdown does just this.
        """
        self.unlink()
        if self._refuses and os.getpid() == self._owner:
            with suppress(OSError):  # it is closed already, or this system cannot
                self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def open_listener(address: Address, options: Options) -> Listener:
    """Open a listening socket; ConfigurationError, with the remedy, when that cannot be."""
    _networks(options)  # a mistake there is told before a socket is opened
    web_servers()
    openers = {"unix": _open_unix, "tcp": _open_tcp, "fd": _take_over}
    return Listener(address, openers[address.family](address, options), options)


def _take_over(address: Address, options: Options) -> socket.socket:
    try:
        sock = socket.socket(fileno=os.dup(address.fd))
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listening = 0
    if not listening:
        raise ConfigurationError(
            f"descriptor {address.fd} is not a listening socket; spawn-fcgi, multiwatch, mod_fcgid or"
            " lighttpd hand one over, by hand give an address: -b /run/app.sock or -b 127.0.0.1:9000"
        )
    if address.fd == 0:
        # It is nobody's standard input: programs that the application starts would inherit it, and
        # while it is open nobody is refused who connects although this server is stopping.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
    return sock


def _open_tcp(address: Address, options: Options) -> socket.socket:
    import ipaddress  # a daemon on a unix socket does without it

    try:
        found = socket.getaddrinfo(
            address.host or None,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except socket.gaierror as error:
        raise ConfigurationError(
            f"cannot listen on {address}: the host name {address.host!r} is not known ({error.strerror})"
        ) from error
    family, kind, protocol, _, where = found[0]
    if not (options.allow or web_servers()) and not ipaddress.ip_address(where[0]).is_loopback:
        raise ConfigurationError(
            f"refusing to listen on {address}: whoever can connect can run the application as any user;"
            " listen on 127.0.0.1, or name the web server's network with --allow 10.0.0.0/8"
        )
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(where)
        sock.listen(options.backlog)
    except OSError as error:
        sock.close()
        raise ConfigurationError(_why_not(address, error)) from error
    return sock


def _open_unix(address: Address, options: Options) -> socket.socket:
    path = address.path
    owner = _number(pwd.getpwnam, options.socket_owner, "socket-owner", "pw_uid")
    group = _number(grp.getgrnam, options.socket_group, "socket-group", "gr_gid")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked_folder(path):
            _remove_stale(path)
            # The path comes into being with no permissions; nobody gets in before it is right.
            os.fchmod(sock.fileno(), 0)
            sock.bind(path)
            try:
                if owner != -1 or group != -1:
                    os.chown(path, owner, group)
                os.chmod(path, options.socket_mode)
                sock.listen(options.backlog)
            except OSError:
                os.unlink(path)
                raise
    except OSError as error:
        sock.close()
        raise ConfigurationError(_why_not(address, error)) from error
    except ConfigurationError:
        sock.close()
        raise
    _warn_of_permissions(path)
    return sock


@contextmanager
def _locked_folder(path: str) -> Iterator[None]:
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(folder)
        yield
    finally:
        os.close(folder)


def _lock(folder: int) -> None:
    """Lock a folder; TimeoutError when somebody (anybody who can read it) holds it for too long."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT, "another process holds the lock of its folder"
                ) from None
            time.sleep(0.05)
        else:
            return


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(
            f"cannot listen on {path}: a file that is not a socket is there; choose another path or remove it"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # nobody listens: a server died here
            return
        except BlockingIOError:
            pass  # somebody listens and is busy
        except PermissionError:
            raise ConfigurationError(
                f"cannot listen on {path}: somebody else's socket is there, and nobody but its owner can"
                " tell whether a server uses it; choose another path, or remove it"
            ) from None
    raise ConfigurationError(
        f"cannot listen on {path}: a server is running there; stop it, or choose another path"
    )


def _number(look_up: object, name: str, option: str, field: str) -> int:
    if not name:
        return -1
    if name.isdecimal():
        return int(name)
    try:
        return int(getattr(look_up(name), field))  # type: ignore[operator]  # getpwnam or getgrnam
    except KeyError:
        raise ConfigurationError(f"--{option} {name}: there is no such name here") from None


def _why_not(address: Address, error: OSError) -> str:
    where = address.path or f"{address.host}:{address.port}"
    folder = os.path.dirname(address.path) or "."
    reasons = {
        errno.EADDRINUSE: "something else listens there; stop it, or choose another address",
        errno.EADDRNOTAVAIL: "this machine does not have that address; 127.0.0.1 is always there",
        errno.EACCES: (
            f"no permission; choose a folder where the user {_user_name()!r} may write"
            if address.path
            else "no permission; ports below 1024 are for root, choose a higher one"
        ),
        errno.EPERM: f"the user {_user_name()!r} may not give the socket to that owner or group",
        errno.ENOENT: f"the folder {folder} does not exist; make it: mkdir -p {folder}",
        errno.ENOTDIR: f"{folder} is not a folder",
        errno.EROFS: f"{folder} is read-only",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {where}: {reason}"


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _warn_of_permissions(path: str) -> None:
    """Say so when the web server's user will not be able to connect: the commonest cause of a 502."""
    for name in WEB_SERVER_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if user.pw_uid == os.geteuid():
            continue
        groups = set(os.getgrouplist(name, user.pw_gid))
        barred = _barred_at(path, user.pw_uid, groups)
        if barred:
            log.warning(
                "a web server running as %s cannot connect to %s: it has no access to %s; "
                "say --socket-group %s (and chmod o+x the folders above)",
                name,
                path,
                barred,
                name,
            )


def _barred_at(path: str, uid: int, groups: set[int]) -> str:
    """Return the first part of `path` that the user cannot pass, or write to at the end."""
    folders = []
    folder = os.path.abspath(path)
    while folder != "/":
        folder = os.path.dirname(folder)
        folders.append(folder)
    for part, bit in [*((each, 0o1) for each in reversed(folders)), (path, 0o2)]:
        found = os.stat(part)
        shift = 6 if found.st_uid == uid else 3 if found.st_gid in groups else 0
        if not (found.st_mode >> shift) & bit:
            return part
    return ""


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _networks(options: Options) -> list[_Network]:
    return [_network(text) for text in options.allow]


def _network(text: str) -> _Network:
    import ipaddress

    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigurationError(
            f"--allow {text}: {error}; write a network as 10.0.0.0/8"
        ) from error


def web_servers() -> frozenset[_Address]:
    """Return the addresses that may connect over TCP (FastCGI 1.0 §3.2), none where all may.

    Raises ConfigurationError for a list that is malformed.
    """
    text = os.environ.get(WEB_SERVER_ADDRS, "")
    try:
        return frozenset(_address(each) for each in text.split(",")) if text else frozenset()
    except ValueError as error:
        raise ConfigurationError(
            f"{WEB_SERVER_ADDRS} in the environment is {text[:200]!r}: {error}; write the web servers'"
            " addresses with commas between them and no spaces, as 192.0.2.1,2001:db8::1, or unset it"
        ) from None


def _address(text: str) -> _Address:
    """Return an IP address without its zone; an IPv4 address that came over IPv6 as it was."""
    import ipaddress

    address = ipaddress.ip_address(text.partition("%")[0] if ":" in text else text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _is_allowed(host: str, networks: Sequence[_Network]) -> bool:
    address = _address(host)
    return address.is_loopback or any(address in network for network in networks)
