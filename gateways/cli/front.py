"""The development front: an HTTP server, so that an application can be looked at without nginx.

waitress takes the HTTP and our own proxy speaks FastCGI to the application over a real socket: what
a browser shows has been through the same records as behind a web server.  It is for one machine and
its user; nothing about it is meant for strangers.

    python -m gateways.cli.front fcgi+unix:/run/app.sock 127.0.0.1:8080
"""

from __future__ import annotations

import logging
import re
import socket
import sys
from typing import TYPE_CHECKING

from gateways import addresses
from gateways.client import ProxyApplication
from gateways.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Protocol

    class Front(Protocol):
        """What waitress makes: `run` serves until `close` or an interrupt."""

        effective_port: int
        channel_class: type

        def run(self) -> None: ...

        def close(self) -> None: ...


THREADS = 16
"""Each event stream that a browser holds open takes one."""


TIMEOUT = 3600.0
"""Seconds of silence after which an answer is given up: an event stream may be quiet for long."""

_TRANSFER_ENCODING = re.compile(
    rb"\r\ntransfer-encoding:[ \t]*([^\r]*?)[ \t]*(?=\r)", re.IGNORECASE
)


def create(backend: addresses.Address | str, host: str, port: int) -> Front:
    """Return an HTTP server on HOST:PORT in front of `backend`, listening and not yet running.

    Port 0 takes a free one, told by `effective_port`.  Raises ConfigurationError where waitress is
    not installed or the port is taken.
    """
    try:
        import waitress  # type: ignore[import-untyped]  # it ships no types
    except ModuleNotFoundError:
        raise ConfigurationError(
            'the built-in front needs waitress; run "pip install gateways[http]"'
        ) from None
    # A client that hangs up is no news; waitress would log it with a traceback.
    logging.getLogger("waitress").setLevel(logging.ERROR)
    server: Front = waitress.create_server(
        ProxyApplication(backend, timeout=TIMEOUT),
        sockets=[_bind(host, port)],
        threads=THREADS,
        ident="gateways",
        clear_untrusted_proxy_headers=True,
    )
    server.channel_class = _strict_channel()
    return server


def _strict_channel() -> type:
    """Return waitress's channel, but that a request whose framing is in doubt is a 400.

    Transfer-Encoding is taken in HTTP/1.1 alone, as `chunked` and without Content-Length (RFC 9112
    §6.1).  waitress takes one of the two framings or neither, and keeps the connection, on which a
    proxy before it that saw another end would have put another visitor's request.
    """
    from waitress.channel import HTTPChannel  # type: ignore[import-untyped]  # it ships no types
    from waitress.parser import (  # type: ignore[import-untyped]  # it ships no types
        HTTPRequestParser,
        ParsingError,
    )

    class Parser(HTTPRequestParser):  # type: ignore[misc]  # it ships no types
        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            # From `headers` waitress has taken it already, or passes it on unread.
            codings = _TRANSFER_ENCODING.findall(header_plus)
            doubt = _doubt(self.version, "CONTENT_LENGTH" in self.headers, codings)
            if doubt:
                # waitress would promise to keep the connection, and close it.
                self.headers.pop("CONNECTION", None)
                raise ParsingError(doubt)

    return type("Channel", (HTTPChannel,), {"parser_class": Parser})


def _doubt(version: str, has_length: bool, codings: list[bytes]) -> str:
    """Return why nobody can be sure where a request with these Transfer-Encodings ends, or ""."""
    if not codings:
        return ""
    if version != "1.1":
        return f"Transfer-Encoding in HTTP/{version or '0.9'}, which has none"
    if has_length:
        return "Content-Length beside Transfer-Encoding"
    if [each.lower() for each in codings] != [b"chunked"]:
        return "Transfer-Encoding is something else than chunked, once"
    return ""


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; name another port with --port"
        ) from error
    return bound


def main(arguments: list[str]) -> int:
    """Serve BACKEND at HOST:PORT until interrupted."""
    try:
        backend, listen = arguments
        address = addresses.parse(listen, default_protocol="http")
        front = create(backend, address.host, address.port)
    except ValueError:
        print("usage: python -m gateways.cli.front BACKEND HOST:PORT", file=sys.stderr)
        return 2
    except ConfigurationError as error:
        print(f"gateways: {error}", file=sys.stderr)
        return 2
    try:
        front.run()
    except KeyboardInterrupt:
        pass  # The way to stop it.
    finally:
        front.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
