"""A CGI script, a FastCGI program, or a file with a WSGI application."""

from __future__ import annotations

import os
import re
import stat

from gateways.doctor import access, files, mending, output, paths, running, shebang, source
from gateways.doctor.findings import Finding, Report, Wishes, command

_CANNOT_START = (
    *("not-executable", "unreadable", "folder-barred", "empty-file", "bom", "crlf", "no-shebang"),
    *("shebang-empty", "shebang-without-path", "shebang-too-long", "syntax-error"),
    *("interpreter-missing", "interpreter-not-executable", "interpreter-barred"),
    *("env-missing", "env-arguments"),
)

_NO_BOM = r"1s/^\xef\xbb\xbf//"

_APPLICATION = re.compile(rb"^(?:async )?(?:def |class )?(?:application|app)\b", re.MULTILINE)


def examine(path: str, wishes: Wishes, report: Report, trusted: bool = True) -> None:
    """Look at the file, from the outside in.

    One that is not `trusted`, because a line of a log named it, is neither run nor given to the
    interpreter that it names.
    """
    path = os.path.abspath(path)
    if not paths.check_exists(path, report, "script"):
        return
    if not os.path.isfile(path):
        report.add(_no_file(path))
        return
    paths.check_folders(path, report)
    try:
        data = files.read(path)
    except OSError as error:
        report.notes.append(f"{path} cannot be read by whoever runs doctor: {error.strerror}")
        return
    report.checked += ["existence", f"access for {report.user.name} along the path"]
    if is_application(path, data):
        report.kind = "application" if report.kind == "script" else report.kind
        _check_application(path, data, report, trusted)
        return
    found = _check_program(path, data, report)
    is_fastcgi = path.endswith(".fcgi")
    if found.is_python and trusted:
        source.check(path, data, found.interpreter, report)
        if not is_fastcgi and not report.has("syntax-error"):
            output.check_source(path, data, report)
    if not wishes.run or not trusted:
        return
    if is_fastcgi:
        report.notes.append(f"{path} is a FastCGI program, and --run is for CGI scripts")
    elif report.has(*_CANNOT_START):
        report.notes.append(f"{path} was not run, since it cannot be started as it is")
    else:
        running.check(path, wishes.timeout, wishes.script_name, report)


def is_application(path: str, data: bytes) -> bool:
    """Return whether the file is loaded, by `gateways serve` or mod_wsgi, and never executed."""
    if path.endswith(".wsgi"):
        return True
    if not path.endswith(".py") or os.stat(path).st_mode & 0o111:
        return False
    has_shebang = data.removeprefix(mending.BOM).startswith(b"#!")
    return not has_shebang and _APPLICATION.search(data) is not None


def _no_file(path: str) -> Finding:
    mode = os.stat(path).st_mode
    what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
    return Finding(
        "not-a-file",
        path,
        f"{path} is {what}",
        "a web server executes regular files only",
        (command("ls", "-la", path),),
        "name a script in it" if what == "a folder" else "",
    )


def _check_application(path: str, data: bytes, report: Report, trusted: bool) -> None:
    paths.check_access(
        path, access.READ, report, "unreadable", "whoever loads the application has to read it"
    )
    if trusted:
        source.check(path, data, "", report)


def _check_program(path: str, data: bytes, report: Report) -> shebang.Shebang:
    """Find what keeps the kernel, the web server or suexec from starting it."""
    mode = os.stat(path).st_mode
    is_binary = data.startswith(b"\x7fELF")
    bits = access.EXECUTE if is_binary else access.READ | access.EXECUTE
    if not mode & 0o111:
        bits &= ~access.EXECUTE
        report.add(
            Finding(
                "not-executable",
                path,
                f"{path} has mode {stat.S_IMODE(mode):04o}, without an x bit",
                "a web server can only start a file that is executable: Apache answers 500"
                " (Permission denied: exec), fcgiwrap 403",
                (command("chmod", "+x", path),),
                mend=lambda: mending.make_executable(path),
            )
        )
    paths.check_access(
        path,
        bits,
        report,
        "unreadable",
        "the interpreter runs as that user: it has to read the script, and Linux to execute it",
    )
    _check_writable(path, report)
    if not data:
        report.add(
            Finding(
                "empty-file",
                path,
                f"{path} is empty",
                "there is nothing to execute; an upload may have been cut off",
                (command("ls", "-l", path),),
                "upload it again",
            )
        )
        return shebang.Shebang()
    if is_binary:
        report.checked += ["mode", "ELF program"]
        return shebang.Shebang()
    if data.startswith(mending.BOM):
        report.add(
            Finding(
                "bom",
                path,
                f"{path} begins with a byte order mark (EF BB BF)",
                "#! has to be the very first bytes, or Linux does not know what to start the script"
                " with (Exec format error)",
                (command("sed", "-i", _NO_BOM, path),),
                mend=lambda: mending.without_bom(path),
            )
        )
    found = shebang.read(path, data, report)
    _check_line_ends(path, data, found, report)
    report.checked += ["mode", "#! line and interpreter", "line ends"]
    return found


def _check_line_ends(path: str, data: bytes, found: shebang.Shebang, report: Report) -> None:
    count = data.count(b"\r\n")
    first = data.partition(b"\n")[0].endswith(b"\r")
    # Python reads either; to a shell or Perl the carriage return is a part of the last word.
    if not count or (found.is_python and not first):
        return
    report.add(
        Finding(
            "crlf",
            path,
            f"{count} lines of {path} end in CR LF, as Windows writes them",
            "Linux looks for an interpreter whose name ends in a carriage return, and says of the"
            " script that there is no such file"
            if first
            else "the interpreter takes the carriage return for a part of the last word of the line",
            (command("sed", "-i", r"s/\r$//", path),),
            "upload it in text mode, or have the editor save it with Unix line ends",
            mend=lambda: mending.unix_line_ends(path),
        )
    )


def _check_writable(path: str, report: Report) -> None:
    for each in (path, os.path.dirname(path)):
        mode = stat.S_IMODE(os.stat(each).st_mode)
        if not mode & 0o022:
            continue
        who = "everybody" if mode & 0o002 else "its group"
        report.add(
            Finding(
                "writable",
                each,
                f"{who} may write to {each} (mode {mode:04o})",
                "suexec refuses to run it (file or directory is writable by others), and who can write"
                " there decides what the web server runs; without suexec it does run",
                (command("chmod", "go-w", each),),
            )
        )
