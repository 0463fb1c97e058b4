"""Warm CGI under web servers that run nothing but CGI: Apache's mod_cgid and lighttpd's mod_cgi."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.http_client import HTTPAnswer, HTTPRequest, http_exchange
from tests.interop import servers
from tests.warm.sites import APPLICATION

APACHE = """
#   a2enmod cgid
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    ScriptAlias "/app" "{folder}/app.cgi"
    <Directory "{folder}">
        Require all granted
    </Directory>
</VirtualHost>
"""

LIGHTTPD = """
server.bind = "127.0.0.1"
server.port = {port}
server.username = "www-data"
server.groupname = "www-data"
server.document-root = "{folder}"
server.modules = ( "mod_alias", "mod_cgi" )
alias.url = ( "/app" => "{folder}/app.cgi" )
cgi.assign = ( ".cgi" => "" )
server.errorlog = "{folder}/lighttpd.log"
"""


class Place:
    """A web server's port, and the folder that its CGI file is in."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def ask(self, path: str = "/", body: bytes | list[bytes] = b"") -> HTTPAnswer:
        method = "POST" if body else "GET"
        request = HTTPRequest(method, f"/app{path}".encode(), [], body)
        return http_exchange("127.0.0.1", self.port, request)

    def daemons(self) -> set[int]:
        found = set()
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if str(self.folder / "app.py").encode() in each.read_bytes().split(b"\0"):
                    found.add(int(each.parent.name))
        return found


@pytest.fixture(params=[(s, k) for s in ("apache", "lighttpd") for k in ("c", "python")], ids=str)
def place(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Place]:
    server, kind = request.param
    servers.require("apache")
    if server == "lighttpd" and not servers.program("lighttpd"):
        if os.environ.get("CI") == "true":
            pytest.fail("the program lighttpd is missing", pytrace=False)
        pytest.skip("the program lighttpd is missing")
    folder = servers.shared_folder(short_path / "site")
    shutil.copytree(servers.REPOSITORY / "gateways", folder / "gateways")
    (folder / "app.py").write_text(APPLICATION)
    # The interpreter is one that www-data can execute, and gateways a folder that was copied.
    program = (
        "from gateways.warm import Plan; from gateways.warm.writing import write_stub;"
        f"write_stub(Plan('app.py', {str(folder)!r}), 'app.cgi', python={kind == 'python'},"
        f" runtime_dir={str(folder / 'run')!r})"
    )
    subprocess.run([servers.DEBIAN_PYTHON, "-c", program], cwd=folder, check=True)
    short_path.chmod(0o755)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    if server == "apache":
        configuration = short_path / "site.conf"
        configuration.write_text(APACHE.format(port=port, folder=folder))
        main = servers.apache_main(short_path, [configuration], short_path)
        command = servers.apache_command(main)
    else:
        main = short_path / "lighttpd.conf"
        main.write_text(LIGHTTPD.format(port=port, folder=folder))
        command = [servers.program("lighttpd"), "-D", "-f", str(main)]
    process = servers.Process(command, short_path / "output.log", cwd=short_path)
    here = Place(folder, port)
    try:
        process.wait_for([port])
        yield here
    finally:
        process.stop()
        for pid in here.daemons():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_fifty_visitors_at_once_meet_one_daemon(place: Place) -> None:
    answers: list[HTTPAnswer] = []

    def visit(number: int) -> None:
        answers.append(place.ask("/", b"x" * 100 if number % 2 else b""))

    visitors = [threading.Thread(target=visit, args=(each,)) for each in range(50)]
    for each in visitors:
        each.start()
    for each in visitors:
        each.join()
    assert [each.status for each in answers] == [200] * 50
    pids = {each.body.split()[0] for each in answers}
    assert {each.body.split()[1] for each in answers} == {b"warm"}
    assert {int(each) for each in pids} == place.daemons()
    assert len(pids) == 1


def test_bodies_and_variables_arrive_as_in_plain_CGI(place: Place) -> None:
    assert place.ask("/", bytes(3_000_000)).body.endswith(b" warm 3000000")
    assert place.ask("/", [b"in", b"two pieces"]).body.endswith(b" warm 12")
    warm = place.ask("/environ?a=1").body
    (place.folder / "run").chmod(0o755)  # now the stub does without the daemon
    plain = place.ask("/environ?a=1").body
    assert _steady(warm) == _steady(plain)
    assert b"SCRIPT_NAME='/app'" in warm
    assert b"PATH_INFO='/environ'" in warm


def _steady(environ: bytes) -> list[bytes]:
    # LC_CTYPE is what an interpreter sets for itself in a C locale.
    own = (b"REMOTE_PORT", b"UNIQUE_ID", b"LC_CTYPE")
    return [line for line in environ.splitlines() if not line.startswith(own)]


def test_the_daemon_keeps_nothing_of_the_web_servers(place: Place) -> None:
    pid = int(place.ask().body.split()[0])
    kept = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since: it was no one's but the daemon's
            kept.append(os.readlink(each))
    own = ("/dev/null", "anon_inode:", "socket:", "pipe:", str(place.folder / "run"))
    assert [each for each in kept if not each.startswith(own)] == []
    assert Path(f"/proc/{pid}").stat().st_uid == (place.folder / "run").stat().st_uid != 0
