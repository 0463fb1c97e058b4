"""The application that the swarm meets: the path says what it does, and every answer can be checked.

Standard library only, and nothing of this project: it is served as a file of its own.

    /token/T               answers T
    /pid                   the process's id
    /bytes/SEED/N          a list with one bytes object, made for this request
    /one/SEED/N            a generator that declares its length and yields everything at once
    /pieces/SEED/N/SIZE    a generator that yields SIZE bytes at a time
    /ticks/N/SECONDS       N lines, one every SECONDS
    /file/NAME             wsgi.file_wrapper of a file in the folder
    /read                  reads the body; answers its length and digest
    /nap/SECONDS           sleeps, and only then reads the body
    /some/N                reads N bytes of the body and no more
    /ignore                does not look at the body
    /hold/NAME             answers when the file NAME is in the folder
    /sleep/SECONDS         answers a little later
    /digest/SEED           reads in pieces of odd sizes; answers its path and the body's digest
    /leak, /keep           faults for the tests of the tests: a descriptor, a megabyte is not let go
    /wrong/SEED/N          as /bytes, with one byte changed

The folder is that of BOUNDS_FOLDER.  A signal DUMP makes the process write what all its threads
are doing to stderr.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

FOLDER = "BOUNDS_FOLDER"

DUMP = signal.SIGRTMIN + 1
"""Nothing else uses it, and the server does not change how it is taken."""

FILE, FILE_PATTERN = "known.bin", (9, 300_000)
"""A file that is always in the folder, and the pattern that it holds."""

GIVE_UP_SECONDS = 120.0

BLOCK_SIZE = 1_000_003
"""Prime, so that no cut of the server's own falls on the same place twice."""

Start = Callable[..., object]

_block = random.Random(0).randbytes(BLOCK_SIZE)
_kept: list[object] = []


def pattern(seed: int, size: int) -> bytes:
    """Return `size` bytes that no other seed and no other offset has."""
    start = seed * 7919 % BLOCK_SIZE
    if start + size <= BLOCK_SIZE:
        return _block[start : start + size]
    return (_block[start:] + _block * (size // BLOCK_SIZE + 1))[:size]


def application(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """Do what the path says."""
    name, *arguments = environ["PATH_INFO"].lstrip("/").split("/")
    if name not in ANSWERS:  # a bit of the request was changed
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return []
    return ANSWERS[name](environ, start_response, *arguments)


def _begin(start_response: Start, length: int | None = None) -> None:
    headers = [("Content-Type", "application/octet-stream")]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    start_response("200 OK", headers)


def _text(start_response: Start, text: str) -> list[bytes]:
    _begin(start_response)
    return [text.encode("latin-1")]


def token(environ: dict[str, Any], start: Start, text: str) -> list[bytes]:
    return _text(start, text)


def pid(environ: dict[str, Any], start: Start) -> list[bytes]:
    return _text(start, str(os.getpid()))


def whole(environ: dict[str, Any], start: Start, seed: str, size: str) -> list[bytes]:
    _begin(start)
    return [pattern(int(seed), int(size))]


def one(environ: dict[str, Any], start: Start, seed: str, size: str) -> Iterator[bytes]:
    _begin(start, int(size))
    yield pattern(int(seed), int(size))


def pieces(
    environ: dict[str, Any], start: Start, seed: str, size: str, each: str
) -> Iterator[bytes]:
    _begin(start)
    data, step = pattern(int(seed), int(size)), int(each)
    for at in range(0, len(data), step):
        yield data[at : at + step]


def ticks(environ: dict[str, Any], start: Start, count: str, seconds: str) -> Iterator[bytes]:
    _begin(start)
    for number in range(int(count)):
        yield b"%d\n" % number
        time.sleep(float(seconds))


def file(environ: dict[str, Any], start: Start, name: str) -> Iterable[bytes]:
    _begin(start)
    opened = (_folder() / name).open("rb")
    answer: Iterable[bytes] = environ["wsgi.file_wrapper"](opened, 65536)
    return answer


def read(environ: dict[str, Any], start: Start) -> list[bytes]:
    found, length = hashlib.sha256(), 0
    while data := environ["wsgi.input"].read(65536):
        found.update(data)
        length += len(data)
    return _text(start, f"{length} {found.hexdigest()}")


def nap(environ: dict[str, Any], start: Start, seconds: str) -> list[bytes]:
    time.sleep(float(seconds))
    return read(environ, start)


def some(environ: dict[str, Any], start: Start, size: str) -> list[bytes]:
    return _text(start, str(len(environ["wsgi.input"].read(int(size)))))


def ignore(environ: dict[str, Any], start: Start) -> list[bytes]:
    return _text(start, "ignored")


def hold(environ: dict[str, Any], start: Start, name: str) -> list[bytes]:
    released, deadline = _folder() / name, time.monotonic() + GIVE_UP_SECONDS
    while not released.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody made {name}")
        time.sleep(0.02)
    return _text(start, "held")


def sleep(environ: dict[str, Any], start: Start, seconds: str) -> list[bytes]:
    time.sleep(float(seconds))
    return _text(start, "slept")


def digest(environ: dict[str, Any], start: Start, seed: str) -> Iterable[bytes]:
    found, chance = hashlib.md5(), random.Random(seed)
    while data := environ["wsgi.input"].read(chance.choice([1000, 65536, 200_000])):
        found.update(data)
    line = f"{environ['PATH_INFO']} {found.hexdigest()}\n".encode()
    _begin(start)
    times = repeats(seed)
    return [line] if times == 1 else (line for _ in range(times))


def repeats(seed: str) -> int:
    """Return how many times the line of /digest is answered."""
    return random.Random(f"times {seed}").choice([1, 1, 1, 10, 2000])


def leak(environ: dict[str, Any], start: Start) -> list[bytes]:
    _kept.append(os.open(os.devnull, os.O_RDONLY))
    return _text(start, "leaked")


def keep(environ: dict[str, Any], start: Start) -> list[bytes]:
    _kept.append(b"x" * 1_000_000)
    return _text(start, "kept")


def wrong(environ: dict[str, Any], start: Start, seed: str, size: str) -> list[bytes]:
    data = bytearray(pattern(int(seed), int(size)))
    data[len(data) // 2] ^= 1
    _begin(start)
    return [bytes(data)]


ANSWERS: dict[str, Callable[..., Iterable[bytes]]] = {
    "token": token,
    "pid": pid,
    "bytes": whole,
    "one": one,
    "pieces": pieces,
    "ticks": ticks,
    "file": file,
    "read": read,
    "nap": nap,
    "some": some,
    "ignore": ignore,
    "hold": hold,
    "sleep": sleep,
    "digest": digest,
    "leak": leak,
    "keep": keep,
    "wrong": wrong,
}


def _folder() -> Path:
    return Path(os.environ[FOLDER])


if FOLDER in os.environ:  # in the server, not where its answers are checked
    faulthandler.register(DUMP, all_threads=True)
