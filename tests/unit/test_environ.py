"""From meta-variables to a WSGI environ (RFC 3875 §4.1, PEP 3333 "environ Variables").

What web servers send comes from the captures, and from literal variables where a cell of the
interoperability table was not kept as a capture.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.validate import validator

import pytest

from gateways import fastcgi, scgi
from gateways.environ import SINGLE_VALUED, build
from gateways.errors import RemoteProtocolError
from gateways.events import AUTHORIZER, Request, RequestBody
from tests import corpus
from tests.corpus import Capture

BASE: dict[str, object] = {
    "wsgi.version": (1, 0),
    "wsgi.input": io.BytesIO(),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}
GET = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}


def request(
    variables: dict[str, str],
    *pairs: tuple[str, str],
    body_delimited: bool = False,
    request_id: int = 1,
) -> Request:
    """A request with these variables; `pairs` come after, so that names may repeat."""
    return Request(
        request_id,
        [(name.encode(), value.encode()) for name, value in [*variables.items(), *pairs]],
        body_delimited=body_delimited,
    )


def environ_of(*pairs: tuple[str, str], **variables: str) -> dict[str, Any]:
    return build(request({**GET, **variables}, *pairs), base=BASE)[0]


def length_of(sent: dict[str, str], body_delimited: bool = False) -> int | None:
    return build(request({**GET, **sent}, body_delimited=body_delimited), base=BASE)[1]


def paths_of(*, script_name: str | None = None, **variables: str) -> tuple[str, str]:
    """SCRIPT_NAME and PATH_INFO as the application sees them, shown as UTF-8."""
    sent = request({"REQUEST_METHOD": "GET", **variables})
    environ, _ = build(sent, base=BASE, script_name=script_name)
    return as_text(environ["SCRIPT_NAME"]), as_text(environ["PATH_INFO"])


def as_text(native: str) -> str:
    return native.encode("latin-1").decode("utf-8")


def refused(match: str, *pairs: tuple[str, str], **variables: str) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        build(request(variables, *pairs, request_id=9), base=BASE)
    assert caught.value.status_hint == 400
    assert caught.value.request_id == 9
    assert caught.value.protocol == "CGI"
    return caught.value


# What arrives (SCRIPT_NAME, PATH_INFO, None for absent) for three requests to each mount: the
# path with an encoded slash, a space and an accent; the mount with a slash; the mount without.
# Then, what the application sees.  None instead of a request: the server itself answered 404.
Seen = tuple[str, str]
Sent = tuple[str | None, str | None]
Cell = tuple[Sent, Seen] | None

LONG = "/a/b c/é"
KEPT = "/a%2Fb c/é"  # where the encoded slash is left as it is

SPLIT: list[Cell] = [
    (("/app", LONG), ("/app", LONG)),
    (("/app", "/"), ("/app", "/")),
    (("/app", ""), ("/app", "")),
]
SPLIT_ABSENT: list[Cell] = [*SPLIT[:2], (("/app", None), ("/app", ""))]
SPLIT_KEPT: list[Cell] = [(("/app", KEPT), ("/app", KEPT)), *SPLIT[1:]]
SPLIT_KEPT_ABSENT: list[Cell] = [SPLIT_KEPT[0], *SPLIT_ABSENT[1:]]
SPLIT_404: list[Cell] = [None, *SPLIT_ABSENT[1:]]
ROOT: list[Cell] = [(("", LONG), ("", LONG)), (("", "/"), ("", "/")), (("", "/"), ("", "/"))]
ROOT_KEPT: list[Cell] = [(("", KEPT), ("", KEPT)), *ROOT[1:]]
SLASH_ONLY: list[Cell] = [None, (("/", None), ("", "/")), (("/", None), ("", "/"))]

NGINX = "nginx"  # DOCUMENT_URI is sent, and is the decoded path
BARE = "bare"  # SCRIPT_FILENAME is the backend's address

TABLE: dict[tuple[str, str], list[Cell]] = {
    ("nginx-fastcgi root", NGINX): ROOT,
    ("nginx-fastcgi app", NGINX): SPLIT,
    ("nginx-fastcgi naive", NGINX): [
        ((LONG, None), ("", LONG)),
        (("/", None), ("", "/")),
        (("/", None), ("", "/")),
    ],
    ("nginx-scgi root", NGINX): ROOT,
    ("nginx-scgi app", NGINX): SPLIT,
    ("nginx-scgi naive", NGINX): [
        ((None, None), ("", LONG)),
        ((None, None), ("", "/")),
        ((None, None), ("", "/")),
    ],
    ("apache-proxy_fcgi root", BARE): SLASH_ONLY,
    ("apache-proxy_fcgi app", BARE): [
        None,
        (("/app/", None), ("", "/app/")),
        (("/app", None), ("", "/app")),
    ],
    ("apache-proxy_fcgi naive", BARE): SLASH_ONLY,
    ("apache-proxy_fcgi good (recipe B)", ""): SPLIT_KEPT,
    ("apache-proxy_fcgi-alias a (recipe A)", ""): SPLIT_KEPT_ABSENT,
    ("apache-proxy_fcgi-alias b (recipe A at /)", ""): ROOT,
    ("apache-proxy_scgi root", BARE): SLASH_ONLY,
    ("apache-proxy_scgi good", BARE): [
        (("/app" + KEPT, None), ("", "/app" + KEPT)),
        (("/app/", None), ("", "/app/")),
        (("/app", None), ("", "/app")),
    ],
    ("apache-mod_cgi root", ""): ROOT_KEPT,
    ("apache-mod_cgi app", ""): SPLIT_404,
    ("apache-mod_fcgid root", ""): ROOT_KEPT,
    ("apache-mod_fcgid app", ""): SPLIT_404,
    ("lighttpd-fastcgi root", ""): [
        (("/a", "/b c/é"), ("/a", "/b c/é")),
        (("/", None), ("", "/")),
        (("/", None), ("", "/")),
    ],
    ("lighttpd-fastcgi fixroot", ""): ROOT,
    ("lighttpd-fastcgi app", ""): SPLIT_ABSENT,
    ("lighttpd-scgi fixroot", ""): ROOT,
    ("lighttpd-scgi app", ""): SPLIT_ABSENT,
    ("lighttpd-cgi app", ""): SPLIT_ABSENT,
    ("haproxy-fcgi root", ""): [
        ((None, LONG), ("", LONG)),
        ((None, "/"), ("", "/")),
        ((None, "/"), ("", "/")),
    ],
    ("haproxy-fcgi app", ""): [
        (("/app" + LONG, None), ("/app" + LONG, "")),
        (("/app/", None), ("/app/", "")),
        (("/app", None), ("/app", "")),
    ],
    ("haproxy-fcgi keep", ""): SPLIT_ABSENT,
    ("caddy-fastcgi root", ""): ROOT,
    ("caddy-fastcgi app", ""): [
        ((LONG, ""), (LONG, "")),
        (("/", ""), ("", "/")),
        (("", ""), ("", "/")),
    ],
    ("caddy-fastcgi php", ""): SPLIT,
    ("caddy-fastcgi-flush rewrite", ""): [SPLIT[0], None, SPLIT[2]],
    ("h2o-fastcgi root", ""): ROOT,
    ("h2o-fastcgi app", ""): [
        (("", "/app" + LONG), ("", "/app" + LONG)),
        (("", "/app/"), ("", "/app/")),
        (("", "/app"), ("", "/app")),
    ],
}
ROOT_TARGETS = ["/a%2Fb%20c/%C3%A9?x=1", "/", "/?"]
APP_TARGETS = ["/app/a%2Fb%20c/%C3%A9?x=1", "/app/", "/app"]


def table_cases() -> list[Any]:
    cases = []
    for (server, shape), cells in TABLE.items():
        at_root = any(word in server for word in ("root", "naive", "at /"))
        for target, cell in zip(ROOT_TARGETS if at_root else APP_TARGETS, cells, strict=True):
            if cell is None:
                continue
            (script, info), seen = cell
            path = unquote_to_bytes(target.partition("?")[0]).decode()
            variables = {
                "REQUEST_URI": target,
                "SCRIPT_NAME": script,
                "PATH_INFO": info,
                "DOCUMENT_URI": path if shape == NGINX else None,
                "SCRIPT_FILENAME": f"proxy:{'scgi' if 'scgi' in server else 'fcgi'}://b{target}"
                if shape == BARE
                else None,
            }
            sent = {name: value for name, value in variables.items() if value is not None}
            cases.append(pytest.param(sent, seen, id=f"{server} {target}"))
    return cases


class TestScriptNameAndPathInfo:
    @pytest.mark.parametrize(("sent", "seen"), table_cases())
    def test_the_application_sees_the_path_whatever_the_server_sends(
        self, sent: dict[str, str], seen: Seen
    ) -> None:
        assert paths_of(**sent) == seen

    @pytest.mark.parametrize(("sent", "seen"), table_cases())
    def test_script_name_settles_what_the_server_cannot_say(
        self, sent: dict[str, str], seen: Seen
    ) -> None:
        target = sent["REQUEST_URI"]
        if not target.startswith("/app"):
            # Outside the mount the option changes nothing.
            assert paths_of(script_name="/app", **sent) == seen
            return
        script, info = paths_of(script_name="/app", **sent)
        assert script == "/app"
        assert (
            info
            in {
                APP_TARGETS[0]: (LONG, KEPT),
                APP_TARGETS[1]: ("/",),
                APP_TARGETS[2]: ("",),
            }[target]
        )

    @pytest.mark.parametrize(("sent", "seen"), table_cases())
    def test_an_empty_script_name_makes_the_application_the_root(
        self, sent: dict[str, str], seen: Seen
    ) -> None:
        script, info = paths_of(script_name="", **sent)
        assert script == ""
        assert info == ("".join(seen) or "/")

    @pytest.mark.parametrize("script_name", ["/app", "/app/"])
    def test_a_mount_ends_at_a_segments_end(self, script_name: str) -> None:
        def split(path: str) -> tuple[str, str]:
            return paths_of(script_name=script_name, PATH_INFO=path, REQUEST_URI=path)

        assert split("/app") == ("/app", "")
        assert split("/app/") == ("/app", "/")
        assert split("/app/app/x") == ("/app", "/app/x")
        assert split("/app2/x") == ("", "/app2/x")
        assert split("/x/app/y") == ("", "/x/app/y")

    def test_a_mount_that_the_server_took_off_already_is_put_back(self) -> None:
        # caddy's handle_path and nginx's rewrite leave the whole path to REQUEST_URI only.
        stripped = {"SCRIPT_NAME": "", "PATH_INFO": "/app/x", "REQUEST_URI": "/app/app/x?y"}
        assert paths_of(script_name="/app", **stripped) == ("/app", "/app/x")

    def test_dots_in_the_raw_target_do_not_lead_out_of_the_mount(self) -> None:
        # The server resolved them, and its word is the path.
        sent = {
            "SCRIPT_NAME": "/secret",
            "DOCUMENT_URI": "/secret",
            "REQUEST_URI": "/app/../secret",
        }
        assert paths_of(script_name="/app", **sent) == ("", "/secret")

    @pytest.mark.parametrize(
        ("sent", "seen"),
        [
            # (SCRIPT_NAME, PATH_INFO, REDIRECT_URL, REQUEST_URI): "" is not sent
            (("/dispatch.fcgi", "", "/a b/c", "/a%20b/c?x"), ("", "/a b/c")),
            (("/dispatch.fcgi", "", "/", "/"), ("", "/")),
            (("/dispatch.fcgi", "/x", "/x", "/x"), ("", "/x")),
            (("/sub/dispatch.fcgi", "", "/sub/x", "/sub/x"), ("/sub", "/x")),
            (("/sub/dispatch.fcgi", "", "/sub/", "/sub/"), ("/sub", "/")),
            # Without REDIRECT_URL the target is taken, unless it may mean another path.
            (("/sub/dispatch.fcgi", "", "", "/sub/%C3%A9?q=/../"), ("/sub", "/é")),
            (("/sub/dispatch.fcgi", "", "", "/sub/a/%2E%2E/admin"), ("/sub/dispatch.fcgi", "")),
            (("/sub/dispatch.fcgi", "", "", "/sub//admin"), ("/sub/dispatch.fcgi", "")),
            (("/sub/dispatch.fcgi", "", "", "/sub/a%2Fadmin"), ("/sub/dispatch.fcgi", "")),
            (("/sub/dispatch.fcgi", "", "", "/sub/x?a%2fb"), ("/sub", "/x")),
            (("/sub/dispatch.fcgi", "", "", "/sub/.."), ("/sub/dispatch.fcgi", "")),
            # A target that is not below the folder, and a script that the visitor asked for.
            (("/sub/dispatch.fcgi", "", "/other/x", "/other/x"), ("/sub/dispatch.fcgi", "")),
            (("/sub/dispatch.fcgi", "", "/subway/x", "/subway/x"), ("/sub/dispatch.fcgi", "")),
            (("/sub/app.cgi", "/x", "", "/sub/app.cgi/x"), ("/sub/app.cgi", "/x")),
            (("/sub/app.cgi", "", "", "/sub/app.cgi"), ("/sub/app.cgi", "")),
            (("", "/x", "", "/x"), ("", "/x")),
        ],
    )
    def test_the_folder_of_a_script_that_URLs_are_rewritten_to(
        self, sent: tuple[str, str, str, str], seen: Seen
    ) -> None:
        names = ("SCRIPT_NAME", "PATH_INFO", "REDIRECT_URL", "REQUEST_URI")
        given = {name: value for name, value in zip(names, sent, strict=True) if value}
        assert paths_of(script_name=".", **given) == seen

    @pytest.mark.parametrize(
        ("sent", "seen"),
        [
            # (REDIRECT_STATUS, REDIRECT_REDIRECT_STATUS, REDIRECT_URL), as captured from Apache
            (("200", "", "/admin/users"), ("", "/admin/users")),
            (("200", "200", "/admin/users"), ("", "/admin/users")),
            # ErrorDocument 401 /sorry, rewritten to the script
            (("401", "401", "/sorry"), ("", "/sorry")),
            # ErrorDocument 401 /dispatch.fcgi: the URL is the one that was refused.
            (("401", "", "/admin/users"), ("/dispatch.fcgi", "")),
            (("403", "", "/admin/users"), ("/dispatch.fcgi", "")),
            (("404", "", "/admin/users"), ("/dispatch.fcgi", "")),
            (("", "", "/admin/users"), ("", "/admin/users")),
            # The same after a rewrite from elsewhere.
            (("401", "200", "/admin/users"), ("/dispatch.fcgi", "")),
            # QualifyRedirectURL On
            (("401", "401", "http://x/sorry"), ("/dispatch.fcgi", "")),
            (("200", "", "http://x/admin/users"), ("", "/admin/users")),
        ],
    )
    def test_a_path_that_Apache_refused_does_not_reach_the_application(
        self, sent: tuple[str, str, str], seen: Seen
    ) -> None:
        names = ("REDIRECT_STATUS", "REDIRECT_REDIRECT_STATUS", "REDIRECT_URL")
        given = {name: value for name, value in zip(names, sent, strict=True) if value}
        given |= {"SCRIPT_NAME": "/dispatch.fcgi", "REQUEST_URI": "/admin/users"}
        assert paths_of(script_name=".", **given) == seen

    def test_script_name_is_text_and_the_path_is_bytes(self) -> None:
        assert paths_of(script_name="/é", PATH_INFO="/é/x") == ("/é", "/x")

    def test_a_script_name_repeated_in_path_info_is_taken_out(self) -> None:
        # caddy with `env SCRIPT_NAME /app`, and IIS.
        sent = {"SCRIPT_NAME": "/app", "PATH_INFO": "/app/x", "REQUEST_URI": "/app/x?y=1"}
        assert paths_of(**sent) == ("/app", "/x")

    @pytest.mark.parametrize(
        "sent",
        [
            {"SCRIPT_NAME": "/app", "PATH_INFO": "/app/x", "REQUEST_URI": "/app/app/x"},
            {"SCRIPT_NAME": "/app", "PATH_INFO": "/app/x"},
            {"SCRIPT_NAME": "/app", "PATH_INFO": "/apple", "REQUEST_URI": "/apple"},
        ],
    )
    def test_a_path_that_only_looks_repeated_is_left_alone(self, sent: dict[str, str]) -> None:
        assert paths_of(**sent) == (sent["SCRIPT_NAME"], sent["PATH_INFO"])

    @pytest.mark.parametrize(
        ("target", "path"),
        [
            ("/a?b=/c?d", "/a"),
            ("/%41%2f%c3%a9", "/A/é"),
            ("/100%", "/100%"),
            ("/%4", "/%4"),
            ("/%zz%41", "/%zzA"),
            ("/%%41", "/%A"),
            ("/% 1%+1%1x", "/% 1%+1%1x"),
            ("http://example.org/a%20b?c", "/a b"),
            ("http://example.org", "/"),
            ("http://example.org?x", "/"),
            ("*", "/"),
            ("", "/"),
        ],
    )
    def test_the_path_is_decoded_from_the_target_where_nothing_else_is_sent(
        self, target: str, path: str
    ) -> None:
        assert paths_of(REQUEST_URI=target) == ("", path)

    def test_both_are_always_there(self) -> None:
        assert paths_of() == ("", "/")

    @pytest.mark.parametrize("sent", [{"SCRIPT_NAME": ""}, {"SCRIPT_NAME": "/"}])
    def test_the_root_is_spelled_as_pep_3333_has_it(self, sent: dict[str, str]) -> None:
        assert paths_of(**sent) == ("", "/")
        assert paths_of(**sent, PATH_INFO="") == ("", "/")
        assert paths_of(**sent, PATH_INFO="/x") == ("", "/x")

    def test_a_path_without_a_leading_slash_is_refused(self) -> None:
        refused("PATH_INFO is 'hello'.*4.1.5", PATH_INFO="hello")
        refused("SCRIPT_NAME is 'app'.*4.1.13", SCRIPT_NAME="app", PATH_INFO="/x")

    def test_a_line_end_in_the_path_stays_where_it_is(self) -> None:
        # CVE-2019-11043 was a path whose split changed with one.
        assert paths_of(SCRIPT_NAME="/app", PATH_INFO="/n\r\nInjected: y") == (
            "/app",
            "/n\r\nInjected: y",
        )


def requests_in(capture: Capture) -> list[tuple[Request, bytes]]:
    """The requests of a capture with their bodies."""
    if capture.protocol == "cgi":
        pairs, _, stdin = corpus.split_cgi(capture.data)
        chunked = (b"HTTP_TRANSFER_ENCODING", b"chunked") in pairs
        return [(Request(0, pairs, body_delimited=chunked), stdin)]
    connection = (
        fastcgi.ServerConnection() if capture.protocol == "fastcgi" else scgi.ServerConnection()
    )
    events = corpus.replay(connection, capture.data)
    return [
        (
            event,
            b"".join(
                body.data
                for body in events
                if isinstance(body, RequestBody) and body.request_id == event.request_id
            ),
        )
        for event in events
        if isinstance(event, Request)
    ]


CAPTURES = [each for each in corpus.captures() if each.protocol in ("fastcgi", "scgi", "cgi")]


def captured(name: str) -> Request:
    ((request, _),) = requests_in(corpus.capture(name))
    return request


def split(tail: str) -> Seen:
    return "/app", tail


def at_root(tail: str) -> Seen:
    return "", tail or "/"


def whole_path(tail: str) -> Seen:
    return "", "/app" + tail


def whole_script(tail: str) -> Seen:
    return "/app" + tail, ""


def without_mount(tail: str) -> Seen:
    return (tail, "") if tail.strip("/") else ("", "/")


def first_segment(tail: str) -> Seen:
    segment, slash, rest = tail[1:].partition("/")
    return (f"/{segment}", slash + rest) if segment else ("", "/")


TAILS = {"get": "/hello", "path": LONG, "slash": "/", "noslash": "", "rawutf8": "/é"}
KEEPS_ENCODED_SLASH = (
    "apache-mod_",
    "apache-proxy_scgi",
    "apache-proxy_fcgi-good",
    "apache-proxy_fcgi-alias-a",
    "apache-proxy_fcgi-alias-c",
)
MOUNTS: dict[tuple[str, str], Callable[[str], Seen]] = {
    ("apache-mod_cgi", "app"): split,
    ("apache-mod_cgi", "root"): at_root,
    ("apache-mod_cgid", "app"): split,
    ("apache-mod_cgid", "root"): at_root,
    ("apache-mod_fcgid", "app"): split,
    ("apache-mod_fcgid", "root"): at_root,
    ("apache-proxy_fcgi", "app"): whole_path,
    ("apache-proxy_fcgi", "good"): split,
    ("apache-proxy_fcgi", "keep"): at_root,
    ("apache-proxy_fcgi", "naive"): at_root,
    ("apache-proxy_fcgi", "pathinfo"): whole_path,
    ("apache-proxy_fcgi", "root"): at_root,
    ("apache-proxy_fcgi-alias", "a"): split,
    ("apache-proxy_fcgi-alias", "b"): at_root,
    ("apache-proxy_fcgi-alias", "c"): at_root,
    ("apache-proxy_fcgi-unix", "sub"): at_root,
    ("apache-proxy_scgi", "app"): whole_path,
    ("apache-proxy_scgi", "good"): whole_path,
    ("apache-proxy_scgi", "root"): at_root,
    ("apache-proxy_scgi-pathinfo", "app"): whole_path,
    ("apache-proxy_scgi-pathinfo", "root"): at_root,
    ("caddy-fastcgi", "app"): without_mount,
    ("caddy-fastcgi", "php"): split,
    ("caddy-fastcgi", "root"): at_root,
    ("caddy-fastcgi-flush", "rewrite"): split,
    ("caddy-fastcgi-flush", "root"): at_root,
    ("caddy-fastcgi-flush", "subroute"): split,
    ("cgi-fcgi", "-"): at_root,
    ("h2o-fastcgi", "app"): whole_path,
    ("h2o-fastcgi", "root"): at_root,
    ("h2o-fastcgi-mount", "app"): whole_path,
    ("h2o-fastcgi-mount", "keep"): at_root,
    ("h2o-fastcgi-spawn", "root"): at_root,
    ("haproxy-fcgi", "app"): whole_script,
    ("haproxy-fcgi", "keep"): split,
    ("haproxy-fcgi", "root"): at_root,
    ("haproxy-fcgi-abort", "close"): at_root,
    ("haproxy-fcgi-abort", "keep"): at_root,
    ("lighttpd-cgi", "app"): split,
    ("lighttpd-fastcgi", "app"): split,
    ("lighttpd-fastcgi", "fixroot"): at_root,
    ("lighttpd-fastcgi", "root"): first_segment,
    ("lighttpd-fastcgi", "stream"): at_root,
    ("lighttpd-fastcgi-spawn", "root"): at_root,
    ("lighttpd-scgi", "app"): split,
    ("lighttpd-scgi", "fixroot"): at_root,
    ("lighttpd-scgi", "root"): first_segment,
    ("lighttpd-scgi", "stream"): at_root,
    ("nginx-fastcgi", "app"): split,
    ("nginx-fastcgi", "https"): at_root,
    ("nginx-fastcgi", "keep"): at_root,
    ("nginx-fastcgi", "naive"): at_root,
    ("nginx-fastcgi", "root"): at_root,
    ("nginx-fastcgi", "stream"): at_root,
    ("nginx-scgi", "app"): split,
    ("nginx-scgi", "naive"): at_root,
    ("nginx-scgi", "root"): at_root,
    ("nginx-scgi", "stream"): at_root,
}


def kind_of(capture: Capture) -> str:
    return capture.case.rpartition("-")[2]


@pytest.mark.filterwarnings(
    # FOO and PROPFIND are methods that the validator does not know and warns of.
    "ignore:Unknown REQUEST_METHOD:wsgiref.validate.WSGIWarning"
)
class TestCaptures:
    @pytest.mark.parametrize(
        "capture", [each for each in CAPTURES if kind_of(each) in TAILS], ids=str
    )
    def test_real_servers_paths_arrive(self, capture: Capture) -> None:
        tail = TAILS[kind_of(capture)]
        if tail == LONG and str(capture).startswith(KEEPS_ENCODED_SLASH):
            tail = KEPT
        for sent, _ in requests_in(capture):
            environ, _ = build(sent, base=BASE)
            seen = as_text(environ["SCRIPT_NAME"]), as_text(environ["PATH_INFO"])
            assert seen == MOUNTS[capture.target, capture.mount](tail)

    @pytest.mark.parametrize("capture", CAPTURES, ids=str)
    def test_every_real_request_passes_wsgirefs_validator(self, capture: Capture) -> None:
        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["wsgi.input"].read(-1)]

        for sent, body in requests_in(capture):
            environ, length = build(sent, base={**BASE, "wsgi.input": io.BytesIO(body)})
            assert length in (None, len(body)) or "abort" in capture.case or "slow" in capture.case
            assert not {"HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & set(environ)
            answer = validator(application)(environ, lambda *_: bytes)
            try:
                assert b"".join(answer) == body
            finally:
                answer.close()  # type: ignore[attr-defined]  # the validator's iterator has one

    @pytest.mark.parametrize(
        ("name", "length"),
        [
            ("nginx-fastcgi-chunked", 205),
            ("nginx-scgi-chunked", 205),
            ("apache-proxy_fcgi-chunked", None),
            ("apache-mod_cgi-chunked", None),
            ("apache-mod_cgid-chunked", None),
            ("lighttpd-scgi-chunked", 205),
            ("haproxy-fcgi-chunked", 205),
            ("caddy-fastcgi-chunked", None),
            ("h2o-fastcgi-chunked", 205),
        ],
    )
    def test_a_chunked_upload_has_its_length_or_is_told_to_end(
        self, name: str, length: int | None
    ) -> None:
        environ, seen = build(captured(name), base=BASE)
        assert seen == length
        if length is None:
            assert "CONTENT_LENGTH" not in environ
            assert environ["wsgi.input_terminated"] is True
        else:
            assert environ["CONTENT_LENGTH"] == str(length)

    @pytest.mark.parametrize("name", [str(each) for each in CAPTURES if kind_of(each) == "auth"])
    def test_repeated_headers_and_hostile_ones_are_settled(self, name: str) -> None:
        environ, _ = build(captured(name), base=BASE)
        assert "HTTP_PROXY" not in environ
        # Apache, caddy and h2o join the two Cookie lines themselves, and not as RFC 6265 says.
        assert environ["HTTP_COOKIE"].replace(",", ";").replace("; ", ";") == "c1=1;c2=2"
        assert environ["HTTP_X_DUP"] == "a, b"

    def test_two_cookie_lines_are_joined_as_rfc_6265_has_them(self) -> None:
        environ, _ = build(captured("nginx-fastcgi-auth"), base=BASE)
        assert environ["HTTP_COOKIE"] == "c1=1; c2=2"

    def test_https_is_seen(self) -> None:
        secure, _ = build(captured("nginx-fastcgi-https-get"), base=BASE)
        plain, _ = build(captured("nginx-fastcgi-get"), base=BASE)
        assert (secure["wsgi.url_scheme"], plain["wsgi.url_scheme"]) == ("https", "http")

    def test_an_unverified_user_can_be_dropped(self) -> None:
        sent = captured("nginx-fastcgi-auth")
        assert build(sent, base=BASE)[0]["REMOTE_USER"] == "alice"
        environ, _ = build(sent, base=BASE, remote_user=False)
        assert "REMOTE_USER" not in environ

    def test_an_authorizers_request_has_a_path(self) -> None:
        sent = captured("lighttpd-authorizer-root-post")
        assert sent.role == AUTHORIZER
        environ, _ = build(sent, base=BASE)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) != ("", "")


class TestRepeatedNames:
    def test_lists_are_joined_in_order(self) -> None:
        environ = environ_of(("HTTP_ACCEPT", "a"), ("HTTP_X", "1"), ("HTTP_ACCEPT", "b"))
        assert (environ["HTTP_ACCEPT"], environ["HTTP_X"]) == ("a, b", "1")

    def test_cookies_are_joined_with_semicolons(self) -> None:
        environ = environ_of(("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2"), ("HTTP_COOKIE", "c=3"))
        assert environ["HTTP_COOKIE"] == "a=1; b=2; c=3"

    @pytest.mark.parametrize("name", sorted(SINGLE_VALUED))
    def test_single_valued_headers_take_the_last(self, name: str) -> None:
        assert environ_of((name, "first"), (name, "last"))[name] == "last"

    @pytest.mark.parametrize("name", ["HTTP_HOST", "HTTP_AUTHORIZATION", "HTTP_REFERER"])
    def test_the_well_known_ones_are_single_valued(self, name: str) -> None:
        assert name in SINGLE_VALUED

    def test_other_names_take_the_last_as_nginx_overrides_them(self) -> None:
        environ = environ_of(("SCRIPT_NAME", "/first"), ("SCRIPT_NAME", "/last"))
        assert environ["SCRIPT_NAME"] == "/last"

    def test_an_equal_length_twice_is_one_length(self) -> None:
        twice = request(GET, ("CONTENT_LENGTH", "5"), ("CONTENT_LENGTH", "5"))
        assert build(twice, base=BASE)[1] == 5

    @pytest.mark.parametrize("other", ["6", "", "-1", "05"])
    def test_two_different_lengths_are_refused(self, other: str) -> None:
        refused("two different", ("CONTENT_LENGTH", "5"), ("CONTENT_LENGTH", other), **GET)


class TestLength:
    @pytest.mark.parametrize(
        ("text", "length"), [("0", 0), ("5", 5), ("007", 7), ("9" * 18, 10**18 - 1)]
    )
    @pytest.mark.parametrize("body_delimited", [False, True])
    def test_digits_are_the_length(self, text: str, length: int, body_delimited: bool) -> None:
        assert length_of({"CONTENT_LENGTH": text}, body_delimited) == length

    def test_a_length_wins_over_transfer_encoding(self) -> None:
        assert length_of({"CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": "chunked"}, True) == 5

    @pytest.mark.parametrize("sent", [{}, {"CONTENT_LENGTH": ""}])
    def test_none_is_no_body_unless_the_protocol_marks_its_end(self, sent: dict[str, str]) -> None:
        assert length_of(sent) == 0
        assert length_of(sent, body_delimited=True) is None

    def test_an_unknown_length_is_told_to_the_application(self) -> None:
        environ, _ = build(request(GET, body_delimited=True), base=BASE)
        assert environ["wsgi.input_terminated"] is True
        assert "wsgi.input_terminated" not in environ_of()

    def test_minus_one_is_unknown_where_the_protocol_marks_the_end(self) -> None:
        assert length_of({"CONTENT_LENGTH": "-1"}, body_delimited=True) is None
        refused("CONTENT_LENGTH is '-1'", CONTENT_LENGTH="-1", **GET)

    def test_empty_ones_are_left_out(self) -> None:
        environ = environ_of(CONTENT_LENGTH="", CONTENT_TYPE="")
        assert int(environ.get("CONTENT_LENGTH", 0)) == 0
        assert "CONTENT_TYPE" not in environ

    @pytest.mark.parametrize(
        "text",
        [
            "+10",
            "1_0",
            " 10",
            "10 ",
            "-0",
            "-2",
            "٣",
            "²",
            "0x1",
            "1.0",
            "1e3",
            "5,5",
            "a",
            "1" * 19,
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        refused("CONTENT_LENGTH is", CONTENT_LENGTH=text, **GET)

    def test_an_endless_length_is_not_shown_whole(self) -> None:
        error = refused("CONTENT_LENGTH", CONTENT_LENGTH="9" * 100_000, **GET)
        assert len(str(error)) < 200


class TestMissing:
    def test_a_bare_request_has_all_that_pep_3333_requires(self) -> None:
        environ, _ = build(Request(1, []), base=BASE)
        assert {name: environ[name] for name in environ if "." not in name} == {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.0",
        }

    def test_the_connection_fills_what_is_missing_or_empty(self) -> None:
        sent = request({"SERVER_NAME": "", "SERVER_PORT": ""})
        environ, _ = build(sent, base=BASE, local=("192.0.2.2", "8080"))
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("192.0.2.2", "8080")

    def test_what_was_sent_wins_over_the_connection(self) -> None:
        sent = request(
            {
                "SERVER_NAME": "example.org",
                "SERVER_PORT": "443",
                "REMOTE_ADDR": "192.0.2.9",
                "REMOTE_PORT": "9",
                "SERVER_PROTOCOL": "HTTP/2.0",
            }
        )
        environ, _ = build(sent, base=BASE, local=("127.0.0.2", "8080"))
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("example.org", "443")
        assert environ["SERVER_PROTOCOL"] == "HTTP/2.0"
        assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("192.0.2.9", "9")

    def test_the_web_servers_own_address_is_the_better_name(self) -> None:
        sent = request({"SERVER_NAME": "", "SERVER_ADDR": "192.0.2.7"})
        assert build(sent, base=BASE, local=("127.0.0.1", "9000"))[0]["SERVER_NAME"] == "192.0.2.7"

    def test_the_web_server_is_never_taken_for_the_visitor(self) -> None:
        """Applications trust what comes from 127.0.0.1, which is where most web servers are."""
        assert "REMOTE_ADDR" not in environ_of()

    def test_the_port_of_https_is_443(self) -> None:
        assert environ_of(HTTPS="on")["SERVER_PORT"] == "443"

    def test_the_query_comes_from_the_target(self) -> None:
        # haproxy sends QUERY_STRING only where there is a query.
        assert environ_of(REQUEST_URI="/a?b=c?d")["QUERY_STRING"] == "b=c?d"
        assert environ_of(REQUEST_URI="/a?b=c", QUERY_STRING="")["QUERY_STRING"] == ""
        assert environ_of(REQUEST_URI="/a")["QUERY_STRING"] == ""

    @pytest.mark.parametrize("length", ["", "0"])
    def test_a_missing_method_is_get(self, length: str) -> None:
        sent = request({"REQUEST_METHOD": "", "CONTENT_LENGTH": length, "CONTENT_TYPE": ""})
        assert build(sent, base=BASE)[0]["REQUEST_METHOD"] == "GET"

    @pytest.mark.parametrize(
        "sent",
        [
            {"CONTENT_LENGTH": "5"},
            {"CONTENT_LENGTH": "-1"},
            {"CONTENT_TYPE": "text/plain"},
            {"HTTP_TRANSFER_ENCODING": "chunked"},
        ],
    )
    def test_a_missing_method_beside_a_body_is_refused(self, sent: dict[str, str]) -> None:
        refused("no REQUEST_METHOD", **sent)


class TestNames:
    def test_the_client_cannot_set_http_proxy(self) -> None:
        assert "HTTP_PROXY" not in environ_of(("HTTP_PROXY", "http://evil"), ("HTTP_PROXY", "x"))

    def test_the_servers_keys_win(self) -> None:
        environ = environ_of(("wsgi.input", "evil"), ("wsgi.url_scheme", "gopher"))
        assert environ["wsgi.input"] is BASE["wsgi.input"]
        assert environ["wsgi.url_scheme"] == "http"

    def test_no_wsgi_key_comes_from_the_peer(self) -> None:
        environ = environ_of(("wsgi.input_terminated", "1"), ("wsgi.file_wrapper", "x"))
        assert {name for name in environ if name.startswith("wsgi.")} == {*BASE, "wsgi.url_scheme"}

    def test_the_base_is_copied(self) -> None:
        before = dict(BASE)
        environ_of()["wsgi.x"] = 1
        assert before == BASE

    def test_any_key_of_the_base_wins(self) -> None:
        environ, _ = build(request({"MODE": "web"}), base={**BASE, "MODE": "ours"})
        assert environ["MODE"] == "ours"

    @pytest.mark.parametrize("name", ["", "A\0B", "\0", "A\0"])
    def test_a_name_that_is_empty_or_holds_nul_is_refused(self, name: str) -> None:
        refused("empty or holds NUL", (name, "x"), **GET)

    def test_bytes_become_latin_1_characters(self) -> None:
        sent = Request(1, [(b"X\xff", bytes(range(256)))])
        environ, _ = build(sent, base=BASE)
        assert environ["X\xff"].encode("latin-1") == bytes(range(256))

    def test_lower_case_and_dashed_names_pass(self) -> None:
        # Apache sends its own settings so.
        assert environ_of(("proxy-nokeepalive", "1"))["proxy-nokeepalive"] == "1"

    @pytest.mark.parametrize("name", ["REMOTE_USER", "AUTH_TYPE"])
    def test_an_empty_user_or_method_is_none(self, name: str) -> None:
        both = {"REMOTE_USER": "alice", "AUTH_TYPE": "Basic"}
        assert both.items() <= environ_of(**both).items()
        left = environ_of(**{**both, name: ""})
        assert set(both) & set(left) == set(both) - {name}

    def test_without_remote_user_neither_user_nor_method_is_told(self) -> None:
        sent = request(
            {"REMOTE_USER": "alice", "AUTH_TYPE": "Basic", "HTTP_AUTHORIZATION": "Basic eA=="}
        )
        environ, _ = build(sent, base=BASE, remote_user=False)
        assert not {"REMOTE_USER", "AUTH_TYPE"} & set(environ)
        assert environ["HTTP_AUTHORIZATION"] == "Basic eA=="


class TestScheme:
    @pytest.mark.parametrize(
        ("sent", "scheme"),
        [
            ({}, "http"),
            ({"HTTPS": "on"}, "https"),
            ({"HTTPS": "ON"}, "https"),
            ({"HTTPS": "1"}, "https"),
            ({"HTTPS": ""}, "http"),
            ({"HTTPS": "off"}, "http"),
            ({"REQUEST_SCHEME": "https"}, "https"),
            ({"REQUEST_SCHEME": "http"}, "http"),
            # TLS ends in front of the web server, whose configuration says so.
            ({"HTTPS": "on", "REQUEST_SCHEME": "http"}, "https"),
            ({"HTTP_X_FORWARDED_PROTO": "https", "HTTP_HTTPS": "on"}, "http"),
        ],
    )
    def test_the_scheme_comes_from_https_or_request_scheme(
        self, sent: dict[str, str], scheme: str
    ) -> None:
        assert environ_of(**sent)["wsgi.url_scheme"] == scheme
