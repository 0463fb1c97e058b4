"""The command that runs a script, and why it could not be run."""

from __future__ import annotations

import errno
import os

from gateways.cgihost.resolving import Refused, Script


def command(script: Script, arguments: list[bytes]) -> list[bytes]:
    """Return the words of the command: an absolute path comes before all that a visitor chose."""
    return [*script.interpreter, script.file, *arguments]


def failure(error: OSError, script: Script) -> Refused:
    """Return what to answer, with a line for the log that says why and what mends it."""
    shown = os.fsdecode(script.file)
    if error.errno == errno.E2BIG:
        return Refused(
            431, f"{shown}: the request's variables are more than a process may be given"
        )
    if error.errno in (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return Refused(503, f"{shown} could not be started: {error.strerror}")
    return Refused(500, f"{shown} could not be started: {_why(error, script)}")


def _why(error: OSError, script: Script) -> str:
    if script.interpreter:
        return f"{error.strerror} ({os.fsdecode(script.interpreter[0])})"
    line = _first_line(script.file)
    if error.errno == errno.ENOEXEC:
        return 'its first line does not name its interpreter; write one, such as "#!/bin/sh"'
    if error.errno in (errno.ENOENT, errno.EACCES) and line.startswith(b"#!"):
        if line.endswith(b"\r"):
            return "its lines end as on Windows (CRLF); mend them: sed -i 's/\\r$//' FILE"
        named = os.fsdecode(line[2:].strip()[:100])
        return f'{error.strerror}: look at the interpreter in its first line, "{named}"'
    return error.strerror or str(error)


def _first_line(file: bytes) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.readline(256).rstrip(b"\n")
    except OSError:
        return b""
