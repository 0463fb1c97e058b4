"""The web server's end of CGI."""

from __future__ import annotations

from gateways.documentclient import DocumentClient
from gateways.errors import LocalProtocolError
from gateways.events import Request


class ClientConnection(DocumentClient):
    """The end that makes the request; RFC 3875 calls it the server.

    Sending a Request makes `environment`; the bytes of the message-body come out of
    `data_to_send` for the child's standard input, which is closed after EndOfRequest.  Then
    `receive_data` takes its standard output.  The answer's head is bounded to 64 KiB.

    Setting the meta-variables that §4.1 asks for is left to the caller.
    """

    protocol = "CGI"
    _rule = "RFC 3875 6"
    _body_rule = "RFC 3875 4.2"

    __slots__ = ("environment",)

    def __init__(self) -> None:
        super().__init__()
        self.environment: dict[bytes, bytes] = {}

    def _send_request(self, request: Request) -> None:
        variables = request.variables
        environment = dict(variables)
        # One search in the joined names costs less than a test of each.
        names, values = b"".join(environment), b"".join(environment.values())
        if b"=" in names or b"\0" in names or b"\0" in values or b"" in environment:
            raise LocalProtocolError(
                "no environment can carry the variable"
                f" {next(filter(_is_impossible, variables))[0][:40]!r}: NUL, '=' or an empty name",
                protocol="CGI",
                rule="RFC 3875 4.1",
            )
        if len(environment) != len(variables):
            # §4.1.18 has the server make one variable of repeated header fields.
            given = [name for name, _ in variables]
            twice = next(name for name in given if given.count(name) > 1)
            raise LocalProtocolError(
                f"{twice[:40]!r} is there twice", protocol="CGI", rule="RFC 3875 4.1.18"
            )
        # The Proxy header of a client would name the proxy of every HTTP library in the child
        # (httpoxy, CVE-2016-5385); §4.1.18 lets a server leave header fields out.
        environment.pop(b"HTTP_PROXY", None)
        content_length = environment.get(b"CONTENT_LENGTH", b"")
        if content_length:
            self._announce_body(content_length, "RFC 3875 4.1.2")
        elif request.body_delimited:
            self._remaining = None
        self.environment = environment


def _is_impossible(variable: tuple[bytes, bytes]) -> bool:
    """Whether it can stand in no environment."""
    name, value = variable
    return not name or b"=" in name or b"\0" in name or b"\0" in value
