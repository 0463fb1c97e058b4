"""Listening sockets: taking over, refusing, permissions, cleaning up."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateways import addresses
from gateways.errors import ConfigurationError
from gateways.server.listeners import Listener, open_listener
from gateways.server.options import Options
from tests.server.live import PATIENCE, Peer, eventually, plain, running, scgi_get


def _open(text: str, **options: object) -> Listener:
    return open_listener(addresses.parse(text), Options(**options))


def test_the_socket_of_a_dead_server_is_taken_over(socket_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(socket_path))
    dead.close()
    with running(plain, socket_path, protocol="scgi") as live:
        assert scgi_get(live.path, b"/x").endswith(b"/x")


def test_the_socket_of_a_running_server_is_refused_and_goes_on(socket_path: Path) -> None:
    with running(plain, socket_path, protocol="scgi") as live:
        with pytest.raises(ConfigurationError, match="a server is running there; stop it"):
            _open(str(socket_path))
        assert scgi_get(live.path, b"/x").endswith(b"/x")


def test_a_file_that_is_no_socket_is_never_removed(socket_path: Path) -> None:
    socket_path.write_text("precious")
    with pytest.raises(ConfigurationError, match="not a socket"):
        _open(str(socket_path))
    assert socket_path.read_text() == "precious"


def test_of_two_starts_at_once_one_wins(socket_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(socket_path))
    dead.close()
    start = threading.Barrier(8)
    outcomes: list[Listener | ConfigurationError] = []

    def compete() -> None:
        start.wait(PATIENCE)
        try:
            outcomes.append(_open(str(socket_path)))
        except ConfigurationError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [each for each in outcomes if isinstance(each, Listener)]
    assert len(winners) == 1
    assert len(outcomes) == 8
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(socket_path))
    winners[0].unlink()
    winners[0].close()
    assert not socket_path.exists()


def test_a_path_that_another_server_has_taken_meanwhile_is_left_alone(socket_path: Path) -> None:
    ours = _open(str(socket_path))
    socket_path.unlink()
    theirs = _open(str(socket_path))
    ours.unlink()
    ours.close()
    assert socket_path.exists()
    theirs.unlink()
    theirs.close()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_gets_the_mode_it_was_asked_for(socket_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        listener = _open(str(socket_path), socket_mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(socket_path.stat().st_mode) == mode
    listener.unlink()
    listener.close()


def test_a_group_can_be_named_and_an_unknown_one_is_an_error(socket_path: Path) -> None:
    listener = _open(str(socket_path), socket_group=str(os.getegid()))
    assert socket_path.stat().st_gid == os.getegid()
    listener.unlink()
    listener.close()
    with pytest.raises(ConfigurationError, match="--socket-group no-such-group"):
        _open(str(socket_path), socket_group="no-such-group")


def test_a_start_that_fails_leaves_no_socket_behind(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(ConfigurationError, match="no such name"):
        _open(str(socket_path), socket_group="no-such-group")
    assert not socket_path.exists()
    monkeypatch.setattr(os, "chown", refuse)  # as for everybody but root
    with pytest.raises(ConfigurationError, match="may not give the socket to that owner or group"):
        _open(str(socket_path), socket_group=str(os.getegid()))
    assert not socket_path.exists()


def test_the_port_that_the_kernel_chose_is_the_listeners_address() -> None:
    listener = _open("127.0.0.1:0")
    assert listener.address.port == _port(listener) != 0
    listener.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/nonexistent/app.sock", "the folder /nonexistent does not exist; make it: mkdir -p"),
        ("203.0.113.1:9000", "refusing to listen on fcgi://203.0.113.1:9000"),
        ("0.0.0.0:9000", "name the web server's network with --allow"),
        ("[::]:9000", "name the web server's network with --allow"),
        ("no-such-host.invalid:9000", "the host name 'no-such-host.invalid' is not known"),
        ("fcgi+fd:0", "descriptor 0 is not a listening socket"),
        ("fcgi+fd:999", "descriptor 999 is not a listening socket"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_one_line_with_the_remedy(
    text: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _open(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_not_this_machines_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="this machine does not have that address"):
        _open("203.0.113.1:9000", allow=("203.0.113.0/24",))


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="something else listens there; stop it"):
            _open(f"127.0.0.1:{port}")


def test_over_tcp_only_allowed_networks_are_accepted() -> None:
    allowed = _open("127.0.0.1:0", allow=("10.0.0.0/8",))
    with socket.create_connection(("127.0.0.1", _port(allowed))):
        accepted = _accept(allowed)
        assert accepted is not None  # loopback always may
        os.close(accepted)
    allowed.close()


def test_a_network_that_is_none_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"--allow 10\.0\.0\.300"):
        _open("127.0.0.1:0", allow=("10.0.0.300",))


def _port(listener: Listener) -> int:
    with socket.socket(fileno=os.dup(listener.fileno())) as sock:
        port: int = sock.getsockname()[1]
        return port


def _accept(listener: Listener) -> int | None:
    found: list[int] = []

    def try_it() -> bool:
        try:
            accepted = listener.accept()
        except BlockingIOError:
            return False
        if accepted is not None:
            found.append(accepted[0])
        return True

    eventually(try_it, "a connection to accept")
    return found[0] if found else None


@pytest.mark.parametrize("signal_name", ["TERM", "INT", "USR1"])
def test_a_listening_socket_on_descriptor_0_is_served_and_ends_by_any_managers_signal(
    socket_path: Path, signal_name: str
) -> None:
    """spawn-fcgi, multiwatch, mod_fcgid and lighttpd start programs so; multiwatch says USR1."""
    import signal

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(socket_path))
    listener.listen()
    program = (
        "import gateways, tests.server.live as l; gateways.serve(l.plain, 'fcgi+fd:0', threads=2)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=listener.fileno(),
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )
    listener.close()
    try:
        with Peer(str(socket_path)) as peer:
            peer.get("/inherited")
            assert peer.answer() == b"/inherited"
            process.send_signal(signal.Signals[f"SIG{signal_name}"])
            assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()
    assert socket_path.exists()  # whoever made it removes it
