"""Finds out what it was given, has it looked at, and does the harmless mendings."""

from __future__ import annotations

import os
import stat
import sys

from gateways.doctor import hosting, loglines, script, sockets, urls
from gateways.doctor.access import find_user
from gateways.doctor.findings import Report, Wishes, shown
from gateways.errors import ConfigurationError

_SCHEMES = ("fcgi:", "scgi:", "ajp:", "uwsgi:", "fcgi+", "scgi+", "ajp+", "uwsgi+", "http+")

_MAX_LOG = 1024 * 1024


def examine(
    thing: str,
    *,
    user: str = "",
    fix: bool = False,
    run: bool = False,
    timeout: float = 10.0,
    script_name: str = "",
) -> Report:
    """Examine a script or file, an address, a URL or a line of an error log; "-" reads lines from stdin.

    `user` is the web server's, whose permissions count; `fix` does the harmless mendings, and then
    looks again; `run` runs a CGI script once; `timeout` is seconds for each wait.  Raises
    ConfigurationError where the thing is none of these.
    """
    wishes = Wishes(find_user(user), run, timeout, script_name)
    report = _look(thing, wishes)
    if fix:
        done = []
        for finding in report.findings:
            if finding.mend is not None:
                try:
                    finding.fixed = finding.mend()
                except OSError as error:
                    report.notes.append(f"{finding.about} could not be mended: {error}")
                    continue
                done.append(finding)
        if done:
            again = _look(thing, wishes)
            again.findings[:0] = done
            return again
    return report


def _look(thing: str, wishes: Wishes) -> Report:
    kind = kind_of(thing)
    report = Report(kind, shown(thing, 400), wishes.user)
    if kind == "script":
        file = file_of(thing)
        (hosting if hosting.is_site(file) else script).examine(file, wishes, report)
    elif kind == "url":
        urls.examine(thing, wishes, report)
    elif kind == "address":
        is_path = ":" not in thing and (os.path.lexists(thing) or "/" in thing or "." in thing)
        sockets.examine(f"unix:{os.path.abspath(thing)}" if is_path else thing, wishes, report)
    else:
        text = sys.stdin.read(_MAX_LOG) if thing == "-" else thing
        loglines.examine(text, wishes, report, one=thing != "-")
    return report


def file_of(thing: str) -> str:
    """Return the file that is meant, without the attribute that `gateways serve` takes behind it."""
    if not os.path.lexists(thing):
        path, colon, attribute = thing.rpartition(":")
        if colon and "/" not in attribute and os.path.isfile(path):
            return path
    return thing


def kind_of(thing: str) -> str:
    """Return "script", "address", "url" or "log"; ConfigurationError where it could be nothing."""
    if not thing.strip():
        raise ConfigurationError("there is nothing to examine; name a script, an address or a URL")
    if "\0" in thing:
        raise ConfigurationError(
            "there is a NUL in what is to be examined; nothing has such a name"
        )
    if thing == "-":
        return "log"
    if os.path.lexists(file_of(thing)):
        return "address" if _is_socket(thing) else "script"
    if thing.startswith(("http://", "https://")) and " " not in thing:
        return "url"
    if loglines.find(thing) is not None:
        return "log"
    if " " not in thing.strip():
        if (
            thing.startswith((*_SCHEMES, "unix:"))
            or "://" in thing
            or thing.endswith((".sock", ".socket"))
        ):
            return "address"
        if "/" in thing or os.path.splitext(thing)[1] in (".py", ".cgi", ".fcgi", ".wsgi", ".pl"):
            return "script"
        if ":" in thing:
            return "address"
    if "\n" in thing or " " in thing.strip():
        raise ConfigurationError(
            "this is no line of an error log that doctor knows; it knows those of nginx, Apache,"
            " lighttpd and gateways that docs/doctor.md lists"
        )
    raise ConfigurationError(
        f'"{thing}" is no file here, no address and no URL; write a path, "127.0.0.1:9000",'
        f' "fcgi+unix:/run/app.sock", "http://localhost/", or a line of an error log in quotes'
    )


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
