"""The meta-variables of a request that we make ourselves (RFC 3875 §4.1).

A web server makes them from an HTTP request; here there is none, so they are made from a method,
a target and headers, as a web server would have made them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote_to_bytes

from gateways.errors import LocalProtocolError

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

Headers = Iterable[tuple[str, str | bytes]]


def variables(
    target: str,
    *,
    method: str = "GET",
    headers: Headers = (),
    content_length: int | None = 0,
    script_name: str = "",
    extra: Mapping[str, str | bytes] | None = None,
) -> list[tuple[bytes, bytes]]:
    """Return the variables that a web server would send for a request.

    `target` is the path and query as they stand in a URL; characters outside ASCII are
    percent-encoded as UTF-8.  `script_name` is the part of the path that the application is
    mounted at.  `content_length` None means that the length is not known.  Values in `headers`
    are latin-1 text or bytes.  `extra` replaces or adds variables, as SCRIPT_FILENAME for PHP.

    Raises LocalProtocolError for a method, target or header that no HTTP request could hold.
    """
    _check_method(method)
    path, query = _split_target(target)
    path_info = _path_info(path, script_name)
    fields = _join_headers(headers)
    host = fields.pop(b"HTTP_HOST", b"localhost")
    name, port = _server(host)
    made = {
        b"CONTENT_LENGTH": b"" if content_length is None else b"%d" % content_length,
        b"CONTENT_TYPE": fields.pop(b"HTTP_CONTENT_TYPE", b""),
        b"GATEWAY_INTERFACE": b"CGI/1.1",
        b"PATH_INFO": path_info,
        b"QUERY_STRING": query.encode("ascii"),
        b"REMOTE_ADDR": b"127.0.0.1",
        b"REQUEST_METHOD": method.encode("ascii"),
        b"REQUEST_SCHEME": b"http",
        b"REQUEST_URI": (path + ("?" + query if "?" in target else "")).encode("ascii"),
        b"SCRIPT_NAME": _encode("script_name", script_name),
        b"SERVER_NAME": name,
        b"SERVER_PORT": port,
        b"SERVER_PROTOCOL": b"HTTP/1.1",
        b"SERVER_SOFTWARE": b"gateways",
        b"HTTP_HOST": host,
    }
    _check_content_length(fields.pop(b"HTTP_CONTENT_LENGTH", None), made[b"CONTENT_LENGTH"])
    made.update(fields)
    for key, value in (extra or {}).items():
        made[_encode("a variable's name", key)] = _encode(key, value)
    return list(made.items())


def _check_method(method: str) -> None:
    if not method or not _TOKEN.issuperset(method):
        raise LocalProtocolError(
            f"the method {method!r} is not a token as GET is", rule="RFC 3875 4.1.12"
        )


def _split_target(target: str) -> tuple[str, str]:
    """Return the path and the query of a target, in ASCII."""
    if not target.startswith("/"):
        raise LocalProtocolError(
            f"the target {target!r} does not begin with a slash", rule="RFC 3875 3.3"
        )
    if any(character <= " " or character == "\x7f" for character in target):
        raise LocalProtocolError(
            f"the target {target!r} holds a space or control character; write it as %20",
            rule="RFC 3875 3.3",
        )
    # Everything printable in ASCII stays as it is written, also what a URL should not hold.
    ascii_target = quote(target.partition("#")[0], safe="".join(map(chr, range(0x21, 0x7F))))
    path, _, query = ascii_target.partition("?")
    return path, query


def _path_info(path: str, script_name: str) -> bytes:
    decoded = unquote_to_bytes(path)
    prefix = _encode("script_name", script_name)
    rest = decoded[len(prefix) :]
    if not decoded.startswith(prefix) or prefix.endswith(b"/") or (rest and rest[:1] != b"/"):
        raise LocalProtocolError(
            f"the path {path} is not below the script name {script_name!r}", rule="RFC 3875 4.1.13"
        )
    return rest


def _join_headers(headers: Headers) -> dict[bytes, bytes]:
    """Return the headers as HTTP_* variables, those of one name joined (RFC 3875 §4.1.18)."""
    joined: dict[bytes, bytes] = {}
    for name, text in headers:
        if not name or not _TOKEN.issuperset(name):
            raise LocalProtocolError(f"the header name {name!r} is not a token")
        value = _encode(f"the header {name!r}", text)
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise LocalProtocolError(f"the header {name!r} holds CR, LF or NUL: {value!r}")
        key = b"HTTP_" + name.upper().replace("-", "_").encode("ascii")
        separator = b"; " if key == b"HTTP_COOKIE" else b", "
        joined[key] = joined[key] + separator + value if key in joined else value
    return joined


def _server(host: bytes) -> tuple[bytes, bytes]:
    """Return the name and port that a Host header means."""
    name, colon, port = host.rpartition(b":")
    if colon and port.isdigit():
        return name, port
    return host, b"80"


def _check_content_length(given: bytes | None, actual: bytes) -> None:
    if given is not None and given != actual:
        raise LocalProtocolError(
            f"the header Content-Length says {given!r}, the body has"
            f" {actual.decode() or 'no known number of'} bytes",
            rule="RFC 3875 4.1.2",
        )


def _encode(what: str, text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError(
            f"{what} holds characters outside latin-1: {text!r}; give it as bytes"
        ) from None
