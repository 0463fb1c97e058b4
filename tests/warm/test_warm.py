"""What a visitor of a warm CGI file meets, whichever stub it is."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways.warm import stub
from gateways.warm.writing import write_stub
from tests.cgihost.calling import PATIENCE, eventually
from tests.warm.sites import APPLICATION, Answer, Site, finish, site

KINDS = (
    "c",
    "python",
    "by hand",
    pytest.param("c, sanitized", marks=pytest.mark.load),  # it takes its time to compile
)

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, request.param) as made:
        yield made


def test_the_second_request_meets_the_same_process(place: Site) -> None:
    first, second = place.get(), place.get()
    assert first.warm
    assert second.warm
    assert first.pid == second.pid
    assert (first.code, first.errors, first.exit) == (200, "", 0)


def test_the_daemon_stands_alone(place: Site) -> None:
    pid = place.get().pid
    assert os.getsid(pid) != os.getsid(0)
    assert (
        sorted(os.readlink(f"/proc/{pid}/fd/{each}") for each in (1, 2))
        == [str(next(place.private.glob("*.log")))] * 2
    )
    assert stat.S_IMODE(place.private.stat().st_mode) == 0o700


def test_fifty_first_requests_start_one_daemon_and_all_are_answered(place: Site) -> None:
    running = [place.start("/", bool(n % 2), **_method(n)) for n in range(50)]
    answers: list[Answer] = []
    for n, process in enumerate(running):
        answers.append(finish(process, b"x" * 10 if n % 2 else None))
    assert [each.code for each in answers] == [200] * 50, [each.errors for each in answers]
    assert {(each.pid, each.warm) for each in answers} == {(answers[0].pid, True)}
    assert place.daemons() == {answers[0].pid}


def _method(number: int) -> dict[str, str]:
    return {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "10"} if number % 2 else {}


def test_killing_the_daemon_loses_nothing_but_the_POST_in_flight(place: Site) -> None:
    over = threading.Event()
    killed = 0

    def kill() -> None:
        nonlocal killed
        while not over.wait(0.03):
            for pid in place.daemons():
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
            for note in place.private.glob("*.note"):
                note.write_bytes(b"")  # as if each had lived long: the next is to be warm again

    place.get()
    killer = threading.Thread(target=kill)
    killer.start()
    answers: dict[str, Answer] = {}
    try:
        while killed < 5 or len(answers) < 48:
            start = len(answers)
            names = [str(each) for each in range(start, start + 6)]
            running = [
                place.start("/note", True, REQUEST_METHOD="POST", CONTENT_LENGTH=str(len(name)))
                if int(name) % 2
                else place.start()
                for name in names
            ]
            for name, process in zip(names, running, strict=True):
                answers[name] = finish(process, name.encode() if int(name) % 2 else None)
    finally:
        over.set()
        killer.join()
    noted = (place.folder / "noted").read_text().split()
    for name, answer in answers.items():
        if int(name) % 2 == 0:
            assert answer.code == 200
        elif answer.code == 200:
            assert noted.count(name) == 1
        else:
            assert answer.code == 502, (answer.head, answer.errors)
            assert "may or may not have acted" in answer.text
            assert noted.count(name) <= 1


@pytest.mark.load
def test_nothing_is_lost_when_the_daemon_ends_for_idleness(place: Site) -> None:
    place.make(idle=0.05)
    seen = set()
    for each in range(30):
        answer = place.get() if each % 2 else place.post(b"abc")
        assert answer.code == 200, answer.errors
        if answer.warm:
            seen.add(answer.pid)
        else:  # the machine let a stub wait for FIRST_WORD_SECONDS after it had connected
            assert "the daemon ended" in answer.errors
        time.sleep(0.02 * (each % 10))  # somewhere among them is the moment at which it ends
    assert len(seen) > 1
    eventually(lambda: not place.daemons(), "the last one ends")


def test_a_changed_file_is_served_soon(place: Site) -> None:
    assert place.get().warm
    place.write(APPLICATION.replace("else 'warm'", "else 'changed'"))
    eventually(lambda: "changed" in place.get().text, "the new application answers")


def test_a_broken_application_shows_its_fault_and_starts_few_daemons(place: Site) -> None:
    begun = time.monotonic()
    place.write("import nowhere_at_all\n")
    for _ in range(6):
        answer = place.get()
        assert answer.code == 500
        assert "nowhere_at_all" in answer.errors
        assert "answering as plain CGI" in answer.errors
    assert place.post(b"abc").code == 500
    (note,) = place.private.glob("*.note")
    starts = note.stat().st_size
    assert starts > 0
    # After the free ones a pause of 1, 2, 4, … seconds is due, which C counts in whole ones.
    pauses = [2**each - 1 for each in range(starts - stub.FREE_STARTS)]
    assert sum(pauses) <= time.monotonic() - begun
    place.write()
    answer = place.get()
    assert (answer.code, answer.warm) == (200, True)


def test_a_request_that_kills_the_daemon_is_answered_honestly(place: Site) -> None:
    with open(os.pidfd_open(place.get().pid), "rb") as daemon:
        answer = place.post(b"abc", "/exit")
        assert (answer.code, answer.exit) == (502, 1)
        assert "is not sent again" in answer.errors
        # The visitor heard of it from the kernel, which closes one file after the other: who comes
        # before it has closed the listening socket too is answered, but by plain CGI.
        assert place.get().code == 200
        assert select.select([daemon], [], [], PATIENCE)[0]  # its last thread is dead
    assert place.get().warm


def test_big_bodies_both_ways(place: Site) -> None:
    place.write(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [environ['wsgi.input'].read()]\n"
    )
    body = os.urandom(5_000_000)
    assert place.post(body).body == body
    assert place.post(body, HTTP_TRANSFER_ENCODING="chunked").body == body


def test_an_answer_streams_and_a_visitor_who_leaves_ends_it(place: Site) -> None:
    place.write(
        "import time\n"
        "class Endless:\n"
        "    def __iter__(self):\n"
        "        while True:\n"
        "            yield b'tick'\n"
        "            time.sleep(0.05)\n"
        "    def close(self):\n"
        "        open('closed', 'w').close()\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return Endless()\n"
    )
    process = place.start()
    assert process.stdout is not None
    seen = b""
    while seen.count(b"tick") < 2:
        seen += os.read(process.stdout.fileno(), 4096)
    process.terminate()  # what mod_cgid does
    process.wait()
    eventually((place.folder / "closed").exists, "close() is called")
    process.stdout.close()
    (place.folder / "closed").unlink()
    again = place.start()
    assert again.stdout is not None
    os.read(again.stdout.fileno(), 4096)
    again.stdout.close()  # others only close their end
    eventually((place.folder / "closed").exists, "close() is called")
    assert again.wait(20) == 1
    for each in (process, again):
        assert each.stderr is not None
        each.stderr.close()


def test_what_the_application_logs_goes_to_the_web_servers_log(place: Site) -> None:
    assert place.get("/log").errors == "a line for the log\n"
    failed = place.get("/fail")
    assert failed.code == 500
    assert "RuntimeError: planted" in failed.errors


def test_the_environ_is_that_of_plain_CGI(place: Site) -> None:
    sent = {
        "QUERY_STRING": "a=%20b",
        "HTTP_X": "\xe9",
        "HTTP_PROXY": "http://evil",
        "SOME": "thing",
    }
    warm = place.get("/environ", **sent).text
    place.private.chmod(0o755)
    plain = place.get("/environ", **sent)
    assert "must" in plain.errors
    assert warm == plain.text
    assert "HTTP_PROXY" not in warm
    assert "SOME='thing'" in warm


def test_of_the_first_visitor_nothing_stays_in_the_daemon(place: Site) -> None:
    place.make(keep=("DATABASE",))
    seen = place.get("/process", DATABASE="d", HTTP_COOKIE="secret", OIDC_CLAIM="me").text
    assert "DATABASE='d'" in seen
    assert not [name for name in ("secret", "OIDC", "REQUEST_METHOD") if name in seen]


def test_a_head_that_is_too_long_is_for_plain_CGI(place: Site) -> None:
    answer = place.get(HTTP_X="x" * 60000, HTTP_Y="y" * 60000, HTTP_Z="z" * 60000)
    assert (answer.code, answer.warm) == (200, False)


def test_a_CONTENT_LENGTH_that_is_none_is_refused(place: Site) -> None:
    assert place.get(REQUEST_METHOD="POST", CONTENT_LENGTH="-1").code == 400


# Somebody else on the same machine.


@as_root
@pytest.mark.parametrize("fault", ["owner", "mode", "symlink", "file"])
def test_a_planted_folder_is_not_used(place: Site, fault: str) -> None:
    if fault == "owner":
        place.private.mkdir(mode=0o700)
        os.chown(place.private, NOBODY, NOBODY)
    elif fault == "mode":
        place.private.mkdir()
        place.private.chmod(0o777)
    elif fault == "symlink":
        (place.folder / "elsewhere").mkdir(mode=0o700)
        place.private.symlink_to("elsewhere")
    else:
        place.private.write_bytes(b"")
    answer = place.get()
    assert (answer.code, answer.warm) == (200, False)
    assert "--runtime-dir" in answer.errors
    assert not place.daemons()


@as_root
def test_another_user_cannot_connect(place: Site) -> None:
    assert place.get().warm
    (path,) = [each for each in place.private.iterdir() if each.is_socket()]
    assert _ask_as_nobody(path) == "PermissionError"
    place.folder.chmod(0o755)
    place.private.chmod(0o755)  # whoever undoes that
    path.chmod(0o777)
    for each in path.parents:
        if each.stat().st_uid == 0 and str(each).startswith("/tmp/"):
            each.chmod(0o755)
    assert _ask_as_nobody(path) in ("b''", "ConnectionResetError", "BrokenPipeError")
    (log,) = place.private.glob("*.log")
    eventually(lambda: f"uid {NOBODY}" in log.read_text(), "the log tells")


def _ask_as_nobody(path: Path) -> str:
    program = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try:\n"
        f"    s.connect({str(path)!r}); s.send(b'x'); print(repr(s.recv(9)))\n"
        "except OSError as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program], capture_output=True, text=True, timeout=20
    )
    return done.stdout.strip()


@as_root
def test_a_socket_that_another_user_listens_on_is_not_talked_to(place: Site) -> None:
    assert place.get().warm
    (path,) = [each for each in place.private.iterdir() if each.is_socket()]
    place.close()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(path))
        pid = os.fork()
        if pid == 0:
            os.setuid(NOBODY)
            planted.listen(8)  # the kernel notes who calls this
            os._exit(0)
        os.waitpid(pid, 0)
        answer = place.get()
        assert (answer.code, answer.warm) == (200, False)
        assert "the daemon's socket is" in answer.errors


# A host that is not as others are.


def test_a_daemon_that_does_not_read_is_not_waited_for_by_what_may_be_asked_twice(
    place: Site,
) -> None:
    pid = place.get().pid
    place.make(unread=0.5)
    os.kill(pid, signal.SIGSTOP)
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = place.get(REQUEST_METHOD=method)
        assert answer.code == 200
        assert "does not come to read the request; answering as plain CGI" in answer.errors
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: place.get().warm, "it reads again")


def test_an_application_may_take_its_time_and_who_comes_meanwhile_is_answered(place: Site) -> None:
    place.make(threads=1)
    pid = place.get().pid
    place.make(threads=1, unread=0.2)
    slow = place.start("/gate")
    eventually((place.folder / "reached").exists, "the application has it")
    for _ in range(3):
        answer = place.get()  # for longer than the slow one has to be read
        assert (answer.code, answer.warm) == (200, False)
    (place.folder / "gate").touch()
    assert finish(slow).text == f"{pid} warm"


def test_a_folder_made_below_a_setgid_one_is_used(place: Site) -> None:
    place.folder.chmod(0o2755)
    assert place.get().warm
    assert stat.S_IMODE(place.private.stat().st_mode) == 0o2700


def test_a_script_folder_that_cannot_be_read_stays_the_applications_folder(place: Site) -> None:
    assert place.get().warm  # so that all is imported, and byte code written, that will be
    place.close()
    eventually(lambda: not place.daemons(), "it is gone")
    if os.geteuid() == 0:
        place.before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    place.folder.chmod(0o311)
    try:
        warm = place.get("/folder")
        place.private.chmod(0o755)
        plain = place.get("/folder")
    finally:
        place.folder.chmod(0o755)
    assert (warm.text, plain.text) == (str(place.folder), str(place.folder))


FAILING_CALLS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#ifdef NO_LOCKS
int flock(int file, int operation) { (void)file, (void)operation; errno = ENOLCK; return -1; }
#else
#define OPEN(NAME)                                                     \\
    int NAME(const char *path, int flags, ...) {                       \\
        va_list more;                                                  \\
        va_start(more, flags);                                         \\
        int mode = flags & O_CREAT ? va_arg(more, int) : 0;            \\
        va_end(more);                                                  \\
        if (strcmp(path, "/dev/null") == 0) { errno = ENOENT; return -1; } \\
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #NAME))(path, flags, mode); \\
    }
OPEN(open)
OPEN(open64)
#endif
"""


def _failing_calls(folder: Path, *flags: str) -> dict[str, str]:
    """Return variables for a process in which these calls fail."""
    (folder / "failing.c").write_text(FAILING_CALLS)
    library = folder / "failing.so"
    source = str(folder / "failing.c")
    command = ["cc", "-shared", "-fPIC", *flags, "-o", str(library), source, "-ldl"]
    subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "ASAN_OPTIONS": "verify_asan_link_order=0"}


def test_without_locks_plain_CGI_answers_at_once(place: Site) -> None:
    answer = place.get(**_failing_calls(place.folder, "-DNO_LOCKS"))
    assert (answer.code, answer.warm) == (200, False)
    assert os.strerror(errno.ENOLCK) in answer.errors


def test_without_dev_null_the_daemon_answers(place: Site) -> None:
    answer = place.get(**_failing_calls(place.folder))
    assert (answer.code, answer.warm, answer.errors) == (200, True, "")


def test_a_file_dated_in_the_future_is_not_one_just_mended(place: Site) -> None:
    place.write("import nowhere_at_all\n")
    future = time.time() + 1_000_000
    os.utime(place.folder / "app.py", (future, future))
    for _ in range(stub.FREE_STARTS):
        assert place.get().code == 500
    (note,) = place.private.glob("*.note")
    assert note.stat().st_size == stub.FREE_STARTS


def _after(statement: str) -> list[str]:
    """Return the start of a command: what follows is run after that Python statement."""
    program = f"import os, signal, sys; {statement}; os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", program]


def test_where_SIGCHLD_is_ignored_the_first_request_is_warm(place: Site) -> None:
    place.before = _after("signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    answer = place.get()
    assert (answer.warm, answer.errors) == (True, "")


@pytest.mark.parametrize("suffix", [".log", ".note"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(place: Site, suffix: str) -> None:
    assert place.get().warm
    place.close()
    eventually(lambda: not place.daemons(), "it is gone")
    (path,) = place.private.glob(f"*{suffix}")
    path.unlink()
    os.mkfifo(path)
    answer = place.get()
    assert (answer.code, answer.warm) == (200, False)
    assert "in the private folder" in answer.errors


def test_an_answer_that_is_none_is_no_answer(place: Site) -> None:
    """A daemon may refuse a request: END_REQUEST alone, with a protocolStatus (FastCGI 5.5)."""
    assert place.get().warm
    (path,) = [each for each in place.private.iterdir() if each.is_socket()]
    place.close()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(path))
        planted.listen(8)
        for ending, why in ((b"\0\0\0\0\2\0\0\0", "take"), (bytes(8), "no answer")):
            get = place.start()
            _end_request(planted, ending, question=False)
            answer = finish(get)
            assert (answer.code, answer.warm) == (200, False)
            assert why in answer.errors
            post = place.start("/", True, REQUEST_METHOD="POST", CONTENT_LENGTH="3")
            _end_request(planted, ending, question=True)
            answer = finish(post, b"abc")
            assert (answer.code, answer.exit) == (502, 1)


def _end_request(listener: socket.socket, ending: bytes, *, question: bool) -> None:
    listener.settimeout(PATIENCE)
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(PATIENCE)
        sock.recv(65536)
        if question:
            sock.sendall(b"\1\x0a\0\0\0\0\0\0")
            sock.recv(65536)
        sock.sendall(b"\1\3\0\1\0\x08\0\0" + ending)
        while sock.recv(65536):
            pass


def test_a_stdout_that_does_not_block_is_waited_for(place: Site) -> None:
    place.write(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [b'x' * 3_000_000]\n"
    )
    place.before = _after("os.set_blocking(1, False)")
    process = place.start()
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    eventually(lambda: process.poll() is not None or _waiting(pipe) > 60000, "the pipe is full")
    answer = finish(process)
    assert (len(answer.body), answer.exit) == (3_000_000, 0)


def _waiting(pipe: int) -> int:
    """Bytes that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


# Writing the file.


def test_without_a_compiler_the_stub_is_in_Python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateways.warm import Plan

    monkeypatch.setenv("PATH", str(tmp_path))
    kind = write_stub(Plan("app.py", str(tmp_path)), str(tmp_path / "app.cgi"))
    assert kind.startswith("a Python stub: there is no C compiler")
    (tmp_path / "cc").write_text("#!/bin/sh\necho x.c: error: no header >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    kind = write_stub(Plan("app.py", str(tmp_path)), str(tmp_path / "app.cgi"))
    assert kind == f"a Python stub: {tmp_path / 'cc'} failed: x.c: error: no header"
    assert os.access(tmp_path / "app.cgi", os.X_OK)


def test_strange_paths_are_no_danger_to_the_C_stub(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\0 ??= \xe9 $(touch x)'
    folder.mkdir()
    with site(folder, "c") as made:
        assert made.get().warm


def test_the_command_says_what_it_has_made(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    done = subprocess.run(
        [sys.executable, "-m", "gateways", "warm", "app.py", "-o", "app.cgi", "--python-stub"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "app.cgi is a Python stub, as was asked for\n")


@pytest.mark.parametrize(
    ("arguments", "output", "why"),
    [
        (("app.py",), "app.py", "it is the application"),
        (("app.py", "--force"), "link.cgi", "it is the application"),
        (("cgi:app.py",), "app.py", "it is the application"),
        (("app.py", "--touch-reload", "note"), "note", "it is a --touch-reload file"),
        (("app.py", "--crash-log", "note"), "note", "it is the --crash-log"),
        (("app.py",), "note", "gateways warm has not written it"),
    ],
)
def test_what_is_no_stub_is_not_overwritten(
    tmp_path: Path, arguments: tuple[str, ...], output: str, why: str
) -> None:
    for name in ("app.py", "note"):
        (tmp_path / name).write_text(APPLICATION)
    (tmp_path / "link.cgi").symlink_to("app.py")
    done = _warm(tmp_path, *arguments, "-o", output)
    assert done.returncode != 0
    assert why in done.stderr
    assert (tmp_path / output).read_text() == APPLICATION


def test_a_stub_is_overwritten_and_with_force_any_other_file(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    for extra in ((), ("--python-stub",), ()):
        assert _warm(tmp_path, "app.py", "-o", "app.cgi", *extra).returncode == 0
    (tmp_path / "app.cgi").write_text("something else")
    assert _warm(tmp_path, "app.py", "-o", "app.cgi").returncode != 0
    assert _warm(tmp_path, "app.py", "-o", "app.cgi", "--force").returncode == 0


def test_the_value_of_a_variable_is_not_a_name(tmp_path: Path) -> None:
    done = _warm(tmp_path, "app.py", "-o", "app.cgi", "--env", "A=B")
    assert done.returncode != 0
    assert "'A=B' is not the name of a variable" in done.stderr


def _warm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateways", "warm", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
