"""Records: the numbers of the specification, and bytes ↔ records (§3.3, §8).

RecordReader is the only code that knows what a record looks like; both ends and `read_records` use
it.  It hands content over as it arrives, so that a record of 64 KiB waits for nothing, and keeps
nothing but an incomplete header.  The layouts of the bodies (§4.2, §5.1, §5.5) stand here too, and
so do the errors of this package, which cite its specification.

What a record means is left to the ends.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from gateways.errors import LocalProtocolError, RemoteProtocolError, TruncatedMessage
from gateways.events import AUTHORIZER, FILTER, RESPONDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeVar

    Data = TypeVar("Data", bytes, memoryview)

FCGI_LISTENSOCK_FILENO = 0
FCGI_VERSION_1 = 1
FCGI_HEADER_LEN = 8
FCGI_MAX_LENGTH = 0xFFFF
FCGI_NULL_REQUEST_ID = 0
FCGI_KEEP_CONN = 1
FCGI_MAX_CONNS = "FCGI_MAX_CONNS"
FCGI_MAX_REQS = "FCGI_MAX_REQS"
FCGI_MPXS_CONNS = "FCGI_MPXS_CONNS"


class RecordType(IntEnum):
    """What a record is for (§8); the names are the specification's without FCGI_."""

    BEGIN_REQUEST = 1
    ABORT_REQUEST = 2
    END_REQUEST = 3
    PARAMS = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7
    DATA = 8
    GET_VALUES = 9
    GET_VALUES_RESULT = 10
    UNKNOWN_TYPE = 11


class Role(IntEnum):
    """What the application is asked to be (§5.1)."""

    RESPONDER = 1
    AUTHORIZER = 2
    FILTER = 3


class ProtocolStatus(IntEnum):
    """Why a request ended (§5.5)."""

    REQUEST_COMPLETE = 0
    CANT_MPX_CONN = 1
    OVERLOADED = 2
    UNKNOWN_ROLE = 3


# Plain names for what every record is compared with: a member costs a look-up in its class.
BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT = tuple(RecordType)[:6]
STDERR, DATA, GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = tuple(RecordType)[6:]

ROLES = {Role.RESPONDER: RESPONDER, Role.AUTHORIZER: AUTHORIZER, Role.FILTER: FILTER}
"""The words that events use for the roles."""

HEADER = Struct(">BBHHBx")
BEGIN_BODY = Struct(">HB5x")
END_BODY = Struct(">LB3x")
UNKNOWN_BODY = Struct(">B7x")

# The largest content below 65,535 that is a multiple of eight: §3.3 recommends that records stay
# aligned, and so they do without padding.
CONTENT_SIZE = 65528


def remote_fault(
    message: str,
    section: str,
    request_id: int = 0,
    kind: type[RemoteProtocolError] = RemoteProtocolError,
) -> RemoteProtocolError:
    return kind(message, rule=f"FastCGI {section}", request_id=request_id)


def local_fault(message: str, section: str, request_id: int = 0) -> LocalProtocolError:
    return LocalProtocolError(message, rule=f"FastCGI {section}", request_id=request_id)


def type_name(record_type: int) -> str:
    known = record_type in RecordType.__members__.values()
    return f"FCGI_{RecordType(record_type).name}" if known else f"record type {record_type}"


class Record:
    """One record (§3.3): content of up to 65,535 bytes, padding of up to 255.

    `offset` tells where the record began in what was read.
    """

    __slots__ = ("type", "request_id", "content", "padding_length", "offset")

    def __init__(
        self,
        type: int,
        request_id: int = FCGI_NULL_REQUEST_ID,
        content: bytes = b"",
        padding_length: int = 0,
        offset: int = 0,
    ) -> None:
        self.type = type
        self.request_id = request_id
        self.content = content
        self.padding_length = padding_length
        self.offset = offset

    def encode(self) -> bytes:
        """Return the bytes; LocalProtocolError where a field does not fit into its place."""
        numbers = (self.type, self.request_id, len(self.content), self.padding_length)
        limits = (0xFF, 0xFFFF, FCGI_MAX_LENGTH, 0xFF)
        if not all(0 <= number <= limit for number, limit in zip(numbers, limits, strict=True)):
            raise local_fault(f"{self!r} does not fit into a record", "3.3")
        return HEADER.pack(FCGI_VERSION_1, *numbers) + self.content + bytes(self.padding_length)

    def __repr__(self) -> str:
        return (
            f"<Record {type_name(self.type)} id={self.request_id} content={len(self.content)} bytes"
            f" padding={self.padding_length} offset={self.offset}>"
        )


class RecordReader:
    """Cuts bytes into records, wherever the bytes themselves were cut (§3.3).

    It keeps nothing but an incomplete header.  `record_type`, `content_length` and
    `padding_length` are those of the record being read, `record_type` 0 inside its header.
    """

    __slots__ = (
        "record_type",
        "content_length",
        "padding_length",
        "_request_id",
        "_content",
        "_padding",
        "_header",
    )

    def __init__(self) -> None:
        self.record_type = self.content_length = self.padding_length = 0
        self._request_id = self._content = self._padding = 0
        self._header = b""

    @property
    def inside(self) -> bool:
        """Whether what was read ends inside a record."""
        return bool(self._header or self._content or self._padding)

    def read(self, data: Data) -> Iterator[tuple[int, int, Data, bool]]:
        """Yield (record type, request id, content, last), at least once for each record.

        `content` is what there is of the record's content, a slice of `data`; `last` tells that it
        is the rest.  RemoteProtocolError for a version other than 1.
        """
        position, end = 0, len(data)
        while position < end:
            if self._content:
                content = data[position : position + self._content]
                position += len(content)
                self._content -= len(content)
                yield self.record_type, self._request_id, content, not self._content
            elif self._padding:
                skipped = min(self._padding, end - position)
                position += skipped
                self._padding -= skipped
            elif self._header or end - position < FCGI_HEADER_LEN:
                self.record_type = 0
                missing = FCGI_HEADER_LEN - len(self._header)
                self._header += data[position : position + missing]
                position += missing
                if position <= end:
                    header, self._header = self._header, b""
                    self._start(header, 0)
                    if not self._content:
                        yield self.record_type, self._request_id, data[:0], True
            else:
                self._start(data, position)
                position += FCGI_HEADER_LEN
                if not self._content:
                    yield self.record_type, self._request_id, data[:0], True

    def _start(self, data: Data, position: int) -> None:
        version, record_type, request_id, length, padding = HEADER.unpack_from(data, position)
        self.record_type = record_type
        self._request_id = request_id
        self.content_length = self._content = length
        self.padding_length = self._padding = padding
        if version != FCGI_VERSION_1:
            # Another version may lay out everything after this byte differently, so there is no
            # telling where the next record begins.
            header = bytes(data[position : position + FCGI_HEADER_LEN])
            raise remote_fault(
                f"record version is {version}, must be 1; the header is {header!r}", "3.3"
            )


def read_records(data: bytes) -> Iterator[Record]:
    """Yield each record in `data` with its offset, whatever its type.

    After the whole ones: RemoteProtocolError at a version other than 1, TruncatedMessage where the
    last record is cut.
    """
    reader = RecordReader()
    offset = 0
    contents: list[bytes] = []
    for record_type, request_id, content, last in reader.read(data):
        contents.append(content)
        end = offset + FCGI_HEADER_LEN + reader.content_length + reader.padding_length
        if last and end <= len(data):
            whole = b"".join(contents)
            yield Record(record_type, request_id, whole, reader.padding_length, offset)
            contents.clear()
            offset = end
    if reader.inside:
        cut = f"the data ends {len(data) - offset} bytes into the record at offset {offset}"
        raise remote_fault(cut, "3.3", kind=TruncatedMessage)
