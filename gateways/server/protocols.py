"""Which codec speaks at which kind of address, made from the options in force."""

from __future__ import annotations

from collections.abc import Callable

from gateways import fastcgi, scgi
from gateways.errors import ConfigurationError
from gateways.interface import ServerConnection
from gateways.server.options import Options


def _fastcgi(options: Options) -> ServerConnection:
    # What GET_VALUES tells (FastCGI 4.1): the numbers at which this server really stops.
    connections = options.workers * options.max_connections
    return fastcgi.ServerConnection(
        max_variables=options.max_variables,
        max_variable_bytes=options.max_variable_bytes,
        max_open_requests=options.max_open_requests,
        max_conns=connections,
        max_reqs=connections,
        mpxs_conns=options.threads > 1,
    )


def _scgi(options: Options) -> ServerConnection:
    return scgi.ServerConnection(
        max_variables=options.max_variables, max_variable_bytes=options.max_variable_bytes
    )


CODECS: dict[str, Callable[[Options], ServerConnection]] = {"fcgi": _fastcgi, "scgi": _scgi}


def check_protocol(protocol: str) -> None:
    """Raise ConfigurationError for a protocol that this version does not serve."""
    if protocol not in CODECS:
        known = ", ".join(CODECS)
        raise ConfigurationError(f"cannot serve {protocol}:// in this version; it serves {known}")


def new_codec(protocol: str, options: Options) -> ServerConnection:
    """Return the server end for a new connection."""
    return CODECS[protocol](options)
