"""samples/shared-hosting as a customer of a host uses it: copied by FTP, run by Apache as www-data.

Three sites of one Apache that knows nothing of them but `AllowOverride All`: one that mod_fcgid runs,
one that is CGI, and one that is warm CGI.  Each is there twice, at the root and below /sub, and the
whole once more as an Alias at another port.  There is a password for /a/secret, which nobody has.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from gateways.doctor import examine
from tests.http_client import HTTPAnswer, HTTPRequest, http_exchange
from tests.interop import servers
from tests.interop.servers import REPOSITORY, wait_until

SAMPLES = REPOSITORY / "samples" / "shared-hosting"
MOUNTS = ("", "/sub")
KINDS = ("fastcgi", "cgi", "warm")
MAX_PROCESSES = 2

# All that the host's owner has set; the name of the modules is for `servers.apache_main`.
MAIN = """\
#   a2enmod fcgid
#   a2enmod cgid
#   a2enmod rewrite
#   a2enmod auth_basic
#   a2enmod authn_file
#   a2enmod authz_user
<FilesMatch "^\\.ht">
    Require all denied
</FilesMatch>
"""

SITE = """\
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    DocumentRoot {root}
    <Directory {root}>
        Options FollowSymLinks
        AllowOverride All
        Require all granted
    </Directory>
    FcgidMaxProcessesPerClass {processes}
    FcgidMaxRequestLen 10485760
    <LocationMatch "^/(?:sub/)?a/secret">
        AuthType Basic
        AuthName members
        AuthUserFile /dev/null
        Require valid-user
    </LocationMatch>
</VirtualHost>
"""

ALIASES = """\
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    DocumentRoot /var/empty
{aliases}
</VirtualHost>
"""

ALIAS = """\
    Alias /~{kind} {root}
    <Directory {root}>
        Options FollowSymLinks
        AllowOverride All
        Require all granted
    </Directory>
"""


class Site:
    """A customer's home folder, with public_html, and the port at which Apache serves it."""

    def __init__(self, home: Path, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port
        self.alias_port = 0
        self.root = home / "public_html"
        self.program = "dispatch.fcgi" if kind == "fastcgi" else "app.cgi"

    def lay_out(self) -> None:
        """Copy everything, at the root and below /sub, and chmod 755 the program."""
        for mount in MOUNTS:
            folder = self.root / mount.strip("/")
            upload(SAMPLES / "fastcgi", folder)
            if self.kind != "fastcgi":
                (folder / "dispatch.fcgi").unlink()
                upload(SAMPLES / "cgi", folder)
            if self.kind == "warm":
                program = folder / self.program
                text = program.read_text()
                program.write_text(text.replace("WARM_THREADS = 0", "WARM_THREADS = 2"))
            upload(REPOSITORY / "gateways", folder / "gateways")
            (folder / self.program).chmod(0o755)
        give(self.root.parent)

    def log(self, mount: str = "") -> Path:
        return (self.root / mount.strip("/")).parent / "crash.log"

    def ask(
        self, target: str, method: str = "GET", body: bytes = b"", **headers: str
    ) -> HTTPAnswer:
        given: list[tuple[str, str | bytes]] = [
            (name.replace("_", "-"), value) for name, value in headers.items()
        ]
        request = HTTPRequest(method, target.encode(), given, body)
        return http_exchange("127.0.0.1", self.port, request)

    def text(self, target: str) -> str:
        answer = self.ask(target)
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def write(self, name: str, text: str) -> None:
        """Upload one file anew, as FTP does: the old one is overwritten, not replaced."""
        path = self.root / name
        path.write_text(text)
        give(path)

    def restart(self) -> None:
        """Upload tmp/restart.txt anew."""
        path = self.root / "tmp" / "restart.txt"
        os.utime(path, ns=(time.time_ns(), time.time_ns()))


def upload(source: Path, target: Path) -> None:
    """Copy a folder's files as FTP does: contents only, no modes, no links."""
    for path in sorted(source.rglob("*")):
        if "__pycache__" in path.parts or path.is_dir():
            continue
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o644)


def give(path: Path) -> None:
    """On such a host everything belongs to the user that programs run as."""
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        shutil.chown(each, "www-data", "www-data")


@contextmanager
def hosting(folder: Path) -> Iterator[dict[str, Site]]:
    """The Apache of the host, with a site of each kind."""
    with ExitStack() as stack:
        listeners = (socket.create_server(("127.0.0.1", 0)) for _ in ("aliases", *KINDS))
        held = [stack.enter_context(each) for each in listeners]
        alias_port, *ports = [each.getsockname()[1] for each in held]
    sites = {}
    text = MAIN
    for kind, port in zip(KINDS, ports, strict=True):
        site = sites[kind] = Site(folder / kind, kind, port)
        site.alias_port = alias_port
        site.lay_out()
        text += SITE.format(port=port, root=site.root, processes=MAX_PROCESSES)
    aliases = "".join(ALIAS.format(kind=kind, root=site.root) for kind, site in sites.items())
    text += ALIASES.format(port=alias_port, aliases=aliases)
    configuration = folder / "hosting.conf"
    configuration.write_text(text)
    apache = folder / "apache"
    apache.mkdir()
    servers.shared_folder(apache / "fcgid")
    main = servers.apache_main(apache, [configuration], servers.shared_folder(folder / "state"))
    servers.LOGS.append(apache / "error.log")
    process = servers.Process(servers.apache_command(main), apache / "output.log", cwd=apache)
    try:
        process.wait_for([alias_port, *ports])
        yield sites
    finally:
        process.stop()
        end_warm(sites["warm"])


@pytest.fixture(scope="module")
def sites(request: pytest.FixtureRequest) -> Iterator[dict[str, Site]]:
    servers.require("apache")
    folder: Path = request.getfixturevalue("folder") / "hosting"
    folder.mkdir()
    with hosting(folder) as running:
        yield running


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


@pytest.fixture(params=["fastcgi", "warm"])
def resident(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Iterator[Site]:
    """A site whose processes stay; its application is what it was, in the end."""
    site = sites[request.param]
    yield site
    original = (SAMPLES / "fastcgi" / "application.py").read_text()
    if (site.root / "application.py").read_text() != original:
        site.write("application.py", original)
        site.restart()
        wait_until(lambda: "It works" in body_of(site), "the sample is served again")


def serves(site: Site, text: str) -> bool:
    return text in body_of(site)


def body_of(site: Site) -> str:
    return site.ask("/").body.decode()


@pytest.mark.parametrize("mount", MOUNTS)
def test_pretty_URLs_reach_the_application_and_its_links_lead_back(site: Site, mount: str) -> None:
    for path in ("/", "/a/pretty/url", "/a/b%20c/%C3%A9", "/a/x?y=1"):
        page = site.text(mount + path)
        shown = {"/a/b%20c/%C3%A9": "/a/b c/é", "/a/x?y=1": "/a/x"}.get(path, path)
        assert f"This is the page {shown}," in page
        assert f'href="{mount}/a/pretty/url"' in page
        assert site.program not in page
    assert site.ask(f"{mount}/nothing").status == 404


@pytest.mark.parametrize("mount", MOUNTS)
def test_apache_itself_answers_for_static_files(site: Site, mount: str) -> None:
    answer = site.ask(f"{mount}/static/style.css")
    assert answer.status == 200
    assert answer.body == (SAMPLES / "fastcgi" / "static" / "style.css").read_bytes()
    assert answer.header("Last-Modified")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/application.py",
            "/application.py/",
            "/application.py/x",
            "/APPLICATION.PY",
            "/static/../application.py",
            "//application.py",
        ),
        *(
            "/static/%2e%2e/application.py",
            "/dispatch.fcgi",
            "/app.cgi",
            "/dispatch.fcgi/../application.py",
        ),
        *("/gateways/", "/gateways/wsgi.py", "/gateways", "/gateways/py.typed", "/static/"),
        *("/.htaccess", "/tmp/", "/tmp/restart.txt", "/crash.log", "/../crash.log"),
        *("/__pycache__/", "/application.py%00", "/application.py%20", "/static/..%2fapp.py"),
    ],
)
@pytest.mark.parametrize("mount", MOUNTS)
def test_nothing_else_can_be_read(site: Site, mount: str, path: str) -> None:
    site.ask(f"{mount}/crash")  # so that there is a log, where there may be one
    answer = site.ask(mount + path)
    for source in (
        b"import ",
        b"RewriteRule",
        b"def application",
        b"Upload this file",
        b"Index of",
    ):
        assert source not in answer.body
    assert answer.status in (301, 400, 403, 404)


@pytest.mark.parametrize(
    "path",
    [
        *("/PROGRAM", "/PROGRAM/", "/PROGRAM?/a/secret", "/PROGRAM/a/secret"),
        *("//PROGRAM/a/secret", "/PROGRAM//a/secret", "/%2e/PROGRAM/a/secret"),
        *("/a/../PROGRAM/a/secret", "/PROGRAM/x/../a/secret"),
        *("/static/../PROGRAM/a/secret", "/static/%2e%2e/PROGRAM/a/secret"),
    ],
)
@pytest.mark.parametrize("mount", MOUNTS)
def test_the_program_has_no_URL_of_its_own(site: Site, mount: str, path: str) -> None:
    for name in (
        site.program,
        site.program.replace(".", "%2E"),
        site.program.replace("p", "%70"),
        site.program.upper(),
    ):
        answer = site.ask(mount + path.replace("PROGRAM", name))
        assert answer.status == 404, name
        # Apache's own answer: the application has not been asked.
        assert b"<title>404 Not Found" in answer.body, name


@pytest.mark.parametrize("path", ["/a/secret", "//a//secret/x", "/x/../a/secret"])
@pytest.mark.parametrize("mount", MOUNTS)
def test_a_refused_path_does_not_reach_the_application(site: Site, mount: str, path: str) -> None:
    program = f"{mount}/{site.program}"
    assert site.ask(mount + path).status == 401
    with addition(site, mount, f"ErrorDocument 401 {program}\n"):
        # It is asked for its own URL without a path, for which it has no page.
        assert b"There is no such page" in site.ask(mount + path).body
    rewrite = f"RewriteEngine On\nRewriteRule ^old/(.*)$ {mount}/a/secret/$1 [L]\n"
    with addition(site, mount, f"ErrorDocument 401 {program}\n{rewrite}"):
        assert b"There is no such page" in site.ask(f"{mount}/old/users").body
    with addition(site, mount, f"ErrorDocument 401 {mount}/a/sorry\n"):
        answer = site.ask(mount + path)
        assert b"This is the page /a/sorry," in answer.body


@contextmanager
def addition(site: Site, mount: str, text: str) -> Iterator[None]:
    """What the owner has put before the lines of .htaccess."""
    path = site.root / mount.strip("/") / ".htaccess"
    original = path.read_text()
    path.write_text(text + original)
    try:
        yield
    finally:
        path.write_text(original)


@pytest.mark.parametrize(
    "name",
    [
        *("x.py", "X.PY", "x.pyc", "crash.log", "crash.log.1", "x.db", "x.sqlite3", "x.db-wal"),
        *("x.py~", "#x.py#", "x.py.bak", "x.py.orig", "x.py.old", ".x.py.swp", "x.sqlite-journal"),
    ],
)
def test_files_of_some_names_are_closed_even_where_Apache_answers(site: Site, name: str) -> None:
    path = site.root / "static" / name
    path.write_text("geheim")
    try:
        assert site.ask(f"/static/{name.replace('#', '%23')}").status == 403
    finally:
        path.unlink()


@pytest.mark.parametrize("name", ["x.js", "log.txt", "x.db.js", "x.log.html", "backup.css"])
def test_files_of_other_names_are_open(site: Site, name: str) -> None:
    path = site.root / "static" / name
    path.write_text("frei")
    try:
        assert site.text(f"/static/{name}") == "frei"
    finally:
        path.unlink()


def test_an_upload_arrives(site: Site) -> None:
    body = os.urandom(3_000_000)
    answer = site.ask("/upload", "POST", body, Content_Type="application/octet-stream")
    assert answer.body.decode().split() == [
        *("3000000", "bytes,", "SHA-256"),
        hashlib.sha256(body).hexdigest(),
    ]


def test_a_fault_shows_an_id_and_the_log_has_the_rest(site: Site) -> None:
    answer = site.ask("/crash?x=y", Cookie="geheim", Accept="text/html")
    assert answer.status == 500
    assert b"RuntimeError" not in answer.body
    reference = answer.body.decode().split()[-1]
    assert re.fullmatch("[0-9a-f]{8}", reference)
    log = site.log()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert log.owner() == "www-data"
    (entry,) = (part for part in re.split(r"(?m)^error ", log.read_text()) if reference in part)
    assert "GET /crash?x=y HTTP/1.1, from 127.0.0.1" in entry
    assert "RuntimeError: this is what a fault looks like" in entry
    assert "geheim" not in entry


def test_a_crash_log_that_visitors_could_ask_for_is_not_written(site: Site) -> None:
    assert site.ask("/sub/crash").status == 500
    assert not site.log("/sub").exists()


def test_nor_where_the_site_is_an_alias(site: Site) -> None:
    """DOCUMENT_ROOT is then elsewhere, and the folder above the program's is served all the same."""
    request = HTTPRequest("GET", f"/~{site.kind}/sub/crash".encode(), [], b"")
    answer = http_exchange("127.0.0.1", site.alias_port, request)
    assert b"The application failed. Reference: " in answer.body
    assert not site.log("/sub").exists()


DUMP = """
import json
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    names = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "HTTP_AUTHORIZATION", "wsgi.multithread")
    return [json.dumps({name: environ.get(name) for name in names}).encode()]
"""


def test_a_password_reaches_the_application(site: Site) -> None:
    site.write("application.py", DUMP)
    site.restart()
    wait_until(partial(serves, site, "wsgi"), "the new application is served")
    try:
        seen = site.ask("/a?b", Authorization="Basic eDp5").json()
    finally:
        site.write("application.py", (SAMPLES / "fastcgi" / "application.py").read_text())
        site.restart()
    assert seen == {
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a",
        "QUERY_STRING": "b",
        "HTTP_AUTHORIZATION": "Basic eDp5",
        "wsgi.multithread": site.kind == "warm",
    }
    wait_until(partial(serves, site, "It works"), "the sample is served again")


class Load(threading.Thread):
    """Visitors who ask again and again; what they get that is no page is kept."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.over = threading.Event()
        self.answers = 0
        self.wrong: list[str] = []
        self.seen: set[str] = set()

    def has_seen(self, name: str) -> bool:
        return name in self.seen

    def run(self) -> None:
        while not self.over.is_set():
            try:
                answer = self.site.ask("/")
            except Exception as error:
                self.wrong.append(repr(error))
                continue
            self.answers += 1
            text = answer.body.decode()
            if answer.status != 200:
                self.wrong.append(f"{answer.status} {text[:200]}")
            self.seen |= set(re.findall(r"release \d+", text))


def test_new_code_is_served_after_a_touch_and_nobody_gets_an_error(resident: Site) -> None:
    source = (resident.root / "application.py").read_text()
    visitors = [Load(resident) for _ in range(3)]
    for each in visitors:
        each.start()
    try:
        for number in range(1, 4):
            resident.write("application.py", source.replace("It works", f"release {number}"))
            resident.restart()
            for each in visitors:
                wait_until(partial(each.has_seen, f"release {number}"), "the release", 30)
    finally:
        for each in visitors:
            each.over.set()
        for each in visitors:
            each.join(30)
    assert [each.wrong for each in visitors] == [[], [], []]
    assert all(each.answers > 10 for each in visitors)


def test_code_that_cannot_be_loaded_shows_an_id_until_it_is_mended(resident: Site) -> None:
    source = (resident.root / "application.py").read_text()
    resident.write("application.py", "import a_module_that_this_host_lacks\n")
    resident.restart()
    wait_until(lambda: resident.ask("/").status == 500, "the broken code is served")
    reference = body_of(resident).split()[-1]
    text = resident.log().read_text()
    assert f"error {reference} at " in text
    assert "No module named 'a_module_that_this_host_lacks'" in text.rpartition(reference)[2]
    resident.write("application.py", source)
    resident.restart()
    wait_until(lambda: resident.ask("/").status == 200, "the mended code is served")


def test_threads_and_processes_stay_within_the_budget(resident: Site) -> None:
    visitors = [Load(resident) for _ in range(4)]
    for each in visitors:
        each.start()
    try:
        wait_until(lambda: sum(each.answers for each in visitors) > 100, "a hundred answers", 60)
        processes = of_site(resident)
        assert 1 <= len(processes) <= MAX_PROCESSES
        # One thread under mod_fcgid; the two of the warm process and the one that hands out.
        most = {"fastcgi": 1, "warm": 3}[resident.kind]
        assert all(status(pid, "Threads") <= most for pid in processes)
        # 19 MiB where it was measured; hosts commonly allow 256 MiB and more.
        assert all(status(pid, "VmRSS") < 40_000 for pid in processes)
    finally:
        for each in visitors:
            each.over.set()
        for each in visitors:
            each.join(30)


def of_site(site: Site) -> list[int]:
    """The processes that serve the site's root, and stay."""
    program = {"fastcgi": str(site.root / site.program), "warm": f"{site.root}/application.py"}
    return running_with(lambda words: program.get(site.kind, "") in words)


def running_with(wanted: Callable[[list[str]], bool]) -> list[int]:
    """The processes whose command line is wanted."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if wanted(words):
            found.append(int(path.parent.name))
    return found


def end_warm(site: Site) -> None:
    """End the daemons, which would wait five minutes for another request."""

    def daemons() -> list[int]:
        return running_with(lambda words: any(str(site.root) in each for each in words))

    for pid in daemons():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not daemons(), "the warm daemons have ended")


def status(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"(?m)^{name}:\s+(\d+)", text)
    assert found
    return int(found[1])


# What goes wrong when files are copied.


def test_a_lost_mode_and_wrong_line_ends_are_an_error_that_doctor_explains(site: Site) -> None:
    program = site.root / "sub" / site.program
    content = program.read_bytes()
    program.write_bytes(content.replace(b"\n", b"\r\n"))
    program.chmod(0o644)
    try:
        # One that runs already ends by itself when its file changes.
        wait_until(lambda: site.ask("/sub/a/x").status in (403, 500, 503), "Apache cannot run it")
        codes = {finding.code for finding in examine(str(program), user="www-data").findings}
        assert {"not-executable", "crlf"} <= codes
    finally:
        program.write_bytes(content)
        program.chmod(0o755)
    wait_until(lambda: site.ask("/sub/a/x").status == 200, "the mended program runs")


def test_a_missing_folder_is_told_in_plain_words(sites: dict[str, Site]) -> None:
    site = sites["cgi"]
    moved = (site.root / "gateways").rename(site.root / "elsewhere")
    try:
        answer = site.ask("/")
        assert answer.status == 500
        assert b"The folder gateways/ beside app.cgi is missing or incomplete" in answer.body
    finally:
        moved.rename(site.root / "gateways")
