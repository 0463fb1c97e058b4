"""What waits for a slow peer: in which order it goes, how its pace is judged, who is cut."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import errors
from gateways.events import FileRange
from gateways.server.backlog import GATHERED, JOINED, Backlog, Tails, joined, memory_of
from gateways.server.options import Options
from gateways.server.sending import Sending
from gateways.server.spool import Spool

DATA = random.Random(1).randbytes(1_000_000)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.settimeout(10)
        yield one, other


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(DATA)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def drain(backlog: Backlog, pair: tuple[socket.socket, socket.socket]) -> bytes:
    """Send all of it through the pair; return what arrived."""
    one, other = pair
    arrived = b""
    size = backlog.waiting
    while len(arrived) < size:
        backlog.flush(one)
        arrived += other.recv(1 << 20)
    assert backlog.flush(one)
    assert not backlog.waiting
    return arrived


def test_bytes_and_files_leave_in_order(pair: tuple[Any, Any], file: int) -> None:
    backlog = Backlog()
    backlog.add([b"head", memoryview(DATA)[:300_000], FileRange(file, 1000, 500_000), b"tail"])
    backlog.add([FileRange(file, 0, 1), b"end"])
    expected = b"head" + DATA[:300_000] + DATA[1000:501_000] + b"tail" + DATA[:1] + b"end"
    assert backlog.waiting == len(expected)
    assert drain(backlog, pair) == expected
    assert backlog.sent == len(expected)


def test_more_buffers_than_one_call_takes(pair: tuple[Any, Any]) -> None:
    pieces = [b"%d," % number for number in range(5 * GATHERED + 1)]
    backlog = Backlog()
    backlog.add(pieces)
    assert drain(backlog, pair) == b"".join(pieces)


def test_a_file_that_became_shorter_is_an_error(pair: tuple[Any, Any], file: int) -> None:
    backlog = Backlog()
    backlog.add([FileRange(file, len(DATA), 1)])
    with pytest.raises(errors.RequestAborted, match="the file became shorter"):
        backlog.flush(pair[0])


def test_a_stored_backlog_is_the_same_and_takes_no_memory(
    pair: tuple[Any, Any], file: int, tmp_path: Path
) -> None:
    spool = Spool(1_000_000, str(tmp_path))
    backlog = Backlog()
    pieces = [DATA[at : at + 999] for at in range(0, 300_000, 999)]
    backlog.add([*pieces, FileRange(file, 5, 10), b"end"])
    backlog.store(spool)
    assert memory_of(backlog.buffers) == 0
    assert len(backlog.buffers) == 3  # what follows upon each other is one range
    assert drain(backlog, pair) == b"".join(pieces) + DATA[5:15] + b"end"
    backlog.close()
    assert spool.used == 0


def test_a_backlog_that_does_not_fit_into_the_spool_stays_as_it_is(
    pair: tuple[Any, Any], tmp_path: Path
) -> None:
    spool = Spool(1500, str(tmp_path))
    backlog = Backlog()
    backlog.add([b"x" * 1000, b"y" * 1000])
    with pytest.raises(errors.LimitExceeded):
        backlog.store(spool)
    assert spool.used == 0
    assert drain(backlog, pair) == b"x" * 1000 + b"y" * 1000


def test_closing_lets_go_of_everything(tmp_path: Path, file: int) -> None:
    spool = Spool(10_000, str(tmp_path))
    kept = os.dup(file)
    backlog = Backlog()
    backlog.add([b"x" * 5000])
    backlog.keep(kept)
    backlog.store(spool)
    backlog.close()
    assert spool.used == 0
    assert backlog.waiting == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(kept)


@pytest.mark.parametrize(
    ("buffers", "whole"),
    [
        ([], b""),
        ([b"a", memoryview(b"b"), b"c"], b"abc"),
        ([b"x" * JOINED], b"x" * JOINED),
        ([b"x" * JOINED, b"y"], None),
        ([b"x", FileRange(0, 0, 1)], None),
    ],
)
def test_what_is_joined(buffers: list[Any], whole: bytes | None) -> None:
    assert joined(buffers) == whole


# Finished answers that nobody waits for.


class Reader:
    """What Tails needs of a connection: what it keeps in memory, and how fast its peer reads."""

    def __init__(self, name: str, pace: float, size: int, tails: Tails) -> None:
        self.name = name
        self.size = size
        self.is_cut = False
        self._pace = pace
        self._tails = tails
        self._backlog = Backlog()
        self._backlog.add([b"x" * size])

    def pace(self, now: float) -> float:
        return self._pace

    def store_backlog(self, spool: Spool) -> None:
        self._backlog.store(spool)

    def recount(self, tails: Tails, size: int) -> bool:
        return tails.add(self, size)  # type: ignore[arg-type]  # it has what Tails needs

    def give_up_tail(self) -> bool:
        if self._backlog.waiting:
            self.is_cut = True
        return self.is_cut

    def let_go(self) -> None:
        self._backlog.close()

    def __str__(self) -> str:
        return self.name


def leave(tails: Tails, *readers: Any) -> None:
    """Leave the readers' answers to the loop, as a connection does."""
    for reader in readers:
        if not tails.add(reader, reader.size):
            tails.make_room(reader, reader.size)


def test_what_fits_stays_in_memory_and_the_rest_is_spooled(tmp_path: Path) -> None:
    spool = Spool(10_000_000, str(tmp_path))
    tails = Tails(Options(answer_memory=1_048_576), spool)
    readers: list[Any] = [Reader(str(number), 1.0, 400_000, tails) for number in range(5)]
    leave(tails, *readers[:3])
    assert spool.used == 400_000
    for reader in readers[:3]:
        reader.let_go()
        tails.remove(reader)
        tails.remove(reader)  # twice does no harm
    assert spool.used == 0
    leave(tails, *readers[3:])  # there is room in memory again
    assert spool.used == 0
    assert not any(each.is_cut for each in readers)


def test_without_a_spool_only_as_many_are_cut_as_have_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The slowest one's memory is enough for the next."""
    tails = Tails(Options(answer_memory=1_048_576), Spool(0, str(tmp_path)))
    readers = [
        Reader(name, pace, 250_000, tails)
        for name, pace in [("a", 5.0), ("slowest", 1.0), ("b", 3.0), ("c", 4.0), ("new", 2.0)]
    ]
    leave(tails, *readers)
    assert [each.name for each in readers if each.is_cut] == ["slowest"]
    assert "slowest: cut, as the slowest reader of all" in caplog.text


def test_the_new_one_is_cut_where_it_is_the_slowest(tmp_path: Path) -> None:
    tails = Tails(Options(answer_memory=1_048_576), Spool(0, str(tmp_path)))
    readers = [
        Reader(name, pace, 350_000, tails) for name, pace in [("a", 5.0), ("b", 2.0), ("c", 1.0)]
    ]
    leave(tails, *readers)
    assert [each.name for each in readers if each.is_cut] == ["c"]


def test_a_reader_that_takes_the_rest_as_it_is_chosen_is_not_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has everything by then, and its memory is enough for the new one."""

    class Quick(Reader):
        def pace(self, now: float) -> float:
            self.let_go()
            tails.remove(self)  # type: ignore[arg-type]  # it has what Tails needs
            return super().pace(now)

    tails = Tails(Options(answer_memory=1_048_576), Spool(0, str(tmp_path)))
    readers = [Reader("a", 5.0, 350_000, tails), Quick("quick", 1.0, 350_000, tails)]
    leave(tails, *readers, Reader("new", 2.0, 350_000, tails))
    assert [each.name for each in readers if each.is_cut] == []
    assert "cut" not in caplog.text


def test_what_an_application_waits_for_is_not_counted_among_the_tails(tmp_path: Path) -> None:
    """The connection's own tail has gone while room was made for it, and another answer waits."""
    tails = Tails(Options(answer_memory=1_048_576), Spool(0, str(tmp_path)))
    connection = Sending()
    connection._lock = threading.Lock()
    connection._backlog = Backlog()
    assert connection.recount(tails, 1_048_576)
    assert tails.add(connection, 1_048_576)  # there is room for as much as before
