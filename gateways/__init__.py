"""gateways puts any WSGI application behind any web server, over CGI, FastCGI or SCGI.

    bytes ─▶ fastcgi, scgi, cgi ─▶ events ─▶ environ ─▶ wsgi ─▶ the application
    bytes ◀─ fastcgi, scgi, cgi ◀─ events ◀──────────── wsgi ◀─ status, headers, body

The protocol modules turn bytes into events and events into bytes and do nothing else; the middle
turns events into a WSGI call and its answer into events, once for all protocols; `server` and
`client` own the sockets.  Read `events`, then `scgi`, then `server.connection`.

`import gateways` and serving a request import the standard library only.
"""

from __future__ import annotations

from gateways.errors import (
    ApplicationError,
    ConfigurationError,
    GatewayError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    RequestAborted,
    TransportError,
)
from gateways.server import run, serve

__all__ = [
    "run",
    "serve",
    "GatewayError",
    "ProtocolError",
    "LocalProtocolError",
    "RemoteProtocolError",
    "RequestAborted",
    "ApplicationError",
    "ConfigurationError",
    "TransportError",
    "__version__",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    # Read from the installed metadata only when asked: importlib.metadata is a heavy import.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("gateways")
        except PackageNotFoundError:
            return "0+copied"  # the folder was copied, not installed
    raise AttributeError(f"module 'gateways' has no attribute {name!r}")
