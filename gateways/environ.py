"""A request's meta-variables become a WSGI environ (RFC 3875 §4.1; PEP 3333 "environ Variables").

Every protocol comes through `build`, so each question that web servers answer differently is
settled once, here: the bytes are latin-1, repeated names are joined or the last one counts,
lengths are digits, a client's `Proxy` header never becomes HTTP_PROXY, and SCRIPT_NAME and
PATH_INFO are told apart by the table `_ROWS`.

Rules that belong to one protocol only (a uwsgi body that is still chunked, AJP13's attributes)
belong to that protocol's module, which hands over the same variables as all others.

The CGI path imports this module, so it imports nothing that costs time.
"""

from __future__ import annotations

from gateways.errors import RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from gateways.events import Request

    Split = tuple[str, str] | None

SINGLE_VALUED = frozenset(
    {
        "HTTP_AUTHORIZATION",
        "HTTP_CONTENT_LOCATION",
        "HTTP_DATE",
        "HTTP_FROM",
        "HTTP_HOST",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_RANGE",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_MAX_FORWARDS",
        "HTTP_ORIGIN",
        "HTTP_PROXY_AUTHORIZATION",
        "HTTP_RANGE",
        "HTTP_REFERER",
        "HTTP_USER_AGENT",
    }
)
"""Header fields that are no lists (RFC 9110 §5.5): of two, the last counts, as nginx's own settings have it."""

# 18 digits are more than any disk holds and fit every integer type that a length is put into.
_MAX_LENGTH_DIGITS = 18
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_BARE_APACHE = ("proxy:fcgi://", "proxy:scgi://", "proxy:balancer://")
_TRUE = ("on", "1", "yes", "true")


FOLDER_OF_SCRIPT = "."
"""What script_name is where the web server rewrites the URLs of a folder to the script in it."""


def build(
    request: Request,
    base: dict[str, object],
    script_name: str | None = None,
    local: tuple[str, str] = ("", ""),
    remote_user: bool = True,
) -> tuple[dict[str, Any], int | None]:
    """Return the environ of `request` and its body's length in bytes.

    The length is None when it is unknown because the protocol marks the body's end; then
    `wsgi.input_terminated` is True and there is no CONTENT_LENGTH.  An empty CONTENT_LENGTH,
    CONTENT_TYPE, REMOTE_USER or AUTH_TYPE is left out, as if it had not been sent.  Where the
    request has a `text`, that dict becomes the environ.

    `base` holds the keys that the server provides (wsgi.*); they win over what the peer sent, and
    no name of the peer's begins with "wsgi.".  `script_name` is where the application is mounted,
    as text that is not percent-encoded: "" for the root, None to let the variables decide, "." for
    the folder of a script that the URLs of that folder are rewritten to.
    `local` is the connection's own address and port, used where the variables name none; the
    peer's is not, since it is the web server's and REMOTE_ADDR is the visitor's.
    With `remote_user` false REMOTE_USER and AUTH_TYPE are dropped: nginx's fastcgi_params and
    haproxy send them unverified.

    Raises RemoteProtocolError, status hint 400: an empty name or one with NUL, two different
    CONTENT_LENGTHs or one that is not digits, no REQUEST_METHOD where a body is announced, a
    SCRIPT_NAME or PATH_INFO that does not begin with "/".
    """
    # Each rule is a function, called where it may have an effect: of what a web server sends,
    # most passes by most of them.
    environ: dict[str, Any] | None = request.text
    if environ is None or (request.repeated and _any_joined(request.repeated)):
        environ = _read_variables(request)
    request.text = None  # it is the environ from here on
    if (
        "HTTP_PROXY" in environ
        or "HTTP_CONTENT_LENGTH" in environ
        or "HTTP_CONTENT_TYPE" in environ
    ):
        _drop_forbidden(environ)
    if "REMOTE_USER" in environ or "AUTH_TYPE" in environ:
        _drop_user(environ, remote_user)
    if not environ.get("REQUEST_METHOD"):
        _check_method(environ, request.request_id)
    length = _content_length(environ, request)
    info = environ.get("PATH_INFO")
    if script_name or not info or info[0] != "/" or environ.get("SCRIPT_NAME") != "":
        _set_paths(environ, script_name, request.request_id)
    if not (
        environ.get("SERVER_NAME")
        and environ.get("SERVER_PORT")
        and environ.get("SERVER_PROTOCOL")
        and "QUERY_STRING" in environ
    ):
        _fill_missing(environ, local)
    if "HTTPS" in environ or environ.get("REQUEST_SCHEME") != "http":
        environ["wsgi.url_scheme"] = _scheme(environ)
    else:
        environ["wsgi.url_scheme"] = "http"
    if length is None:
        environ["wsgi.input_terminated"] = True
    environ.update(base)
    return environ, length


def _read_variables(request: Request) -> dict[str, Any]:
    """Return the variables as text, each name once and none that could be the server's own."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.variables]
    environ: dict[str, Any] = dict(pairs)
    if len(environ) != len(pairs):
        _join_repeated(environ, pairs, request.request_id)
    # One search in the joined names costs less than a test of each.
    names = "\0".join(environ)
    if "" in environ or names.count("\0") > max(len(environ) - 1, 0):
        raise _fault("a variable's name is empty or holds NUL", "RFC 3875 4.1", request.request_id)
    if "wsgi." in names:
        for name in [name for name in environ if name.startswith("wsgi.")]:
            del environ[name]
    return environ


def _join_repeated(environ: dict[str, Any], pairs: list[tuple[str, str]], request_id: int) -> None:
    """Settle names that came more than once (RFC 9110 §5.3); the dict holds each one's last value.

    nginx, haproxy and h2o send a client's two equal headers as two variables.
    """
    seen: dict[str, list[str]] = {}
    for name, value in pairs:
        seen.setdefault(name, []).append(value)
    if len(set(seen.get("CONTENT_LENGTH", ()))) > 1:
        raise _fault("there are two different CONTENT_LENGTHs", "RFC 3875 4.1.2", request_id)
    for name, values in seen.items():
        if len(values) > 1 and _is_list(name):
            # Cookie is the one list whose separator is no comma (RFC 6265 §5.4).
            environ[name] = ("; " if name == "HTTP_COOKIE" else ", ").join(values)


def _is_list(name: str) -> bool:
    return name.startswith("HTTP_") and name not in SINGLE_VALUED


def _any_joined(names: Sequence[str]) -> bool:
    """Whether one of these repeated names needs more than its last value."""
    for name in names:  # noqa: SIM110 - a generator costs twice as much, and nginx repeats names in every request
        if name == "CONTENT_LENGTH" or _is_list(name):
            return True
    return False


def _drop_forbidden(environ: dict[str, Any]) -> None:
    # "HTTP_PROXY" would be the client's word for where our own requests go (httpoxy).  The other
    # two would contradict CONTENT_TYPE and CONTENT_LENGTH, and wsgiref.validate refuses them.
    environ.pop("HTTP_PROXY", None)
    environ.pop("HTTP_CONTENT_TYPE", None)
    environ.pop("HTTP_CONTENT_LENGTH", None)


def _drop_user(environ: dict[str, Any], remote_user: bool) -> None:
    # nginx sends both empty where nobody has logged in.
    for name in ("REMOTE_USER", "AUTH_TYPE"):
        if not (remote_user and environ.get(name)):
            environ.pop(name, None)


def _check_method(environ: dict[str, Any], request_id: int) -> None:
    """Make a missing REQUEST_METHOD "GET", but not where a body speaks against it (RFC 3875 §4.1.12)."""
    if environ.get("REQUEST_METHOD"):
        return
    # All SCGI clients send CONTENT_LENGTH, 0 where there is no body.
    announced = environ.get("CONTENT_LENGTH", "").strip("0")
    if announced or environ.get("CONTENT_TYPE") or environ.get("HTTP_TRANSFER_ENCODING"):
        raise _fault("there is a body but no REQUEST_METHOD", "RFC 3875 4.1.12", request_id)
    environ["REQUEST_METHOD"] = "GET"


def _content_length(environ: dict[str, Any], request: Request) -> int | None:
    """Return the body's length; take CONTENT_LENGTH out where it says nothing (RFC 3875 §4.1.2)."""
    if environ.get("CONTENT_TYPE") == "":
        del environ["CONTENT_TYPE"]
    text = environ.get("CONTENT_LENGTH", "")
    if text == "" or (text == "-1" and request.body_delimited):
        # nginx sends '' where there is no body, caddy -1 for a chunked upload, Apache neither.
        environ.pop("CONTENT_LENGTH", None)
        return None if request.body_delimited else 0
    if len(text) > _MAX_LENGTH_DIGITS or not (text.isascii() and text.isdigit()):
        raise _fault(
            f"CONTENT_LENGTH is {text[:40]!r}; up to {_MAX_LENGTH_DIGITS} ASCII digits belong there",
            "RFC 3875 4.1.2",
            request.request_id,
        )
    return int(text)


def _fill_missing(environ: dict[str, Any], local: tuple[str, str]) -> None:
    """Set what PEP 3333 requires and the server left out or empty."""
    if "QUERY_STRING" not in environ:
        environ["QUERY_STRING"] = environ.get("REQUEST_URI", "").partition("?")[2]
    if not environ.get("SERVER_NAME"):
        environ["SERVER_NAME"] = environ.get("SERVER_ADDR") or local[0] or "localhost"
    if not environ.get("SERVER_PORT"):
        default = "443" if _scheme(environ) == "https" else "80"
        environ["SERVER_PORT"] = local[1] or default
    if not environ.get("SERVER_PROTOCOL"):
        # The version that promises the application least.
        environ["SERVER_PROTOCOL"] = "HTTP/1.0"


def _scheme(environ: dict[str, Any]) -> str:
    secure = environ.get("HTTPS", "").lower() in _TRUE
    return "https" if secure or environ.get("REQUEST_SCHEME", "").lower() == "https" else "http"


def _set_paths(environ: dict[str, Any], script_name: str | None, request_id: int) -> None:
    """Set SCRIPT_NAME and PATH_INFO by the first row of the table that applies."""
    if script_name is not None:
        # The user wrote text; the path holds bytes, shown as latin-1.
        script_name = script_name.rstrip("/").encode("utf-8", "surrogateescape").decode("latin-1")
    script, info = next(split for row in _ROWS if (split := row(environ, script_name)) is not None)
    if script == "/":
        # PEP 3333 spells the root application "", and its path "/".
        script = ""
    if not script and not info:
        info = "/"
    for name, part, section in (
        ("SCRIPT_NAME", script, "4.1.13"),
        ("PATH_INFO", info, "4.1.5"),
    ):
        if part and part[0] != "/":
            raise _fault(
                f"{name} is {part[:80]!r}, which does not begin with '/'",
                f"RFC 3875 {section}",
                request_id,
            )
        environ[name] = part


def _mounted(environ: dict[str, Any], script_name: str | None) -> Split:
    """`--script-name /app` is given: that prefix is taken off the path.

    Where the path is not under it, the variables decide: a path outside the mount is what the
    web server sent on purpose.
    """
    if script_name is None:
        return None
    if script_name == FOLDER_OF_SCRIPT:
        return _rewritten(environ)
    path = environ.get("SCRIPT_NAME", "") + _path_info(environ)
    if not path and "PATH_INFO" not in environ:
        path = _sent_path(environ)
    if script_name and _path_of(environ.get("REQUEST_URI", "")) == script_name + path:
        # The server has taken the prefix off already (caddy's handle_path, nginx's rewrite).
        return script_name, path
    rest = path[len(script_name) :]
    if path.startswith(script_name) and rest[:1] in ("", "/"):
        return script_name, rest
    return None


def _rewritten(environ: dict[str, Any]) -> Split:
    """`--script-name .` is given: the URLs of a folder are rewritten to the script in it.

    The application is mounted where that folder is, and the path is what the visitor asked for:
    Apache's SCRIPT_NAME is that of the script, which no visitor knows of.  Where the visitor has
    asked for the script itself it is as sent, and also where Apache has: an ErrorDocument that
    names the script brings it the path that was refused.
    """
    if _is_error_document(environ):
        return None
    script: str = environ.get("SCRIPT_NAME", "")
    path = _path_before(environ)
    if "/" not in script or (path.startswith(script) and path[len(script) :][:1] in ("", "/")):
        return None
    folder = script.rpartition("/")[0]
    rest = path[len(folder) :]
    return (folder, rest) if path.startswith(folder) and rest[:1] == "/" else None


def _is_error_document(environ: dict[str, Any]) -> bool:
    """Whether Apache answers an error with the script itself, not with a URL rewritten to it.

    An ErrorDocument's redirect sets the status, of which there is one in a request, and a rewrite
    keeps it: so only where the redirect before has the same status is REDIRECT_URL the document's.
    """
    given = environ.get("REDIRECT_STATUS", "200")
    return given not in ("200", environ.get("REDIRECT_REDIRECT_STATUS"))


def _path_before(environ: dict[str, Any]) -> str:
    """Return the path before it was rewritten, "" where it cannot be told.

    Apache's REDIRECT_URL is decoded and free of dot segments, as the path was to which its rules of
    access applied.  REQUEST_URI is neither, so one that might mean another path does not count, nor
    one that was refused (`QualifyRedirectURL On` puts an address into REDIRECT_URL).
    """
    redirected: str = environ.get("REDIRECT_URL", "")
    if redirected.startswith("/"):
        return redirected
    if environ.get("REDIRECT_STATUS", "200") != "200":
        return ""
    target: str = environ.get("REQUEST_URI", "")
    path = _path_of(target)
    if "%2f" in target.partition("?")[0].lower():
        return ""  # AllowEncodedSlashes NoDecode: for Apache it is no slash
    return "" if "//" in path or "/./" in path + "/" or "/../" in path + "/" else path


def _path_info_sent(environ: dict[str, Any], script_name: str | None) -> Split:
    """PATH_INFO was sent: as sent.  haproxy leaves SCRIPT_NAME out when it is empty."""
    if "PATH_INFO" not in environ:
        return None
    return environ.get("SCRIPT_NAME", ""), _path_info(environ)


def _bare_nginx(environ: dict[str, Any], script_name: str | None) -> Split:
    """nginx's fastcgi_params alone: SCRIPT_NAME is the whole path, and DOCUMENT_URI equals it."""
    script = environ.get("SCRIPT_NAME")
    return ("", script) if script and script == environ.get("DOCUMENT_URI") else None


def _neither_sent(environ: dict[str, Any], script_name: str | None) -> Split:
    """nginx's scgi_params alone, and authorizers: there is only DOCUMENT_URI or REQUEST_URI."""
    return None if environ.get("SCRIPT_NAME") else ("", _sent_path(environ))


def _root_without_path_info(environ: dict[str, Any], script_name: str | None) -> Split:
    """SCRIPT_NAME is "/": the application is the root (lighttpd, haproxy, Apache)."""
    return ("", "/") if environ["SCRIPT_NAME"] == "/" else None


def _bare_apache(environ: dict[str, Any], script_name: str | None) -> Split:
    """Apache's ProxyPass alone: SCRIPT_NAME is the whole path, SCRIPT_FILENAME the backend's address."""
    bare = environ.get("SCRIPT_FILENAME", "").startswith(_BARE_APACHE)
    return ("", environ["SCRIPT_NAME"]) if bare else None


def _path_info_empty(environ: dict[str, Any], script_name: str | None) -> Split:
    """The path ends where the script's name does: RFC 3875 §4.1.5 lets a server leave PATH_INFO out."""
    return environ["SCRIPT_NAME"], ""


# In the order of precedence.  What each server sends is in the tests, from captures.
_ROWS: tuple[Callable[[dict[str, Any], str | None], Split], ...] = (
    _mounted,
    _path_info_sent,
    _bare_nginx,
    _neither_sent,
    _root_without_path_info,
    _bare_apache,
    _path_info_empty,
)


def _path_info(environ: dict[str, Any]) -> str:
    """Return PATH_INFO without SCRIPT_NAME in front, where REQUEST_URI proves that it was repeated.

    caddy with `env SCRIPT_NAME /app` and IIS send "/app" and "/app/x" for "/app/x".
    """
    info: str = environ.get("PATH_INFO", "")
    script = environ.get("SCRIPT_NAME", "")
    if script and info.startswith(script) and info == _path_of(environ.get("REQUEST_URI", "")):
        rest = info[len(script) :]
        return rest if rest[:1] in ("", "/") else info
    return info


def _sent_path(environ: dict[str, Any]) -> str:
    return environ.get("DOCUMENT_URI") or _path_of(environ.get("REQUEST_URI", ""))


def _path_of(target: str) -> str:
    """Return the decoded path of a request target (RFC 9112 §3.2), "" for `*`."""
    path = target.partition("?")[0]
    if not path.startswith("/"):
        authority = path.partition("://")[2]
        path = authority[authority.find("/") :] if "/" in authority else ""
    if "%" not in path:
        return path
    first, *parts = path.split("%")
    return first + "".join(map(_decoded, parts))


def _decoded(part: str) -> str:
    """Decode the two digits that followed a `%`; leave what is no encoding as it stands."""
    digits = part[:2]
    if len(digits) == 2 and _HEX_DIGITS.issuperset(digits):
        return chr(int(digits, 16)) + part[2:]
    return "%" + part


def _fault(message: str, rule: str, request_id: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        message, protocol="CGI", rule=rule, request_id=request_id, status_hint=400
    )
