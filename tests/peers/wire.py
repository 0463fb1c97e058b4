"""Requests byte by byte: FastCGI and SCGI as a web server sends them, and as none ever should.

It shares no code with the package, so that a mistake there is not made here as well.  Beside it,
what starts the servers that these requests go to, and what looks at their processes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doors import ROOT, LiveServer, free_port
from tests.peers.application import STATE

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, GET_VALUES_RESULT = range(1, 11)
KEEP = 1

VARIABLES = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "REQUEST_URI": "/",
    "SERVER_NAME": "peer.example",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
}

Values = Mapping[str, str | bytes]


# FastCGI, out.


def record(
    kind: int, content: bytes = b"", request_id: int = 1, *, padding: int = 0, version: int = 1
) -> bytes:
    header = struct.pack(">BBHHBx", version, kind, request_id, len(content), padding)
    return header + content + bytes(padding)


def begin(request_id: int = 1, *, flags: int = 0, role: int = 1) -> bytes:
    return record(BEGIN, struct.pack(">HB5x", role, flags), request_id)


def length(number: int) -> bytes:
    return bytes([number]) if number < 128 else struct.pack(">L", number | 0x80000000)


def pair(name: bytes, value: bytes) -> bytes:
    return length(len(name)) + length(len(value)) + name + value


def pairs(values: Values) -> bytes:
    return b"".join(pair(name.encode("latin-1"), as_bytes(value)) for name, value in values.items())


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


def head(values: Values | None = None, request_id: int = 1, *, flags: int = 0) -> bytes:
    """BEGIN_REQUEST and the whole PARAMS stream, for `VARIABLES` and `values`."""
    content = pairs({**VARIABLES, **(values or {})})
    cut = [content[at : at + 65535] for at in range(0, len(content), 65535)]
    params = b"".join(record(PARAMS, piece, request_id) for piece in [*cut, b""])
    return begin(request_id, flags=flags) + params


def stdin(body: bytes, request_id: int = 1) -> bytes:
    """The records of a body, without the empty one that ends it."""
    cut = [body[at : at + 65535] for at in range(0, len(body), 65535)]
    return b"".join(record(STDIN, piece, request_id) for piece in cut)


def fastcgi(
    values: Values | None = None, body: bytes = b"", request_id: int = 1, *, flags: int = 0
) -> bytes:
    """A whole request."""
    values = {**({"CONTENT_LENGTH": str(len(body))} if body else {}), **(values or {})}
    end = record(STDIN, b"", request_id)
    return head(values, request_id, flags=flags) + stdin(body, request_id) + end


# SCGI, out.


def netstring(headers: bytes) -> bytes:
    return b"%d:%b," % (len(headers), headers)


def scgi_headers(values: Values) -> bytes:
    return b"".join(
        b"%b\0%b\0" % (name.encode("latin-1"), as_bytes(value)) for name, value in values.items()
    )


def scgi(values: Values | None = None, body: bytes = b"") -> bytes:
    """A whole request."""
    first = {"CONTENT_LENGTH": str(len(body)), "SCGI": "1"}
    return netstring(scgi_headers({**first, **VARIABLES, **(values or {})})) + body


# In.


@dataclass
class Answer:
    """What came back: the CGI head and body, and how it ended.

    `ended` is (appStatus, protocolStatus) of END_REQUEST, None when the connection ended without
    one; `reset` tells that it ended with a reset.
    """

    output: bytes
    errors: bytes = b""
    ended: tuple[int, int] | None = None
    reset: bool = False

    @property
    def status(self) -> int:
        """The answer's status; 0 when there is no head."""
        for line in self.output.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            if line.lower().startswith(b"status: "):
                return int(line[8:11])
        return 200 if self.output else 0

    @property
    def headers(self) -> list[bytes]:
        """The lines of the head."""
        return self.output.partition(b"\r\n\r\n")[0].split(b"\r\n")

    @property
    def body(self) -> bytes:
        return self.output.partition(b"\r\n\r\n")[2]

    @property
    def told(self) -> Any:
        """The body, which is JSON, of a clean answer with status 200."""
        assert self.status == 200, self
        return json.loads(self.body)


class Closed(Exception):
    """The connection ended where a record should have begun, or within one."""


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise Closed
        data += piece
    return bytes(data)


def receive_record(sock: socket.socket) -> tuple[int, int, bytes]:
    """Read one record: its type, request id and content.  Closed at the end of the connection."""
    header = receive_exactly(sock, 8)
    version, kind, request_id, size, padding = struct.unpack(">BBHHBx", header)
    assert version == 1
    content = receive_exactly(sock, size + padding)[:size]
    return kind, request_id, content


def answers(sock: socket.socket, *request_ids: int) -> dict[int, Answer]:
    """Read until each of the requests has ended, or the connection has."""
    collected = {request_id: Answer(b"") for request_id in request_ids}
    try:
        while any(each.ended is None for each in collected.values()):
            kind, request_id, content = receive_record(sock)
            if kind == STDOUT:
                collected[request_id].output += content
            elif kind == STDERR:
                collected[request_id].errors += content
            else:
                assert kind == END
                application_status, protocol_status = struct.unpack(">LB3x", content)
                collected[request_id].ended = (application_status, protocol_status)
    except (Closed, ConnectionResetError) as error:
        for each in collected.values():
            each.reset = isinstance(error, ConnectionResetError)
    return collected


def fastcgi_answer(sock: socket.socket, request_id: int = 1) -> Answer:
    return answers(sock, request_id)[request_id]


def rest_of(sock: socket.socket) -> Answer:
    """Read until the connection ends, as the answer over SCGI does."""
    output = bytearray()
    try:
        while piece := sock.recv(65536):
            output += piece
    except ConnectionResetError:
        return Answer(bytes(output), reset=True)
    return Answer(bytes(output))


def send(sock: socket.socket, data: bytes) -> None:
    """Send as much of `data` as the server takes; it may close before the end."""
    with suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(data)


def ask(server: LiveServer, data: bytes) -> Answer:
    """Send a request, or what passes for one, over a connection of its own; return the answer."""
    with server.connect() as sock:
        send(sock, data)
        return fastcgi_answer(sock) if server.protocol == "FastCGI" else rest_of(sock)


def request(server: LiveServer, values: Values | None = None, body: bytes = b"") -> Answer:
    """Make a whole request in the server's protocol and return the answer."""
    make = fastcgi if server.protocol == "FastCGI" else scgi
    return ask(server, make(values, body))


def is_closed(sock: socket.socket) -> bool:
    """Wait until the peer closes, passing over what it sends; false when it does not in 10 seconds."""
    sock.settimeout(10)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


# Servers.


@contextmanager
def gateway(
    folder: Path,
    *,
    protocol: str = "fcgi",
    tcp: bool = False,
    python: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    application: str | None = None,
    **options: Any,
) -> Iterator[LiveServer]:
    """Serve the application of this folder, or a named one, with gateways until the block ends.

    `python` are options of the interpreter.  The test may stop the server itself; AssertionError
    when the server had to report a fault of its own, or does not stop.
    """
    where: str | tuple[str, int] = ("127.0.0.1", free_port()) if tcp else str(folder / "app.sock")
    address = f"{protocol}://127.0.0.1:{where[1]}" if tcp else f"{protocol}+unix:{where}"
    settings = {"addresses": [address], "options": options, "application": application}
    with started(folder, address, where, "gateways", settings, python, environment) as server:
        workers = options.get("workers", 1)
        if workers > 1 and application is None:
            ready = "worker ready"
            until(lambda: server.log_text().count(ready) == workers, server.log_text, seconds=20)
        yield server
        server.stop()
        assert "internal error" not in server.log_text(), server.log_text()


@contextmanager
def flup(folder: Path, module: str, **options: Any) -> Iterator[LiveServer]:
    """Serve the same application with flup 1.0.3."""
    where = str(folder / "flup.sock")
    address = f"{module[:4]}+unix:{where}"
    settings = {"module": module, "options": {"bindAddress": where, **options}}
    with started(folder, address, where, "flup", settings) as server:
        yield server


@contextmanager
def started(
    folder: Path,
    address: str,
    where: str | tuple[str, int],
    kind: str,
    settings: object,
    python: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[LiveServer]:
    log = folder / f"{kind}.log"
    command = [sys.executable, *python, "-m", "tests.peers.application", kind, json.dumps(settings)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, STATE: str(folder), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    server = LiveServer(process, address, where, log)
    try:
        await_connections(server)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def await_connections(server: LiveServer) -> None:
    def listening() -> bool:
        assert server.process.poll() is None, server.log_text()
        try:
            server.connect().close()
        except OSError:
            return False
        return True

    until(listening, lambda: f"the server does not listen: {server.log_text()}", seconds=20)


def until(
    condition: Callable[[], bool], otherwise: Callable[[], object] = str, *, seconds: float = 10.0
) -> None:
    """Wait until `condition` is true; AssertionError, with what `otherwise` tells, when it is not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} seconds: {otherwise()}")
        time.sleep(0.01)


def records(server: LiveServer) -> list[str]:
    """What the application recorded, in order."""
    path = server.log.parent / "records"
    return path.read_text().splitlines() if path.exists() else []


def until_recorded(server: LiveServer, line: str, times: int = 1) -> None:
    until(
        lambda: records(server).count(line) >= times, lambda: (records(server), server.log_text())
    )


# Processes.


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def resident_kilobytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("a process that is alive has a VmRSS")


def children(pid: int) -> set[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return set()  # it has ended meanwhile
    return {int(each) for each in found.split()}


def workers_of(pid: int) -> set[int]:
    """The workers of a master: the children of its template processes."""
    return {worker for template in children(pid) for worker in children(template)}


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be buried does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
