"""What a script finds, what becomes of its faults, and what is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateways import events, loading
from gateways.cgihost.settings import DEFAULT_PATH
from gateways.errors import ConfigurationError
from gateways.pycgi import PythonScript
from tests.cgihost.calling import PATIENCE, written_pid
from tests.pycgi.scripts import MODES, ask, environ, exists, script, write
from tests.server.live import eventually, post, running

HEAD = 'print("Content-Type: text/plain\\n")\n'
PID = HEAD + "import os\nprint(os.getpid())"

both_modes = pytest.mark.parametrize("mode", MODES)


def test_the_name_of_an_application(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD)
    for text, mode in [
        ("pycgi:", "fork"),
        ("pycgi+fork:", "fork"),
        ("pycgi+inprocess:", "inprocess"),
    ]:
        app: Any = loading.load(f"{text}{path}")
        assert (app.path, app.mode) == (str(path), mode)
    write(tmp_path, "print 'Content-Type: text/plain'", "old.py")
    for text, words in [
        ("pycgi:", "names no script"),
        ("pycgi+warm:" + str(path), "fork or inprocess"),
        (f"pycgi:{tmp_path}/missing.py", "no file"),
        (f"pycgi:{tmp_path}", "folder"),
        (f"pycgi:{tmp_path}/old.py", "line 1"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            loading.load(text)


def test_settings_stand_after_a_question_mark(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "import os, sys\nprint(os.environ['A'], sys.argv[1:])")
    text = (
        f"pycgi+inprocess:{path}?set=A=b%26c&inherit=LANG&pass=SSL_*&authorization=yes"
        "&indexed_query=on&document_root=/srv&time_limit=30&idle_limit=0&grace=1.5"
        f"&processes=2&max_requests=7&interpreter={sys.executable}&spool_folder={tmp_path}"
    )
    app: Any = loading.load(text)
    try:
        assert ask(app, query="word").body == b"b&c ['word']\n"
        settings = app.settings
        assert (settings.time_limit, settings.idle_limit) == (30.0, float("inf"))
        assert (settings.processes, settings.max_requests, settings.grace) == (2, 7, 1.5)
        assert (settings.authorization, settings.prefixes) == (True, ("SSL_",))
    finally:
        app.close()
    for query, words in [
        ("procesess=2", "did you mean processes"),
        ("index=a.py", "cannot be set"),
        ("processes=0", "1 or more"),
        ("processes=1.5", "whole number"),
        ("interpreter=python3", "no absolute path"),
        ("pass=LD_*", "no variable that a request may set"),
        ("spool_folder=/not/there", "no folder"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            loading.load(f"pycgi:{path}?{query}")
    odd = write(tmp_path, HEAD + "print('odd')", "what?set=A=b")
    app = loading.load(f"pycgi:{odd}")
    assert ask(app).body == b"odd\n"
    app.close()


# What the script finds.


@both_modes
def test_the_environment_is_the_request_alone(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    request: Any = {
        "HTTP_PROXY": "http://evil.example",
        "HTTP_AUTHORIZATION": "Basic eDp5",
        "HTTP_X_A": "caf\xe9",
        "werkzeug.thing": "x",
        "LD_PRELOAD": "/tmp/evil.so",
        "PYTHONSTARTUP": "/tmp/evil.py",
        "PATH": "/tmp/evil",
        "DATABASE": "evil",
    }
    source = HEAD + "import os\nprint(sorted(os.environb.items()))"
    for authorization in (False, True):
        options: Any = {"set": {"DATABASE": "db"}, "authorization": authorization}
        with script(tmp_path, source, mode, **options) as app:
            found = dict(eval(ask(app, **request).body))
        assert (b"HTTP_AUTHORIZATION" in found) == authorization
        assert found[b"DATABASE"] == b"db"
        assert found[b"HTTP_X_A"] == b"caf\xe9"
        assert found[b"GATEWAY_INTERFACE"] == b"CGI/1.1"
        assert found[b"PATH"] == DEFAULT_PATH.encode()
        assert not {b"SECRET", b"HTTP_PROXY", b"werkzeug.thing", b"PYTHONPATH"} & found.keys()
        assert not {b"LD_PRELOAD", b"PYTHONSTARTUP"} & found.keys()


@both_modes
def test_large_variables_arrive(tmp_path: Path, mode: str) -> None:
    source = HEAD + "import os\nprint(len(os.environ['HTTP_COOKIE']))"
    with script(tmp_path, source, mode) as app:
        assert ask(app, HTTP_COOKIE="x" * 120_000).body == b"120000\n"
        assert ask(app, HTTP_COOKIE="x" * 300_000).body == b"300000\n"


@both_modes
@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 300_000])
def test_a_body_of_unknown_length_has_its_length(tmp_path: Path, mode: str, size: int) -> None:
    source = HEAD + (
        "import os, sys\nprint(os.environ.get('CONTENT_LENGTH'), len(sys.stdin.buffer.read()),"
        " 'HTTP_TRANSFER_ENCODING' in os.environ)"
    )
    body = bytes(size)
    with script(tmp_path, source, mode) as app:
        assert ask(app, body).body.split()[1] == b"%d" % size
        unknown: Any = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
        found = ask(app, body, method="POST", **unknown, **{"wsgi.input_terminated": True})
        assert found.body == b"%d %d False\n" % (size, size)


def test_a_body_that_ends_early_starts_no_script(tmp_path: Path) -> None:
    with script(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n" + HEAD) as app:
        assert ask(app, b"abc", CONTENT_LENGTH="4").cut
        assert ask(app, b"abc", CONTENT_LENGTH="100000").cut
        assert not (tmp_path / "ran").exists()


# Faults.


@both_modes
def test_a_fault_before_the_head_is_a_500_without_the_traceback(tmp_path: Path, mode: str) -> None:
    with script(tmp_path, "def f():\n    1 / 0\nf()", mode) as app:
        found = ask(app)
        assert found.status.startswith("500")
        assert b"REFERENCE" in found.body
        assert b"ZeroDivisionError" not in found.body
        assert "line 2, in f" in found.reported
        assert "form.py: ZeroDivisionError: division by zero" in found.log.splitlines()
        assert b"ZeroDivisionError" in ask(app, debug=True).body


@both_modes
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "gave no answer; its exit status is 0"),
        ("import sys\nsys.exit(5)", "exit status is 5"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("print('hello')", "no header"),
        ("print('Content-Type text/html\\n\\n')", "no header"),
        ("print()\nprint('x')", "head is missing"),
        ("print('Status: abc\\n')", "three digits"),
        ("print('X-A: ' + 'x' * 70000 + '\\n')", "longer than"),
    ],
)
def test_what_is_no_answer_is_a_500(tmp_path: Path, mode: str, source: str, words: str) -> None:
    with script(tmp_path, source, mode) as app:
        found = ask(app)
        assert found.status.startswith("500")
        assert words in found.reported
        write(tmp_path, HEAD + "print('mended')")
        assert ask(app).body == b"mended\n"


@both_modes
def test_a_fault_within_the_answer_cuts_it(tmp_path: Path, mode: str) -> None:
    for end in (
        "1 / 0",
        "import os, signal\nsys.stdout.flush()\nos.kill(os.getpid(), signal.SIGKILL)",
    ):
        with script(tmp_path, HEAD + f"import sys\nprint('so far')\n{end}", mode) as app:
            found = ask(app)
            assert (found.body, found.cut) == (b"so far\n", True)
            write(tmp_path, HEAD + "print('mended')")
            assert ask(app).body == b"mended\n"


@both_modes
def test_a_script_with_a_syntax_error_says_so_until_it_is_mended(tmp_path: Path, mode: str) -> None:
    with script(tmp_path, HEAD + "print(1)", mode) as app:
        assert ask(app).body == b"1\n"
        write(tmp_path, HEAD + "print(")
        assert ask(app).status.startswith("500")
        assert "SyntaxError" in ask(app).log
        write(tmp_path, HEAD + "print(2)")
        assert ask(app).body == b"2\n"
        (tmp_path / "form.py").unlink()
        assert ask(app).status.startswith("404")
        write(tmp_path, HEAD + "print(3)")
        assert ask(app).body == b"3\n"


@both_modes
def test_heads_that_no_application_may_send_are_mended(tmp_path: Path, mode: str) -> None:
    source = "print('Content-Type: text/html\\nConnection: close\\nX-A: a\\tb\\nContent-Length: 2\\n')\nprint('x')"
    with script(tmp_path, source, mode) as app:
        found = ask(app)
        assert found.headers == [
            ("Content-Type", "text/html"),
            ("X-A", "a b"),
            ("Content-Length", "2"),
        ]
        assert found.body == b"x\n"
        assert ask(app, method="HEAD").body == b""


@both_modes
def test_a_script_whose_output_is_not_wanted_runs_to_its_end(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.pycgi.application.SKIP_SECONDS", PATIENCE)
    source = (
        "import sys\nprint('Content-Type: text/plain\\n\\n' + 'x' * 300000, flush=True)\n"
        f"open({str(tmp_path / 'end')!r}, 'a').write('.')"
    )
    with script(tmp_path, source, mode) as app:
        assert ask(app, method="HEAD").status == "200 OK"
        assert (tmp_path / "end").read_text() == "."


@both_modes
def test_a_script_that_streams_what_nobody_wants_keeps_nobody(tmp_path: Path, mode: str) -> None:
    source = (
        "import os, time\n"
        f"if os.environ['REQUEST_METHOD'] == 'HEAD':\n    open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        + HEAD
        + "while os.environ['REQUEST_METHOD'] == 'HEAD':\n    print('x', flush=True)\n    time.sleep(0.02)"
    )
    with script(tmp_path, source, mode, processes=1) as app:
        assert ask(app).status == "200 OK"  # so that a helper is ready
        app.settings.time_limit = PATIENCE
        found = ask(app, method="HEAD")
        assert (found.status, found.body, found.reported) == ("200 OK", b"", "")
        pid = written_pid(tmp_path / "pid")
        eventually(lambda: not exists(pid), "nobody reads what it writes, and so it ends")
        assert ask(app).status == "200 OK"


def test_a_fork_of_which_no_more_is_wanted_may_work_on(tmp_path: Path) -> None:
    source = HEAD + (
        "import time\nprint('x', flush=True)\n"
        f"time.sleep(0.5)\nopen({str(tmp_path / 'end')!r}, 'w').close()"
    )
    with script(tmp_path, source) as app:
        assert ask(app, method="HEAD").status == "200 OK"
        eventually((tmp_path / "end").exists, "it has come to its end")


# One request after the other.

SPOILT = """
import builtins, decimal, gc, locale, os, random, resource, signal, socket, sys, threading, time
import warnings
if os.environ["QUERY_STRING"] == "spoil=1":
    os.chdir("/")
    os.umask(0)
    os.environ["LEFT"] = os.environ["HTTP_X"] = "x"
    os.putenv("LEFT_TOO", "x")
    os.environ = {}
    sys.path.insert(0, "/left")
    builtins.left = 1
    builtins.len = None
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(1000)
    locale.setlocale(locale.LC_ALL, "C")
    socket.setdefaulttimeout(5)
    sys.setrecursionlimit(4000)
    sys.excepthook = sys.displayhook = sys.unraisablehook = sys.breakpointhook = print
    threading.excepthook = print
    sys.argv += ["x"]
    class Finder:
        def find_spec(name, path, target=None):
            raise ImportError("left over")
    sys.meta_path.insert(0, Finder)
    def hook(path):
        raise ImportError
    sys.path_hooks.insert(0, hook)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGCHLD])
    decimal.getcontext().prec = 3
    random.seed(1)
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    sys.setswitchinterval(1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    warnings.simplefilter("error")
    gc.disable()
    left = 1
    sys.stdin.read(1)
    print("Content-Type: text/plain\\n")
    sys.stdout = sys.stderr = sys.stdin = open(os.devnull, "w")
    print("nowhere")
else:
    print("Content-Type: text/plain\\n")
    print(os.getcwd(), oct(os.umask(0o022)), sorted(os.environ.items()), sys.path, sys.argv)
    print(sorted(vars(builtins)), len("abc"), sorted(globals()))
    print([signal.getsignal(each) for each in sorted(signal.valid_signals())
           if each != signal.SIGINT], signal.getsignal(signal.SIGINT).__name__)
    print(signal.getitimer(signal.ITIMER_REAL), locale.setlocale(locale.LC_ALL))
    print(socket.getdefaulttimeout(), sys.getrecursionlimit(), sys.excepthook.__name__)
    print(sys.unraisablehook, sys.breakpointhook, threading.excepthook.__name__, sys.meta_path)
    print(sys.path_hooks, signal.pthread_sigmask(signal.SIG_BLOCK, []), decimal.getcontext().prec)
    print(time.tzname, sys.getswitchinterval(), resource.getrlimit(resource.RLIMIT_NOFILE))
    print(random.random() == 0.13436424411240122, sys.displayhook.__name__, warnings.filters, gc.isenabled(), sys.stdin.read())
    import subprocess
    sys.stdout.flush()
    subprocess.run("env | sort", shell=True)
"""


@both_modes
def test_what_a_request_changes_the_next_one_does_not_see(tmp_path: Path, mode: str) -> None:
    with script(tmp_path, SPOILT, mode, processes=1) as app:
        clean = ask(app, b"body")
        assert clean.status == "200 OK", clean.reported
        assert b"None 1000 excepthook" in clean.body
        helpers = app.helpers()
        for _ in range(2):
            assert ask(app, b"rest of this", query="spoil=1").status == "200 OK"
            assert ask(app, b"body").body == clean.body
        assert app.helpers() == helpers


@both_modes
def test_what_a_script_does_to_loggers_lasts_for_its_request(tmp_path: Path, mode: str) -> None:
    write(tmp_path, "import logging\nlogging.getLogger('kept').setLevel(10)", "neighbour.py")
    source = HEAD + (
        "import logging, neighbour, os\n"
        "logger = logging.getLogger('mine')\n"
        "if os.environ['QUERY_STRING'] == 'loud=1':\n    logger.setLevel(logging.DEBUG)\n"
        f"handler = logging.FileHandler({str(tmp_path / 'log')!r})\n"
        "logger.addHandler(handler)\n"
        "logging.basicConfig(format='%(message)s')\n"
        "logger.warning('once')\nlogger.debug('quiet')\n"
        "print(len(logger.handlers), logger.level, logging.getLogger('kept').level)"
    )
    with script(tmp_path, source, mode, processes=1) as app:
        assert ask(app).body == b"1 0 10\n"
        assert ask(app, query="loud=1").log == "form.py: once\nform.py: quiet\n"
        for _ in range(2):
            found = ask(app)
            assert (found.body, found.log) == (b"1 0 10\n", "form.py: once\n")
        assert (tmp_path / "log").read_text() == "once\nonce\nquiet\nonce\nonce\n"


@both_modes
def test_what_a_script_silences_is_heard_in_the_next_request(tmp_path: Path, mode: str) -> None:
    source = (
        "import faulthandler, logging, os, sys\n"
        "if os.environ['QUERY_STRING'] == 'quiet=1':\n"
        "    logging.disable()\n"
        "    logging.getLogger().addFilter(lambda record: False)\n"
        "    faulthandler.dump_traceback_later(0.5, exit=True)\n"
        "elif os.environ['QUERY_STRING'] == 'slow=1':\n    import time\n    time.sleep(1)\n"
        "logging.basicConfig(format='%(message)s', stream=sys.stderr)\n"
        "logging.critical('loud')\n" + HEAD + "print('answer')"
    )
    with script(tmp_path, source, mode, processes=1) as app:
        assert ask(app, query="quiet=1").log == ""
        found = ask(app, query="slow=1")
        assert (found.body, found.log) == (b"answer\n", "form.py: loud\n")


@pytest.mark.parametrize(
    "change",
    [
        "os.nice(1)",
        pytest.param(
            "os.setgroups([12345])",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root may"),
        ),
        pytest.param(
            "os.seteuid(65534)",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root may"),
        ),
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n    os.seteuid(os.getuid() or 65534)",
    ],
)
def test_what_cannot_be_put_back_costs_the_process(tmp_path: Path, change: str) -> None:
    source = HEAD + (
        "import os, resource\n"
        f"if os.environ['QUERY_STRING'] == 'change=1':\n    {change}\n"
        "print(os.geteuid(), os.getgroups(), os.nice(0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    with script(tmp_path, source, "inprocess", processes=1) as app:
        clean = ask(app).body
        assert ask(app, query="change=1").status == "200 OK"
        assert ask(app).body == clean


NEIGHBOUR = "n = 0\ndef count():\n    global n\n    n += 1\n    return n\n"


def test_modules_stay_in_process_and_are_new_in_a_fork(tmp_path: Path) -> None:
    write(tmp_path, NEIGHBOUR, "neighbour.py")
    source = HEAD + "import neighbour\nprint(neighbour.count())"
    with script(tmp_path, source, "inprocess") as app:
        assert [ask(app).body for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
    with script(tmp_path, source, "fork") as app:
        assert [ask(app).body for _ in range(3)] == [b"1\n"] * 3


@both_modes
def test_what_changes_on_disk_is_loaded_anew(tmp_path: Path, mode: str) -> None:
    (tmp_path / "package").mkdir()
    write(tmp_path / "package", "", "__init__.py")
    write(tmp_path / "package", "x = 1", "part.py")
    write(tmp_path, "from package.part import x", "neighbour.py")
    with script(tmp_path, HEAD + "import neighbour\nprint('a', neighbour.x)", mode) as app:
        assert ask(app).body == b"a 1\n"
        write(tmp_path, HEAD + "import neighbour\nprint('b', neighbour.x)")
        assert ask(app).body == b"b 1\n"
        write(tmp_path / "package", "x = 22", "part.py")
        assert ask(app).body == b"b 22\n"
        write(tmp_path, "x = 333", "neighbour.py")
        assert ask(app).body == b"b 333\n"


@both_modes
def test_changes_on_disk_disturb_nobody(tmp_path: Path, mode: str) -> None:
    source = HEAD + "import sys\nprint(sys.stdin.read(), 'version', {})"
    with (
        script(tmp_path, source.format(0), mode, processes=2) as app,
        ThreadPoolExecutor(4) as pool,
    ):
        answers = pool.map(lambda n: ask(app, b"%d" % n), range(60))
        for version in range(1, 5):
            next(answers)
            write(tmp_path, source.format(version))
        found = list(answers)
        assert {each.status for each in found} == {"200 OK"}
        assert {each.body.split()[2] for each in found} <= {b"0", b"1", b"2", b"3", b"4"}
        assert ask(app, b"x").body == b"x version 4\n"


def test_a_fork_finds_its_imports_loaded_but_not_its_neighbours(tmp_path: Path) -> None:
    write(
        tmp_path,
        "import colorsys",
        "neighbour.py",
    )
    source = HEAD + (
        "import sys\n"
        "print([each in sys.modules for each in ('sqlite3', 'colorsys', 'neighbour', 'chunk')])\n"
        "import sqlite3, neighbour\n"
        "try:\n    import nothing_of_this_name\nexcept ImportError:\n    pass\n"
        "def later():\n    import chunk"
    )
    with script(tmp_path, source) as app:
        assert ask(app).body == b"[True, True, False, False]\n"
        write(
            tmp_path, source.replace("neighbour\n", "this, wave\n").replace("'neighbour'", "'wave'")
        )
        assert ask(app).body.startswith(b"[True, False, True, False]")


@pytest.mark.parametrize(
    "module",
    [
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        "print('loaded')",
    ],
)
def test_a_module_that_cannot_be_shared_is_imported_by_each_fork(
    tmp_path: Path, module: str
) -> None:
    library, folder = tmp_path / "library", tmp_path / "folder"
    library.mkdir()
    folder.mkdir()
    write(library, module, "special.py")
    source = HEAD + (
        "import sys\nprint([each in sys.modules for each in ('sqlite3', 'special')])\n"
        "import special, sqlite3"
    )
    with script(folder, source, set={"PYTHONPATH": str(library)}) as app:
        for _ in range(2):
            found = ask(app)
            assert found.body.splitlines()[0] == b"[True, False]"
            assert (b"loaded" in found.body) == ("loaded" in module)


def test_a_module_that_is_shared_may_keep_the_streams(tmp_path: Path) -> None:
    library, folder = tmp_path / "library", tmp_path / "folder"
    library.mkdir()
    folder.mkdir()
    write(
        library,
        "import logging, sys\nlogging.basicConfig(format='%(message)s')\nout = sys.stdout",
        "kept.py",
    )
    source = HEAD + (
        "import sys\nprint('kept' in sys.modules, flush=True)\nimport kept\n"
        "print('x', file=kept.out)\nkept.logging.error('logged')"
    )
    with script(folder, source, set={"PYTHONPATH": str(library)}) as app:
        for _ in range(2):
            found = ask(app)
            assert (found.body, found.log) == (b"True\nx\n", "form.py: logged\n")


@both_modes
def test_a_request_that_leaves_a_thread_leaves_it_alone(tmp_path: Path, mode: str) -> None:
    source = HEAD + (
        "import os, threading, time\n"
        "if os.environ['QUERY_STRING'] == 'thread=1':\n"
        "    def forever():\n        while True:\n            print('intruder', flush=True)\n            time.sleep(0.001)\n"
        "    threading.Thread(target=forever, daemon=True).start()\n"
        "else:\n    time.sleep(0.05)\n    print('alone')"
    )
    with script(tmp_path, source, mode) as app:
        for _ in range(2):
            ask(app, query="thread=1")
            assert ask(app).body == b"alone\n"


def test_one_process_answers_many_requests_and_then_makes_way(tmp_path: Path) -> None:
    with script(tmp_path, PID, "inprocess", max_requests=3) as app:
        pids = [ask(app).body for _ in range(7)]
    assert [pids.count(each) for each in dict.fromkeys(pids)] == [3, 3, 1]


@both_modes
def test_a_stream_that_a_module_keeps_goes_on(tmp_path: Path, mode: str) -> None:
    write(
        tmp_path,
        "import logging, sys\nlogging.basicConfig(format='%(message)s')\nout = sys.stdout",
        "log.py",
    )
    source = HEAD + "import log\nlog.logging.error('logged')\nprint('x', file=log.out)"
    with script(tmp_path, source, mode) as app:
        for _ in range(3):
            found = ask(app)
            assert (found.body, found.log) == (b"x\n", "form.py: logged\n")


@both_modes
def test_files_that_are_left_open_are_written(tmp_path: Path, mode: str) -> None:
    write(tmp_path, f"file = open({str(tmp_path / 'by_module')!r}, 'a')", "keeper.py")
    source = HEAD + (
        f"import keeper\nf = open({str(tmp_path / 'by_script')!r}, 'a')\n"
        "def again(): return f, again\n"
        "f.write('.')\nkeeper.file.write('.')"
    )
    with script(tmp_path, source, mode) as app:
        ask(app)
        ask(app)
        assert (tmp_path / "by_script").read_text() == ".."
        if mode == "fork":
            assert (tmp_path / "by_module").read_text() == ".."


# Many at once.


@both_modes
def test_requests_run_at_once(tmp_path: Path, mode: str) -> None:
    source = HEAD + (
        "import os, time\n"
        f"folder = {str(tmp_path / 'here')!r}\n"
        "open(f'{folder}/{os.getpid()}', 'w').close()\n"
        "deadline = time.monotonic() + 20\n"
        "while len(os.listdir(folder)) < 4 and time.monotonic() < deadline:\n    time.sleep(0.005)\n"
        "print(len(os.listdir(folder)))"
    )
    (tmp_path / "here").mkdir()
    with script(tmp_path, source, mode, processes=4) as app, ThreadPoolExecutor(4) as pool:
        assert [each.body for each in pool.map(lambda _: ask(app), range(4))] == [b"4\n"] * 4
        assert len(app.helpers()) == (1 if mode == "fork" else 4)


@both_modes
def test_everybody_gets_their_own_answer(tmp_path: Path, mode: str) -> None:
    source = HEAD + "import os, sys\nprint(os.environ['QUERY_STRING'], sys.stdin.read())"
    with script(tmp_path, source, mode, processes=2) as app, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: ask(app, b"%d" % n, query=f"n={n}").body, range(80))
        assert list(answers) == [b"n=%d %d\n" % (n, n) for n in range(80)]


def test_when_all_processes_stay_busy_the_answer_is_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.pycgi.application.BUSY_SECONDS", 0.05)
    source = (
        HEAD + "import sys\nprint('x', flush=True)\nsys.stdin.read()\nimport time\ntime.sleep(60)"
    )
    with script(tmp_path, source, "inprocess", processes=1) as app:
        result = iter(started := app(environ(), lambda *_: None))
        assert next(result) == b"x\n"
        assert ask(app).status.startswith("503")
        started.close()  # type: ignore[attr-defined]  # it is the answer's own


@both_modes
def test_no_descriptor_and_no_process_is_left(tmp_path: Path, mode: str) -> None:
    with script(tmp_path, HEAD + "import sys\nprint(len(sys.stdin.read()))", mode) as app:
        for body in (b"", b"x", bytes(100_000)):
            ask(app, body)
        (helper,) = app.helpers()

        def count() -> tuple[int, int, str]:
            gc.collect()
            children = Path(f"/proc/{helper}/task/{helper}/children").read_text()
            return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{helper}/fd")), children

        eventually(lambda: count()[2] == "", "the children are reaped")
        before = count()
        for n in range(200):
            ask(app, bytes(100_000) if n % 50 == 0 else b"x" * (n % 2))
        eventually(lambda: count() == before, "as many descriptors as before")
        assert app.helpers() == [helper]


# Ends.


@both_modes
def test_a_helper_that_is_killed_is_replaced(tmp_path: Path, mode: str) -> None:
    with script(tmp_path, PID, mode) as app:
        ask(app)
        for _ in range(3):
            (helper,) = app.helpers()
            os.kill(helper, signal.SIGKILL)
            assert ask(app).status == "200 OK"
            assert app.helpers() != [helper]


def test_a_helper_that_hangs_while_it_imports_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.pycgi.helpers.START_SECONDS", 0.1)
    library, mended = tmp_path / "library", tmp_path / "mended"
    library.mkdir()
    slow = f"import os, time\nif not os.path.exists({str(mended)!r}):\n    time.sleep(1000)\n"
    write(library, slow, "slow_to_import.py")
    folder = tmp_path / "folder"
    folder.mkdir()
    source = "import slow_to_import\n" + HEAD + "print('answer')"
    with script(folder, source, idle_limit=2, set={"PYTHONPATH": str(library)}) as app:
        assert ask(app).status.startswith("504")
        mended.touch()
        eventually(lambda: ask(app).body == b"answer\n", "a new one has taken its place")


@both_modes
def test_a_process_that_ignores_SIGCHLD_replaces_helpers_too(tmp_path: Path, mode: str) -> None:
    # Some process managers leave it ignored.
    program = (
        "import signal, sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from pathlib import Path\nfrom tests.pycgi.scripts import ask, script, write\n"
        f"head, folder = {HEAD!r}, Path({str(tmp_path)!r})\n"
        f"with script(folder, head + 'print(1)', {mode!r}) as app:\n"
        "    print(ask(app).body)\n"
        "    write(folder, head + 'print(22)')\n"
        "    print([ask(app).body for _ in range(3)])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, timeout=60, check=False
    )
    assert done.stdout.decode().splitlines() == [r"b'1\n'", r"[b'22\n', b'22\n', b'22\n']"]


@both_modes
def test_killing_helpers_loses_at_most_what_is_under_way(tmp_path: Path, mode: str) -> None:
    source = HEAD + "import sys\nprint(sys.stdin.read())"
    with script(tmp_path, source, mode, processes=2) as app, ThreadPoolExecutor(4) as pool:
        ask(app)
        answers = [pool.submit(ask, app, b"%d" % n) for n in range(60)]
        kills = 0
        for number, answer in enumerate(answers):
            if number % 10 == 5:
                answer.result()
                for helper in app.helpers():
                    with suppress(ProcessLookupError):  # it was replaced meanwhile
                        os.kill(helper, signal.SIGKILL)
                        kills += 1
        whole = [n for n, each in enumerate(answers) if each.result().body == b"%d\n" % n]
        # Each kill can meet the requests of four threads.
        assert len(whole) >= 60 - 4 * kills
        lost = [each.result() for n, each in enumerate(answers) if n not in whole]
        assert all(each.cut or each.status.startswith("500") for each in lost)
        assert ask(app, b"x").body == b"x\n"


def test_a_script_that_closes_its_output_may_work_on(tmp_path: Path) -> None:
    fifo, done = tmp_path / "fifo", tmp_path / "done"
    os.mkfifo(fifo)
    source = HEAD + (
        "import os, sys\nprint('answer', flush=True)\nos.close(1)\n"
        f"open({str(fifo)!r}).read()\nopen({str(done)!r}, 'w').close()"
    )
    with script(tmp_path, source) as app:
        found = ask(app)
        assert (found.body, found.cut, found.log) == (b"answer\n", False, "")
        fifo.write_text("go on")
        eventually(done.exists, "it has gone on")


@both_modes
def test_a_process_that_keeps_the_output_open_delays_nobody(tmp_path: Path, mode: str) -> None:
    source = (
        "import subprocess\nprint('Content-Type: text/plain\\n\\nwhole', flush=True)\n"
        f"child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{child.pid}}\\n')"
    )
    with script(tmp_path, source, mode, idle_limit=PATIENCE) as app:
        found = ask(app)
        pid = written_pid(tmp_path / "pid")
        assert (found.body, found.cut) == (b"whole\n", False)
        assert "keeps its output open" in found.log
        # It was left running on purpose, as old scripts do with their long work.
        assert exists(pid)
        os.kill(pid, signal.SIGKILL)


ENDLESS = HEAD + (
    "import os, subprocess, time\n"
    "child = subprocess.Popen(['sleep', '600'])\n"
    "print(os.getpid(), child.pid, flush=True)\n"
    "if os.environ['QUERY_STRING'] == 'write=1':\n"
    "    while True:\n        print('x' * 100, flush=True)\n"
    "time.sleep(600)"
)


@both_modes
@pytest.mark.parametrize("query", ["write=1", ""])
def test_a_reader_who_leaves_ends_the_script_and_its_children(
    tmp_path: Path, mode: str, query: str
) -> None:
    with script(tmp_path, ENDLESS, mode) as app:
        for _ in range(2):
            started: Any = app(environ(query=query), lambda *_: None)
            pids = [int(each) for each in next(iter(started)).split()[:2]]
            assert all(map(exists, pids))
            started.close()
            eventually(lambda pids=pids: not any(map(exists, pids)), "they are ended")  # type: ignore[misc]  # mypy does not see that it is called without arguments


def test_a_script_that_ignores_SIGTERM_is_killed(tmp_path: Path) -> None:
    source = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ENDLESS
    with script(tmp_path, source) as app:
        started: Any = app(environ(), lambda *_: None)
        pids = [int(each) for each in next(iter(started)).split()[:2]]
        started.close()
        eventually(lambda: not any(map(exists, pids)), "they are ended")


@both_modes
def test_a_script_that_takes_too_long_is_ended(tmp_path: Path, mode: str) -> None:
    pid_file = tmp_path / "pid"
    source = (
        "import os, time\n"
        f"if os.environ['QUERY_STRING'] != 'fast=1':\n"
        f"    open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
        "    if os.environ['QUERY_STRING'] == 'head=1':\n"
        "        print('Content-Type: text/plain\\n\\nx', flush=True)\n"
        "    time.sleep(600)\n" + HEAD + "print('fast')"
    )

    def warm(app: PythonScript) -> None:
        # On a busy machine the start of a process may take longer than the limit.
        eventually(lambda: ask(app, query="fast=1").body == b"fast\n", "it answers")

    with script(tmp_path, source, mode, time_limit=1.5) as app:
        warm(app)
        found = ask(app)
        assert found.status.startswith("504")
        assert "more than 1.5 s (time_limit)" in found.log
        eventually(lambda: not exists(int(pid_file.read_text())), "it is ended")
        warm(app)
        found = ask(app, query="head=1")
        assert (found.body, found.cut) == (b"x\n", True)
        eventually(lambda: not exists(int(pid_file.read_text())), "it is ended")
        warm(app)


@both_modes
def test_limits_may_be_months(tmp_path: Path, mode: str) -> None:
    source = HEAD + "import os, time\nprint('x', flush=True)\nos.close(1)\ntime.sleep(0.1)"
    with script(tmp_path, source, mode, time_limit=1e7, idle_limit=1e7) as app:
        assert ask(app).body == b"x\n"
        before = app.helpers()
        assert ask(app).body == b"x\n"
        assert app.helpers() == before


@both_modes
def test_everything_ends_with_the_process_that_started_it(tmp_path: Path, mode: str) -> None:
    write(tmp_path, ENDLESS)
    program = (
        "import sys\nfrom gateways.pycgi import PythonScript\nfrom tests.pycgi.scripts import environ\n"
        f"app = PythonScript({str(tmp_path / 'form.py')!r}, {mode!r})\n"
        "answer = iter(app(environ(), lambda *_: None))\n"
        "print(*app.helpers(), next(answer).decode(), flush=True)\nsys.stdin.read()"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        *pids, child = map(int, process.stdout.readline().split())
        assert all(map(exists, pids))
        process.kill()
    eventually(lambda: not any(map(exists, [*pids, child])), "they are ended")


@both_modes
def test_a_helper_that_is_killed_leaves_no_script_behind(tmp_path: Path, mode: str) -> None:
    with script(
        tmp_path, "import signal\nsignal.signal(15, signal.SIG_IGN)\n" + ENDLESS, mode
    ) as app:
        started: Any = app(environ(), lambda *_: None)
        pids = [int(each) for each in next(iter(started)).split()[:2]]
        os.kill(app.helpers()[0], signal.SIGKILL)
        eventually(lambda: not exists(pids[0]), "the script is ended")
        started.close()
        eventually(lambda: not any(map(exists, pids)), "so is what it has started")


def test_scripts_that_work_on_are_counted(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source = HEAD + f"import os\nprint('x', flush=True)\nos.close(1)\nopen({str(fifo)!r}).read()"
    with script(tmp_path, source, max_running=1) as app:
        assert ask(app).body == b"x\n"
        refused = ask(app)
        assert refused.status.startswith("503")
        assert "max_running" in refused.log
        fifo.write_text("go on")
        write(tmp_path, HEAD + "print('free')")
        eventually(lambda: ask(app).body == b"free\n", "there is a place again")


def test_a_script_that_works_on_has_a_limit_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    source = HEAD + (
        "import os, signal, sys, time\nprint('answer', flush=True)\n"
        "if os.environ['QUERY_STRING'] == 'on=1':\n"
        "    signal.signal(15, signal.SIG_IGN)\n"
        f"    open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
        "    os.close(1)\n    time.sleep(600)"
    )
    with script(tmp_path, source, time_limit=2, grace=0.2) as app:
        # On a busy machine the start of a process may take longer than the limit.
        eventually(lambda: ask(app).body == b"answer\n", "it answers")
        assert ask(app, query="on=1").body == b"answer\n"
        eventually(lambda: not exists(int(pid_file.read_text())), "it is ended")


@both_modes
def test_behind_the_server(tmp_path: Path, mode: str) -> None:
    source = HEAD + "import sys\nprint('got', sys.stdin.read())"
    with (
        script(tmp_path, source, mode) as app,
        running(app, tmp_path / "sock", threads=4) as live,
        live.peer() as peer,
    ):
        for n in range(5):
            peer.send(*post("/", b"%d" % n))
            assert peer.answer() == b"got %d\n" % n


@both_modes
def test_a_visitor_who_leaves_a_silent_script_ends_it(tmp_path: Path, mode: str) -> None:
    pid_file = tmp_path / "pid"
    source = (
        "import os, time\n"
        f"with open({str(pid_file)!r}, 'w') as file:\n    print(os.getpid(), file=file)\n"
        "time.sleep(600)"
    )
    with (
        script(tmp_path, source, mode) as app,
        running(app, tmp_path / "sock", threads=2) as live,
    ):
        with live.peer() as peer:
            peer.get()
            pid = written_pid(pid_file)
        eventually(lambda: not exists(pid), "it is ended")


def test_output_comes_as_it_is_written(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source = HEAD + f"print('first', flush=True)\nopen({str(fifo)!r}).read()\nprint('second')"
    with (
        script(tmp_path, source) as app,
        running(app, tmp_path / "sock", threads=2) as live,
        live.peer() as peer,
    ):
        peer.get()

        def body() -> bytes:
            data = [each.data for each in peer.seen if isinstance(each, events.ResponseBody)]
            return b"".join(data)

        peer.read_until(lambda: body() == b"first\n")
        fifo.write_text("go")
        assert peer.answer() == b"first\nsecond\n"


def test_a_forked_worker_starts_its_own_helpers(tmp_path: Path) -> None:
    with script(tmp_path, PID) as app:
        assert ask(app).status == "200 OK"
        mine = app.helpers()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                status = ask(app).status
                os.write(writer, f"{status} {app.helpers() != mine}".encode())
                app.close()
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader) as file:
            assert file.read() == "200 OK True"
        os.waitpid(pid, 0)
        assert ask(app).status == "200 OK"
        assert app.helpers() == mine
