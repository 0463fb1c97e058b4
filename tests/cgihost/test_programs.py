"""Programs that people really run as CGI scripts, behind an HTTP server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateways.cgihost import CGIApplication
from gateways.cli.front import create
from tests.cgihost.calling import PATIENCE, PYTHON, call, write
from tests.server import live

BACKEND = Path("/usr/lib/git-core/git-http-backend")


@contextmanager
def serving(application: CGIApplication, socket: Path) -> Iterator[str]:
    """The application over FastCGI, and HTTP in front of it; git sends chunked uploads."""
    with live.running(application, socket) as server:
        front: Any = create(server.address, "127.0.0.1", 0)
        thread = threading.Thread(target=front.run, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{front.effective_port}"
        finally:
            # It closes in its own thread, which may do so, and close the trigger with the rest,
            # between taking the order and being woken for it.
            with suppress(OSError):
                front.trigger.pull_trigger(front.close)
            thread.join(PATIENCE)
            front.task_dispatcher.shutdown()
            assert not thread.is_alive()


def git(folder: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "Ada", f"GIT_{who}_EMAIL": "ada@example.com"}
    result = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(not BACKEND.exists(), reason="git is not installed where Debian has it")
def test_git_clones_and_pushes_five_megabytes(tmp_path: Path, socket_path: Path) -> None:
    repositories = tmp_path / "srv"
    repositories.mkdir()
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "srv/one.git")
    git(tmp_path / "srv/one.git", "config", "http.receivepack", "true")
    given = {"GIT_PROJECT_ROOT": str(repositories), "GIT_HTTP_EXPORT_ALL": "1", "HOME": "/"}
    with serving(CGIApplication(BACKEND, set=given), socket_path) as url:
        git(tmp_path, "clone", "-q", f"{url}/one.git", "work")
        work = tmp_path / "work"
        data = os.urandom(5_000_000)
        (work / "data").write_bytes(data)
        git(work, "add", "data")
        git(work, "commit", "-q", "-m", "five megabytes")
        git(work, "push", "-q", "origin", "HEAD:main")
        git(tmp_path, "clone", "-q", f"{url}/one.git", "again")
    assert (tmp_path / "again/data").read_bytes() == data


def test_a_python_script_takes_an_upload(tmp_path: Path, socket_path: Path) -> None:
    pytest.importorskip("cgi", reason="Python 3.13 has dropped the module")
    code = """
import warnings
warnings.simplefilter("ignore")
import cgi, os
form = cgi.FieldStorage()
print("Content-Type: text/plain\\n")
print(form.getfirst("name"), form["file"].filename, len(form["file"].file.read()))
"""
    write(tmp_path, "upload.py", f"#!{sys.executable}\n{code}")
    data = b"x" * 300_000
    body = (
        b'--B\r\nContent-Disposition: form-data; name="name"\r\n\r\nAda\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        + data
        + b"\r\n--B--\r\n"
    )
    with serving(CGIApplication(tmp_path), socket_path) as url:
        asked = urllib.request.Request(
            f"{url}/upload.py",
            data=body,
            headers={"Content-Type": "multipart/form-data; boundary=B"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            assert answer.read() == b"Ada a.bin 300000\n"


@pytest.mark.skipif(shutil.which("perl") is None, reason="perl is not installed")
def test_a_perl_script(tmp_path: Path) -> None:
    code = '#!/usr/bin/env perl\nprint "Content-type: text/plain\\n\\n", lc(<STDIN>), $ENV{QUERY_STRING};\n'
    write(tmp_path, "script.pl", code)
    assert call(CGIApplication(tmp_path), "/script.pl?q", body=b"HELLO ").body == b"hello q"


def test_a_script_without_execute_permission_under_an_interpreter(tmp_path: Path) -> None:
    code = "print('Status: 200 OK\\nContent-Type: text/plain\\n\\nhello')\n"
    write(tmp_path, "app.py", code, 0o600)
    app = CGIApplication(tmp_path, interpreters={".py": PYTHON[2:].split()})
    assert call(app, "/app.py").body == b"hello\n"
