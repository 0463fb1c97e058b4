"""The bytes that real web servers sent, and the ways of feeding bytes to a codec.

`captures/` holds one file for each request, as `captures/index.json` describes.  CGI captures
hold the process's environment and command line before its standard input, see `split_cgi`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Protocol

from gateways.errors import RemoteProtocolError
from gateways.events import Event, FilterData, RequestBody, ResponseBody

FOLDER = Path(__file__).parent / "captures"

# Where the index disagrees with the file it describes; the entries themselves are kept verbatim.
ERRATA_BODY_BYTES = {
    # The recorder did not count a body that was cut; the files hold the 20,000 bytes that came.
    "apache-proxy_scgi-abort-body.bin": 20000,
    "apache-proxy_scgi-app-abort-body.bin": 20000,
    "apache-proxy_scgi-root-abort-body.bin": 20000,
}
ERRATA_VARIABLES = {
    # The file was recorded in another run than its entry.
    "nginx-scgi-headers80k.bin": {"REMOTE_PORT"},
}
# The index leaves out values of this length and more.
INDEX_VALUE_LIMIT = 1000


@dataclass(frozen=True)
class Capture:
    """One request as a web server sent it, and what the index says about it.

    `decoded` maps the variables' names to their values as latin-1 text, the last of equal names,
    and is None where the index does not have them.  `body_bytes` counts the bytes of the body
    that the file holds.
    """

    file: str
    server: str
    target: str
    protocol: str
    case: str
    mount: str
    request: str
    note: str
    body_bytes: int
    decoded: dict[str, str] | None

    @property
    def data(self) -> bytes:
        return (FOLDER / self.file).read_bytes()

    def __str__(self) -> str:
        return self.file.removesuffix(".bin")


@cache
def _index() -> tuple[Capture, ...]:
    entries = json.loads((FOLDER / "index.json").read_text("utf-8"))["captures"]
    return tuple(
        Capture(
            file=entry["file"],
            server=entry["server"],
            target=entry["target"],
            protocol=entry["protocol"],
            case=entry["case"],
            mount=entry["mount"],
            request=entry["request"],
            note=entry["note"],
            body_bytes=ERRATA_BODY_BYTES.get(entry["file"], entry["body_bytes"]),
            decoded=_without_errata(entry["file"], entry.get("decoded")),
        )
        for entry in entries
    )


def _without_errata(file: str, decoded: dict[str, str] | None) -> dict[str, str] | None:
    if decoded is None:
        return None
    wrong = ERRATA_VARIABLES.get(file, set())
    return {name: value for name, value in decoded.items() if name not in wrong}


def captures(protocol: str | None = None) -> list[Capture]:
    """Return the captures of "fastcgi", "scgi" or "cgi", or all of them, in the index's order."""
    return [each for each in _index() if protocol in (None, each.protocol)]


def capture(file: str) -> Capture:
    """Return the capture with this file name (without ".bin")."""
    (found,) = [each for each in _index() if str(each) == file]
    return found


def split_cgi(data: bytes) -> tuple[list[tuple[bytes, bytes]], list[bytes], bytes]:
    """Split a CGI capture into the environment's pairs, the command line, and standard input.

    The file is netstring(environment) netstring(argv) stdin, the first two as /proc shows them.
    """
    environment, data = _split_netstring(data)
    command, stdin = _split_netstring(data)
    pairs = []
    for assignment in environment.removesuffix(b"\0").split(b"\0"):
        name, _, value = assignment.partition(b"=")
        pairs.append((name, value))
    return pairs, command.removesuffix(b"\0").split(b"\0"), stdin


def _split_netstring(data: bytes) -> tuple[bytes, bytes]:
    length, _, rest = data.partition(b":")
    end = int(length)
    if rest[end : end + 1] != b",":
        raise ValueError("not a netstring")
    return rest[:end], rest[end + 1 :]


Chunker = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    """Cut nothing (and give nothing for no bytes, since b"" means end of file)."""
    if data:
        yield data


def bytewise(data: bytes) -> Iterator[bytes]:
    """Cut after every byte."""
    return (data[where : where + 1] for where in range(len(data)))


def random_pieces(data: bytes) -> Iterator[bytes]:
    """Cut into pieces of 1 to 1,000 bytes, small ones as likely as large; always the same ones."""
    chooser = random.Random(len(data))
    start = 0
    while start < len(data):
        end = start + int(10 ** chooser.uniform(0, 3))
        yield data[start:end]
        start = end


CHUNKERS: dict[str, Chunker] = {
    "whole": whole,
    "byte by byte": bytewise,
    "in random pieces": random_pieces,
}


class Receiver(Protocol):
    """Either end of any protocol, as far as receiving goes."""

    def receive_data(self, data: bytes, /) -> list[Event]: ...


def replay(connection: Receiver, data: bytes, chunks: Chunker = whole) -> list[Event]:
    """Feed `data`, cut by `chunks`, and then end of file; return all events.

    A RemoteProtocolError passes, its `.events` being all events from the start.
    """
    events: list[Event] = []
    receive = connection.receive_data
    try:
        for piece in chunks(data):
            events += receive(piece)
        events += receive(b"")
    except RemoteProtocolError as error:
        error.events = events + error.events
        raise
    return events


def merged(events: Iterable[Event]) -> list[Event]:
    """Join adjacent events that carry bytes of one stream, so that chunkings compare equal."""
    joined: list[Event] = []
    for kind, group in groupby(events, _stream):
        run = list(group)
        if kind is None:
            joined += run
        else:
            stream, request_id = kind
            data = b"".join(event.data for event in run if isinstance(event, stream))
            joined.append(stream(request_id, data))
    return joined


_Stream = type[RequestBody] | type[FilterData] | type[ResponseBody]


def _stream(event: Event) -> tuple[_Stream, int] | None:
    for stream in (RequestBody, FilterData, ResponseBody):
        if isinstance(event, stream):
            return stream, event.request_id
    return None
