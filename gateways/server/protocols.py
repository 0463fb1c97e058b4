"""Which codec speaks at which kind of address, made from the options in force."""

from __future__ import annotations

from gateways import fastcgi, scgi
from gateways.errors import ConfigurationError
from gateways.server.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from gateways.interface import ServerConnection

    Factory = Callable[[], ServerConnection]


def _fastcgi(options: Options) -> Factory:
    # What GET_VALUES tells (FastCGI 4.1): the numbers at which this server really stops.
    connections = options.workers * options.max_connections
    return fastcgi.ServerConnection.factory(
        max_variables=options.max_variables,
        max_variable_bytes=options.max_variable_bytes,
        max_open_requests=options.max_open_requests,
        max_conns=connections,
        max_reqs=connections,
        mpxs_conns=options.threads > 1,
    )


def _scgi(options: Options) -> Factory:
    return scgi.ServerConnection.factory(
        max_variables=options.max_variables, max_variable_bytes=options.max_variable_bytes
    )


CODECS: dict[str, Callable[[Options], Factory]] = {"fcgi": _fastcgi, "scgi": _scgi}


def check_protocol(protocol: str) -> None:
    """Raise ConfigurationError for a protocol that this version does not serve."""
    if protocol not in CODECS:
        known = ", ".join(CODECS)
        raise ConfigurationError(f"cannot serve {protocol}:// in this version; it serves {known}")


def codec_factory(protocol: str, options: Options) -> Factory:
    """Return what makes the server end for each new connection."""
    return CODECS[protocol](options)
