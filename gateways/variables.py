"""Which meta-variables of a request are handed on (RFC 3875 §4.1): to a script, and to a backend.

Who reaches a socket may send any variable, and under CGI or wsgiref the environ holds a process's
whole environment besides: so what is handed on is listed here, and nothing else passes unless it is
named by whoever runs the program.
"""

from __future__ import annotations

from gateways.response import HOP_BY_HOP

OF_REQUESTS = (
    "AUTH_TYPE",
    "CONTENT_TYPE",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "HTTPS",
    "QUERY_STRING",
    "REDIRECT_QUERY_STRING",
    "REDIRECT_STATUS",
    "REDIRECT_URL",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SERVER_ADDR",
    "SERVER_ADMIN",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
    "UNIQUE_ID",
)
"""§4.1, and what web servers add to it, but for paths and lengths, which whoever hands on makes."""

OF_PATHS = ("PATH_INFO", "PATH_TRANSLATED", "SCRIPT_FILENAME", "SCRIPT_NAME")

HEADERS_KEPT_BACK = frozenset(
    {
        "HTTP_PROXY",
        "HTTP_REDIRECT_STATUS",
        "HTTP_CONTENT_LENGTH",
        "HTTP_CONTENT_TYPE",
        "HTTP_EXPECT",
        *("HTTP_" + name.upper().replace("-", "_") for name in HOP_BY_HOP),
    }
)
"""Headers that are never handed on, since a client may send any.

Proxy would name the outgoing proxy of whoever reads it (httpoxy), and php-cgi believes
HTTP_REDIRECT_STATUS (CVE-2024-8927).  Two stand without HTTP_.  Whoever is in front has answered an
Expect, and decoded the body.
"""

_STEERING = frozenset({"PATH", "IFS", "ENV", "SHELLOPTS", "GLIBC_TUNABLES", "GCONV_PATH"})
_STEERING_PREFIXES = ("LD_", "DYLD_", "PYTHON", "PERL5", "RUBY", "BASH_")


def may_be_passed(name: str) -> bool:
    """Whether a request may set a variable at all, where somebody has named it.

    Not where it decides which program a process runs, or with what code: whoever reaches the
    socket could run anything.
    """
    return not (
        name in HEADERS_KEPT_BACK or name in _STEERING or name.startswith(_STEERING_PREFIXES)
    )
