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


def run(
    application: Callable[..., Iterable[bytes]] | str,
    *addresses: str,
    default_protocol: str = "fcgi",
    **options: Any,
) -> int:
    """Do what this process was started for, until that is done; return the exit status.

    - a CGI request: answer it;
    - a listening socket as descriptor 0, from mod_fcgid, lighttpd, spawn-fcgi, multiwatch or h2o,
      or sockets of systemd's: serve there, speaking `default_protocol` ("fcgi" or "scgi") unless
      the name of systemd's socket says otherwise;
    - nothing of that kind, as at a terminal: serve at `addresses`, as `serve` does.  Without any
      that is 127.0.0.1, port 9000 for FastCGI and 4000 for SCGI.

    `options` are those of `serve`; one CGI request has use for `script_name`, `debug`,
    `remote_user` and `crash_log`.  Raises ConfigurationError as `serve` does.
    """
    from gateways.server.started import run as run_started

    return run_started(application, addresses, default_protocol, options)


def serve(
    application: Callable[..., Iterable[bytes]] | str,
    *addresses: str,
    default_protocol: str = "fcgi",
    **options: Any,
) -> None:
    """Serve a WSGI application until SIGTERM or SIGINT, which let running requests finish.

    `application` is a callable, or a name such as "package.module:attribute" or "path/app.py".
    Each of `addresses` is one to listen on: "fcgi://127.0.0.1:9000", "scgi+unix:/run/app.sock",
    "fcgi+fd:0"; without a scheme it speaks `default_protocol`.  Without any this is `run`.
    `options` are those of `gateways serve`, with underscores.

    Called outside the main thread it takes no signals and cannot be stopped from outside.

    Raises ConfigurationError for an application that cannot be loaded, an address that cannot be
    listened on, and an option that does not exist or is out of bounds.
    """
    from gateways.server import started

    if not addresses or started.forces_cgi(addresses):
        started.run(application, (), default_protocol, options)
        return
    from gateways.server.daemon import serve as serve_daemon

    serve_daemon(application, addresses, default_protocol, options)
