"""Scripts: each fault in a real file, and silence about one that runs."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gateways import doctor
from gateways.doctor import Report, files, source
from gateways.doctor import script as scripts
from gateways.doctor.access import User
from gateways.doctor.findings import Wishes
from gateways.doctor.shebang import SERVERS_PATH
from gateways.errors import ConfigurationError
from tests.cgihost.calling import eventually, is_running
from tests.doctor import conftest
from tests.doctor.conftest import HELLO, IS_ROOT, LOOKER, ME, PYTHON, Script

STRANGER = User("www-data", 54321, 54321, frozenset({54321}))
"""A user who owns nothing here and is in no group of ours."""

PYTHON_SH = shutil.which("sh") or "/bin/sh"


def examine(thing: object, user: str = LOOKER, **wishes: object) -> Report:
    return conftest.examine(thing, user, **wishes)


def codes(thing: object, user: str = LOOKER, **wishes: object) -> list[str]:
    return conftest.codes(thing, user, **wishes)


def look(path: Path, user: User = STRANGER) -> Report:
    report = Report("script", str(path), user)
    scripts.examine(str(path), Wishes(user), report)
    return report


def found(path: Path, user: User = STRANGER) -> list[str]:
    return [each.code for each in look(path, user).findings]


def test_a_script_that_runs_is_met_with_silence(script: Script) -> None:
    report = examine(script(), run=True)
    assert report.findings == []
    assert report.notes == []
    assert report.healthy
    assert {"syntax", "imports", "line", "one"} <= {each.split()[0] for each in report.checked}


def test_a_shell_script_is_met_with_silence(script: Script) -> None:
    path = script(f"#!{PYTHON_SH} -e\necho Status: 404 Not Found\necho\n")
    assert codes(path, run=True) == []


def test_a_script_that_is_not_there_names_those_that_are_near(script: Script) -> None:
    report = examine(script().with_name("helo.cgi"))
    assert [each.code for each in report.findings] == ["missing"]
    assert "hello.cgi" in report.findings[0].seen


def test_the_first_folder_that_is_not_there_is_named(folder: Path) -> None:
    (finding,) = examine(folder / "cgi-bin" / "deep" / "a.cgi").findings
    assert finding.code == "folder-missing"
    assert finding.about == str(folder / "cgi-bin")


def test_a_link_into_nothing(folder: Path) -> None:
    (folder / "a.cgi").symlink_to("nowhere")
    assert codes(folder / "a.cgi") == ["broken-link"]


def test_a_folder_is_no_script(folder: Path) -> None:
    (folder / "a.cgi").mkdir()
    assert codes(folder / "a.cgi") == ["not-a-file"]


def test_not_executable_and_its_mending(script: Script) -> None:
    path = script(mode=0o644)
    assert codes(path) == ["not-executable"]
    report = examine(path, fix=True)
    assert report.healthy
    assert report.findings[0].fixed == "mode 0644 is now 0755"
    assert codes(path) == []


def test_what_others_may_not_read_does_not_become_executable_for_them(script: Script) -> None:
    path = script(mode=0o640)
    examine(path, fix=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


def test_carriage_returns_and_their_mending(script: Script) -> None:
    path = script(HELLO.replace("\n", "\r\n"))
    with pytest.raises(FileNotFoundError):
        subprocess.run([path], check=False)  # what Linux says of it
    assert codes(path) == ["crlf"]
    report = examine(path, fix=True, run=True)
    assert report.healthy
    assert path.read_text() == HELLO
    kept = path.with_name("hello.cgi.orig")
    assert kept.read_bytes() == HELLO.replace("\n", "\r\n").encode()
    # A web server would run the copy, or show its source.
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert subprocess.run([path], capture_output=True, check=True).stdout.endswith(b"hello\n")


def test_an_older_copy_is_not_overwritten(script: Script) -> None:
    path = script(HELLO.replace("\n", "\r\n"))
    path.with_name("hello.cgi.orig").write_text("older")
    report = examine(path, fix=True)
    assert "hello.cgi.orig.1" in report.findings[0].fixed
    assert path.with_name("hello.cgi.orig").read_text() == "older"


def test_a_symbolic_link_is_not_mended_and_its_target_is_named(
    script: Script, folder: Path
) -> None:
    path = script(HELLO.replace("\n", "\r\n"))
    link = folder / "link.cgi"
    link.symlink_to(path)
    before = path.read_bytes()
    report = examine(link, fix=True)
    assert not report.healthy
    assert f"gateways doctor --fix {path}" in report.notes[-1]
    assert link.is_symlink()
    assert path.read_bytes() == before
    assert sorted(os.listdir(folder)) == ["hello.cgi", "link.cgi"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a file away")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_belongs_to_somebody_else_is_not_mended(
    script: Script, folder: Path, what: str
) -> None:
    path = script(HELLO.replace("\n", "\r\n"), mode=0o644)
    os.chown(path, 1001, 1001)
    if what == "folder":
        os.chown(folder, 1001, 1001)
    before = path.read_bytes(), path.stat()
    report = examine(path, fix=True)
    assert [each.code for each in report.findings] == ["not-executable", "crlf"]
    assert not any(each.fixed for each in report.findings)
    assert re.search(rf"sudo -u \S+ gateways doctor --fix {path}$", report.notes[-1])
    assert (path.read_bytes(), path.stat()) == before
    assert os.listdir(folder) == ["hello.cgi"]


@pytest.mark.parametrize("mode", [0o4644, 0o2644])
def test_a_file_with_rights_of_its_own_is_not_mended(script: Script, mode: int) -> None:
    path = script(mode=mode)
    report = examine(path, fix=True)
    assert "not-executable" in [each.code for each in report.findings]
    assert f"chmod ug-s {path}" in report.notes[-1]
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_nothing_is_mended_where_others_may_write(script: Script, folder: Path) -> None:
    path = script(mode=0o644)
    for mode, words in ((0o777, f"type: chmod go-w {folder}"), (0o1777, "move it")):
        folder.chmod(mode)
        report = examine(path, fix=True)
        assert words in report.notes[-1]
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_longer_than_what_is_read_is_not_cut_by_mending(script: Script) -> None:
    text = HELLO.replace("\n", "\r\n") + "#" * files.MAX_SOURCE
    path = script(text)
    report = examine(path, fix=True)
    assert "crlf" in [each.code for each in report.findings]
    assert path.read_bytes() == text.encode()


def test_reading_waits_for_nothing(folder: Path) -> None:
    os.mkfifo(folder / "a.cgi")
    assert codes(folder / "a.cgi") == ["not-a-file"]
    with pytest.raises(OSError, match="no regular file"):
        files.read(str(folder / "a.cgi"))
    # What is read from there is made up while it is read, and some of it is waited for.
    assert Path("/proc/self/status").read_bytes()
    assert files.read("/proc/self/status") == b""


def test_carriage_returns_behind_the_first_line_hurt_a_shell_and_not_python(script: Script) -> None:
    assert codes(script(f"#!{PYTHON_SH}\necho hi\r\n")) == ["crlf"]
    assert codes(script(HELLO.replace("\n", "\r\n").replace("\r\n", "\n", 1))) == []


def test_a_byte_order_mark_and_its_mending(script: Script) -> None:
    path = script(b"\xef\xbb\xbf" + HELLO.encode())
    with pytest.raises(OSError, match="Exec format"):
        subprocess.run([path], check=False)
    assert codes(path) == ["bom"]
    assert examine(path, fix=True, run=True).healthy
    assert path.read_text() == HELLO


def test_both_at_once_are_mended_at_once(script: Script) -> None:
    path = script(b"\xef\xbb\xbf" + HELLO.replace("\n", "\r\n").encode(), mode=0o644)
    report = examine(path, fix=True, run=True)
    assert [each.code for each in report.findings] == ["not-executable", "bom", "crlf"]
    assert report.healthy
    assert path.read_text() == HELLO


def test_nothing_is_changed_unless_asked_for(script: Script) -> None:
    path = script(b"\xef\xbb\xbf" + HELLO.replace("\n", "\r\n").encode(), mode=0o644)
    before = path.read_bytes(), path.stat().st_mode
    examine(path)
    assert (path.read_bytes(), path.stat().st_mode) == before


@pytest.mark.parametrize("text", ["print('x')\n", "\n" + HELLO, " " + HELLO])
def test_no_shebang_and_the_command_that_mends_it(script: Script, text: str) -> None:
    path = script(text, name="hello.py")
    report = examine(path)
    assert [each.code for each in report.findings][:1] == ["no-shebang"]
    subprocess.run(report.findings[0].commands[0], shell=True, check=True)
    assert path.read_bytes().startswith(b"#!/")
    assert "no-shebang" not in codes(path)


def test_a_program_that_was_compiled_needs_no_shebang(folder: Path) -> None:
    path = folder / "true.cgi"
    shutil.copy(os.path.realpath(shutil.which("true") or "/bin/true"), path)
    assert codes(path) == []


def test_an_empty_file(script: Script) -> None:
    assert codes(script("")) == ["empty-file"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("#!", "shebang-empty"),
        ("#!  ", "shebang-empty"),
        ("#!python3", "shebang-without-path"),
        ("#!/usr/bin/python3.999", "interpreter-missing"),
        ("#!/usr/bin/\u00a0python3", "interpreter-missing"),
        ("#!/usr/bin/\0python3", "interpreter-missing"),
        ("#!/usr/bin", "interpreter-not-executable"),
        ("#!/etc/passwd", "interpreter-not-executable"),
        ("#!/usr/bin/env python3.999", "env-missing"),
        ("#!/usr/bin/env", "env-missing"),
        ("#!/usr/bin/env python3 -u", "env-arguments"),
        (f"#!{PYTHON} " + "x" * 300, "shebang-too-long"),
    ],
)
def test_faults_of_the_first_line(script: Script, line: str, code: str) -> None:
    report = examine(script(f"{line}\nprint('Content-Type: text/plain\\n')\n"))
    assert [each.code for each in report.findings] == [code]


@pytest.mark.parametrize(
    "line",
    ["#! /bin/sh", "#!/bin/sh  ", "#!/bin/sh\t-e", "#!/usr/bin/env sh", "#!/usr/bin/env -S sh -e"],
)
def test_first_lines_that_linux_takes(script: Script, line: str) -> None:
    path = script(f"{line}\nprintf 'Content-Type: text/plain\\n\\n'\n")
    assert codes(path, run=True) == []


@pytest.mark.parametrize("line", ["#!python3", "#!/usr/bin/python3.999"])
def test_the_command_that_mends_the_first_line_does(script: Script, line: str) -> None:
    path = script(HELLO.replace(f"#!{PYTHON}", line))
    (finding,) = examine(path).findings
    subprocess.run(finding.commands[0], shell=True, check=True)
    assert codes(path, user=ME, run=True) == []


def test_env_finds_here_what_a_web_server_does_not_find(
    script: Script, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "mypython").symlink_to(PYTHON)
    monkeypatch.setenv("PATH", f"{folder}/bin:{SERVERS_PATH}")
    path = script("#!/usr/bin/env mypython\nprint('Content-Type: text/plain\\n')\n")
    (finding,) = examine(path).findings
    assert finding.code == "env-elsewhere"
    assert f"{folder}/bin/mypython" in finding.commands[0]


# The web server's user.


def test_a_stranger_gets_through_where_everything_is_open(script: Script) -> None:
    path = script("#!/bin/sh\n")
    assert found(path) == []


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o744, 0o750])
def test_a_script_that_the_user_may_not_read_and_execute(script: Script, mode: int) -> None:
    path = script("#!/bin/sh\n", mode=mode)
    report = look(path)
    assert [each.code for each in report.findings] == ["unreadable"]
    subprocess.run(report.findings[0].commands[0], shell=True, check=True)
    assert found(path) == []


def test_a_script_that_lacks_both(script: Script) -> None:
    assert found(script("#!/bin/sh\n", mode=0o600)) == ["not-executable", "unreadable"]


def test_each_folder_that_the_user_may_not_enter_is_named(folder: Path, script: Script) -> None:
    (folder / "home" / "ada" / "cgi-bin").mkdir(parents=True)
    for each in ("home", "home/ada", "home/ada/cgi-bin"):
        (folder / each).chmod(0o755)
    path = script("#!/bin/sh\n").rename(folder / "home" / "ada" / "cgi-bin" / "a.cgi")
    assert found(path) == []
    (folder / "home").chmod(0o750)
    (folder / "home" / "ada").chmod(0o700)
    report = look(path)
    assert [each.about for each in report.findings] == [
        str(folder / "home"),
        str(folder / "home/ada"),
    ]
    assert {each.code for each in report.findings} == {"folder-barred"}
    for finding in report.findings:
        subprocess.run(finding.commands[0], shell=True, check=True)
    assert found(path) == []


def test_folders_behind_a_link_count_as_well(folder: Path, script: Script) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    script("#!/bin/sh\n").rename(closed / "a.cgi")
    (folder / "a.cgi").symlink_to(closed / "a.cgi")
    assert [each.about for each in look(folder / "a.cgi").findings] == [str(closed)]


def test_an_interpreter_that_the_user_cannot_reach(folder: Path, script: Script) -> None:
    closed = folder / "venv"
    closed.mkdir(mode=0o700)
    shutil.copy(PYTHON_SH, closed / "sh")
    (closed / "sh").chmod(0o755)
    path = script(f"#!{closed}/sh\n")
    assert [(each.code, each.about) for each in look(path).findings] == [
        ("folder-barred", str(closed))
    ]
    closed.chmod(0o755)
    (closed / "sh").chmod(0o700)
    assert found(path) == ["interpreter-barred"]
    (closed / "sh").chmod(0o755)
    assert found(path) == []


@pytest.mark.parametrize(("mode", "who"), [(0o775, "its group"), (0o757, "everybody")])
def test_what_others_may_write_to(script: Script, folder: Path, mode: int, who: str) -> None:
    path = script(mode=mode)
    (finding,) = examine(path).findings
    assert (finding.code, finding.about) == ("writable", str(path))
    assert finding.seen.startswith(who)
    subprocess.run(finding.commands[0], shell=True, check=True)
    assert codes(path) == []
    folder.chmod(0o775)
    assert [each.about for each in examine(path).findings] == [str(folder)]


# Python, looked at and not executed.


def test_looking_executes_nothing(script: Script, folder: Path) -> None:
    (folder / "helper.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    path = script(HELLO + f"import helper\nopen({str(folder / 'ran')!r}, 'w')\n")
    assert codes(path) == []
    assert not (folder / "ran").exists()
    assert not (folder / "__pycache__").exists()


@pytest.mark.parametrize("name", ["linecache", "stringprep"])
def test_no_module_beside_the_script_is_executed(script: Script, folder: Path, name: str) -> None:
    ran = folder / "ran"
    folder.chmod(0o777)
    (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\n")
    # Python imports linecache to tell a warning, and stringprep for this encoding.
    (folder / "warned.py").write_text("assert (1, 'x')\n")
    (folder / "encoded.py").write_text("# coding: idna\nx = 1\n")
    report = examine(script(HELLO + "import warned\nimport encoded\n"))
    assert any(each.startswith("syntax") for each in report.checked)
    assert not ran.exists()


def test_an_interpreter_that_others_can_change_is_not_run(script: Script, folder: Path) -> None:
    ran = folder / "ran"
    python = folder / "python3"
    python.write_text(f"#!/bin/sh\ntouch {ran}\n")
    python.chmod(0o755)
    folder.chmod(0o777)
    report = examine(script(f"#!{python}\nprint()\n"))
    assert f"{python} was not run" in report.notes[0]
    assert not ran.exists()


def test_a_link_to_an_interpreter_is_as_good_as_its_folder(folder: Path) -> None:
    (folder / "python3").symlink_to("/bin/sh")
    assert files.changeable("/bin/sh") == ""
    assert files.changeable(str(folder / "python3")) == str(folder.parent)
    # The folder above a link is that above its target, and not the one in which the link is.
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "a" / "b" / "c")
    up = "/".join([".."] * len(folder.parts))
    assert os.path.abspath(f"{folder}/link/{up}/bin/sh") == "/bin/sh"
    assert files.changeable(f"{folder}/link/{up}/bin/sh") == str(folder.parent)
    assert files.changeable(str(folder), sticky=True) == ""
    assert files.changeable(str(folder.parent), sticky=True) == str(folder.parent)


@pytest.mark.skipif(not IS_ROOT, reason="it becomes another user")
def test_a_group_that_is_a_users_own_counts_as_the_user(folder: Path) -> None:
    user = pwd.getpwnam("www-data")  # whose group has the same name and no members
    for name in ("own", "shared", "listed"):
        path = folder / name
        path.mkdir()
        path.chmod(0o775)  # as a umask of 002 makes them
        os.chown(path, user.pw_uid, 12345 if name == "shared" else user.pw_gid)
    # Somebody else may write, whom the group's bits of the mode stand for.
    entries = ((1, 7, -1), (2, 7, 999), (4, 7, -1), (16, 7, -1), (32, 5, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *each) for each in entries)
    os.setxattr(folder / "listed", "system.posix_acl_access", acl)
    os.seteuid(user.pw_uid)
    try:
        assert files.changeable(str(folder / "own"), sticky=True) == ""
        for name in ("shared", "listed"):
            assert files.changeable(str(folder / name), sticky=True) == str(folder / name)
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not IS_ROOT, reason="it becomes another user")
def test_a_group_that_another_user_has_as_his_own_counts_as_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = pwd.getpwnam("www-data")
    os.chown(folder, user.pw_uid, user.pw_gid)
    folder.chmod(0o775)
    # Whom passwd alone puts into the group; /etc/group lists no member.
    known = pwd.getpwall()
    deploy = pwd.struct_passwd(("deploy", "x", 54321, user.pw_gid, "", "/", "/bin/sh"))
    os.seteuid(user.pw_uid)
    try:
        assert files.changeable(str(folder), sticky=True) == ""
        monkeypatch.setattr(pwd, "getpwall", lambda: [*known, deploy])
        assert files.changeable(str(folder), sticky=True) == str(folder)
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not IS_ROOT, reason="others look with their own rights")
def test_root_looks_with_the_rights_of_the_web_server_or_not_at_all(
    script: Script, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = examine(script(HELLO + "import no_such_module_here\n"), user="root")
    assert report.findings == []
    assert "with the rights of the web server's user alone" in report.notes[0]
    monkeypatch.setattr(source, "_LOOK", f"open({str(folder / 'ran')!r}, 'w')")
    report = examine(script())
    assert "did not do it as the user nobody" in report.notes[0]
    assert not (folder / "ran").exists()


def test_a_syntax_error(script: Script) -> None:
    (finding,) = examine(script(f"#!{PYTHON}\nimport sys\nif sys\n")).findings
    assert finding.code == "syntax-error"
    assert finding.seen.startswith("line 3 of ")


def test_a_script_for_python_2_is_told_apart(script: Script) -> None:
    (finding,) = examine(script(f"#!{PYTHON}\nprint 'Content-Type: text/plain'\n")).findings
    assert finding.code == "syntax-error"
    assert "Python 2" in finding.why
    (finding,) = examine(script(HELLO + "import urllib2\n")).findings
    assert "Python 2" in finding.why


def test_a_module_that_is_not_there(script: Script) -> None:
    (finding,) = examine(script(HELLO + "import os.path, no_such_module_here.sub\n")).findings
    assert finding.code == "module-missing"
    assert "line 5" in finding.seen
    assert "imports no_such_module_here," in finding.seen


@pytest.mark.parametrize(
    "text",
    [
        "import helper\n",
        "from helper import anything\n",
        "try:\n    import no_such_module_here\nexcept ImportError:\n    pass\n",
        "def later():\n    import no_such_module_here\n",
        "if sys.version_info < (3,):\n    import no_such_module_here\n",
    ],
)
def test_modules_that_are_there_or_not_needed(script: Script, folder: Path, text: str) -> None:
    (folder / "helper.py").write_text("")
    assert codes(script(HELLO + text)) == []


def test_the_script_s_own_modules_are_looked_at_and_libraries_are_not(
    script: Script, folder: Path
) -> None:
    (folder / "one.py").write_text("import two\nimport one\nimport os\n")
    (folder / "two.py").write_text("import no_such_module_here\n")
    (finding,) = examine(script(HELLO + "import one\n")).findings
    assert finding.code == "module-missing"
    assert f"line 1 of {folder}/two.py imports no_such_module_here" in finding.seen
    (folder / "two.py").write_text("x = = 1\n")
    (finding,) = examine(script(HELLO + "import one\n")).findings
    assert (finding.code, finding.about) == ("syntax-error", str(folder / "two.py"))


def test_what_the_script_itself_puts_on_the_path_is_searched(script: Script, folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "mine.py").write_text("")
    change = f"import sys\nsys.path.insert(0, {str(folder / 'lib')!r})\nimport mine\n"
    assert codes(script(HELLO + change)) == []
    unknown = (
        HELLO + "import sys, os\nsys.path.append(os.environ['LIB'])\nimport no_such_module_here\n"
    )
    report = examine(script(unknown))
    assert report.findings == []
    assert "sys.path" in report.notes[0]


def test_an_import_with_a_dot(script: Script) -> None:
    assert codes(script(HELLO + "from . import helper\n")) == ["relative-import"]


def _newer_python(folder: Path) -> Path:
    """An interpreter without cgi: a real one of 3.13 or newer, or ours that says it is."""
    for minor in range(13, 20):
        real = shutil.which(f"python3.{minor}", path=SERVERS_PATH)
        if real:
            return Path(real)
    program = folder / "python3.13"
    hide = "import sys; sys.version_info = (3, 13, 0, 'final', 0); "
    hide += "import importlib.machinery as m; find = m.PathFinder.find_spec; "
    hide += "m.PathFinder.find_spec = lambda n, *at: None if n == 'cgi' else find(n, *at); "
    # $3 is the program that is passed with -c.
    program.write_text(
        f'#!/bin/sh\nprogram=$4; exec {PYTHON} $1 $2 $3 "{hide}exec(sys.argv.pop(1))"'
        ' "$program" "$5"\n'
    )
    program.chmod(0o755)
    return program


def test_the_module_cgi_is_gone_in_newer_pythons(
    script: Script, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The stand-in lies below /tmp, where no interpreter is run otherwise.
    monkeypatch.setattr(files, "changeable", lambda *_: "")
    python = _newer_python(folder)
    (finding,) = examine(script(f"#!{python}\nimport cgi\n")).findings
    assert finding.code == "legacy-cgi"
    assert finding.commands == (f"{python} -m pip install legacy-cgi",)


@pytest.mark.skipif(
    subprocess.run([PYTHON, "-c", "import imp"], capture_output=True, check=False).returncode == 0,
    reason="imp is still there",
)
def test_a_module_that_is_gone_is_told_apart(script: Script) -> None:
    (finding,) = examine(script(HELLO + "import imp\n")).findings
    assert "Python 3.12" in finding.why


def test_an_application_needs_neither_mode_nor_shebang(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is looked at by the interpreter that runs doctor, which may be closed to others than root.
    monkeypatch.setattr(sys, "executable", PYTHON)
    text = "def application(environ, start_response):\n    return []\n"
    for name in ("app.wsgi", "app.py"):
        report = examine(script(text, name=name, mode=0o644))
        assert report.findings == []
        assert report.kind == "application"
    assert examine(f"{script(text, name='app.py', mode=0o644)}:application").findings == []
    assert codes(script("import no_such_module_here\n", name="a.wsgi", mode=0o644)) == [
        "module-missing"
    ]
    assert found(script(text, name="app.wsgi", mode=0o600)) == ["unreadable"]


# What it prints.


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("print('<html>')", "output-before-headers"),
        ("print('debug: here I am now')\nx()", ""),
        ("print('starting up')\nx()", "output-before-headers"),
        ("print('Content-Type: text/html')\nprint('<html>')", "no-blank-line"),
        ("print('Content-Type: text/html')", "no-blank-line"),
        ("print()\nprint('<html>')", "no-header"),
        (
            "import sys\nsys.stdout.write('Content-Type: text/html\\n<p>')\nprint('x')",
            "no-blank-line",
        ),
        ("print('Content-Type: text/html\\n')\nprint('<html>')", ""),
        ("print('Content-Type: text/html', end='\\r\\n\\r\\n')\nprint('<html>')", ""),
        ("print('Content-Type: text/html')\nfinish()", ""),
        ("def finish():\n    print('x')\nprint('A: b')\nprint()\nfinish()", ""),
    ],
)
def test_heads_that_are_wrong_in_the_source(script: Script, body: str, code: str) -> None:
    assert codes(script(f"#!{PYTHON}\n'''doc'''\nx = 1\n{body}\n")) == ([code] if code else [])


def _sh(text: str) -> str:
    return f"#!/bin/sh\n{text}\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (_sh("echo '<html>'"), "output-before-headers"),
        (_sh("echo 'Content-Type: text/html'"), "no-blank-line"),
        (_sh("echo 'Content-Type: text/html'; echo '<html>'"), "no-blank-line"),
        (_sh("echo; echo hello"), "no-header"),
        (_sh("echo 'X-One: 1'; echo"), "no-content-type"),
        (_sh("echo 'Content-Type: text/html'; echo 'Status: abc'; echo"), "bad-head"),
        (_sh("echo 'HTTP/1.1 200 OK'; echo"), "http-line"),
        (_sh("exit 0"), "no-output"),
        (_sh("echo oh no >&2; exit 3"), "run-failed"),
        (_sh("printf 'Status: 200 OK\\n\\n'; kill -TERM $$"), "run-failed"),
        (_sh("printf 'Location: /there\\n\\n'"), ""),
        (_sh("printf 'Status: 200 OK\\r\\n\\r\\nhello'"), ""),
    ],
)
def test_heads_that_are_wrong_in_a_run(script: Script, text: str, code: str) -> None:
    path = script(text)
    assert codes(path) == []
    assert codes(path, run=True) == ([code] if code else [])


def test_the_last_line_of_the_error_output_is_told(script: Script) -> None:
    (finding,) = examine(script(_sh("echo first >&2; echo oh no >&2; exit 3")), run=True).findings
    assert finding.seen.endswith("exit status 3: oh no")


def test_an_nph_script_writes_the_http_head(script: Script) -> None:
    text = _sh("printf 'HTTP/1.1 200 OK\\r\\n\\r\\n'")
    assert codes(script(text, name="nph-a.cgi"), run=True) == []
    assert codes(script(name="nph-b.cgi"), run=True) == ["http-line"]
    text = f"#!{PYTHON}\nprint('HTTP/1.1 200 OK\\n')\nprint('hello')\n"
    assert codes(script(text, name="nph-c.cgi"), run=True) == []


def test_a_script_that_never_ends_is_killed_with_all_it_started(
    script: Script, folder: Path
) -> None:
    path = script(_sh(f"sleep 300 & echo $! > {folder}/pid; wait"))
    assert codes(path, user=ME, run=True, timeout=0.5) == ["runs-too-long"]
    child = int((folder / "pid").read_text())
    eventually(lambda: not is_running(child), "it is gone, or a zombie that waits for init")


def test_no_group_is_killed_whose_leader_was_waited_for(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    def killpg(group: int, number: int) -> None:
        # It is our child still, ended or not, so that no other process has its number.
        waited.append(os.waitid(os.P_PID, group, os.WEXITED | os.WNOWAIT))

    monkeypatch.setattr(os, "killpg", killpg)
    assert codes(script(), run=True) == []
    assert len(waited) == 1


def test_the_user_that_it_ran_as_is_named(script: Script, powerless: None) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    with conftest.as_owner():
        path = script("#!/bin/sh\nprintf 'Status: 200\\n\\n'\n")
    report = examine(path, user="root", run=True)
    assert f"one run as CGI, as {me}" in report.checked


def test_a_script_that_is_run_sees_a_clean_environment(
    script: Script, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    path = script(
        _sh(f"env > {folder}/env; pwd >> {folder}/env; printf 'A: b\\nStatus: 200\\n\\n'")
    )
    assert codes(path, user=ME, run=True) == []
    seen = (folder / "env").read_text()
    assert "SECRET" not in seen
    assert "GATEWAY_INTERFACE=CGI/1.1" in seen
    assert seen.endswith(f"{folder}\n")


def test_a_script_that_starts_nothing_is_not_run(script: Script) -> None:
    report = examine(script(mode=0o644), run=True)
    assert [each.code for each in report.findings] == ["not-executable"]
    assert "was not run" in report.notes[0]


def test_starting_fails_for_a_reason_of_its_own(script: Script, folder: Path) -> None:
    # Nothing of what is looked at shows that this is no interpreter.
    fake = folder / "interpreter"
    fake.write_text("no program\n")
    fake.chmod(0o755)
    path = script(f"#!{fake}\n")
    assert codes(path) == []
    assert codes(path, run=True) == ["exec-failed"]


def test_a_fastcgi_program_is_not_run_as_cgi(script: Script) -> None:
    report = examine(script("#!/bin/sh\nexit 1\n", name="app.fcgi"), run=True)
    assert report.findings == []
    assert "FastCGI program" in report.notes[0]


@pytest.mark.skipif(not IS_ROOT, reason="only root can run it as somebody else")
def test_root_runs_a_script_with_the_rights_of_the_web_server(script: Script, folder: Path) -> None:
    path = script(
        _sh(f"printf 'Content-Type: text/plain\\n\\n'; id -u; id -u > {folder}/uid; true")
    )
    assert codes(path, user="nobody", run=True) == []
    assert not (folder / "uid").exists()
    assert codes(path, user=ME, run=True) == []
    assert (folder / "uid").read_text() == "0\n"


def test_a_user_that_does_not_exist(script: Script) -> None:
    with pytest.raises(ConfigurationError, match="--user"):
        doctor.examine(str(script()), user="no_such_user")
