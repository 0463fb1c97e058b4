"""Name-value pairs (§3.4): the content of PARAMS, GET_VALUES and GET_VALUES_RESULT.

A pair is two lengths of one or four bytes, a name and a value.  PairReader takes a stream of them
cut anywhere and holds it to its limits; `decode_pairs` is the same for pairs that came whole.
`plain_text` is the quick way, for nearly all requests: it refuses whatever needs a second look.

An empty name is an error; what the names mean is left to others.
"""

from __future__ import annotations

from gateways.errors import LimitExceeded, RemoteProtocolError, TruncatedMessage
from gateways.events import repeated_names
from gateways.fastcgi.records import local_fault, remote_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateways.events import PlainText


def encode_pair(name: bytes, value: bytes) -> bytes:
    """Return a name-value pair as bytes (§3.4); LocalProtocolError for a length of 2 GiB."""
    return _encode_length(len(name)) + _encode_length(len(value)) + name + value


def _encode_length(length: int) -> bytes:
    if length < 128:
        return bytes((length,))
    if length > 0x7FFFFFFF:
        raise local_fault("a name or value is 2 GiB or longer", "3.4")
    return (length | 0x80000000).to_bytes(4, "big")


def encode_pairs(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return name-value pairs as bytes, in their order (§3.4)."""
    return b"".join([encode_pair(name, value) for name, value in pairs])


def decode_pairs(
    data: bytes, *, max_variables: int = 65536, max_variable_bytes: int = 1 << 24
) -> list[tuple[bytes, bytes]]:
    """Return the name-value pairs that `data` consists of, repeated names kept (§3.4).

    LimitExceeded past a limit, TruncatedMessage where the last pair is cut, RemoteProtocolError
    for an empty name.
    """
    reader = PairReader(max_variables, max_variable_bytes)
    reader.receive(data)
    reader.end()
    return reader.pairs


def plain_text(block: bytes, max_variables: int) -> PlainText | None:
    """Return the pairs that `block` consists of as Request's `text` and `repeated`, where it may have one.

    None where a pair is cut, a name is empty or holds NUL or "." (no meta-variable does, and what
    begins with "wsgi." is the server's), and past `max_variables`: `PairReader` tells what is wrong
    then, if anything is.
    """
    text = block.decode("latin-1")
    variables = {}
    names = []
    start = 0
    size = len(block)
    try:
        if text.isascii():
            # Then no length has its high bit set, so each is a single byte.  This loop is the
            # better half of what a small request costs.
            while start < size:
                at = start + 2
                value = at + block[start]
                start = value + block[start + 1]
                name = text[at:value]
                names.append(name)
                variables[name] = text[value:start]
        else:
            while start < size:
                name_length = block[start]
                value_length = block[start + 1]
                if name_length > 127 or value_length > 127:
                    name_length, value_length, start = _long_lengths(block, start)
                at = start + 2
                value = at + name_length
                start = value + value_length
                name = text[at:value]
                names.append(name)
                variables[name] = text[value:start]
    except IndexError:
        return None
    joined = "".join(names)
    if start != size or "" in variables or "\0" in joined or "." in joined:
        return None
    if len(names) > max_variables:
        return None
    if len(variables) == len(names):
        return variables, ()
    return variables, repeated_names(names, len(variables))


def _long_lengths(block: bytes, start: int) -> tuple[int, int, int]:
    """Return both lengths of the pair at `start`, and where the second ends, less 2.

    IndexError where they are cut.
    """
    name_length = block[start]
    if name_length > 127:
        name_length = int.from_bytes(block[start : start + 4], "big") & 0x7FFFFFFF
        start += 3
    value_length = block[start + 1]
    if value_length > 127:
        value_length = int.from_bytes(block[start + 1 : start + 5], "big") & 0x7FFFFFFF
        start += 3
    return name_length, value_length, start


class PairReader:
    """Reads a stream of name-value pairs, cut anywhere, within limits (§3.4).

    A length is refused before its bytes are waited for, and only bytes that came are kept.
    """

    __slots__ = ("pairs", "_max_variables", "_max_bytes", "_request_id", "_size", "_rest", "_need")

    def __init__(self, max_variables: int, max_bytes: int, request_id: int = 0) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []
        self._max_variables = max_variables
        self._max_bytes = max_bytes
        self._request_id = request_id
        self._size = 0
        self._rest = bytearray()  # of a pair that is not complete
        self._need = 0  # the size of `_rest` below which decoding it again is in vain

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the stream; errors as `decode_pairs`."""
        # What lies within the limit is decoded first, so that which of two faults is found does
        # not depend on how the stream is cut.
        room = self._max_bytes - self._size
        within = data[:room]
        self._size += len(within)
        if not self._rest:
            self._rest += within[self._decode(within) :]
        else:
            self._rest += within
            if len(self._rest) >= self._need:
                del self._rest[: self._decode(bytes(self._rest))]
        if len(data) > room:
            raise self._too_long()

    def end(self) -> None:
        """Take the end of the stream; TruncatedMessage inside a pair."""
        if self._rest:
            cut = f"name-value pair {len(self.pairs) + 1} is cut by the end of its stream"
            raise remote_fault(cut, "3.4", self._request_id, TruncatedMessage)

    def _decode(self, data: bytes) -> int:
        """Decode the whole pairs and return where they end; set what the next one needs."""
        # Where the stream's limit stands, counted from the front of `data`.
        limit = self._max_bytes - self._size + len(data)
        start, end = 0, len(data)
        while start < end:
            name_length = data[start]
            position = start + 1
            if name_length > 127:
                position = start + 4
                name_length = int.from_bytes(data[start:position], "big") & 0x7FFFFFFF
            self._need = position + 1 - start
            if position >= end:
                return start
            value_length = data[position]
            name = position + 1
            if value_length > 127:
                name = position + 4
                value_length = int.from_bytes(data[position:name], "big") & 0x7FFFFFFF
                self._need = name - start
                if name > end:
                    return start
            value = name + name_length
            after = value + value_length
            self._need = after - start
            if not name_length or after > limit or len(self.pairs) >= self._max_variables:
                raise self._refusal(name_length, after > limit)
            if after > end:
                return start
            self.pairs.append((data[name:value], data[value:after]))
            start = after
        return start

    def _refusal(self, name_length: int, too_long: bool) -> RemoteProtocolError:
        if not name_length:
            message = f"name-value pair {len(self.pairs) + 1} has an empty name"
            return remote_fault(message, "3.4", self._request_id)
        if too_long:
            return self._too_long()
        message = f"more than {self._max_variables} name-value pairs"
        return remote_fault(message, "3.4", self._request_id, LimitExceeded)

    def _too_long(self) -> RemoteProtocolError:
        message = f"name-value pairs of more than {self._max_bytes} bytes"
        return remote_fault(message, "3.4", self._request_id, LimitExceeded)
