"""A warm script gives, byte for byte, what running its file gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from gateways.pycgi import PythonScript
from tests.pycgi.scripts import MODES, ask, execute, script, write

HEAD = 'print("Content-Type: text/plain\\r\\n\\r")\n'

SCRIPTS = {
    "print": HEAD + "print('hello')",
    "unicode": HEAD + "print('grüße, \\u4e16\\u754c', ascii('é'))",
    "latin-1 source": "# -*- coding: utf-8 -*-\n" + HEAD + "print('é')",
    "bytes": "import sys\nsys.stdout.buffer.write(b'Content-Type: image/x\\n\\n' + bytes(range(256)))",
    "own stream": (
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='latin-1')\n"
        + HEAD
        + "print('\\xe9t\\xe9')"
    ),
    "environment": HEAD + "import os\nprint(sorted(os.environ.items()))",
    "environment of a child": (
        HEAD
        + "import subprocess, sys\nsys.stdout.flush()\nsubprocess.run('env | sort', shell=True)"
    ),
    "place": (
        HEAD + "import os, sys\n"
        "print(os.getcwd(), sys.argv, sys.path[0], sys.path[1:4], __name__, __file__, __doc__)\n"
        "print(sys.modules['__main__'].__dict__ is globals(), __spec__, __package__)"
    ),
    "streams": (
        HEAD + "import sys\n"
        "for each in (sys.stdin, sys.stdout, sys.stderr):\n"
        "    print(each, each.encoding, each.errors, each.line_buffering, each.fileno(),\n"
        "          each.isatty(), type(each.buffer), each.newlines, each.mode, each.buffer.name)\n"
        "print(sys.stdout is sys.__stdout__, sys.flags, sys.excepthook is sys.__excepthook__)"
    ),
    "body": HEAD + "import sys\nprint(sys.stdin.read(), sys.stdin.read())",
    "body as bytes": HEAD + "import sys, os\nprint(sys.stdin.buffer.read(2), os.read(0, 10))",
    "status": "print('Status: 404 Gone away\\nX-A: 1\\nX-A: 2\\nContent-Type: text/html\\n\\nno')",
    "redirect": "print('Location: http://example.org/\\n')",
    "local redirect": "print('Location: /elsewhere?x=1\\n')",
    "exit": HEAD + "import sys\nsys.exit(3)",
    "exit in words": HEAD + "import sys\nsys.exit('so long')",
    "exit without": HEAD + "raise SystemExit",
    "exit code that is large": HEAD + "import sys\nsys.exit(256)",
    "exit at once": HEAD + "import sys, os\nsys.stdout.flush()\nos._exit(4)",
    "atexit": HEAD + "import atexit\natexit.register(print, 'bye')\nprint('first')",
    "threads": (
        HEAD + "import threading, time\n"
        "go = threading.Event()\n"
        "def late():\n    go.wait()\n    print('late')\n"
        "threading.Thread(target=late).start()\nprint('early')\ngo.set()"
    ),
    "executor": (
        HEAD + "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2)\nprint(list(pool.map(str, range(5))))"
    ),
    "finalizer": HEAD + "class A:\n    def __del__(self):\n        print('gone')\na = A()",
    "fork": (
        HEAD + "import os, sys\nsys.stdout.flush()\n"
        "if os.fork() == 0:\n    print('child')\nelse:\n    os.wait()\n    print('parent')"
    ),
    "closed early": HEAD + "import sys\nprint('x')\nsys.stdout.flush()\nsys.stdout.close()",
    "pickle": HEAD + "import pickle\nclass A: x = 1\nprint(pickle.loads(pickle.dumps(A())).x)",
    "future": "from __future__ import annotations\n"
    + HEAD
    + "x: nothing = 1\nprint(__annotations__)",
    "globals": HEAD + "print(sorted(set(globals()) - {'__builtins__'}))",
    "query as arguments": HEAD + "import sys\nprint(len(sys.argv))",
}
RAISING = {
    "exception": HEAD + "print('so far')\ndef f():\n    1 / 0\nf()",
    "two exceptions": HEAD + "print('x')\ntry:\n    1 / 0\nexcept ArithmeticError:\n    {}['x']",
    "own hook": (
        HEAD
        + "import sys\nsys.excepthook = lambda kind, error, tb: print(kind, tb.tb_lineno)\n1 / 0"
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*SCRIPTS, *RAISING])
def test_a_script_gives_the_same_as_when_it_is_run(tmp_path: Path, name: str, mode: str) -> None:
    source = {**SCRIPTS, **RAISING}[name]
    with script(tmp_path, source, mode) as app:
        expected, status = execute(tmp_path / "form.py", b"a=1&b=2")
        for _ in range(2):
            found = ask(app, b"a=1&b=2")
            assert found.body == expected.body
            if not found.body:
                found.headers.remove(("Content-Length", "0"))  # this is known, so it is said
            assert (found.status, found.headers) == (expected.status, expected.headers)
            lines = [line.removeprefix("form.py: ") for line in found.log.splitlines()]
            if status and name in SCRIPTS:
                assert lines.pop() == f"exit status {status}"
            elif name == "own hook":
                assert lines.pop() == "exit status 1"
            assert lines == expected.log.splitlines()
            assert found.cut == (name in ("exception", "two exceptions"))


FORM = """
import cgi, cgitb, hashlib
cgitb.enable()
form = cgi.FieldStorage()
print("Content-Type: text/plain; charset=utf-8\\n")
for name in sorted(form):
    field = form[name]
    if getattr(field, "filename", None):
        print(name, field.filename, field.type, hashlib.sha256(field.file.read()).hexdigest())
    else:
        print(name, form.getlist(name))
if "fail" in form:
    raise ValueError("as asked")
"""

needs_cgi = pytest.mark.skipif(
    importlib.util.find_spec("cgi") is None, reason="Python has no cgi module since 3.13"
)


def multipart(content: bytes) -> tuple[bytes, str]:
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="who"\r\n\r\nJos\xc3\xa9\r\n',
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a b.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n",
        b"--B--\r\n",
    ]
    return b"".join(parts), "multipart/form-data; boundary=B"


@needs_cgi
@pytest.mark.parametrize("mode", MODES)
def test_forms_and_uploads_through_cgi(tmp_path: Path, mode: str) -> None:
    form = "application/x-www-form-urlencoded"
    uploads = [multipart(content) for content in (b"", b"\0\xff\r\n--" * 10, bytes(300_000))]
    with script(tmp_path, FORM, mode) as app:
        for body, kind in [(b"a=1&a=2&b=%C3%A9", form), *uploads, (b"", form)]:
            more: Any = {"CONTENT_TYPE": kind, "query": "q=from+the+query"}
            expected, _ = execute(tmp_path / "form.py", body, **more)
            found = ask(app, body, **more)
            assert found.body == expected.body
            assert found.status == "200 OK"


@needs_cgi
@pytest.mark.parametrize("mode", MODES)
def test_the_page_of_cgitb_is_the_answer(tmp_path: Path, mode: str) -> None:
    with script(tmp_path, FORM, mode) as app:
        found = ask(app, query="fail=1")
        assert b"ValueError" in found.body
        assert b"as asked" in found.body
        assert not found.cut
        write(tmp_path, "import cgitb\ncgitb.enable()\n1 / 0\n")
        expected, _ = execute(tmp_path / "form.py")
        before_the_head = ask(app)
        assert before_the_head.status == "200 OK"
        assert b"ZeroDivisionError" in before_the_head.body
        # But for addresses and the time of day the page is the same.
        assert len(before_the_head.body.splitlines()) == len(expected.body.splitlines())


@pytest.mark.parametrize("mode", MODES)
def test_an_indexed_query_becomes_arguments(tmp_path: Path, mode: str) -> None:
    source = HEAD + "import sys\nprint(sys.argv[1:])"
    with script(tmp_path, source, mode, indexed_query=True) as app:
        assert ask(app, query="one+t%77o+c-").body == b"['one', 'two', 'c-']\n"
        assert ask(app, query="a=1+b").body == b"[]\n"
        assert ask(app, query="").body == b"[]\n"
        assert ask(app, b"x", query="one").body == b"[]\n"


@pytest.mark.parametrize("mode", MODES)
def test_a_link_to_a_script_finds_the_modules_beside_the_script(tmp_path: Path, mode: str) -> None:
    beside, linked = tmp_path / "beside", tmp_path / "linked"
    beside.mkdir()
    linked.mkdir()
    write(beside, "import os\nplace = os.getcwd()", "neighbour.py")
    source = HEAD + "import neighbour, sys\nprint(neighbour.place, sys.path[0], __file__, sys.argv)"
    link = linked / "form.py"
    link.symlink_to(write(beside, source))
    expected, _ = execute(link)
    app = PythonScript(link, mode)
    try:
        assert ask(app).body == expected.body
    finally:
        app.close()
