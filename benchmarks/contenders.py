"""Who takes part, how each is started, and how contenders are named on the command line.

gateways-fcgi              kept connections where it can, 1 thread
gateways-fcgi-close        a connection for each request
gateways-fcgi-t8           8 threads
gateways-fcgi-t8@/tmp/old  another checkout of gateways
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from benchmarks import environment

HERE = environment.HERE
MODULES = {
    "hello": "apps:hello",
    "echo": "apps:echo",
    "big": "apps:big",
    "sleeper": "apps:sleeper",
    "flask": "flask_page:application",
}
"""Application → module and attribute, beside this file."""


class Server(NamedTuple):
    """A server with one protocol.

    `closes` and `keeps` say which kinds of connection it supports.  `package` is what it needs of
    the environment.  `kept_connections` is how many kept connections it serves at once without
    letting some starve, 0 for any number.
    """

    label: str
    protocol: str
    closes: bool
    keeps: bool
    threads: tuple[int, ...]
    package: str
    kept_connections: int = 0


SERVERS = {
    "gateways-fcgi": Server("gateways, FastCGI", "fcgi", True, True, (1, 8), "click"),
    "gateways-scgi": Server("gateways, SCGI", "scgi", True, False, (1, 8), "click"),
    "uwsgi-fcgi": Server("uWSGI, FastCGI", "fcgi", True, False, (1, 8), "uwsgi"),
    "uwsgi-scgi": Server("uWSGI, SCGI", "scgi", True, False, (1, 8), "uwsgi"),
    "uwsgi-uwsgi": Server("uWSGI, its own protocol", "uwsgi", True, False, (1, 8), "uwsgi"),
    # flup starts threads as it likes; of kept connections beyond four some get no answer.
    "flup-fcgi": Server("flup, FastCGI", "fcgi", True, True, (1,), "flup", 4),
    "flup-scgi": Server("flup, SCGI", "scgi", True, False, (1,), "flup"),
    # gunicorn keeps connections in its worker with threads only.
    "gunicorn-http": Server("gunicorn, HTTP", "http", True, False, (1, 8), "gunicorn"),
    "gunicorn-uwsgi": Server("gunicorn, uwsgi protocol", "uwsgi", True, False, (1,), "gunicorn"),
    "granian-http": Server("granian, HTTP", "http", True, True, (1, 8), "granian"),
    "bjoern-http": Server("bjoern, HTTP", "http", True, True, (1,), "bjoern"),
    # A kept connection occupies a thread for good: it gets as many as there are connections.
    "libfcgi-fcgi": Server("libfcgi, C", "fcgi", True, True, (1,), ""),
}

CONNECTIONS = 16


class Contender(NamedTuple):
    """A server as it is measured: `keep` connections or not, `threads`, and which checkout.

    `at` is how a checkout was named that is this contender's own.
    """

    server: str
    keep: bool
    threads: int
    tree: Path
    at: str = ""

    @property
    def facts(self) -> Server:
        return SERVERS[self.server]

    @property
    def name(self) -> str:
        kind = "keep" if self.keep else "close"
        threads = f"-t{self.threads}" if self.threads > 1 else ""
        return f"{self.server}-{kind}{threads}" + (f"@{self.at}" if self.at else "")

    @property
    def label(self) -> str:
        """The name for a table that people read."""
        kind = "kept" if self.keep else "closed"
        at = f" ({self.at})" if self.at else ""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.facts.label}, {kind}{threads}{at}"

    @property
    def connections(self) -> int:
        """How many connections the load client opens at once."""
        if self.keep and self.facts.kept_connections:
            return self.facts.kept_connections
        return CONNECTIONS

    @property
    def there(self) -> bool:
        """Whether its server could be installed."""
        if not self.facts.package:
            return environment.LIBFCGI.exists()
        return self.facts.package in environment.installed()


_NAME = re.compile(r"(?P<server>[a-z]+-[a-z]+)(-(?P<kind>keep|close))?(-t(?P<threads>\d+))?")


def parse(text: str, tree: Path = environment.ROOT) -> Contender:
    """Read a contender's name; ValueError when there is none such, or not in that way."""
    name, _, at = text.partition("@")
    match = _NAME.fullmatch(name)
    if match is None or match["server"] not in SERVERS:
        raise ValueError(f'"{text}" is not SERVER[-keep|-close][-tN][@TREE]; {_known()}')
    facts = SERVERS[match["server"]]
    keep = match["kind"] == "keep" if match["kind"] else facts.keeps
    if not (facts.keeps if keep else facts.closes) and match["server"] != "gunicorn-http":
        raise ValueError(f'"{text}": {facts.label} does not keep connections')
    threads = int(match["threads"] or 1)
    if threads > 1 and facts.threads == (1,):
        raise ValueError(f'"{text}": {facts.label} cannot be given a number of threads')
    return Contender(match["server"], keep, threads, Path(at).resolve() if at else tree, at)


def _known() -> str:
    return "SERVER is one of " + ", ".join(SERVERS)


def command(contender: Contender, app: str, socket: Path) -> list[str]:
    """What starts it, listening at `socket`; the current folder must be this one."""
    server, threads = contender.server, contender.threads
    module = MODULES[app]
    name, _, attribute = module.partition(":")
    python = str(environment.PYTHON)
    if server.startswith("gateways-"):
        where = f"{contender.facts.protocol}+unix:{socket}"
        file = f"{HERE / name}.py:{attribute}"
        return [python, "-m", "gateways", "serve", file, "-b", where, "--threads", str(threads)]
    if server.startswith("uwsgi-"):
        return _uwsgi(contender, module, socket)
    if server.startswith("gunicorn-"):
        options = ["--bind", f"unix:{socket}", "--chdir", str(HERE)]
        options += ["--protocol", "uwsgi"] if server == "gunicorn-uwsgi" else []
        options += ["--threads", str(threads)] if threads > 1 or contender.keep else []
        return [python, "-m", "gunicorn", *options, module]
    if server == "granian-http":
        options = ["--interface", "wsgi", "--uds", str(socket), "--working-dir", str(HERE)]
        return [python, "-m", "granian", *options, "--blocking-threads", str(threads), module]
    if server == "libfcgi-fcgi":
        needed = CONNECTIONS if contender.keep else 1
        return [str(environment.LIBFCGI), app, str(socket), str(needed)]
    kind = "bjoern" if server == "bjoern-http" else server
    return [python, str(HERE / "peer_servers.py"), kind, module, str(socket)]


_UWSGI_SOCKETS = {
    "uwsgi-fcgi": "--fastcgi-socket",
    "uwsgi-scgi": "--scgi-socket",
    "uwsgi-uwsgi": "--socket",
}


def _uwsgi(contender: Contender, module: str, socket: Path) -> list[str]:
    options = [_UWSGI_SOCKETS[contender.server], str(socket), "--module", module]
    options += ["--chdir", str(HERE), "--virtualenv", str(environment.VENV), "--need-app"]
    # It logs each request unless it is told not to; without the last one SIGTERM reloads it.
    options += ["--disable-logging", "--die-on-term"]
    options += ["--threads", str(contender.threads)] if contender.threads > 1 else []
    return [str(environment.VENV / "bin" / "uwsgi"), *options]
