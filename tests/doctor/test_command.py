"""The command: what it prints, and how it exits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gateways.cli import group
from gateways.doctor import loglines
from tests.doctor import pages
from tests.doctor.conftest import HELLO, LOOKER, ME, Script
from tests.server.live import plain, running

ROOT = Path(__file__).resolve().parent.parent.parent

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object, user: str = ME) -> tuple[int, str, str]:
        code = group.main(["doctor", *map(str, arguments), *(["--user", user] if user else [])])
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_a_healthy_thing_is_one_line_and_exit_0(run: Run, script: Script, folder: Path) -> None:
    path = script()
    code, out, err = run(path, user=LOOKER)
    assert (code, err) == (0, "")
    assert out.startswith(f"healthy: {path} (existence, ")
    assert out.count("\n") == 1
    with running(plain, folder / "app.sock") as live:
        code, out, _ = run(live.address)
    assert code == 0
    assert out.endswith("GET / in FastCGI: 200)\n")


def test_a_finding_is_what_was_seen_why_and_what_mends_it_and_exit_1(
    run: Run, script: Script
) -> None:
    path = script(mode=0o644)
    code, out, _ = run(path, user=LOOKER)
    assert code == 1
    seen, why, mend = out.splitlines()
    assert seen == f"found: {path} has mode 0644, without an x bit"
    assert why.startswith("  why  a web server")
    assert mend == f"  mend $ chmod +x {path}"


def test_what_was_mended_is_told_and_exit_0(run: Run, script: Script) -> None:
    path = script(HELLO.replace("\n", "\r\n"))
    code, out, _ = run(path, "--fix")
    assert code == 0
    assert out.startswith("mended: ")
    assert f"  did  4 line ends changed; the file as it was is {path}.orig\n" in out
    assert run(path)[0] == 0


def test_what_cannot_be_mended_remains_and_exit_1(run: Run, script: Script) -> None:
    code, out, _ = run(script("#!/bin/nosuchshell\r\n"), "--fix")
    assert code == 1
    assert [line.partition(":")[0] for line in out.splitlines() if line[0] != " "] == [
        "mended",
        "found",
    ]


def test_the_same_as_json(run: Run, script: Script) -> None:
    path = script(mode=0o644)
    code, out, _ = run(path, "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["kind"], told["about"], told["user"]) == ("script", str(path), ME)
    assert told["healthy"] is False
    (finding,) = told["findings"]
    assert finding["code"] == "not-executable"
    assert finding["commands"] == [f"chmod +x {path}"]
    assert (finding["fixable"], finding["fixed"]) == (True, "")
    assert json.loads(run(path, "--json", "--fix")[1])["healthy"] is True


def test_the_kinds_of_things(run: Run, script: Script, folder: Path) -> None:
    def kind(thing: object) -> str:
        return str(json.loads(run(thing, "--json", "--timeout", "1")[1])["kind"])

    assert kind(script()) == "script"
    assert kind(folder / "none.cgi") == "script"
    assert kind(folder / "none.sock") == "address"
    assert kind("127.0.0.1:1") == "address"
    assert kind("scgi://localhost:1") == "address"
    assert kind("http://127.0.0.1:1/") == "url"
    assert kind("Premature end of script headers: a.cgi") == "log"


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ("nothing", "is no file here, no address and no URL"),
        ("", "there is nothing to examine"),
        ("what is this", "no line of an error log that doctor knows"),
        ("gopher://x:70/", "not known"),
        ("127.0.0.1:99999", "not a number from 0 to 65535"),
        ("fcgi+fd:0", "descriptor"),
        ("http:///", "names no host"),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_2(run: Run, thing: str, words: str) -> None:
    code, out, err = run(thing)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_user_that_does_not_exist_is_a_wrong_use(run: Run, script: Script) -> None:
    assert run(script(), user="no_such_user")[0] == 2


def test_a_path_with_odd_characters_is_quoted_and_escaped(run: Run, folder: Path) -> None:
    path = folder / "a b\x1b[2J.cgi"
    path.write_text(HELLO)
    path.chmod(0o644)
    _, out, _ = run(path)
    assert "\x1b" not in out
    assert "chmod +x '" in out


# The page.


def test_the_page_is_current() -> None:
    assert pages.PAGE.read_text() == pages.page(), "run: python -m tests.doctor.pages"


def test_every_finding_is_on_the_page_and_has_a_test() -> None:
    page = pages.PAGE.read_text()
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    found = pages.codes_in_the_code()
    assert {"crlf", "wrong-protocol", "source-shown", "interpreter-barred"} <= found
    for code in found:
        assert f"`{code}`" in page, code
        assert f'"{code}"' in tests or code.startswith("http-"), code
    for code in re.findall(r"^\| `([a-z][a-z0-9-]+)` \|", page, re.MULTILINE):
        assert code in found or code in {kind.code for kind in loglines.TABLE}, code


SILENCE = {
    "answers.py": [
        "test_sockets.py::test_a_daemon_that_answers_is_met_with_silence",
        "test_urls.py::test_mount_points_that_stand_once",
    ],
    "hosting.py": ["test_hosting.py::test_a_whole_folder_is_met_with_silence"],
    "output.py": ["test_scripts.py::test_a_script_that_runs_is_met_with_silence"],
    "paths.py": ["test_scripts.py::test_a_stranger_gets_through_where_everything_is_open"],
    "running.py": ["test_scripts.py::test_a_shell_script_is_met_with_silence"],
    "script.py": ["test_scripts.py::test_a_script_that_runs_is_met_with_silence"],
    "shebang.py": ["test_scripts.py::test_first_lines_that_linux_takes"],
    "sockets.py": ["test_sockets.py::test_a_daemon_that_answers_is_met_with_silence"],
    "source.py": ["test_scripts.py::test_modules_that_are_there_or_not_needed"],
    "urls.py": [
        "test_urls.py::test_a_page_is_met_with_silence",
        "test_real_servers.py::test_nginx_and_what_it_writes",
        "test_real_servers.py::test_apache_and_what_it_writes",
        "test_lighttpd.py::test_a_healthy_lighttpd_is_met_with_silence",
    ],
    "loglines.py": [
        "test_loglines.py::test_lines_that_tell_of_no_fault_are_met_with_silence",
        "test_real_servers.py::test_nginx_and_what_it_writes",
        "test_lighttpd.py::test_a_healthy_lighttpd_is_met_with_silence",
        "test_our_lines.py::test_a_daemon_that_is_well_is_met_with_silence",
    ],
}
"""For the findings of each file, the tests in which what it looks at is well, and it says nothing."""


def test_for_every_finding_there_is_a_healthy_thing_that_is_met_with_silence() -> None:
    assert SILENCE.keys() - {"loglines.py"} == pages.codes_by_file().keys()
    for tests in SILENCE.values():
        for test in tests:
            file, _, name = test.partition("::")
            _, found, rest = (Path(__file__).parent / file).read_text().partition(f"def {name}(")
            assert found, test
            assert "== []" in rest.partition("\ndef ")[0], test
