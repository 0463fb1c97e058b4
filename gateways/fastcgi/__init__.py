"""FastCGI 1.0, the whole specification, both ends, without I/O.

Bytes become records, records become events, and the other way round:

    records.py      the numbers of the specification, bytes ↔ records (§3.3, §8)
    pairs.py        name-value pairs (§3.4)
    connection.py   what the two ends share: requests, their states, the outbox (§3.3, §5.1)
    server.py       the end that receives requests, the specification's application (§4 to §6)
    client.py       the end that makes them, the specification's Web server (§4 to §6)

Whose fault ends what: a fault that leaves the framing and the other requests sound (bad pairs, a
limit, a record out of order) is an event, RequestAborted(id, error), and that request can still be
answered.  What puts in doubt which bytes belong to what (another version, an application record
without a request id, a BEGIN_REQUEST for an open id, a fixed record of another size) ends the
connection with RemoteProtocolError.

Left to others: what variables and heads mean (environ, response), deadlines and the size of the
outbox (gateways.server).
"""

from __future__ import annotations

from gateways.fastcgi.client import ClientConnection
from gateways.fastcgi.pairs import PairReader, decode_pairs, encode_pair, encode_pairs
from gateways.fastcgi.records import (
    ABORT_REQUEST,
    BEGIN_REQUEST,
    DATA,
    END_REQUEST,
    FCGI_HEADER_LEN,
    FCGI_KEEP_CONN,
    FCGI_LISTENSOCK_FILENO,
    FCGI_MAX_CONNS,
    FCGI_MAX_LENGTH,
    FCGI_MAX_REQS,
    FCGI_MPXS_CONNS,
    FCGI_NULL_REQUEST_ID,
    FCGI_VERSION_1,
    GET_VALUES,
    GET_VALUES_RESULT,
    PARAMS,
    ROLES,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN_TYPE,
    ProtocolStatus,
    Record,
    RecordReader,
    RecordType,
    Role,
    read_records,
)
from gateways.fastcgi.server import ServerConnection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from _typeshed.wsgi import WSGIApplication

# In the order of the specification: §2.2, §3.3 and §8, §3.4, §4.1, §5.1, §5.5, §6; then our own.
__all__ = [
    "FCGI_LISTENSOCK_FILENO",
    "Record",
    "RecordReader",
    "read_records",
    "FCGI_VERSION_1",
    "FCGI_HEADER_LEN",
    "FCGI_MAX_LENGTH",
    "FCGI_NULL_REQUEST_ID",
    "RecordType",
    "BEGIN_REQUEST",
    "ABORT_REQUEST",
    "END_REQUEST",
    "PARAMS",
    "STDIN",
    "STDOUT",
    "STDERR",
    "DATA",
    "GET_VALUES",
    "GET_VALUES_RESULT",
    "UNKNOWN_TYPE",
    "PairReader",
    "encode_pair",
    "encode_pairs",
    "decode_pairs",
    "FCGI_MAX_CONNS",
    "FCGI_MAX_REQS",
    "FCGI_MPXS_CONNS",
    "Role",
    "ROLES",
    "FCGI_KEEP_CONN",
    "ProtocolStatus",
    "ServerConnection",
    "ClientConnection",
    "serve",
]


def serve(application: WSGIApplication, *addresses: str, **options: Any) -> None:
    """Serve `application` over FastCGI until stopped: `gateways.serve` with FastCGI as the protocol.

    A bare HOST:PORT, unix:/path or /path means FastCGI.  Without an address this is
    `gateways.run`.  `options` and errors are those of `gateways.serve`.
    """
    from gateways import server

    server.serve(application, *addresses, default_protocol="fcgi", **options)
