"""Who may do what: reckoned as the kernel does it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from gateways.doctor import access
from gateways.doctor.access import EXECUTE, READ, WRITE, User
from gateways.errors import ConfigurationError
from tests.doctor.conftest import ME

STRANGER = User("stranger", 54321, 54321, frozenset({54321, 54322}))


def may(path: Path, user: User = STRANGER) -> str:
    bits = ((READ, "r"), (WRITE, "w"), (EXECUTE, "x"))
    return "".join(letter for bit, letter in bits if user.may(bit, str(path)))


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "file"
    path.touch()
    return path


def test_others_get_the_last_three_bits(file: Path) -> None:
    file.chmod(0o735)
    assert may(file) == "rx"


def test_the_owner_gets_the_first_three_bits_and_no_others(file: Path) -> None:
    owner = User("owner", os.geteuid(), 54321, frozenset({54321}))
    if owner.uid == 0:
        pytest.skip("root may everything")  # the next test is about that
    file.chmod(0o077)
    assert may(file, owner) == ""


def test_root_may_everything_but_execute_what_nobody_may(file: Path, folder: Path) -> None:
    root = User("root", 0, 0, frozenset({0}))
    file.chmod(0o000)
    assert may(file, root) == "rw"
    file.chmod(0o001)
    assert may(file, root) == "rwx"
    assert may(folder, root) == "rwx"


def test_a_member_of_the_group_gets_the_bits_between_and_no_others(file: Path) -> None:
    member = User("member", 54321, 54321, frozenset({54321, file.stat().st_gid}))
    file.chmod(0o757)
    assert may(file, member) == "rx"
    assert access.opening(member, WRITE, str(file)) == "g+w"
    assert access.opening(STRANGER, READ | EXECUTE, str(file)) == "o+rx"


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)


NOBODY = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("entry", "mask", "expected"),
    [
        ((0x02, 1, 54321), 7, "x"),  # the user by name
        ((0x02, 7, 54321), 1, "x"),  # bounded by the mask
        ((0x08, 5, 54322), 7, "rx"),  # one of its groups
        ((0x02, 1, 999), 7, ""),  # somebody else by name: the bits of others
    ],
)
def test_an_access_control_list_counts(
    file: Path, entry: tuple[int, int, int], mask: int, expected: str
) -> None:
    entries = [(0x01, 6, NOBODY), entry, (0x04, 0, NOBODY), (0x10, mask, NOBODY), (0x20, 0, NOBODY)]
    try:
        os.setxattr(file, "system.posix_acl_access", acl(*sorted(entries)))
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")  # not every file system has them
    assert may(file) == expected


def test_the_first_of_the_web_servers_users_that_exists_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "WEB_SERVER_USERS", ("no_such_user", ME))
    assert access.find_user().name == ME
    monkeypatch.setattr(access, "WEB_SERVER_USERS", ("no_such_user",))
    assert access.find_user() == User("other", -1, -1, frozenset())
    assert access.find_user("other").uid == -1
    with pytest.raises(ConfigurationError, match="no user"):
        access.find_user("no_such_user")
