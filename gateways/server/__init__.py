"""The edge that answers: listeners, the pump, workers, one-request CGI.

Read `connection.py` for how bytes travel, `worker.py` for who runs what, `exchange.py` for one
request, `master.py` for several processes.

The CGI path passes here, so what a daemon needs is imported inside the function.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

DEFAULT_ADDRESS = "127.0.0.1:9000"


def serve(
    application: Callable[..., Iterable[bytes]] | str,
    *addresses: str,
    default_protocol: str = "fcgi",
    **options: Any,
) -> None:
    """Serve a WSGI application until SIGTERM or SIGINT, which let running requests finish.

    `application` is a callable, or a name such as "package.module:attribute" or "path/app.py".
    Each of `addresses` is one to listen on: "fcgi://127.0.0.1:9000", "scgi+unix:/run/app.sock",
    "fcgi+fd:0"; without a scheme it speaks `default_protocol`.  Without any it is
    127.0.0.1:9000.  `options` are those of `gateways serve`, with underscores.

    Called outside the main thread it takes no signals and cannot be stopped from outside.

    Raises ConfigurationError for an application that cannot be loaded, an address that cannot be
    listened on, and an option that does not exist or is out of bounds.
    """
    from gateways.server.daemon import serve as serve_daemon

    serve_daemon(application, addresses or (DEFAULT_ADDRESS,), default_protocol, options)
