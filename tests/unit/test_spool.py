"""Temporary files: private, within a budget, and never left behind."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from gateways.errors import LimitExceeded
from gateways.server import spool as spool_module
from gateways.server.spool import Spool, SpoolFile, choose_folder


@pytest.fixture(params=["with O_TMPFILE", "without"])
def spool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    if request.param == "without":
        monkeypatch.delattr(os, "O_TMPFILE")
        monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)
    return Spool(1000, str(tmp_path))


def test_what_is_written_comes_out_in_order(spool: Spool) -> None:
    file = spool.file()
    file.write(b"one ")
    file.write(memoryview(b"two "))
    assert file.take() == b"one two "
    file.write(b"three")
    assert file.waiting == 5
    assert file.take() == b"three"
    assert file.take() == b""
    file.close()


def test_pieces_are_no_larger_than_64_kib(tmp_path: Path) -> None:
    file = Spool(1_000_000, str(tmp_path)).file()
    data = os.urandom(200_000)
    file.write(data)
    pieces = []
    while file.waiting:
        pieces.append(file.take())
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == 65536
    file.close()


def test_a_file_has_no_name_and_is_for_its_owner_only(spool: Spool, tmp_path: Path) -> None:
    file = spool.file()
    file.write(b"secret")
    assert list(tmp_path.iterdir()) == []
    found = os.fstat(file.fileno())
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_nlink == 0
    assert not os.get_inheritable(file.fileno())
    file.close()


def test_the_budget_is_for_all_files_together_and_comes_back(spool: Spool) -> None:
    first, second = spool.file(), spool.file()
    first.write(b"x" * 600)
    second.write(b"x" * 400)
    with pytest.raises(LimitExceeded, match="spool_size, 1000 bytes, is used up") as raised:
        second.write(b"x")
    assert raised.value.status_hint == 503
    assert second.size == 400
    first.close()
    assert spool.used == 400
    second.write(b"x" * 600)
    second.close()
    second.close()  # twice does no harm
    assert spool.used == 0


def test_a_full_disk_costs_nothing_of_the_budget(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spool.file()
    file.write(b"before")
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data[:10], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(LimitExceeded, match="No space left on device") as raised:
        file.write(b"x" * 100)
    assert raised.value.status_hint == 503
    assert spool.used == 6
    assert file.take() == b"before"
    file.close()


def test_a_write_that_was_cut_short_goes_on(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:7], offset))
    file = spool.file()
    file.write(bytes(range(100)))
    file.write(bytes(range(100, 200)))
    assert file.take() == bytes(range(200))
    file.close()


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_folder_that_cannot_be_used_is_a_limit_not_a_crash(tmp_path: Path, attempt: int) -> None:
    spool = Spool(1000, str(tmp_path / "missing"))
    with pytest.raises(LimitExceeded, match="No such file or directory") as raised:
        spool.file()
    assert raised.value.status_hint == 503


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_where_the_file_system_has_no_o_tmpfile_there_are_files_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.open

    def refuse(path: str, flags: int, *arguments: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False, raising=False)
    file = SpoolFile(Spool(1000, str(tmp_path)))
    file.write(b"data")
    assert file.take() == b"data"
    assert list(tmp_path.iterdir()) == []
    file.close()


# The folder.


@pytest.mark.parametrize(
    ("mounts", "folder"),
    [
        ("/dev/sda / ext4 rw 0 0", "/tmp"),
        ("/dev/sda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0", "/var/tmp"),
        ("/dev/sda / ext4 rw 0 0\ntmpfs /tmpfiles tmpfs rw 0 0", "/tmp"),
        ("tmpfs / tmpfs rw 0 0\n/dev/sda /tmp ext4 rw 0 0", "/tmp"),
        ("tmpfs /tmp tmpfs rw 0 0\n/dev/sda /tmp ext4 rw 0 0", "/tmp"),  # mounted over
        ("ramfs / ramfs rw 0 0", "/var/tmp"),
        ("nonsense", "/tmp"),
    ],
)
def test_a_folder_in_memory_is_not_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mounts: str, folder: str
) -> None:
    (tmp_path / "mounts").write_text(mounts + "\n")
    monkeypatch.delenv("TMPDIR", raising=False)
    real = open

    def mounted(path: str, *arguments: object, **named: object) -> object:
        chosen = tmp_path / "mounts" if path == "/proc/self/mounts" else path
        return real(chosen, *arguments, **named)  # type: ignore[call-overload]  # passed on as it came

    monkeypatch.setattr(spool_module, "open", mounted, raising=False)
    assert choose_folder() == folder


def test_what_the_user_names_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Spool(1, str(tmp_path)).folder == str(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(spool_module, "IN_MEMORY", frozenset())
    assert Spool(1).folder == str(tmp_path)
