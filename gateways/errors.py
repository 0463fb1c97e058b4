"""Every error that gateways raises, and whose fault each one is.

    GatewayError
    ├── ProtocolError                  abstract; .protocol .request_id .rule
    │   ├── LocalProtocolError         we, or our caller, asked for what the protocol forbids
    │   └── RemoteProtocolError        the peer broke the wire format; .events .status_hint
    │       ├── LimitExceeded          too many or too large
    │       └── TruncatedMessage       end of file inside a message
    ├── RequestAborted                 (also OSError) the peer gave the request up or vanished
    ├── ApplicationError               the WSGI application broke PEP 3333
    ├── ConfigurationError             a bad address, application name, option or file
    └── TransportError                 (also OSError) the client's socket failed
        ├── ConnectFailed
        └── TransportTimeout           (also TimeoutError)

The CGI path imports this module, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.events import Event


class GatewayError(Exception):
    """The root of the tree; catch this to catch everything gateways raises on purpose."""


class ProtocolError(GatewayError):
    """A rule of a wire format was broken.  Abstract: raise one of the two subclasses.

    `protocol` is the format's name ("FastCGI"), `rule` the section that was broken
    ("FastCGI 3.4"), `request_id` the request concerned, 0 where it is the whole connection.
    The text says what was seen, what was expected, and the section.
    """

    def __init__(
        self, message: str, *, protocol: str = "", rule: str = "", request_id: int = 0
    ) -> None:
        super().__init__(f"{message} ({rule})" if rule else message)
        self.protocol = protocol or rule.partition(" ")[0]
        self.rule = rule
        self.request_id = request_id


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol forbids in this state."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rule.

    `events` are the valid events that came before the fault in the same `receive_data` call, so
    that how the bytes were cut into calls never changes what is seen.  `status_hint` is the HTTP
    status that fits an answer, where one can still be sent.
    """

    default_status = 400

    def __init__(
        self,
        message: str,
        *,
        protocol: str = "",
        rule: str = "",
        request_id: int = 0,
        status_hint: int = 0,
    ) -> None:
        super().__init__(message, protocol=protocol, rule=rule, request_id=request_id)
        self.status_hint = status_hint or self.default_status
        self.events: list[Event] = []


class LimitExceeded(RemoteProtocolError):
    """The peer sent too much of something: meta-variables, a head, a body over CONTENT_LENGTH."""

    default_status = 431


class TruncatedMessage(RemoteProtocolError):
    """End of file came inside a message."""


class RequestAborted(GatewayError, OSError):
    """The peer aborted the request or vanished; `wsgi.input` raises this.

    It is an OSError because frameworks already take an OSError from `wsgi.input` to mean that
    the client went away.
    """


class ApplicationError(GatewayError):
    """The application broke PEP 3333: no start_response, a str body, CR or LF in a header…"""


class ConfigurationError(GatewayError):
    """What the user wrote cannot be used; the text is one line with the remedy."""


class TransportError(GatewayError, OSError):
    """A client's socket failed."""


class ConnectFailed(TransportError):
    """Nothing could be reached at the address."""


class TransportTimeout(TransportError, TimeoutError):
    """The peer did not read or write within the time allowed."""
