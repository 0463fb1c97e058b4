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

_STEERING = frozenset(
    {
        *("PATH", "HOME", "SHELL", "IFS", "ENV", "PS4", "PROMPT_COMMAND", "SHELLOPTS", "BASHOPTS"),
        *("GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "CDPATH"),
        *("PAGER", "EDITOR", "VISUAL", "BROWSER", "LESSOPEN", "LESSCLOSE"),
        *("PHPRC", "PHP_INI_SCAN_DIR", "PHP_VALUE", "PHP_ADMIN_VALUE", "CLASSPATH"),
        *("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "TCLLIBPATH", "TCL_LIBRARY"),
        *("OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    }
)
_STEERING_PREFIXES = (
    *("LD_", "DYLD_", "BASH_", "PYTHON", "PERL", "RUBY", "GEM_", "BUNDLE_", "NODE_", "LUA_", "R_"),
    *("DOTNET_", "XDG_", "GIT_"),
)

# Most of git's own name a program (GIT_EXEC_PATH, GIT_SSH), or a folder whose settings do.
_OF_GIT = frozenset(
    {
        *("GIT_PROJECT_ROOT", "GIT_HTTP_EXPORT_ALL", "GIT_HTTP_MAX_REQUEST_BUFFER"),
        *("GIT_PROTOCOL", "GIT_NAMESPACE", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
    }
)


def may_be_passed(name: str) -> bool:
    """Whether a request may set a variable at all, where somebody has named it.

    Not where it is known to decide which program a process runs, or with what code: whoever reaches
    the socket could run anything.  No list of these is ever complete.
    """
    if name in HEADERS_KEPT_BACK or name in _STEERING:
        return False
    return name in _OF_GIT or not name.startswith(_STEERING_PREFIXES)
