"""One request: how it arrives, and how it is put where the script looks."""

from __future__ import annotations

import io
import os
import socket
import sys
import weakref
from contextlib import suppress

from .script import Script

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Streams:
    """sys.stdin, stdout and stderr over the descriptors 0, 1 and 2, as this interpreter makes them."""

    def __init__(self) -> None:
        started = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
        self._kinds = [
            (name, stream.encoding, stream.errors, stream.line_buffering, stream.write_through)
            for name, stream in started.items()
            if isinstance(stream, io.TextIOWrapper)
        ]
        # Those of earlier requests that somebody still holds, such as a logging handler.
        self._made: weakref.WeakSet[io.TextIOWrapper] = weakref.WeakSet()
        # Modules that are imported before the first request may keep these.
        self._first = [
            each for each in (sys.stdout, sys.stderr) if isinstance(each, io.TextIOWrapper)
        ]
        self._made.update(self._first)

    def open(self) -> None:
        """Make the three anew.

        The old ones may not serve again: a script that wraps sys.stdout.buffer in a stream of its
        own closes it when that stream goes.
        """
        sys.stdin, sys.stdout, sys.stderr = (self._make(each) for each in range(3))
        for name in ("stdin", "stdout", "stderr"):
            setattr(sys, f"__{name}__", getattr(sys, name))

    def flush(self) -> None:
        """Write out what they hold, whatever the script has put in their places."""
        for stream in self._made:
            with suppress(Exception):  # the script may have closed it, or the reader has gone
                stream.flush()

    def _make(self, descriptor: int) -> io.TextIOWrapper:
        name, encoding, errors, line_buffering, write_through = self._kinds[descriptor]
        mode = "w" if descriptor else "r"
        unbuffered = descriptor and write_through  # PYTHONUNBUFFERED
        binary: Any = open(descriptor, mode + "b", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115  # it stays open
        getattr(binary, "raw", binary).name = f"<{name}>"
        text: Any = io.TextIOWrapper(
            binary, encoding, errors, "\n", line_buffering, write_through=bool(unbuffered)
        )
        text.mode = mode
        if descriptor:
            self._made.add(text)
        return text  # type: ignore[no-any-return]  # its mode can be set, which typeshed does not know


class Request:
    """One request: its descriptors 0, 1 and 2, its control socket, its variables and arguments."""

    def __init__(self, descriptors: list[int], control: socket.socket) -> None:
        """Read it.  Raises EOFError where it was given up meanwhile."""
        self.descriptors = descriptors
        self.control = control
        try:
            self.variables, self.words = read_request(control)
        except (EOFError, ConnectionResetError):
            self.close()
            control.close()
            raise EOFError from None

    def close(self) -> None:
        """Close the descriptors."""
        for each in self.descriptors:
            os.close(each)
        self.descriptors = []


def receive(sock: socket.socket) -> Request | None:
    """Return the next request, None at the end of file; EOFError for one that was given up."""
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, descriptors, _, _ = socket.recv_fds(sock, 1, 4, flags)
    if not data or len(descriptors) != 4:
        for each in descriptors:
            os.close(each)
        return None
    return Request(descriptors[:3], socket.socket(fileno=descriptors[3]))


class Setting:
    """What a script finds when it starts: made once, before any script has run."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.streams = Streams()
        self._environment = dict(os.environb)
        self._environ = os.environ, os.environb
        self._put: set[Any] = set()

    def note_putenv(self) -> None:
        """Have variables that a script sets past os.environ taken away before the next request."""
        putenv = os.putenv

        def noting_putenv(name: Any, value: Any, /) -> None:
            self._put.add(name)
            putenv(name, value)

        os.putenv = noting_putenv

    def prepare(self, request: Request) -> None:
        """Put the request where the script looks."""
        for number, descriptor in enumerate(request.descriptors):
            os.dup2(descriptor, number)
        request.close()
        os.chdir(self.script.folder)
        os.environ, os.environb = self._environ
        os.environb.clear()
        while self._put:
            os.unsetenv(self._put.pop())
        os.environb.update(self._environment)
        os.environb.update(request.variables)
        sys.argv = [self.script.path, *map(os.fsdecode, request.words)]
        self.streams.open()


def read_request(control: socket.socket) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Return the variables and the arguments; EOFError when the socket ends before them."""
    sizes = _read(control, 8)
    variables = _read(control, int.from_bytes(sizes[:4], "big")).split(b"\0")[:-1]
    words = _read(control, int.from_bytes(sizes[4:], "big")).split(b"\0")[:-1]
    pairs = (each.partition(b"=") for each in variables)
    return {name: value for name, _, value in pairs}, words


def _read(control: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = control.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def tell(control: socket.socket, kind: bytes, status: int, *, stays: bool = True) -> None:
    """Say how the script ended."""
    with suppress(OSError):  # nobody waits for it any more
        control.sendall(kind + bytes([status & 0xFF, stays]))
