"""A path in the file system: is it there, and may the web server's user get at it?"""

from __future__ import annotations

import os
from difflib import get_close_matches

from gateways.doctor import access
from gateways.doctor.findings import Finding, Report, command


def check_exists(path: str, report: Report, kind: str) -> bool:
    """Find that nothing is at `path`; return whether something is."""
    if os.path.exists(path):
        return True
    if os.path.islink(path):
        report.add(
            Finding(
                "broken-link",
                path,
                f"{path} is a symbolic link to {os.readlink(path)}, where nothing is",
                f"the web server follows the link and finds no {kind}",
                advice="point the link at the file that is meant",
            )
        )
        return False
    missing = access.first_missing(path)
    if not missing:
        report.add(_hidden(path))
        return False
    if missing != os.path.abspath(path):
        report.add(
            Finding(
                "folder-missing",
                missing,
                f"the folder {missing} does not exist",
                f"what should be in it, {path}, cannot exist either",
                (command("ls", "-ld", os.path.dirname(missing)), command("mkdir", "-p", missing)),
                "compare the path with the web server's configuration; folders below /run are gone"
                " after each boot, and systemd makes them anew with RuntimeDirectory=",
            )
        )
        return False
    folder, name = os.path.split(os.path.abspath(path))
    near = get_close_matches(name, _names(folder), 3)
    there = f"; near it: {', '.join(near)}" if near else ""
    report.add(
        Finding(
            "missing" if kind == "script" else "socket-missing",
            path,
            f"there is no {path}{there}",
            "the web server answers 404 where a script is missing, and says so in its log"
            if kind == "script"
            else "the application is not running, or listens elsewhere; the web server answers 502",
            (command("ls", "-la", folder),),
            "compare the path with the web server's configuration"
            if kind == "script"
            else f"start the application there: gateways serve APP -b {path}",
        )
    )
    return False


def _hidden(path: str) -> Finding:
    return Finding(
        "hidden",
        path,
        f"{path} is behind a folder that this process may not look into",
        "whoever runs doctor has fewer rights than the question needs",
        (f"sudo {command('gateways', 'doctor', path)}",),
    )


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def check_folders(path: str, report: Report, code: str = "folder-barred") -> None:
    """Find each folder on the way to `path` that the web server's user may not enter."""
    user = report.user
    for folder in access.barred_folders(path, user):
        mode = access.opening(user, access.EXECUTE, folder)
        by_list = command("setfacl", "-m", f"u:{user.name}:x", folder)
        report.add(
            Finding(
                code,
                folder,
                f"{_named(user)} may not enter {folder} ({access.described(folder)})",
                f"without the x bit on every folder of the path nobody reaches {path}",
                (command("chmod", mode, folder),),
                f"or, to let nobody else in: {by_list}" if mode == "o+x" and user.uid >= 0 else "",
            )
        )


def check_access(path: str, bits: int, report: Report, code: str, why: str) -> None:
    """Find that the web server's user may not do with the file what it has to."""
    user = report.user
    lacking = 0
    for bit in (access.READ, access.WRITE, access.EXECUTE):
        try:
            if bits & bit and not user.may(bit, path):
                lacking |= bit
        except OSError:
            return
    if lacking:
        report.add(
            Finding(
                code,
                path,
                f"{_named(user)} may not {access.words_of(lacking)} {path} ({access.described(path)})",
                why,
                (command("chmod", access.opening(user, lacking, path), path),),
            )
        )


def _named(user: access.User) -> str:
    return f"the user {user.name}" if user.uid >= 0 else "a user who owns nothing here"
