"""What starts a program: the process managers, each with samples/anywhere.py, the one file.

Web servers that start it themselves answer HTTP at a port of their own; for the others an nginx
stands in front.  Everywhere the application is mounted at /app.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.http_client import HTTPAnswer, HTTPRequest, http_exchange
from tests.interop import servers
from tests.interop.servers import (
    DEBIAN_PYTHON,
    REPOSITORY,
    Process,
    free_port,
    program,
    wait_until,
)

MOUNT = b"/app"


class Ways:
    """A folder that www-data can read, with a copy of the package; each start has its own in it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.package = folder / "gateways"
        copy_package(self.package)

    def own(self, name: str) -> Path:
        """A new folder for one start; it is `sample_in` that lies there."""
        folder = servers.shared_folder(self.folder / f"{name}-{len(list(self.folder.iterdir()))}")
        sample = sample_in(folder)
        sample.parent.mkdir()
        text = (REPOSITORY / "samples" / "anywhere.py").read_text()
        # www-data may not execute an interpreter in a private home.
        sample.write_text(text.replace("#!/usr/bin/env python3\n", f"#!{DEBIAN_PYTHON}\n", 1))
        sample.chmod(0o755)
        (sample.parent / "gateways").symlink_to(self.package)
        return folder


def sample_in(folder: Path) -> Path:
    """The one file, in a folder of its own with the package beside it."""
    return folder / "program" / "anywhere.py"


def copy_package(package: Path) -> None:
    """Copy gateways/, compiled, since www-data may not write there."""
    shutil.copytree(REPOSITORY / "gateways", package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [DEBIAN_PYTHON, "-m", "compileall", "-q", str(package)]
    subprocess.run(command, check=True, capture_output=True)
    for path in [package, *package.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


class Way:
    """The file, started in one way: where to ask for it, and what is logged.

    `process` is what the test signals, the manager or the program itself.
    """

    def __init__(self, port: int, process: Process, log: Path, sample: Path) -> None:
        self.port = port
        self.process = process
        self.log = log
        self.sample = sample

    def ask(self, target: bytes, method: str = "GET", **more: object) -> HTTPAnswer:
        """Make a request below the mount."""
        headers = [("Host", f"localhost:{self.port}"), *more.pop("headers", [])]  # type: ignore[misc]  # keywords of HTTPRequest
        request = HTTPRequest(method, MOUNT + target, headers, **more)  # type: ignore[arg-type]  # the same
        return http_exchange("127.0.0.1", self.port, request)

    def signal(self, number: int) -> None:
        self.process.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the process to end and return its exit code."""
        return self.process.process.wait(15)

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def says(self, text: str, times: int = 1) -> None:
        """Return once the log holds the text so many times."""
        wait_until(lambda: self.said().count(text) >= times, f"{text!r} in {self.log}")

    def pids(self) -> set[int]:
        """The processes that run the file now."""
        return pids_of(self.sample)


def pids_of(sample: Path) -> set[int]:
    found = set()
    for each in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if each.name.isdigit():
                words = (each / "cmdline").read_bytes().split(b"\0")
                if os.fsencode(sample) in words[:3] and b"python" in words[0]:
                    found.add(int(each.name))
    return found


@contextlib.contextmanager
def _stopped(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.stop()


# Apache

_APACHE = """\
#   a2enmod cgid fcgid
#   a2enmod fcgid
#   a2enmod cgid
Listen 127.0.0.1:{cgi}
<VirtualHost 127.0.0.1:{cgi}>
    ScriptAlias "/app" "{program}"
    <Directory "{root}">
        Require all granted
    </Directory>
</VirtualHost>
FcgidIdleScanInterval 1
Listen 127.0.0.1:{fcgid}
<VirtualHost 127.0.0.1:{fcgid}>
    Alias "/app" "{program}"
    <Directory "{root}">
        Options +ExecCGI
        Require all granted
        SetHandler fcgid-script
    </Directory>
    FcgidMinProcessesPerClass 0
    FcgidIdleTimeout {idle}
</VirtualHost>
"""


@contextlib.contextmanager
def apache(ways: Ways, idle: int = 300) -> Iterator[dict[str, Way]]:
    """Apache with mod_cgid and mod_fcgid."""
    folder = ways.own("apache")
    servers.shared_folder(folder / "fcgid")
    ports = {"cgi": free_port(), "fcgid": free_port()}
    site = folder / "site.conf"
    sample = sample_in(folder)
    site.write_text(_APACHE.format(**ports, program=sample, root=sample.parent, idle=idle))
    main = servers.apache_main(folder, [site], folder)
    log = folder / "error.log"
    servers.LOGS.append(log)
    process = Process(servers.apache_command(main), folder / "output.log", cwd=folder)
    with _stopped(process):
        process.wait_for(ports.values())
        yield {
            "apache-mod_cgid": Way(ports["cgi"], process, log, sample),
            "apache-mod_fcgid": Way(ports["fcgid"], process, log, sample),
        }


# lighttpd

_LIGHTTPD = """\
server.modules = ( "mod_alias", "mod_cgi", "mod_fastcgi" )
server.document-root = "{folder}"
server.errorlog = "{folder}/error.log"
server.pid-file = "{folder}/lighttpd.pid"
server.username = "www-data"
server.groupname = "www-data"
server.bind = "127.0.0.1"
server.port = {cgi}
$SERVER["socket"] == "127.0.0.1:{cgi}" {{
    alias.url = ( "/app" => "{program}" )
    cgi.assign = ( "/anywhere.py" => "" )
}}
$SERVER["socket"] == "127.0.0.1:{spawned}" {{
    fastcgi.server = ( "/app" => ((
        "socket" => "{folder}/spawned.sock",
        "bin-path" => "{program}",
        "max-procs" => 2,
        "check-local" => "disable",
    )) )
}}
"""


@contextlib.contextmanager
def lighttpd(ways: Ways) -> Iterator[dict[str, Way]]:
    """lighttpd with mod_cgi, and with mod_fastcgi's bin-path."""
    folder = ways.own("lighttpd")
    sample = sample_in(folder)
    ports = {"cgi": free_port(), "spawned": free_port()}
    main = folder / "lighttpd.conf"
    main.write_text(_LIGHTTPD.format(**ports, program=sample, folder=folder))
    (folder / "error.log").touch()
    (folder / "error.log").chmod(0o666)
    servers.LOGS.append(folder / "error.log")
    log = folder / "output.log"  # what programs say on stderr
    command = [program("lighttpd"), "-D", "-f", str(main)]
    process = Process(command, log, cwd=folder)
    with _stopped(process):
        process.wait_for(ports.values())
        yield {
            "lighttpd-cgi": Way(ports["cgi"], process, log, sample),
            "lighttpd-bin-path": Way(ports["spawned"], process, log, sample),
        }


# Behind nginx

_SITE = """\
server {{
    listen 127.0.0.1:{port};
    server_name localhost;
    location ~ ^/app(/|$) {{
        include fastcgi_params;
        fastcgi_split_path_info (?s)^(/app)(/.*)?$;
        fastcgi_param SCRIPT_NAME $fastcgi_script_name;
        fastcgi_param PATH_INFO   $fastcgi_path_info;
        fastcgi_param HTTP_HOST   $http_host;
        fastcgi_keep_conn on;
        fastcgi_pass unix:{socket};
    }}
}}
"""


@contextlib.contextmanager
def _behind_nginx(
    folder: Path, start: Callable[[Path], Process], *, connects: bool = True
) -> Iterator[Way]:
    """A program that `start` starts on a unix socket, and an nginx that asks it."""
    path, port = folder / "s", free_port()
    site = folder / "site.conf"
    site.write_text(_SITE.format(port=port, socket=path))
    log = folder / "log"
    process = start(path)
    with _stopped(process):
        if connects:
            process.wait_for([path])
        else:  # the first connection is what starts the program
            wait_until(lambda: _is_listening(path), f"a socket at {path}")
        front = Process(
            # As root, which may connect to whatever socket the managers make.
            servers.nginx_command(servers.nginx_main(folder, [site], user="root")),
            folder / "nginx.log",
            cwd=folder,
        )
        with _stopped(front):
            front.wait_for([port])
            yield Way(port, process, log, sample_in(folder))


def _is_listening(path: Path) -> bool:
    """Whether there is a listening socket (flag 10000), without a connection to it."""
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return any(line[-1] == str(path) and line[3] == "00010000" for line in lines)


@contextlib.contextmanager
def spawn_fcgi(ways: Ways) -> Iterator[Way]:
    """spawn-fcgi in the foreground, which becomes the program."""
    folder = ways.own("spawn")

    def start(path: Path) -> Process:
        command = [program("spawn-fcgi"), "-n", "-s", str(path), "--", str(sample_in(folder))]
        return Process(command, folder / "log", cwd=folder)

    with _behind_nginx(folder, start) as way:
        yield way


@contextlib.contextmanager
def multiwatch(ways: Ways) -> Iterator[Way]:
    """multiwatch with two children, on a socket of spawn-fcgi's, as its manual page has it."""
    folder = ways.own("multiwatch")

    def start(path: Path) -> Process:
        command = [program("spawn-fcgi"), "-n", "-s", str(path), "--"]
        command += [program("multiwatch"), "-f", "2", "--", str(sample_in(folder))]
        return Process(command, folder / "log", cwd=folder)

    with _behind_nginx(folder, start) as way:
        yield way


def _activate(path: Path, *command: str) -> list[str]:
    return [program("systemd-socket-activate"), "-l", str(path), *command]


@contextlib.contextmanager
def systemd(ways: Ways) -> Iterator[Way]:
    """systemd-socket-activate, with the socket as descriptor 3."""
    folder = ways.own("systemd")

    def start(path: Path) -> Process:
        command = _activate(path, "--fdname=fcgi", str(sample_in(folder)))
        return Process(command, folder / "log", cwd=folder)

    with _behind_nginx(folder, start, connects=False) as way:
        yield way


@contextlib.contextmanager
def systemd_as_0(ways: Ways) -> Iterator[Way]:
    """systemd-socket-activate, with a shell that makes the socket descriptor 0 as well."""
    folder = ways.own("systemd0")

    def start(path: Path) -> Process:
        command = _activate(path, "/bin/sh", "-c", f'exec "{sample_in(folder)}" <&3')
        return Process(command, folder / "log", cwd=folder)

    with _behind_nginx(folder, start, connects=False) as way:
        yield way


class Terminal(Process):
    """A program at a terminal of its own; what it prints there goes to the log."""

    def __init__(self, command: list[str], log: Path, *, cwd: Path) -> None:
        self.log = log
        self.keyboard, screen = pty.openpty()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=screen,
                stdout=output,
                stderr=output,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
        os.close(screen)

    def press_control_c(self) -> None:
        """Have the terminal signal whatever runs in it."""
        os.write(self.keyboard, b"\x03")

    def stop(self) -> None:
        super().stop()
        os.close(self.keyboard)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def terminal(ways: Ways) -> Iterator[Way]:
    """A person who types the command, with an address."""
    folder = ways.own("terminal")

    def start(path: Path) -> Process:
        command = [sys.executable, str(sample_in(folder)), str(path)]
        return Terminal(command, folder / "log", cwd=folder)

    with _behind_nginx(folder, start) as way:
        yield way


BEHIND_NGINX = {
    "spawn-fcgi": spawn_fcgi,
    "multiwatch": multiwatch,
    "systemd-socket-activate": systemd,
    "systemd-socket-activate-as-0": systemd_as_0,
    "terminal": terminal,
}

STARTERS = [
    *("apache-mod_cgid", "apache-mod_fcgid", "lighttpd-cgi", "lighttpd-bin-path"),
    *BEHIND_NGINX,
]
