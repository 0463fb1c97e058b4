"""The client's half of `document.py`: one request, then one response document.

A module of its own, because a CGI request has no use for it and pays for what it imports.
"""

from __future__ import annotations

from gateways.document import MAX_CONTENT_LENGTH_DIGITS, DocumentConnection, Table
from gateways.errors import LocalProtocolError, RemoteProtocolError, TruncatedMessage
from gateways.events import (
    EndOfRequest,
    EndOfResponse,
    Event,
    Request,
    RequestAborted,
    RequestBody,
    Response,
    ResponseBody,
)
from gateways.headparser import HeadParser


class DocumentClient(DocumentConnection):
    """Abstract: the end that makes the request.

    The protocol sends the request's head in `_send_request`, where it also says with
    `_announce_body` how long the body is.  The answer's head is bounded to 64 KiB.
    """

    SENT: Table = {
        "IDLE": {Request: "BODY"},
        "BODY": {RequestBody: "BODY", EndOfRequest: "COMPLETE", RequestAborted: "ENDED"},
        "COMPLETE": {RequestAborted: "ENDED"},
        "ENDED": {},
    }

    RECEIVED: Table = {
        "IDLE": {},
        "HEAD": {Response: "BODY", RequestAborted: "ENDED"},
        "BODY": {ResponseBody: "BODY", EndOfResponse: "ENDED"},
        "ENDED": {},
    }

    __slots__ = ("_head",)

    def __init__(self) -> None:
        self._start("IDLE", "IDLE")
        self._head = HeadParser()

    def send(self, event: Event, /) -> None:
        """Put the bytes of `event` into the outbox.

        Raises LocalProtocolError when the event is not allowed now, for variables that the
        protocol cannot carry, and for a body that is longer or shorter than CONTENT_LENGTH.
        RequestAborted sends nothing: close the connection, end the child.
        """
        state = self._next_state(event)
        if type(event) is Request:
            self._send_request(event)
            self._receiving = "HEAD"
        elif type(event) is RequestBody:
            self._send_body(event.data)
        elif type(event) is EndOfRequest and self._remaining:
            raise LocalProtocolError(
                f"the body is {self._remaining} bytes shorter than CONTENT_LENGTH",
                protocol=self.protocol,
                rule=self._body_rule,
            )
        elif type(event) is RequestAborted:
            self._receiving = "ENDED"
            self._must_close = True
        self._sending = state

    def receive_data(self, data: bytes | memoryview, /) -> list[Event]:
        """Take what was received, b"" at end of file; return the events it completed.

        End of file after the head is the end of the answer; before it, RequestAborted.  Raises
        RemoteProtocolError for a head that breaks RFC 3875 §6, or bytes before a request was sent.
        Whatever comes after such a fault or after an abort is ignored.
        """
        events: list[Event] = []
        if not data:
            self._end_of_file(events)
        elif self._receiving == "BODY":
            self._emit(ResponseBody(0, bytes(data)), events)
        elif self._receiving != "ENDED":
            try:
                self._receive_head(bytes(data), events)
            except RemoteProtocolError:
                # Only the head has faults, and no event comes before it.
                self._receiving = "ENDED"
                self._must_close = True
                if self._sending == "IDLE":
                    self._sending = "ENDED"
                raise
        return events

    @property
    def status_given(self) -> bool:
        """Whether the answer's head names a status itself, which a local redirect does not (§6.2.2)."""
        return self._head.status_given

    def _send_request(self, request: Request) -> None:
        raise NotImplementedError

    def _announce_body(self, content_length: bytes, rule: str) -> None:
        if not content_length.isdigit() or len(content_length) > MAX_CONTENT_LENGTH_DIGITS:
            raise LocalProtocolError(
                f"CONTENT_LENGTH is {content_length[:40]!r}, expected ASCII digits",
                protocol=self.protocol,
                rule=rule,
            )
        self._remaining = int(content_length)

    def _send_body(self, data: bytes) -> None:
        if self._remaining is not None:
            if len(data) > self._remaining:
                raise LocalProtocolError(
                    f"{len(data)} bytes of the body, CONTENT_LENGTH leaves {self._remaining}",
                    protocol=self.protocol,
                    rule=self._body_rule,
                )
            self._remaining -= len(data)
        self._outbox.append(data)

    def _receive_head(self, data: bytes, events: list[Event]) -> None:
        if self._receiving == "IDLE":
            raise RemoteProtocolError(
                "an answer before a request was sent",
                protocol=self.protocol,
                rule=self._rule,
                status_hint=502,
            )
        response, body = self._head.receive(data)
        if response is not None:
            self._emit(response, events)
        if body:
            self._emit(ResponseBody(0, body), events)

    def _end_of_file(self, events: list[Event]) -> None:
        if self._receiving == "HEAD":
            error = TruncatedMessage(
                "end of file before the answer's head was complete",
                protocol=self.protocol,
                rule="RFC 3875 6",
                status_hint=502,
            )
            self._emit(RequestAborted(0, error), events)
        elif self._receiving == "BODY":
            self._emit(EndOfResponse(0), events)
        elif self._receiving == "IDLE":
            # The peer has closed, so that a request sent now could not be answered.
            self._receiving = self._sending = "ENDED"
        self._must_close = True
