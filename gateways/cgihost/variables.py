"""What a script sees of a request: its environment (RFC 3875 §4.1) and its arguments (§4.4).

The environment is made from nothing.  It holds CGI's variables and the request's headers, what the
settings add, and a PATH; nothing of the server's own environment, which may hold secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from gateways.cgihost.resolving import Refused, Script
from gateways.cgihost.settings import DEFAULT_PATH, ScriptSettings
from gateways.variables import HEADERS_KEPT_BACK, OF_REQUESTS, may_be_passed

_NAME = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

_KNOWN = {name: name.encode() for name in OF_REQUESTS}

# Methods whose requests have a body, even where it is empty.
_WITH_BODY = ("POST", "PUT", "PATCH")


def environment(
    environ: Mapping[str, Any], script: Script, settings: ScriptSettings, root: bytes, length: int
) -> list[tuple[bytes, bytes]]:
    """Return the variables of one run; `length` is that of the body.

    Raises Refused, 400, for a value that is not latin-1, which PEP 3333 forbids.
    """
    made = {b"PATH": DEFAULT_PATH.encode(), b"GATEWAY_INTERFACE": b"CGI/1.1"}
    for name in settings.inherit:
        if name in os.environb:
            made[name] = os.environb[name]
    try:
        mount = environ.get("SCRIPT_NAME", "").encode("latin-1")
        _add_request(made, environ, settings)
    except UnicodeEncodeError as error:
        raise Refused(400, f"a variable of the request is not latin-1: {error}") from None
    made[b"SCRIPT_NAME"] = mount + script.name
    made[b"SCRIPT_FILENAME"] = script.file
    if script.info:
        made[b"PATH_INFO"] = script.info
        documents = settings.document_root or made.get(b"DOCUMENT_ROOT", b"").rstrip(b"/") or root
        made[b"PATH_TRANSLATED"] = documents + script.info
    if length or environ.get("REQUEST_METHOD") in _WITH_BODY:
        made[b"CONTENT_LENGTH"] = b"%d" % length
    if script.is_nph:
        # The script answers in the protocol that is named here (§5); in HTTP/1.1 it might send
        # its body in chunks, which nobody behind it could take apart.
        made[b"SERVER_PROTOCOL"] = b"HTTP/1.0"
    made.update(settings.set)
    # Not even where it is set: every library that a script uses would believe it.
    made.pop(b"HTTP_PROXY", None)
    return list(made.items())


def _add_request(
    made: dict[bytes, bytes], environ: Mapping[str, Any], settings: ScriptSettings
) -> None:
    for name, value in environ.items():
        if type(value) is not str:
            continue
        known = _KNOWN.get(name)
        if known is not None:
            # "The server MUST set" REMOTE_ADDR and QUERY_STRING; others are absent when empty.
            if value or name in settings.passed:
                made[known] = value.encode("latin-1")
        elif name.startswith("HTTP_"):
            if _is_header(name, settings):
                made[name.encode()] = value.encode("latin-1")
        elif (
            name in settings.passed or (settings.prefixes and name.startswith(settings.prefixes))
        ) and may_be_passed(name):  # "P*" would have PATH come from whoever reaches the socket
            made[name.encode("latin-1")] = value.encode("latin-1")
    made.setdefault(b"QUERY_STRING", b"")
    made.setdefault(b"REMOTE_ADDR", b"")
    made.setdefault(b"SERVER_SOFTWARE", b"gateways")
    if environ.get("wsgi.url_scheme") == "https":
        made.setdefault(b"HTTPS", b"on")


def _is_header(name: str, settings: ScriptSettings) -> bool:
    if name in HEADERS_KEPT_BACK or not name.isascii() or name.encode().translate(None, _NAME):
        return False
    # "A server SHOULD remove" what holds passwords (§4.1.18).
    withheld = name == "HTTP_AUTHORIZATION" and not settings.authorization
    return not withheld or name in settings.passed


def arguments(environ: Mapping[str, Any], settings: ScriptSettings) -> list[bytes]:
    """Return the words of an indexed query (RFC 3875 §4.4), none unless they are asked for.

    None either where one of them could be an option: what a visitor types is never a switch of
    the script's or of its interpreter's (CVE-2012-1823).
    """
    query: str = environ.get("QUERY_STRING", "")
    if (
        not settings.indexed_query
        or not query
        or "=" in query
        or environ.get("REQUEST_METHOD") not in ("GET", "HEAD")
    ):
        return []
    words = [unquote_to_bytes(word.encode("latin-1", "replace")) for word in query.split("+")]
    # "If any of the words cannot be made into arguments, none is" (§4.4).
    if any(not word or word[0] == 0x2D or b"\0" in word for word in words):
        return []
    return words
