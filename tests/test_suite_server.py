"""The shared suite through our own server, and what a hostile peer does to it: nothing."""

from __future__ import annotations

import hashlib
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import events, fastcgi
from gateways.testing import Pieces, whole
from gateways.testing.pair import Cut
from gateways.testing.strategies import broken_requests, cuts
from tests.doors import DirectDoor, LiveServer, Teasing, answer_of, live_server, request_events
from tests.http_client import HTTPRequest
from tests.suite import ROWS, Row, cases, run_row


@dataclass(frozen=True)
class Arrangement:
    """One way to run the server and to talk to it."""

    protocol: str
    tcp: bool
    options: tuple[str, ...]
    kept: bool = False
    announced: bool = True
    cut: Cut = whole
    interpreter: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [self.protocol, "TCP" if self.tcp else "unix", *self.options, *self.interpreter]
        words += ["kept"] * self.kept + ["unannounced"] * (not self.announced)
        words += ["in pieces"] * (self.cut is not whole)
        return " ".join(words)

    @property
    def traits(self) -> frozenset[str]:
        traits = set()
        if "--stream-requests" in self.options:
            traits.add("streams-requests")
        if self.protocol == "SCGI" and not self.tcp:
            # SCGI's answer ends with the connection, and a unix socket knows no reset.
            traits.add("cut-looks-complete")
        return frozenset(traits)


ARRANGEMENTS = [
    Arrangement("FastCGI", False, ("--threads=1",)),
    Arrangement("FastCGI", False, ("--threads=8",)),
    Arrangement("FastCGI", False, ("--threads=8",), kept=True),
    Arrangement("FastCGI", True, ("--threads=1",), kept=True),
    Arrangement("FastCGI", True, ("--threads=8", "--stream-requests"), announced=False),
    Arrangement("FastCGI", False, ("--workers=2", "--threads=2"), announced=False),
    Arrangement("SCGI", False, ("--threads=1",)),
    Arrangement("SCGI", True, ("--threads=8",)),
    Arrangement("SCGI", False, ("--threads=8", "--stream-requests")),
    Arrangement("SCGI", True, ("--workers=2", "--threads=1")),
    Arrangement("FastCGI", False, ("--threads=2",), kept=True, cut=Teasing()),
    Arrangement("SCGI", False, ("--threads=2",), cut=Teasing()),
    # Not one check of what applications and peers do may be an assert.
    Arrangement("FastCGI", False, ("--threads=2",), interpreter=("-O",)),
]


@pytest.fixture(scope="module")
def door(request: pytest.FixtureRequest) -> Iterator[DirectDoor]:
    arrangement: Arrangement = request.param
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder = Path(name)
        with live_server(
            folder,
            *arrangement.options,
            protocol=arrangement.protocol,
            tcp=arrangement.tcp,
            interpreter=arrangement.interpreter,
        ) as server:
            door = DirectDoor(
                str(arrangement),
                server,
                folder,
                arrangement.traits,
                arrangement.announced,
                arrangement.kept,
                arrangement.cut,
            )
            yield door
            door.close()


@pytest.mark.parametrize("door", ARRANGEMENTS, ids=str, indirect=True, scope="module")
@pytest.mark.parametrize(("row", "validate"), cases())
def test_the_suite(row: Row, validate: bool, door: DirectDoor) -> None:
    try:
        run_row(row, door, validate=validate)
    except BaseException:
        print(door.server.log_text()[-4000:])
        raise


KEPT = [arrangement for arrangement in ARRANGEMENTS if arrangement.kept]


@pytest.mark.parametrize("door", KEPT, ids=str, indirect=True, scope="module")
def test_a_kept_connection_carries_one_request_after_another(door: DirectDoor) -> None:
    before = door.connections
    for request in [
        HTTPRequest(),
        HTTPRequest("POST", body=b"x" * 100000),
        HTTPRequest("HEAD"),
    ] * 3:
        assert door.exchange(request).status == 200
    assert door.connections <= before + 1


# Many at once.

CONCURRENT = [
    Arrangement("FastCGI", False, ("--threads=8",)),
    Arrangement("FastCGI", True, ("--workers=2", "--threads=4")),
    Arrangement("SCGI", False, ("--threads=8",)),
]


@pytest.mark.parametrize("door", CONCURRENT, ids=str, indirect=True, scope="module")
def test_the_suite_all_at_once(door: DirectDoor) -> None:
    # The rows of many pieces take long when eight others want the same processor.
    rows = [row for row in ROWS if "MiB" not in row.name]
    with ThreadPoolExecutor(8) as pool:
        runs = {row.name: pool.submit(run_row, row, door) for row in rows}
    failed = {name: run.exception() for name, run in runs.items() if run.exception() is not None}
    assert failed == {}


@pytest.mark.parametrize("door", [CONCURRENT[0]], ids=str, indirect=True)
def test_requests_multiplexed_on_one_connection_keep_their_bodies_apart(door: DirectDoor) -> None:
    bodies = {number: bytes([64 + number]) * 30000 * number for number in range(1, 21)}
    client = fastcgi.ClientConnection()
    scripts = []
    for number, body in bodies.items():
        request = HTTPRequest(
            "POST", headers=[("X-Row", "the-method-POST-arrives-with-a-body")], body=body
        )
        sent = request_events(request, "FastCGI", keep_conn=True)
        for event in sent:
            event.request_id = number
        scripts.append(sent)
    for turn in zip_longest(*scripts):
        for event in turn:
            if event is not None:
                client.send(event)
    received = converse(door.server, client, len(bodies))
    for number, body in bodies.items():
        mine = [event for event in received if event.request_id == number]
        answer = answer_of(HTTPRequest("POST"), mine)
        assert answer.complete
        assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


def converse(
    server: LiveServer, client: fastcgi.ClientConnection, answers: int
) -> list[events.Event]:
    """Send all that the client end has while receiving, until so many answers have ended."""
    received: list[events.Event] = []
    with server.connect() as sock, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sock.sendall, client.data_to_send())
        while sum(isinstance(event, events.EndOfResponse) for event in received) < answers:
            data = sock.recv(262144)
            received += client.receive_data(data)
            if not data:
                raise AssertionError(f"the server closed after {received[-1:]!r}")
        sending.result()
    return received


# Hostile peers.


@pytest.fixture(scope="module", params=["FastCGI", "SCGI"])
def one_worker(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with (
        tempfile.TemporaryDirectory(prefix="gw-") as name,
        live_server(Path(name), "--threads=2", protocol=request.param) as server,
    ):
        yield server


@settings(max_examples=60)
@given(data=st.data(), cut=cuts())
def test_a_live_server_survives_everything(
    one_worker: LiveServer, data: st.DataObject, cut: Pieces
) -> None:
    hostile = data.draw(broken_requests(one_worker.protocol))
    half_closes = data.draw(st.booleans())
    with one_worker.connect(5.0) as sock:
        try:
            for piece in cut(hostile):
                sock.sendall(piece)
            if half_closes:
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        except ConnectionError:
            pass  # the server may close on a peer like this one
    door = DirectDoor("direct", one_worker, Path(), frozenset())
    answer = door.exchange(HTTPRequest())
    assert (answer.status, answer.body) == (200, b"no row asked for\n")


def test_the_server_logs_no_fault_of_its_own(one_worker: LiveServer) -> None:
    assert "Traceback" not in one_worker.log_text()
