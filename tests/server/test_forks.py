"""Processes that the application forks: they hold nothing of the server's, and end when told to."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.server.live import Peer, eventually
from tests.server.processes import PID, ask, daemon, session

FORKS = """
import os, signal, time

def child():
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        while True:
            time.sleep(60)
    return pid

early = child()

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    late = child() if environ["PATH_INFO"] == "/fork" else 0
    return [f"{early} {late}".encode()]
"""

COMES_BACK = PID.replace(
    '    if environ["PATH_INFO"] == "/flags"',
    '    if environ["PATH_INFO"] == "/back":\n'
    "        if os.fork() == 0:\n"
    '            raise RuntimeError("the child comes back")\n'
    "        os.wait()\n"
    '        return [b"the parent answers"]\n'
    '    if environ["PATH_INFO"] == "/flags"',
)


@pytest.mark.parametrize("threads", [1, 2])
def test_children_of_the_application_hold_no_listener_and_no_connection(
    short_path: Path, threads: int
) -> None:
    with daemon(short_path, FORKS, workers=1, threads=threads) as process:
        eventually(lambda: ask(short_path) != b"", "it serves")
        with Peer(str(short_path / "app.sock")) as waiting:
            waiting.get("/", keep=True)
            waiting.answer()  # so it has been accepted, and stays
            early, late = map(int, ask(short_path, "/fork").split())
            eventually(lambda: not (_sockets(early) or _sockets(late)), "they let go")
            process.kill()
            process.wait()
            assert session(process.pid) == {early, late}
            assert waiting.sock.recv(1) == b""
            with socket.socket(socket.AF_UNIX) as visitor, pytest.raises(ConnectionRefusedError):
                visitor.connect(str(short_path / "app.sock"))
        for pid in (early, late):
            os.kill(pid, signal.SIGTERM)  # is what ends a pool; the server's own handler would not
        eventually(lambda: not session(process.pid), "they end")


def _sockets(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    opened = [each for each in os.listdir(folder) if int(each) > 2]  # those are the tests'
    links = [os.readlink(f"{folder}/{each}") for each in opened]
    return [each for each in links if each.startswith("socket:")]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_that_comes_back_to_the_server_answers_nobody(
    short_path: Path, threads: int
) -> None:
    with daemon(short_path, COMES_BACK, workers=1, threads=threads):
        eventually(lambda: ask(short_path) != b"", "it serves")
        assert [ask(short_path, "/back") for _ in range(3)] == [b"the parent answers"] * 3
