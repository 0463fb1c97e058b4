"""`gateways explain`: bytes in, records and events out.

The bytes go through the same codecs that serve requests, piece by piece: a record, then the events
it completed.  So what is shown is what a server of ours would have understood, and where it would
have stopped.  Both sides of a conversation can be read, one at a time: what a web server sent, and
what an application answered.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from gateways import events, fastcgi, scgi
from gateways.errors import ConfigurationError, GatewayError, LocalProtocolError, ProtocolError
from gateways.headparser import HeadParser

if TYPE_CHECKING:
    from rich.text import Text

PROTOCOLS = ("fastcgi", "scgi", "cgi")

_EXCERPT = 60
# Wide enough for any capture: here the limits would only hide what is in the file.
_MAX_VARIABLES, _MAX_VARIABLE_BYTES = 100_000, 1 << 26

_SENT_BY_APPLICATION = {
    fastcgi.RecordType.END_REQUEST,
    fastcgi.RecordType.STDOUT,
    fastcgi.RecordType.STDERR,
    fastcgi.RecordType.GET_VALUES_RESULT,
    fastcgi.RecordType.UNKNOWN_TYPE,
}


class Piece:
    """A part of the bytes with a name of its own, and the events it completed."""

    def __init__(
        self, offset: int, name: str, length: int, *, request_id: int = 0, note: str = ""
    ) -> None:
        self.offset = offset
        self.name = name
        self.length = length
        self.request_id = request_id
        self.note = note
        self.events: list[events.Event] = []


class Explanation:
    """What the bytes mean: `pieces` in order, and `fault` where a rule was broken."""

    def __init__(self, protocol: str, sender: str) -> None:
        self.protocol = protocol
        self.sender = sender
        self.pieces: list[Piece] = []
        self.fault: GatewayError | None = None


@click.command("explain")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    help="What the bytes are; cgi is an answer's head and body.  [guessed]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: Any, protocol: str | None, as_json: bool) -> int:
    """Show what captured bytes mean.

    The records and events in FILE, or in standard input for -.  FILE holds what one side of a FastCGI or SCGI connection sent.  The exit code is 1 when the
    bytes break a rule: then what was understood is shown, and the rule.
    """
    data = file.read()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal or a pipe cannot show is escaped: the bytes may hold anything.
        sys.stdout.reconfigure(errors="backslashreplace")
    explanation = explain(data, protocol or guess(data))
    if as_json:
        click.echo(json.dumps(_as_json(explanation, data), indent=2, ensure_ascii=False))
    else:
        _print(explanation, data)
    return 1 if explanation.fault is not None else 0


def guess(data: bytes) -> str:
    """Return the protocol that the first bytes look like; ConfigurationError where they do not."""
    digits, colon, _ = data[:21].partition(b":")
    line = data[:200].partition(b"\n")[0].rstrip(b"\r")
    if not data:
        raise ConfigurationError("there are no bytes to explain")
    if data[0] == fastcgi.FCGI_VERSION_1:
        return "fastcgi"
    if colon and digits.isdigit():
        return "scgi"
    if data[:2] == b"\x12\x34" or (data[:2] == b"AB" and not data[2:3].isalnum()):
        raise ConfigurationError("this looks like AJP13, which comes in a later release")
    if line.partition(b" HTTP/")[2] and b" " in line:
        raise ConfigurationError(
            f"this is an HTTP request ({shown(line[:40])}); explain reads FastCGI, SCGI and CGI"
        )
    if line.startswith(b"HTTP/") or (b":" in line and line[:1].isalpha()):
        return "cgi"
    if data[0] == 0:
        raise ConfigurationError("this looks like uwsgi, which comes in a later release")
    raise ConfigurationError(
        f"the bytes begin with {shown(data[:8])}, which is neither FastCGI nor SCGI;"
        f" name what they should be with --protocol"
    )


def explain(data: bytes, protocol: str) -> Explanation:
    """Return what `data` means in `protocol`, as far as it keeps the rules."""
    if protocol == "fastcgi":
        return _explain_fastcgi(data)
    if protocol == "scgi":
        return _explain_scgi(data)
    return _explain_answer(data)


def _explain_fastcgi(data: bytes) -> Explanation:
    records: list[fastcgi.Record] = []
    fault: GatewayError | None = None
    try:
        for record in fastcgi.read_records(data):
            records.append(record)
    except ProtocolError as error:
        fault = error
    if records and records[0].type in _SENT_BY_APPLICATION:
        explanation = Explanation("FastCGI", "application")
        codec: _Reader = _AnswerReader(records)
    else:
        explanation = Explanation("FastCGI", "web server")
        codec = _RequestReader()
    for record in records:
        piece = Piece(
            record.offset,
            _record_name(record.type),
            len(record.content),
            request_id=record.request_id,
            note=_note(record),
        )
        explanation.pieces.append(piece)
        end = record.offset + 8 + len(record.content) + record.padding_length
        if not _feed(explanation, piece, codec, data[record.offset : end]):
            return explanation
    if fault is not None:
        explanation.fault = fault
    else:
        _end(explanation, codec)
    return explanation


def _explain_scgi(data: bytes) -> Explanation:
    explanation = Explanation("SCGI", "web server")
    digits, colon, _ = data.partition(b":")
    body_at = len(data)
    if colon and digits.isdigit() and len(digits) < 19:
        body_at = min(len(data), len(digits) + 1 + int(digits) + 1)
    head = Piece(0, "headers", body_at, note="a netstring")
    explanation.pieces.append(head)
    codec = _ScgiReader()
    if not _feed(explanation, head, codec, data[:body_at]):
        return explanation
    if body_at < len(data):
        body = Piece(body_at, "body", len(data) - body_at)
        explanation.pieces.append(body)
        if not _feed(explanation, body, codec, data[body_at:]):
            return explanation
    _end(explanation, codec)
    return explanation


def _explain_answer(data: bytes) -> Explanation:
    explanation = Explanation("CGI", "application")
    parser = HeadParser()
    try:
        response, body = parser.receive(data)
    except ProtocolError as error:
        explanation.fault = error
        return explanation
    if response is None:
        explanation.fault = ProtocolError(
            "the data ends before the empty line that ends the answer's head", rule="RFC 3875 6"
        )
        return explanation
    head = Piece(0, "head", len(data) - len(body))
    head.events.append(response)
    explanation.pieces.append(head)
    if body:
        piece = Piece(len(data) - len(body), "body", len(body))
        piece.events.append(events.ResponseBody(0, body))
        explanation.pieces.append(piece)
    return explanation


class _Reader:
    """Abstract: a codec's end that is fed and asked for events."""

    def read(self, data: bytes) -> list[events.Event]:
        raise NotImplementedError


class _RequestReader(_Reader):
    """A FastCGI server end that answers each request at once, so that its id may be used again."""

    def __init__(self) -> None:
        self._codec = fastcgi.ServerConnection(
            max_variables=_MAX_VARIABLES,
            max_variable_bytes=_MAX_VARIABLE_BYTES,
            max_open_requests=65535,
        )

    def read(self, data: bytes) -> list[events.Event]:
        came = self._codec.receive_data(data)
        for event in came:
            if data and isinstance(event, events.EndOfRequest | events.RequestAborted):
                self._answer(event.request_id)
        self._codec.data_to_send()
        return came

    def _answer(self, request_id: int) -> None:
        for event in (
            events.Response(request_id, "200 OK", []),
            events.EndOfResponse(request_id),
        ):
            try:
                self._codec.send(event)
            except LocalProtocolError:
                return  # An aborted request takes no head, and may be over already.


class _AnswerReader(_Reader):
    """A FastCGI client end that has made every request which the records answer."""

    def __init__(self, records: list[fastcgi.Record]) -> None:
        self._codec = fastcgi.ClientConnection()
        for request_id in sorted({record.request_id for record in records} - {0}):
            self._ask(request_id)

    def _ask(self, request_id: int) -> None:
        self._codec.send(events.Request(request_id, [], keep_conn=True))
        self._codec.send(events.EndOfRequest(request_id))
        self._codec.data_to_send()

    def read(self, data: bytes) -> list[events.Event]:
        came = self._codec.receive_data(data)
        for event in came:
            # The next answer on a kept connection has the same id.
            if data and isinstance(event, events.EndOfResponse):
                self._ask(event.request_id)
        if not data:
            # Of the requests made here, those that nobody answered were never meant to be.
            return [e for e in came if not isinstance(e, events.RequestAborted)]
        return came


class _ScgiReader(_Reader):
    def __init__(self) -> None:
        self._codec = scgi.ServerConnection(
            max_variables=_MAX_VARIABLES, max_variable_bytes=_MAX_VARIABLE_BYTES
        )

    def read(self, data: bytes) -> list[events.Event]:
        return self._codec.receive_data(data)


def _feed(explanation: Explanation, piece: Piece, reader: _Reader, data: bytes) -> bool:
    """Give the codec a piece; return whether it can go on."""
    try:
        piece.events += reader.read(data)
    except ProtocolError as error:
        piece.events += getattr(error, "events", [])
        explanation.fault = error
        return False
    _note_fault(explanation, piece.events)
    return True


def _end(explanation: Explanation, reader: _Reader) -> None:
    """Tell the codec that nothing more comes; what it then misses is a fault."""
    try:
        last = reader.read(b"")
    except ProtocolError as error:
        last = []
        explanation.fault = explanation.fault or error
    if explanation.pieces:
        explanation.pieces[-1].events += last
    _note_fault(explanation, last)


def _note_fault(explanation: Explanation, came: list[events.Event]) -> None:
    for event in came:
        if isinstance(event, events.RequestAborted) and isinstance(event.error, GatewayError):
            explanation.fault = explanation.fault or event.error


def _record_name(record_type: int) -> str:
    try:
        return f"FCGI_{fastcgi.RecordType(record_type).name}"
    except ValueError:
        return f"type {record_type}"


def _note(record: fastcgi.Record) -> str:
    """Return in words what the content of a record says; the events say the rest."""
    kind, content = record.type, record.content
    if kind == fastcgi.RecordType.BEGIN_REQUEST and len(content) == 8:
        role = fastcgi.ROLES.get(
            int.from_bytes(content[:2], "big"),  # type: ignore[call-overload]  # an IntEnum's members are found by their numbers
            f"role {int.from_bytes(content[:2], 'big')}",
        )
        return (
            f"{role}, {'keep' if content[2] & fastcgi.FCGI_KEEP_CONN else 'close'} the connection"
        )
    if kind == fastcgi.RecordType.END_REQUEST and len(content) == 8:
        app_status = int.from_bytes(content[:4], "big")
        return f"appStatus {app_status}, {_protocol_status(content[4])}"
    if kind in (fastcgi.RecordType.GET_VALUES, fastcgi.RecordType.GET_VALUES_RESULT):
        return _pairs(content)
    if kind == fastcgi.RecordType.UNKNOWN_TYPE and content:
        return f"type {content[0]} is not known"
    if kind == fastcgi.RecordType.ABORT_REQUEST:
        return ""
    return "the end of the stream" if not content else ""


def _protocol_status(number: int) -> str:
    try:
        return f"FCGI_{fastcgi.ProtocolStatus(number).name}"
    except ValueError:
        return f"protocolStatus {number}"


def _pairs(content: bytes) -> str:
    try:
        pairs = fastcgi.decode_pairs(content)
    except ProtocolError:
        return ""
    return ", ".join(f"{shown(name)}={shown(value)}".rstrip("=") for name, value in pairs)


def shown(data: bytes) -> str:
    """Return bytes as text that no terminal obeys: controls escaped, UTF-8 as it is."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _excerpt(data: bytes) -> str:
    text = shown(data[:_EXCERPT])
    return text if len(data) <= _EXCERPT else f"{text}…"


def _lines_of(event: events.Event) -> Iterator[str]:
    """Yield an event in words, details indented."""
    name = type(event).__name__
    if isinstance(event, events.Request):
        asks = ", keep_conn" if event.keep_conn else ""
        yield f"{name}: {event.role}{asks}, {len(event.variables)} variables"
        for variable, value in event.variables:
            yield f"    {shown(variable)} = {shown(value)}"
    elif isinstance(event, events.Response):
        yield f"{name}: {event.status}"
        for header, text in event.headers:
            yield f"    {header}: {shown(text.encode('latin-1'))}"
    elif isinstance(
        event, events.RequestBody | events.FilterData | events.ResponseBody | events.ErrorOutput
    ):
        yield f"{name}: {len(event.data)} bytes: {_excerpt(event.data)}"
    elif isinstance(event, events.RequestAborted):
        yield f"{name}: {event.error}" if event.error is not None else name
    else:
        yield name


def _print(explanation: Explanation, data: bytes) -> None:
    from rich.console import Console
    from rich.text import Text

    # Lines go on past the edge of the terminal rather than break in the middle of a value.
    console = Console(highlight=False, soft_wrap=True, file=sys.stdout)
    console.print(
        Text(f"{explanation.protocol}, {len(data)} bytes, sent by the {explanation.sender}")
    )
    for piece in explanation.pieces:
        console.print(_line(piece))
        for event in piece.events:
            first, *details = _lines_of(event)
            console.print(Text(f"          → {first}", style="green"))
            for line in details:
                console.print(Text(f"          {line}"))
    if explanation.fault is not None:
        console.print(Text(f"broken: {explanation.fault}", style="bold red"))


def _line(piece: Piece) -> Text:
    from rich.text import Text

    where = f"  request {piece.request_id}" if piece.request_id else ""
    note = f"  ({piece.note})" if piece.note else ""
    return Text.assemble(
        (f"{piece.offset:>8}  ", "dim"),
        (piece.name, "bold cyan"),
        f"{where}  {piece.length} bytes{note}",
    )


def _as_json(explanation: Explanation, data: bytes) -> dict[str, Any]:
    fault = explanation.fault
    return {
        "protocol": explanation.protocol,
        "bytes": len(data),
        "sent_by": explanation.sender,
        "pieces": [
            {
                "offset": piece.offset,
                "name": piece.name,
                "request_id": piece.request_id,
                "length": piece.length,
                "note": piece.note,
                "events": [_event_as_json(event) for event in piece.events],
            }
            for piece in explanation.pieces
        ],
        "broken": None
        if fault is None
        else {"message": str(fault), "rule": getattr(fault, "rule", "")},
    }


def _event_as_json(event: events.Event) -> dict[str, Any]:
    told: dict[str, Any] = {"event": type(event).__name__, "request_id": event.request_id}
    if isinstance(event, events.Request):
        told["role"] = event.role
        told["keep_conn"] = event.keep_conn
        told["variables"] = [[shown(name), shown(value)] for name, value in event.variables]
    elif isinstance(event, events.Response):
        told["status"] = event.status
        told["headers"] = event.headers
    elif isinstance(
        event, events.RequestBody | events.FilterData | events.ResponseBody | events.ErrorOutput
    ):
        told["length"] = len(event.data)
        told["excerpt"] = _excerpt(event.data)
    elif isinstance(event, events.RequestAborted):
        told["error"] = None if event.error is None else str(event.error)
    elif isinstance(event, events.EndOfResponse):
        told["app_status"] = event.app_status
        told["protocol_status"] = event.protocol_status
    return told
