"""Scripts behind a real FastCGI server: what a web server and its visitor see."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateways import events
from gateways.cgihost import CGIApplication
from gateways.client import request
from tests.cgihost.calling import (
    PRINT_ENVIRONMENT,
    SHELL,
    eventually,
    is_running,
    write,
    written_pid,
)
from tests.server import live

HEAD = "printf 'Content-Type: a/b\\n\\n'\n"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    write(tmp_path, "env", PRINT_ENVIRONMENT)
    write(tmp_path, "cat", f"{SHELL}{HEAD}exec cat\n")
    write(tmp_path, "wait", f"{SHELL}echo $$ >pid\n{HEAD}echo x\ncat go >/dev/null\nexec yes\n")
    return tmp_path


def test_an_answer_over_fastcgi(scripts: Path, socket_path: Path) -> None:
    with live.running(CGIApplication(scripts), socket_path) as server, server.peer() as peer:
        for _ in range(2):  # the connection is kept
            peer.get("/env/x")
            seen = dict(line.split("=", 1) for line in peer.answer().decode().splitlines())
            assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/env", "/x")
            assert seen["SERVER_NAME"] == "localhost"


@pytest.mark.parametrize("size", [10, 60_000, 5_000_000])
def test_a_body_comes_back(scripts: Path, socket_path: Path, size: int) -> None:
    body = os.urandom(1000) * (size // 1000) or b"0123456789"
    with live.running(CGIApplication(scripts), socket_path):
        answer = request(
            f"fcgi+unix:{socket_path}", "/cat", method="POST", body=body, timeout=live.PATIENCE
        )
        assert answer.read() == body


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_whose_end_the_protocol_marks(
    scripts: Path, socket_path: Path, stream: bool
) -> None:
    write(scripts, "count", f"{SHELL}{HEAD}echo $CONTENT_LENGTH; wc -c\n")
    app = CGIApplication(scripts)
    with (
        live.running(app, socket_path, stream_requests=stream) as server,
        server.peer() as peer,
    ):
        peer.send(live.request("/count", method="POST"))
        for _ in range(5):
            peer.send(events.RequestBody(1, b"x" * 50_000))
        peer.send(events.EndOfRequest(1))
        assert peer.answer() == b"250000\n250000\n"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_slow_body_does_not_hold_up_the_scripts_limits(
    scripts: Path, socket_path: Path, threads: int
) -> None:
    write(scripts, "sink", f"{SHELL}cat >/dev/null\n{HEAD}")
    app = CGIApplication(scripts, time_limit=0.5)
    options: dict[str, Any] = {"threads": threads, "stream_requests": True, "error_stream": "both"}
    with live.running(app, socket_path, **options) as server, server.peer() as peer:
        head = live.request("/sink", method="POST", length=100)
        peer.send(head, events.RequestBody(1, b"the beginning"))
        peer.read_until(lambda: peer.ended(1))
        (answer,) = (each for each in peer.seen if isinstance(each, events.Response))
        assert answer.status.startswith("504")
        said = b"".join(each.data for each in peer.seen if isinstance(each, events.ErrorOutput))
        assert b"time_limit" in said


@pytest.mark.parametrize("threads", [1, 2])
def test_an_answer_comes_while_the_body_is_awaited(
    scripts: Path, socket_path: Path, threads: int
) -> None:
    os.mkfifo(scripts / "go")
    write(scripts, "both", f"{SHELL}{HEAD}echo one\ncat go\nexec cat\n")
    app = CGIApplication(scripts)
    options: dict[str, Any] = {"threads": threads, "stream_requests": True}
    with live.running(app, socket_path, **options) as server, server.peer() as peer:

        def body() -> bytes:
            data = [each.data for each in peer.seen if isinstance(each, events.ResponseBody)]
            return b"".join(data)

        peer.send(live.request("/both", method="POST", length=10), events.RequestBody(1, b"12345"))
        peer.read_until(lambda: body() == b"one\n")
        (scripts / "go").write_text("two\n")
        peer.read_until(lambda: body() == b"one\ntwo\n12345")
        peer.send(events.RequestBody(1, b"67890"), events.EndOfRequest(1))
        assert peer.answer() == b"one\ntwo\n1234567890"


def test_a_body_of_unknown_length_is_stored_where_the_server_stores_bodies(
    scripts: Path, socket_path: Path
) -> None:
    folder = scripts / "spool"
    folder.mkdir()
    write(scripts, "where", f"{SHELL}{HEAD}echo $CONTENT_LENGTH\nexec readlink /proc/self/fd/0\n")
    app = CGIApplication(scripts)
    options: dict[str, Any] = {"stream_requests": True, "spool_folder": str(folder)}
    with live.running(app, socket_path, **options) as server, server.peer() as peer:
        body = [events.RequestBody(1, bytes(50_000)) for _ in range(3)]
        peer.send(live.request("/where", method="POST"), *body, events.EndOfRequest(1))
        length, where = peer.answer().decode().splitlines()
        assert length == "150000"
        assert where.startswith(f"{folder}/")


def test_error_output_reaches_the_web_servers_log(scripts: Path, socket_path: Path) -> None:
    write(scripts, "script", f"{SHELL}echo trouble >&2\n{HEAD}echo ok\n")
    app = CGIApplication(scripts)
    with live.running(app, socket_path, error_stream="both") as server, server.peer() as peer:
        peer.get("/script")
        peer.read_until(lambda: peer.ended(1))
        errors = b"".join(e.data for e in peer.seen if isinstance(e, events.ErrorOutput))
        assert errors.endswith(b" script: trouble\n")


def test_a_visitor_who_leaves_ends_the_script(scripts: Path, socket_path: Path) -> None:
    loop = "while :; do echo x; sleep 0.01; done\n"
    write(scripts, "script", f"{SHELL}echo $$ >pid\n{HEAD}{loop}")
    app = CGIApplication(scripts)
    # Over TCP it shows with what the script writes; there a hang-up may be half a one.
    with live.running(app, socket_path, tcp=True) as server, server.peer() as peer:
        peer.get("/script")
        peer.read_until(lambda: any(isinstance(e, events.ResponseBody) for e in peer.seen))
        peer.close()
        pid = written_pid(scripts / "pid")
        eventually(lambda: not is_running(pid), "the script is ended")


@pytest.mark.parametrize("when", ["before the head", "after it"])
def test_a_visitor_who_leaves_a_silent_script_ends_it(
    scripts: Path, socket_path: Path, when: str
) -> None:
    head = "" if when == "before the head" else HEAD + "echo x\n"
    write(scripts, "script", f"{SHELL}{head}echo $$ >pid\nexec sleep 1000\n")
    with live.running(CGIApplication(scripts), socket_path) as server, server.peer() as peer:
        peer.get("/script")
        pid = written_pid(scripts / "pid")
        peer.close()
        eventually(lambda: not is_running(pid), "the script is ended")


def test_a_peer_that_only_ends_its_own_half_is_answered(scripts: Path, socket_path: Path) -> None:
    write(scripts, "script", f"{SHELL}{HEAD}cat go\necho whole\n")
    os.mkfifo(scripts / "go")
    with live.running(CGIApplication(scripts), socket_path) as server, server.peer() as peer:
        peer.get("/script")
        peer.sock.shutdown(socket.SHUT_WR)
        with (scripts / "go").open("w"):
            pass
        assert peer.answer() == b"whole\n"


def test_an_answer_that_breaks_off_is_seen_to(scripts: Path, socket_path: Path) -> None:
    os.mkfifo(scripts / "go")
    write(scripts, "script", f"{SHELL}{HEAD}printf half\ncat go >/dev/null\nkill -9 $$\n")
    with live.running(CGIApplication(scripts), socket_path) as server, server.peer() as peer:
        peer.get("/script")
        peer.read_until(lambda: any(isinstance(e, events.ResponseBody) for e in peer.seen))
        with (scripts / "go").open("w"):
            pass
        peer.read_until(lambda: peer.ended(1))
        whole = [e for e in peer.seen if isinstance(e, events.EndOfResponse) and not e.app_status]
        assert whole == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_line_serves_a_folder(scripts: Path, socket_path: Path, workers: int) -> None:
    os.mkfifo(scripts / "go")
    command = [
        *(sys.executable, "-m", "gateways", "serve", f"cgi:{scripts}?set=A=b"),
        *("-b", f"fcgi+unix:{socket_path}", "--script-name", "/cgi-bin"),
        *("--workers", str(workers), "--graceful-timeout", "0.2"),
    ]
    with (scripts / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stderr=log)
    try:
        eventually(lambda: "serving" in (scripts / "log").read_text(), "the daemon serves")
        address = f"fcgi+unix:{socket_path}"
        body = request(address, "/cgi-bin/env/x", timeout=live.PATIENCE).read().decode()
        seen = dict(line.split("=", 1) for line in body.splitlines())
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/cgi-bin/env", "/x")
        assert seen["A"] == "b"
        waiting = request(address, "/cgi-bin/wait", timeout=live.PATIENCE)
        pid = written_pid(scripts / "pid")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) is not None
        eventually(lambda: not is_running(pid), "the script ends with the daemon")
        waiting.close()
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()
