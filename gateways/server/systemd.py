"""Socket activation: the listening sockets that systemd hands over (sd_listen_fds(3)).

`LISTEN_FDS` descriptors from 3 on are for the process that `LISTEN_PID` names; `LISTEN_FDNAMES`
names each (`FileDescriptorName=` in the unit, `--fdname` of systemd-socket-activate).  A name in
which a protocol stands as a word, such as "scgi" or "shop-scgi.socket", tells what is spoken there.
"""

from __future__ import annotations

import os
import socket

from gateways.errors import ConfigurationError
from gateways.server.protocols import CODECS

FIRST = 3
"""The first descriptor (SD_LISTEN_FDS_START)."""

MOST = 1024
"""Sockets that are believed to have been handed over."""

_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def take_sockets(default_protocol: str) -> tuple[str, ...]:
    """Return the addresses of the sockets that are for this process, () where none are.

    The variables are taken out of the environment, and programs that this one starts do not
    inherit the descriptors.  Raises ConfigurationError for numbers that are none and descriptors
    that are not listening sockets.
    """
    given = {name: os.environ.pop(name, "") for name in _VARIABLES}
    pid = _number("LISTEN_PID", given["LISTEN_PID"])
    if pid != os.getpid():
        return ()
    count = _number("LISTEN_FDS", given["LISTEN_FDS"])
    if count > MOST:
        raise ConfigurationError(f"LISTEN_FDS is {count}, and at most {MOST} sockets are taken")
    names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else []
    names += [""] * (count - len(names))
    return tuple(
        f"{_protocol(name, default_protocol)}+fd:{_checked(descriptor)}"
        for descriptor, name in enumerate(names[:count], FIRST)
    )


def _number(name: str, text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ConfigurationError(
            f"{name} in the environment is {text[:40]!r}, and a decimal number was expected:"
            " systemd sets it; by hand, leave it away"
        )
    return int(text)


def _protocol(name: str, default: str) -> str:
    letters = "".join(each if each.isalnum() else " " for each in name.lower())
    words = letters.replace("fastcgi", "fcgi").split()
    named = {word for word in words if word in CODECS}
    if len(named) > 1:
        raise ConfigurationError(
            f"the socket's name {name!r} (FileDescriptorName=) names several protocols; name one"
        )
    return named.pop() if named else default


def _checked(descriptor: int) -> int:
    """Return the descriptor of a listening socket, having kept it from programs we start."""
    try:
        os.set_inheritable(descriptor, False)
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return descriptor
            connected = sock.type == socket.SOCK_STREAM
    except OSError as error:
        raise ConfigurationError(
            f"LISTEN_FDS names descriptor {descriptor}, which is no socket: {error.strerror}"
        ) from None
    if connected:
        raise ConfigurationError(
            f"descriptor {descriptor} is one connection: systemd started this with Accept=yes"
            " (systemd-socket-activate --accept); a listening socket was expected: say Accept=no,"
            " since one process answers many requests"
        )
    raise ConfigurationError(
        f"descriptor {descriptor} is not a listening stream socket; in the .socket unit write"
        " ListenStream= only"
    )
