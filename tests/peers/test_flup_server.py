"""flup 1.0.3's server is driven by our client and passes what flup can do."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
import wsgiref.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways.client import Connection, ProxyApplication, connect, request, variables
from gateways.errors import ConnectFailed, LocalProtocolError
from tests.peers import flup_application


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The addresses of two running flup servers, by protocol."""
    folder = tmp_path_factory.mktemp("flup")
    started = []
    try:
        for protocol in ("fcgi", "scgi"):
            with open(folder / f"{protocol}.log", "wb") as log:
                command = [
                    sys.executable,
                    flup_application.__file__,
                    protocol,
                    f"{folder}/{protocol}",
                ]
                started.append(subprocess.Popen(command, stderr=log, stdout=log))
            wait_for(folder / protocol, started[-1], folder / f"{protocol}.log")
        yield {protocol: f"{protocol}+unix:{folder}/{protocol}" for protocol in ("fcgi", "scgi")}
    finally:
        for server in started:
            server.kill()
            server.wait()


@pytest.fixture(params=["fcgi", "scgi"])
def address(request: pytest.FixtureRequest, servers: dict[str, str]) -> str:
    return servers[request.param]


@pytest.fixture
def fcgi(servers: dict[str, str]) -> str:
    return servers["fcgi"]


def wait_for(path: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            connect(f"unix:{path}", timeout=5).close()
            return
        except ConnectFailed:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"flup did not start: {log.read_text()}")
            time.sleep(0.02)


def test_a_request_arrives_as_the_variables_say(address: str) -> None:
    answer = request(
        address,
        "/app/gr%C3%BC%C3%9Fe?name=Ada%20L",
        script_name="/app",
        headers=[("X-Colour", "red"), ("Host", "shop.example:8080")],
    )
    assert (answer.status, answer.reason) == (201, "Made")
    assert answer.header("x-two") == "1"
    assert json.loads(answer.read()) == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/grüße".encode().decode("latin-1"),
        "QUERY_STRING": "name=Ada%20L",
        "REQUEST_URI": "/app/gr%C3%BC%C3%9Fe?name=Ada%20L",
        "HTTP_X_COLOUR": "red",
        "SERVER_NAME": "shop.example",
    }
    assert answer.complete


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_001])
def test_a_body_arrives_whole(address: str, size: int) -> None:
    body = os.urandom(size)
    answer = request(address, "/digest", method="POST", body=body)
    assert answer.read().decode() == hashlib.sha256(body).hexdigest()


def test_a_body_from_a_file_or_an_iterable_arrives_whole(fcgi: str) -> None:
    pieces = [b"a" * 100_000, b"", b"b" * 3]
    digest = hashlib.sha256(b"".join(pieces)).hexdigest()
    file = io.BytesIO(b"".join(pieces))
    assert request(fcgi, "/digest", method="POST", body=file).read().decode() == digest
    made = [
        (n, b"100003" if n == b"CONTENT_LENGTH" else v)
        for n, v in variables("/digest", method="POST")
    ]
    with connect(fcgi) as connection:
        assert connection.request(made, iter(pieces)).read().decode() == digest


def test_a_large_answer_arrives_whole(address: str) -> None:
    assert len(request(address, "/large").read()) == 5_000_000


def test_pieces_arrive_one_after_another(address: str) -> None:
    assert b"".join(request(address, "/pieces").iter_body()) == b"piece 0piece 1piece 2"


def test_an_answer_before_the_body_is_read_does_not_stop_us(fcgi: str) -> None:
    answer = request(fcgi, "/early", method="POST", body=bytes(5_000_000), timeout=10)
    assert answer.read() == b"early"


def test_a_kept_connection_carries_one_request_after_another(fcgi: str) -> None:
    with connect(fcgi) as connection:
        for body in (b"first", b"second" * 50_000, b"third"):
            made = variables("/digest", method="POST", content_length=len(body))
            answer = connection.request(made, body)
            assert answer.read().decode() == hashlib.sha256(body).hexdigest()
            assert connection.reusable


def test_an_answer_must_be_read_before_the_next_request(fcgi: str) -> None:
    with connect(fcgi) as connection:
        connection.request(variables("/large"))
        with pytest.raises(LocalProtocolError, match="busy with an answer"):
            connection.request(variables("/"))


def test_flup_answers_get_values_with_nothing_and_the_connection_lives_on(fcgi: str) -> None:
    with connect(fcgi, timeout=10) as connection:
        assert connection.get_values() == {}
        assert connection.request(variables("/pieces")).status == 201


def test_scgi_has_no_get_values(servers: dict[str, str]) -> None:
    with connect(servers["scgi"]) as connection, pytest.raises(LocalProtocolError) as caught:
        connection.get_values()
    assert "only FastCGI" in str(caught.value)


def test_error_output_arrives_beside_the_answer(fcgi: str) -> None:
    seen: list[bytes] = []
    answer = request(fcgi, "/errors", on_errors=seen.append)
    assert answer.read() == b"done"
    assert answer.errors == b"".join(seen) == b"something is odd\n"


def test_the_proxy_forwards_to_flup(address: str) -> None:
    heads: list[str] = []

    def start_response(
        status: str, headers: object, exc_info: object = None
    ) -> Callable[[bytes], None]:
        heads.append(status)
        return lambda data: None

    environ: dict[str, Any] = {"PATH_INFO": "/pieces"}
    wsgiref.util.setup_testing_defaults(environ)
    body = ProxyApplication(address)(environ, start_response)
    assert b"".join(body) == b"piece 0piece 1piece 2"
    assert heads == ["201 Made"]


def test_a_closed_connection_carries_nothing(address: str) -> None:
    connection: Connection = connect(address)
    connection.close()
    with pytest.raises(LocalProtocolError, match="is closed"):
        connection.request(variables("/"))
