"""Runs a script once, as a web server runs CGI, and judges what comes out."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress

from gateways.doctor import access, output
from gateways.doctor.findings import Finding, Report, command, shown
from gateways.doctor.shebang import SERVERS_PATH
from gateways.doctor.source import rights_of

_MAX_OUTPUT = 1024 * 1024


def environment(path: str, script_name: str) -> dict[str, str]:
    """Return a GET's environment, with nothing of this process's own (RFC 3875, section 4.1)."""
    return {
        "PATH": SERVERS_PATH,
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "gateways-doctor",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_ADDR": "127.0.0.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_METHOD": "GET",
        "REQUEST_SCHEME": "http",
        "REQUEST_URI": script_name,
        "SCRIPT_NAME": script_name,
        "SCRIPT_FILENAME": path,
        "DOCUMENT_ROOT": os.path.dirname(path),
        "QUERY_STRING": "",
        "HTTP_HOST": "localhost",
    }


def check(path: str, timeout: float, script_name: str, report: Report) -> None:
    """Run the script; find that it cannot be started, does not end, fails, or writes no head."""
    path = os.path.abspath(path)
    script_name = script_name or f"/{os.path.basename(path)}"
    rights = rights_of(report.user)
    try:
        process = subprocess.Popen(
            [path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=os.path.dirname(path),
            env=environment(path, script_name),
            start_new_session=True,
            **rights,
        )
    except OSError as error:
        report.add(
            Finding(
                "exec-failed",
                path,
                f"starting it says: {os.strerror(error.errno or errno.EIO)}",
                "the web server meets the same and answers 500; the other findings say why",
                (command("head", "-c", "80", path),),
            )
        )
        return
    out, errors, ended = _pump(process, timeout)
    report.checked.append(
        f"one run as CGI, as {access.user_name(rights.get('user', os.geteuid()))}"
    )
    if not ended:
        report.add(
            Finding(
                "runs-too-long",
                path,
                f"it had not ended after {timeout:g} s, and was killed",
                "a web server waits for a while (nginx and Apache: 60 s) and answers 504",
                advice="let it read no more than CONTENT_LENGTH bytes of standard input, and give what"
                " it waits for a time limit; --timeout SECONDS waits longer here",
            )
        )
        return
    if process.returncode and not _has_head(out):
        report.add(_failed(path, process.returncode, errors))
        return
    if output.check_output(path, out, report) and process.returncode:
        report.add(_failed(path, process.returncode, errors))
    elif errors:
        report.notes.append(f"{path} wrote to its error output: {_last_line(errors)}")


def _has_head(out: bytes) -> bool:
    return b"\n\n" in out or b"\r\n\r\n" in out


def _failed(path: str, code: int, errors: bytes) -> Finding:
    how = f"exit status {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
    last = _last_line(errors)
    return Finding(
        "run-failed",
        path,
        f"run as CGI, it ended with {how}" + (f": {last}" if last else ""),
        "what it could not do as this user, with this environment, it cannot do for the web server",
        (f"env -i PATH={SERVERS_PATH} REQUEST_METHOD=GET {command(path)}",),
    )


def _last_line(errors: bytes) -> str:
    lines = [line for line in errors.splitlines() if line.strip()]
    return shown(lines[-1].strip(), 200) if lines else ""


def _pump(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes, bool]:
    """Read both outputs to their ends; return them, and whether the script ended in time."""
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + timeout
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
        for each in kept:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                store = kept[key.fileobj]  # type: ignore[index]  # only these two are registered
                if len(store) < _MAX_OUTPUT:
                    store += data
    ended = _has_ended(process.pid, max(deadline, time.monotonic() + 0.1))
    # Until it is waited for, its number is given to no other process, and neither is its group's.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    out, errors = kept.values()
    return bytes(out), bytes(errors), ended


def _has_ended(pid: int, deadline: float) -> bool:
    """Return whether the child ends before the deadline; it stays to be waited for."""
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True
