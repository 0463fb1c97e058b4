"""A URL: what the web server in front answers, and what that means for what is behind it."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.parse

from gateways.addresses import Address
from gateways.doctor import answers, sockets
from gateways.doctor.findings import Finding, Report, Wishes, command, shown
from gateways.errors import ConfigurationError

_MAX_BODY = 256 * 1024

_SOURCE = re.compile(rb"\s*(#!\s*/|import \w|from [\w.]+ import |<\?php\b|\x7fELF|use strict;)")
_SOURCE_TYPES = re.compile(
    r"(text|application)/(x-)?(python|perl|sh|shellscript|httpd-cgi|x-httpd-cgi)"
)

_LOGS = {
    "nginx": "/var/log/nginx/error.log",
    "apache": "/var/log/apache2/error.log",
    "lighttpd": "/var/log/lighttpd/error.log",
}

_MEANINGS = {
    403: (
        "the web server may not read the file or enter a folder above it, does not execute CGI there"
        " (Apache: Options +ExecCGI), or forbids the place; fcgiwrap says it of a script that is"
        " missing or not executable",
        "gateways doctor SCRIPT checks the whole path for its user",
    ),
    404: (
        "the web server has nothing at that path, or the application behind it has not",
        "compare the path with location, Alias or ScriptAlias; gateways get ADDRESS PATH asks the"
        " application alone",
    ),
    405: (
        "the web server serves that path as a file and does not execute it",
        "Apache: AddHandler or ScriptAlias, with Options +ExecCGI; nginx: fastcgi_pass",
    ),
    413: (
        "the web server's own limit on uploads",
        "nginx: client_max_body_size; mod_fcgid: FcgidMaxRequestLen; lighttpd:"
        " server.max-request-size",
    ),
    500: (
        "a CGI script failed before it wrote its headers, or the application itself says 500",
        "the line in the error log tells which",
    ),
    502: (
        "the web server could not connect to the application, or could not read its answer",
        "the line in the error log names the address and the reason",
    ),
    503: (
        "Apache says it when it cannot connect to the application, lighttpd when all its backends are"
        " down, gateways when it is overloaded, with Retry-After",
        "the line in the error log names the address and the reason",
    ),
    504: (
        "the application accepted the connection and did not answer in time",
        "gateways logs what its threads do; fastcgi_read_timeout (nginx) and ProxyTimeout (Apache)"
        " only lengthen the wait",
    ),
}


def examine(url: str, wishes: Wishes, report: Report) -> None:
    """Get the URL and judge the answer; ConfigurationError where it is no URL."""
    parts, port = _split(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    where = Address("http", "tcp", host=host, port=port)
    if not sockets.check_connection(where, wishes, report):
        return
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    heard = _get(url, host, port, target, secure, wishes, report)
    if heard is None:
        return
    server = heard.header("server")
    report.checked.append(
        f"GET {target}: {heard.status}" + (f" from {shown(server, 40)}" if server else "")
    )
    _judge_status(heard, server, report)
    _judge_source(heard, report)
    answers.judge_doubling(heard, wishes.script_name, report)
    if 300 <= heard.status < 400:
        report.notes.append(f"it redirects to {shown(heard.header('location'))}")


def _split(url: str) -> tuple[urllib.parse.SplitResult, int]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ConfigurationError(f'"{url}" is no URL: {error}') from error
    if not parts.hostname:
        raise ConfigurationError(f'the URL "{url}" names no host')
    if not url.isascii() or any(character <= " " for character in url):
        raise ConfigurationError(f'the URL "{url}" has a character in it that is written as %XX')
    return parts, port


def _get(
    url: str, host: str, port: int, target: str, secure: bool, wishes: Wishes, report: Report
) -> answers.Heard | None:
    connection: http.client.HTTPConnection
    if secure:
        connection = http.client.HTTPSConnection(host, port, timeout=wishes.timeout)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=wishes.timeout)
    try:
        connection.request("GET", target, headers={"User-Agent": "gateways-doctor"})
        with connection.getresponse() as answer:
            headers = answer.getheaders()
            try:
                body = answer.read(_MAX_BODY)
            except http.client.HTTPException as error:
                report.add(_cut(url, str(error)))
                return None
            if answer.length and len(body) < _MAX_BODY:
                report.add(_cut(url, f"{answer.length} bytes of its Content-Length are missing"))
            return answers.Heard(url, target, answer.status, headers, body, b"")
    except ssl.SSLCertVerificationError as error:
        report.add(
            Finding(
                "certificate",
                url,
                f"its certificate is not accepted: {error.verify_message}",
                "browsers warn of it, and nothing behind it has been looked at",
                (
                    command(
                        "openssl", "s_client", "-connect", f"{host}:{port}", "-servername", host
                    ),
                ),
            )
        )
    except TimeoutError:
        report.add(answers.no_answer(url, wishes.timeout))
    except (http.client.HTTPException, OSError) as error:
        report.add(_no_http(url, host, port, error, wishes))
    finally:
        connection.close()
    return None


def _cut(url: str, how: str) -> Finding:
    return Finding(
        "answer-cut",
        url,
        f"the answer ends in the middle: {shown(how)}",
        "the application failed or was killed after it had sent the head",
        (command("curl", "-v", "-o", "/dev/null", url),),
        "the application's own log says why",
    )


def _no_http(url: str, host: str, port: int, error: Exception, wishes: Wishes) -> Finding:
    address = Address("http", "tcp", host=host, port=port)
    other = sockets.who_answers(address, wishes, "HTTP")
    if other is not None:
        return sockets.wrong_protocol(address, *other)
    return Finding(
        "closed-without-answer",
        url,
        f"the connection gave no HTTP answer: {shown(str(error) or type(error).__name__)}",
        "what listens there is no web server, or it ended in the middle of the request",
        (command("curl", "-v", url),),
    )


def _judge_status(heard: answers.Heard, server: str, report: Report) -> None:
    meaning = _MEANINGS.get(heard.status)
    if meaning is None and heard.status < 500:
        return
    why, advice = meaning or _MEANINGS[500]
    logs = [log for name, log in _LOGS.items() if name in server.lower()]
    report.add(
        Finding(
            f"http-{heard.status}",
            heard.about,
            f"{server or 'the web server'} answers {heard.status}",
            why,
            tuple(f"tail -n 5 {log} | gateways doctor -" for log in logs)
            if heard.status >= 500 or heard.status == 403
            else (),
            advice,
        )
    )


def _judge_source(heard: answers.Heard, report: Report) -> None:
    """Find that the visitor gets the script itself."""
    if heard.status != 200:
        return
    kind = heard.header("content-type").partition(";")[0].strip().lower()
    is_source = _SOURCE.match(heard.body) is not None
    if not is_source and not _SOURCE_TYPES.match(kind):
        return
    shows = kind.startswith(("text/plain", "text/html")) or not kind
    report.add(
        Finding(
            "source-shown" if shows else "source-downloaded",
            heard.about,
            f"the answer is the script's source ({kind or 'no Content-Type'}): it begins with"
            f' "{shown(heard.body[:40])}"',
            "the web server serves the file and does not execute it; everybody can read what is in it,"
            " passwords too",
            advice="Apache: ScriptAlias, or Options +ExecCGI with AddHandler cgi-script .cgi, and"
            " a2enmod cgid; nginx executes nothing: fastcgi_pass to fcgiwrap or gateways; lighttpd:"
            " mod_cgi with cgi.assign",
        )
    )
