"""Who besides root and this process could change a file or a folder: the rule for whatever is trusted."""

from __future__ import annotations

import errno
import os
import stat

_LINKS = 40  # as many symbolic links as Linux follows in one path


def changeable(path: str, sticky: bool = False) -> str:
    """Return the first part of `path` that somebody else than root and this process could change.

    Each folder and symbolic link on the way is judged, and what it leads to; "" is that there is
    none.  With `sticky` a folder such as /tmp is good enough where what is taken from it is root's
    or this process's own; but not as the last folder.  Raises OSError where a part is not there.
    """
    here, links = "/", 0
    # Not abspath: it takes "link/.." away, which leads to the folder above the link's target.
    left = os.path.join(os.getcwd(), path).split("/")[:0:-1]
    while True:
        found = os.lstat(here)
        is_link = stat.S_ISLNK(found.st_mode)
        if found.st_uid not in (0, os.geteuid()):
            return here
        # Who owns what is taken from a folder such as /tmp is judged in the next round.
        is_sticky = sticky and left and found.st_mode & stat.S_ISVTX
        if not is_link and not is_sticky and _written_by_others(here, found):
            return here
        if is_link:
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            left += target.split("/")[::-1]
            here = "/" if target.startswith("/") else os.path.dirname(here)
        # Empty parts come of "//", and of a target that begins with "/".
        left = [each for each in left if each not in ("", ".")]
        if not left:
            return ""
        name = left.pop()
        here = os.path.dirname(here) if name == ".." else os.path.join(here, name)


def _written_by_others(path: str, found: os.stat_result) -> bool:
    if found.st_mode & 0o002:
        return True
    if not found.st_mode & 0o020 or found.st_gid == 0:
        return False
    # An access control list that lets somebody write shows in the group's bit.
    return _has_access_list(path) or not _is_private(found.st_gid)


def _is_private(group: int) -> bool:
    """Whether a group is this user's alone, as where each user has one and the umask is 002.

    It bears the user's name, is the user's own, lists nobody else, and is nobody else's own: who has
    it as the group of his entry in passwd is not listed in it.
    """
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid())
        found = grp.getgrgid(group)
    except KeyError:
        return False
    if user.pw_gid != group or user.pw_name != found.gr_name:
        return False
    owners = {each.pw_uid for each in pwd.getpwall() if each.pw_gid == group}
    return not set(found.gr_mem) - {user.pw_name} and not owners - {user.pw_uid}


def _has_access_list(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "system.posix_acl_access", follow_symlinks=False))
    except AttributeError:  # not Linux, where nobody can say
        return True
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
