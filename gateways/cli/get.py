"""`gateways get`: make one request to a FastCGI or SCGI server, as curl does to an HTTP server."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import IO

import click

from gateways import addresses, client, events
from gateways.client import Answer
from gateways.client.body import Body
from gateways.errors import ConfigurationError, GatewayError, LocalProtocolError, ProtocolError

EXIT_BAD_STATUS = 22
"""As curl exits after --fail."""

MAX_TIMEOUT = 86400.0
"""Seconds: a day.  Sockets refuse what they cannot count, and infinity is such a number."""

_FORM = "application/x-www-form-urlencoded"


def seconds(text: str) -> float:
    """Read a time to wait."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    # Not-a-number compares as false.
    if not 0 < number <= MAX_TIMEOUT:
        raise click.BadParameter(
            f'"{text}" is no time to wait; write seconds, more than 0 and at most {MAX_TIMEOUT:g}'
        )
    return number


@click.command("get")
@click.argument("url")
@click.argument("path", required=False)
@click.option("-X", "--method", help="The method.  [GET, or POST with --data]")
@click.option("-H", "--header", multiple=True, metavar="'NAME: VALUE'", help="Send a header.")
@click.option(
    "-d",
    "--data",
    multiple=True,
    metavar="TEXT|@FILE|@-",
    help="Send this body, a file, or standard input. Several are joined by &.",
)
@click.option("-i", "--include", is_flag=True, help="Print the answer's head before its body.")
@click.option("-I", "--head", is_flag=True, help="Ask with HEAD and print the head.")
@click.option("-o", "--output", metavar="FILE", help="Write to a file, not to standard output.")
@click.option("-f", "--fail", is_flag=True, help="Exit 22, without the body, from status 400 on.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.option(
    "-V",
    "--variable",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a meta-variable, such as HTTPS=on, or PHP's SCRIPT_FILENAME=/srv/index.php.",
)
@click.option(
    "--script-name", default="", metavar="PATH", help="The path the application is mounted at."
)
@click.option(
    "--role",
    type=click.Choice([events.RESPONDER, events.AUTHORIZER]),
    default=events.RESPONDER,
    help="The FastCGI role to ask for.  [responder]",
)
@click.option(
    "--timeout", type=seconds, default="30", metavar="SECONDS", help="Seconds for each wait.  [30]"
)
def command(
    url: str,
    path: str | None,
    method: str | None,
    header: tuple[str, ...],
    data: tuple[str, ...],
    include: bool,
    head: bool,
    output: str | None,
    fail: bool,
    as_json: bool,
    variable: tuple[str, ...],
    script_name: str,
    role: str,
    timeout: float,
) -> int:
    """Ask a FastCGI or SCGI server, as curl does.

    \b
        gateways get "fcgi://127.0.0.1:9000/greet?name=Ada"
        gateways get fcgi+unix:/run/app.sock /greet -d name=Ada

    The body goes to standard output, the application's error output to standard error.  The exit
    code is 1 when there was no complete answer.
    """
    address, target = _address_and_target(url, path)
    if role != events.RESPONDER and address.protocol != "fcgi":
        raise ConfigurationError(
            f"only FastCGI has roles, and {address} speaks {address.protocol};"
            f" leave --role {role} out"
        )
    headers = [_split_header(text) for text in header]
    if data and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", _FORM.encode("ascii")))
    with _explained(address), contextlib.ExitStack() as stack:
        answer = stack.enter_context(
            client.request(
                address,
                target,
                method=method or ("HEAD" if head else "POST" if data else "GET"),
                headers=headers,
                body=_body(data, stack),
                script_name=script_name,
                extra=dict(_split_variable(text) for text in variable),
                role=role,
                timeout=timeout,
                on_errors=None if as_json else _show_errors,
            )
        )
        if fail and answer.status >= 400:
            print(f"gateways: the answer is {_status(answer)}", file=sys.stderr)
            return EXIT_BAD_STATUS
        out = stack.enter_context(_open_output(output))
        if as_json:
            _write_json(answer, out)
        else:
            _write(answer, out, include or head)
        return _exit_code(answer)


def _address_and_target(url: str, path: str | None) -> tuple[addresses.Address, str]:
    address, target = addresses.split_url(url)
    if path is None:
        return address, target
    if target != "/":
        raise ConfigurationError(
            f'there are two paths, "{target}" in the URL and "{path}" behind it; write one of them'
        )
    return address, f"/{path}" if path.startswith("?") else path


@contextlib.contextmanager
def _explained(address: addresses.Address) -> Iterator[None]:
    """Tell what cannot be asked for as a wrong use, and what another protocol looks like."""
    try:
        yield
    except LocalProtocolError as error:
        raise ConfigurationError(str(error)) from error
    except ProtocolError as error:
        words = _other_protocol(error, address)
        if not words:
            raise
        raise GatewayError(f"{address} speaks {words}") from error


def _other_protocol(error: ProtocolError, address: addresses.Address) -> str:
    # The error about an impossible record shows the bytes that stood in its place.
    seen = str(error) if error.rule == "FastCGI 3.3" else ""
    if "b'HTTP/" in seen:
        return "HTTP, not FastCGI; ask it with curl"
    if re.search(r"b'(Status:|\d+:)", seen):
        return f"SCGI or CGI, not FastCGI; try {str(address).replace('fcgi', 'scgi', 1)}"
    return ""


def _split_header(text: str) -> tuple[str, bytes]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ConfigurationError(f'the header "{text}" has no colon; write "Name: value"')
    return name.strip(), os.fsencode(value.strip())


def _split_variable(text: str) -> tuple[str, bytes]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError(f'the variable "{text}" is no pair; write NAME=VALUE')
    return name, os.fsencode(value)


def _body(data: tuple[str, ...], stack: contextlib.ExitStack) -> Body:
    if len(data) == 1 and data[0].startswith("@"):
        # A file goes out as it is read, however large it is.
        return _open_input(data[0][1:], stack)
    return b"&".join(_piece(text, stack) for text in data)


def _piece(text: str, stack: contextlib.ExitStack) -> bytes:
    if text.startswith("@"):
        return _open_input(text[1:], stack).read()
    return os.fsencode(text)


def _open_input(name: str, stack: contextlib.ExitStack) -> IO[bytes]:
    if name == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(open(name, "rb"))
    except OSError as error:
        raise ConfigurationError(f'cannot read "{name}": {error.strerror}') from error


@contextlib.contextmanager
def _open_output(name: str | None) -> Iterator[IO[bytes]]:
    if name in (None, "-"):
        yield sys.stdout.buffer
        return
    try:
        file = open(str(name), "wb")  # noqa: SIM115  # closed two lines below
    except OSError as error:
        raise ConfigurationError(f'cannot write "{name}": {error.strerror}') from error
    with file:
        yield file


def _show_errors(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def _status(answer: Answer) -> str:
    return f"{answer.status} {answer.reason}".rstrip()


def _write(answer: Answer, out: IO[bytes], include: bool) -> None:
    if include:
        lines = [("Status", _status(answer)), *answer.headers]
        head = "".join(f"{name}: {value}\n" for name, value in lines) + "\n"
        out.write(head.encode("latin-1"))
        out.flush()
    for piece in answer.iter_body():
        out.write(piece)
        # An event stream is looked at while it comes.
        out.flush()


def _write_json(answer: Answer, out: IO[bytes]) -> None:
    body = answer.read()
    text = _text(body)
    told = {
        "status": answer.status,
        "reason": answer.reason,
        "headers": answer.headers,
        **({"body": text} if text is not None else {"body_base64": _base64(body)}),
        "errors": answer.errors.decode("utf-8", "backslashreplace"),
        "app_status": answer.app_status,
        "protocol_status": answer.protocol_status,
    }
    out.write(json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8") + b"\n")


def _text(body: bytes) -> str | None:
    try:
        return None if b"\0" in body else body.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode("ascii")


def _exit_code(answer: Answer) -> int:
    if answer.app_status or answer.protocol_status:
        print(
            f"gateways: the application ended the request with appStatus {answer.app_status},"
            f" protocolStatus {answer.protocol_status}",
            file=sys.stderr,
        )
        return 1
    return 0
