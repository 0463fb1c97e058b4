"""The request's body: in any amount, at any pace, and never in one piece (RFC 3875 §4.2)."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gateways.cgihost import CGIApplication
from gateways.errors import RequestAborted
from gateways.server.spool import Spool
from tests.cgihost.calling import (
    PYTHON,
    SHELL,
    begin,
    call,
    eventually,
    is_running,
    write,
    written_pid,
)

HEAD = "echo Content-Type: a/b\necho\n"
COUNT = f"{SHELL}{HEAD}echo $CONTENT_LENGTH; wc -c\n"


class Pieces(io.RawIOBase):
    """A wsgi.input that cannot be rewound, and knows how much it was asked for at once."""

    def __init__(self, size: int, error: Exception | None = None) -> None:
        self.left = size
        self.largest = 0
        self.error = error

    def read(self, size: int = -1, /) -> bytes:
        assert size > 0
        self.largest = max(self.largest, size)
        if self.error is not None and not self.left:
            raise self.error
        size = min(size, self.left, 50_000)
        self.left -= size
        return b"x" * size


def chunked(body: Any) -> dict[str, Any]:
    return {"REQUEST_METHOD": "POST", "body": body, "wsgi.input_terminated": True}


def test_ten_megabytes_out_while_ten_come_in(tmp_path: Path) -> None:
    # Each side fills its pipes long before the other has begun to read, or has finished.
    write(tmp_path, "cat", f"{SHELL}{HEAD}exec cat\n")
    body = os.urandom(1000) * 10_000
    assert call(CGIApplication(tmp_path), "/cat", body=body).body == body


def test_a_little_in_and_much_out_in_turns(tmp_path: Path) -> None:
    # There is always some room for the body, and never enough for a whole piece of it.
    code = (
        "import os\nos.write(1, b'Content-Type: a/b\\n\\n')\n"
        "while os.read(0, 5000):\n    left = 200_000\n"
        "    while left: left -= os.write(1, b'x' * left)\n"
    )
    write(tmp_path, "script", PYTHON + code)
    answer = call(CGIApplication(tmp_path), "/script", body=b"x" * 300_000)
    assert len(answer.body) >= 60 * 200_000


def test_all_out_before_any_comes_in(tmp_path: Path) -> None:
    text = f"{SHELL}{HEAD}head -c 10000000 /dev/zero\nwc -c\n"
    write(tmp_path, "script", text)
    answer = call(CGIApplication(tmp_path), "/script", body=b"x" * 10_000_000)
    assert answer.body == b"\0" * 10_000_000 + b"10000000\n"


def test_a_script_may_ignore_its_body(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}{HEAD}echo done\n")
    app = CGIApplication(tmp_path)
    for size in (1, 65536, 5_000_000):
        assert call(app, "/script", body=b"x" * size).body == b"done\n"


def test_a_script_may_close_its_standard_input(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}exec <&-\n{HEAD}echo done\n")
    assert call(CGIApplication(tmp_path), "/script", body=b"x" * 5_000_000).body == b"done\n"


def test_without_a_body_standard_input_is_empty(tmp_path: Path) -> None:
    write(tmp_path, "count", COUNT)
    assert call(CGIApplication(tmp_path), "/count").body == b"\n0\n"


def test_standard_input_ends_with_the_body(tmp_path: Path) -> None:
    write(tmp_path, "count", COUNT)
    source = io.BytesIO(b"0123456789")
    answer = call(
        CGIApplication(tmp_path), "/count", body=source, REQUEST_METHOD="POST", CONTENT_LENGTH="4"
    )
    assert answer.body == b"4\n4\n"
    assert source.tell() == 4


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
def test_a_body_of_unknown_length_gets_one(tmp_path: Path, size: int) -> None:
    write(tmp_path, "count", COUNT)
    answer = call(CGIApplication(tmp_path), "/count", **chunked(Pieces(size)))
    assert answer.body == b"%d\n%d\n" % (size, size)


def test_it_leaves_no_temporary_file_behind(tmp_path: Path) -> None:
    write(tmp_path, "count", COUNT)
    app = CGIApplication(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    call(app, "/count", **chunked(Pieces(3_000_000)))
    assert app._spool.used == 0
    call(app, "/count", body=b"x" * 100_000)
    eventually(lambda: len(os.listdir("/proc/self/fd")) == before, "all descriptors are closed")


def test_one_that_finds_no_room_is_503(tmp_path: Path) -> None:
    write(tmp_path, "count", COUNT)
    app = CGIApplication(tmp_path, max_running=1)
    app._spool = Spool(1_000_000)
    for _ in range(2):
        assert call(app, "/count", **chunked(Pieces(3_000_000))).code == 503
    assert call(app, "/count", **chunked(Pieces(1000))).body == b"1000\n1000\n"
    assert app._spool.used == 0


def test_one_whose_sender_vanishes_starts_nothing(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}touch started\n")
    app = CGIApplication(tmp_path, max_running=1)
    gone = RequestAborted("gone")
    for _ in range(2):
        with pytest.raises(RequestAborted):
            call(app, "/script", **chunked(Pieces(200_000, gone)))
    assert not (tmp_path / "started").exists()
    assert app._spool.used == 0


def test_a_stored_body_is_handed_over_as_the_file(tmp_path: Path) -> None:
    code = (
        "import os, stat\nprint('Content-Type: a/b\\n')\nprint(stat.S_ISREG(os.fstat(0).st_mode))\n"
    )
    write(tmp_path, "kind", PYTHON + code)
    write(tmp_path, "count", COUNT)
    app = CGIApplication(tmp_path)
    sent: dict[str, Any] = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "100000"}
    with (tmp_path / "body").open("w+b") as file:
        file.write(b"x" * 100_000)
        file.seek(0)
        assert call(app, "/kind", body=file, **sent).body == b"True\n"
        assert call(app, "/count", body=file, **sent).body == b"100000\n100000\n"
        # Something else has read from it: then it is read from there.
        file.seek(10)
        with pytest.raises(RequestAborted):
            call(app, "/count", body=file, **sent)


def test_a_huge_content_length_takes_no_memory(tmp_path: Path) -> None:
    # gh-119452: http.server allocated what CONTENT_LENGTH said.
    write(tmp_path, "script", f"{SHELL}exec wc -c\n")
    source = Pieces(300_000)
    tracemalloc.start()
    try:
        with pytest.raises(RequestAborted, match="300000 bytes of 1000000000000"):
            call(
                CGIApplication(tmp_path),
                "/script",
                body=source,
                REQUEST_METHOD="POST",
                CONTENT_LENGTH=str(10**12),
            )
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert source.largest <= 65536


@pytest.mark.parametrize("length", ["+10", "1_0", " 10", "\u0663", "-1", "10,10", "9" * 19, "1e3"])
def test_what_is_no_length_is_refused(tmp_path: Path, length: str) -> None:
    write(tmp_path, "script", f"{SHELL}touch started\n")
    answer = call(CGIApplication(tmp_path), "/script", REQUEST_METHOD="POST", CONTENT_LENGTH=length)
    assert answer.code in (400, 413)
    assert not (tmp_path / "started").exists()


def test_a_sender_that_vanishes_ends_the_script(tmp_path: Path) -> None:
    write(tmp_path, "script", f"{SHELL}echo $$ >pid\ncat >/dev/null\nexec sleep 1000\n")
    app = CGIApplication(tmp_path, max_running=1)

    class Gone(Pieces):
        def read(self, size: int = -1, /) -> bytes:
            if not self.left:
                written_pid(tmp_path / "pid")
                raise RequestAborted("the visitor has gone")
            return super().read(size)

    with pytest.raises(RequestAborted, match="the visitor has gone"):
        call(app, "/script", body=Gone(100_000), REQUEST_METHOD="POST", CONTENT_LENGTH="200000")
    pid = written_pid(tmp_path / "pid")
    eventually(lambda: not is_running(pid), "the script is ended")
    eventually(lambda: app._places.acquire(blocking=False), "its place is free")


def test_an_answer_may_begin_before_the_body_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(tmp_path, "script", f"{SHELL}{HEAD}echo first\ncat go >/dev/null\nwc -c\n")
    answer = begin(CGIApplication(tmp_path), "/script", body=b"x" * 1_000_000)
    assert next(answer.result) == b"first\n"
    with (tmp_path / "go").open("w"):
        pass
    assert next(answer.result) == b"1000000\n"
    answer.result.close()
