"""Address strings and what they mean: the only place that reads or writes them.

    fcgi://HOST:PORT      fcgi://[::1]:9000      TCP
    fcgi+unix:/run/app.sock                      a unix socket
    fcgi+fd:0                                    a listening socket that was inherited

and likewise `scgi`, `ajp`, `uwsgi` and `http`.  Without a scheme, `HOST:PORT`, `[::1]:PORT`,
`unix:/path` and `/path` are written as nginx writes them, and mean the default protocol.

What could be read in two ways is refused: a port alone says nothing about who may connect, and
`fcgi+unix://run/app.sock` looks like a host.  Sockets in Linux's abstract namespace are refused
because they have no permissions.  Nothing here opens or looks up anything.
"""

from __future__ import annotations

from gateways.errors import ConfigurationError

PROTOCOLS = ("fcgi", "scgi", "ajp", "uwsgi", "http")

MAX_UNIX_PATH = 107
"""Bytes of a unix socket's path: Linux's sun_path holds 108 with the closing NUL."""

_MAX_FD = 2**31 - 1


class Address:
    """Where something listens, and which protocol it speaks there.

    `protocol` is one of PROTOCOLS; `family` is "tcp" (then `host` and `port` count), "unix"
    (`path`) or "fd" (`fd`).  `str()` gives the canonical text, which parses to an equal address.
    """

    __slots__ = ("protocol", "family", "host", "port", "path", "fd")

    def __init__(
        self,
        protocol: str,
        family: str,
        *,
        host: str = "",
        port: int = 0,
        path: str = "",
        fd: int = -1,
    ) -> None:
        self.protocol = protocol
        self.family = family
        self.host = host
        self.port = port
        self.path = path
        self.fd = fd

    def _fields(self) -> tuple[str, str, str, int, str, int]:
        return (self.protocol, self.family, self.host, self.port, self.path, self.fd)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"<Address {self}>"

    def __str__(self) -> str:
        if self.family == "unix":
            return f"{self.protocol}+unix:{self.path}"
        if self.family == "fd":
            return f"{self.protocol}+fd:{self.fd}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


def parse(text: str, *, default_protocol: str = "fcgi") -> Address:
    """Return the address that `text` means; one without a scheme speaks `default_protocol`.

    Raises ConfigurationError where it means nothing, or could mean two things.
    """
    if not text:
        raise ConfigurationError(f'an address is empty; write for example "{_example()}"')
    if " " in text:
        raise ConfigurationError(
            f"the address {text!r} has a space in it; take it out, or choose a path without spaces"
        )
    if any(character < " " or character == "\x7f" for character in text):
        raise ConfigurationError(
            f"the address {text!r} has a control character in it; write it without"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigurationError(
            f"the address {text!r} is not UTF-8 text; choose a path that is, best of ASCII letters"
        )
    protocol, kind, rest = _split_scheme(text, default_protocol)
    if kind == "unix":
        return Address(protocol, "unix", path=_unix_path(text, protocol, rest))
    if kind == "fd":
        return Address(protocol, "fd", fd=_descriptor(text, protocol, rest))
    host, port = _host_and_port(text, rest)
    return Address(protocol, "tcp", host=host, port=port)


def split_url(text: str, *, default_protocol: str = "fcgi") -> tuple[Address, str]:
    """Return the address and the request target of a URL as `fcgi://127.0.0.1:9000/greet?name=Ada`.

    The target is "/" where the URL ends after the address.  The URL of a unix socket or a
    descriptor holds no target: nobody can tell where the socket's path ends.  A fragment is
    dropped, as every HTTP client drops it.  Raises ConfigurationError as `parse` does.
    """
    start = text.find("://") + 3 if "://" in text else 0
    if text.startswith(("/", "./", "../")) or _is_socket_form(text):
        return parse(text, default_protocol=default_protocol), "/"
    end = min(
        (where for where in (text.find(mark, start) for mark in "/?#") if where >= 0),
        default=len(text),
    )
    target = text[end:].partition("#")[0]
    if not target.startswith("/"):
        target = f"/{target}"
    return parse(text[:end], default_protocol=default_protocol), target


def _example(protocol: str = "fcgi") -> str:
    return f"{protocol}://127.0.0.1:9000"


def _is_socket_form(text: str) -> bool:
    return text.split(":", 1)[0].endswith(("+unix", "+fd")) or text.startswith("unix:")


def _split_scheme(text: str, default_protocol: str) -> tuple[str, str, str]:
    """Return the protocol, "tcp", "unix" or "fd", and what follows."""
    if text.startswith("/"):
        return default_protocol, "unix", text
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "unix":
        return default_protocol, "unix", rest
    protocol, plus, kind = scheme.partition("+")
    if colon and plus:
        if protocol not in PROTOCOLS or kind not in ("unix", "fd"):
            raise _unknown_scheme(text, scheme)
        return protocol, kind, rest
    if rest.startswith("//"):
        if scheme not in PROTOCOLS:
            raise _unknown_scheme(text, scheme)
        return scheme, "tcp", rest[2:]
    return default_protocol, "tcp", text


def _unknown_scheme(text: str, scheme: str) -> ConfigurationError:
    return ConfigurationError(
        f'"{scheme}" in the address "{text}" is not known; write fcgi or scgi,'
        f' as in "{_example()}" or "fcgi+unix:/run/app.sock"'
    )


def _unix_path(text: str, protocol: str, path: str) -> str:
    if not path:
        raise ConfigurationError(
            f'the address "{text}" names no path; write for example "{protocol}+unix:/run/app.sock"'
        )
    if path.startswith("//"):
        raise ConfigurationError(
            f'the path in the address "{text}" begins with two slashes;'
            f' write "{protocol}+unix:/{path.lstrip("/")}"'
        )
    if path.startswith("@"):
        raise ConfigurationError(
            f'the address "{text}" means a socket in the abstract namespace, which has no'
            f" permissions; write the path of a socket file"
        )
    length = len(path.encode("utf-8"))
    if length > MAX_UNIX_PATH:
        raise ConfigurationError(
            f'the path in the address "{text}" is {length} bytes, and a unix socket\'s may be'
            f" {MAX_UNIX_PATH}; use a shorter one, for example under /run"
        )
    return path


def _descriptor(text: str, protocol: str, digits: str) -> int:
    if not _is_number(digits, _MAX_FD):
        raise ConfigurationError(
            f'the address "{text}" wants the number of an open descriptor after "fd:";'
            f' write for example "{protocol}+fd:0"'
        )
    return int(digits)


def _is_number(text: str, maximum: int) -> bool:
    # int() also takes "1_0", " 1" and digits of other scripts.
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= maximum


def _host_and_port(text: str, rest: str) -> tuple[str, int]:
    if rest == text and "/" in text and ":" not in text:
        raise ConfigurationError(
            f'the address "{text}" looks like the path of a socket file; write "unix:{text}",'
            f" or the path from the root on"
        )
    if "/" in rest or "?" in rest or "#" in rest:
        raise ConfigurationError(
            f'the address "{text}" goes on after the port; end it there, or write'
            f' "unix:PATH" if a socket file is meant'
        )
    host, colon, port = rest.rpartition(":")
    if _is_number(rest, 65535) or (colon and not host):
        scheme = text[: len(text) - len(rest)]
        raise ConfigurationError(
            f'the address "{text}" is only a port; write "{scheme}127.0.0.1:{port or 9000}" for'
            f" this machine alone"
        )
    if not colon or rest.endswith("]"):
        raise ConfigurationError(
            f'the address "{text}" has no port; write for example "{text}:9000",'
            f' or "unix:./{rest}" if a socket file is meant'
        )
    if not _is_number(port, 65535):
        raise ConfigurationError(
            f'the port "{port}" in the address "{text}" is not a number from 0 to 65535'
        )
    return _host(text, host), int(port)


def _host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return _ip_address(text, host[1:-1], 6)
    if ":" in host:
        raise ConfigurationError(
            f'the address "{text}" has more than one colon; write an IPv6 address in brackets,'
            f' as in "[::1]:9000"'
        )
    if all(character in "0123456789." for character in host):
        return _ip_address(text, host, 4)
    if not all(c.isascii() and (c.isalnum() or c in "-._") for c in host):
        raise ConfigurationError(
            f'the host "{host}" in the address "{text}" is neither a name nor an IP address;'
            f' write for example "{_example()}"'
        )
    return host


def _ip_address(text: str, host: str, version: int) -> str:
    # The module costs a millisecond that only TCP listeners need to pay.
    import ipaddress

    try:
        return str(ipaddress.IPv6Address(host) if version == 6 else ipaddress.IPv4Address(host))
    except ValueError:
        raise ConfigurationError(
            f'"{host}" in the address "{text}" is not an IPv{version} address'
        ) from None
