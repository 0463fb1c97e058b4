"""CGI (RFC 3875), both ends, without I/O.

`ServerConnection` is the script's end: the meta-variables arrive whole (§4.1), the message-body as
bytes of standard input (§4.2), and the answer goes out as a CGI response (§6).  `ClientConnection`
is the web server's end: it makes a child's environment and standard input, and reads its standard
output.  Both keep the contract of interface.py, as FastCGI and SCGI do.

The body and the answer are document.py's; what the variables mean is left to environ.py.  Reading
the real environment and the real files is left to the edges, and so are NPH scripts (§5) and the
command line of an indexed query (§4.4), which cgihost has.

Every CGI request pays for this import, so it imports only what costs nothing.
"""

from __future__ import annotations

from gateways.document import DocumentServer, Table, read_content_length
from gateways.errors import LocalProtocolError, RemoteProtocolError
from gateways.events import EndOfRequest, Event, Request, RequestAborted, RequestBody

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from _typeshed.wsgi import WSGIApplication

    from gateways.cgi.client import ClientConnection as ClientConnection


class ServerConnection(DocumentServer):
    """The end that receives the request; RFC 3875 calls it the script.

    Call `receive_variables` once, then `receive_data` with bytes of standard input while
    `wants_data`, never reading more than `remaining` of them.  ErrorOutput goes nowhere: standard
    error is the edge's own.
    """

    protocol = "CGI"
    _rule = "RFC 3875 6"
    _body_rule = "RFC 3875 4.2"
    _body_name = "message-body"

    RECEIVED: Table = {
        "VARIABLES": {Request: "BODY", RequestAborted: "COMPLETE"},
        "BODY": {RequestBody: "BODY", EndOfRequest: "COMPLETE", RequestAborted: "COMPLETE"},
        "COMPLETE": {},
    }

    __slots__ = ()

    def __init__(self) -> None:
        self._start("IDLE", "VARIABLES")

    def receive_whole(self, data: bytes, /) -> tuple[Request, bytes] | None:
        """Return None: the variables do not come as bytes."""
        return None

    def receive_variables(self, pairs: list[tuple[bytes, bytes]], /) -> list[Event]:
        """Take the meta-variables (RFC 3875 §4.1) and return the events they complete.

        That is a Request, and EndOfRequest with it where there is no message-body.  A
        CONTENT_LENGTH that is no length is RequestAborted alone, so that no application starts;
        the answer to it may be sent.  Raises LocalProtocolError when called twice.
        """
        if self._receiving != "VARIABLES":
            raise LocalProtocolError("the meta-variables were received before", rule="RFC 3875 4.1")
        events: list[Event] = []
        try:
            content_length = _body_length(pairs)
        except RemoteProtocolError as error:
            self._sending = "HEAD"
            self._emit(RequestAborted(0, error), events)
        else:
            self._receive_request(pairs, content_length, b"", events)
        return events

    def receive_data(self, data: bytes | memoryview, /) -> list[Event]:
        """Take bytes of standard input, b"" at end of file; return the events they complete.

        Extension data past the message-body is ignored (§4.2).  Raises LocalProtocolError before
        `receive_variables`, and nothing else.
        """
        if self._receiving == "VARIABLES":
            raise LocalProtocolError("the meta-variables come first", rule="RFC 3875 4.1")
        events: list[Event] = []
        if self._receiving == "BODY":
            self._receive_body(data, events)
        return events

    @property
    def head_pending(self) -> int:
        """0: the meta-variables arrive whole."""
        return 0

    @property
    def wants_data(self) -> bool:
        """True while bytes of the message-body are missing: otherwise standard input is not read.

        A script need not be given an end of file after the body, nor any standard input without
        one, so that reading could wait for ever.
        """
        return self._receiving == "BODY"

    @property
    def remaining(self) -> int | None:
        """The most bytes that may be read from standard input now (§4.2); None is until its end."""
        return self._remaining if self._receiving == "BODY" else 0


def _body_length(variables: list[tuple[bytes, bytes]]) -> int | None:
    """The length of the message-body (§4.1.2), None where only the end of file tells it."""
    lengths = {value for name, value in variables if name == b"CONTENT_LENGTH" and value}
    if len(lengths) > 1:
        raise RemoteProtocolError(
            "two different CONTENT_LENGTHs", protocol="CGI", rule="RFC 3875 4.1.2"
        )
    for value in lengths:
        return read_content_length(value, protocol="CGI", rule="RFC 3875 4.1.2")
    # Apache decodes a chunked upload and passes it on without buffering it first, so that no
    # length is known and standard input ends where the body does.
    for name, value in variables:
        if name == b"HTTP_TRANSFER_ENCODING":
            return None if value.lower().rpartition(b",")[2].strip() == b"chunked" else 0
    return 0


def __getattr__(name: str) -> type[ClientConnection]:
    # Loaded when it is asked for: a script has no use for it.
    if name == "ClientConnection":
        from gateways.cgi import client

        return client.ClientConnection
    raise AttributeError(f"module 'gateways.cgi' has no attribute {name!r}")


def run(application: WSGIApplication, **options: Any) -> int:
    """Answer the one CGI request in the environment; return the exit status.

    Options are those of `gateways.server.cgi.run`.
    """
    from gateways.server.cgi import run as run_cgi

    return run_cgi(application, **options)
