"""Web servers for the whole session, started when the first test asks, their logs with each failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.interop import servers
from tests.interop.doors import WebServerDoor, tls_relay
from tests.interop.servers import Daemon

_HERE = Path(__file__).parent
_read_up_to = pytest.StashKey[dict[Path, int]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            # The first test waits for the servers, and perhaps for another session to end.
            item.add_marker(pytest.mark.timeout(300))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_read_up_to] = {log: _size(log) for log in servers.LOGS}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        known = item.stash.get(_read_up_to, {})
        for log in servers.LOGS:
            if added := _added(log, known.get(log, 0)):
                report.sections.append((f"{log.parent.name}/{log.name}", added))
    return report


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _added(log: Path, start: int) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")[-8000:]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """The session's folder, which every user can read, and its hold on /run/gateways."""
    servers.require()  # root, whichever server the test goes on to ask for
    with servers.machine() as path:
        yield path


@pytest.fixture(scope="session")
def state(folder: Path) -> Path:
    """Where the application tells tests what happened after the answer."""
    return servers.shared_folder(folder / "state")


@pytest.fixture(scope="session")
def daemon(folder: Path, state: Path) -> Iterator[Daemon]:
    """The one daemon behind all web servers; a test says which options it must run with."""
    daemon = Daemon(folder, state)
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def nginx(request: pytest.FixtureRequest) -> Iterator[Path]:
    """nginx with all our configurations; the fixture's value is the folder of its nginx.conf."""
    servers.require("nginx", "openssl")
    folder: Path = request.getfixturevalue("folder")
    with servers.nginx(folder / "nginx") as running:
        yield running


@pytest.fixture(scope="session")
def apache(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Apache with all our configurations; the fixture's value is the folder of its apache2.conf."""
    servers.require("apache")
    folder: Path = request.getfixturevalue("folder")
    state: Path = request.getfixturevalue("state")
    with servers.apache(folder / "apache", state) as running:
        yield running


@pytest.fixture(scope="session")
def lighttpd(request: pytest.FixtureRequest) -> Iterator[Path]:
    """lighttpd with all our configurations; the fixture's value is the folder of its lighttpd.conf."""
    servers.require("lighttpd")
    folder: Path = request.getfixturevalue("folder")
    state: Path = request.getfixturevalue("state")
    with servers.lighttpd(folder / "lighttpd", state) as running:
        yield running


@pytest.fixture(scope="session")
def tls_port(nginx: Path) -> Iterator[int]:
    """A port that carries plain HTTP to https.conf, for clients that speak no TLS."""
    with tls_relay(8443, nginx / "tls" / "ca.pem") as port:
        yield port


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Any:
    """A function that makes a door ready: its server, its daemon, its state folder."""

    def open_door(door: WebServerDoor) -> WebServerDoor:
        # Asked for by name and late, because a machine may have one server and not the other.
        request.getfixturevalue(door.server)
        if door.daemon:
            request.getfixturevalue("daemon").with_options(*door.options)
        if door.file == "https.conf":
            door = replace(door, port=request.getfixturevalue("tls_port"))
        return replace(door, state=request.getfixturevalue("state"))

    return open_door
