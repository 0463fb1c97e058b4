"""What a script is given: variables, arguments, folder, descriptors (RFC 3875 §4, §7.2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateways.cgihost import CGIApplication
from tests.cgihost.calling import PRINT_ENVIRONMENT, PYTHON, SHELL, call, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "env", PRINT_ENVIRONMENT)
    # ARGV[0] of a shell script is its own path.
    arguments = 'echo Content-Type: text/plain\necho\nfor a; do echo "[$a]"; done\n'
    write(tmp_path, "args", SHELL + arguments)
    return tmp_path


def test_the_environment_is_cgis_and_nothing_of_the_servers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    answer = call(
        CGIApplication(folder),
        "/env",
        HTTP_HOST="example.com",
        HTTP_ACCEPT="*/*",
        DATABASE_PASSWORD="secret",  # wsgiref's server puts os.environ into the environ
        LD_PRELOAD="/tmp/evil.so",
    )
    seen = answer.variables
    seen.pop("PWD", None)  # the shell's own
    seen.pop("SHLVL", None)
    seen.pop("_", None)
    assert seen == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "192.0.2.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "gateways",
        "SCRIPT_NAME": "/env",
        "SCRIPT_FILENAME": str(folder / "env"),
        "HTTP_HOST": "example.com",
        "HTTP_ACCEPT": "*/*",
    }


def test_declared_additions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "C.UTF-8")
    app = CGIApplication(
        folder,
        set={"GIT_PROJECT_ROOT": "/srv/git", "PATH": "/opt/bin:/bin:/usr/bin"},
        inherit=["LANG", "NOT_THERE"],
        pass_=["CGIT_CONFIG", "SSL_CLIENT_*"],
    )
    seen = call(
        app, "/env", CGIT_CONFIG="/etc/cgitrc", SSL_CLIENT_S_DN="CN=alice", SSL_OTHER="x"
    ).variables
    assert seen["GIT_PROJECT_ROOT"] == "/srv/git"
    assert seen["PATH"] == "/opt/bin:/bin:/usr/bin"
    assert seen["LANG"] == "C.UTF-8"
    assert "NOT_THERE" not in seen
    assert (seen["CGIT_CONFIG"], seen["SSL_CLIENT_S_DN"]) == ("/etc/cgitrc", "CN=alice")
    assert "SSL_OTHER" not in seen


def test_https_is_told(folder: Path) -> None:
    seen = call(CGIApplication(folder), "/env", **{"wsgi.url_scheme": "https"}).variables
    assert seen["HTTPS"] == "on"


def test_httpoxy(folder: Path) -> None:
    # CVE-2016-5385 and its family; not even a declared addition brings it back.
    app = CGIApplication(folder, pass_=["HTTP_AUTHORIZATION"], set={"HTTP_PROXY": "http://evil"})
    assert "HTTP_PROXY" not in call(app, "/env", HTTP_PROXY="http://evil").variables


def test_authorization_is_withheld_unless_asked_for(folder: Path) -> None:
    sent = {"HTTP_AUTHORIZATION": "Basic QWxhZGRpbjpvcGVu", "REMOTE_USER": "aladdin"}
    seen = call(CGIApplication(folder), "/env", **sent).variables
    assert "HTTP_AUTHORIZATION" not in seen
    assert seen["REMOTE_USER"] == "aladdin"
    seen = call(CGIApplication(folder, authorization=True), "/env", **sent).variables
    assert seen["HTTP_AUTHORIZATION"] == "Basic QWxhZGRpbjpvcGVu"


def test_a_header_cannot_make_a_variable_that_is_trusted(folder: Path) -> None:
    # CVE-2024-8927: php-cgi believes HTTP_REDIRECT_STATUS.
    seen = call(
        CGIApplication(folder),
        "/env",
        HTTP_REDIRECT_STATUS="200",
        HTTP_CONTENT_LENGTH="5",
        HTTP_TRANSFER_ENCODING="chunked",
        HTTP_CONNECTION="close",
        **{"HTTP_X()": "() { :; }", "HTTP_x": "small", "HTTP_É": "x"},
    ).variables
    assert not {name for name in seen if name.startswith(("REDIRECT", "HTTP_"))}


def test_the_web_servers_own_redirect_status_passes(folder: Path) -> None:
    assert call(CGIApplication(folder), "/env", REDIRECT_STATUS="200").variables[
        "REDIRECT_STATUS"
    ] == ("200")


def test_content_length_is_absent_without_a_body(folder: Path) -> None:
    app = CGIApplication(folder)
    for sent in (None, "", "0"):
        assert "CONTENT_LENGTH" not in call(app, "/env", CONTENT_LENGTH=sent).variables
    assert call(app, "/env", REQUEST_METHOD="POST").variables["CONTENT_LENGTH"] == "0"
    assert call(app, "/env", body=b"abc").variables["CONTENT_LENGTH"] == "3"


def test_query_string_is_always_there(folder: Path) -> None:
    app = CGIApplication(folder)
    assert call(app, "/env", QUERY_STRING=None).variables["QUERY_STRING"] == ""
    assert call(app, "/env?a=%20b&c").variables["QUERY_STRING"] == "a=%20b&c"


def test_paths_are_told_apart_at_the_script(folder: Path) -> None:
    write(folder, "sub/deep", PRINT_ENVIRONMENT)
    path = "/sub/deep/a b/\xc3\xa9//c"
    seen = call(CGIApplication(folder), path, SCRIPT_NAME="/cgi-bin").variables
    assert seen["SCRIPT_NAME"] == "/cgi-bin/sub/deep"
    assert seen["PATH_INFO"] == "/a b/\xc3\xa9//c"
    assert seen["SCRIPT_FILENAME"] == str(folder / "sub/deep")
    assert seen["PATH_TRANSLATED"] == f"{folder}/a b/\xc3\xa9//c"


def test_path_translated_is_made_with_the_document_root(folder: Path) -> None:
    sent = {"DOCUMENT_ROOT": "/var/www/"}
    seen = call(CGIApplication(folder), "/env/x", **sent).variables
    assert seen["PATH_TRANSLATED"] == "/var/www/x"
    app = CGIApplication(folder, document_root="/srv/site/")
    assert call(app, "/env/x", **sent).variables["PATH_TRANSLATED"] == "/srv/site/x"
    assert "PATH_TRANSLATED" not in call(app, "/env").variables


def test_the_working_directory_is_the_scripts_folder(folder: Path) -> None:
    write(folder, "sub/where", f"{SHELL}echo Content-Type: a/b\necho\npwd -P\n")
    assert call(CGIApplication(folder), "/sub/where").body.decode() == f"{folder}/sub\n"


def test_nothing_is_carried_over_to_the_next_request(folder: Path) -> None:
    # CVE-2011-2766.
    app = CGIApplication(folder)
    call(app, "/env/first?x=1", HTTP_COOKIE="a=b", body=b"x", CONTENT_TYPE="a/b")
    seen = call(app, "/env").variables
    assert not {"HTTP_COOKIE", "PATH_INFO", "CONTENT_TYPE", "CONTENT_LENGTH"} & seen.keys()
    assert "HTTP_COOKIE" not in os.environ


def test_NUL_in_a_value_is_400(folder: Path) -> None:
    assert call(CGIApplication(folder), "/env", HTTP_X="a\0b").code == 400


def test_what_is_not_latin_1_is_400(folder: Path) -> None:
    assert call(CGIApplication(folder), "/env", HTTP_X="☃").code == 400
    assert call(CGIApplication(folder), "/☃").code == 400


@pytest.mark.parametrize(
    ("size", "code"), [(65535, 200), (65536, 200), (120_000, 200), (131_072, 431), (400_000, 431)]
)
def test_long_headers_pass_or_are_refused(folder: Path, size: int, code: int) -> None:
    # CVE-2007-4727.  No environment string of Linux is longer than 128 KiB.
    answer = call(CGIApplication(folder), "/env", HTTP_X="x" * size)
    assert answer.code == code
    if code == 200:
        assert len(answer.variables["HTTP_X"]) == size


def test_a_script_has_three_descriptors_and_its_lifeline_whatever_leaked(folder: Path) -> None:
    read, leaked = os.pipe()
    os.set_inheritable(leaked, True)
    try:
        code = (
            "import os\nprint('Content-Type: a/b\\n')\n"
            "for each in sorted(map(int, os.listdir('/proc/self/fd'))):\n"
            "    found = f'/proc/self/fd/{each}'\n"
            "    print(each if each < 3 else os.path.exists(found) and os.readlink(found)[:5])\n"
        )
        write(folder, "fds", PYTHON + code)
        # The one that lists them is closed by the time that they are looked at.
        found = call(CGIApplication(folder), "/fds").body.split()
        assert sorted(found) == sorted([b"0", b"1", b"2", b"False", b"pipe:"])
    finally:
        os.close(read)
        os.close(leaked)


# The command line.


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("one+two", ["one", "two"]),
        ("a%20b+%2Bc%3D", ["a b", "+c="]),
        ("$HOME;id+`id`", ["$HOME;id", "`id`"]),
        ("one+a=b", []),
        ("=", []),
        ("", []),
        ("-s", []),  # CVE-2012-1823: php-cgi?-s showed the source
        ("word+-dallow_url_include%3don", []),
        ("%2Ds", []),
        ("word+%2dx", []),
        ("--", []),
        ("a%00b", []),
        ("a++b", []),
    ],
)
def test_the_words_of_an_indexed_query(folder: Path, query: str, words: list[str]) -> None:
    answer = call(CGIApplication(folder, indexed_query=True), f"/args?{query}")
    assert answer.body.decode().splitlines() == [f"[{word}]" for word in words]


def test_an_indexed_query_is_not_the_default_nor_for_POST(folder: Path) -> None:
    assert call(CGIApplication(folder), "/args?one").body == b""
    app = CGIApplication(folder, indexed_query=True)
    assert call(app, "/args?one", REQUEST_METHOD="POST").body == b""


def test_an_interpreter_gets_the_script_before_the_words(tmp_path: Path) -> None:
    # Without execute permission and without a first line.
    text = "echo Content-Type: a/b\necho\necho $0 $*\n"
    file = write(tmp_path, "plain.sh", text, 0o644)
    app = CGIApplication(tmp_path, interpreters={".sh": "/bin/sh"}, indexed_query=True)
    assert call(app, "/plain.sh?c+x").body.decode() == f"{file} c x\n"
    app = CGIApplication(tmp_path, interpreters={".sh": ["/bin/sh", "-e"]})
    assert call(app, "/plain.sh").body.decode() == f"{file}\n"
