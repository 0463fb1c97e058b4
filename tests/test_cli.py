"""The command line: what it prints, where, and how it exits."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateways import client, events, fastcgi
from gateways.cli import explain, group
from gateways.cli import main as entry
from gateways.errors import GatewayError
from gateways.server.options import OPTIONS

ROOT = Path(__file__).parent.parent
CAPTURES = Path(__file__).parent / "captures"

APPLICATION = """
import json
print("printed at import")

def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    if path == "/wrong":
        raise RuntimeError("application is wrong")
    if path == "/cut":
        start_response("200 OK", [("Content-Type", "text/plain")])
        def pieces():
            yield b"half"
            raise RuntimeError("application is wrong")
        return pieces()
    if path == "/missing":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such page\\n"]
    if path == "/bytes":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [bytes(range(256))]
    if path == "/odd":
        environ["wsgi.errors"].write("something is odd\\n")
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Two", "2")])
    told = {n: v for n, v in environ.items() if isinstance(v, str) and n.isupper()}
    told["body"] = body.decode("latin-1")
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [json.dumps(told).encode()]
"""

Result = tuple[int, str, str]
Run = Callable[..., Result]


def environment(**more: str) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith("GATEWAYS_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def start(
    *arguments: str, cwd: Path, stdin: int | None = None, **more: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateways", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**more),
    )


def run_process(*arguments: str, cwd: Path, stdin: bytes = b"", **more: str) -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "gateways", *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        env=environment(**more),
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            # It listens before it has loaded the application; it answers afterwards.
            with client.connect(address, timeout=30) as connection:
                connection.get_values()
            return
        except GatewayError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"{address} does not answer: {process.communicate()}")
            time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Ask it to stop; return the exit code, what it printed and what it logged."""
    process.terminate()
    try:
        out, log = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        out, log = process.communicate()
    return process.returncode, out.decode(), log.decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `gateways serve` with the application above."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "app.py").write_text(APPLICATION)
    address = f"fcgi+unix:{folder}/s"
    scgi = f"scgi+unix:{folder}/scgi"
    process = start(
        "serve", "app.py", "-b", address, "-b", scgi, "--error-stream", "web-server", cwd=folder
    )
    try:
        wait_for(address, process)
        yield address
    finally:
        code, _, log = stop(process)
    assert code == 0, log


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs a command in this process; returns the exit code, its output and its errors."""

    def run(*arguments: str) -> Result:
        code = group.main(list(arguments))
        out, err = capsysbinary.readouterr()
        return code, out.decode("utf-8", "surrogateescape"), err.decode()

    return run


@pytest.fixture
def get(run: Run, served: str) -> Run:
    return lambda *arguments: run("get", served, *arguments)


# The group


def test_the_version_names_the_interpreter(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"gateways \S+ \(\w+ \d+\.\d+\.\d+\S*\)\n", out)


def test_without_a_command_the_commands_are_shown(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    assert all(name in out for name in group.COMMANDS)


@pytest.mark.parametrize("name", group.COMMANDS)
def test_every_command_explains_itself(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"Usage: gateways {name}" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sevre"], 'there is no command "sevre"; did you mean serve?'),
        (["serve"], "Missing argument 'APP'"),
        (["serve", "a:b", "--threds", "2"], "'--threads'"),
        (["serve", "a:b", "--threads", "two"], "'two' is not a valid integer"),
        (["serve", "a:b", "--socket-mode", "9"], '"9" is not an octal number such as 660'),
        (["serve", "a:b", "--threads", "0"], "option threads: 0 is out of bounds"),
        (["serve", "a:b", "-b", "9000"], '"127.0.0.1:9000"'),
        (["serve", "nowhere_at_all:b", "-b", "127.0.0.1:0"], 'no module "nowhere_at_all"'),
        (["get", "nowhere"], "has no port"),
        (["get", "127.0.0.1:1/a", "/b"], "there are two paths"),
        (["get", "127.0.0.1:1", "-H", "X"], 'has no colon; write "Name: value"'),
        (["get", "127.0.0.1:1", "-V", "X"], "write NAME=VALUE"),
        (["get", "127.0.0.1:1", "-d", "@/nowhere"], 'cannot read "/nowhere"'),
        (["get", "127.0.0.1:1", "--timeout", "0"], "more than 0 and at most 86400"),
        (["get", "127.0.0.1:1", "--timeout=-1"], "more than 0 and at most 86400"),
        (["get", "127.0.0.1:1", "--timeout", "nan"], "more than 0 and at most 86400"),
        (["get", "127.0.0.1:1", "--timeout", "1e400"], "more than 0 and at most 86400"),
        (["get", "127.0.0.1:1", "--timeout", "soon"], '"soon" is no time to wait'),
        (["get", "scgi://127.0.0.1:1", "--role", "authorizer"], "only FastCGI has roles"),
        (["demo", "--port", "65536"], "65536 is not in the range"),
        (["demo", "--port", "9" * 5000], "is not a valid integer"),
        (["explain", "/nowhere"], "No such file"),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_2(run: Run, arguments: list[str], words: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("gateways: ")
    assert err.count("\n") == 1
    assert words in err


def test_the_entry_point_exits_with_the_code(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry(["get", "nowhere"])
    assert caught.value.code == 2
    assert b"has no port" in capsysbinary.readouterr().err


def test_a_machine_without_click_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in sys.modules if n.startswith("gateways.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("gateways.cli.group")
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit, match='run "pip install click"'):
        entry(["get", "127.0.0.1:1"])


def test_ctrl_c_while_the_command_line_is_still_imported_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    class Interrupt:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "gateways.cli.group":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "gateways.cli.group")
    monkeypatch.delattr("gateways.cli.group")
    monkeypatch.setattr(sys, "meta_path", [Interrupt, *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        entry(["get", "127.0.0.1:1"])
    assert caught.value.code == 130
    assert capsysbinary.readouterr() == (b"", b"")


def test_an_application_that_fails_to_import_shows_its_own_frames_and_a_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(
        "def connect():\n    raise OSError('no database')\nconnect()\n"
    )
    code, out, err = run_process("serve", "app.py", "-b", "127.0.0.1:0", cwd=tmp_path)
    assert code == 2
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert sum("  File " in line for line in lines) == 2
    assert lines[-1] == 'gateways: importing "app.py" raised OSError: no database'


# serve


def test_every_option_of_the_table_is_on_the_command_line_and_in_its_section(run: Run) -> None:
    _, out, _ = run("serve", "--help")
    sections = re.split(r"^(\S.*):$", out, flags=re.MULTILINE)
    text = dict(zip(sections[1::2], sections[2::2], strict=True))
    for option in OPTIONS:
        assert f"--{option.name.replace('_', '-')}" in text[option.section]


def test_serve_listens_at_several_addresses_of_several_protocols(served: str) -> None:
    scgi = served.replace("fcgi", "scgi").removesuffix("/s") + "/scgi"
    for address in (served, scgi):
        assert json.loads(client.request(address, "/x").read())["PATH_INFO"] == "/x"


def test_options_come_from_the_environment_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    address = f"unix:{tmp_path}/s"
    process = start(
        "serve",
        "app.py",
        "--socket-mode=600",
        cwd=tmp_path,
        GATEWAYS_BIND=address,
        GATEWAYS_SCRIPT_NAME="/shop",
        GATEWAYS_SOCKET_MODE="666",
    )
    try:
        wait_for(address, process)
        told = json.loads(client.request(address, "/shop/cart").read())
        assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/shop", "/cart")
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    finally:
        code, out, log = stop(process)
    assert code == 0, log
    assert out == "printed at import\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("GATEWAYS_NO_REMOTE_USER", "write GATEWAYS_REMOTE_USER=no"),
        ("GATEWAYS_NO_DEBUG", "write GATEWAYS_DEBUG=no"),
        ("GATEWAYS_WROKERS", "did you mean GATEWAYS_WORKERS?"),
        ("GATEWAYS_Workers", "did you mean GATEWAYS_WORKERS?"),
        ("GATEWAYS_BINDS", "did you mean GATEWAYS_BIND?"),
        ("GATEWAYS_GRACEFULL_TIMEOUT", "did you mean GATEWAYS_GRACEFUL_TIMEOUT?"),
    ],
)
def test_serve_refuses_an_environment_that_is_meant_for_it_and_misspelt(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setenv(name, "1")
    code, out, err = run("serve", "nowhere_at_all:b", "-b", "127.0.0.1:0")
    assert (code, out) == (2, "")
    assert err == f"gateways: {name} in the environment is no option; {words}\n"


def test_serve_ignores_what_else_begins_with_the_prefix(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in ("SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_9000_TCP_PROTO", "SUITE_STATE"):
        monkeypatch.setenv(f"GATEWAYS_{word}", "1")
    _, _, err = run("serve", "nowhere_at_all:b", "-b", "127.0.0.1:0")
    assert 'no module "nowhere_at_all"' in err


def test_an_option_of_the_environment_is_switched_off_as_the_message_says(
    served: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    address = f"unix:{tmp_path}/s"
    process = start(*("serve", "app.py", "-b", address), cwd=tmp_path, GATEWAYS_REMOTE_USER="no")
    try:
        wait_for(address, process)
        for asked, is_passed_on in ((served, True), (address, False)):
            answer = client.request(asked, "/x", extra={"REMOTE_USER": "ada"})
            assert ("REMOTE_USER" in json.loads(answer.read())) is is_passed_on
    finally:
        code, _, log = stop(process)
    assert code == 0, log


def test_serve_takes_the_listening_socket_that_it_was_started_on(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        process = start("serve", "app.py", cwd=tmp_path, stdin=listener.fileno())
        try:
            wait_for(f"unix:{tmp_path}/s", process)
            assert (
                json.loads(client.request(f"unix:{tmp_path}/s", "/x").read())["PATH_INFO"] == "/x"
            )
        finally:
            code, _, log = stop(process)
    assert code == 0, log


def test_ctrl_c_stops_serve_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    process = start("serve", "app.py", "-b", f"unix:{tmp_path}/s", cwd=tmp_path)
    wait_for(f"unix:{tmp_path}/s", process)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"Traceback" not in log


# get


def test_get_prints_the_body_and_nothing_else(get: Run) -> None:
    code, out, err = get("/greet?name=Ada")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["PATH_INFO"], told["QUERY_STRING"]) == ("/greet", "name=Ada")
    assert told["REQUEST_METHOD"] == "GET"


def test_get_asks_for_the_root_without_a_path(get: Run) -> None:
    assert json.loads(get()[1])["PATH_INFO"] == "/"


def test_get_takes_path_and_query_from_a_tcp_url(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        process = start("serve", "app.py", "-b", "fcgi+fd:0", cwd=tmp_path, stdin=listener.fileno())
        try:
            wait_for(address, process)
            told = json.loads(run("get", f"fcgi://{address}/greet?name=Ada")[1])
        finally:
            stop(process)
    assert (told["PATH_INFO"], told["QUERY_STRING"]) == ("/greet", "name=Ada")


def test_get_includes_the_head(get: Run) -> None:
    _, out, _ = get("-i")
    head, _, body = out.partition("\n\n")
    assert head.splitlines()[:2] == ["Status: 200 OK", "Content-Type: application/json"]
    assert json.loads(body)


def test_get_head_asks_with_head_and_prints_the_head_alone(get: Run) -> None:
    _, out, _ = get("-I")
    assert out.startswith("Status: 200 OK\n")
    assert out.endswith("\n\n")


def test_get_sends_a_method_headers_variables_and_the_mount(get: Run) -> None:
    _, out, _ = get(
        *("/app/x", "-X", "PUT", "-H", "X-Colour: rot grün", "-H", "Host: shop.example:81"),
        *("-V", "HTTPS=on", "-V", "REMOTE_USER=ada", "--script-name", "/app"),
    )
    told = json.loads(out)
    assert told["REQUEST_METHOD"] == "PUT"
    assert told["HTTP_X_COLOUR"].encode("latin-1").decode() == "rot grün"
    assert (told["SERVER_NAME"], told["SERVER_PORT"]) == ("shop.example", "81")
    assert told["REMOTE_USER"] == "ada"
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/app", "/x")


def test_get_posts_a_form(get: Run) -> None:
    told = json.loads(get("-d", "a=1", "-d", "b=ü")[1])
    assert told["REQUEST_METHOD"] == "POST"
    assert told["CONTENT_TYPE"] == "application/x-www-form-urlencoded"
    assert told["body"].encode("latin-1").decode() == "a=1&b=ü"


def test_get_posts_a_file_as_it_is(get: Run, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"line\r\n" * 50_000)
    told = json.loads(get("-d", f"@{tmp_path}/body", "-H", "Content-Type: text/plain")[1])
    assert told["body"] == "line\r\n" * 50_000
    assert (told["CONTENT_LENGTH"], told["CONTENT_TYPE"]) == ("300000", "text/plain")


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_get_posts_standard_input(served: str, tmp_path: Path, protocol: str) -> None:
    address = served if protocol == "fcgi" else served.replace("fcgi", "scgi")[:-1] + "scgi"
    code, out, err = run_process("get", address, "-d", "@-", cwd=tmp_path, stdin=b"piped")
    assert (code, err) == (0, "")
    assert json.loads(out)["body"] == "piped"


def test_get_writes_to_a_file(get: Run, tmp_path: Path) -> None:
    code, out, _ = get("/bytes", "-o", str(tmp_path / "out"))
    assert (code, out) == (0, "")
    assert (tmp_path / "out").read_bytes() == bytes(range(256))


def test_get_shows_the_application_s_error_output_on_stderr(get: Run) -> None:
    code, out, err = get("/odd")
    assert code == 0
    assert err == "something is odd\n"
    assert json.loads(out)["PATH_INFO"] == "/odd"


def test_get_tells_everything_as_json(get: Run) -> None:
    _, out, err = get("/odd", "--json")
    assert err == ""
    told = json.loads(out)
    assert (told["status"], told["reason"]) == (200, "OK")
    assert ["X-Two", "2"] in told["headers"]
    assert json.loads(told["body"])["PATH_INFO"] == "/odd"
    assert told["errors"] == "something is odd\n"
    assert (told["app_status"], told["protocol_status"]) == (0, 0)


def test_get_tells_a_binary_body_in_base64(get: Run) -> None:
    told = json.loads(get("/bytes", "--json")[1])
    assert base64.b64decode(told["body_base64"]) == bytes(range(256))
    assert "body" not in told


def test_get_succeeds_with_any_status_unless_told_to_fail(get: Run) -> None:
    assert get("/missing")[:2] == (0, "no such page\n")
    assert get("/missing", "--fail") == (22, "", "gateways: the answer is 404 Not Found\n")
    assert get("/", "--fail")[0] == 0


def test_get_fails_when_the_answer_is_cut(get: Run) -> None:
    code, out, err = get("/cut")
    assert code == 1
    assert out == "half"
    assert err.splitlines()[-1].startswith("gateways: ")


def test_get_fails_in_one_line_when_nobody_answers(run: Run, tmp_path: Path) -> None:
    code, out, err = run("get", f"unix:{tmp_path}/none", "/x")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert f"there is no socket file {tmp_path}/none" in err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["-X", "G T"], "is not a token"),
        (["-H", "X-A: b\nX-C: d"], "holds CR, LF or NUL"),
        (["-H", "X A: b"], "is not a token"),
    ],
)
def test_get_refuses_what_cannot_be_asked_for(get: Run, option: list[str], words: str) -> None:
    code, out, err = get("/x", *option)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP, not FastCGI; ask it with curl"),
        (b"Status: 400 Bad Request\r\n\r\n", "speaks SCGI or CGI, not FastCGI; try scgi+unix:"),
        (b"24:CONTENT_LENGTH\0000\0SCGI\0001\0,", "not FastCGI; try scgi+unix:"),
        (b"something else", "record version is 115"),
    ],
)
def test_get_names_the_other_protocol_that_it_is_answered_in(
    tmp_path: Path, answer: bytes, words: str
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        process = start("get", f"unix:{tmp_path}/s", cwd=tmp_path)
        connected, _ = listener.accept()
        with connected:
            connected.recv(1)
            connected.sendall(answer)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, b"")
    assert words in err.decode()
    assert err.count(b"\n") == 1


def test_get_of_an_scgi_server_as_fastcgi_says_what_to_write(served: str, run: Run) -> None:
    scgi = served.replace("fcgi", "scgi").removesuffix("/s") + "/scgi"
    code, _, err = run("get", scgi.replace("scgi+", "fcgi+"))
    assert code == 1
    assert err.endswith(f"try {scgi}\n")


def test_get_into_a_pipe_that_closes_is_quiet(served: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "gateways", "get", served],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


def test_ctrl_c_ends_get_without_a_traceback(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        process = start("get", f"unix:{tmp_path}/s", cwd=tmp_path)
        connected, _ = listener.accept()
        with connected:
            connected.recv(1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


# cgi


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APPLICATION)
    return tmp_path


def cgi(folder: Path, *arguments: str, stdin: bytes = b"", **more: str) -> Result:
    given = {
        "REQUEST_METHOD": "POST" if stdin else "GET",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "/cgi-bin/app",
        "PATH_INFO": "/x",
        "QUERY_STRING": "",
        "CONTENT_LENGTH": str(len(stdin)),
        **more,
    }
    return run_process("cgi", *arguments, cwd=folder, stdin=stdin, **given)


def test_cgi_answers_the_request_in_the_environment(folder: Path) -> None:
    code, out, err = cgi(folder, "app.py", stdin=b"a=1")
    head, _, body = out.partition("\r\n\r\n")
    assert head.startswith("Status: 200 OK\r\n")
    told = json.loads(body)
    assert (told["SCRIPT_NAME"], told["PATH_INFO"], told["body"]) == ("/cgi-bin/app", "/x", "a=1")
    assert code == 0
    # What is printed at import would stand before the head.
    assert err == "printed at import\n"


def test_cgi_fails_when_the_body_is_shorter_than_was_announced(folder: Path) -> None:
    code, _, err = cgi(folder, "app.py", stdin=b"a=1", CONTENT_LENGTH="10")
    assert code == 1
    assert "Traceback" not in err


def test_cgi_loads_nothing_that_its_answer_does_not_need(folder: Path) -> None:
    (folder / "light.py").write_text(
        "import sys\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [' '.join(sys.modules).encode()]\n"
    )
    # Not through `python -m`, which loads much itself, but as the installed command does.
    done = subprocess.run(
        [sys.executable, "-c", "from gateways.cli import main; main(['cgi', 'light.py'])"],
        cwd=folder,
        env=environment(REQUEST_METHOD="GET", SERVER_NAME="localhost", SERVER_PORT="80"),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.partition("\n\n")[2].split())
    assert "light" in loaded
    heavy = {"click", "rich", "re", "enum", "typing", "socket", "threading", "traceback"}
    heavy |= {"collections", "functools", "contextlib", "logging", "importlib.util"}
    assert not loaded & heavy


def test_cgi_ignores_what_a_visitor_can_write_behind_the_application(folder: Path) -> None:
    _, out, err = cgi(folder, "app.py", "--debug", "--script-name=/evil", PATH_INFO="/wrong")
    assert out.startswith("Status: 500 ")
    assert "application is wrong" not in out
    assert "application is wrong" in err


def test_cgi_takes_options_before_the_application(folder: Path) -> None:
    _, out, _ = cgi(folder, "--debug", "app.py", PATH_INFO="/wrong")
    assert "application is wrong" in out
    for option in (["--script-name=/app"], ["--script-name", "/app"]):
        given = {"SCRIPT_NAME": "", "PATH_INFO": "/app/x", "REQUEST_URI": "/app/x"}
        _, out, _ = cgi(folder, *option, "app.py", stdin=b"", **given)
        told = json.loads(out.partition("\r\n\r\n")[2])
        assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/app", "/x")


def test_cgi_answers_500_when_the_application_cannot_be_loaded(folder: Path) -> None:
    (folder / "app.py").write_text("print('hello')\nsecret = 1 / 0\n")
    code, out, err = cgi(folder, "app.py")
    assert code == 0
    assert out.startswith("Status: 500 ")
    assert "secret" not in out
    assert "hello" not in out
    reference = out.split()[-1]
    assert f"error {reference}: Traceback" in err
    assert "secret = 1 / 0" in err
    assert "gateways/cli" not in err
    assert err.splitlines()[-1].startswith('gateways: importing "app.py" raised ZeroDivisionError')


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("secret = 1 / 0\n", ["ZeroDivisionError", "secret = 1 / 0"]),
        ("import missing_module\n", ["No module named 'missing_module'", "import missing_module"]),
        ("x = (1\n", ["SyntaxError", "app.py", "line 1", "was never closed"]),
        ("import sys\nsys.exit('no database')\n", ["SystemExit", "no database"]),
        ("", ['neither "application" nor "app"']),
    ],
)
def test_cgi_with_debug_shows_why_the_application_cannot_be_loaded(
    folder: Path, source: str, told: list[str]
) -> None:
    (folder / "app.py").write_text(source)
    code, out, err = cgi(folder, "--debug", "app.py", HTTP_ACCEPT="text/html")
    assert code == 0
    assert out.startswith("Status: 500 ")
    assert "<!doctype html>" in out
    shown = html.unescape(out)
    for text in told:
        assert text in shown
        assert text in err
    assert "gateways/loading.py" not in out
    assert out.partition("\r\n\r\n")[2] not in cgi(folder, "app.py", HTTP_ACCEPT="text/html")[1]
    assert len(cgi(folder, "app.py", HTTP_ACCEPT="text/html")[1]) < 300


def test_cgi_without_a_request_says_what_it_is_for(folder: Path) -> None:
    code, out, err = run_process("cgi", "app.py", cwd=folder)
    assert (code, out) == (2, "")
    assert err.startswith("gateways: there is no CGI request in the environment")
    assert "gateways get" in err


@pytest.mark.parametrize(
    "arguments", [[], ["--debug"], ["--script-name"], ["--nonsense", "app.py"]]
)
def test_cgi_used_wrongly_shows_its_usage(folder: Path, arguments: list[str]) -> None:
    code, out, err = cgi(folder, *arguments)
    assert (code, out) == (2, "")
    assert "write gateways cgi [--script-name PATH] [--crash-log PATH] [--debug] APP" in err


def test_cgi_through_the_group_is_the_same(run: Run) -> None:
    code, _, err = run("cgi")
    assert code == 2
    assert "no application is named" in err


# explain


def test_explain_shows_records_and_what_they_mean(run: Run) -> None:
    code, out, err = run("explain", str(CAPTURES / "nginx-fastcgi-post1k.bin"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert re.match(r"FastCGI, \d+ bytes, sent by the web server", lines[0])
    assert re.match(r" +0  FCGI_BEGIN_REQUEST  request 1  8 bytes  \(responder, close", lines[1])
    assert any("→ Request: responder, " in line for line in lines)
    assert any("REQUEST_METHOD = POST" in line for line in lines)
    assert lines[-1].strip() == "→ EndOfRequest"
    assert "\x1b" not in out


def test_explain_reads_standard_input(tmp_path: Path) -> None:
    data = (CAPTURES / "nginx-scgi-getbody.bin").read_bytes()
    code, out, _ = run_process("explain", "-", cwd=tmp_path, stdin=data)
    assert code == 0
    assert out.startswith("SCGI, ")
    assert "→ RequestBody: 5 bytes: hello" in out


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_explain_escapes_what_the_output_s_encoding_lacks(
    tmp_path: Path, option: list[str]
) -> None:
    (tmp_path / "answer").write_bytes(
        b"Content-Type: text/plain\n\ngr\xc3\xbc\xc3\x9fe" + b"x" * 99
    )
    code, out, err = run_process(
        "explain", *option, "answer", cwd=tmp_path, PYTHONIOENCODING="ascii"
    )
    assert (code, err) == (0, "")
    assert "ResponseBody" in out


def test_explain_tells_the_same_as_json(run: Run) -> None:
    code, out, _ = run("explain", "--json", str(CAPTURES / "nginx-fastcgi-get.bin"))
    told = json.loads(out)
    assert code == 0
    assert (told["protocol"], told["sent_by"], told["broken"]) == ("FastCGI", "web server", None)
    assert told["pieces"][0]["name"] == "FCGI_BEGIN_REQUEST"
    came = [event for piece in told["pieces"] for event in piece["events"]]
    assert [event["event"] for event in came] == ["Request", "EndOfRequest"]
    assert ["REQUEST_METHOD", "GET"] in came[0]["variables"]


def test_explain_understands_every_capture_and_finds_those_that_were_cut() -> None:
    index = json.loads((CAPTURES / "index.json").read_text())
    for capture in index["captures"]:
        path = CAPTURES / capture["file"]
        if capture["protocol"] not in ("fastcgi", "scgi") or not path.exists():
            continue
        data = path.read_bytes()
        told = explain.explain(data, explain.guess(data))
        was_cut = capture["case"].endswith(("abort-body", "close-abort-up"))
        assert (told.fault is not None) == was_cut, capture["file"]


def conversation() -> bytes:
    """Return what an application answers on a kept connection: two answers with one id."""
    server = fastcgi.ServerConnection()
    asking = fastcgi.ClientConnection()
    sent = b""
    for number in range(2):
        asking.send(events.Request(1, [(b"A", b"b")], keep_conn=True))
        asking.send(events.EndOfRequest(1))
        server.receive_data(asking.data_to_send())
        server.send(events.ErrorOutput(1, b"odd\x1b[31m\n"))
        server.send(events.Response(1, "404 Not Found", [("X-Number", str(number))]))
        server.send(events.ResponseBody(1, b"body" * 100))
        server.send(events.EndOfResponse(1, 7, 0))
        answered = server.data_to_send()
        asking.receive_data(answered)
        sent += answered
    return sent


def test_explain_reads_what_an_application_answered(run: Run, tmp_path: Path) -> None:
    (tmp_path / "answer").write_bytes(conversation())
    code, out, _ = run("explain", str(tmp_path / "answer"))
    assert code == 0
    assert "sent by the application" in out
    assert out.count("→ Response: 404 Not Found") == 2
    assert "X-Number: 1" in out
    assert "(appStatus 7, FCGI_REQUEST_COMPLETE)" in out
    assert "→ ResponseBody: 400 bytes: bodybody" in out


def test_explain_escapes_what_a_terminal_would_obey(run: Run, tmp_path: Path) -> None:
    (tmp_path / "answer").write_bytes(conversation())
    _, out, _ = run("explain", str(tmp_path / "answer"))
    assert "\x1b" not in out
    assert "odd\\x1b[31m\\n" in out


def test_explain_reads_a_cgi_answer(run: Run, tmp_path: Path) -> None:
    (tmp_path / "answer").write_bytes(b"Content-Type: text/plain\n\nhello")
    code, out, _ = run("explain", str(tmp_path / "answer"))
    assert code == 0
    assert "→ Response: 200 OK" in out
    assert "→ ResponseBody: 5 bytes: hello" in out


def record(kind: int, content: bytes, request_id: int = 1) -> bytes:
    return fastcgi.Record(kind, request_id, content).encode()


BEGIN = record(1, b"\0\1\0\0\0\0\0\0")

BROKEN = {
    "a record that is cut": (BEGIN + b"\1\4\0\1\0\5\0\0ab", "FCGI_BEGIN_REQUEST", "FastCGI 3.3"),
    "another version": (BEGIN + b"\2\4\0\1\0\0\0\0", "FCGI_BEGIN_REQUEST", "version is 2"),
    "a record of the wrong size": (BEGIN + record(2, b"x"), "FCGI_ABORT_REQUEST", "FastCGI"),
    "a request that is not complete": (BEGIN, "FCGI_BEGIN_REQUEST", "FastCGI"),
    "a pair that lies": (
        BEGIN + record(4, b"\5\5a") + record(4, b""),
        "FCGI_PARAMS",
        "FastCGI 3.4",
    ),
    "an answer that is no CGI": (
        record(6, b"oh no\n\n") + record(3, bytes(8)),
        "FCGI_STDOUT",
        "oh no",
    ),
    "a netstring without its comma": (b"24:CONTENT_LENGTH\x000\0SCGI\x001\0;", "headers", "SCGI"),
    "a netstring that is cut": (b"24:CONTENT_", "headers", "SCGI"),
    "a head without its end": (b"Content-Type: text/plain\n", "CGI", "RFC 3875 6"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_explain_shows_what_it_understood_and_then_the_broken_rule(
    run: Run, tmp_path: Path, data: tuple[bytes, str, str]
) -> None:
    sent, understood, rule = data
    (tmp_path / "broken").write_bytes(sent)
    code, out, err = run("explain", str(tmp_path / "broken"))
    assert (code, err) == (1, "")
    *before, last = out.splitlines()
    assert any(understood in line for line in before)
    assert last.startswith("broken: ")
    assert rule in last
    told = json.loads(run("explain", "--json", str(tmp_path / "broken"))[1])
    assert told["broken"]["message"] in last


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no bytes to explain"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "this is an HTTP request"),
        (b"\x12\x34\x00\x01\x0a", "AJP13, which comes in a later release"),
        (b"AB\x00\x01\x09", "AJP13, which comes in a later release"),
        (b"\x00\x05\x00\x00", "uwsgi, which comes in a later release"),
        (b"\xff\xfe", "neither FastCGI nor SCGI"),
    ],
)
def test_explain_says_what_it_cannot_read(
    run: Run, tmp_path: Path, data: bytes, words: str
) -> None:
    (tmp_path / "other").write_bytes(data)
    code, out, err = run("explain", str(tmp_path / "other"))
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_explain_can_be_told_the_protocol(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    code, out, _ = run("explain", "--protocol", "fastcgi", str(tmp_path / "bytes"))
    assert code == 1
    assert "broken: " in out
