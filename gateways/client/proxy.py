"""A WSGI application that forwards each request to a FastCGI or SCGI backend.

Behind any server of ours it translates one protocol into another; behind an HTTP server written in
Python it is the development front.  The body streams out as it is read from wsgi.input and the
answer streams back as it arrives, in bounded memory, so that an event stream passes through.  Each
request has a connection of its own, closed with the answer.

A backend that cannot be reached or whose answer is broken gives 502, one that takes too long 504,
each a plain line to the visitor and one line on wsgi.errors; a request that the protocol cannot
carry, as one with NUL in its path, gives 400.  Once the answer has begun, the fault
is raised from the iterator: the server above then cuts the answer, as it must.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gateways import addresses
from gateways.client.body import Readable, Spool
from gateways.client.connection import Answer, connect
from gateways.errors import (
    GatewayError,
    LocalProtocolError,
    RemoteProtocolError,
    RequestAborted,
    TransportError,
    TransportTimeout,
)
from gateways.response import HOP_BY_HOP
from gateways.variables import HEADERS_KEPT_BACK, OF_PATHS, OF_REQUESTS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PIECE_SIZE = 65536

_VARIABLES = frozenset({*OF_REQUESTS, *OF_PATHS})

_REASONS = {502: "Bad Gateway", 504: "Gateway Timeout"}


class ProxyApplication:
    """Forwards to `address`; `timeout` is seconds for each wait, None for ever.

    `extra` adds variables to each request, as SCRIPT_FILENAME for PHP.  Raises ConfigurationError
    for a bad address; whether anybody listens there is first known when a request comes.
    """

    def __init__(
        self,
        address: addresses.Address | str,
        *,
        timeout: float | None = 60.0,
        extra: Mapping[str, str | bytes] | None = None,
    ) -> None:
        self.address = addresses.parse(address) if isinstance(address, str) else address
        self.timeout = timeout
        self.extra = dict(extra or {})

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[bytes] | list[bytes]:
        length = _content_length(environ)
        if length is not None and length < 0:
            return _plain(start_response, "400 Bad Request", "CONTENT_LENGTH is not a number.")
        upload = _Upload(environ, length)
        try:
            answer = self._forward(environ, upload, length)
        except LocalProtocolError as error:
            # A visitor can bring that about: several web servers decode %00 in a path.
            _log(environ, f"gateways: {error} (400 sent)")
            return _plain(start_response, "400 Bad Request", "The request cannot be forwarded.")
        except (TransportError, RequestAborted, RemoteProtocolError) as error:
            if error is upload.error:
                raise
            status = 504 if isinstance(error, TransportTimeout) else 502
            _log(environ, f"gateways: {error} ({status} sent)")
            return _plain(
                start_response,
                f"{status} {_REASONS[status]}",
                "The application behind this server did not answer.",
            )
        start_response(f"{answer.status} {answer.reason or 'Unknown'}", _headers(answer))
        return _Forwarded(answer, environ)

    def _forward(self, environ: WSGIEnvironment, upload: _Upload, length: int | None) -> Answer:
        body: Readable = upload
        if length is None and self.address.protocol == "scgi":
            body = spool = Spool(upload)
            length = spool.length
        try:
            variables = _variables(environ, self.extra)
            if length is not None:
                variables.insert(0, (b"CONTENT_LENGTH", b"%d" % length))
            connection = connect(self.address, timeout=self.timeout)
            return connection.request(
                variables,
                body if length != 0 else b"",
                keep_conn=False,
                on_errors=lambda data: _log(environ, data.decode("utf-8", "backslashreplace")),
            )
        except BaseException:
            if isinstance(body, Spool):
                body.close()
            raise


class _Upload:
    """The request's body: as many bytes as CONTENT_LENGTH says, or to the end where none is known.

    An error of wsgi.input is kept, to be told apart from the backend's.
    """

    def __init__(self, environ: WSGIEnvironment, length: int | None) -> None:
        self._input = environ["wsgi.input"]
        self._length = length
        self.taken = 0
        self.error: Exception | None = None

    def read(self, size: int, /) -> bytes:
        if self._length is not None:
            size = min(size, self._length - self.taken)
        if not size:
            return b""
        try:
            data: bytes = self._input.read(size)
            if not data and self._length is not None:
                raise RequestAborted(f"wsgi.input ended after {self.taken} bytes of {self._length}")
        except Exception as error:
            self.error = error
            raise
        self.taken += len(data)
        return data


class _Forwarded:
    """The answer's body as an iterator; closing it closes the backend's connection."""

    def __init__(self, answer: Answer, environ: WSGIEnvironment) -> None:
        self._answer = answer
        self._environ = environ
        self._pieces = answer.iter_body()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except GatewayError as error:
            _log(self._environ, f"gateways: {error} (answer cut)")
            raise

    def close(self) -> None:
        self._answer.close()


def _content_length(environ: Mapping[str, Any]) -> int | None:
    """Return the body's length: None when it is unknown, -1 when CONTENT_LENGTH is no number."""
    text = environ.get("CONTENT_LENGTH") or ""
    if not text:
        return None if environ.get("wsgi.input_terminated") else 0
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        return -1
    return int(text)


def _variables(
    environ: Mapping[str, Any], extra: Mapping[str, str | bytes]
) -> list[tuple[bytes, bytes]]:
    """Return the meta-variables in an environ; PEP 3333 has them as latin-1 strings."""
    named = _connection_headers(environ.get("HTTP_CONNECTION", ""))
    made: dict[str, str | bytes] = {"GATEWAY_INTERFACE": "CGI/1.1"}
    for name, value in environ.items():
        if name in _VARIABLES or (name.startswith("HTTP_") and not _is_dropped(name, named)):
            made[name] = value
    if environ.get("wsgi.url_scheme") == "https":
        made.setdefault("HTTPS", "on")
    made.setdefault("REQUEST_URI", _request_uri(environ))
    made.update(extra)
    return [
        (name.encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in made.items()
    ]


def _connection_headers(value: str) -> frozenset[str]:
    return frozenset(
        "HTTP_" + name.strip().upper().replace("-", "_") for name in value.split(",") if name
    )


def _is_dropped(name: str, named: frozenset[str]) -> bool:
    return name in HEADERS_KEPT_BACK or name in named


def _request_uri(environ: Mapping[str, Any]) -> str:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    # The pchars of RFC 3986 and the slash stay as they are.
    written = quote(path.encode("latin-1"), safe="/-._~!$&'()*+,;=:@") or "/"
    return f"{written}?{query}" if query else written


def _headers(answer: Answer) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers if name.lower() not in HOP_BY_HOP]


def _plain(start_response: StartResponse, status: str, text: str) -> list[bytes]:
    body = text.encode("ascii") + b"\n"
    start_response(
        status,
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
    )
    return [body]


def _log(environ: Mapping[str, Any], text: str) -> None:
    errors = environ["wsgi.errors"]
    errors.write(text if text.endswith("\n") else text + "\n")
    errors.flush()
