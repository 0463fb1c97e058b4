"""The applications that are measured: plain WSGI, the same file under every server.

    gateways serve benchmarks/apps.py:hello

Flask's page stands in flask_page.py, so that nobody's memory holds Flask unless it is used.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

HELLO = b"Hello World\n"
CHUNK = b"0123456789abcdef" * 4096
CHUNKS = 16
SLEEP_SECONDS = 0.010
SLEEP_SHARE = 10
"""`sleeper` sleeps in one of so many requests."""


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """12 bytes with two fields."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(HELLO)))])
    return [HELLO]


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The request's body, read in one call."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    fields = [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))]
    start_response("200 OK", fields)
    return [body]


def big(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """1 MiB from an iterator of 16 chunks."""
    length = str(len(CHUNK) * CHUNKS)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", length)])
    return _chunks()


def _chunks() -> Iterator[bytes]:
    for _ in range(CHUNKS):
        yield CHUNK


_served = itertools.count(1)


def sleeper(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """`hello`, after a sleep in one of ten requests, counted so that the share is exact."""
    if next(_served) % SLEEP_SHARE == 0:
        time.sleep(SLEEP_SECONDS)
    return hello(environ, start_response)
