"""A body on its way: what is kept where, in which order it comes out, and who is woken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import errors
from gateways.server.body import COMPLETE, HIGH_WATER, SEGMENT, Body
from gateways.server.options import Options
from gateways.server.spool import Spool, SpoolFile


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(100_000_000, str(tmp_path))


def body(spool: Spool, declared: int | None = None, **options: Any) -> Body:
    return Body(spool, Options(**options), declared)


def taken(some: Body) -> bytes:
    """Take what there is."""
    pieces = []
    while piece := some.take():
        pieces.append(piece)
    return b"".join(pieces)


# Before the start.


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
def test_a_body_that_is_all_here_at_the_start_is_a_stream_that_can_seek(
    spool: Spool, size: int
) -> None:
    data = os.urandom(size)
    some = body(spool, size)
    for at in range(0, size, 50_000):
        some.feed(data[at : at + 50_000], spill=False)
    some.end()
    assert spool.used == (size if size > 65536 else 0)
    stream = some.start()
    assert stream is not None
    assert stream.read() == data
    stream.seek(size // 2)
    assert stream.read() == data[size // 2 :]
    some.close()
    assert spool.used == 0


def test_what_body_memory_allows_stays_in_memory(spool: Spool) -> None:
    some = body(spool, body_memory=5000)
    some.feed(b"x" * 5000, spill=False)
    assert spool.used == 0
    some.feed(b"y", spill=False)
    assert spool.used == 5001
    some.close()


@pytest.mark.parametrize(("sent", "status"), [(9, 400), (11, 400)])
def test_a_length_that_is_not_kept_is_an_error(spool: Spool, sent: int, status: int) -> None:
    some = body(spool, 10)
    some.feed(b"x" * sent, spill=False)
    some.end()
    assert some.start() is None
    assert isinstance(some.error, errors.RemoteProtocolError)
    assert some.error.status_hint == status
    some.close()


# On its way.


def test_pieces_come_out_in_order_wherever_they_were(spool: Spool) -> None:
    data = os.urandom(1_000_000)
    some = body(spool)
    some.start()
    out = b""
    for at in range(0, len(data), 50_000):
        some.feed(data[at : at + 50_000], spill=at > 100_000)
        if at % 150_000 == 0:
            out += some.take() or b""
    assert some.take() is not None
    some.end()
    some.close()
    again = body(spool)
    again.start()
    for at in range(0, len(data), 50_000):
        again.feed(data[at : at + 50_000], spill=at > 100_000)
        if at < 300_000:
            piece = again.take()
            assert piece
            out = out if at else b""
            out += piece
    again.end()
    assert out + taken(again) == data
    again.close()
    assert spool.used == 0


def test_with_spill_no_more_than_the_high_water_is_in_memory(spool: Spool) -> None:
    some = body(spool)
    some.start()
    for _ in range(100):
        some.feed(b"x" * 50_000, spill=True)
    assert spool.used >= 5_000_000 - HIGH_WATER
    some.end()
    assert len(taken(some)) == 5_000_000
    some.close()


def test_a_file_that_has_been_read_is_freed_while_the_body_goes_on(tmp_path: Path) -> None:
    spool = Spool(4 * SEGMENT, str(tmp_path))
    some = body(spool)
    some.start()
    piece = b"x" * (SEGMENT // 4)
    for _ in range(32):  # twice what the spool holds at once
        some.feed(piece, spill=True)
        left = len(piece)
        while left:
            left -= len(some.take() or b"")
    assert some.error is None
    assert spool.used <= 2 * SEGMENT
    some.close()
    assert spool.used == 0


def test_full_is_said_above_the_high_water_and_unsaid_below(spool: Spool) -> None:
    some = body(spool)
    some.feed(b"x" * HIGH_WATER, spill=False)
    some.feed(b"x", spill=False)
    assert not some.full  # before the start everything is kept
    some.start()
    was_full = some.full
    some.take()
    assert (was_full, some.full) == (True, False)
    some.close()


def test_more_than_max_spooled_body_waiting_is_an_error(spool: Spool) -> None:
    some = body(spool, max_spooled_body=1_000_000)
    some.start()
    for _ in range(30):
        some.feed(b"x" * 50_000, spill=True)
    assert isinstance(some.error, errors.LimitExceeded)
    assert spool.used <= 1_000_000
    some.close()


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_a_full_disk_leaves_no_hole_in_what_the_application_reads(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """What comes out is the beginning of the body, then the error."""
    write = SpoolFile.write
    calls: list[int] = []

    def fail(self: SpoolFile, data: bytes) -> None:
        calls.append(len(data))
        if len(calls) > fails_at:
            raise errors.LimitExceeded("full", status_hint=503)
        write(self, data)

    monkeypatch.setattr(SpoolFile, "write", fail)
    data = os.urandom(400_000)
    some = body(spool)
    some.start()
    for at in range(0, 400_000, 100_000):
        some.feed(data[at : at + 100_000], spill=True)
    out: list[bytes] = []
    with pytest.raises(errors.RequestAborted):
        out.extend(iter(lambda: some.take() or b"", b""))
    assert data.startswith(b"".join(out))
    some.close()
    assert spool.used == 0


# Waking.


@pytest.fixture
def wake() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def woken(descriptor: int) -> bool:
    try:
        return os.eventfd_read(descriptor) > 0
    except BlockingIOError:
        return False


@pytest.mark.parametrize("what", ["feed", "end", "abort", "too long", "store"])
def test_whatever_ends_the_waiting_wakes_who_waits(spool: Spool, wake: int, what: str) -> None:
    some = body(spool, 10 if what == "too long" else None)
    some.start()
    assert some.wait_on(wake)
    if what == "feed":
        some.feed(b"x", spill=False)
    elif what == "end":
        some.end()
    elif what == "abort":
        some.abort(errors.RequestAborted("gone"))
    elif what == "too long":
        some.feed(b"x" * 11, spill=False)
    else:
        some.feed(b"x" * (HIGH_WATER + 1), spill=True)
    assert woken(wake)
    assert not some.wait_on(wake)
    some.wait_on(-1)
    some.close()


def test_who_has_stopped_waiting_is_not_woken(spool: Spool, wake: int) -> None:
    """The descriptor may be another thread's by then."""
    some = body(spool)
    some.start()
    assert some.wait_on(wake)
    some.wait_on(-1)
    some.feed(b"x", spill=False)
    assert not woken(wake)
    some.close()


def test_an_aborted_body_gives_what_came_and_then_the_error(spool: Spool) -> None:
    some = body(spool)
    some.start()
    some.feed(b"came", spill=False)
    some.abort(errors.RequestAborted("the peer has gone"))
    some.feed(b"late", spill=False)
    assert some.take() == b"came"
    with pytest.raises(errors.RequestAborted, match="the peer has gone"):
        some.take()
    some.close()


def test_what_comes_after_the_close_is_not_kept(spool: Spool) -> None:
    some = body(spool)
    some.feed(b"x" * 100_000, spill=True)
    assert spool.used
    some.close()
    some.feed(b"x" * 100_000, spill=True)
    assert spool.used == 0


def test_the_body_of_requests_that_came_whole_is_shared_and_cannot_be_spoilt() -> None:
    COMPLETE.abort(errors.RequestAborted("gone"))
    COMPLETE.close()
    assert COMPLETE.ended
    assert COMPLETE.error is None
    assert not COMPLETE.full
