"""The malformed inputs that other servers fell over, for a server's end of FastCGI and of SCGI.

Each has the CVE or what stands beside it in `tests/test_cve.py`, where it is tried whole and by
itself; here are the bytes, for cutting them everywhere.
"""

from __future__ import annotations

import random

from tests.peers import wire
from tests.peers.wire import begin, pair, pairs, record, stdin

LENGTHS = {
    "a sign": b"+4",
    "an underscore": b"0_4",
    "a space before": b" 4",
    "a space after": b"4 ",
    "an Arabic digit": "٣".encode(),
    "hexadecimal": b"0x4",
    "an exponent": b"4e0",
    "negative": b"-2",
    "nineteen digits": b"1" * 19,
    "superscript": b"\xb2",
    "a line": b"4\nforged",
}
"""CVE-2022-24761, CVE-2019-16785, CVE-2019-16789: what int() takes, and is no length."""


def messages(protocol: str) -> dict[str, bytes]:
    """Return the messages of a protocol by name; always the same ones."""
    return _fastcgi() if protocol == "fcgi" else _scgi()


def _values(**values: str | bytes) -> dict[str, str | bytes]:
    return {**wire.VARIABLES, "PATH_INFO": "/read", **values}


def _params(content: bytes) -> bytes:
    return record(wire.PARAMS, content) + record(wire.PARAMS)


def _fastcgi() -> dict[str, bytes]:
    good = pairs(_values())
    end = record(wire.STDIN)
    whole = begin() + _params(good) + end
    posted = wire.fastcgi(_values(REQUEST_METHOD="POST"), b"body")
    found = {
        f"CVE-2025-23016, {name_length:#x} and {value_length:#x}": begin()
        + record(
            wire.PARAMS,
            (name_length | 0x80000000).to_bytes(4, "big") + wire.length(value_length) + b"N",
        )
        for name_length, value_length in (
            (0x7FFFFFFF, 0x7FFFFFFF),
            (1, 0x7FFFFFFF),
            (0x7FFFFFFF, 1),
            (0x7FFFFFFF, 0),
        )
    }
    found |= {
        f"CVE-2022-24761, {name}": wire.fastcgi(
            _values(REQUEST_METHOD="POST", CONTENT_LENGTH=value), b"body"
        )
        for name, value in LENGTHS.items()
    }
    found |= {
        "CVE-2019-16785, two lengths": begin()
        + _params(good + pair(b"CONTENT_LENGTH", b"1") + pair(b"CONTENT_LENGTH", b"4"))
        + stdin(b"body")
        + end,
        "CVE-2026-55203, the longest padding": begin()
        + record(wire.PARAMS, good, padding=255)
        + record(wire.PARAMS, padding=255)
        + record(wire.STDIN, padding=255),
        "CVE-2007-4727, a header beyond the limit": wire.fastcgi(_values(HTTP_LONG="x" * 131073)),
        "CVE-2019-11043, a line end in the path": wire.fastcgi(_values(PATH_INFO=b"/read\nx")),
        "more variables than allowed": wire.fastcgi({f"V{each}": "" for each in range(1001)}),
        "a body longer than its length": wire.fastcgi(_values(CONTENT_LENGTH="2"), b"body"),
        "a body shorter than its length": wire.fastcgi(_values(CONTENT_LENGTH="9"), b"body"),
        "another version": record(wire.BEGIN, bytes((0, 1, 0, 0, 0, 0, 0, 0)), version=2) + whole,
        "an unknown role": begin(role=9) + _params(good) + end,
        "no request id": begin(0) + whole,
        "BEGIN_REQUEST of seven bytes": record(wire.BEGIN, bytes((0, 1, 0, 0, 0, 0, 0))) + whole,
        "BEGIN_REQUEST twice": begin() + whole,
        "variables after their end": begin() + _params(good) + _params(good) + end,
        "a body before the variables end": begin() + record(wire.PARAMS, good) + stdin(b"x") + end,
        "a pair cut off": begin() + _params(good[:-3]) + end,
        "an empty name": begin() + _params(good + pair(b"", b"x")) + end,
        "NUL in a name": begin() + _params(good + pair(b"HTTP_\0", b"x")) + end,
        "no variables": begin() + record(wire.PARAMS) + end,
        "data for a responder": begin() + _params(good) + record(wire.DATA, b"x") + end,
        "an abort with content": begin() + record(wire.ABORT, b"x") + whole,
        "records of a request that is not open": stdin(b"x") + record(wire.ABORT) + whole,
        "an unknown type": record(12, b"x", 0) + whole,
        "an unknown type of a request": begin() + record(12, b"x") + _params(good) + end,
        "GET_VALUES with a value": record(wire.GET_VALUES, pair(b"FCGI_MAX_CONNS", b"1"), 0)
        + whole,
        "GET_VALUES cut off": record(wire.GET_VALUES, b"\x0eFCGI", 0) + whole,
        "answers sent to us": record(wire.STDOUT, b"x") + record(wire.END, bytes(8)) + whole,
        "two requests": wire.fastcgi(_values(), flags=wire.KEEP)
        + wire.fastcgi(_values(), request_id=2),
    }
    return found | _noise(posted)


def _scgi() -> dict[str, bytes]:
    values = {"CONTENT_LENGTH": "4", "SCGI": "1", **_values(REQUEST_METHOD="POST")}
    headers = wire.scgi_headers(values)
    size = str(len(headers)).encode()
    good = wire.scgi(_values(REQUEST_METHOD="POST"), b"body")

    def framed(head: bytes, body: bytes = b"body") -> bytes:
        return wire.netstring(head) + body

    found = {
        f"a netstring of {name}": prefix + b":" + headers + b",body"
        for name, prefix in {
            "a sign": b"+" + size,
            "a leading zero": b"0" + size,
            "an underscore": size[:1] + b"_" + size[1:],
            "a space before": b" " + size,
            "a space after": size + b" ",
            "hexadecimal": hex(len(headers)).encode(),
            "an Arabic digit": "٣".encode() + size,
            "nothing": b"",
            "a byte too many": str(len(headers) + 1).encode(),
            "a byte too few": str(len(headers) - 1).encode(),
            "two gigabytes": b"2147483647",
            "thirty digits": b"9" * 30,
            "a minus": b"-" + size,
        }.items()
    }
    found |= {
        f"CVE-2022-24761, {name}": framed(wire.scgi_headers({**values, "CONTENT_LENGTH": value}))
        for name, value in LENGTHS.items()
    }
    found |= {
        "CVE-2019-16785, two lengths": framed(headers + b"CONTENT_LENGTH\x002\0"),
        "CVE-2007-4727, a header beyond the limit": wire.scgi(_values(HTTP_LONG="x" * 131073)),
        "CVE-2019-11043, a line end in the path": wire.scgi(_values(PATH_INFO=b"/read\nx")),
        "more variables than allowed": wire.scgi({f"V{each}": "" for each in range(1001)}),
        "a body longer than its length": framed(headers, b"body and more"),
        "a body shorter than its length": framed(headers, b"bo"),
        "no comma": wire.netstring(headers)[:-1] + b";body",
        "a name without a value": framed(headers + b"NAME\0"),
        "no NUL at the end": framed(headers[:-1]),
        "an empty name": framed(headers + b"\0value\0"),
        "no length": framed(wire.scgi_headers({"SCGI": "1", **_values()}), b""),
        "an empty length": framed(wire.scgi_headers({**values, "CONTENT_LENGTH": ""}), b""),
        "the length second": framed(wire.scgi_headers({"SCGI": "1", **values})),
        "no SCGI": framed(wire.scgi_headers({"CONTENT_LENGTH": "4", **_values()})),
        "another SCGI": framed(wire.scgi_headers({**values, "SCGI": "2"})),
        "nothing in it": wire.netstring(b""),
        "two requests": good + good,
    }
    return found | _noise(good)


def _noise(good: bytes) -> dict[str, bytes]:
    """Return requests with a byte changed, and what was meant for somebody else."""
    dice = random.Random(2026)
    found = {
        "HTTP": b"GET / HTTP/1.1\r\nHost: peer.example\r\n\r\n",
        "TLS": bytes.fromhex("16030100c8010000c40303") + dice.randbytes(200),
        "noise": dice.randbytes(300),
        "zeros": bytes(300),
        "ones": b"\xff" * 300,
    }
    for number in range(12):
        changed = bytearray(good)
        at = dice.randrange(len(changed))
        changed[at] ^= 1 << dice.randrange(8)
        found[f"a bit changed ({number}), at {at}"] = bytes(changed)
    return found
