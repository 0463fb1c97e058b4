"""The samples: the guestbook through a WSGI client, and every sample by the command in its first line."""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, EnvironBuilder, TestResponse

from gateways.client import connect, request
from gateways.errors import ConnectFailed

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
GUESTBOOK = SAMPLES / "guestbook" / "app.py"
DEADLINE = 30.0


class Visitor(Client):
    """A browser that closes every answer in the end, as a server does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.answers: list[TestResponse] = []

    def open(self, *args: Any, **options: Any) -> TestResponse:
        answer = super().open(*args, **options)
        self.answers.append(answer)
        return answer

    def close(self) -> None:
        for answer in self.answers:
            answer.close()
            # The client writes large forms to a temporary file, and leaves it open.
            answer.request.environ["wsgi.input"].close()

    def token(self, **options: Any) -> str:
        found = re.search(r'name="token" value="([^"]+)"', self.get("/", **options).text)
        assert found is not None
        return found[1]

    def sign(self, name: str, message: str, *, file: Any = None, **options: Any) -> TestResponse:
        data = {"token": self.token(**options), "name": name, "message": message}
        if file is not None:
            data["file"] = file
        return self.post("/", data=data, **options)

    def names(self, path: str = "/") -> list[str]:
        """Who signed, in the order of the page."""
        return re.findall(r'<h3 id="name-\d+">([^<]*)</h3>', self.get(path).text)

    def stream(self, path: str, *, multithread: bool = True, **environ: str) -> Iterator[str]:
        """The pieces of an event stream as they are made."""
        overrides = {"wsgi.multithread": multithread, **environ}
        answer = self.get(path, environ_overrides=overrides, buffered=False)
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return (piece.decode() for piece in answer.iter_encoded())


@pytest.fixture(scope="module")
def guestbook() -> Any:
    spec = importlib.util.spec_from_file_location("samples_guestbook", GUESTBOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(guestbook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitor]:
    monkeypatch.setenv("GUESTBOOK_DATABASE", str(tmp_path / "book" / "guestbook.sqlite3"))
    visitor = Visitor(guestbook.application)
    yield visitor
    visitor.close()
    guestbook.close_connections()


# The guestbook's form


def test_a_signed_entry_is_shown_after_a_redirect_that_posts_nothing_when_reloaded(
    client: Visitor,
) -> None:
    answer = client.sign("Ada", "First!")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/#entry-1"
    client.sign("Grace", "Second, on\r\ntwo lines")
    assert client.names() == ["Grace", "Ada"]
    page = client.get("/")
    assert re.search(r"Second, on<br>\s+two lines", page.text)


def test_what_a_visitor_writes_is_text_and_never_markup(client: Visitor) -> None:
    hostile = "<script>alert(1)</script>"
    file = (io.BytesIO(b"x"), f"{hostile}.txt")
    answer = client.sign(hostile, f'{hostile}" onmouseover="x', file=file)
    assert answer.status_code == 303
    for path in ("/", "/entry/1", "/events?after=0"):
        page = client.get(path, environ_overrides={"wsgi.multithread": False})
        assert "alert(1)" in page.text
        assert "<script>" not in page.text
        assert '" onmouseover' not in page.text
    refused = client.sign(hostile * 9, hostile)
    assert "<script>alert" not in refused.text


@pytest.mark.parametrize("forged", [{}, {"token": ""}, {"token": "x" * 43}])
def test_a_form_without_the_visitors_token_is_refused(
    client: Visitor, forged: dict[str, str]
) -> None:
    client.token()
    answer = client.post("/", data={"name": "Mallory", "message": "hello", **forged})
    assert answer.status_code == 400
    assert "out of date" in answer.text
    assert client.names() == []


def test_a_token_without_the_cookie_is_refused(guestbook: Any, client: Visitor) -> None:
    stolen = client.token()
    stranger = Visitor(guestbook.application, use_cookies=False)
    data = {"name": "Mallory", "message": "hello", "token": stolen}
    answer = stranger.post("/", data=data)
    assert answer.status_code == 400
    assert client.names() == []


@pytest.mark.parametrize(
    ("name", "message", "complaint"),
    [
        ("", "hello", "Please give your name."),
        ("  ", "hello", "Please give your name."),
        ("Ada", "", "Please write a message."),
        ("A" * 61, "hello", "at most 60 characters; this has 61"),
        ("Ada", "m" * 1001, "at most 1000 characters; this has 1001"),
        ("Ada\x00", "hello", "cannot contain control characters"),
        ("Ada\nLovelace", "hello", "cannot contain control characters"),
        ("Ada", "bell\x07", "cannot contain control characters"),
    ],
)
def test_a_refused_form_says_why_keeps_the_text_and_saves_nothing(
    client: Visitor, name: str, message: str, complaint: str
) -> None:
    answer = client.sign(name, message)
    assert answer.status_code == 422
    assert complaint in answer.text
    assert 'role="alert"' in answer.text
    if message.isprintable():
        assert message in answer.text
    assert client.names() == []


def test_older_entries_are_on_further_pages(client: Visitor) -> None:
    for number in range(23):
        client.sign(f"visitor {number}", "hello")
    assert client.names()[:1] == ["visitor 22"]
    assert client.names("/?page=2") == ["visitor 2", "visitor 1", "visitor 0"]
    missing = client.get("/?page=3")
    assert missing.status_code == 404


# Files


@pytest.mark.parametrize(
    "content",
    [bytes(range(256)) * 4000, b"\r\n--" * 300_000],
    ids=["every byte", "almost boundaries"],
)
def test_an_uploaded_file_comes_back_byte_for_byte_as_an_attachment(
    client: Visitor, content: bytes
) -> None:
    client.sign("Ada", "see file", file=(io.BytesIO(content), "Übersicht 1.html"))
    answer = client.get("/entry/1/file")
    assert answer.data == content
    assert answer.headers["Content-Length"] == str(len(content))
    # A browser that showed it would run a stranger's page in this site's name.
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith("attachment")
    assert "filename*=UTF-8''%C3%9Cbersicht%201.html" in disposition


def test_a_download_is_read_in_pieces_or_left_to_the_servers_file_wrapper(
    guestbook: Any, client: Visitor
) -> None:
    client.sign("Ada", "see file", file=(io.BytesIO(b"x" * 1_000_000), "x.bin"))
    wrapped: list[int] = []

    def wrapper(file: Any, block: int = 8192) -> Iterator[bytes]:
        wrapped.append(block)
        with file:
            while data := file.read(block):
                yield data

    answer = client.get("/entry/1/file", buffered=False)
    assert max(map(len, answer.response)) <= 65536
    overrides = {"wsgi.file_wrapper": wrapper}
    answer = client.get("/entry/1/file", environ_overrides=overrides)
    assert len(answer.data) == 1_000_000
    assert wrapped


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\notes.txt", "notes.txt"),
        ("...", "file"),
        ("a\u202ecod.exe", "acod.exe"),  # a right-to-left mark would hide the true ending
        ("n" * 300 + ".txt", "n" * 96 + ".txt"),
    ],
)
def test_a_file_name_loses_its_folders_and_what_cannot_be_seen(
    guestbook: Any, sent: str, kept: str
) -> None:
    assert guestbook.safe_name(sent) == kept


def test_a_visitor_does_not_choose_where_a_file_is_stored(client: Visitor, tmp_path: Path) -> None:
    client.sign("Ada", "file", file=(io.BytesIO(b"x"), "../../../stolen.txt"))
    answer = client.get("/entry/1/file")
    assert answer.headers["Content-Disposition"] == "attachment; filename=stolen.txt"
    (stored,) = (tmp_path / "book" / "guestbook.files").iterdir()
    assert re.fullmatch("[0-9a-f]{32}", stored.name)


def test_an_upload_over_the_limit_is_refused_and_not_kept(
    guestbook: Any, client: Visitor, tmp_path: Path
) -> None:
    much = io.BytesIO(b"x" * (guestbook.UPLOAD_BYTES + (65 << 10)))
    answer = client.sign("Ada", "file", file=(much, "big.bin"))
    assert answer.status_code == 413
    assert "<h1>413" in answer.text
    assert client.names() == []
    assert not (tmp_path / "book" / "guestbook.files").exists()


def test_a_form_whose_file_field_was_left_empty_has_no_file(client: Visitor) -> None:
    answer = client.sign("Ada", "no file", file=(io.BytesIO(b""), ""))
    assert answer.status_code == 303
    missing = client.get("/entry/1/file")
    assert missing.status_code == 404


# Live events


def next_entry(pieces: Iterator[str]) -> str:
    deadline = time.monotonic() + DEADLINE
    for piece in pieces:
        if "event: entry" in piece:
            return piece
        assert time.monotonic() < deadline, "no event came"
    raise AssertionError("the stream ended without an event")


def test_a_stream_tells_an_entry_that_another_thread_writes_meanwhile(
    guestbook: Any, client: Visitor
) -> None:
    pieces = client.stream("/events")
    assert next(pieces).startswith("retry: ")

    def write() -> None:
        other = Visitor(guestbook.application)
        other.sign("Grace", "live")
        other.close()
        guestbook.close_connections()

    writer = threading.Thread(target=write)
    writer.start()
    event = next_entry(pieces)
    writer.join()
    assert event.startswith("id: 1\nevent: entry\ndata: ")
    assert "Grace" in event
    assert event.endswith("\n\n")


def test_a_stream_goes_on_after_the_last_event_that_the_browser_saw(client: Visitor) -> None:
    for name in ("one", "two", "three"):
        client.sign(name, "hello")
    pieces = client.stream("/events?after=0", HTTP_LAST_EVENT_ID="2")
    assert next_entry(pieces).startswith("id: 3\n")
    assert next_entry(client.stream("/events?after=1")).startswith("id: 2\n")


@pytest.mark.parametrize("after", ["-1", str(10**30), "x", ""])
def test_a_stream_bears_any_last_id(client: Visitor, after: str) -> None:
    overrides = {"wsgi.multithread": False, "HTTP_LAST_EVENT_ID": after}
    answer = client.get("/events", environ_overrides=overrides)
    assert answer.status_code == 200


def test_a_quiet_stream_says_now_and_then_that_it_is_there(client: Visitor) -> None:
    pieces = client.stream("/events")
    next(pieces)
    assert next(pieces).startswith(":")


def test_a_stream_ends_at_once_where_no_thread_can_be_spared(
    guestbook: Any, client: Visitor
) -> None:
    client.sign("Ada", "hello")
    start = time.monotonic()
    told = "".join(client.stream("/events?after=0", multithread=False))
    assert "Ada" in told
    assert time.monotonic() - start < guestbook.STREAM_SECONDS / 2


def test_no_more_streams_last_than_there_are_threads_for_and_closing_one_makes_room(
    guestbook: Any, client: Visitor
) -> None:
    def promise() -> str:
        """The first line, which tells the browser how soon to come back if this one ends."""
        return next(client.stream("/events"))

    lasting = [promise() for _ in range(guestbook.STREAMS)]
    assert len(set(lasting)) == 1
    assert promise() not in lasting
    client.answers.pop(0).close()
    assert promise() in lasting


# Errors, prefixes, processes


def test_a_page_that_is_not_there_is_a_404_page(client: Visitor) -> None:
    for path in ("/nothing", "/entry/7", f"/entry/{10**30}"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "<h1>404 Not Found</h1>" in answer.text


def test_a_wrong_method_is_told_the_right_ones(client: Visitor) -> None:
    answer = client.delete("/")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert "<h1>405" in answer.text


def test_a_fault_is_a_500_page_that_tells_visitors_nothing(
    client: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUESTBOOK_DATABASE", str(tmp_path))  # a folder is no database
    answer = client.get("/", errors_stream=io.StringIO())
    assert answer.status_code == 500
    assert "<h1>500" in answer.text
    assert "sqlite" not in answer.text.lower()


def test_below_a_prefix_every_address_has_it(client: Visitor) -> None:
    base_url = "http://localhost/app"
    answer = client.sign("Ada", "hello", base_url=base_url)
    assert answer.headers["Location"] == "/app/#entry-1"
    assert "Path=/app" in client.answers[0].headers["Set-Cookie"]
    page = client.get("/", base_url=base_url)
    found = re.findall(r'(?:href|src|action|data-events)="([^"#][^"]*)"', page.text)
    assert len(found) > 5
    assert all(address.startswith("/app/") for address in found)


def test_a_forked_process_opens_a_connection_of_its_own(tmp_path: Path) -> None:
    # In a process of its own, since forking one that has threads is not safe.
    script = """
import os, runpy
book = runpy.run_path("samples/guestbook/app.py")
before = book["database"]()
before.execute("SELECT 1")
child = os.fork()
after = book["database"]()
if child == 0:
    os._exit(after is before)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), after is before)
book["close_connections"]()
"""
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"GUESTBOOK_DATABASE": str(tmp_path / "book.sqlite3")},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    assert found.stdout.split() == ["0", "True"]


# Each sample by the command in its first line


def command_of(path: Path) -> str:
    """What the first line says, or the second where the first names the interpreter."""
    lines = path.read_text().splitlines()
    line = lines[1] if lines[0].startswith("#!") else lines[0]
    found = re.match(r'(?:"""|# )Run:  (.+)', line)
    assert found, f"{path.name} does not begin with the command that runs it"
    return found[1]


def environment(**variables: str) -> dict[str, str]:
    """An ordinary user's, where `gateways` and `python3` are those of this interpreter."""
    scripts = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}"} | variables


def output_of(command: str, **variables: str) -> str:
    found = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@contextmanager
def running(command: str, log: Path, **variables: str) -> Iterator[str]:
    """Run a daemon's command, on a free port instead of the one it names, and give its address.

    It must stop cleanly when told to.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert "127.0.0.1:9000" in command
    with log.open("wb") as output:
        process = subprocess.Popen(
            # The shell becomes the command, so that the signal below reaches it.
            ["sh", "-c", "exec " + command.replace("127.0.0.1:9000", address)],
            cwd=ROOT,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_it_answers(address, process, log)
        yield address
        process.terminate()
        assert process.wait(DEADLINE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            with connect(address):
                return
        except ConnectFailed:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def test_every_sample_says_how_to_run_it() -> None:
    files = [path for path in SAMPLES.iterdir() if path.is_file()]
    assert len(files) >= 4
    # Those of cgi-bin are run behind web servers by tests/interop/test_cgi_programs.py.
    for path in [*files, GUESTBOOK, *sorted((SAMPLES / "cgi-bin").iterdir())]:
        assert str(path.relative_to(ROOT)) in command_of(path)


def test_the_script_in_the_shell_runs_by_its_command(tmp_path: Path) -> None:
    with running(command_of(SAMPLES / "cgi-bin" / "report.sh"), tmp_path / "log") as address:
        with request(address, "/there?x=1", method="POST", body=b"12345") as answer:
            body = answer.read().decode()
        assert body.startswith("POST /there?x=1\n")
        assert body.endswith("5 of 5 bytes\n")


def test_the_hello_sample_runs_by_its_command(tmp_path: Path) -> None:
    with running(command_of(SAMPLES / "hello.py"), tmp_path / "log") as address:
        answer = request(address, "/there")
        assert (answer.status, answer.read()) == (200, b"Hello from /there\n")


def test_the_hello_samples_second_command_asks_the_first(tmp_path: Path) -> None:
    asks = re.search(r"Then ask it:  (.+)", (SAMPLES / "hello.py").read_text())
    assert asks is not None
    with running(command_of(SAMPLES / "hello.py"), tmp_path / "log") as address:
        assert "Hello from /\n" in output_of(asks[1].replace("127.0.0.1:9000", address))


def test_the_hello_cgi_script_runs_by_its_command() -> None:
    output = output_of(command_of(SAMPLES / "hello.cgi"))
    head, _, body = output.partition("\n\n")
    assert head.splitlines()[0] == "Status: 200 OK"
    assert body == "Hello from /\n"


def test_the_cgi_test_script_says_hello_whatever_the_locale() -> None:
    for locale in ("C", "C.UTF-8"):
        output = output_of(command_of(SAMPLES / "cgi_test.py"), LC_ALL=locale)
        head, _, body = output.partition("\n\n")
        assert head == "Content-Type: text/plain; charset=utf-8"
        assert body.startswith("Hello World!")


def test_the_cgi_test_script_needs_no_package(tmp_path: Path) -> None:
    script = (SAMPLES / "cgi_test.py").read_bytes()
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-"],
        cwd=tmp_path,
        input=script,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, b"")


def test_the_scripts_can_be_executed_and_have_unix_line_ends() -> None:
    for name in ("anywhere.py", "cgi_test.py", "flup_fcgi.py", "hello.cgi"):
        path = SAMPLES / name
        assert path.stat().st_mode & 0o777 == 0o755
        first = path.read_bytes().splitlines(keepends=True)[0]
        assert first == b"#!/usr/bin/env python3\n"


def test_the_sample_for_anywhere_runs_by_its_command(tmp_path: Path) -> None:
    with running(command_of(SAMPLES / "anywhere.py"), tmp_path / "log") as address:
        with request(address, "/environ/there", headers=[("X-Colour", "red")]) as answer:
            told = answer.read().decode()
        assert "PATH_INFO = '/environ/there'\n" in told
        assert "HTTP_X_COLOUR = 'red'\n" in told
        with request(address, "/echo", method="POST", body=b"hello") as answer:
            assert answer.read() == b"hello"
        with request(address, "/old") as answer:
            assert (answer.status, answer.header("Location")) == (302, "/environ")
        with request(address, "/none") as answer:
            assert answer.status == 404
        with request(address, "/wait?0") as answer:
            assert answer.read() == b"waited 0 s\n"


def test_the_flup_sample_shows_its_environment_escaped(tmp_path: Path) -> None:
    with running(command_of(SAMPLES / "flup_fcgi.py"), tmp_path / "log") as address:
        page = request(address, "/x?name=<script>&b=1").read().decode()
    assert "<th>QUERY_STRING</th><td>&#x27;name=&lt;script&gt;&amp;b=1&#x27;</td>" in page
    assert "<th>wsgi.version</th><td>(1, 0)</td>" in page


def test_the_flup_sample_answers_on_the_socket_that_a_web_server_gives_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, str(SAMPLES / "flup_fcgi.py")],
            stdin=listener.fileno(),
            stderr=subprocess.DEVNULL,
        )
    try:
        with request(address, "/x") as answer:
            assert b"<th>PATH_INFO</th>" in answer.read()
        process.terminate()
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()


def second_command(pattern: str) -> str:
    found = re.search(pattern, GUESTBOOK.read_text())
    assert found is not None
    return found[0]


def test_the_guestbook_runs_as_a_daemon_with_several_workers(tmp_path: Path) -> None:
    command = second_command("gateways serve .*--workers 2")
    variables = {"GUESTBOOK_DATABASE": str(tmp_path / "book.sqlite3")}
    with running(command, tmp_path / "log", **variables) as address:
        entry_over(address)
        processes = {process_of(address) for _ in range(20)}
        assert len(processes) in (1, 2)
        with request(address, "/events?after=0") as answer:
            told = b""
            for piece in answer.iter_body():
                told += piece
                if b"event: entry" in told:
                    break
    assert "Zoë".encode() in told


def process_of(address: str) -> str:
    with request(address, "/about") as answer:
        found = re.search(r"process</code></th><td>(\d+)", answer.read().decode())
    assert found is not None
    return found[1]


def entry_over(address: str) -> None:
    """Sign the guestbook at an address, as a browser does, with a file; and read the file back."""
    with request(address, "/") as page:
        cookie = page.header("Set-Cookie").partition(";")[0]
    field = cookie.partition("=")[2]
    file = bytes(range(256)) * 1024
    builder = EnvironBuilder(
        method="POST",
        data={
            "token": field,
            "name": "Zoë",
            "message": "hello",
            "file": (io.BytesIO(file), "x.bin"),
        },
    )
    environ = builder.get_environ()
    body = environ["wsgi.input"].read()
    builder.close()
    headers = [("Content-Type", environ["CONTENT_TYPE"]), ("Cookie", cookie)]
    with request(address, "/", method="POST", headers=headers, body=body) as answer:
        assert answer.status == 303, answer.read()
    with request(address, "/entry/1/file") as answer:
        assert answer.read() == file


def test_the_guestbook_runs_as_a_cgi_program(tmp_path: Path) -> None:
    output = output_of(
        second_command("gateways cgi samples/guestbook/app.py"),
        GUESTBOOK_DATABASE=str(tmp_path / "book.sqlite3"),
        GATEWAY_INTERFACE="CGI/1.1",
        REQUEST_METHOD="GET",
        SCRIPT_NAME="/cgi-bin/book.cgi",
        PATH_INFO="/events",
        QUERY_STRING="after=0",
        SERVER_NAME="localhost",
        SERVER_PORT="80",
        SERVER_PROTOCOL="HTTP/1.1",
    )
    head, _, body = output.partition("\n\n")
    assert head.startswith("Status: 200 OK")
    # A CGI process serves one visitor, and must not stay for a stream.
    assert body == "retry: 3000\n\n"


# samples/shared-hosting; tests/interop/test_shared_hosting.py tries it behind Apache

HOSTING = SAMPLES / "shared-hosting"


def test_the_programs_for_shared_hosts_are_one_file() -> None:
    program = HOSTING / "fastcgi" / "dispatch.fcgi"
    assert program.read_bytes() == (HOSTING / "cgi" / "app.cgi").read_bytes()
    assert b"\r" not in program.read_bytes()
    assert os.access(program, os.X_OK)


def test_the_program_for_shared_hosts_runs_by_its_command(tmp_path: Path) -> None:
    with running(command_of(HOSTING / "fastcgi" / "dispatch.fcgi"), tmp_path / "log") as address:
        assert b"It works" in request(address, "/").read()


OLDER = [
    path
    for version in ("2.7*", "3.4*", "3.6*", "3.10*")
    for path in Path.home().glob(f".pyenv/versions/{version}/bin/python")
]


@pytest.mark.skipif(not OLDER, reason="this machine has no older Python")
@pytest.mark.parametrize("python", OLDER, ids=str)
def test_an_older_Python_says_in_plain_words_that_it_is_too_old(python: Path) -> None:
    done = subprocess.run(
        [python, HOSTING / "cgi" / "app.cgi"],
        env={"REQUEST_METHOD": "GET", "GATEWAY_INTERFACE": "CGI/1.1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.startswith("Status: 500 Internal Server Error")
    assert "and gateways needs 3.11 or newer" in done.stdout
    assert "Traceback" not in done.stderr


def test_nothing_in_the_program_for_shared_hosts_is_newer_than_Python_3_4() -> None:
    source = (HOSTING / "cgi" / "app.cgi").read_text()
    tree = ast.parse(source, feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
