"""The private crash log: what is in it, who may read it, and which files are refused."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateways import client
from gateways.server import crashlog
from gateways.server.crashlog import MAX_BYTES, record
from tests.server.live import running

ROOT = Path(__file__).parents[2]

SOURCE = """
import os

def application(environ, start_response):
    os.chdir("/")
    given = "a value"
    raise RuntimeError("it is broken\\nerror 00000000 at no time")
"""

CGI = {
    "REQUEST_METHOD": "GET",
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SCRIPT_NAME": "/app",
    "PATH_INFO": "/here",
    "QUERY_STRING": "",
    "REQUEST_URI": "/app/here?a=b",
    "REMOTE_ADDR": "192.0.2.7",
    "HTTP_COOKIE": "geheim",
    "DB_PASSWORD": "geheim",
}


def fault(text: str = "it is broken") -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def entries(text: str) -> list[str]:
    return re.findall(r"(?m)^error ([0-9a-f]{8}) at ", text)


def run_cgi(folder: Path, log: str, source: str = SOURCE, **more: str) -> tuple[str, str]:
    (folder / "app.py").write_text(source)
    result = subprocess.run(
        [sys.executable, "-m", "gateways", "cgi", "--crash-log", log, "app.py"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **CGI, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.stdout, result.stderr


def test_a_CGI_fault_has_its_entry(tmp_path: Path) -> None:
    # The path is from the folder that the program starts in, wherever the application goes.
    out, _ = run_cgi(tmp_path, "crash.log")
    reference = out.split()[-1]
    log = tmp_path / "crash.log"
    text = log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert entries(text) == [reference]  # nothing in a message looks like another entry
    assert "GET /app/here?a=b HTTP/1.1, from 192.0.2.7" in text
    assert 'raise RuntimeError("it is broken' in text
    assert "RuntimeError: it is broken" in text
    assert "SCRIPT_NAME = '/app'" in text
    assert "geheim" not in text
    assert "HTTP_COOKIE" in text
    # The visitor gets the reference and nothing else.
    assert out.endswith(f"\n\nThe application failed. Reference: {reference}\n")


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_a_daemons_faults_have_their_entries(
    short_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        raise RuntimeError("it is broken")

    monkeypatch.chdir(short_path)
    where = short_path / "s"
    references = []
    with running(application, where, protocol=protocol, crash_log="crash.log"):
        monkeypatch.chdir("/")
        for _ in range(3):
            with client.request(f"{protocol}+unix:{where}", "/here") as answer:
                references.append(answer.read().decode().split()[-1])
    text = (short_path / "crash.log").read_text()
    assert entries(text) == references
    assert text.count("RuntimeError: it is broken") == 3


def test_an_application_that_cannot_be_loaded_has_an_entry(tmp_path: Path) -> None:
    out, _ = run_cgi(tmp_path, "crash.log", "import no_such_module\n")
    text = (tmp_path / "crash.log").read_text()
    assert entries(text) == [out.split()[-1]]
    assert "No module named 'no_such_module'" in text


def test_a_relative_path_is_meant_from_where_the_process_was_started(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    out, _ = run_cgi(tmp_path, "crash.log", "import os\nos.chdir('elsewhere')\n" + SOURCE)
    assert entries((tmp_path / "crash.log").read_text()) == [out.split()[-1]]


def test_a_process_of_a_web_servers_tells_why_its_application_cannot_be_loaded(
    short_path: Path,
) -> None:
    (short_path / "app.py").write_text("import no_such_module\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "s"))
        listener.listen()
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); import gateways;"
            "gateways.run('app.py', crash_log='crash.log')"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=short_path,
            stdin=listener.fileno(),
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
        )
    try:
        references = []
        for _ in range(3):
            with client.request(f"fcgi+unix:{short_path / 's'}", "/here") as answer:
                assert answer.status == 500
                references.append(answer.read().decode().split()[-1])
    finally:
        process.terminate()
        process.communicate(timeout=30)
    text = (short_path / "crash.log").read_text()
    assert entries(text) == references
    parts = text.split("error ")[1:]
    assert len({part.count("\n") for part in parts}) == 1  # the traceback does not grow
    assert "No module named 'no_such_module'" in text


def test_a_request_without_a_fault_makes_no_file(tmp_path: Path) -> None:
    source = "def app(environ, start):\n    start('200 OK', [])\n    return [b'fine']\n"
    out, _ = run_cgi(tmp_path, "crash.log", source)
    assert out.endswith("fine")
    assert not (tmp_path / "crash.log").exists()


# What is refused.


def symlink(path: Path) -> None:
    path.symlink_to(path.parent / "elsewhere")


def symlink_to_a_file(path: Path) -> None:
    (path.parent / "elsewhere").write_text("precious")
    symlink(path)


def hard_link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("precious")
    path.hardlink_to(path.parent / "elsewhere")


def folder(path: Path) -> None:
    path.mkdir()


def named_pipe(path: Path) -> None:
    os.mkfifo(path)


def open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


def group_folder(path: Path) -> None:
    os.chown(path.parent, -1, 12345)
    path.parent.chmod(0o770)


def below_an_open_folder(path: Path) -> None:
    path.parent.parent.chmod(0o777)


def below_anothers_folder(path: Path) -> None:
    os.chown(path.parent.parent, 12345, -1)


def by_way_of_an_open_folder(path: Path) -> None:
    path.parent.rmdir()
    (path.parent.parent / "own").mkdir()
    (path.parent.parent / "open").mkdir()
    (path.parent.parent / "open").chmod(0o777)
    (path.parent.parent / "open" / "link").symlink_to("../own")
    path.parent.symlink_to("open/link")


def no_folder(path: Path) -> None:
    path.parent.rmdir()


def anothers_file(path: Path) -> None:
    path.write_text("precious")
    os.chown(path, 12345, -1)


def anothers_folder(path: Path) -> None:
    os.chown(path.parent, 12345, -1)


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (symlink, "symbolic link"),
        (symlink_to_a_file, "symbolic link"),
        (hard_link, "hard link"),
        (folder, "directory"),
        (named_pipe, "crash.log"),
        (open_folder, "may be changed by everybody"),
        (below_an_open_folder, "may be changed by everybody"),
        (by_way_of_an_open_folder, "may be changed by everybody"),
        (no_folder, "No such file"),
        pytest.param(group_folder, "may be changed by its group", marks=AS_ROOT),
        pytest.param(below_anothers_folder, "belongs to another user", marks=AS_ROOT),
        pytest.param(anothers_file, "belongs to another user", marks=AS_ROOT),
        pytest.param(anothers_folder, "belongs to another user", marks=AS_ROOT),
    ],
)
def test_a_file_that_is_not_ones_own_is_refused(tmp_path: Path, prepare: Any, told: str) -> None:
    log = tmp_path / "private" / "crash.log"
    log.parent.mkdir()
    prepare(log)
    out, err = run_cgi(tmp_path, str(log))
    assert "The application failed. Reference: " in out
    assert "is not in the crash log: " in err
    assert told in err
    elsewhere = log.parent / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_text() == "precious"


@pytest.mark.parametrize("name", ["DOCUMENT_ROOT", "CONTEXT_DOCUMENT_ROOT"])
def test_below_the_document_root_it_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "public_html"
    (root / "app").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    for log in (root / "crash.log", root / "app" / "crash.log", tmp_path / "link" / "crash.log"):
        _, err = run_cgi(tmp_path, str(log), **{"DOCUMENT_ROOT": "/var/empty", name: str(root)})
        assert f"server's {name}, {root}" in err
        assert not log.exists()
    beside = tmp_path / "public_html.log"
    run_cgi(tmp_path, str(beside), **{name: f"{root}/"})
    assert beside.exists()


def test_a_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    log = tmp_path / "crash.log"
    log.write_text("")
    log.chmod(0o644)
    record(str(log), fault(), "12345678", {})
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_in_a_folder_such_as_tmp_it_is_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    record(str(tmp_path / "crash.log"), fault(), "12345678", {})
    assert entries((tmp_path / "crash.log").read_text()) == ["12345678"]


# How long it gets.


def test_an_entry_that_finds_no_room_leaves_nothing_of_itself(tmp_path: Path) -> None:
    log = tmp_path / "crash.log"
    record(str(log), fault(), "00000001", {})
    whole = log.read_text()
    # A limit on the size of files stands for the disk's.
    program = (
        "import resource, signal\nfrom gateways.server.crashlog import record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(whole) + 100},) * 2)\n"
        f"try: record({str(log)!r}, ValueError('x' * 1000), '00000002', {{}})\n"
        "except OSError: print('refused')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "refused\n", result.stderr
    assert log.read_text() == whole
    record(str(log), fault(), "00000003", {})
    assert entries(log.read_text()) == ["00000001", "00000003"]


def test_it_is_bounded_and_keeps_what_is_newest(tmp_path: Path) -> None:
    log = tmp_path / "crash.log"
    environ = {f"HTTP_X{number}": "x" * 1000 for number in range(500)}
    for number in range(60):
        record(str(log), fault("m" * 1_000_000), f"{number:08x}", environ)
    before = tmp_path / "crash.log.1"
    assert sorted(tmp_path.iterdir()) == [log, before]
    assert log.stat().st_size <= MAX_BYTES
    assert before.stat().st_size <= MAX_BYTES
    kept = entries(before.read_text() + log.read_text())
    assert kept == [f"{number:08x}" for number in range(60 - len(kept), 60)]
    assert len(kept) >= 8
    assert stat.S_IMODE(before.stat().st_mode) == 0o600


def test_where_the_old_one_cannot_be_put_away_it_does_not_grow(tmp_path: Path) -> None:
    log = tmp_path / "crash.log"
    log.write_bytes(b"x" * MAX_BYTES)
    (tmp_path / "crash.log.1" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match=r"crash\.log"):
        record(str(log), fault(), "12345678", {})
    assert log.stat().st_size == MAX_BYTES


def test_many_processes_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom gateways.server.crashlog import record\n"
        "for n in range(40):\n"
        "    try: 1 / 0\n"
        "    except Exception as error:\n"
        f"        record({str(tmp_path / 'crash.log')!r}, error, sys.argv[1] + f'{{n:06x}}',"
        " {'HTTP_X%d' % n: 'x' * 400 for n in range(20)})\n"
    )

    def run(number: int) -> int:
        command = [sys.executable, "-c", program, f"{number:02x}"]
        return subprocess.run(command, cwd=ROOT, timeout=60).returncode

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [0] * 4
    text = "".join(path.read_text() for path in sorted(tmp_path.iterdir(), reverse=True))
    expected = {f"{process:02x}{number:06x}" for process in range(4) for number in range(40)}
    assert len(text) > MAX_BYTES  # so one of them has put the file away
    assert set(entries(text)) == expected
    assert text.count("ZeroDivisionError") == len(expected)


def test_one_that_keeps_it_locked_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(crashlog, "LOCK_SECONDS", 0.05)
    log = tmp_path / "crash.log"
    record(str(log), fault(), "00000001", {})
    with log.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        record(str(log), fault(), "00000002", {})
    assert entries(log.read_text()) == ["00000001", "00000002"]


def test_hostile_values_are_survived(tmp_path: Path) -> None:
    class Raising:
        def __repr__(self) -> str:
            raise SystemExit

        __str__ = __repr__

    environ: dict[Any, Any] = {
        "REQUEST_METHOD": "GET\nerror 00000000 at",
        "REQUEST_URI": "/\x1b[2J\ud800" + "x" * 100_000,
        "DOCUMENT_ROOT": "/\u20ac/\udc80",
        Raising: Raising(),
    }
    record(str(tmp_path / "crash.log"), fault("\ud800\x1b[2J\nerror 00000000 at"), "1" * 8, environ)
    text = (tmp_path / "crash.log").read_text()
    assert entries(text) == ["1" * 8]
    assert "\x1b" not in text
    assert len(text) < 10_000
