"""The doors: each is one of the project's configurations with its server, and how it is asked.

What a door does to requests and answers stands in its `traits` (tests/suite.py), each of which
comes from interop.md; what it makes impossible stands in impossible.py.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.http_client import HTTPAnswer, HTTPRequest, http_exchange

NGINX = frozenset({"merges-slashes"})
# Without fastcgi_keep_conn, without buffers, and over SCGI, the end of a unix socket's connection
# ends an answer.
CLOSES = {"cut-looks-complete"}
APACHE = frozenset({"merges-slashes", "keeps-encoded-slashes", "joins-cookies-with-comma"})
# What ends in the middle looks complete where lighttpd had all of it before it sent any.
LIGHTTPD = frozenset({"merges-slashes", "own-reasons", "drops-empty-headers", "cut-looks-complete"})

FOLDERS = {"nginx": "nginx", "apache": "apache", "lighttpd": "samples/servers"}
"""Where the configurations of each server lie in the repository."""


@dataclass(frozen=True)
class WebServerDoor:
    """One configuration file and the port that it listens at.

    `mount` stands before every target.  `options` are the daemon's, none of which it has when
    the web server starts the processes itself (`daemon` is false).
    """

    name: str
    server: str
    file: str
    port: int
    traits: frozenset[str]
    mount: bytes = b""
    daemon: bool = True
    options: tuple[str, ...] = ()
    state: Path = field(default=Path(), compare=False)

    def exchange(self, request: HTTPRequest) -> HTTPAnswer:
        """Make the request below the mount, on a new connection."""
        request = replace(request, target=self.mount + request.target)
        return http_exchange("127.0.0.1", self.port, request)


DOORS = [
    WebServerDoor("nginx-fastcgi", "nginx", "fastcgi.conf", 8081, NGINX),
    WebServerDoor("nginx-fastcgi-app", "nginx", "fastcgi-app.conf", 8082, NGINX, mount=b"/app"),
    WebServerDoor("nginx-fastcgi-keepalive", "nginx", "fastcgi-keepalive.conf", 8083, NGINX),
    WebServerDoor("nginx-fastcgi-stock", "nginx", "fastcgi-stock.conf", 8086, NGINX | CLOSES),
    WebServerDoor("nginx-scgi", "nginx", "scgi.conf", 8087, NGINX | CLOSES),
    WebServerDoor("nginx-https", "nginx", "https.conf", 8443, NGINX),
    WebServerDoor(
        "nginx-fastcgi-streaming",
        "nginx",
        "fastcgi-streaming.conf",
        8084,
        NGINX | CLOSES | {"streams-requests"},
        options=("--stream-requests",),
    ),
    WebServerDoor(
        "apache-proxy_fcgi-location",
        "apache",
        "proxy_fcgi-location.conf",
        8092,
        APACHE | {"length-ignored"},
    ),
    WebServerDoor(
        "apache-proxy_fcgi-alias",
        "apache",
        "proxy_fcgi-alias.conf",
        8093,
        APACHE | {"length-ignored"},
    ),
    WebServerDoor(
        "apache-proxy_scgi",
        "apache",
        "proxy_scgi.conf",
        8094,
        APACHE | {"length-ignored", "cut-looks-complete"},
    ),
    WebServerDoor(
        "apache-mod_cgid",
        "apache",
        "mod_cgi.conf",
        8091,
        APACHE | {"length-ignored", "cut-looks-complete"},
        daemon=False,
    ),
    WebServerDoor(
        "apache-mod_fcgid",
        "apache",
        "mod_fcgid.conf",
        8095,
        APACHE | {"buffers-answers"},
        daemon=False,
    ),
    WebServerDoor(
        "lighttpd-cgi",
        "lighttpd",
        "lighttpd-cgi.conf",
        8096,
        LIGHTTPD,
        daemon=False,
    ),
    WebServerDoor(
        "lighttpd-fastcgi-spawned",
        "lighttpd",
        "lighttpd-fastcgi-spawned.conf",
        8097,
        LIGHTTPD,
        daemon=False,
    ),
    WebServerDoor("lighttpd-fastcgi", "lighttpd", "lighttpd-fastcgi.conf", 8098, LIGHTTPD),
    WebServerDoor("lighttpd-scgi", "lighttpd", "lighttpd-scgi.conf", 8099, LIGHTTPD),
]

BY_NAME = {door.name: door for door in DOORS}


@contextmanager
def tls_relay(port: int, authority: Path) -> Iterator[int]:
    """Listen at a port of our own and carry what comes over TLS to `port`, verified.

    The suite's client speaks plain HTTP; this lets every row through https.conf.
    """
    context = ssl.create_default_context(cafile=str(authority))
    loop = asyncio.new_event_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        ways = [copy(reader, far_writer), copy(far_reader, writer)]
        # When either side has ended there is nothing more to carry: the client never half-closes.
        await asyncio.wait(
            [asyncio.ensure_future(way) for way in ways], return_when=asyncio.FIRST_COMPLETED
        )
        for each in (writer, far_writer):
            each.close()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    server = loop.run_until_complete(asyncio.start_server(carry, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, name="tls-relay")
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
