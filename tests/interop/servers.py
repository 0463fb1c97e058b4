"""Starts real web servers on the project's own configuration files, and the daemon behind them.

Each server runs in the foreground below a main configuration made here, which includes the files
of `nginx/` and `apache/` as they are: what the tests prove is what people copy.  Those files name
fixed ports of 127.0.0.1 and sockets in /run/gateways, so one machine runs one such test session at
a time, and it runs as root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NAIVE = Path(__file__).parent / "naive"
RUN = Path("/run/gateways")
FASTCGI_SOCKET = RUN / "app.sock"
SCGI_SOCKET = RUN / "scgi.sock"
APPLICATION = "tests.interop.application:application"

DEBIAN_PYTHON = "/usr/bin/python3"
"""Apache and lighttpd start programs as www-data, which cannot execute an interpreter in a private home."""

WEB_GROUP = "www-data"

LOGS: list[Path] = []
"""Everything that servers have written so far; a failed test shows what was added during it."""

_PROGRAMS = {
    "nginx": ("nginx",),
    "apache": ("apache2",),
    "lighttpd": ("lighttpd",),
    "process managers": ("spawn-fcgi", "multiwatch", "systemd-socket-activate"),
    "curl": ("curl",),
    "openssl": ("openssl",),
}
_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def program(name: str) -> str:
    """The full path of a program, which an ordinary user's PATH may lack; "" where there is none."""
    return shutil.which(name, path=_PATH) or ""


def missing(*servers: str) -> list[str]:
    """What this machine lacks to run the servers named, in words."""
    lacks = [
        f"the program {name}"
        for server in servers
        for name in _PROGRAMS[server]
        if not program(name)
    ]
    if "apache" in servers and not Path("/usr/lib/apache2/modules/mod_fcgid.so").exists():
        lacks.append("Apache's mod_fcgid")
    if {"apache", "lighttpd"} & {*servers} and not _recent(DEBIAN_PYTHON):
        lacks.append(f"Python 3.11 or later as {DEBIAN_PYTHON}")
    if os.geteuid():
        lacks.append("root (the configurations name sockets in /run)")
    return lacks


def require(*servers: str) -> None:
    """Skip the test where a server is missing, saying what; under CI=true fail it."""
    lacks = missing(*servers)
    if not lacks:
        return
    message = f"missing: {', '.join(lacks)}; sudo sh tests/install-servers.sh installs servers"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def _recent(python: str) -> bool:
    asks = "import sys; sys.exit(sys.version_info < (3, 11))"
    with contextlib.suppress(FileNotFoundError):
        return not subprocess.run([python, "-c", asks], check=False).returncode
    return False


def wait_until(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Return once the condition holds; AssertionError, naming `what`, when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


def listens(address: Path | int) -> bool:
    """Whether somebody accepts connections at the socket or the port of 127.0.0.1."""
    family = socket.AF_INET if isinstance(address, int) else socket.AF_UNIX
    with socket.socket(family) as sock:
        try:
            sock.connect(("127.0.0.1", address) if isinstance(address, int) else str(address))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Process:
    """A server in the foreground: started, waited for, stopped; its words kept in a file."""

    def __init__(self, command: list[str], log: Path, *, cwd: Path, **environment: str) -> None:
        LOGS.append(log)
        self.log = log
        # Its own session: Ctrl-C in the terminal reaches pytest, which stops it in order.  setpriv
        # (of Debian's util-linux) makes the kernel stop it where pytest is killed outright.
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def wait_for(self, addresses: Iterable[Path | int]) -> None:
        """Return once it listens at all of them; fail the test with its log when it does not."""
        for address in addresses:
            try:
                wait_until(partial(self._ended_or_listens, address), f"listening at {address}")
                if self.process.poll() is None:
                    continue
                fault = f"ended with {self.process.returncode}"
            except AssertionError as error:
                self.stop()
                fault = str(error)
            # Without a traceback: pytest repeats it for each test that wanted this server.
            pytest.fail(f"{self.process.args!r}: {fault}; it says:\n{self.said()}", pytrace=False)

    def _ended_or_listens(self, address: Path | int) -> bool:
        return self.process.poll() is not None or listens(address)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """Ask it to stop, and insist after ten seconds."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
                raise AssertionError(f"{self.process.args!r} did not stop on SIGTERM") from None


@contextlib.contextmanager
def machine() -> Iterator[Path]:
    """The one session's hold on /run/gateways, and a temporary folder that everybody can read.

    Another session is waited for, up to four minutes.
    """
    with open("/run/lock/gateways-tests", "w") as lock:
        wait_until(lambda: _locked(lock.fileno()), "another test session has ended", 240)
        made = not RUN.exists()
        RUN.mkdir(mode=0o755, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="gateways-interop-"))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            if made:
                # Only a server that did not clean up leaves something: then it stays to be seen.
                with contextlib.suppress(OSError):
                    RUN.rmdir()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Daemon:
    """`gateways serve` with the tests' application, on both sockets."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.log = folder / "daemon.log"
        self.state = state
        self.running: Process | None = None
        self.options: tuple[str, ...] = ()

    def with_options(self, *options: str) -> None:
        """Return once a daemon with these options runs, a new one if there is need."""
        if self.running and self.running.process.poll() is None and self.options == options:
            return
        self.stop()
        command = [sys.executable, "-m", "gateways", "serve", APPLICATION]
        command += ["-b", f"fcgi+unix:{FASTCGI_SOCKET}", "-b", f"scgi+unix:{SCGI_SOCKET}"]
        # Without the group nginx's and Apache's workers get "permission denied": a 502 or 503.
        command += ["--socket-group", WEB_GROUP, *options]
        self.running = Process(
            command, self.log, cwd=REPOSITORY, GATEWAYS_SUITE_STATE=str(self.state)
        )
        self.running.wait_for([FASTCGI_SOCKET, SCGI_SOCKET])
        self.options = options

    def stop(self) -> None:
        if self.running:
            self.running.stop()
            self.running = None


def ports_of(*configurations: Path) -> list[int]:
    """The ports that the files listen at, as they are written there."""
    pattern = r"(?m)^\s*(?:[Ll]isten\s+|\$SERVER\[\"socket\"\] == \")127\.0\.0\.1:(\d+)"
    found = (re.findall(pattern, file.read_text()) for file in configurations)
    return sorted({int(port) for ports in found for port in ports})


def _claim(ports: list[int]) -> None:
    taken = [port for port in ports if listens(port)]
    if taken:
        pytest.fail(f"something listens already at 127.0.0.1:{taken}: stop it", pytrace=False)


def shared_folder(path: Path) -> Path:
    """Make a folder that www-data and root both write to."""
    path.mkdir()
    # Without the sticky bit, with which root may not append to www-data's files
    # (fs.protected_regular).
    path.chmod(0o777)
    return path


def nginx_files() -> list[Path]:
    return sorted((REPOSITORY / "nginx").glob("*.conf"))


def apache_files() -> list[Path]:
    return sorted((REPOSITORY / "apache").glob("*.conf"))


def lighttpd_files() -> list[Path]:
    return sorted((REPOSITORY / "samples" / "servers").glob("lighttpd-*.conf"))


def nginx_main(folder: Path, configurations: Iterable[Path], user: str = WEB_GROUP) -> Path:
    """Write an nginx.conf as the distribution's, in its own folder, and return its path."""
    stock = Path("/etc/nginx")
    for name in ("fastcgi_params", "scgi_params"):
        # Included by a relative path, which nginx takes from the folder of its nginx.conf.
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(stock / name)
    kinds = ("client_body", "fastcgi", "scgi", "proxy", "uwsgi")
    temporary = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    includes = "".join(f"    include {file};\n" for file in configurations)
    main = folder / "nginx.conf"
    main.write_text(
        f"user {user};\nworker_processes 1;\ndaemon off;\npid {folder}/nginx.pid;\n"
        f"error_log {folder}/error.log info;\nevents {{ worker_connections 256; }}\n"
        f"http {{\n    access_log {folder}/access.log;\n{temporary}{includes}}}\n"
    )
    return main


def nginx_command(main: Path) -> list[str]:
    log = main.parent / "error.log"
    return [program("nginx"), "-p", str(main.parent), "-c", str(main), "-e", str(log)]


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Path]:
    """nginx with every file of `nginx/` at once, and a certificate; gives its folder."""
    configurations = [*nginx_files(), NAIVE / "nginx.conf"]
    folder.mkdir()
    make_certificates(folder / "tls")
    main = nginx_main(folder, configurations)
    ports = ports_of(*configurations)
    _claim(ports)
    LOGS.append(folder / "error.log")
    process = Process(nginx_command(main), folder / "output.log", cwd=folder)
    try:
        process.wait_for(ports)
        yield folder
    finally:
        process.stop()


def make_certificates(folder: Path, *names: str) -> None:
    """Run nginx/make-certificates.sh as its first lines say."""
    script = REPOSITORY / "nginx" / "make-certificates.sh"
    command = ["sh", str(script), str(folder), *(names or ("localhost", "127.0.0.1"))]
    subprocess.run(command, check=True, capture_output=True, text=True)


_DEBIAN_MODULES = ("alias", "authz_core", "authz_host", "dir", "env", "mime", "setenvif")
"""What a fresh installation of Debian's apache2 has enabled, as far as it bears on us."""

_MODULES = Path("/etc/apache2/mods-available")


def apache_main(
    folder: Path, configurations: Iterable[Path], state: Path, mpm: str = "mpm_event"
) -> Path:
    """Write an apache2.conf with the modules that the files' `a2enmod` lines ask for.

    mod_cgi.conf asks for mod_cgid, or mod_cgi under mpm_prefork, as Debian's a2enmod has it.
    """
    configurations = list(configurations)
    wanted = [mpm, *_DEBIAN_MODULES]
    for file in configurations:
        asked = re.findall(r"(?m)^#\s+a2enmod (\w+)", file.read_text())
        wanted += ["cgi" if name == "cgid" and mpm == "mpm_prefork" else name for name in asked]
    root = folder / "root"
    main = folder / "apache2.conf"
    lines = [f"ServerRoot {folder}", f"DefaultRuntimeDir {folder}", f"PidFile {folder}/apache.pid"]
    lines += ["ServerName localhost", "User www-data", "Group www-data"]
    lines += [f"ErrorLog {folder}/error.log", "LogLevel info", f"Define GATEWAYS_ROOT {root}"]
    lines += _with_dependencies(wanted)
    lines += ["<IfModule mime_module>", "TypesConfig /dev/null", "</IfModule>"]
    if "cgid" in wanted:
        lines += [f"ScriptSock {folder}/cgisock"]
    if "fcgid" in wanted:
        # Debian's own: it gives *.fcgi to mod_fcgid, which proxy_fcgi-alias.conf has to survive.
        lines += [f"Include {_MODULES}/fcgid.conf", f"FcgidIPCDir {folder}/fcgid"]
        lines += [f"FcgidProcessTableFile {folder}/fcgid_shm"]
        # The suite's faults end processes faster than mod_fcgid otherwise starts new ones.
        lines += ["FcgidSpawnScoreUpLimit 1000"]
        lines += [f"FcgidInitialEnv GATEWAYS_SUITE_STATE {state}"]
    lines += [f"SetEnv GATEWAYS_SUITE_STATE {state}"]
    lines += [f"Include {file}" for file in configurations]
    main.write_text("\n".join(lines) + "\n")
    return main


def _with_dependencies(names: list[str]) -> list[str]:
    """An Include of each module's .load file and of those it depends on, those first, once each."""
    includes: dict[str, None] = {}

    def add(name: str) -> None:
        text = (_MODULES / f"{name}.load").read_text()
        depends = re.search(r"(?m)^# Depends: (.+)$", text)
        for other in depends[1].split() if depends else ():
            add(other)
        includes[f"Include {_MODULES}/{name}.load"] = None

    for name in names:
        add(name)
    return list(includes)


def apache_command(main: Path) -> list[str]:
    return [program("apache2"), "-DFOREGROUND", "-f", str(main)]


@contextlib.contextmanager
def apache(folder: Path, state: Path) -> Iterator[Path]:
    """Apache with every file of `apache/` at once, and what they need; gives its folder."""
    configurations = [*apache_files(), NAIVE / "apache.conf"]
    folder.mkdir()
    shared_folder(folder / "fcgid")
    lay_out_programs(folder / "root")
    main = apache_main(folder, configurations, state)
    ports = ports_of(*configurations)
    _claim(ports)
    LOGS.append(folder / "error.log")
    process = Process(apache_command(main), folder / "output.log", cwd=folder)
    try:
        process.wait_for(ports)
        yield folder
    finally:
        process.stop()


_PARSE_OPTIONS = (
    "header-strict",
    "host-strict",
    "host-normalize",
    "url-normalize-unreserved",
    "url-normalize-required",
    "url-ctrls-reject",
    "url-path-2f-decode",
    "url-path-dotseg-remove",
)
"""What Debian's lighttpd.conf says of URLs and headers."""


def lighttpd_main(folder: Path, configurations: Iterable[Path], state: Path, port: int = 0) -> Path:
    """Write a lighttpd.conf as the distribution's, and return its path.

    It listens at `port` beside the files' own; lighttpd cannot do without one.
    """
    options = ", ".join(f'"{name}" => "enable"' for name in _PARSE_OPTIONS)
    (folder / "www").mkdir(exist_ok=True)
    log = folder / "error.log"
    log.touch()
    # lighttpd opens it when it has become www-data already.
    log.chmod(0o666)
    main = folder / "lighttpd.conf"
    lines = ['server.modules = ( "mod_indexfile", "mod_access", "mod_alias", "mod_redirect" )']
    lines += [f'server.document-root = "{folder}/www"', f'server.upload-dirs = ( "{state}" )']
    lines += [f'server.errorlog = "{log}"', f'server.pid-file = "{folder}/lighttpd.pid"']
    lines += [f'server.username = "{WEB_GROUP}"', f'server.groupname = "{WEB_GROUP}"']
    lines += ['server.bind = "127.0.0.1"', f"server.port = {port or free_port()}"]
    lines += [f"server.http-parseopts = ( {options} )"]
    lines += ['index-file.names = ( "index.php", "index.html" )']
    lines += ['url.access-deny = ( "~", ".inc" )']
    lines += ['static-file.exclude-extensions = ( ".php", ".pl", ".fcgi" )']
    # Ours: CGI programs see nothing of lighttpd's environment.
    lines += ['server.modules += ( "mod_setenv" )']
    lines += [f'setenv.add-environment = ( "GATEWAYS_SUITE_STATE" => "{state}" )']
    lines += [f'var.gateways_root = "{folder}/root"']
    lines += [f'include "{file}"' for file in configurations]
    lines += ['server.modules += ( "mod_dirlisting", "mod_staticfile" )']
    main.write_text("\n".join(lines) + "\n")
    return main


def lighttpd_command(main: Path) -> list[str]:
    return [program("lighttpd"), "-D", "-f", str(main)]


@contextlib.contextmanager
def lighttpd(folder: Path, state: Path) -> Iterator[Path]:
    """lighttpd with its files of `samples/servers/` at once; gives its folder."""
    configurations = lighttpd_files()
    folder.mkdir()
    lay_out_programs(folder / "root")
    (folder / "root" / "app.fcgi").write_text(_SPAWNED_PROGRAM)
    main = lighttpd_main(folder, configurations, state)
    ports = ports_of(*configurations)
    _claim(ports)
    LOGS.append(folder / "error.log")
    with _lighttpd_sockets():
        process = Process(
            lighttpd_command(main),
            folder / "output.log",
            cwd=folder,
            GATEWAYS_SUITE_STATE=str(state),
        )
        try:
            process.wait_for(ports)
            yield folder
        finally:
            process.stop()


@contextlib.contextmanager
def _lighttpd_sockets() -> Iterator[None]:
    """The folder for lighttpd's own sockets, which systemd makes where it runs."""
    folder = Path("/run/lighttpd")
    made = not folder.exists()
    if made:
        folder.mkdir(mode=0o750)
        shutil.chown(folder, WEB_GROUP, WEB_GROUP)
    try:
        yield
    finally:
        if made:
            shutil.rmtree(folder)


_CGI_PROGRAM = f"""\
#!{DEBIAN_PYTHON}
from gateways import cgi
from tests.interop.application import application
cgi.run(application)
"""

_FCGID_PROGRAM = f"""\
#!{DEBIAN_PYTHON}
from gateways import fastcgi
from tests.interop.application import application
fastcgi.serve(application, "fcgi+fd:0", threads=1)
"""

_SPAWNED_PROGRAM = f"""\
#!{DEBIAN_PYTHON}
from gateways import fastcgi
from tests.interop.application import application
fastcgi.serve(application, "fcgi+fd:0")
"""


def lay_out_programs(root: Path) -> None:
    """Fill ${{GATEWAYS_ROOT}}: the programs of the configurations' first lines, and what they import.

    The folder of a script is the first entry of sys.path: a copied folder is an installation.
    """
    root.mkdir()
    for package in ("gateways", "tests"):
        shutil.copytree(
            REPOSITORY / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    # www-data may not write __pycache__ here; without it every CGI request compiles everything.
    subprocess.run(
        [DEBIAN_PYTHON, "-m", "compileall", "-q", str(root)], check=True, capture_output=True
    )
    for name, text, mode in (
        ("app.cgi", _CGI_PROGRAM, 0o755),
        ("app.fcgi", _FCGID_PROGRAM, 0o755),
        ("app", "", 0o644),
    ):
        (root / name).write_text(text)
        (root / name).chmod(mode)
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IROTH)
        if path.is_dir():
            path.chmod(0o755)
