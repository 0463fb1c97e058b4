"""CGI programs that people run, behind nginx/cgihost.conf as it is, each through a real daemon.

git, gitweb and cgit stand in one folder of links, as docs/cgi-scripts.md tells; the scripts are
those of samples/cgi-bin.  The Python one is run by cgi:, by both modes of pycgi: and by Apache's
mod_cgid, and gives the same bytes everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_client import HTTPAnswer, HTTPRequest, http_exchange
from tests.interop import servers

PORT = 8088
SOCKET = servers.RUN / "cgi.sock"
URL = f"http://127.0.0.1:{PORT}/cgi-bin"
SAMPLES = servers.REPOSITORY / "samples" / "cgi-bin"

GIT = "/usr/lib/git-core/git-http-backend"
GITWEB = "/usr/share/gitweb/gitweb.cgi"
CGIT = "/usr/lib/cgit/cgit.cgi"

FILE = bytes(range(256)) * 400
"""More than 64 KiB, so that it goes through a file."""

pytestmark = pytest.mark.usefixtures("nginx")


@contextlib.contextmanager
def serving(application: str, folder: Path, mount: str = "/cgi-bin") -> Iterator[None]:
    """The daemon that nginx/cgihost.conf asks, started by a command as its first lines have it."""
    command = [sys.executable, "-m", "gateways", "serve", application, "--script-name", mount]
    command += ["-b", f"fcgi+unix:{SOCKET}", "--socket-group", servers.WEB_GROUP]
    daemon = servers.Process(command, folder / "daemon.log", cwd=servers.REPOSITORY)
    try:
        daemon.wait_for([SOCKET])
        yield
    finally:
        daemon.stop()


def require(*paths: str) -> None:
    """Skip where a program is missing, and fail where CI is set, as for web servers."""
    lacks = [path for path in paths if not Path(path).exists()]
    message = f"missing: {', '.join(lacks)}; sudo sh tests/install-servers.sh installs them"
    if lacks and os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    if lacks:
        pytest.skip(message)


def ask(
    target: str, body: bytes | list[bytes] = b"", kind: str = "", port: int = PORT
) -> HTTPAnswer:
    headers: list[tuple[str, str | bytes]] = [("Host", f"127.0.0.1:{port}")]
    if kind:
        headers.append(("Content-Type", kind))
    request = HTTPRequest("POST" if body else "GET", target.encode(), headers, body)
    return http_exchange("127.0.0.1", port, request)


def git(folder: Path, *arguments: str) -> str:
    """Run git with no configuration but this; return what it prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        **{
            f"GIT_{who}_{what}": "ada@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# Repositories.


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bare repository, srv/one.git, and links to what shows it in cgi-bin."""
    require(GIT, GITWEB, CGIT)
    folder = tmp_path_factory.mktemp("git")
    programs = folder / "cgi-bin"
    programs.mkdir()
    for name, target in (("git", GIT), ("gitweb", GITWEB), ("cgit", CGIT)):
        (programs / name).symlink_to(target)
    (folder / "srv").mkdir()
    git(folder, "init", "-q", "--bare", "-b", "main", "srv/one.git")
    git(folder / "srv/one.git", "config", "http.receivepack", "true")
    (folder / "gitweb.conf").write_text(
        f'$projectroot = "{folder}/srv";\n$feature{{"snapshot"}}{{"default"}} = ["tgz"];\n'
    )
    (folder / "cgitrc").write_text(
        f"virtual-root=/cgi-bin/cgit/\nsnapshots=tar.gz\nrepo.url=one\nrepo.path={folder}/srv/one.git\n"
    )
    (folder / "first").mkdir()
    git(folder / "first", "init", "-q", "-b", "main")
    (folder / "first/readme.txt").write_text("hello from the repository\n")
    git(folder / "first", "add", ".")
    git(folder / "first", "commit", "-q", "-m", "the first commit")
    git(folder / "first", "push", "-q", "../srv/one.git", "main")
    return folder


@pytest.fixture
def repositories(laid_out: Path) -> Iterator[Path]:
    """The same, while the daemon serves it."""
    settings = {
        "GIT_PROJECT_ROOT": laid_out / "srv",
        "GIT_HTTP_EXPORT_ALL": 1,
        "GITWEB_CONFIG": laid_out / "gitweb.conf",
        "CGIT_CONFIG": laid_out / "cgitrc",
    }
    sets = "".join(f"&set={name}={value}" for name, value in settings.items())
    with serving(f"cgi:{laid_out / 'cgi-bin'}?follow_symlinks=yes{sets}", laid_out):
        yield laid_out


def test_git_clones_and_pushes_five_megabytes(repositories: Path) -> None:
    git(repositories, "clone", "-q", f"{URL}/git/one.git", "work")
    work = repositories / "work"
    data = os.urandom(5_000_000)
    (work / "data").write_bytes(data)
    git(work, "checkout", "-q", "-b", "large")
    git(work, "add", "data")
    git(work, "commit", "-q", "-m", "five megabytes")
    git(work, "push", "-q", "origin", "large")
    git(repositories, "clone", "-q", "-b", "large", f"{URL}/git/one.git", "again")
    assert (repositories / "again/data").read_bytes() == data


def snapshot(answer: HTTPAnswer) -> bytes:
    """The file of the repository in the archive."""
    assert answer.status == 200
    with tarfile.open(fileobj=io.BytesIO(answer.body), mode="r:gz") as archive:
        (name,) = (each for each in archive.getnames() if each.endswith("readme.txt"))
        found = archive.extractfile(name)
        assert found is not None
        return found.read()


def test_gitweb_shows_a_repository(repositories: Path) -> None:
    page = ask("/cgi-bin/gitweb")
    assert (page.status, b"one.git" in page.body) == (200, True)
    summary = ask("/cgi-bin/gitweb?p=one.git;a=summary")
    assert b"the first commit" in summary.body
    assert summary.complete
    # The same by path, which gitweb takes from PATH_INFO.
    assert b"the first commit" in ask("/cgi-bin/gitweb/one.git/shortlog").body
    blob = ask("/cgi-bin/gitweb?p=one.git;a=blob_plain;f=readme.txt;hb=main")
    assert blob.body == b"hello from the repository\n"
    archive = ask("/cgi-bin/gitweb?p=one.git;a=snapshot;h=main;sf=tgz")
    assert snapshot(archive) == blob.body
    assert ask("/cgi-bin/gitweb?p=none.git;a=summary").status == 404


def test_cgit_shows_a_repository(repositories: Path) -> None:
    index = ask("/cgi-bin/cgit/")
    assert (index.status, b"/cgi-bin/cgit/one/" in index.body) == (200, True)
    assert b"the first commit" in ask("/cgi-bin/cgit/one/").body
    assert ask("/cgi-bin/cgit/one/plain/readme.txt").body == b"hello from the repository\n"
    assert snapshot(ask("/cgi-bin/cgit/one/snapshot/one-main.tar.gz")) == (
        b"hello from the repository\n"
    )
    assert ask("/cgi-bin/cgit/none/").status == 404


# Forms.


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[None]:
    """The scripts of samples/cgi-bin behind nginx."""
    with serving(f"cgi:{SAMPLES}", tmp_path):
        yield


def multipart(content: bytes) -> tuple[bytes, str]:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="who"\r\n\r\nJos\xc3\xa9\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a b.bin"\r\n'
        b"Content-Type: application/x-thing\r\n\r\n" + content + b"\r\n--B--\r\n"
    )
    return body, "multipart/form-data; boundary=B"


URLENCODED = "application/x-www-form-urlencoded"


@pytest.mark.usefixtures("scripts")
def test_a_form_in_perl() -> None:
    if subprocess.run(["perl", "-MCGI", "-e", "1"], check=False, capture_output=True).returncode:
        require("/usr/share/perl5/CGI.pm")
    answer = ask("/cgi-bin/form.pl/extra?b=2&a=caf%C3%A9&a=x")
    assert (answer.header("Content-Type") or "").lower() == "text/plain; charset=utf-8"
    assert (answer.header("Set-Cookie") or "").startswith("seen=yes")
    assert answer.body.decode() == "GET /extra\na: café\na: x\nb: 2\n"
    answer = ask("/cgi-bin/form.pl", b"a=1+2&b=%26", URLENCODED)
    assert answer.body == b"POST \na: 1 2\nb: &\n"
    body, kind = multipart(FILE)
    for sent in (body, [body[:100], body[100:]]):
        answer = ask("/cgi-bin/form.pl", sent, kind)
        digest = hashlib.sha256(FILE).hexdigest()
        assert answer.body.decode() == f"POST \nfile: file a b.bin, sha256 {digest}\nwho: José\n"


@pytest.mark.usefixtures("scripts")
def test_a_script_in_the_shell() -> None:
    answer = ask("/cgi-bin/report.sh/a%20b?x=%20")
    assert answer.body.decode().splitlines()[0] == "GET /cgi-bin/report.sh/a b?x=%20"
    assert answer.body.endswith(b"0 of no bytes\n")
    for sent in (FILE, [FILE[:10], FILE[10:]]):
        assert ask("/cgi-bin/report.sh", sent).body.endswith(b"102400 of 102400 bytes\n")


# One script everywhere.

PYTHON = servers.DEBIAN_PYTHON
SENT: list[tuple[str, bytes, str]] = [
    ("?a=1&b=caf%C3%A9&a=2", b"", ""),
    ("", b"a=1+2&b=%26", URLENCODED),
    ("?q=1", *multipart(b"")),
    ("?q=1", *multipart(FILE)),
    ("", *multipart(bytes(3_000_000))),
]

APACHE = """\
#   a2enmod cgid
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    ScriptAlias "/cgi-bin/" "{folder}/"
    <Directory "{folder}">
        Require all granted
    </Directory>
</VirtualHost>
"""


def answers(port: int = PORT) -> list[bytes]:
    """What the script answers to everything."""
    found = []
    for query, body, kind in SENT:
        answer = ask(f"/cgi-bin/upload.py{query}", body, kind, port)
        assert (answer.status, answer.complete) == (200, True), answer
        assert answer.header("Content-Type") == "text/plain; charset=utf-8"
        found.append(answer.body)
    return found


@pytest.fixture(scope="module")
def of_apache(folder: Path, state: Path) -> list[bytes]:
    """What the script answers as a plain CGI script of Apache's mod_cgid."""
    servers.require("apache")
    require_cgi()
    home = folder / "plain-apache"
    (home / "cgi-bin").mkdir(parents=True)
    shutil.copy(SAMPLES / "upload.py", home / "cgi-bin")
    (home / "cgi-bin" / "upload.py").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
    (home / "site.conf").write_text(APACHE.format(port=port, folder=home / "cgi-bin"))
    main = servers.apache_main(home, [home / "site.conf"], state)
    process = servers.Process(servers.apache_command(main), home / "output.log", cwd=home)
    try:
        process.wait_for([port])
        return answers(port)
    finally:
        process.stop()


def require_cgi() -> None:
    """Skip where the distribution's Python has no module cgi any more."""
    done = subprocess.run(
        [PYTHON, "-W", "ignore", "-c", "import cgi"], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"{PYTHON} has no module cgi: 3.13 dropped it")


@pytest.mark.parametrize("kind", ["cgi", "pycgi+fork", "pycgi+inprocess"])
def test_a_script_in_python_gives_the_same_bytes_everywhere(
    kind: str, of_apache: list[bytes], tmp_path: Path
) -> None:
    assert f"sha256 {hashlib.sha256(FILE).hexdigest()}\n".encode() in of_apache[3]
    if kind == "cgi":
        application, mount = f"cgi:{SAMPLES}", "/cgi-bin"
    else:
        application = f"{kind}:{SAMPLES}/upload.py?interpreter={PYTHON}"
        mount = "/cgi-bin/upload.py"
    with serving(application, tmp_path, mount):
        for _ in range(2):
            assert answers() == of_apache
        query, body, sent_as = SENT[3]
        chunked = ask(f"/cgi-bin/upload.py{query}", [body[:100], body[100:]], sent_as)
        assert chunked.body == of_apache[3]
