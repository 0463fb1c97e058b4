"""The development front and the demo: an application seen through HTTP without a web server's set-up."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways.cli import demo, front
from gateways.errors import ConfigurationError

ROOT = Path(__file__).parent.parent

APPLICATION = """
import json, os

def application(environ, start_response):
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        def stream():
            yield b"data: 1\\n\\n"
            # The second event is made when the visitor has seen the first.
            open(os.path.join(os.path.dirname(__file__), "go")).read()
            yield b"data: 2\\n\\n"
        return stream()
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1")])
    told = {n: v for n, v in environ.items() if isinstance(v, str) and n.isupper()}
    return [json.dumps({**told, "length": len(body)}).encode()]
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"nothing listens at {port}: {process.communicate()}")
            time.sleep(0.02)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[str]:
    """The address of a FastCGI daemon with the application above."""
    (tmp_path / "app.py").write_text(APPLICATION)
    os.mkfifo(tmp_path / "go")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateways", "serve", f"{tmp_path}/app.py"],
            stdin=listener.fileno(),
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def visitor(backend: str) -> Iterator[http.client.HTTPConnection]:
    """A connection to the front of the application above."""
    with RunningFront(backend) as connection:
        yield connection


class RunningFront:
    """Runs the front in a process of its own, as the demo does, and connects to it."""

    def __init__(self, backend: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateways.cli.front", backend, f"127.0.0.1:{port}"],
            stderr=subprocess.PIPE,
            env=environment(),
        )
        wait_for_port(port, self.process)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def __enter__(self) -> http.client.HTTPConnection:
        return self.connection

    def __exit__(self, *exc_info: object) -> None:
        self.connection.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=20)


def test_the_front_answers_over_http_what_the_application_answers_over_fastcgi(
    visitor: http.client.HTTPConnection,
) -> None:
    visitor.request("GET", "/gr%C3%BCn?x=1", headers={"X-Colour": "red", "Proxy": "evil"})
    answer = visitor.getresponse()
    assert (answer.status, answer.reason) == (200, "OK")
    assert answer.headers["Set-Cookie"] == "a=1"
    told = json.loads(answer.read())
    assert told["PATH_INFO"].encode("latin-1").decode() == "/grün"
    assert told["QUERY_STRING"] == "x=1"
    assert told["HTTP_X_COLOUR"] == "red"
    assert told["GATEWAY_INTERFACE"] == "CGI/1.1"
    assert "HTTP_PROXY" not in told


def test_the_front_carries_uploads_of_known_and_unknown_length(
    visitor: http.client.HTTPConnection,
) -> None:
    visitor.request("POST", "/", body=bytes(2_000_000))
    assert json.loads(visitor.getresponse().read())["length"] == 2_000_000
    visitor.request("POST", "/", body=iter([b"ab", b"c"]), encode_chunked=True)
    assert json.loads(visitor.getresponse().read())["length"] == 3


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding: xchunked",
        "Content-Length: 4\r\nTransfer-Encoding: chunked, identity",
        "Content-Length: 4\r\nTransfer-Encoding : chunked",
        "Content-Length: 4\r\nTransfer-Encoding:",
        "Content-Length: 4\r\nContent-Length: 40",
        "Content-Length: +4",
    ],
)
def test_the_front_lets_no_request_be_smuggled_in_a_body(
    visitor: http.client.HTTPConnection, framing: str
) -> None:
    """CVE-2024-1135, CVE-2024-6827: gunicorn took a body's length from one header, its proxy from
    the other, and what lay between for a request."""
    hidden = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    message = f"POST /upload HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\n{hidden}"
    with socket.create_connection((visitor.host, visitor.port), 20) as sock:
        sock.sendall(message.encode())
        sock.shutdown(socket.SHUT_WR)
        seen = b"".join(iter(lambda: sock.recv(65536), b""))
    assert seen
    # Refused, or one request whose end is where the chunks end; then the connection is closed.
    assert seen.count(b"HTTP/1.") == 1
    assert b"smuggled" not in seen


@pytest.mark.parametrize(
    ("version", "framing"),
    [
        ("1.0", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("1.0", "Transfer-Encoding: chunked"),
        ("1.0", "transfer-encoding:"),
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding:"),
        ("1.1", "Transfer-Encoding: \t"),
        ("1.1", "Transfer-Encoding:\r\n chunked"),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    ],
)
def test_a_request_whose_end_is_in_doubt_is_refused(
    visitor: http.client.HTTPConnection, version: str, framing: str
) -> None:
    """RFC 9112 §6.1: Transfer-Encoding is not for HTTP/1.0, and not beside Content-Length."""
    message = (
        f"POST /upload HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\n{framing}\r\n\r\n"
        "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    with socket.create_connection((visitor.host, visitor.port), 20) as sock:
        sock.sendall(message.encode())
        seen = b"".join(iter(lambda: sock.recv(65536), b""))  # and the front closes
    assert re.findall(rb"(?m)^HTTP/1.+\d", seen) == [b"HTTP/%s 400" % version.encode()]
    assert re.findall(rb"(?im)^connection:.*\b", seen) == [b"Connection: close"]
    assert b"smuggled" not in seen


def test_the_front_sends_events_as_they_are_made(
    visitor: http.client.HTTPConnection, tmp_path: Path
) -> None:
    visitor.request("GET", "/events")
    answer = visitor.getresponse()
    assert answer.readline() == b"data: 1\n"
    # Opening the other end of the pipe lets the application go on.
    with open(tmp_path / "go", "wb"):
        pass
    assert answer.read() == b"\ndata: 2\n\n"


def test_the_front_answers_502_while_the_application_is_not_there(tmp_path: Path) -> None:
    with RunningFront(f"unix:{tmp_path}/none") as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 502


def test_the_front_without_waitress_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "waitress", None)
    with pytest.raises(ConfigurationError, match=r'"pip install gateways\[http\]"'):
        front.create("unix:/nowhere", "127.0.0.1", 0)


def test_the_front_says_when_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="name another port with --port"):
            front.create("unix:/nowhere", "127.0.0.1", port)


@pytest.mark.parametrize("arguments", [[], ["unix:/a"], ["unix:/a", "nowhere"]])
def test_the_front_used_wrongly_exits_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert front.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_stops_the_front_without_a_traceback(tmp_path: Path) -> None:
    running = RunningFront(f"unix:{tmp_path}/none")
    with running as connection:
        connection.request("GET", "/")
        connection.getresponse().read()
        running.process.send_signal(signal.SIGINT)
        _, err = running.process.communicate(timeout=20)
        assert running.process.returncode == 0
        assert b"Traceback" not in err


# The demo


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, which must be empty again afterwards."""
    # pytest's own folders have paths that are too long for a socket, and are closed to nginx.
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)
        assert list(Path(name).iterdir()) == []


def start_demo(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateways", "demo", "--port", "0", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


@pytest.mark.parametrize("kind", ["builtin", "nginx"])
def test_the_demo_prints_its_url_and_a_first_answer(
    temporary: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "nginx" and not demo.find_nginx():
        pytest.skip("missing: the program nginx; sudo sh tests/install-servers.sh installs it")
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/html')])\n"
        "    return [b'<!doctype html>\\n<title>Hello there</title>']\n"
    )
    process = start_demo("app.py", "--front", kind, "--once", cwd=tmp_path)
    out, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (0, "")
    first, second, third = out.splitlines()
    named = "nginx " if kind == "nginx" else "the built-in front "
    assert re.match(rf"{named}.*on http://127\.0\.0\.1:\d+/ .*app\.py$", first)
    assert second == "GET /  →  200 OK"
    assert third.strip() == "Hello there"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_runs_until_it_is_stopped_and_leaves_nothing(
    temporary: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start_demo(cwd=tmp_path)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert "Hello world!" in lines[2]
        found = re.search(r"127\.0\.0\.1:(\d+)", lines[0])
        assert found
        port = int(found[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/again")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(number)
        _, err = process.communicate(timeout=50)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in err
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_the_demo_of_an_application_that_fails_says_so_and_stops(
    temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("1 / 0\n")
    process = start_demo("app.py", cwd=tmp_path)
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (2, "")
    assert err.splitlines()[-1].startswith('gateways: importing "app.py" raised ZeroDivisionError')
    assert err.count("gateways: ") == 1


def test_the_demo_of_an_application_that_is_not_there_says_so_in_one_line(
    temporary: Path, tmp_path: Path
) -> None:
    process = start_demo("nosuch.py", cwd=tmp_path)
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (2, "")
    assert err.startswith('gateways: there is no file "nosuch.py"')
    assert err.count("\n") == 1


def test_the_demo_says_when_its_port_is_taken(temporary: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start_demo("--port", port, cwd=tmp_path)
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (2, "")
    assert "name another port with --port" in err


def test_the_demo_asked_for_an_nginx_that_is_not_there_names_the_other_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gateways.cli import group

    monkeypatch.setattr(demo, "find_nginx", lambda: "")
    assert group.main(["demo", "--front", "nginx", "--port", "0"]) == 2
    assert "use --front builtin" in capsys.readouterr().err


def test_the_demo_ends_when_its_web_server_ends(temporary: Path, tmp_path: Path) -> None:
    process = start_demo("--front", "builtin", cwd=tmp_path)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert "Ctrl-C" in lines[3]
        kill_front(process.pid)
        _, err = process.communicate(timeout=50)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "gateways: the built-in front ended with exit code -9" in err


def kill_front(parent: int) -> None:
    """Kill the child of `parent` that is the front."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # It ended while we looked.
        if int(status[1]) == parent and b"gateways.cli.front" in words:
            os.kill(int(folder.name), signal.SIGKILL)


def test_what_the_demo_starts_goes_with_it_when_it_is_killed(
    temporary: Path, tmp_path: Path
) -> None:
    if not shutil.which("setpriv"):
        pytest.skip(
            "missing: the program setpriv, of util-linux, through which the kernel is asked"
        )
    process = start_demo("--front", "builtin", cwd=tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline()
    found = re.search(r"127\.0\.0\.1:(\d+)", first)
    assert found
    process.kill()
    process.communicate(timeout=50)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", int(found[1])), 5).close()
        except OSError:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the front outlives the demo")
    # Its folder stays: nobody was left to remove it.
    for folder in temporary.iterdir():
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()
