"""What the daemon of a warm CGI file endures, and when it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cgihost.calling import eventually
from tests.warm.sites import APPLICATION, ROOT, Site, finish, kill, site


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, "c") as made:
        yield made


def test_a_daemon_that_is_killed_is_not_kept_alive_by_its_children(place: Site) -> None:
    place.write(
        APPLICATION.replace(
            'elif path == "/exit"',
            'elif path == "/fork":\n'
            "        child = os.fork()\n"
            "        if child == 0:\n"
            "            time.sleep(60)\n"
            '        text = f"{os.getpid()} warm {child}"\n'
            '    elif path == "/exit"',
        )
    )
    daemon, _, child = place.get("/fork").text.split()
    try:
        kill(int(daemon))
        answer = place.get()
    finally:
        kill(int(child))
    assert (answer.code, answer.warm, answer.errors) == (200, True, "")
    assert answer.pid != int(daemon)


@pytest.mark.load
def test_a_visitor_may_pause_for_longer_than_a_web_server_would(place: Site) -> None:
    place.write(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return (b'x' * 65536 for _ in range(320))\n"
    )
    process = place.start()
    time.sleep(35)  # longer than rate_window is where nothing else is said
    answer = finish(process)
    assert (len(answer.body), answer.errors) == (320 * 65536, "")


def test_a_finished_answer_holds_no_thread(place: Site) -> None:
    place.make(threads=1)
    place.write(
        APPLICATION.replace(
            "    return [text.encode()]",
            "    return [b'x' * 20_000_000 if path == '/big' else text.encode()]",
        )
    )
    assert place.get().warm
    slow = place.start("/big")
    assert slow.stdout is not None
    assert os.read(slow.stdout.fileno(), 1) == b"S"
    answer = place.get()
    assert (answer.code, answer.warm, answer.errors) == (200, True, "")
    rest, _ = slow.communicate(timeout=50)
    assert rest.endswith(b"x" * 20_000_000)


def test_a_daemon_that_gets_fewer_threads_than_it_asks_for_serves(place: Site) -> None:
    place.write(
        "import threading\n"
        "real, started = threading.Thread.start, []\n"
        "def start(self):\n"
        "    if self.name.startswith('gateways-') and len(started) == ALLOWED:\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    started.append(self)\n"
        "    real(self)\n"
        "threading.Thread.start = start\n".replace("ALLOWED", "int(open('allowed').read())")
        + APPLICATION
    )
    for allowed in ("1", "0"):
        place.close()
        (place.folder / "allowed").write_text(allowed)
        answer = place.post(b"abc")
        assert (answer.code, answer.warm) == (200, True), answer.errors
        (log,) = place.private.glob("*.log")
        assert f"going on with {allowed} of 4 threads" in log.read_text()


def test_the_host_limit_of_processor_time_ends_no_request(place: Site) -> None:
    place.write(
        APPLICATION.replace(
            "    if path ==",
            "    if path == '/burn':\n"
            "        end = time.process_time() + 1.2\n"
            "        while time.process_time() < end:\n"
            "            pass\n"
            "    if path ==",
            1,
        )
    )
    for _ in range(6):
        done = subprocess.run(
            ["sh", "-c", f"ulimit -t 6; exec {place.cgi}"],
            cwd=place.folder,
            env={**os.environ, **_POST},
            input=b"abc",
            capture_output=True,
        )
        assert b"Status: 200" in done.stdout, done
    (log,) = place.private.glob("*.log")
    eventually(lambda: "RLIMIT_CPU" in log.read_text(), "the log says why it has ended")


def test_a_daemon_whose_socket_is_gone_ends(place: Site) -> None:
    for remove in (_unlink_socket, shutil.rmtree):
        place.make(idle=0)
        first = place.get().pid
        remove(place.private)
        _wait_for_the_end_of(first, place)
        assert place.get().warm


def _wait_for_the_end_of(pid: int, place: Site) -> None:
    eventually(lambda: pid not in place.daemons(), "it ends")


def _unlink_socket(folder: Path) -> None:
    (path,) = [each for each in folder.iterdir() if each.is_socket()]
    path.unlink()


def test_the_log_of_a_daemon_stays_short(place: Site) -> None:
    place.write(
        APPLICATION.replace(
            "    if path ==", "    print('x' * 1_100_000, flush=True)\n    if path ==", 1
        )
    )
    assert place.get().warm
    (log,) = place.private.glob("*.log")
    eventually(lambda: log.stat().st_size < 1_000_000, "it is emptied")
    assert place.get().warm
    eventually(lambda: log.stat().st_size < 1_000_000, "it is emptied again")


def test_other_names_of_variables_make_another_daemon(place: Site) -> None:
    first = place.get("/process", SECRET="one").text
    place.make(keep=("SECRET",))
    assert "SECRET" not in first
    assert "SECRET='one'" in place.get("/process", SECRET="one").text


def test_the_daemon_runs_in_the_folder_of_the_CGI_file(place: Site, tmp_path: Path) -> None:
    answer = subprocess.run(
        [str(place.cgi)],
        cwd="/",
        env={**os.environ, **_POST, "PATH_INFO": "/note"},
        input=b"abc",
        capture_output=True,
    )
    assert b"Status: 200" in answer.stdout
    assert (tmp_path / "noted").read_bytes() == b"abc\n"


def test_who_connects_when_there_are_no_descriptors_left_is_served_later(tmp_path: Path) -> None:
    """The last one is used up by the connection itself."""
    program = (
        "import os, resource, socket, sys\n"
        "here, there = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)\n"
        "here.bind(sys.argv[1]); here.listen()\n"
        "from gateways.server.options import Options\n"
        "from gateways.warm import daemon\n"
        "daemon.NOTE = os.open(os.devnull, os.O_RDONLY)\n"
        "listener = daemon.PrivateListener(here, Options())\n"
        "there.connect(sys.argv[1])\n"
        "free = os.dup(0); os.close(free)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))\n"
        "print(listener.accept() is not None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


_POST = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REQUEST_METHOD": "POST",
    "CONTENT_LENGTH": "3",
    "SCRIPT_NAME": "/app.cgi",
    "PATH_INFO": "/burn",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
}
