"""Time, number, and the end of scripts that do not end by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateways.cgihost import CGIApplication, complaints, process, run
from gateways.errors import ApplicationError
from tests.cgihost.calling import (
    PYTHON,
    SHELL,
    begin,
    call,
    eventually,
    is_running,
    write,
    written_pid,
)

HEAD = "printf 'Content-Type: a/b\\n\\n'\n"


@pytest.fixture(params=["pidfd", "portable"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to learn of an exit: Linux's descriptor, and without it."""
    if request.param == "portable":
        monkeypatch.setattr(process, "_pidfd", lambda pid: -1)
    return str(request.param)


def test_a_silent_script_is_504_and_ended(tmp_path: Path, way: str) -> None:
    write(tmp_path, "script", f"{SHELL}exec sleep 1000\n")
    answer = call(CGIApplication(tmp_path, idle_limit=0.2), "/script")
    assert answer.code == 504
    assert "idle_limit" in answer.log
    eventually(lambda: not process._running, "the script is ended")


def test_a_script_that_never_ends_is_ended(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}echo $$ >pid\n{HEAD}exec yes\n")
    answer = begin(CGIApplication(tmp_path, time_limit=2), "/script")
    with pytest.raises(ApplicationError, match="time_limit"):
        for _ in answer.result:
            pass
    answer.result.close()
    pid = written_pid(tmp_path / "pid")
    eventually(lambda: not is_running(pid), "the script is ended")


@pytest.mark.parametrize("limit", ["time_limit", "idle_limit"])
def test_limits_may_be_months(tmp_path: Path, limit: str) -> None:
    write(tmp_path, "script", f"{SHELL}{HEAD}echo x\nsleep 0.1\necho y\n")
    months: Any = {"time_limit": 0, "idle_limit": 0, limit: 1e7}
    assert call(CGIApplication(tmp_path, **months), "/script").body == b"x\ny\n"


def test_one_that_closes_its_output_without_an_answer_is_ended(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}echo $$ >pid\nexec >&-\nexec sleep 1000\n")
    assert call(CGIApplication(tmp_path), "/script").code == 502
    pid = written_pid(tmp_path / "pid")
    eventually(lambda: not is_running(pid), "the script is ended")


def test_error_output_alone_is_idle(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}yes >&2\ntrue\n")
    assert call(CGIApplication(tmp_path, idle_limit=0.2), "/script").code == 504


def test_what_it_has_started_is_ended_with_it(tmp_path: Path, way: str) -> None:
    text = f"{SHELL}sleep 1000 &\necho $! >child\n{HEAD}echo x\nwait\n"
    write(tmp_path, "script", text)
    answer = begin(CGIApplication(tmp_path), "/script")
    assert next(answer.result) == b"x\n"
    child = written_pid(tmp_path / "child")
    answer.result.close()
    eventually(lambda: not is_running(child), "the group is ended")


@pytest.mark.parametrize("who", ["script", "child"])
def test_whoever_ignores_SIGTERM_is_killed(tmp_path: Path, way: str, who: str) -> None:
    deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('Content-Type: a/b\\n', flush=True)\nprint('x', flush=True)\ntime.sleep(1000)\n"
    write(tmp_path, "deaf", PYTHON + deaf)
    start = "exec ./deaf\n" if who == "script" else "./deaf & \nwait\n"
    write(tmp_path, "script", f"{SHELL}echo $$ >pid\n{start}")
    app = CGIApplication(tmp_path, grace=0.2, max_running=1)
    answer = begin(app, "/script")
    assert next(answer.result) == b"x\n"
    group = written_pid(tmp_path / "pid")
    answer.result.close()

    def is_gone() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return not any(is_running(pid) for pid in members(group))

    eventually(is_gone, "the whole group is gone")
    eventually(lambda: app._places.acquire(blocking=False), "its place is free")


def members(group: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group:
            found.append(int(path.parent.name))
    return found


def test_a_script_may_end_itself_on_SIGTERM(tmp_path: Path) -> None:
    text = f"{SHELL}trap 'echo cleaned >cleaned; exit' TERM\n{HEAD}echo x\n"
    write(tmp_path, "script", text + "while :; do sleep 0.01; done\n")
    answer = begin(CGIApplication(tmp_path, grace=8), "/script")
    assert next(answer.result) == b"x\n"
    answer.result.close()
    eventually((tmp_path / "cleaned").exists, "it has cleaned up")


def test_one_that_closes_its_output_may_live_on(tmp_path: Path, way: str) -> None:
    os.mkfifo(tmp_path / "go")
    text = f"{SHELL}{HEAD}echo whole\nexec >&-\ncat go >/dev/null\necho later >&2\ntouch done\n"
    write(tmp_path, "script", text)
    app = CGIApplication(tmp_path, max_running=1)
    answer = call(app, "/script")
    assert answer.body == b"whole\n"
    assert call(app, "/script").code == 503  # it keeps its place
    with (tmp_path / "go").open("w"):
        pass
    eventually((tmp_path / "done").exists, "it has done its work")
    eventually(lambda: "script: later" in answer.log, "what it complains of later is logged")
    eventually(lambda: app._places.acquire(blocking=False), "its place is free")


def test_but_not_for_ever(tmp_path: Path, way: str) -> None:
    write(tmp_path, "script", f"{SHELL}echo $$ >pid\n{HEAD}exec >&- 2>&-\nexec sleep 1000\n")
    assert call(CGIApplication(tmp_path, time_limit=2), "/script").code == 200
    pid = written_pid(tmp_path / "pid")
    eventually(lambda: not is_running(pid), "the script is ended")


def test_a_grandchild_that_keeps_the_output_open_delays_nobody(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ORPHAN_SECONDS", 0.1)
    write(tmp_path, "script", f"{SHELL}{HEAD}echo whole\nsleep 1000 &\necho $! >pid\n")
    answer = call(CGIApplication(tmp_path), "/script")
    pid = written_pid(tmp_path / "pid")
    try:
        assert answer.body == b"whole\n"
        assert "keeps its output open" in answer.log
        # It was left running on purpose, as old scripts do with their long work.
        assert is_running(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_grandchild_that_goes_on_writing_is_heard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(tmp_path, "script", f"{SHELL}{HEAD}echo one\n(cat go; echo two) &\n")
    answer = begin(CGIApplication(tmp_path), "/script")
    assert next(answer.result) == b"one\n"
    with (tmp_path / "go").open("w"):
        pass
    assert next(answer.result) == b"two\n"
    assert list(answer.result) == []
    answer.result.close()


def test_at_the_limit_the_answer_is_503(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}{HEAD}echo x\ncat go >/dev/null\n")
    os.mkfifo(tmp_path / "go")
    app = CGIApplication(tmp_path, max_running=2)
    running = [begin(app, "/script"), begin(app, "/script")]
    for each in running:
        assert next(each.result) == b"x\n"
    refused = call(app, "/script")
    assert refused.code == 503
    assert refused.header("Retry-After") == "1"
    assert "max_running" in refused.log
    for each in running:
        each.result.close()
    eventually(lambda: app._places.acquire(blocking=False), "a place is free")


def test_a_local_redirect_takes_one_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    away = "printf 'Location: /ok\\n\\n'\nexec >&-\ncat go >/dev/null\n"
    write(tmp_path, "away", f"{SHELL}{away}")
    write(tmp_path, "ok", f"{SHELL}{HEAD}echo ok\n")
    app = CGIApplication(tmp_path, max_running=1)
    assert call(app, "/away").body == b"ok\n"
    assert call(app, "/ok").code == 503  # while the first one works on
    with (tmp_path / "go").open("w"):
        pass
    eventually(lambda: call(app, "/ok").code == 200, "the place is free")
    eventually(lambda: app._places.acquire(blocking=False), "it is free again")
    assert not app._places.acquire(blocking=False)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_many_answers_leave_nothing_behind(tmp_path: Path) -> None:
    # CVE-2022-41556 was a leak of places, one for each peer that had half gone.
    write(tmp_path, "quick", f"{SHELL}{HEAD}echo x\n")
    write(tmp_path, "slow", f"{SHELL}{HEAD}echo x\nexec sleep 1000\n")
    app = CGIApplication(tmp_path, max_running=1)
    call(app, "/quick")  # its lifeline is kept for the next
    before = descriptors()
    for number in range(60):
        if number % 2:
            assert call(app, "/quick").body == b"x\n"
        else:
            answer = begin(app, "/slow")
            if number % 4:
                next(answer.result)
            answer.result.close()
        eventually(lambda: not process._running, "the script is gone")
    eventually(lambda: descriptors() == before, "all descriptors are closed")
    eventually(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("cgi ")],
        "all threads have ended",
    )


def test_many_at_once_are_not_mixed_up(tmp_path: Path) -> None:
    write(
        tmp_path, "script", f"{SHELL}{HEAD}echo $QUERY_STRING\necho $QUERY_STRING >&2\nexec cat\n"
    )
    app = CGIApplication(tmp_path)

    def ask(number: int) -> bool:
        body = b"%d" % number * 50_000
        answer = call(app, f"/script?{number}", body=body)
        return answer.body == b"%d\n%b" % (number, body) and answer.log.endswith(f": {number}\n")

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(64)))


# Error output.


def test_error_output_is_logged_by_the_line_with_the_reference(tmp_path: Path) -> None:
    text = "printf 'one\\ntw' >&2\nprintf 'o\\r\\n\\033[31mred' >&2\n"
    write(tmp_path, "script", f"{SHELL}{text}{HEAD}")
    log = call(CGIApplication(tmp_path), "/script").log
    reference = log.split()[1]
    assert log.splitlines() == [
        f"cgi {reference} script: one",
        f"cgi {reference} script: two",
        f"cgi {reference} script: \\x1b[31mred",
    ]


def test_lines_are_whole_however_they_are_cut() -> None:
    # CVE-2024-9026: log lines were altered at a read boundary.
    text = b"first line\nsecond\n\nlast"
    for cut in range(len(text) + 1):
        lines: list[str] = []
        taken = complaints.Complaints(lines.append)
        taken.feed(text[:cut])
        taken.feed(text[cut:])
        taken.end()
        assert lines == ["first line", "second", "", "last"]


def test_error_output_is_bounded(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}head -c 5000000 /dev/zero | tr '\\0' x >&2\n{HEAD}echo ok\n")
    answer = call(CGIApplication(tmp_path), "/script")
    assert answer.body == b"ok\n"
    assert len(answer.log) < 2 * complaints.MAX_BYTES
    assert "the rest of its error output is dropped" in answer.log


def test_many_complaints_do_not_block_the_answer(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}{HEAD}seq 20000 >&2\nseq 20000\nseq 20000 >&2\n")
    answer = call(CGIApplication(tmp_path), "/script")
    assert answer.body.endswith(b"\n20000\n")


# The end of the server.

_LEAVE = """
import sys
from gateways.cgihost import CGIApplication
from gateways.server.log import leave
from tests.cgihost.calling import begin
answer = begin(CGIApplication(sys.argv[1]), "/script")
next(answer.result)
leave(0)
"""


def test_a_server_that_leaves_ends_its_scripts(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}echo $$ >pid\n{HEAD}echo x\nexec sleep 1000\n")
    subprocess.run([sys.executable, "-c", _LEAVE, str(tmp_path)], check=True, timeout=30)
    pid = written_pid(tmp_path / "pid")
    eventually(lambda: not is_running(pid), "the script is ended")


_KILLED = """
import os, signal, sys
from gateways.cgihost import CGIApplication
from tests.cgihost.calling import begin
answer = begin(CGIApplication(sys.argv[1]), "/script")
next(answer.result)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has F_SETSIG")
def test_a_server_that_is_killed_leaves_no_script(tmp_path: Path) -> None:
    # Deaf to all that can be ignored, and with a process of its own.
    deaf = f"{SHELL}trap '' HUP TERM IO PIPE\nsleep 1000 &\necho $! >child\necho $$ >pid\n"
    write(tmp_path, "script", f"{deaf}{HEAD}echo x\nsleep 1000\nsleep 1000\n")
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False, timeout=30)
    for name in ("pid", "child"):
        pid = written_pid(tmp_path / name)
        eventually(lambda pid=pid: not is_running(pid), "it is ended")  # type: ignore[misc]  # mypy does not see that it is called without arguments


def test_what_an_ended_script_has_left_running_outlives_the_server(tmp_path: Path) -> None:
    text = f"{SHELL}sleep 1000 >&- 2>&- &\necho $! >child\n{HEAD}echo x\n"
    write(tmp_path, "script", text)
    program = _KILLED.replace("next(answer.result)", "''.join(map(str, answer.result))")
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    child = written_pid(tmp_path / "child")
    assert is_running(child)
    os.kill(child, signal.SIGKILL)


def test_a_start_response_that_raises_costs_no_place(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}echo Content-Type: text/plain; echo; sleep 30\n")
    app = CGIApplication(tmp_path, max_running=1, grace=0.2)

    def refuse(*told: object) -> Any:
        raise ValueError("it likes no head")

    for _ in range(3):
        with pytest.raises(ValueError, match="likes no head"):
            begin(lambda environ, _: app(environ, refuse), "/script")
