"""Who may do what with a file, reckoned from its mode, its owner and its access control list.

It is reckoned and not tried, because the doctor is mostly run by root, who may do everything, for
a user whom nobody can become.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gateways.errors import ConfigurationError

WEB_SERVER_USERS = ("www-data", "nginx", "apache", "http", "lighttpd")
"""The users that distributions run web servers as; the first that exists is meant."""

READ, WRITE, EXECUTE = 4, 2, 1

_WORDS = {READ: "read", WRITE: "write", EXECUTE: "execute"}

# The extended attribute of an access control list, and the tags of its entries (acl(5)).
_ACL = "system.posix_acl_access"
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK = 0x02, 0x04, 0x08, 0x10


@dataclass(frozen=True, slots=True)
class User:
    """A user and the groups it is in; `uid` is -1 for "other", who is nobody in particular."""

    name: str
    uid: int
    gid: int
    groups: frozenset[int]

    def may(self, bit: int, path: str) -> bool:
        """Return whether this user may read, write or execute (a folder: enter) what `path` leads to.

        Raises OSError where the file cannot be looked at.
        """
        found = os.stat(path)
        if self.uid == 0:
            # Root needs one x bit somewhere to execute a file, and nothing else.
            return bit != EXECUTE or stat.S_ISDIR(found.st_mode) or bool(found.st_mode & 0o111)
        if self.uid == found.st_uid:
            return bool(found.st_mode >> 6 & bit)
        by_list = self._by_list(bit, path, found)
        if by_list is not None:
            return by_list
        shift = 3 if found.st_gid in self.groups else 0
        return bool(found.st_mode >> shift & bit)

    def _by_list(self, bit: int, path: str, found: os.stat_result) -> bool | None:
        """Return what the access control list says; None where it, or there being none, leaves it open."""
        entries = _acl(path)
        if not entries:
            return None
        # The mask bounds all entries but the owner's and that of others.
        mask = next((perm for tag, perm, _ in entries if tag == _ACL_MASK), 7)
        for tag, perm, number in entries:
            if tag == _ACL_USER and number == self.uid:
                return bool(perm & mask & bit)
        of_groups = [
            perm & mask
            for tag, perm, number in entries
            if (tag == _ACL_GROUP_OBJ and found.st_gid in self.groups)
            or (tag == _ACL_GROUP and number in self.groups)
        ]
        if of_groups:
            return any(perm & bit for perm in of_groups)
        return bool(found.st_mode & bit)


def find_user(name: str = "") -> User:
    """Return the user of that name, or the web server's; "other" is whoever owns nothing here.

    Raises ConfigurationError where there is no such user.
    """
    for each in (name,) if name else WEB_SERVER_USERS:
        try:
            found = pwd.getpwnam(each)
        except KeyError:
            continue
        groups = frozenset(os.getgrouplist(each, found.pw_gid))
        return User(each, found.pw_uid, found.pw_gid, groups)
    if name and name != "other":
        raise ConfigurationError(
            f'there is no user "{name}" here; name the web server\'s with --user, or "other"'
        )
    return User("other", -1, -1, frozenset())


def _acl(path: str) -> list[tuple[int, int, int]]:
    """Return the entries of a file's access control list as (tag, permissions, number)."""
    try:
        raw = os.getxattr(path, _ACL)
    except (OSError, AttributeError):
        return []  # None there, or a file system or system that has none.
    return list(struct.iter_unpack("<HHI", raw[4:])) if (len(raw) - 4) % 8 == 0 else []


def folders_to(path: str) -> list[str]:
    """Return every folder that is entered on the way to `path`, from the root on.

    Where a symbolic link leads elsewhere, the folders on the way to its target follow.
    """
    found: dict[str, None] = {}
    for each in (os.path.abspath(path), os.path.realpath(path)):
        above = []
        while each != "/":
            each = os.path.dirname(each)
            above.append(each)
        found.update(dict.fromkeys(reversed(above)))
    return list(found)


def barred_folders(path: str, user: User) -> Iterator[str]:
    """Yield the folders on the way to `path` that the user may not enter.

    Stops at the first that this process itself may not look behind, or that is missing.
    """
    for folder in folders_to(path):
        try:
            if not user.may(EXECUTE, folder):
                yield folder
        except OSError:
            return


def first_missing(path: str) -> str:
    """Return the first part of `path` that does not exist, or an empty string."""
    for part in [*folders_to(path), os.path.abspath(path)]:
        try:
            os.lstat(part)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return part
            return ""
    return ""


def described(path: str) -> str:
    """Return a file's permissions in words: "mode 0640, owner root, group root"."""
    found = os.stat(path)
    return (
        f"mode {stat.S_IMODE(found.st_mode):04o}, owner {user_name(found.st_uid)},"
        f" group {group_name(found.st_gid)}"
    )


def user_name(uid: int) -> str:
    """Return a user's name, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, or its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def opening(user: User, bits: int, path: str) -> str:
    """Return the mode for chmod that gives the user these permissions: "o+x", "g+rw"."""
    found = os.stat(path)
    who = "u" if found.st_uid == user.uid else "g" if found.st_gid in user.groups else "o"
    letters = "".join(_WORDS[bit][0] if bit != EXECUTE else "x" for bit in (4, 2, 1) if bits & bit)
    return f"{who}+{letters}"


def words_of(bits: int) -> str:
    """Return permissions in words: "read and execute"."""
    return " and ".join(_WORDS[bit] for bit in (4, 2, 1) if bits & bit)
