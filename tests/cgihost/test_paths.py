"""Which file answers for a path: never outside the folder, never the text of a script."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateways.cgihost import CGIApplication
from gateways.errors import ConfigurationError
from tests.cgihost.calling import PRINT_ENVIRONMENT, SHELL, call, write

SECRET = "echo the-text-of-the-script"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of scripts with a neighbour that must not be reached."""
    folder = tmp_path / "cgi-bin"
    write(folder, "env", PRINT_ENVIRONMENT)
    write(folder, "sub/env", PRINT_ENVIRONMENT)
    write(folder, ".hidden", PRINT_ENVIRONMENT)
    write(folder, ".git/env", PRINT_ENVIRONMENT)
    write(folder, "plain.py", f"{SECRET}\n", 0o644)
    write(tmp_path, "outside", PRINT_ENVIRONMENT)
    return folder


@pytest.mark.parametrize(
    "path",
    [
        "/../outside",
        "/sub/../../outside",
        "/sub/../env",
        "/env/../../outside",  # in PATH_INFO it would leave by way of PATH_TRANSLATED
        "/..",
        "/.hidden",
        "/.git/env",
        "/./env",
        "/sub/./env",
        "//env",
        "/sub//env",
        "/",
        "",
        "/sub",
        "/sub/",
        "/nothing",
        "/nothing/env",
        "/ENV",
        "/env\n",
        "env",
        "/" + "a" * 300,
        "/a" * 5000,
        "/%2e%2e/outside",  # decoded once, by the web server, and not again
        "/sub%2fenv",
    ],
)
def test_what_is_not_there_is_404(folder: Path, path: str) -> None:
    answer = call(CGIApplication(folder), path)
    assert answer.code == 404
    assert b"GATEWAY_INTERFACE" not in answer.body
    assert str(folder).encode() not in answer.body


def test_NUL_is_400(folder: Path) -> None:
    assert call(CGIApplication(folder), "/env\0.txt").code == 400


@pytest.mark.parametrize(
    ("target", "path", "code"),
    [
        ("/cgi-bin%2Fenv", "/env", 404),
        ("/cgi-bin/sub%2fenv/x", "/sub/env/x", 404),
        ("http://example.com/cgi-bin%2Fenv", "/env", 404),
        ("/cgi-bin///sub%2fenv/x", "/sub/env/x", 404),
        ("/cgi-bin/././sub%2fenv/x", "/sub/env/x", 404),
        ("/cgi-bin/%2e/a/%2E%2e/sub%2fenv/x", "/sub/env/x", 404),
        ("/cgi-bin//env/a%2Fb", "/env/a/b", 200),
        ("/cgi-bin/env/a%2Fb", "/env/a/b", 200),
        ("/cgi-bin/env?x=%2F", "/env", 200),
        ("/cgi-bin/sub/env/%2F", "/sub/env//", 200),
        ("/cgi-bin/%65nv/x%20y", "/env/x y", 200),
    ],
)
def test_an_encoded_slash_names_no_script(folder: Path, target: str, path: str, code: int) -> None:
    # CVE-2014-4650: the web server's rules for a path do not see that one.
    sent = {"SCRIPT_NAME": "/cgi-bin", "REQUEST_URI": target}
    assert call(CGIApplication(folder), path, **sent).code == code


def test_a_single_script_that_was_removed_is_404(folder: Path) -> None:
    application = CGIApplication(folder / "env")
    (folder / "env").unlink()
    assert call(application, "/").code == 404


def test_a_file_that_is_not_executable_is_403_and_the_log_knows_the_remedy(folder: Path) -> None:
    # CVE-2011-1015 and its like: the text of a script is nobody's to read.
    answer = call(CGIApplication(folder), "/plain.py")
    assert answer.code == 403
    assert SECRET.encode() not in answer.body
    assert f"chmod a+x {folder}/plain.py" in answer.log


@pytest.mark.parametrize("path", ["/plain.py/", "/plain.py/x", "/plain.py%00"])
def test_no_spelling_shows_its_text(folder: Path, path: str) -> None:
    answer = call(CGIApplication(folder), path)
    assert answer.code in (403, 404)
    assert SECRET.encode() not in answer.body


def test_what_is_no_regular_file_is_403(folder: Path) -> None:
    os.mkfifo(folder / "pipe", 0o777)
    assert call(CGIApplication(folder), "/pipe").code == 403


def test_links_lead_where_they_may(folder: Path, tmp_path: Path) -> None:
    (folder / "inner").symlink_to("sub/env")
    (folder / "outer").symlink_to(tmp_path / "outside")
    (folder / "up").symlink_to(tmp_path)
    (folder / "broken").symlink_to("nothing")
    (folder / "circle").symlink_to("circle")
    beside = tmp_path / "cgi-bin-2"  # begins with the same letters
    write(beside, "env", PRINT_ENVIRONMENT)
    (folder / "beside").symlink_to(beside / "env")
    app = CGIApplication(folder)
    assert call(app, "/inner").variables["SCRIPT_FILENAME"] == str(folder / "inner")
    for path in ("/outer", "/up/outside", "/beside"):
        answer = call(app, path)
        assert answer.code == 403
        assert "link that leads out" in answer.log
    assert call(app, "/broken").code == 404
    assert call(app, "/circle").code in (403, 404)
    app = CGIApplication(folder, follow_symlinks=True)
    assert call(app, "/outer").code == call(app, "/up/outside").code == 200


def test_the_folder_itself_may_be_behind_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert call(CGIApplication(tmp_path / "link"), "/env").code == 200


def test_a_client_cannot_name_the_file(folder: Path, tmp_path: Path) -> None:
    sent = {
        "SCRIPT_FILENAME": str(tmp_path / "outside"),
        "PATH_TRANSLATED": "/etc/passwd",
        "DOCUMENT_ROOT": str(tmp_path),
    }
    seen = call(CGIApplication(folder), "/env", **sent).variables
    assert seen["SCRIPT_FILENAME"] == str(folder / "env")
    assert "PATH_TRANSLATED" not in seen
    assert call(CGIApplication(folder), "/outside", **sent).code == 404


@pytest.mark.parametrize("info", ["/", "/\n", "/a\r\nb", "/" + "x" * 4000, "//", "/.well-known/x"])
def test_path_info_may_be_anything_else(folder: Path, info: str) -> None:
    # CVE-2019-11043: %0a in a path made PHP-FPM's PATH_INFO shorter than nothing.
    write(
        folder,
        "info",
        f'{SHELL}echo Content-Type: a/b\necho\nprintf \'%s|%s\' "$SCRIPT_NAME" "$PATH_INFO"\n',
    )
    assert call(CGIApplication(folder), f"/info{info}").body.decode() == f"/info|{info}"


def test_a_case_folded_or_composed_name_is_another_file(folder: Path) -> None:
    # CVE-2026-30851: the split was computed after Unicode case folding.
    write(folder, "\u0130.cgi", PRINT_ENVIRONMENT)
    app = CGIApplication(folder)
    raw = "\u0130.cgi".encode().decode("latin-1")
    assert call(app, f"/{raw}/x").variables["PATH_INFO"] == "/x"
    assert call(app, "/i\u0307.cgi".encode().decode("latin-1")).code == 404


def test_an_index_answers_for_its_folder(folder: Path) -> None:
    write(folder, "sub/index.cgi", PRINT_ENVIRONMENT)
    app = CGIApplication(folder)
    seen = call(app, "/sub/").variables
    assert seen["SCRIPT_NAME"] == "/sub/index.cgi"
    assert "PATH_INFO" not in seen
    assert call(app, "/sub").code == 404  # links in the page would be relative to another folder
    assert call(CGIApplication(folder, index=["plain.py", "env"]), "/sub/").code == 200
    assert call(CGIApplication(folder, index=[]), "/sub/").code == 404
    assert call(CGIApplication(folder, index=["plain.py"]), "/").code == 403


def test_one_script_answers_every_path(folder: Path) -> None:
    app = CGIApplication(folder / "env")
    seen = call(app, "/repo.git/.info/refs", SCRIPT_NAME="/git").variables
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/git", "/repo.git/.info/refs")
    assert call(app, "", SCRIPT_NAME="/git").variables["SCRIPT_NAME"] == "/git"
    assert call(app, "/../x").code == 404
    assert call(app, "/a/b", REQUEST_URI="/a%2Fb").code == 200


def test_a_start_without_a_script_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no script or folder"):
        CGIApplication(folder / "nothing")
    with pytest.raises(ConfigurationError, match=r"chmod a\+x"):
        CGIApplication(folder / "plain.py")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo hello\n", "its first line does not name its interpreter"),
        ("#!/no/such/thing\n", 'interpreter in its first line, "/no/such/thing"'),
        ("#!/bin/sh\r\necho\r\n", "CRLF"),
        ("#!/etc\n", 'interpreter in its first line, "/etc"'),
        ("", "its first line"),
    ],
)
def test_what_cannot_be_started_is_500_and_the_log_says_why(
    folder: Path, text: str, why: str
) -> None:
    write(folder, "bad", text)
    app = CGIApplication(folder, max_running=1)
    for _ in range(2):  # and the place is given back
        answer = call(app, "/bad")
        assert answer.code == 500
        assert why in answer.log


def test_an_interpreter_that_is_not_there_is_named(folder: Path) -> None:
    app = CGIApplication(folder, interpreters={".py": "/no/such/python"})
    answer = call(app, "/plain.py")
    assert answer.code == 500
    assert "/no/such/python" in answer.log
