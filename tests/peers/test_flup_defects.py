"""Defects that flup 1.0.3 was measured to have, and that gateways does not share.

Each is numbered; a test's docstring begins with its number.  Where it costs little, the same bytes
go to flup as well, to show that they are the ones that matter: those tests are named after flup
and assert what it does wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateways import client
from gateways.server.input import Input
from tests.doors import ROOT, LiveServer
from tests.peers import wire
from tests.peers.application import STATE
from tests.peers.wire import (
    KEEP,
    VARIABLES,
    Answer,
    answers,
    ask,
    descriptors,
    fastcgi,
    fastcgi_answer,
    flup,
    gateway,
    head,
    is_alive,
    is_closed,
    pairs,
    record,
    records,
    request,
    scgi_headers,
    send,
    stdin,
    until,
    until_recorded,
    workers_of,
)

LATER = {
    "9, SIGUSR1 replaces the children one by one": "here SIGHUP does that, and it is tested",
    "15, AJP": "gateways does not speak AJP13 yet",
    "16, paste's entry points": "the drop-in package gateways.flup is not there yet",
}
"""What is not tested, and why."""

ELSEWHERE = {"17, more than 1,024 descriptors": "tests/test_cve.py, CVE-2012-6687"}


@pytest.fixture(scope="module")
def fcgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with gateway(tmp_path_factory.mktemp("fcgi")) as server:
        yield server


@pytest.fixture(scope="module")
def scgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with gateway(tmp_path_factory.mktemp("scgi"), protocol="scgi") as server:
        yield server


@pytest.fixture(scope="module")
def flup_fcgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with flup(tmp_path_factory.mktemp("flup-fcgi"), "fcgi") as server:
        yield server


@pytest.fixture(scope="module")
def flup_scgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with flup(tmp_path_factory.mktemp("flup-scgi"), "scgi") as server:
        yield server


# CGI: defects 1, 2.


def run_cgi(
    folder: Path,
    variables: dict[bytes, bytes],
    stdin: Any = subprocess.DEVNULL,
    body: bytes = b"",
    *,
    fails: bool = False,
) -> Answer:
    """Run the application as a CGI program with just these variables.

    The exit status is 0, unless the program `fails`.
    """
    own = {b"PATH": os.environb[b"PATH"], STATE.encode(): bytes(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.peers.application", "cgi", "{}"],
        cwd=ROOT,
        env={**variables, **own},
        stdin=subprocess.PIPE if body else stdin,
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate(body or None, timeout=30)
    assert (process.returncode != 0) == fails
    return Answer(output)


CGI = {b"GATEWAY_INTERFACE": b"CGI/1.1", b"REQUEST_METHOD": b"GET", b"SCRIPT_NAME": b"/app.cgi"}


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "/dev/null", "a file"])
def test_a_cgi_request_is_answered_whatever_its_standard_input_is(
    tmp_path: Path, kind: str
) -> None:
    """1: flup tells CGI from FastCGI by a call that fails for all but sockets (Errno 88)."""
    with ExitStack() as stack:
        if kind == "a socket":
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            given: Any = stack.enter_context(theirs)
        elif kind == "a file":
            given = stack.enter_context((tmp_path / "body").open("w+b"))
        else:
            given = subprocess.PIPE if kind == "a pipe" else subprocess.DEVNULL
        answer = run_cgi(tmp_path, {**CGI, b"PATH_INFO": b"/x"}, given)
    assert answer.told["PATH_INFO"] == "/x"


def test_a_cgi_program_answers_when_it_is_run_by_hand(tmp_path: Path) -> None:
    """1: without any variables, as from a shell."""
    told = run_cgi(tmp_path, {}).told
    assert (told["REQUEST_METHOD"], told["PATH_INFO"]) == ("GET", "/")


def test_a_cgi_body_is_bytes(tmp_path: Path) -> None:
    """1: flup's wsgi.input gives str, and fails where the bytes are no UTF-8."""
    body = bytes(range(256)) * 10
    length = b"%d" % len(body)
    variables = {**CGI, b"REQUEST_METHOD": b"POST", b"CONTENT_LENGTH": length, b"PROBE": b"read"}
    told = run_cgi(tmp_path, variables, body=body).told
    assert told == {"type": "bytes", "length": 2560, "digest": hashlib.sha256(body).hexdigest()}


@pytest.mark.parametrize("path", [b"/caf\xe9", "/café".encode()])
def test_a_cgi_path_is_the_bytes_that_were_sent_as_latin_1(tmp_path: Path, path: bytes) -> None:
    """1: flup decodes PATH_INFO from UTF-8."""
    assert run_cgi(tmp_path, {**CGI, b"PATH_INFO": path}).told["PATH_INFO"] == path.decode(
        "latin-1"
    )


def test_a_cgi_answer_may_be_any_bytes(tmp_path: Path) -> None:
    """2: flup's CGI server writes str only, so that every answer is a TypeError."""
    answer = run_cgi(tmp_path, {**CGI, b"PROBE": b"bytes", b"PROBE_ARGUMENT": b"1000"})
    assert answer.status == 200
    assert answer.body == bytes(1000)


FLUP_CGI = """
import sys
from flup.server.{module} import WSGIServer
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
WSGIServer(application).run()
"""


@pytest.mark.parametrize(
    ("module", "complaint"), [("fcgi", b"[Errno 88]"), ("cgi", b"TypeError: write()")]
)
def test_flup_answers_no_cgi_request(module: str, complaint: bytes) -> None:
    """1, 2: shows that the defects are real."""
    done = subprocess.run(
        [sys.executable, "-c", FLUP_CGI.format(module=module)],
        input=b"",
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert complaint in done.stderr
    assert b"hello" not in done.stdout


# FastCGI, the wire: defects 3, 4, 8.


def get_values(server: LiveServer) -> dict[bytes, bytes]:
    names = {"FCGI_MAX_CONNS": b"", "FCGI_MAX_REQS": b"", "FCGI_MPXS_CONNS": b"", "FCGI_OTHER": b""}
    with server.connect() as sock:
        sock.sendall(record(wire.GET_VALUES, pairs(names), 0))
        kind, request_id, content = wire.receive_record(sock)
    assert (kind, request_id) == (wire.GET_VALUES_RESULT, 0)
    values = {}
    while content:
        name_end = 2 + content[0]
        end = name_end + content[1]
        values[content[2:name_end]] = content[name_end:end]
        content = content[end:]
    return values


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (b"1024", b"1")),
        ({"workers": 2, "max_connections": 7}, (b"14", b"1")),
        ({"threads": 1, "max_connections": 5}, (b"5", b"0")),
    ],
)
def test_get_values_tells_the_limits_in_force(
    tmp_path: Path, options: dict[str, Any], expected: tuple[bytes, bytes]
) -> None:
    """3: flup answers with nothing."""
    most, multiplexing = expected
    with gateway(tmp_path, **options) as server:
        assert get_values(server) == {
            b"FCGI_MAX_CONNS": most,
            b"FCGI_MAX_REQS": most,
            b"FCGI_MPXS_CONNS": multiplexing,
        }


def test_flup_tells_no_limits(flup_fcgi: LiveServer) -> None:
    """3: shows that the defect is real."""
    assert get_values(flup_fcgi) == {}


def in_records_of(size: int, values: dict[str, str]) -> bytes:
    content = pairs({**VARIABLES, **values})
    cut = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(record(wire.PARAMS, piece) for piece in [*cut, b""])


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_a_pair_may_be_split_across_records_anywhere(fcgi: LiveServer, size: int) -> None:
    """4: flup loses a pair that does not end in the record it began in."""
    values = {"HTTP_SHORT": "value", "HTTP_LONG": "long " * 60, "HTTP_LAST": "last"}
    told = ask(fcgi, wire.begin() + in_records_of(size, values) + record(wire.STDIN)).told
    assert {name: told.get(name) for name in values} == values


def test_flup_loses_split_pairs(flup_fcgi: LiveServer) -> None:
    """4: shows that the defect is real."""
    values = {"HTTP_LONG": "long " * 60}
    told = ask(flup_fcgi, wire.begin() + in_records_of(100, values) + record(wire.STDIN)).told
    assert "HTTP_LONG" not in told


# A pair whose lengths say more than its stream holds.
LYING = wire.pair(b"HTTP_BEFORE", b"1") + bytes([9, 100]) + b"HTTP_LIARshort"


def test_a_length_that_lies_is_refused(fcgi: LiveServer) -> None:
    """4: flup takes what there is and runs the application with it."""
    before = records(fcgi)
    params = record(wire.PARAMS, LYING) + record(wire.PARAMS)
    answer = ask(fcgi, wire.begin() + params + record(wire.STDIN))
    assert answer.status == 400
    assert answer.ended == (0, 0)
    assert records(fcgi) == before


def test_flup_believes_a_length_that_lies(flup_fcgi: LiveServer) -> None:
    """4: shows that the defect is real."""
    content = pairs({**VARIABLES, "PROBE": "pid"}) + LYING
    params = record(wire.PARAMS, content) + record(wire.PARAMS)
    assert ask(flup_fcgi, wire.begin() + params + record(wire.STDIN)).status == 200


@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_record_of_another_version_ends_the_connection(fcgi: LiveServer, version: int) -> None:
    """4: flup does not look at the version."""
    before = records(fcgi)
    with fcgi.connect() as sock:
        body = struct.pack(">HB5x", 1, KEEP)
        send(sock, record(wire.BEGIN, body, version=version) + fastcgi()[16:])
        assert is_closed(sock)
    assert records(fcgi) == before


def test_flup_does_not_look_at_the_version(flup_fcgi: LiveServer) -> None:
    """4: shows that the defect is real."""
    sent = record(wire.BEGIN, struct.pack(">HB5x", 1, 0), version=2) + fastcgi()[16:]
    assert ask(flup_fcgi, sent).status == 200


def test_a_short_begin_request_closes_the_connection_and_leaks_nothing(fcgi: LiveServer) -> None:
    """8: flup swallows the exception and keeps the socket."""
    request(fcgi)
    start = descriptors(fcgi.process.pid)
    for _ in range(20):
        with fcgi.connect() as sock:
            send(sock, record(wire.BEGIN, b"\0\1\0\0"))
            assert is_closed(sock)
    until(lambda: descriptors(fcgi.process.pid) <= start, lambda: descriptors(fcgi.process.pid))
    assert request(fcgi).status == 200


# Cost: defect 5.


@pytest.mark.parametrize("size", [1, 10, 4096])
def test_readline_returns_no_more_than_it_was_asked_for(fcgi: LiveServer, size: int) -> None:
    """5: flup's readline(n) may return more."""
    body = b"first\n" + b"x" * 9000 + b"\nlast"
    lengths = request(fcgi, {"PROBE": "readline", "PROBE_ARGUMENT": str(size)}, body).told
    assert sum(lengths) == len(body)
    assert max(lengths) <= size


def test_flup_returns_more_of_a_line_than_it_was_asked_for(flup_fcgi: LiveServer) -> None:
    """5: shows that the defect is real."""
    body = b"x" * 9000 + b"\nlast"
    lengths = request(flup_fcgi, {"PROBE": "readline", "PROBE_ARGUMENT": "10"}, body).told
    assert max(lengths) > 10


def test_a_line_of_30_megabytes_arrives(fcgi: LiveServer) -> None:
    """5: flup takes seconds, because it joins what it has with each piece that arrives."""
    size = 30_000_000
    lengths = request(fcgi, {"PROBE": "readline", "PROBE_ARGUMENT": "-1"}, bytes(size)).told
    assert lengths == [size]


class Counted(bytes):
    """Bytes that count how many of them are looked at."""

    touched = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        found = super().find(sub, start)
        Counted.touched += (len(self) if found < 0 else found) - start
        return found

    def __getitem__(self, key: Any) -> Any:
        taken = super().__getitem__(key)
        Counted.touched += len(taken)
        return taken


@pytest.mark.parametrize("method", ["read", "readline"])
def test_the_cost_of_reading_grows_as_the_body_does(method: str) -> None:
    """5: each byte is searched and copied once, however many pieces the line arrives in."""

    def touched(count: int) -> int:
        Counted.touched = 0
        pieces = iter([Counted(b"x" * 8192) for _ in range(count)])
        assert len(getattr(Input(lambda: next(pieces, b"")), method)()) == count * 8192
        return Counted.touched

    assert touched(200) == 2 * touched(100)


def test_a_piece_of_20_megabytes_is_sent(fcgi: LiveServer, scgi: LiveServer) -> None:
    """5: flup takes seconds, because it cuts off the front of what is left again and again."""
    size = 20_000_000
    for server in (fcgi, scgi):
        answer = request(server, {"PROBE": "bytes", "PROBE_ARGUMENT": str(size)})
        assert len(answer.body) == size


# Heads: defect 6.


def head_request(status: str, *headers: tuple[str, str]) -> dict[str, str]:
    return {"PROBE": "head", "PROBE_ARGUMENT": json.dumps([status, headers])}


SPLIT = head_request("200 OK", ("X-One", "1\r\nX-Smuggled: 2"))


def test_a_line_end_in_a_header_is_refused(fcgi: LiveServer, scgi: LiveServer) -> None:
    """6: with flup the value becomes a header of its own."""
    for server in (fcgi, scgi):
        answer = request(server, SPLIT)
        assert answer.status == 500
        assert b"X-Smuggled" not in answer.output


def test_flup_splits_the_answer(flup_fcgi: LiveServer) -> None:
    """6: shows that the defect is real."""
    assert b"X-Smuggled: 2" in request(flup_fcgi, SPLIT).headers


@pytest.mark.parametrize("status", ["304 Not Modified", "204 No Content"])
def test_an_answer_without_a_body_is_given_no_content_length(fcgi: LiveServer, status: str) -> None:
    """6: flup adds `Content-Length: 0`, which for 304 is a statement about the entity."""
    answer = request(fcgi, head_request(status, ("ETag", '"1"')))
    assert answer.headers == [b"Status: " + status.encode(), b'ETag: "1"']


def test_flup_gives_304_a_content_length(flup_fcgi: LiveServer) -> None:
    """6: shows that the defect is real."""
    assert b"Content-Length: 0" in request(flup_fcgi, head_request("304 Not Modified")).headers


# Requests that are given up: defects 7, 13.


@pytest.mark.parametrize("threads", [1, 2])
def test_an_abort_wakes_the_application_that_reads_the_body(tmp_path: Path, threads: int) -> None:
    """7: with flup the worker waits for ever."""
    with (
        gateway(tmp_path, threads=threads, stream_requests=True) as server,
        server.connect() as sock,
    ):
        values = {"PROBE": "follow", "CONTENT_LENGTH": "500000"}
        sock.sendall(head(values) + stdin(bytes(100_000)))
        until_recorded(server, "reading")
        sock.sendall(record(wire.ABORT))
        until_recorded(server, "stopped by an OSError")
        # The request is ended (FastCGI 5.4), not as if it had been answered.
        answer = fastcgi_answer(sock)
        assert answer.status != 200
        assert request(server).status == 200


def test_an_abort_wakes_only_its_own_application_among_several(tmp_path: Path) -> None:
    """7: the same on a multiplexed connection, where the other requests go on."""
    with gateway(tmp_path, threads=4, stream_requests=True) as server, server.connect() as sock:
        values = {"PROBE": "follow", "CONTENT_LENGTH": "500000"}
        for request_id in (1, 2, 3):
            sock.sendall(head(values, request_id, flags=KEEP) + stdin(bytes(100_000), request_id))
        until_recorded(server, "reading", times=3)
        sock.sendall(record(wire.ABORT, request_id=2))
        until_recorded(server, "stopped by an OSError")
        for request_id in (1, 3):
            sock.sendall(stdin(bytes(400_000), request_id) + record(wire.STDIN, b"", request_id))
        got = answers(sock, 1, 2, 3)
        assert (got[1].ended, got[1].told) == (got[3].ended, got[3].told) == ((0, 0), None)
        assert got[2].ended is not None
        assert got[2].ended[0] != 0
        assert records(server).count("stopped by an OSError") == 1


def test_a_fault_in_the_middle_of_an_answer_shows(fcgi: LiveServer) -> None:
    """13: flup ends the request as if the answer were whole."""
    answer = request(fcgi, {"PROBE": "midway"})
    assert b"the first part" in answer.body
    assert answer.ended is None


def test_a_fault_in_the_middle_of_an_answer_shows_where_others_share_the_connection(
    fcgi: LiveServer,
) -> None:
    """13: the connection stays for them, so the request's own status tells."""
    with fcgi.connect() as sock:
        sock.sendall(head({"PROBE": "read", "CONTENT_LENGTH": "3"}, 2, flags=KEEP))
        sock.sendall(fastcgi({"PROBE": "midway"}, flags=KEEP))
        broken = fastcgi_answer(sock)
        assert b"the first part" in broken.body
        assert broken.ended is not None
        assert broken.ended[0] != 0
        sock.sendall(stdin(b"abc", 2) + record(wire.STDIN, b"", 2))
        assert fastcgi_answer(sock, 2).told["length"] == 3


def test_flup_ends_a_broken_answer_as_if_it_were_whole(flup_fcgi: LiveServer) -> None:
    """13: shows that the defect is real."""
    assert request(flup_fcgi, {"PROBE": "midway"}).ended == (0, 0)


def test_a_fault_in_the_middle_of_an_answer_shows_over_scgi(tmp_path: Path) -> None:
    """13: the connection's end is the answer's end, so only a reset can tell."""
    with gateway(tmp_path, protocol="scgi", tcp=True) as server:
        assert request(server, {"PROBE": "midway"}).reset


def test_a_fault_in_the_middle_of_a_cgi_answer_shows(tmp_path: Path) -> None:
    """13: the exit status is what the web server can log."""
    answer = run_cgi(tmp_path, {**CGI, b"PROBE": b"midway"}, fails=True)
    assert b"the first part" in answer.body


# Processes: defects 9, 10.


def test_prefork_runs_concurrent_requests_concurrently(tmp_path: Path) -> None:
    """9: flup never goes beyond maxSpare children, so that two of eight requests run."""
    with gateway(tmp_path, workers=2, threads=8) as server, ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(8)]
        for sock in socks:
            sock.sendall(fastcgi({"PROBE": "meet", "PROBE_ARGUMENT": "8"}))
        # Each is answered only when all eight are running.
        pids = {fastcgi_answer(sock).told for sock in socks}
        assert pids <= workers_of(server.process.pid)


def test_an_idle_master_obeys_sigterm(tmp_path: Path) -> None:
    """9: flup's parent process ignores it."""
    with gateway(tmp_path, workers=2) as server:
        assert request(server).status == 200
        workers = workers_of(server.process.pid)
        assert server.stop(10) == 0
        assert not any(is_alive(pid) for pid in workers)


def test_no_worker_outlives_a_master_that_was_killed(tmp_path: Path) -> None:
    """9: flup leaves its children behind, holding the socket."""
    with gateway(tmp_path, workers=3) as server:
        workers = workers_of(server.process.pid)
        try:
            with server.connect() as kept:
                kept.sendall(fastcgi(flags=KEEP))
                assert fastcgi_answer(kept).status == 200
                server.process.kill()
                server.process.wait()
                until(lambda: not any(is_alive(pid) for pid in workers), lambda: workers)
        finally:
            for pid in workers:
                wire.kill(pid)


def test_sighup_replaces_every_worker_and_loses_no_request(tmp_path: Path) -> None:
    """9: flup's handler for replacing children raises TypeError."""
    with gateway(tmp_path, workers=2) as server, server.connect() as held:
        old = workers_of(server.process.pid)
        held.sendall(fastcgi({"PROBE": "hold", "PROBE_ARGUMENT": "go"}))
        until_recorded(server, "holding")
        server.process.send_signal(signal.SIGHUP)

        def replaced() -> bool:
            # Requests go on being answered all the while.
            assert request(server, {"PROBE": "pid"}).status == 200
            return len(workers_of(server.process.pid) - old) == 2

        until(replaced, server.log_text, seconds=20)
        (tmp_path / "go").touch()
        assert fastcgi_answer(held).told == "held"
        until(lambda: not any(is_alive(pid) for pid in old), server.log_text)
        assert request(server, {"PROBE": "pid"}).told not in old


def test_a_signal_to_the_whole_group_lets_running_requests_finish(tmp_path: Path) -> None:
    """9: what flup does do; Ctrl-C and systemd signal the workers as well as the master."""
    with gateway(tmp_path, workers=2) as server, server.connect() as held:
        held.sendall(fastcgi({"PROBE": "hold", "PROBE_ARGUMENT": "go"}))
        until_recorded(server, "holding")
        for pid in workers_of(server.process.pid):
            os.kill(pid, signal.SIGTERM)
        until(lambda: server.log_text().count("SIGTERM") == 2, server.log_text)
        server.process.send_signal(signal.SIGTERM)
        # Whatever the master's signal does to the worker, it has done it by then.
        assert select.select([held], [], [], 1.5) == ([], [], [])
        (tmp_path / "go").touch()
        assert fastcgi_answer(held).told == "held"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_idle_kept_connection_does_not_hold_up_the_end(tmp_path: Path, workers: int) -> None:
    """10: flup's SIGTERM waits for the peer to close."""
    with gateway(tmp_path, workers=workers) as server, server.connect() as kept:
        kept.sendall(fastcgi(flags=KEEP))
        assert fastcgi_answer(kept).ended == (0, 0)
        # Far less than the thirty seconds that a running request would get.
        assert server.stop(10) == 0
        assert is_closed(kept)


@pytest.mark.parametrize("flags", [0, KEEP])
def test_peers_that_do_not_close_after_the_answer_hold_no_thread(
    tmp_path: Path, flags: int
) -> None:
    """10: with flup each pins a worker."""
    with gateway(tmp_path, threads=2) as server, ExitStack() as stack:
        for _ in range(10):
            sock = stack.enter_context(server.connect())
            sock.sendall(fastcgi(flags=flags))
            assert fastcgi_answer(sock).status == 200
        assert request(server).status == 200


def test_a_request_that_finds_every_thread_busy_waits_its_turn(tmp_path: Path) -> None:
    """10: flup resets the connection at maxThreads."""
    with gateway(tmp_path, threads=2) as server, ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(4)]
        for sock in socks:
            sock.sendall(fastcgi({"PROBE": "hold", "PROBE_ARGUMENT": "go"}))
        until_recorded(server, "holding", times=2)
        (tmp_path / "go").touch()
        for sock in socks:
            assert fastcgi_answer(sock).told == "held"


def test_past_the_cap_a_request_is_told_that_the_server_is_overloaded(tmp_path: Path) -> None:
    """10: flup never says FCGI_OVERLOADED."""
    with gateway(tmp_path, max_open_requests=2) as server, server.connect() as sock:
        values = {"PROBE": "hold", "PROBE_ARGUMENT": "go"}
        sock.sendall(b"".join(fastcgi(values, request_id=i, flags=KEEP) for i in (1, 2, 3)))
        refused = fastcgi_answer(sock, 3)
        assert refused.ended == (0, 2)
        # Apache makes an empty page with status 200 of the protocol status alone.
        assert refused.status == 503
        (tmp_path / "go").touch()
        assert [each.told for each in answers(sock, 1, 2).values()] == ["held", "held"]


# The rest of the server: defects 11, 12.


def test_debug_shows_the_traceback_where_cgitb_is_gone(tmp_path: Path) -> None:
    """11: flup imports cgitb for it, which 3.13 has no more, and answers nothing."""
    with gateway(tmp_path, debug=True) as server:
        answer = request(server, {"PROBE": "fail"})
        assert answer.status == 500
        assert b"RuntimeError: the probe fails at once" in answer.body


def test_flup_answers_nothing_with_debug_where_cgitb_is_gone(tmp_path: Path) -> None:
    """11: shows that the defect is real."""
    with flup(tmp_path, "fcgi", debug=True) as server, server.connect() as sock:
        sock.sendall(fastcgi({"PROBE": "fail"}))
        until_recorded(server, "ran")
        sock.settimeout(0.5)
        # It neither answers nor closes; the traceback may come on the error stream.
        kinds: set[int] = set()
        with pytest.raises(TimeoutError):
            receive_kinds(sock, kinds)
        assert kinds <= {wire.STDERR}


def receive_kinds(sock: socket.socket, kinds: set[int]) -> None:
    while True:
        kinds.add(wire.receive_record(sock)[0])


def test_a_list_of_allowed_networks_does_not_bar_unix_sockets(tmp_path: Path) -> None:
    """12: flup looks for the peer's address among the allowed ones, and a unix peer has none."""
    allowed = {"FCGI_WEB_SERVER_ADDRS": "10.1.2.3"}
    with gateway(tmp_path, environment=allowed, allow=["10.0.0.0/8"]) as server:
        assert request(server).status == 200


def test_flup_bars_unix_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12: shows that the defect is real."""
    monkeypatch.setenv("FCGI_WEB_SERVER_ADDRS", "10.1.2.3")
    with flup(tmp_path, "fcgi") as server:
        assert request(server).output == b""


# SCGI: defect 14.


def test_an_empty_scgi_body_is_bytes(scgi: LiveServer) -> None:
    """14: flup gives a text stream."""
    assert request(scgi, {"PROBE": "read"}).told["type"] == "bytes"


def test_flup_gives_text_for_an_empty_scgi_body(flup_scgi: LiveServer) -> None:
    """14: shows that the defect is real."""
    assert request(flup_scgi, {"PROBE": "read"}).told["type"] == "str"


def test_an_scgi_body_ends_where_content_length_says(scgi: LiveServer) -> None:
    """14: flup's read() goes on to the end of the connection."""
    with scgi.connect() as sock:
        sock.sendall(wire.scgi({"PROBE": "read"}, b"the body") + b" and what is none of it")
        # The connection is still open: without a limit, read() would wait for more.
        assert wire.rest_of(sock).told["length"] == len(b"the body")


@pytest.mark.parametrize("length", [b"1_0", b"+10", b" 10", b"010", b"0x9", b"", b"-1"])
def test_a_netstring_length_is_ascii_digits(scgi: LiveServer, length: bytes) -> None:
    """14: flup's int() takes spellings that nobody else does."""
    before = records(scgi)
    answer = ask(scgi, length + b":" + scgi_headers({"CONTENT_LENGTH": "0", "SCGI": "1"}) + b",")
    assert answer.status == 400
    assert records(scgi) == before


def test_flup_takes_a_length_with_an_underscore(flup_scgi: LiveServer) -> None:
    """14: shows that the defect is real."""
    headers = scgi_headers({"CONTENT_LENGTH": "0", "SCGI": "1", **VARIABLES})
    digits = str(len(headers))
    sent = f"{digits[0]}_{digits[1:]}:".encode() + headers + b","
    assert ask(flup_scgi, sent).status == 200


@pytest.mark.parametrize("length", [b"131073", b"999999999999", b"9" * 5000])
def test_a_netstring_over_the_limit_is_refused_before_it_arrives(
    scgi: LiveServer, length: bytes
) -> None:
    """14: flup waits for as many bytes as the length says."""
    with scgi.connect() as sock:
        # Nothing follows the length: whoever answers has not waited for it.
        send(sock, length + b":")
        assert wire.rest_of(sock).status == 431


def test_content_length_comes_first_in_scgi(scgi: LiveServer) -> None:
    """14: flup does not insist."""
    before = records(scgi)
    first = {"SCGI": "1", "CONTENT_LENGTH": "0", **VARIABLES}
    assert ask(scgi, wire.netstring(scgi_headers(first))).status == 400
    assert ask(scgi, wire.netstring(scgi_headers({"SCGI": "1", **VARIABLES}))).status == 400
    assert records(scgi) == before


def test_flup_takes_content_length_anywhere(flup_scgi: LiveServer) -> None:
    """14: shows that the defect is real."""
    first = {"SCGI": "1", "CONTENT_LENGTH": "0", **VARIABLES}
    assert ask(flup_scgi, wire.netstring(scgi_headers(first))).status == 200


# The clients: defect 16.


def test_the_client_gets_an_answer(fcgi: LiveServer, scgi: LiveServer) -> None:
    """16: both of flup's raise AttributeError at the first call."""
    for server in (fcgi, scgi):
        answer = client.request(server.address, "/x", method="POST", body=b"abc")
        assert json.loads(answer.read())["PATH_INFO"] == "/x"


FLUP_CLIENT = """
import sys, wsgiref.util
from flup.client.{module} import {name}
environ = dict()
wsgiref.util.setup_testing_defaults(environ)
{name}(connect=sys.argv[1])(environ, print)
"""


@pytest.mark.parametrize(("module", "name"), [("fcgi_app", "FCGIApp"), ("scgi_app", "SCGIApp")])
def test_flup_clients_get_no_answer(
    fcgi: LiveServer, scgi: LiveServer, module: str, name: str
) -> None:
    """16: shows that the defect is real."""
    server = fcgi if module.startswith("fcgi") else scgi
    done = subprocess.run(
        [sys.executable, "-c", FLUP_CLIENT.format(module=module, name=name), str(server.where)],
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert b"AttributeError" in done.stderr
