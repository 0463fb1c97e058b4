"""`gateways demo`: an application as a FastCGI daemon, a web server in front, and a first answer.

Everything runs on this machine, below a private temporary folder, and goes when the command goes.
The web server is the machine's nginx on a configuration made here, or the built-in front.  Both
speak to `gateways serve` over a unix socket, so that what is shown is what a site would run.
"""

from __future__ import annotations

import contextlib
import grp
import http.client
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import click

from gateways import client
from gateways.errors import ConfigurationError, GatewayError

DEFAULT_APPLICATION = "wsgiref.simple_server:demo_app"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0

_HOST = "127.0.0.1"
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

# What nginx/fastcgi-streaming.conf says, without the files that another machine's nginx may keep
# elsewhere.  The temporary paths are where nginx may write when it is not root.
_NGINX_CONF = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
{user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path body;
    fastcgi_temp_path fastcgi;
    proxy_temp_path proxy;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    server {{
        listen {host}:{port};
        server_name localhost;
        client_max_body_size 0;
        location / {{
            fastcgi_param QUERY_STRING      $query_string;
            fastcgi_param REQUEST_METHOD    $request_method;
            fastcgi_param CONTENT_TYPE      $content_type;
            fastcgi_param CONTENT_LENGTH    $content_length;
            fastcgi_param REQUEST_URI       $request_uri;
            fastcgi_param SCRIPT_NAME       "";
            fastcgi_param PATH_INFO         $document_uri;
            fastcgi_param SERVER_PROTOCOL   $server_protocol;
            fastcgi_param REQUEST_SCHEME    $scheme;
            fastcgi_param GATEWAY_INTERFACE CGI/1.1;
            fastcgi_param SERVER_SOFTWARE   nginx/$nginx_version;
            fastcgi_param REMOTE_ADDR       $remote_addr;
            fastcgi_param REMOTE_PORT       $remote_port;
            fastcgi_param SERVER_ADDR       $server_addr;
            fastcgi_param SERVER_PORT       $server_port;
            fastcgi_param SERVER_NAME       $server_name;
            fastcgi_param HTTP_HOST         $http_host;
            fastcgi_buffer_size 16k;
            fastcgi_buffers 8 16k;
            fastcgi_buffering off;
            fastcgi_request_buffering off;
            fastcgi_read_timeout 1h;
            fastcgi_pass unix:{socket};
        }}
    }}
}}
"""


@click.command("demo")
@click.argument("application", metavar="[APP]", default=DEFAULT_APPLICATION)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="[8080; 0: a free one]")
@click.option(
    "--front",
    type=click.Choice(["auto", "nginx", "builtin"]),
    default="auto",
    help="The web server: this machine's nginx, or the built-in front.  [auto: nginx if there]",
)
@click.option("--once", is_flag=True, help="Stop after the first answer.")
def command(application: str, port: int, front: str, once: bool) -> int:
    """Show APP behind a web server.

    APP runs as a FastCGI daemon on this machine, with a web server in front that a browser can
    open. It is written as for serve; without it, a page of the standard library is shown.
    Ctrl-C stops everything.
    """
    nginx = find_nginx() if front != "builtin" else ""
    if front == "nginx" and not nginx:
        raise ConfigurationError(
            "there is no nginx on this machine; install it, or use --front builtin"
        )
    port = _free_port(port)
    with _interruptible(), private_folder() as folder, contextlib.ExitStack() as stack:
        path = folder / "app.sock"
        daemon = stack.enter_context(_running("the application", _serve_command(application, path)))
        try:
            _wait_until(lambda: _answers(path), daemon)
        except GatewayError:
            if daemon.process.poll() == 2:
                return 2  # It has said why in a line of its own.
            raise
        if nginx:
            words = f"nginx {'.'.join(map(str, nginx_version(nginx)))} on http://{_HOST}:{port}/"
            child = _running("nginx", _nginx_command(nginx, folder, path, port))
        else:
            words = f"the built-in front on http://{_HOST}:{port}/"
            child = _running("the built-in front", _front_command(path, port))
        web_server = stack.enter_context(child)
        _wait_until(lambda: _listens(port), web_server)
        click.echo(f"{words}  →  FastCGI  →  {application}")
        _show_first_answer(port)
        if not once:
            click.echo("Ctrl-C stops it.")
            _watch(daemon, web_server)
    return 0


def find_nginx() -> str:
    """Return the path of nginx, which an ordinary user's PATH often lacks; "" where there is none."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:{_SBIN}") or ""


def nginx_version(nginx: str) -> tuple[int, ...]:
    """Return the version as numbers; () where nginx does not say."""
    said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"nginx/(\d+(?:\.\d+)*)", said)
    return tuple(map(int, found[1].split("."))) if found else ()


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that is gone afterwards.

    Its owner and the group that nginx's workers run as may enter it, others may not.
    """
    folder = Path(tempfile.mkdtemp(prefix="gateways-demo-"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, 0, _worker().pw_gid)
            folder.chmod(0o710)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _worker() -> pwd.struct_passwd:
    """Return the user that nginx's workers run as when it is started by root."""
    for name in ("www-data", "nginx", "http", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return pwd.getpwuid(0)


def _free_port(port: int) -> int:
    """Return the port, or a free one for 0; ConfigurationError when it is taken."""
    with socket.socket() as probe:
        # As the web servers do: a port that was left a moment ago may be taken again.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
            probe.listen()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {_HOST}:{port}: {error.strerror}; name another port with --port"
            ) from error
        number: int = probe.getsockname()[1]
        return number


def _serve_command(application: str, path: Path) -> list[str]:
    command = [sys.executable, "-m", "gateways", "serve", application, "-b", f"fcgi+unix:{path}"]
    if os.geteuid() == 0:
        group = grp.getgrgid(_worker().pw_gid).gr_name
        return [*command, "--socket-group", group, "--log-level", "warning"]
    # The warning would be that www-data cannot connect, but here nginx runs as this user.
    return [*command, "--log-level", "error"]


def _nginx_command(nginx: str, folder: Path, path: Path, port: int) -> list[str]:
    user = ""
    if os.geteuid() == 0:
        user = f"user {_worker().pw_name} {grp.getgrgid(_worker().pw_gid).gr_name};"
    conf = folder / "nginx.conf"
    conf.write_text(_NGINX_CONF.format(user=user, host=_HOST, port=port, socket=path))
    command = [nginx, "-p", str(folder), "-c", str(conf)]
    # Before it has read its configuration nginx opens the log that it was built with, and complains
    # where it may not; older ones cannot be told otherwise.
    return [*command, "-e", "stderr"] if nginx_version(nginx) >= (1, 19, 5) else command


def _front_command(path: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "gateways.cli.front", f"unix:{path}", f"{_HOST}:{port}"]


class _Child:
    """A process that was started, and its name in messages."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process

    def check(self) -> None:
        """Raise GatewayError when it has ended."""
        code = self.process.poll()
        if code is not None:
            raise GatewayError(f"{self.name} ended with exit code {code}")


@contextlib.contextmanager
def _running(name: str, command: list[str]) -> Iterator[_Child]:
    """Run a command until the block is left, then stop it: in order, then at once, then for good."""
    # Where this process is killed outright, the kernel stops the children.
    setpriv = shutil.which("setpriv")
    # Its own session: Ctrl-C in the terminal reaches this process alone, which stops the others in
    # order, the web server first.
    process = subprocess.Popen(
        [setpriv, "--pdeathsig", "TERM", *command] if setpriv else command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield _Child(name, process)
    finally:
        for stop in (process.terminate, process.terminate, process.kill):
            if process.poll() is None:
                stop()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT)


def _wait_until(condition: Callable[[], bool], child: _Child) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        child.check()
        if time.monotonic() > deadline:
            raise GatewayError(f"{child.name} did not start within {START_TIMEOUT:g} seconds")
        time.sleep(0.02)


def _answers(path: Path) -> bool:
    """Ask the daemon for its limits: it tells them once the application is loaded, not before."""
    try:
        with client.connect(f"unix:{path}", timeout=START_TIMEOUT) as connection:
            connection.get_values()
    except GatewayError:
        return False
    return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), START_TIMEOUT).close()
    except OSError:
        return False
    return True


def _show_first_answer(port: int) -> None:
    """Ask for the first page; print its status, and its title or its first line."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=START_TIMEOUT)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        text = answer.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise GatewayError(f"http://{_HOST}:{port}/ gave no answer: {error}") from error
    finally:
        connection.close()
    title = re.search(r"<title>\s*([^<]*?)\s*</title>", text, re.IGNORECASE)
    line = title[1] if title else next(filter(None, map(str.strip, text.splitlines())), "")
    click.echo(f"GET /  →  {answer.status} {answer.reason}")
    click.echo(f"    {line[:100]}")


def _watch(*children: _Child) -> None:
    """Wait for Ctrl-C; GatewayError when a child ends by itself."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for child in children:
                child.check()
            time.sleep(0.2)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and a closed terminal stop the demo as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    former = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, former, strict=True):
            signal.signal(number, handler)
