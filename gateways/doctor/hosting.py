"""A folder for a shared host, as docs/shared-hosting.md has it uploaded: the programs in it, and what FTP leaves out."""

from __future__ import annotations

import os

from gateways.doctor import script
from gateways.doctor.findings import Finding, Report, Wishes, command

PROGRAMS = ("dispatch.fcgi", "app.cgi")

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_NEEDLESS = ("testing", "doctor", "cli", "client")
"""Parts of the package that answering requests does without."""


def is_site(path: str) -> bool:
    """Whether it is a folder with one of the programs."""
    return any(os.path.isfile(os.path.join(path, name)) for name in PROGRAMS)


def examine(path: str, wishes: Wishes, report: Report) -> None:
    """Look at each program in the folder, and at what has to be beside it."""
    folder = os.path.abspath(path)
    for name in PROGRAMS:
        if os.path.isfile(os.path.join(folder, name)):
            script.examine(os.path.join(folder, name), wishes, report)
    _check_htaccess(folder, report)
    _check_package(folder, report)
    report.checked += [".htaccess", "the folder gateways/"]


def _check_htaccess(folder: str, report: Report) -> None:
    path = os.path.join(folder, ".htaccess")
    if os.path.isfile(path):
        return
    report.add(
        Finding(
            "htaccess-missing",
            path,
            f"{path} is not there",
            "without it Apache starts no program here, and serves every file in the folder, source"
            " included, to whoever asks",
            advice="upload it again; FTP programs hide names that begin with a dot until told to show them",
        )
    )


def _check_package(folder: str, report: Report) -> None:
    package = os.path.join(folder, "gateways")
    expected = _files_of(_PACKAGE)
    lacking = sorted(expected - _files_of(package))
    if not lacking:
        return
    some = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
    report.add(
        Finding(
            "package-incomplete",
            package,
            f"{package} is not there"
            if len(lacking) == len(expected)
            else f"{package} lacks {some}, or has nothing in them, beside the gateways that runs doctor",
            "the programs import gateways from the folder beside them, and fail without a part of it",
            (command("cp", "-R", _PACKAGE, folder),),
            "upload the folder again, whole",
        )
    )


def _files_of(package: str) -> set[str]:
    """Return the paths of the modules in it that hold anything, relative to it."""
    found = set()
    for place, folders, names in os.walk(package):
        if place == package:
            folders[:] = [each for each in folders if each not in _NEEDLESS]
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py") and _holds_anything(path):
                found.add(os.path.relpath(path, package))
    return found


def _holds_anything(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:  # a link to nowhere
        return False
