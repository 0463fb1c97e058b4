"""SCRIPT_NAME and PATH_INFO through each configuration, at the root and below /app.

The requests are those of interop.md §1.2; what the servers send differs as its table shows, what
the application sees does not, but for `%2F`, which Apache leaves as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.http_client import HTTPRequest, http_exchange
from tests.interop.servers import Daemon

DECODED = "/a/b c/é".encode().decode("latin-1")
KEPT = "/a%2Fb c/é".encode().decode("latin-1")


class Mount(NamedTuple):
    """One place of one configuration where the application is found."""

    name: str
    server: str
    port: int
    path: str
    long: str | None
    """The PATH_INFO of the long request; None where the server itself answers 404."""


MOUNTS = [
    Mount("nginx-fastcgi", "nginx", 8081, "", DECODED),
    Mount("nginx-fastcgi-app", "nginx", 8082, "/app", DECODED),
    Mount("nginx-fastcgi-keepalive", "nginx", 8083, "", DECODED),
    Mount("nginx-fastcgi-streaming", "nginx", 8084, "", DECODED),
    Mount("nginx-fastcgi-stock", "nginx", 8086, "", DECODED),
    Mount("nginx-scgi", "nginx", 8087, "", DECODED),
    Mount("nginx-scgi-app", "nginx", 8087, "/app", DECODED),
    Mount("nginx-scgi-naive", "nginx", 8071, "", DECODED),
    Mount("apache-mod_cgid", "apache", 8091, "", KEPT),
    Mount("apache-mod_cgid-app", "apache", 8091, "/app", KEPT),
    Mount("apache-proxy_fcgi-location", "apache", 8092, "", KEPT),
    Mount("apache-proxy_fcgi-location-app", "apache", 8092, "/app", KEPT),
    Mount("apache-proxy_fcgi-alias", "apache", 8093, "", KEPT),
    Mount("apache-proxy_fcgi-alias-app", "apache", 8093, "/app", KEPT),
    Mount("apache-proxy_fcgi-naive", "apache", 8072, "", None),
    Mount("apache-proxy_scgi", "apache", 8094, "", KEPT),
    Mount("apache-proxy_scgi-naive", "apache", 8073, "", None),
    Mount("apache-mod_fcgid", "apache", 8095, "", KEPT),
    Mount("apache-mod_fcgid-app", "apache", 8095, "/app", KEPT),
    Mount("lighttpd-cgi", "lighttpd", 8096, "", DECODED),
    Mount("lighttpd-cgi-app", "lighttpd", 8096, "/app", DECODED),
    Mount("lighttpd-fastcgi-spawned", "lighttpd", 8097, "", DECODED),
    Mount("lighttpd-fastcgi-spawned-app", "lighttpd", 8097, "/app", DECODED),
    Mount("lighttpd-fastcgi", "lighttpd", 8098, "", DECODED),
    Mount("lighttpd-fastcgi-app", "lighttpd", 8098, "/app", DECODED),
    Mount("lighttpd-scgi", "lighttpd", 8099, "", DECODED),
    Mount("lighttpd-scgi-app", "lighttpd", 8099, "/app", DECODED),
]


@pytest.fixture(params=MOUNTS, ids=lambda mount: mount.name)
def mount(request: pytest.FixtureRequest, daemon: Daemon) -> Mount:
    chosen: Mount = request.param
    request.getfixturevalue(chosen.server)
    daemon.with_options()
    return chosen


def _seen(mount: Mount, target: str) -> tuple[str, str, str]:
    request = HTTPRequest(target=target.encode())
    answer = http_exchange("127.0.0.1", mount.port, request)
    assert answer.status == 200, answer
    environ = answer.json()
    return environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["REQUEST_URI"]


def test_a_path_is_split_at_the_mount(mount: Mount) -> None:
    target = f"{mount.path}/a%2Fb%20c/%C3%A9?x=1"
    if mount.long is None:
        answer = http_exchange("127.0.0.1", mount.port, HTTPRequest(target=target.encode()))
        assert answer.status == 404
    else:
        assert _seen(mount, target) == (mount.path, mount.long, target)


def test_a_slash_after_the_mount_is_the_path(mount: Mount) -> None:
    target = f"{mount.path}/?x=1"
    assert _seen(mount, target) == (mount.path, "/", target)


def test_the_mount_alone_has_no_path_unless_it_is_the_root(mount: Mount) -> None:
    target = mount.path or "/?"
    assert _seen(mount, target) == (mount.path, "" if mount.path else "/", target)


def test_a_path_that_only_begins_like_the_mount_is_not_below_it(mount: Mount) -> None:
    target = "/apple"
    answer = http_exchange("127.0.0.1", mount.port, HTTPRequest(target=target.encode()))
    if mount.port == 8082:
        # This configuration has no application outside /app.
        assert answer.status == 404
    else:
        seen = answer.json()
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("", target)
