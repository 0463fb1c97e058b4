"""An address: who listens there, may the web server connect, which protocol is spoken, what is answered."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import time
from contextlib import suppress

from gateways import addresses, client
from gateways.addresses import Address
from gateways.doctor import access, answers, paths, wire
from gateways.doctor.findings import Finding, Report, Wishes, command, shown
from gateways.errors import (
    ConfigurationError,
    ProtocolError,
    RequestAborted,
    TransportError,
    TransportTimeout,
    TruncatedMessage,
)

_MAX_BODY = 256 * 1024

_PROBE_SECONDS = 2.0
"""How long an answer to a question in another protocol is waited for: what answers, answers at once."""


def examine(text: str, wishes: Wishes, report: Report) -> None:
    """Look at an address, with an optional target behind it as `gateways get` takes it.

    Raises ConfigurationError where it is no address.
    """
    address, target = addresses.split_url(text)
    check(address, target, wishes, report, "://" in text or "+unix:" in text)


def check(address: Address, target: str, wishes: Wishes, report: Report, said: bool = True) -> None:
    """Look at the address; `said` tells whether its protocol was named or only assumed."""
    if address.family == "fd":
        raise ConfigurationError(
            f"{address} is a descriptor of some other process; name the address it is bound to"
        )
    if address.family == "unix" and not _check_file(address, report):
        return
    if not check_connection(address, wishes, report):
        return
    if not said:
        spoken, _ = who_answers(address, wishes, "") or ("", b"")
        scheme = wire.SCHEMES.get(spoken)
        if scheme is not None and scheme != address.protocol:
            address = _speaking(address, scheme)
            report.notes.append(f"what listens there speaks {spoken}: {address}")
    if address.protocol in ("fcgi", "scgi"):
        _ask(address, target, wishes, report)
    else:
        _ask_plainly(address, target, wishes, report)


def _speaking(address: Address, protocol: str) -> Address:
    return Address(
        protocol, address.family, host=address.host, port=address.port, path=address.path
    )


# The file of a unix socket.


def _check_file(address: Address, report: Report) -> bool:
    path = address.path
    if not paths.check_exists(path, report, "socket"):
        return False
    mode = os.stat(path).st_mode
    if not stat.S_ISSOCK(mode):
        report.add(
            Finding(
                "not-a-socket",
                path,
                f"{path} is no socket but {'a folder' if stat.S_ISDIR(mode) else 'a file'}",
                "nobody can listen there",
                (command("ls", "-ld", path),),
                "compare the path with the application's; if it is left over, remove it",
            )
        )
        return False
    paths.check_folders(path, report)
    _check_socket_mode(path, report)
    report.checked += ["the socket file", f"access for {report.user.name} along the path"]
    return True


def _check_socket_mode(path: str, report: Report) -> None:
    user = report.user
    if user.may(access.WRITE, path):
        return
    group = access.group_name(user.gid) if user.gid >= 0 else ""
    report.add(
        Finding(
            "socket-barred",
            path,
            f"{user.name} may not write to {path} ({access.described(path)})",
            "who connects to a unix socket has to be allowed to write to it: Permission denied, 502",
            (f"{command('chgrp', group, path)} && {command('chmod', 'g+rw', path)}",)
            if group
            else (command("chmod", "o+rw", path),),
            "so that it lasts: gateways serve … "
            + (f"--socket-group {group}" if group else "--socket-mode 666"),
        )
    )


# Is somebody there?


def _connect(address: Address, timeout: float) -> socket.socket:
    if address.family == "tcp":
        return socket.create_connection((address.host, address.port), timeout)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(timeout)
        connected.connect(address.path)
    except BaseException:
        connected.close()
        raise
    return connected


def check_connection(address: Address, wishes: Wishes, report: Report) -> bool:
    try:
        _connect(address, wishes.timeout).close()
    except (OSError, UnicodeError) as error:
        report.add(_no_connection(address, error, wishes))
        return False
    report.checked.append("that somebody listens")
    return True


def _no_connection(address: Address, error: OSError | UnicodeError, wishes: Wishes) -> Finding:
    number = getattr(error, "errno", None)
    where = str(address)
    if isinstance(error, socket.gaierror | UnicodeError):
        return Finding(
            "host-unknown",
            where,
            f'the host name "{address.host}" is not known',
            "nobody can connect to a name without an address",
            (command("getent", "hosts", address.host),),
            "check its spelling, or write 127.0.0.1 for this machine",
        )
    if address.family == "unix":
        return _no_unix_connection(address, number, error, wishes)
    if number == errno.ECONNREFUSED:
        other = _other_loopback(address)
        return Finding(
            "nobody-listens",
            where,
            f"nobody listens at {address.host} port {address.port} (Connection refused)"
            + (f", but somebody does at {other}" if other else ""),
            "the application is not running, or listens elsewhere; the web server answers 502 or 503",
            (command("ss", "-ltnp", f"sport = :{address.port}"),),
            f"let both sides name {other}"
            if other
            else f"start the application there: gateways serve APP -b {where}",
        )
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
        return Finding(
            "connect-timeout",
            where,
            f"nothing answered a connection to {where} within {wishes.timeout:g} s",
            "a firewall drops the packets, the machine is down, or its backlog is full; 504",
            (command("ss", "-ltn", f"sport = :{address.port}"),),
            "the command is for the machine that should answer",
        )
    return Finding(
        "unreachable",
        where,
        f"connecting to {where} says: {error.strerror or error}",
        "the web server meets the same; 502",
        (command("ip", "route", "get", address.host),),
    )


def _no_unix_connection(
    address: Address, number: int | None, error: Exception, wishes: Wishes
) -> Finding:
    path = address.path
    if number == errno.ECONNREFUSED:
        return Finding(
            "stale-socket",
            path,
            f"nobody listens at {path}, but the file is there (Connection refused)",
            "its server has ended without removing it; the web server answers 502",
            (command("ss", "-lxp", "src", path),),
            f"start the application again: gateways serve APP -b {address} takes the file's place",
        )
    if number == errno.EAGAIN or isinstance(error, TimeoutError):
        return Finding(
            "backlog-full",
            path,
            f"whoever listens at {path} accepted no connection within {wishes.timeout:g} s",
            "its backlog is full: it is stuck, or slower than the requests come"
            " (Resource temporarily unavailable, 502)",
            (command("ss", "-lx", "src", path),),
            "more --workers or --threads, a longer --backlog; if it is stuck, a time limit in the"
            " application",
        )
    if number in (errno.EACCES, errno.EPERM):
        return Finding(
            "not-allowed-here",
            path,
            f"whoever runs doctor may not connect to {path}",
            "so nobody can tell from here what listens there",
            (f"sudo {command('gateways', 'doctor', str(address))}",),
        )
    return Finding(
        "unreachable",
        path,
        f"connecting to {path} says: {error}",
        "the web server meets the same; 502",
    )


def _other_loopback(address: Address) -> str:
    """Return the other of 127.0.0.1 and ::1, where somebody listens there."""
    other = {"127.0.0.1": "::1", "::1": "127.0.0.1", "localhost": ""}.get(address.host)
    if not other:
        return ""
    found = Address(address.protocol, "tcp", host=other, port=address.port)
    try:
        _connect(found, 1.0).close()
    except OSError:
        return ""
    return str(found)


# Which protocol is it?


def _exchange(address: Address, question: bytes, timeout: float) -> bytes:
    """Send bytes on a new connection; return the first that come back, nothing where none do."""
    with suppress(OSError), _connect(address, timeout) as connected:
        connected.settimeout(timeout)
        with suppress(OSError):
            connected.sendall(question)
        return connected.recv(4096)
    return b""


def _speaks_tls(address: Address, timeout: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is asked for its protocol, and told nothing
    with suppress(OSError), _connect(address, timeout) as connected, context.wrap_socket(connected):
        return True
    return False


def who_answers(address: Address, wishes: Wishes, but: str) -> tuple[str, bytes] | None:
    """Ask in one protocol after the other; return the one that is answered in, and its bytes."""
    timeout = min(wishes.timeout, _PROBE_SECONDS)
    for asked in (wire.FASTCGI, wire.HTTP, wire.SCGI, wire.UWSGI, wire.AJP):
        if asked == but:
            continue
        data = _exchange(address, wire.probe(asked), timeout)
        found = wire.identify(data, asked)
        if found and found != but:
            return found, data
    return (wire.TLS, b"") if _speaks_tls(address, timeout) else None


def wrong_protocol(address: Address, found: str, data: bytes) -> Finding:
    meant = wire.NAMES[address.protocol]
    scheme = wire.SCHEMES.get(found)
    better = str(_speaking(address, scheme)) if scheme else ""
    bytes_seen = f": it answers {wire.excerpt(data)}" if data else ""
    return Finding(
        "wrong-protocol",
        str(address),
        f"what listens there speaks {found}, not {meant}{bytes_seen}",
        f"the web server is told to speak {meant} to it; neither understands the other"
        " (unsupported version, unexpected record, invalid header; 502)",
        (command("gateways", "doctor", better),) if better and found != wire.HTTP else (),
        f"let the web server speak {found} ({wire.DIRECTIVES[found]}), or let the application"
        f" speak {meant}"
        if found in wire.DIRECTIVES
        else f"another program has that {'port' if address.port else 'socket'}; choose another",
    )


# A real request.


def _ask(address: Address, target: str, wishes: Wishes, report: Report) -> None:
    errors = bytearray()
    started = time.monotonic()
    try:
        if wishes.script_name and not target.startswith(wishes.script_name):
            target = wishes.script_name + target
        with client.request(
            address,
            target,
            script_name=wishes.script_name,
            timeout=wishes.timeout,
            on_errors=errors.extend,
        ) as answer:
            body = bytearray()
            for piece in answer.iter_body():
                body += piece[: _MAX_BODY - len(body)]
                # An event stream has no end; what has come is enough to judge by.
                if len(body) >= _MAX_BODY or time.monotonic() > started + wishes.timeout:
                    break
    except (ProtocolError, RequestAborted, TransportError) as error:
        report.add(_judge_failure(address, wishes, error, bytes(errors)))
        return
    heard = answers.Heard(
        str(address), target, answer.status, answer.headers, bytes(body), bytes(errors)
    )
    answers.judge_application(heard, answer.app_status, answer.protocol_status, report)
    answers.judge_doubling(heard, wishes.script_name, report)
    report.checked.append(f"GET {target} in {wire.NAMES[address.protocol]}: {answer.status}")


def _judge_failure(address: Address, wishes: Wishes, error: Exception, errors: bytes) -> Finding:
    known = answers.by_error_output(str(address), errors)
    if known is not None:
        return known
    if isinstance(error, RequestAborted) and "ended the request" in str(error):
        return answers.refused(str(address), str(error))
    meant = wire.NAMES[address.protocol]
    other = who_answers(address, wishes, meant)
    if other is not None and other[0] != meant:
        return wrong_protocol(address, *other)
    if isinstance(error, TransportTimeout):
        return answers.no_answer(str(address), wishes.timeout)
    said = f"; it wrote to its error output: {answers.last_line(errors)}" if errors else ""
    if isinstance(error, ProtocolError) and not isinstance(error, TruncatedMessage):
        return Finding(
            "broken-answer",
            str(address),
            f"the answer breaks {meant}: {shown(str(error), 300)}{said}",
            "the web server cannot read it and answers 502",
            (command("gateways", "get", "-i", str(address)),),
            "what listens there may speak another protocol, or writes to its standard output"
            " what is no answer",
        )
    return Finding(
        "closed-without-answer",
        str(address),
        f"the connection was closed before an answer: {shown(str(error), 200)}{said}",
        "the application ended or was killed in the middle of the request, or does not speak"
        f" {meant} (upstream prematurely closed connection, 502)",
        advice="its own log says why; where it is killed for memory, so does: dmesg | tail",
    )


def _ask_plainly(address: Address, target: str, wishes: Wishes, report: Report) -> None:
    """Ask in a protocol that the client does not speak: one packet, and the first bytes back."""
    meant = wire.NAMES[address.protocol]
    question = wire.probe(meant)
    if meant == wire.HTTP:
        question = question.replace(b"GET / ", b"GET %s " % target.encode("ascii", "replace"))
    data = _exchange(address, question, wishes.timeout)
    found = wire.identify(data, meant)
    if found == meant:
        report.checked.append(f"{meant}: {wire.excerpt(data)}")
        if data.startswith(b"HTTP/") and data[9:10] == b"5":
            status = int(data[9:12]) if data[9:12].isdigit() else 500
            heard = answers.Heard(str(address), target, status, [], data, b"")
            answers.judge_application(heard, 0, 0, report)
        return
    other = (found, data) if found else who_answers(address, wishes, meant)
    if other is not None:
        report.add(wrong_protocol(address, *other))
    elif data:
        report.add(
            Finding(
                "broken-answer",
                str(address),
                f"the answer is not {meant}: it begins with {wire.excerpt(data)}",
                "the web server cannot read it and answers 502",
                advice="another program may have that port",
            )
        )
    else:
        report.add(answers.no_answer(str(address), wishes.timeout))
