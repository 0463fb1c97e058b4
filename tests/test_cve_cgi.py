"""The holes of CGI hosts that were found in others, tried through a socket on what runs our scripts.

Each kind of host runs the same Python script: executed for each request, kept warm and forked, kept
warm in its process.  tests/cgihost and tests/pycgi go further into detail.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.doors import LiveServer
from tests.peers import wire
from tests.peers.wire import (
    Answer,
    children,
    gateway,
    head,
    is_closed,
    request,
    resident_kilobytes,
    stdin,
)

SECRET = "a secret of the source"

SHOW = f"""#!{sys.executable}
# {SECRET}
import json, os, sys
shown = {{"environment": dict(os.environ), "arguments": sys.argv[1:]}}
if os.environ["QUERY_STRING"].startswith("set="):
    os.environ["LEFT_BEHIND"] = "1"
shown["read"] = len(sys.stdin.buffer.read())
print("Content-Type: application/json\\n")
print(json.dumps(shown))
"""

FORGING = f"""#!{sys.executable}
import os, sys
sys.stdout.buffer.write(b"Content-Type: text/plain\\n" + os.environb[b"HTTP_X_HEAD"] + b"\\n\\nbody")
"""

HOSTS = {
    "cgi-fcgi": ("fcgi", "cgi:{folder}/cgi-bin?indexed_query=yes"),
    "cgi-scgi": ("scgi", "cgi:{folder}/cgi-bin?indexed_query=yes"),
    "pycgi-fork": ("fcgi", "pycgi:{folder}/cgi-bin/show.py?indexed_query=yes"),
    "pycgi-inprocess": ("scgi", "pycgi+inprocess:{folder}/cgi-bin/show.py?indexed_query=yes"),
}


def lay_out(folder: Path) -> None:
    scripts = folder / "cgi-bin"
    (scripts / "sub").mkdir(parents=True)
    for path, text, mode in (
        (scripts / "show.py", SHOW, 0o755),
        (scripts / "sub" / "show.py", SHOW, 0o755),
        (scripts / "forging.py", FORGING, 0o755),
        (scripts / "plain.py", SHOW, 0o644),
        (folder / "outside.py", SHOW, 0o755),
    ):
        path.write_text(text)
        path.chmod(mode)


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each kind of host in turn."""
    folder = tmp_path_factory.mktemp("host")
    lay_out(folder)
    protocol, application = HOSTS[request.param]
    with gateway(
        folder, protocol=protocol, application=application.format(folder=folder), threads=2
    ) as server:
        yield server


@pytest.fixture(scope="module")
def folder_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A folder of scripts, which is where paths can lead astray."""
    folder = tmp_path_factory.mktemp("folder")
    lay_out(folder)
    with gateway(folder, application=f"cgi:{folder}/cgi-bin", threads=2) as server:
        yield server


def asked(server: LiveServer, path: str = "/show.py", **values: str | bytes) -> Answer:
    """Ask for a script, below the root of the site."""
    where: dict[str, str | bytes] = {"SCRIPT_NAME": "", "PATH_INFO": path, "REQUEST_URI": path}
    return request(server, {**where, **values})


def largest(server: LiveServer) -> int:
    """KiB of memory that the daemon holds, or a process it has started and keeps."""
    sizes = []
    for pid in (server.process.pid, *children(server.process.pid)):
        with suppress(FileNotFoundError, ProcessLookupError, AssertionError):
            sizes.append(resident_kilobytes(pid))
    return max(sizes)


def test_httpoxy_a_proxy_header_is_not_in_the_childs_environment(host: LiveServer) -> None:
    """CVE-2016-5385 to 5388, CVE-2016-1000109, CVE-2016-1000110: a script's HTTP library obeys it."""
    seen = asked(host, HTTP_PROXY="http://evil.example:8080", HTTP_OTHER="1").told["environment"]
    assert seen["HTTP_OTHER"] == "1"
    assert not {name for name in seen if name.upper() == "HTTP_PROXY"}


def test_cve_2024_8927_no_header_makes_a_variable_that_scripts_trust(host: LiveServer) -> None:
    """php-cgi believed HTTP_REDIRECT_STATUS; LD_PRELOAD and PYTHONPATH are believed by everything."""
    forged = {
        "HTTP_REDIRECT_STATUS": "200",
        "LD_PRELOAD": "/tmp/evil.so",
        "PYTHONPATH": "/tmp/evil",
        "PYTHONSTARTUP": "/tmp/evil.py",
        "BASH_ENV": "/tmp/evil.sh",
    }
    seen = asked(host, **forged).told["environment"]
    assert not {name: seen[name] for name in forged if seen.get(name) == forged[name]}


def test_cve_2011_2766_nothing_of_a_request_is_seen_by_the_next(host: LiveServer) -> None:
    """Perl's FCGI left variables of the request before in the environment."""
    first = {"REMOTE_USER": "root", "HTTP_SECRET": "1", "HTTPS": "on", "QUERY_STRING": "set=1"}
    assert asked(host, **first).told["environment"]["REMOTE_USER"] == "root"
    seen = asked(host).told["environment"]
    assert not seen.keys() & {"REMOTE_USER", "HTTP_SECRET", "HTTPS", "LEFT_BEHIND"}


@pytest.mark.parametrize(
    "query", ["-s", "-h", "--version", "-c+print(1)", "%2Dh", "word+-h", "-", "a=b", "-d+a%3Db"]
)
def test_argv_never_holds_an_option(host: LiveServer, query: str) -> None:
    """CVE-2012-1823 and CVE-2024-4577 (RFC 3875 4.4): php-cgi took a query for its options."""
    assert asked(host, QUERY_STRING=query).told["arguments"] == []


def test_argv_holds_the_words_of_an_indexed_query(host: LiveServer) -> None:
    """RFC 3875 4.4, where nothing is wrong with it."""
    assert asked(host, QUERY_STRING="two+w%6Frds").told["arguments"] == ["two", "words"]


@pytest.mark.parametrize("info", ["", "/", "/a\nb", "/\n", "/" + "x" * 3000])
def test_cve_2019_11043_an_odd_path_reaches_the_script_as_it_was_sent(
    host: LiveServer, info: str
) -> None:
    """PHP-FPM took a newline in the path for an empty PATH_INFO, and ran off its front."""
    seen = asked(host, f"/show.py{info}", REQUEST_URI="/show.py").told["environment"]
    whole = seen.get("SCRIPT_NAME", "") + seen.get("PATH_INFO", "")
    assert whole == f"/show.py{info}"


def test_gh_119452_a_huge_content_length_allocates_nothing(host: LiveServer) -> None:
    """http.server asked for the whole body in one allocation."""
    asked(host)
    before = largest(host)
    values = {"PATH_INFO": "/show.py", "REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(10**12)}
    made = head(values) + stdin(bytes(100_000))
    if host.protocol == "SCGI":
        made = wire.scgi(values) + bytes(100_000)
    for _ in range(3):
        with host.connect() as sock:
            sock.sendall(made)
            sock.shutdown(socket.SHUT_WR)
            assert is_closed(sock)
    assert largest(host) - before < 30 * 1024
    assert asked(host).told["read"] == 0


@pytest.mark.parametrize("length", ["+10", "1_0", "\u00b2", "-1", "9" * 40])
def test_cve_2022_24761_a_length_is_ascii_digits(host: LiveServer, length: str) -> None:
    """waitress took what int() takes."""
    answer = asked(host, REQUEST_METHOD="POST", CONTENT_LENGTH=length)
    # FastCGI's -1 is a length that is not known yet (interop.md fact 3), and this body is empty.
    empty = length == "-1" and host.protocol == "FastCGI"
    assert answer.status in ((200, 411) if empty else (400, 413))


TRAVERSALS = [
    "/../outside.py",
    "/sub/../../outside.py",
    "/sub/../../cgi-bin/../outside.py",
    "/..%2foutside.py",
    "/%2e%2e/outside.py",
    "/sub%2f..%2f..%2foutside.py",
    "//../outside.py",
    "/show.py/../../outside.py",
    "/..\\outside.py",
    "/sub/..",
    "/..",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_cve_2014_4650_no_path_leads_out_of_the_folder(folder_host: LiveServer, path: str) -> None:
    """CVE-2014-4650, CVE-2018-7490: http.server and uWSGI decoded a path after they had checked it."""
    for info in (path, path.replace("%2f", "/").replace("%2e", ".")):
        answer = asked(folder_host, info, REQUEST_URI=path)
        assert answer.status == 404
        assert SECRET.encode() not in answer.output


@pytest.mark.parametrize(
    "path", ["/plain.py", "/plain.py/", "/plain.py/x", "/plain.py.", "/plain.py%00", "/plain%2epy"]
)
def test_cve_2011_1015_the_source_is_never_shown(folder_host: LiveServer, path: str) -> None:
    """http.server served the text of a script that it did not know for one."""
    answer = asked(folder_host, path)
    assert answer.status in (403, 404)
    assert SECRET.encode() not in answer.output
    assert b"cgi-bin" not in answer.output


def test_a_client_names_no_file_to_run(folder_host: LiveServer) -> None:
    """No id: what reaches a FastCGI port names any file of the machine to PHP-FPM and fcgiwrap."""
    outside = str(folder_host.log.parent / "outside.py")
    named = {"SCRIPT_FILENAME": outside, "PATH_TRANSLATED": outside, "DOCUMENT_ROOT": "/"}
    seen = asked(folder_host, **named).told["environment"]
    assert seen["SCRIPT_FILENAME"] == str(folder_host.log.parent / "cgi-bin" / "show.py")
    for path in ("/outside.py", outside):
        assert asked(folder_host, path, **named).status == 404
    php = {"PHP_VALUE": "auto_prepend_file=/etc/passwd", "PHP_ADMIN_VALUE": "x"}
    assert not asked(folder_host, **php).told["environment"].keys() & php.keys()


@pytest.mark.parametrize(
    "line", [b"X-A: b\rSet-Cookie: evil=1", b"X-A: b\0c", b"X A: b", b"Status: 200 OK\r\r", b"X-A"]
)
def test_cve_2024_24795_a_head_that_a_script_was_made_to_break_is_refused(
    folder_host: LiveServer, line: bytes
) -> None:
    """CVE-2024-24795, CVE-2023-38709, CVE-2022-37436: Apache let a backend's head split the answer."""
    if b"\0" in line:
        answer = asked(folder_host, "/forging.py", HTTP_X_HEAD=line)
        assert answer.status == 400  # no environment holds a NUL
        return
    answer = asked(folder_host, "/forging.py", HTTP_X_HEAD=line)
    assert answer.status == 502
    assert not any(b"evil" in each for each in answer.headers)


def test_a_script_that_may_be_asked_shows_what_the_others_must_not(folder_host: LiveServer) -> None:
    """What the tests of paths look for in vain is there when a script runs."""
    answer = asked(folder_host, "/sub/show.py")
    assert json.loads(answer.body)["environment"]["SCRIPT_NAME"] == "/sub/show.py"
