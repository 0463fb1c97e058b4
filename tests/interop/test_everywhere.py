"""One file, samples/anywhere.py, however it is started: the same answers, the same environ.

And each manager's way of stopping and restarting it, while a request is being answered.  Nothing
here is played: Apache, lighttpd, spawn-fcgi, multiwatch and systemd-socket-activate do it.
"""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.http_client import HTTPAnswer
from tests.interop import managers, servers
from tests.interop.managers import BEHIND_NGINX, STARTERS, Terminal, Way, Ways
from tests.interop.servers import program, wait_until


@pytest.fixture(scope="module")
def ways(request: pytest.FixtureRequest) -> Ways:
    servers.require("nginx", "apache", "lighttpd", "process managers")
    folder: Path = request.getfixturevalue("folder")
    return Ways(folder / "everywhere")


@pytest.fixture(scope="module")
def started(ways: Ways) -> Iterator[Callable[[str], Way]]:
    """A function that gives the file started in one of the ways; each is started once."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Way] = {}

        def start(name: str) -> Way:
            if name not in running and name in BEHIND_NGINX:
                running[name] = stack.enter_context(BEHIND_NGINX[name](ways))
            elif name not in running:
                server = managers.apache if name.startswith("apache") else managers.lighttpd
                running.update(stack.enter_context(server(ways)))
            return running[name]

        yield start


each_way = pytest.mark.parametrize("name", STARTERS)


def environ_of(answer: HTTPAnswer) -> dict[str, Any]:
    """What the file tells of its environ, where it is text and numbers."""
    assert answer.status == 200, answer
    found = {}
    for line in answer.body.decode().splitlines():
        name, _, value = line.partition(" = ")
        with contextlib.suppress(SyntaxError, ValueError):
            found[name] = ast.literal_eval(value)
    return found


HEADERS = [
    ("User-Agent", "suite"),
    ("Accept", "text/plain"),
    ("Cookie", "a=1; b=2"),
    ("X-Colour", "red"),
    ("Proxy", "http://198.51.100.1/"),
    ("Connection", "close"),
]


def common(method: str, port: int) -> dict[str, Any]:
    """What every environ must hold for a request with HEADERS."""
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/app",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": f"localhost:{port}",
        "HTTP_USER_AGENT": "suite",
        "HTTP_ACCEPT": "text/plain",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_COLOUR": "red",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
    }


@each_way
def test_the_environ_is_the_same(name: str, started: Callable[[str], Way]) -> None:
    way = started(name)
    answer = way.ask(b"/environ/a%20b/%C3%A9?x=1&y=%2F", headers=HEADERS)
    environ = environ_of(answer)
    expected = common("GET", way.port)
    expected |= {"PATH_INFO": "/environ/a b/\xc3\xa9", "QUERY_STRING": "x=1&y=%2F"}
    assert {each: environ.get(each) for each in expected} == expected
    sent = {each for each in expected if each.startswith("HTTP_")}
    assert {each for each in environ if each.startswith("HTTP_")} - {"HTTP_CONNECTION"} == sent
    # Absent, empty and 0 say the same of a request without a body.
    assert environ.get("CONTENT_LENGTH") in (None, "", "0")
    assert not environ.get("CONTENT_TYPE")
    assert environ["wsgi.run_once"] is (name in ("apache-mod_cgid", "lighttpd-cgi"))


@each_way
def test_the_mount_itself_has_no_path_info(name: str, started: Callable[[str], Way]) -> None:
    environ = environ_of(started(name).ask(b""))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["QUERY_STRING"]) == (
        "/app",
        "",
        "",
    )


@each_way
def test_a_body_arrives_with_its_length_and_type(name: str, started: Callable[[str], Way]) -> None:
    way = started(name)
    headers = [*HEADERS, ("Content-Type", "text/plain; charset=utf-8")]
    body = bytes(range(256)) * 400
    assert way.ask(b"/echo", "POST", headers=headers, body=body).body == body
    environ = environ_of(way.ask(b"/environ", "POST", headers=headers, body=body))
    expected = common("POST", way.port)
    expected |= {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "text/plain; charset=utf-8"}
    assert {each: environ.get(each) for each in expected} == expected
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ


@each_way
def test_statuses_and_headers_are_the_same(name: str, started: Callable[[str], Way]) -> None:
    way = started(name)
    head = way.ask(b"/environ", "HEAD")
    assert (head.status, head.body, head.header("Content-Type")) == (200, b"", "text/plain")
    missing = way.ask(b"/none")
    assert (missing.status, missing.body) == (404, b"There is no such page.\n")
    moved = way.ask(b"/old")
    assert (moved.status, moved.body) == (302, b"It has moved.\n")
    assert str(moved.header("Location")).endswith("/app/environ")


# Stops and restarts, with a request being answered.


@contextlib.contextmanager
def in_flight(way: Way, seconds: int = 2) -> Iterator[Future[HTTPAnswer]]:
    """A request that the file is busy with for so many seconds; the answer is still to come."""
    before = way.said().count(f"waiting {seconds} s")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(way.ask, b"/wait?%d" % seconds)
        way.says(f"waiting {seconds} s", before + 1)
        yield answer


def answered(answer: Future[HTTPAnswer], seconds: int = 2) -> None:
    found = answer.result(20)
    assert (found.status, found.body, found.complete) == (200, b"waited %d s\n" % seconds, True)


def gone(way: Way, pids: set[int]) -> None:
    wait_until(lambda: not pids & way.pids(), f"the processes {pids} have ended")


@pytest.mark.parametrize("name", ["apache-mod_cgid", "apache-mod_fcgid"])
def test_a_graceful_restart_of_Apache_cuts_no_request(name: str, ways: Ways) -> None:
    with managers.apache(ways) as running:
        way = running[name]
        with in_flight(way) as answer:
            old = way.pids()
            way.signal(signal.SIGUSR1)
            answered(answer)
        gone(way, old)
        assert way.ask(b"/").status == 200
        assert "at once" not in way.said()
        assert "forcing" not in way.said()


def test_a_graceful_stop_of_Apache_lets_the_program_finish(ways: Ways) -> None:
    with managers.apache(ways) as running:
        way = running["apache-mod_fcgid"]
        with in_flight(way) as answer:
            way.signal(signal.SIGWINCH)
            answered(answer)
        assert way.ended() == 0
        gone(way, way.pids())
        assert "at once" not in way.said()


def test_when_Apache_stops_the_program_finishes_what_it_does(ways: Ways) -> None:
    """SIGTERM comes twice, 1.3 s apart, and Apache has gone from the visitor: the work is done."""
    with managers.apache(ways) as running:
        way = running["apache-mod_fcgid"]
        with in_flight(way, 4):
            pids = way.pids()
            assert pids
            way.signal(signal.SIGTERM)
            way.says("waited 4 s")
        way.ended()
        gone(way, pids)
        assert "at once" not in way.said()
        assert "kill signal" not in way.said()  # mod_fcgid's words for SIGKILL


def test_mod_fcgid_ends_an_idle_program_and_starts_it_again(ways: Ways) -> None:
    with managers.apache(ways, idle=1) as running:
        way = running["apache-mod_fcgid"]
        assert way.ask(b"/").status == 200
        first = way.pids()
        assert len(first) == 1
        gone(way, first)
        assert way.ask(b"/").status == 200
        assert way.pids().isdisjoint(first)
        assert "stopping once running requests are answered" in way.said()


@pytest.mark.parametrize("name", ["lighttpd-cgi", "lighttpd-bin-path"])
def test_a_graceful_restart_of_lighttpd_cuts_no_request(name: str, ways: Ways) -> None:
    with managers.lighttpd(ways) as running:
        way = running[name]
        with in_flight(way) as answer:
            old = way.pids()
            way.signal(signal.SIGUSR1)
            answered(answer)
        gone(way, old)
        wait_until(lambda: way.ask(b"/").status == 200, "it serves again")
        assert way.pids().isdisjoint(old)


def test_when_lighttpd_stops_the_programs_finish_what_they_do(ways: Ways) -> None:
    with managers.lighttpd(ways) as running:
        way = running["lighttpd-bin-path"]
        with in_flight(way):
            pids = way.pids()
            assert len(pids) == 2
            way.signal(signal.SIGTERM)
            way.says("waited 2 s")
        way.ended()
        gone(way, pids)
        assert "at once" not in way.said()


def test_lighttpd_replaces_a_program_that_was_killed(ways: Ways) -> None:
    with managers.lighttpd(ways) as running:
        way = running["lighttpd-bin-path"]
        assert way.ask(b"/").status == 200
        first = way.pids()
        os.kill(min(first), signal.SIGKILL)
        wait_until(lambda: len(way.pids() - {min(first)}) == 2, "there are two again")
        wait_until(lambda: way.ask(b"/").status == 200, "it serves")


@pytest.mark.parametrize("name", ["spawn-fcgi", "systemd-socket-activate", "terminal"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_told_to_stop_answers_first(
    name: str, number: signal.Signals, ways: Ways
) -> None:
    with BEHIND_NGINX[name](ways) as way:
        with in_flight(way, 1) as answer:
            if isinstance(way.process, Terminal) and number == signal.SIGINT:
                way.process.press_control_c()
            else:
                way.signal(number)
            answered(answer, 1)
        assert way.ended() == 0


def test_systemds_socket_as_descriptor_0_is_served_once(ways: Ways) -> None:
    with BEHIND_NGINX["systemd-socket-activate-as-0"](ways) as way:
        with in_flight(way, 1) as answer:
            way.signal(signal.SIGTERM)
            answered(answer, 1)
        assert way.ended() == 0
        assert "at fcgi+fd:3 (" in way.said()


def test_systemd_in_accept_mode_is_refused(ways: Ways) -> None:
    folder = ways.own("accept")
    sample = managers.sample_in(folder)
    command = [program("systemd-socket-activate"), "--accept", "-l", str(folder / "s")]
    log = folder / "log"
    process = servers.Process([*command, str(sample)], log, cwd=folder)
    try:
        # The connection is what starts the program.
        wait_until(lambda: servers.listens(folder / "s"), "the socket")
        wait_until(lambda: "Accept=no" in log.read_text(), "the refusal")
        assert "is one connection" in log.read_text()
    finally:
        process.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_when_multiwatch_stops_its_children_answer_first(
    number: signal.Signals, ways: Ways
) -> None:
    with BEHIND_NGINX["multiwatch"](ways) as way:
        way.says("serving", 2)
        with in_flight(way) as answer:
            pids = way.pids()
            assert len(pids) == 2
            way.signal(number)
            way.says("SIGUSR1: stopping once running requests are answered", 2)
            way.signal(number)  # now it says SIGTERM to them
            answered(answer)
        way.ended()
        gone(way, pids)
        assert "at once" not in way.said()


def test_multiwatch_replaces_a_child_that_was_killed(ways: Ways) -> None:
    with BEHIND_NGINX["multiwatch"](ways) as way:
        wait_until(lambda: len(way.pids()) == 2, "two children")
        victim = min(way.pids())
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(way.pids() - {victim}) == 2, "there are two again")
        assert way.ask(b"/").status == 200


def test_spawn_fcgi_that_leaves_two_programs_behind(ways: Ways) -> None:
    """Without -n and with -F it forks and goes; each program is then told to stop by its pid."""
    folder = ways.own("forked")
    sample = managers.sample_in(folder)
    command = [program("spawn-fcgi"), "-s", str(folder / "s"), "-F", "2"]
    command += ["-P", str(folder / "pids"), "--", str(sample)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    pids = {int(each) for each in (folder / "pids").read_text().split()}
    try:
        assert len(pids) == 2
        assert servers.listens(folder / "s")
        wait_until(lambda: pids <= managers.pids_of(sample), "both run")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not pids & managers.pids_of(sample), "both have ended")
