"""What our own daemon logs, each line made by its fault, and what is told of it."""

from __future__ import annotations

import errno
import logging
import os
import pwd
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from gateways import events
from gateways.doctor import loglines
from gateways.doctor.loglines import GATEWAYS, TABLE
from gateways.errors import ConfigurationError
from gateways.server import listeners
from gateways.server import worker as worker_module
from tests.doctor.conftest import IS_ROOT
from tests.interop import servers
from tests.server.live import PATIENCE, Peer, eventually, plain, raw, request, running
from tests.server.processes import NEW_PID, PID, daemon, log_of, logged, wait_for_workers, write
from tests.server.test_template import QUICK_WATCH

SHOWN = logging.Formatter("2026-11-21 19:20:01 [4711] %(levelname)s %(message)s")


def told(text: str) -> list[str]:
    """The codes of what is known in a log, each once."""
    known = map(loglines.find, text.splitlines())
    return list(dict.fromkeys(each[0].code for each in known if each))


def told_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return told("\n".join(SHOWN.format(each) for each in caplog.records))


def raising(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    raise RuntimeError("a fault")


def blocking(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    # Until the peer has gone: its body never comes.
    environ["wsgi.input"].read()
    return plain(environ, start_response)


def test_a_daemon_that_is_well_is_met_with_silence(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level("INFO", "gateways"),
        running(plain, folder / "app.sock", socket_mode=0o666) as live,
        live.peer() as peer,
    ):
        peer.get("/")
        assert peer.answer() == b"/"
    assert told_of(caplog) == []


def test_a_daemon_of_processes_that_is_well_is_met_with_silence(folder: Path) -> None:
    with daemon(folder, socket_mode=0o666) as process:
        wait_for_workers(process, folder, 2)
        process.send_signal(signal.SIGHUP)
        wait_for_workers(process, folder, 4)
    assert log_of(folder)
    assert told(log_of(folder)) == []


def test_gateways_error(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(raising, folder / "app.sock", socket_mode=0o666) as live, live.peer() as peer:
        peer.get("/")
        eventually(lambda: told_of(caplog) == ["gateways-error"], "the line")


def test_gateways_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(plain, folder / "app.sock", socket_mode=0o666) as live:
        raw(live.path, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert told_of(caplog) == ["gateways-refused"]


def test_gateways_allow(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Loopback always may, and a machine need not have another address.
    monkeypatch.setattr(listeners, "_is_allowed", lambda *_: False)
    with (
        running(plain, folder, tcp=True, allow=("192.0.2.0/24",)) as live,
        Peer(("127.0.0.1", int(live.address.port))) as peer,
    ):
        peer.wait_closed()
        eventually(lambda: told_of(caplog) == ["gateways-allow"], "the line")


def test_gateways_busy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "TICK_SECONDS", 0.05)
    with (
        running(
            blocking, folder / "app.sock", socket_mode=0o666, threads=2, stream_requests=True
        ) as live,
        live.peer() as one,
        live.peer() as other,
    ):
        for peer in (one, other):
            peer.send(request("/", method="POST", length=10))
        eventually(lambda: told_of(caplog) == ["gateways-busy"], "the line")


def test_gateways_slow_peer(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        running(plain, folder / "app.sock", socket_mode=0o666, rate_window=0.2) as live,
        live.peer() as peer,
    ):
        peer.send(request("/", method="POST", length=10), events.RequestBody(1, b"x"))
        peer.wait_closed()
        eventually(lambda: told_of(caplog) == ["gateways-slow-peer"], "the line")


def test_gateways_space(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        running(
            plain, folder / "app.sock", socket_mode=0o666, body_memory=4096, spool_size=0
        ) as live,
        live.peer() as peer,
    ):
        peer.send(request("/", method="POST", length=100000), events.RequestBody(1, bytes(60000)))
        eventually(lambda: "gateways-space" in told_of(caplog), "the line")


def test_gateways_accept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def accept(*_: object) -> None:
        # What the kernel says to a process at its limit, which this one, pytest's, must not reach.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with running(plain, folder / "app.sock", socket_mode=0o666) as live:
        monkeypatch.setattr(listeners.Listener, "accept", accept)
        with Peer(live.path):
            eventually(lambda: told_of(caplog) == ["gateways-accept"], "the line")


def test_gateways_running_and_in_use(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(plain, folder / "app.sock", socket_mode=0o666):
        with (
            pytest.raises(ConfigurationError) as fault,
            running(plain, folder / "app.sock", socket_mode=0o666),
        ):
            pass
        assert told(f"gateways: {fault.value}") == ["gateways-running"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = ["-m", "gateways", "serve", "wsgiref.simple_server:demo_app"]
        log = folder / "second.log"
        second = servers.Process(
            [sys.executable, *command, "-b", f"127.0.0.1:{port}"],
            log,
            cwd=servers.REPOSITORY,
        )
        second.process.wait(PATIENCE)
        assert told(log.read_text()) == ["gateways-in-use"]


def test_gateways_barred(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not IS_ROOT:
        pytest.skip("who is not root is asked nothing about other users")
    try:
        pwd.getpwnam("www-data")
    except KeyError:
        pytest.skip("there is no www-data here")
    command = ["-m", "gateways", "serve", "wsgiref.simple_server:demo_app"]
    log = folder / "log"
    process = servers.Process(
        [sys.executable, *command, "-b", f"fcgi+unix:{folder}/app.sock"],
        log,
        cwd=servers.REPOSITORY,
    )
    try:
        process.wait_for([folder / "app.sock"])
        servers.wait_until(lambda: told(log.read_text()) == ["gateways-barred"], "the line")
    finally:
        process.stop()


def test_gateways_threads_left_and_not_loaded(folder: Path) -> None:
    thread = "\nimport threading\nthreading.Thread(target=time.sleep, args=(100,)).start()\n"
    with daemon(folder, socket_mode=0o666) as process:
        wait_for_workers(process, folder, 2)
        write(folder, NEW_PID + thread)
        process.send_signal(signal.SIGHUP)
        logged(folder, "the old workers go on")
        assert "gateways-threads-left" in told(log_of(folder))
        write(folder, PID + "\nimport no_such_module\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "gateways-not-loaded" in told(log_of(folder)), "the line")


def test_gateways_stuck(folder: Path) -> None:
    with daemon(folder, before=QUICK_WATCH, threads=1) as process:
        workers = wait_for_workers(process, folder, 2)
        with Peer(str(folder / "app.sock")) as peer:
            peer.get("/endless")
            eventually(lambda: "gateways-stuck" in told(log_of(folder)), "the line")
            for pid in workers:
                if f"worker {pid} has been" in log_of(folder):
                    os.kill(pid, signal.SIGKILL)


def test_each_line_of_ours_is_made_here() -> None:
    source = Path(__file__).read_text()
    for kind in TABLE:
        if kind.server == GATEWAYS:
            assert f'"{kind.code}"' in source, kind.code
