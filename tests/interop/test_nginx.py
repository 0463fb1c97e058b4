"""What is special about each nginx configuration: kept connections, several sites, host names."""

from __future__ import annotations

import contextlib
import http.client
from pathlib import Path

import pytest

from tests.http_client import HTTPAnswer, HTTPRequest, http_exchange
from tests.interop.servers import FASTCGI_SOCKET, Daemon

pytestmark = pytest.mark.usefixtures("nginx")


@pytest.fixture(autouse=True)
def _plain_daemon(daemon: Daemon) -> None:
    daemon.with_options()


def _get(port: int, target: bytes = b"/", host: str = "localhost") -> HTTPAnswer:
    return http_exchange("127.0.0.1", port, HTTPRequest(target=target, headers=[("Host", host)]))


def _connections() -> set[str]:
    """The inodes of the daemon's accepted FastCGI connections, as the kernel lists them."""
    # Num RefCount Protocol Flags Type St Inode Path; state 03 is connected.
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return {
        fields[6]
        for fields in lines
        if len(fields) == 8 and fields[7] == str(FASTCGI_SOCKET) and fields[5] == "03"
    }


def test_kept_connections_are_used_again() -> None:
    # One visitor's connection for all: a visitor who hangs up as soon as the body is there takes
    # the kept connection along, when nginx has not yet read the record that ends the request.
    client = http.client.HTTPConnection("127.0.0.1", 8083, timeout=10)
    with contextlib.closing(client):
        seen = []
        for _ in range(25):
            client.request("GET", "/")
            answer = client.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
            # A request that opened a connection would leave it here, since nginx keeps it.
            seen.append(_connections())
    assert seen[0]
    assert all(each == seen[0] for each in seen)


def test_a_daemon_that_restarts_is_found_again_in_spite_of_kept_connections(
    daemon: Daemon,
) -> None:
    assert _get(8083).status == 200
    daemon.stop()
    daemon.with_options()
    assert _get(8083).status == 200


def test_without_a_daemon_the_visitor_gets_502(daemon: Daemon) -> None:
    daemon.stop()
    assert _get(8081).status == 502
    daemon.with_options()
    assert _get(8081).status == 200


@pytest.mark.parametrize(
    "host", ["one.example", "www.one.example", "two.example:8085", "any.three.example"]
)
def test_each_site_sees_its_own_host_name(host: str) -> None:
    environ = _get(8085, host=host).json()
    assert environ["HTTP_HOST"] == host
    assert environ["SERVER_NAME"] == host.partition(":")[0]


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1:8085", "one.example.evil"])
def test_a_host_that_is_none_of_the_sites_is_refused(host: str) -> None:
    assert _get(8085, host=host).status == 421


def test_the_host_in_a_request_line_wins_over_the_Host_header() -> None:
    answer = _get(8085, b"http://one.example/path", host="evil.example")
    assert answer.json()["HTTP_HOST"] == "one.example"
    assert answer.json()["PATH_INFO"] == "/path"


@pytest.mark.parametrize("port", [8081, 8082, 8083, 8084, 8085, 8087])
def test_a_user_name_that_nobody_checked_is_not_REMOTE_USER(port: int) -> None:
    headers: list[tuple[str, str | bytes]] = [
        ("Host", "one.example"),
        ("Authorization", "Basic YWxpY2U6c2VjcmV0"),
    ]
    answer = http_exchange("127.0.0.1", port, HTTPRequest(target=b"/app/", headers=headers))
    assert answer.json()["HTTP_AUTHORIZATION"] == "Basic YWxpY2U6c2VjcmV0"
    assert answer.json().get("REMOTE_USER", "") == ""


def test_beside_the_mounted_application_nginx_serves_its_own_files() -> None:
    assert _get(8082, b"/nothing-of-that-name").status == 404


@pytest.mark.parametrize("port", [8081, 8083, 8087])
def test_an_answer_s_head_may_be_larger_than_a_page(port: int) -> None:
    answer = _get(port, b"/large-head")
    assert answer.status == 200
    assert len(answer.header("X-Large") or "") == 12000
