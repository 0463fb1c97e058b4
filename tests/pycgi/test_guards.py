"""What a hostile client, a careless script or a broken log cannot do."""

from __future__ import annotations

import fcntl
import io
import os
from pathlib import Path
from typing import Any

import pytest

from gateways.errors import ApplicationError, ConfigurationError
from gateways.pycgi import PythonScript
from tests.pycgi.scripts import MODES, ask, environ, script, write

HEAD = 'print("Content-Type: text/plain\\n")\n'
ARGUMENTS = HEAD + "import sys\nprint(sys.argv[1:])"
VARIABLES = HEAD + "import os\nprint(sorted(os.environ))"

both_modes = pytest.mark.parametrize("mode", MODES)


class BrokenLog(io.StringIO):
    """An error stream that cannot be written to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error
        self.attempts = 0

    def write(self, _: str) -> int:
        self.attempts += 1
        raise self._error


NOISY = "import sys\nsys.stderr.write('line\\n' * 50_000)\n" + HEAD + "print('answer')"


def with_log(log: io.StringIO, body: bytes = b"") -> dict[str, Any]:
    request = environ(body)
    request["wsgi.errors"] = log
    return request


@both_modes
def test_a_log_that_cannot_be_written_costs_no_answer(tmp_path: Path, mode: str) -> None:
    log = BrokenLog(OSError("no space left"))
    with script(tmp_path, NOISY, mode, processes=1) as app:
        ask(app)
        before = app.helpers()
        answer: Any = app(with_log(log), lambda *_: None)
        assert b"".join(answer) == b"answer\n"
        answer.close()
        assert log.attempts == 1
        assert app.helpers() == before
        assert ask(app).body == b"answer\n"


@both_modes
def test_an_interrupt_while_logging_leaks_no_helper(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.pycgi.application.BUSY_SECONDS", 0.05)
    with script(tmp_path, NOISY, mode, processes=1) as app:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                app(with_log(BrokenLog(KeyboardInterrupt())), lambda *_: None)
        assert ask(app).body == b"answer\n"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("-x+--debug", b"[]\n"),
        ("one+-c", b"[]\n"),
        ("%2dx", b"[]\n"),
        ("one+%2D", b"[]\n"),
        ("on-e+t%77o", b"['on-e', 'two']\n"),
    ],
)
def test_a_query_makes_no_options(tmp_path: Path, query: str, words: bytes) -> None:
    with script(tmp_path, ARGUMENTS, indexed_query=True) as app:
        assert ask(app, query=query).body == words


def test_an_indexed_query_is_not_the_default(tmp_path: Path) -> None:
    with script(tmp_path, ARGUMENTS) as app:
        assert ask(app, query="one+two").body == b"[]\n"


@pytest.mark.parametrize("length", ["-1", "+1", "1_0", " 1", "0x1", "\u0661", "\xb2", "9" * 19])
def test_what_is_no_content_length_starts_no_script(tmp_path: Path, length: str) -> None:
    with script(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n" + HEAD) as app:
        assert ask(app, b"body", CONTENT_LENGTH=length).status[:3] in ("400", "413")
        assert not (tmp_path / "ran").exists()
        assert app.helpers() == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("Content-Length: 1\nContent-Length: 2", "'1 and 2'"),
        ("Content-Length: -1", "Content-Length is '-1'"),
        ("Content-Length: x", "Content-Length is 'x'"),
        ("Content-Length: " + "9" * 19, "Content-Length is '999"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding"),
    ],
)
def test_a_head_that_says_wrongly_where_the_body_ends_is_a_500(
    tmp_path: Path, fields: str, words: str
) -> None:
    head = f"Content-Type: text/html\n{fields}\n\nx"
    with script(tmp_path, f"print({head!r})") as app:
        found = ask(app)
        assert found.status.startswith("500")
        assert words in found.reported


def test_a_length_twice_is_sent_once_and_tabs_become_spaces(tmp_path: Path) -> None:
    source = "print('Status: 200 Quite\\tFine\\nContent-Length: 2\\ncontent-length: 2\\nX-A: a\\tb\\n\\nx')"
    with script(tmp_path, source) as app:
        found = ask(app)
        assert found.status == "200 Quite Fine"
        assert sorted(found.headers) == [("Content-Length", "2"), ("X-A", "a b")]
        assert found.body == b"x\n"


def test_a_request_sets_the_usual_variables_alone(tmp_path: Path) -> None:
    request: Any = {
        "REQUEST_URI": "/",
        "HTTPS": "on",
        "REMOTE_USER": "me",
        "REDIRECT_STATUS": "200",
        "SSL_PROTOCOL": "x",
        "SSL_CIPHER": "x",
        "APP_MODE": "x",
        "HTTP_X_A": "x",
        "HTTP_REDIRECT_STATUS": "200",
        "HTTP_PROXY": "x",
        "HTTP_A=B": "x",
        "HTTP_A\0LD_PRELOAD": "x",
        "HTTP_\xe9": "x",
        "HOME": "/tmp",
        "NODE_OPTIONS": "x",
        "LD_PRELOAD": "x",
        "PYTHONPATH": "x",
    }
    usual = {"REQUEST_URI", "HTTPS", "REMOTE_USER", "REDIRECT_STATUS", "HTTP_X_A"}
    with script(tmp_path, VARIABLES) as app:
        plain = set(eval(ask(app).body))
        assert set(eval(ask(app, **request).body)) - plain == usual
    with script(tmp_path, VARIABLES, pass_=["SSL_*", "APP_MODE"]) as app:
        request["SSL_CERT_FILE"] = "x"
        more = {"SSL_PROTOCOL", "SSL_CIPHER", "APP_MODE"}
        assert set(eval(ask(app, **request).body)) - plain == usual | more


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_*", "PYTHON*", "PATH", "HTTP_PROXY", "A=B", "A\0", "*", "_*", "P*"),
        *("GIT_*", "GIT_EXEC_PATH", "GIT_SSH_COMMAND", "NODE_OPTIONS", "PERLLIB", "PHPRC", "PS4"),
    ],
)
def test_some_variables_are_not_passed_on_even_if_asked_for(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, HEAD)
    with pytest.raises(ConfigurationError, match="pass"):
        PythonScript(path, pass_=[name])


@both_modes
@pytest.mark.parametrize("size", [0, 1023])
def test_what_is_logged_of_stderr_is_bounded(tmp_path: Path, mode: str, size: int) -> None:
    source = (
        f"import sys\nfor n in range({4096 if size else 65_536}):\n    sys.stderr.write('x' * {size} + '\\n')\n"
        "print('last words', file=sys.stderr)\n" + HEAD + "print('answer')"
    )
    with script(tmp_path, source, mode) as app:
        found = ask(app)
        assert found.body == b"answer\n"
        lines = found.log.splitlines()
        assert 60 * 1024 < len(found.log) < 280 * 1024
        assert lines[-1] == "form.py: the rest of its error output is dropped, after 256 KiB"
        assert found.log.count("dropped") == 1
        # The last words are kept where they are the reason of a failure.
        write(tmp_path, source.partition(HEAD)[0])
        assert "last words" in ask(app).reported


@both_modes
def test_what_no_environment_can_carry_is_400(tmp_path: Path, mode: str) -> None:
    with script(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n" + HEAD, mode) as app:
        for value in ("a\0b", "\N{SNOWMAN}"):
            assert ask(app, HTTP_X=value).status.startswith("400")
            assert ask(app, PATH_INFO=f"/{value}").status.startswith("400")
        assert not (tmp_path / "ran").exists()


@both_modes
def test_a_body_is_counted_for_as_long_as_its_script_runs(tmp_path: Path, mode: str) -> None:
    source = HEAD + "import sys, time\nprint('x', flush=True)\n" + "time.sleep(1000)"
    with script(tmp_path, source, mode) as app:
        app._spool.limit = 150_000
        answer: Any = app(environ(b"x" * 100_000), lambda *_: None)
        assert next(iter(answer)) == b"x\n"
        refused = ask(app, b"x" * 100_000)
        assert refused.status.startswith("503")
        assert "spool_size" in refused.log
        answer.close()
        assert app._spool.used == 0


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="pipes shrink on Linux alone")
def test_without_room_for_a_small_body_the_answer_is_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = os.pipe

    def small_pipe() -> tuple[int, int]:
        pair = pipe()
        fcntl.fcntl(pair[1], fcntl.F_SETPIPE_SZ, 4096)
        return pair

    with script(tmp_path, HEAD) as app:
        app._spool.limit = 0
        monkeypatch.setattr(os, "pipe", small_pipe)
        assert ask(app, b"x" * 50_000).status.startswith("503")


@both_modes
@pytest.mark.parametrize("name", ["SSL_A=B", "SSL_A\0PATH", "SSL_\N{SNOWMAN}"])
def test_a_name_that_is_two_is_400(tmp_path: Path, mode: str, name: str) -> None:
    source = f"open({str(tmp_path / 'ran')!r}, 'w')\n" + HEAD
    with script(tmp_path, source, mode, pass_=["SSL_*"]) as app:
        more: Any = {name: "x"}
        assert ask(app, **more).status.startswith("400")
        assert not (tmp_path / "ran").exists()


def test_all_that_is_told_of_a_request_bears_its_reference(tmp_path: Path) -> None:
    source = "import sys\nprint('one\\ntwo', file=sys.stderr)\n"
    with script(tmp_path, source) as app:
        request = environ()
        with pytest.raises(ApplicationError) as raised:
            app(request, lambda *_: None)
        lines = request["wsgi.errors"].getvalue().splitlines()
        reference = lines[0].split()[1]
        assert lines == [f"cgi {reference} form.py: one", f"cgi {reference} form.py: two"]
        assert f"cgi {reference} form.py gave no answer" in str(raised.value)


def test_stderr_forges_no_log_lines_and_moves_no_cursor(tmp_path: Path) -> None:
    source = "import sys\nsys.stderr.write('a\\x1b[2Jb\\rc\\u2028d\\n')\n"
    with script(tmp_path, source + HEAD) as app:
        assert ask(app).log == "form.py: a\\x1b[2Jb\\x0dc\\u2028d\n"
        write(tmp_path, source)
        assert "\x1b" not in ask(app).reported
