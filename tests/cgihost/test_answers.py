"""What becomes of a script's output (RFC 3875 §6, §5)."""

from __future__ import annotations

import os
from pathlib import Path
from wsgiref.validate import validator

import pytest

from gateways.cgihost import CGIApplication, run
from gateways.cgihost import answer as answers
from gateways.errors import ApplicationError
from tests.cgihost.calling import (
    PATIENCE,
    PRINT_ENVIRONMENT,
    PYTHON,
    SHELL,
    begin,
    call,
    eventually,
    is_running,
    write,
    written_pid,
)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn the exit status however busy the machine is."""
    monkeypatch.setattr(run, "LINGER", PATIENCE)


def printing(folder: Path, text: str, name: str = "script") -> CGIApplication:
    """An application whose script prints `text`, in printf's notation."""
    write(folder, name, f"{SHELL}printf '{text}'\n")
    return CGIApplication(folder)


def test_the_page_of_cgitb_is_shown(tmp_path: Path) -> None:
    """It begins with half a comment, which is no header, and then with its own head."""
    page = r"<!--: spam\nContent-Type: text/html\n\n<p>--> --> A traceback"
    called = call(printing(tmp_path, page), "/script")
    assert (called.status, called.body) == ("200 OK", b"<p>--> --> A traceback")
    assert ("Content-Type", "text/html") in called.headers


def test_a_document_is_200_with_its_headers_and_body(tmp_path: Path) -> None:
    app = printing(tmp_path, "Content-Type: text/html\\nX-One: 1\\n\\n<p>hello")
    answer = call(app, "/script")
    assert answer.status == "200 OK"
    assert sorted(answer.headers) == [("Content-Type", "text/html"), ("X-One", "1")]
    assert answer.body == b"<p>hello"
    assert answer.log == ""


def test_wsgirefs_validator_is_content(tmp_path: Path) -> None:
    app = validator(printing(tmp_path, "Content-Type: text/html\\n\\nhello"))
    assert call(app, "/script").body == b"hello"


@pytest.mark.parametrize("line", ["status: 404 Gone Fishing", "STATUS: 404 Gone Fishing"])
def test_status_is_the_status_in_any_case(tmp_path: Path, line: str) -> None:
    answer = call(printing(tmp_path, f"{line}\\ncontent-type: text/plain\\n\\nno"), "/script")
    assert answer.status == "404 Gone Fishing"
    assert answer.header("Content-Type") == "text/plain"
    assert answer.header("Status") is None


def test_a_status_without_a_reason_gets_one(tmp_path: Path) -> None:
    assert call(printing(tmp_path, "Status: 404\\n\\n"), "/script").status == "404 Not Found"
    assert call(printing(tmp_path, "Status: 299\\n\\n"), "/script").status == "299 Unknown"


def test_an_absolute_location_without_a_status_is_302(tmp_path: Path) -> None:
    answer = call(printing(tmp_path, "Location: http://example.com/x\\n\\n"), "/script")
    assert answer.status == "302 Found"
    assert answer.header("Location") == "http://example.com/x"


def test_location_with_a_status_and_a_body_goes_out_as_it_is(tmp_path: Path) -> None:
    text = "Status: 303 See Other\\nLocation: /env\\nContent-Type: text/plain\\n\\nthere"
    answer = call(printing(tmp_path, text), "/script")
    assert answer.status == "303 See Other"
    assert answer.header("Location") == "/env"
    assert answer.body == b"there"


@pytest.mark.parametrize("more", ["", "Content-Type: text/html\\n"])
def test_a_local_redirect_runs_the_other_script(tmp_path: Path, more: str) -> None:
    app = printing(tmp_path, f"{more}Location: /cgi/env/in%%20fo?x=%%41\\n\\n")
    write(tmp_path, "env", PRINT_ENVIRONMENT)
    answer = call(app, "/script/old?a=b", SCRIPT_NAME="/cgi", body=b"form=data")
    assert answer.status == "200 OK"
    assert answer.header("Location") is None
    seen = answer.variables
    assert seen["REQUEST_METHOD"] == "GET"
    assert "CONTENT_LENGTH" not in seen
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/cgi/env", "/in fo")
    assert seen["QUERY_STRING"] == "x=%41"
    assert seen["REQUEST_URI"] == "/cgi/env/in%20fo?x=%41"
    assert seen["REDIRECT_URL"] == "/cgi/script/old"
    assert seen["REDIRECT_QUERY_STRING"] == "a=b"
    assert seen["REDIRECT_STATUS"] == "200"


def test_the_script_that_a_HEAD_is_redirected_to_gives_no_body(tmp_path: Path) -> None:
    app = printing(tmp_path, "Location: /cgi/env\\n\\n")
    write(tmp_path, "env", PRINT_ENVIRONMENT)
    answer = call(app, "/script", SCRIPT_NAME="/cgi", REQUEST_METHOD="HEAD")
    assert (answer.status, answer.body) == ("200 OK", b"")


def test_204_has_no_length(tmp_path: Path) -> None:
    app = printing(tmp_path, "Status: 204 No Content\\nContent-Length: 5\\n\\n12345")
    answer = call(app, "/script")
    assert answer.header("Content-Length") is None
    assert answer.body == b""


@pytest.mark.parametrize(
    "head",
    [
        "Location: /elsewhere/page\\n",  # not below the mount: the web server's own
        "Location: /cgi/nothing\\n",
        "Location: /cgi/.hidden\\n",
        "Location: /cgi/../env\\n",
        "Location: //example.com/cgi/env\\n",
        "Location: /cgi/env#part\\n",
        "Location: /cgi/env\\nSet-Cookie: a=b\\n",  # running another script would lose it
        "Location: env\\n",
    ],
)
def test_what_is_no_local_redirect_of_ours_goes_to_the_visitor(tmp_path: Path, head: str) -> None:
    app = printing(tmp_path, head + "\\n")
    write(tmp_path, "env", PRINT_ENVIRONMENT)
    answer = call(app, "/script", SCRIPT_NAME="/cgi")
    assert answer.status == "302 Found"
    assert f"Location: {answer.header('Location')}" in head
    assert answer.body == b""


def test_a_circle_of_local_redirects_ends(tmp_path: Path) -> None:
    app = printing(tmp_path, "Location: /script\\n\\n")
    answer = call(app, "/script")
    assert answer.code == 500
    assert "local redirects" in answer.log


def test_without_local_redirects_the_visitor_is_sent_there(tmp_path: Path) -> None:
    # So that the web server's rules for that path are looked at.
    write(tmp_path, "script", f"{SHELL}printf 'Location: /env?x\\n\\n'\n")
    write(tmp_path, "env", PRINT_ENVIRONMENT)
    answer = call(CGIApplication(tmp_path, local_redirects=0), "/script")
    assert (answer.status, answer.header("Location")) == ("302 Found", "/env?x")
    app = CGIApplication(tmp_path, local_redirects=1)
    assert call(app, "/script").variables["QUERY_STRING"] == "x"


def test_an_nph_script_answers_in_http(tmp_path: Path) -> None:
    text = "HTTP/1.0 203 Mine\\r\\nConnection: close\\r\\nX-A: b\\r\\n\\r\\nStatus: body\\n"
    answer = call(printing(tmp_path, text, "nph-script"), "/nph-script")
    assert answer.status == "203 Mine"
    assert answer.headers == [("X-A", "b")]
    assert answer.body == b"Status: body\n"


def test_an_nph_script_is_asked_in_http_1_0(tmp_path: Path) -> None:
    text = f"{SHELL}echo HTTP/1.0 200 OK\necho\nexec env\n"
    write(tmp_path, "nph-env", text)
    assert call(CGIApplication(tmp_path), "/nph-env").variables["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_a_location_of_an_nph_script_is_the_visitors(tmp_path: Path) -> None:
    text = "HTTP/1.0 301 Moved\\nLocation: /nph-script\\n\\n"
    answer = call(printing(tmp_path, text, "nph-script"), "/nph-script")
    assert answer.status == "301 Moved"
    assert answer.header("Location") == "/nph-script"


@pytest.mark.parametrize(
    "text",
    [
        "Content-Type: text/plain\\n\\n",
        "HTTP/1.1 200 OK\\nTransfer-Encoding: chunked\\n\\n0\\n\\n",
        "HT",
    ],
)
def test_an_nph_script_that_gives_no_whole_answer_is_502(tmp_path: Path, text: str) -> None:
    assert call(printing(tmp_path, text, "nph-script"), "/nph-script").code == 502


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "end of file before"),
        ("Content-Type: text/plain\\n", "end of file before"),
        ("Traceback (most recent call last)\\n\\n", "which is no header"),
        ("<html>hello</html>\\n", "which is no header"),
        ("\\nhello", "head is missing"),
        ("X-Only: this\\n\\nhello", "neither Content-Type"),
        ("Content-Type: a/b\\nX: a\\001b\\n\\n", "control character"),
        ("Content-Type: a/b\\nX: a\\rSet-Cookie: b\\n\\n", "control character"),
        ("Content-Type: a/b\\n continued: yes\\n\\n", "no header"),
        ("Status: 20\\n\\n", "status"),
        ("Status: 100 Continue\\n\\n", "interim"),
        ("HTTP/1.1 103 Early Hints\\n\\n", "interim"),
        ("Status: 200 OK\\nStatus: 404 No\\n\\n", "two statuses"),
        ("Content-Type: a/b\\nContent-Length: 1\\nContent-Length: 2\\n\\nabc", "Content-Length"),
        ("Content-Type: a/b\\nContent-Length: +3\\n\\nabc", "Content-Length"),
        (f"Content-Type: a/b\\nContent-Length: {'9' * 5000}\\n\\nabc", "Content-Length"),
        ("Content-Type: a/b\\nTransfer-Encoding: chunked\\n\\n0", "Transfer-Encoding"),
    ],
)
def test_garbage_is_502_and_the_log_says_why(tmp_path: Path, text: str, why: str) -> None:
    answer = call(printing(tmp_path, text), "/script")
    assert answer.code == 502
    assert why in answer.log
    (line,) = answer.log.splitlines()
    # The visitor sees a reference that leads to the line, and nothing else of it.
    assert line.split()[1] in answer.body.decode()
    assert why.encode() not in answer.body


@pytest.mark.parametrize(("size", "code"), [(60_000, 200), (70_000, 502)])
def test_a_head_is_bounded(tmp_path: Path, size: int, code: int) -> None:
    # CVE-2014-3583 and its like: heads of 64 KiB and more.
    write(
        tmp_path,
        "script",
        f"{PYTHON}print('Content-Type: a/b\\nX: ' + 'x' * {size} + '\\n')\n",
    )
    assert call(CGIApplication(tmp_path), "/script").code == code


def test_a_head_that_never_ends_is_not_held(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}echo $$ >pid\nexec yes\n")
    answer = call(CGIApplication(tmp_path), "/script")
    assert answer.code == 502
    pid = written_pid(tmp_path / "pid")
    eventually(lambda: not is_running(pid), "the script is ended")


def test_a_head_may_come_a_byte_at_a_time(tmp_path: Path) -> None:
    text = "Status: 201 Made\\r\\nContent-Type: a/b\\r\\n\\r\\nbody"
    write(
        tmp_path,
        "script",
        f"{PYTHON}import os\nfor c in '{text}': os.write(1, c.encode())\n",
    )
    answer = call(CGIApplication(tmp_path), "/script")
    assert (answer.status, answer.body) == ("201 Made", b"body")


def test_each_piece_is_there_before_the_next_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(
        tmp_path,
        "script",
        f"{SHELL}printf 'Content-Type: a/b\\n\\none'\ncat go >/dev/null\nprintf two\n",
    )
    answer = begin(CGIApplication(tmp_path), "/script")
    pieces = iter(answer.result)
    assert next(pieces) == b"one"
    with (tmp_path / "go").open("w"):
        pass  # only now the script goes on
    assert next(pieces) == b"two"
    assert list(pieces) == []
    answer.result.close()


def test_what_comes_after_the_content_length_is_dropped(tmp_path: Path) -> None:
    text = "Content-Type: a/b\\nContent-Length: 5\\n\\nhello, and more"
    answer = call(printing(tmp_path, text), "/script")
    assert answer.body == b"hello"
    assert answer.header("Content-Length") == "5"
    assert answer.log == ""


def test_endless_output_after_the_content_length_is_ended(tmp_path: Path) -> None:
    text = f"{SHELL}echo $$ >pid\nprintf 'Content-Type: a/b\\nContent-Length: 2\\n\\n'\nexec yes\n"
    write(tmp_path, "script", text)
    assert call(CGIApplication(tmp_path), "/script").body == b"y\n"
    pid = written_pid(tmp_path / "pid")
    eventually(lambda: not is_running(pid), "the script is ended")


@pytest.mark.parametrize("case", ["HEAD", "204", "304"])
def test_a_script_whose_body_nobody_wants_runs_to_its_end(tmp_path: Path, case: str) -> None:
    status = "200" if case == "HEAD" else case
    text = f"Status: {status}\\nContent-Type: a/b\\n\\nbody"
    write(tmp_path, "script", f"{SHELL}printf '{text}'\ntouch reached\n")
    method = "HEAD" if case == "HEAD" else "GET"
    answer = call(CGIApplication(tmp_path), "/script", REQUEST_METHOD=method)
    assert answer.status.startswith(status)
    assert answer.body == b""
    eventually((tmp_path / "reached").exists, "it reaches its end")


@pytest.mark.parametrize("case", ["HEAD", "Content-Length"])
def test_a_script_that_streams_what_nobody_wants_keeps_nobody(tmp_path: Path, case: str) -> None:
    length = "Content-Length: 1\\n" if case == "Content-Length" else ""
    head = f"printf 'Content-Type: a/b\\n{length}\\nx'\n"
    text = f"{SHELL}trap 'touch told; exit' TERM\necho $$ >pid\n{head}"
    write(tmp_path, "script", text + "while :; do echo x; sleep 0.02; done\n")
    app = CGIApplication(tmp_path, time_limit=PATIENCE)
    method = "HEAD" if case == "HEAD" else "GET"
    call(app, "/script", REQUEST_METHOD=method)
    pid = written_pid(tmp_path / "pid")
    eventually(lambda: not is_running(pid), "nobody reads what it writes, and so it ends")
    assert not (tmp_path / "told").exists()


def test_a_tab_in_a_value_becomes_a_space(tmp_path: Path) -> None:
    answer = call(printing(tmp_path, "Content-Type: a/b\\nX: a\\tb\\n\\n"), "/script")
    assert answer.header("X") == "a b"


@pytest.mark.usefixtures("patient")
def test_the_exit_status_of_a_whole_answer_is_only_logged(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}printf 'Content-Type: a/b\\n\\nwhole'\nexit 3\n")
    answer = call(CGIApplication(tmp_path), "/script")
    assert answer.body == b"whole"
    assert "its exit status was 3" in answer.log


@pytest.mark.usefixtures("patient")
def test_a_script_that_dies_before_its_head_is_502(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}echo no such database >&2\nexit 7\n")
    answer = call(CGIApplication(tmp_path), "/script")
    assert answer.code == 502
    assert "script: no such database\n" in answer.log
    assert "its exit status was 7" in answer.log


@pytest.mark.usefixtures("patient")
def test_a_script_that_is_killed_in_its_body_cuts_the_answer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    head = "printf 'Content-Type: a/b\\n\\nhalf'\n"
    write(tmp_path, "script", f"{SHELL}{head}cat go >/dev/null\nkill -9 $$\n")
    answer = begin(CGIApplication(tmp_path), "/script")
    assert next(answer.result) == b"half"
    with (tmp_path / "go").open("w"):
        pass
    with pytest.raises(ApplicationError, match="signal 9"):
        next(answer.result)
    answer.result.close()


@pytest.mark.usefixtures("patient")
def test_one_that_is_killed_before_anything_was_sent_is_502(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "GATHER_SECONDS", PATIENCE)
    write(tmp_path, "script", f"{SHELL}printf 'Content-Type: a/b\\n\\nhalf'\nkill -9 $$\n")
    answer = call(CGIApplication(tmp_path), "/script")
    assert answer.code == 502
    assert "signal 9 ended it" in answer.log


def test_a_short_answer_is_one_piece_and_its_length_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "GATHER_SECONDS", PATIENCE)
    write(tmp_path, "script", f"{SHELL}echo Content-Type: a/b\necho\necho one\necho two\n")
    assert begin(CGIApplication(tmp_path), "/script").result == [b"one\ntwo\n"]
