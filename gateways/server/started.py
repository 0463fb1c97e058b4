"""What started this process, found out by looking at it, and then doing what that asks for.

In this order, the surest sign first:

1. `FCGI_FORCE_CGI` is set and not empty: a CGI request, whatever else there is (libfcgi's rule);
2. sockets of systemd: LISTEN_PID is this process (`systemd.py`);
3. descriptor 0 is a listening socket: a FastCGI application (FastCGI 1.0 §2.2), as mod_fcgid,
   lighttpd, spawn-fcgi, multiwatch and h2o start one;
4. the meta-variables of a CGI request (RFC 3875 §4.1), of which one alone proves nothing;
5. none of these: a person at a terminal, a service manager, a container.

Every CGI request comes this way, so nothing is imported that it does not need.  A connection as
descriptor 0 tells nothing by itself: Apache's mod_cgid gives one to each CGI script, and sshd one
to each command.
"""

from __future__ import annotations

import os
import stat

from gateways.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Application = Callable[..., Iterable[bytes]]

CGI = "CGI"
SOCKETS = "SOCKETS"
NOTHING = "NOTHING"

DEFAULT_ADDRESSES = {"fcgi": "fcgi://127.0.0.1:9000", "scgi": "scgi://127.0.0.1:4000"}
"""Where a daemon listens that nobody has given a socket or an address."""

_METHOD_OR_GATEWAY = ("REQUEST_METHOD", "GATEWAY_INTERFACE")
_BESIDE_THEM = ("SERVER_PROTOCOL", "SCRIPT_NAME", "QUERY_STRING", "PATH_INFO")

_CGI_OPTIONS = ("script_name", "debug", "remote_user", "crash_log")
"""The options that mean something for one CGI request; the others are only checked."""


class Start:
    """What started this process: `kind` is CGI, SOCKETS (at `addresses`) or NOTHING.

    `remark` is what may have been meant where it is NOTHING.
    """

    __slots__ = ("kind", "addresses", "remark")

    def __init__(self, kind: str, addresses: tuple[str, ...] = (), remark: str = "") -> None:
        self.kind = kind
        self.addresses = addresses
        self.remark = remark


def look(default_protocol: str = "fcgi") -> Start:
    """Return what started this process; sockets whose protocol nothing names speak the default one.

    Systemd's variables are taken out of the environment.  Raises ConfigurationError where it
    was started for one connection, as inetd does.
    """
    if os.environ.get("FCGI_FORCE_CGI"):
        return Start(CGI)
    remark = _remark(os.environ)
    if "LISTEN_PID" in os.environ or "LISTEN_FDS" in os.environ:
        from gateways.server import systemd

        if addresses := systemd.take_sockets(default_protocol):
            return Start(SOCKETS, addresses)
    socket_0 = _socket_0()
    if socket_0 == "listening":
        return Start(SOCKETS, (f"{default_protocol}+fd:0",))
    if is_cgi_request(os.environ):
        return Start(CGI)
    if socket_0 == "accepted":
        raise ConfigurationError(
            "descriptor 0 is one connection, as inetd and systemd-socket-activate --inetd hand it"
            " over; a listening socket was expected: for systemd say Accept=no and StandardInput=null"
        )
    return Start(NOTHING, remark=remark)


def is_cgi_request(variables: Mapping[str, str]) -> bool:
    """Return whether these are the meta-variables of a CGI request.

    RFC 3875 demands five of those that are looked for.  One is set by hand now and then, or left
    over, so there must be two, REQUEST_METHOD or GATEWAY_INTERFACE among them.
    """
    sure = sum(name in variables for name in _METHOD_OR_GATEWAY)
    return sure == 2 or (sure == 1 and any(name in variables for name in _BESIDE_THEM))


def _remark(variables: Mapping[str, str]) -> str:
    pid = variables.get("LISTEN_PID", "")
    if pid and pid != str(os.getpid()):
        return (
            f"LISTEN_PID is {pid[:20]} and this process {os.getpid()}: systemd's sockets are for"
            " another one; a shell script in between has to start this one with exec"
        )
    for name in _METHOD_OR_GATEWAY:
        if name in variables:
            return (
                f"{name} is set, but a CGI request has more variables (RFC 3875, section 4.1); to"
                " have it answered all the same, set FCGI_FORCE_CGI=1"
            )
    return ""


def _socket_0() -> str:
    """Return "listening", "accepted" (a connection that came to some address) or ""."""
    try:
        if not stat.S_ISSOCK(os.fstat(0).st_mode):
            return ""
    except OSError:
        return ""  # closed
    # Not the module socket, which costs ten milliseconds: CGI scripts under mod_cgid come here.
    import _socket

    try:
        sock = _socket.socket(fileno=0)
    except OSError:
        return ""  # of a family that is not for us to name
    try:
        if sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            return "listening"
        # One of a pair, such as sshd's, has no name of its own.
        return "accepted" if sock.getsockname() else ""
    except OSError:
        return ""
    finally:
        sock.detach()


def forces_cgi(addresses: Iterable[str]) -> bool:
    """Return whether FCGI_FORCE_CGI speaks against these addresses: they are all descriptor 0."""
    return bool(os.environ.get("FCGI_FORCE_CGI")) and all(
        each.endswith("+fd:0") for each in addresses
    )


def run(
    application: Application | str,
    addresses: tuple[str, ...],
    default_protocol: str,
    options: dict[str, Any],
) -> int:
    """Answer the CGI request, or serve on the sockets that there are, or else at `addresses`.

    Return the exit status.
    """
    start = look(default_protocol)
    if start.kind == CGI:
        return answer(application, options)
    from gateways.server.daemon import serve

    if start.kind == SOCKETS:
        serve(application, start.addresses, default_protocol, options)
        return 0
    default = DEFAULT_ADDRESSES.get(default_protocol, f"{default_protocol}://127.0.0.1:9000")
    serve(application, addresses or (default,), default_protocol, options, start)
    return 0


def answer(application: Application | str, options: dict[str, Any]) -> int:
    """Answer the one CGI request; return the exit status.  `options` are a daemon's."""
    if not options.keys() <= set(_CGI_OPTIONS):
        from gateways.server.options import Options

        Options(**options)  # a mistake in one of a daemon's options is a mistake here as well
    from gateways.server import cgi

    chosen = {name: options[name] for name in _CGI_OPTIONS if name in options}
    chosen["script_name"] = options.get("script_name") or None
    if isinstance(application, str):
        return cgi.run_named(application, **chosen)
    return cgi.run(application, **chosen)
