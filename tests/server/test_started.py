"""What started a process is told by real descriptors and variables, in a process of its own.

`gateways.run` is started on each kind of descriptor 0 that there is; what it does then is looked at
from outside.
"""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateways.server.started import is_cgi_request
from tests.server.live import PATIENCE, Peer, eventually, scgi_get

ROOT = Path(__file__).parents[2]

CGI_REQUEST: dict[str, Any] = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "/cgi-bin/x",
    "PATH_INFO": "/there",
    "QUERY_STRING": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
}

PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import os, time
import gateways
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"]
    if path == "/wait":
        open(os.environ["STARTED"], "w").close()
        time.sleep(1.5)
    if path == "/left":
        return [" ".join(name for name in os.environ if name.startswith("LISTEN_")).encode()]
    return [path.encode()]
sys.exit(gateways.run(application, *ADDRESSES, **OPTIONS))
"""


def program(*addresses: str, **options: Any) -> list[str]:
    """The command that runs a program which ends with `gateways.run`."""
    text = PROGRAM.replace("ADDRESSES", repr(addresses)).replace("OPTIONS", repr(options))
    return [sys.executable, "-c", text]


def outcome(
    command: list[str], stdin: Any = subprocess.DEVNULL, **variables: str
) -> tuple[int, bytes, str]:
    """Run a command that ends by itself in an otherwise empty environment: code, stdout, stderr."""
    found = subprocess.run(
        command, stdin=stdin, capture_output=True, env=variables, timeout=30, check=False
    )
    return found.returncode, found.stdout, found.stderr.decode()


@contextmanager
def started(
    command: list[str],
    stdin: Any = subprocess.DEVNULL,
    *,
    log: Path,
    pass_fds: tuple[int, ...] = (),
    preexec: Callable[[], None] | None = None,
    **variables: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on until it is stopped; its words are in `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=variables,
            pass_fds=pass_fds,
            preexec_fn=preexec,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


def asked(path: Path, target: str = "/there") -> bytes:
    with Peer(str(path)) as peer:
        peer.get(target, keep=False)
        return peer.answer()


# A CGI request, whatever descriptor 0 is.


@contextmanager
def descriptor_0(kind: str, folder: Path) -> Iterator[Any]:
    with ExitStack() as stack:
        if kind == "null":
            yield subprocess.DEVNULL
        elif kind == "pipe":
            reader, writer = os.pipe()
            yield reader
            os.close(reader)
            os.close(writer)
        elif kind == "file":
            (folder / "body").write_bytes(b"")
            yield stack.enter_context((folder / "body").open("rb"))
        elif kind == "pair":
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            yield stack.enter_context(theirs)
        elif kind == "accepted":  # as mod_cgid does
            listener = stack.enter_context(listening(folder / "accept.sock"))
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(folder / "accept.sock"))
            connection, _ = listener.accept()
            yield stack.enter_context(connection)
        elif kind == "terminal":
            leader, follower = pty.openpty()
            yield follower
            os.close(leader)
            os.close(follower)


@pytest.mark.parametrize("kind", ["null", "pipe", "file", "pair", "accepted", "terminal"])
def test_a_CGI_request_is_answered_whatever_its_standard_input_is(
    kind: str, short_path: Path
) -> None:
    with descriptor_0(kind, short_path) as stdin:
        code, out, err = outcome(program(), stdin, **CGI_REQUEST)
    assert (code, err) == (0, "")
    assert out.startswith(b"Status: 200 OK\r\n")
    assert out.endswith(b"\r\n\r\n/there")


def test_closed_standard_descriptors_do_no_harm(tmp_path: Path) -> None:
    command = " ".join(["exec", sys.executable, str(tmp_path / "x.py"), "0<&-", "2>&-"])
    (tmp_path / "x.py").write_text(program()[2])
    code, out, _ = outcome(["/bin/sh", "-c", command], **CGI_REQUEST)
    assert (code, out[-6:]) == (0, b"/there")


@pytest.mark.parametrize(
    ("variables", "is_one"),
    [
        (CGI_REQUEST, True),
        ({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, True),
        ({"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}, True),
        ({"REQUEST_METHOD": "GET"}, False),
        ({"GATEWAY_INTERFACE": "CGI/1.1"}, False),
        ({"QUERY_STRING": "", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}, False),
        ({"SERVER_NAME": "a", "SERVER_PORT": "80", "GATEWAY_INTERFACE": "CGI/1.1"}, False),
        ({}, False),
    ],
)
def test_one_variable_alone_proves_no_CGI_request(variables: dict[str, str], is_one: bool) -> None:
    assert is_cgi_request(variables) is is_one


@pytest.mark.parametrize("value", ["1", "0", "no"])
def test_FCGI_FORCE_CGI_with_any_value_makes_it_a_CGI_request(value: str, short_path: Path) -> None:
    """libfcgi's rule: only what the variable holds counts, not what it says."""
    with listening(short_path / "app.sock") as listener:
        for addresses in ((), ("fcgi+fd:0",)):
            code, out, _ = outcome(
                program(*addresses), listener, FCGI_FORCE_CGI=value, **CGI_REQUEST
            )
            assert (code, out[-6:]) == (0, b"/there")


def test_FCGI_FORCE_CGI_holds_for_the_command_and_for_an_explicit_descriptor_0(
    short_path: Path,
) -> None:
    (short_path / "app.py").write_text(PROGRAM.partition("sys.exit")[0])
    command = [sys.executable, "-m", "gateways", "serve", str(short_path / "app.py")]
    variables = {"FCGI_FORCE_CGI": "1", "PYTHONPATH": str(ROOT), **CGI_REQUEST}
    with listening(short_path / "app.sock") as listener:
        for more in ([], ["-b", "fcgi+fd:0"]):
            code, out, err = outcome([*command, *more], listener, **variables)
            assert (code, out[-6:], err) == (0, b"/there", "")


def test_the_command_answers_the_CGI_request_that_it_was_started_for(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("print('at import')\n" + PROGRAM.partition("sys.exit")[0])
    command = [sys.executable, "-m", "gateways", "serve"]
    variables = {"PYTHONPATH": str(ROOT), **CGI_REQUEST}
    code, out, err = outcome([*command, str(tmp_path / "app.py")], **variables)
    assert (code, out[-6:], err) == (0, b"/there", "at import\n")
    code, out, err = outcome([*command, str(tmp_path / "none.py")], **variables)
    assert out.startswith(b"Status: 500 ")
    assert "none.py" in err


def test_options_of_a_daemon_are_checked_in_a_CGI_request_too() -> None:
    assert outcome(program(threads=4), **CGI_REQUEST)[1].endswith(b"/there")
    code, out, err = outcome(program(treads=4), **CGI_REQUEST)
    assert (code, out) == (1, b"")
    assert "unknown option treads; did you mean threads?" in err


def test_a_mount_and_a_user_who_is_not_believed_hold_for_CGI_as_well() -> None:
    variables = CGI_REQUEST | {"SCRIPT_NAME": "", "PATH_INFO": "/app/there"}
    assert outcome(program(script_name="/app"), **variables)[1].endswith(b"\r\n/there")
    text = program(remote_user=False)[2].replace("[path.encode()]", "[repr(environ).encode()]")
    code, out, _ = outcome([sys.executable, "-c", text], REMOTE_USER="ada", **CGI_REQUEST)
    assert code == 0
    assert b"REMOTE_USER" not in out


# A listening socket as descriptor 0.


def test_a_listening_socket_is_served_although_CGI_variables_are_left_over(
    short_path: Path,
) -> None:
    with (
        listening(short_path / "app.sock") as listener,
        started(program(), listener, log=short_path / "log", **CGI_REQUEST) as process,
    ):
        assert asked(short_path / "app.sock") == b"/there"
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_a_listening_socket_speaks_SCGI_where_the_program_says_so(short_path: Path) -> None:
    with (
        listening(short_path / "app.sock") as listener,
        started(program(default_protocol="scgi"), listener, log=short_path / "log"),
    ):
        assert scgi_get(str(short_path / "app.sock")).endswith(b"\r\n\r\n/")


def ignore_keyboard_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)


@pytest.mark.parametrize("threads", [1, 4])
def test_signals_that_were_ignored_at_the_start_stop_it_all_the_same(
    threads: int, short_path: Path
) -> None:
    """A web server that a shell started in the background ignores both, and so do its programs."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        path = short_path / f"{number}.sock"
        with (
            listening(path) as listener,
            started(
                program(threads=threads),
                listener,
                log=short_path / "log",
                preexec=ignore_keyboard_signals,
            ) as process,
        ):
            assert asked(path) == b"/there"
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize("again", ["TERM", "USR1"])
def test_a_manager_that_repeats_itself_cuts_no_request(
    workers: int, threads: int, again: str, short_path: Path
) -> None:
    """mod_fcgid says SIGTERM twice, 1.3 s apart; multiwatch's SIGUSR1 comes beside systemd's."""
    mark = short_path / "started"
    options = {"workers": workers, "threads": threads}
    with (
        listening(short_path / "app.sock") as listener,
        started(program(**options), listener, log=short_path / "log", STARTED=str(mark)) as process,
        Peer(str(short_path / "app.sock")) as peer,
    ):
        peer.get("/wait", keep=False)
        eventually(mark.exists, "the request runs")
        process.terminate()
        eventually(lambda: "SIGTERM" in said(short_path) or threads == 1, "it begins to stop")
        process.send_signal(signal.Signals[f"SIG{again}"])
        assert peer.answer() == b"/wait"
        assert process.wait(PATIENCE) == 0
    assert "at once" not in said(short_path)


def said(folder: Path) -> str:
    return (folder / "log").read_text()


def test_a_second_interrupt_stops_at_once_on_descriptor_0_too(short_path: Path) -> None:
    mark = short_path / "started"
    with (
        listening(short_path / "app.sock") as listener,
        started(program(), listener, log=short_path / "log", STARTED=str(mark)) as process,
        Peer(str(short_path / "app.sock")) as peer,
    ):
        peer.get("/wait", keep=False)
        eventually(mark.exists, "the request runs")
        process.send_signal(signal.SIGINT)
        eventually(lambda: "SIGINT" in said(short_path), "it begins to stop")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert b"/wait" not in b"".join(getattr(each, "data", b"") for each in peer.wait_closed())
    assert "stopping at once" in said(short_path)


def test_descriptors_that_leak_and_an_empty_environment_do_no_harm(short_path: Path) -> None:
    """mod_fcgid leaves pipes open as descriptors 7 and 10, and hands down PATH at the most."""
    reader, writer = os.pipe()
    with (
        listening(short_path / "app.sock") as listener,
        started(program(), listener, log=short_path / "log", pass_fds=(reader, writer)),
    ):
        assert asked(short_path / "app.sock") == b"/there"
    os.close(reader)
    os.close(writer)


def test_what_the_application_starts_does_not_read_from_the_listening_socket(
    short_path: Path,
) -> None:
    text = program()[2].replace(
        "[path.encode()]", "[__import__('subprocess').run(['cat'], capture_output=True).stdout]"
    )
    with (
        listening(short_path / "app.sock") as listener,
        started(
            [sys.executable, "-c", text], listener, log=short_path / "log", PATH=os.environ["PATH"]
        ),
    ):
        assert asked(short_path / "app.sock") == b""  # cat has come to an end


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 4), (2, 2)])
def test_who_connects_while_it_is_stopping_is_refused(
    workers: int, threads: int, short_path: Path
) -> None:
    """So a web server goes to another process at once, instead of waiting for one that ends."""
    mark, path = short_path / "started", short_path / "app.sock"
    command = program(workers=workers, threads=threads)
    with (
        listening(path) as listener,
        started(command, listener, log=short_path / "log", STARTED=str(mark)) as process,
        Peer(str(path)) as peer,
    ):
        listener.close()  # as spawn-fcgi, which becomes the program
        peer.get("/wait", keep=False)
        eventually(mark.exists, "the request runs")
        process.terminate()
        if threads > 1:  # one thread alone is in the application, and notices afterwards
            eventually(lambda: refused(path), "a connection is refused")
        assert peer.answer() == b"/wait"
        assert process.wait(PATIENCE) == 0
        assert refused(path)


def refused(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) != 0


# Descriptor 0 as one connection.


def test_one_connection_without_a_CGI_request_is_refused(short_path: Path) -> None:
    with descriptor_0("accepted", short_path) as stdin:
        code, out, err = outcome(program(), stdin)
    assert (code, out) == (1, b"")
    assert "descriptor 0 is one connection" in err
    assert "Accept=no" in err


# systemd's sockets.

_ACTIVATED = """
import os, sys
sockets = [int(each) for each in sys.argv[1].split(",")]
kept = [os.dup(each) for each in sockets]  # none may be closed below before it is in its place
high = [os.dup2(each, 100 + number) for number, each in enumerate(kept)]
for number, each in enumerate(high):
    os.dup2(each, 3 + number)
    os.close(each)
os.environ.update(LISTEN_PID=str(os.getpid() + int(sys.argv[2])), LISTEN_FDS=sys.argv[3])
os.execv(sys.argv[4], sys.argv[4:])
"""


def activated(
    command: list[str], *sockets: socket.socket, count: str = "", pid_off: int = 0
) -> list[str]:
    """The command as systemd starts it, with these sockets from descriptor 3 on."""
    numbers = ",".join(str(each.fileno()) for each in sockets)
    how_many = count or str(len(sockets))
    return [sys.executable, "-c", _ACTIVATED, numbers, str(pid_off), how_many, *command]


def test_several_sockets_of_systemd_speak_what_their_names_say(short_path: Path) -> None:
    with ExitStack() as stack:
        names = ["one", "shop-scgi.socket", "fastcgi"]
        sockets = [stack.enter_context(listening(short_path / name)) for name in names]
        command = activated(program(), *sockets)
        stack.enter_context(
            started(
                command,
                log=short_path / "log",
                pass_fds=tuple(each.fileno() for each in sockets),
                LISTEN_FDNAMES=":".join(names),
            )
        )
        assert asked(short_path / "one") == b"/there"
        assert asked(short_path / "fastcgi") == b"/there"
        assert scgi_get(str(short_path / names[1])).endswith(b"\r\n\r\n/")
        assert asked(short_path / "one", "/left") == b""


def test_systemds_sockets_are_served_by_the_command_too(short_path: Path) -> None:
    (short_path / "app.py").write_text(PROGRAM.partition("sys.exit")[0])
    command = [sys.executable, "-m", "gateways", "serve", str(short_path / "app.py")]
    with (
        listening(short_path / "app.sock") as listener,
        started(
            activated(command, listener),
            log=short_path / "log",
            pass_fds=(listener.fileno(),),
            PYTHONPATH=str(ROOT),
        ) as process,
    ):
        assert asked(short_path / "app.sock") == b"/there"
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert (short_path / "app.sock").exists()  # systemd removes it, or keeps it


def run_activated(folder: Path, *sockets: socket.socket, **given: Any) -> tuple[int, str]:
    """Run a program that is expected to refuse; return its exit code and its words."""
    command = activated(program(), *sockets, **given)
    with started(
        command, log=folder / "log", pass_fds=tuple(each.fileno() for each in sockets)
    ) as process:
        return process.wait(PATIENCE), said(folder)


def test_one_connection_of_systemds_is_refused(short_path: Path) -> None:
    with descriptor_0("accepted", short_path) as connection:
        code, words = run_activated(short_path, connection)
    assert code == 1
    assert "descriptor 3 is one connection" in words
    assert "Accept=no" in words


def test_what_is_no_listening_socket_is_refused(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(short_path / "datagrams"))
        assert "ListenStream=" in run_activated(short_path, datagrams)[1]
    with listening(short_path / "app.sock") as listener:
        assert "is no socket" in run_activated(short_path, listener, count="4")[1]
        assert "a decimal number" in run_activated(short_path, listener, count="+1")[1]
        assert "at most" in run_activated(short_path, listener, count="99999999")[1]


def test_sockets_for_another_process_are_left_alone_and_that_is_said(short_path: Path) -> None:
    address = f"fcgi+unix:{short_path}/other.sock"
    with (
        listening(short_path / "app.sock") as listener,
        started(
            activated(program(address), listener, pid_off=1),
            log=short_path / "log",
            pass_fds=(listener.fileno(),),
        ) as process,
    ):
        eventually(lambda: "serving" in said(short_path), "it listens where the program says")
        assert asked(short_path / "other.sock") == b"/there"
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert "systemd's sockets are for another one" in said(short_path)


# Nothing of the kind.


def test_at_a_terminal_it_says_where_it_listens_and_how_to_ask(tmp_path: Path) -> None:
    with descriptor_0("terminal", tmp_path) as stdin:
        log = tmp_path / "log"
        with started(program("127.0.0.1:0"), stdin, log=log) as process:
            eventually(lambda: "gateways get" in log.read_text(), "it says how to ask it")
            url = log.read_text().rpartition("gateways get ")[2].strip()
            asks = [sys.executable, "-m", "gateways", "get", url + "there"]
            assert outcome(asks, PYTHONPATH=str(ROOT))[1] == b"/there"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0


def test_without_an_address_it_listens_at_port_9000_of_this_machine_alone(tmp_path: Path) -> None:
    with started(program(), log=tmp_path / "log"):
        # Another program may have the port: that is told with the same address.
        eventually(lambda: "127.0.0.1:9000" in (tmp_path / "log").read_text(), "the address")
    with started(program(default_protocol="scgi"), log=tmp_path / "log"):
        eventually(lambda: "127.0.0.1:4000" in (tmp_path / "log").read_text(), "the address")


def test_one_variable_alone_listens_and_says_what_was_missing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started(program("127.0.0.1:0"), log=log, REQUEST_METHOD="GET"):
        eventually(lambda: "gateways get" in log.read_text(), "it listens")
    assert "FCGI_FORCE_CGI=1" in log.read_text()


# Who may connect.


@contextmanager
def listening_over_tcp(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        yield listener


def answered_over_tcp(port: int, source: str = "127.0.0.1") -> bool:
    """Whether a peer at that address of this machine is answered, or its connection closed."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    peer = Peer.__new__(Peer)
    from gateways import fastcgi

    peer.sock = socket.socket(family)
    peer.sock.settimeout(PATIENCE)
    peer.codec, peer.seen, peer.closed = fastcgi.ClientConnection(), [], False
    with peer:
        peer.sock.bind((source, 0))
        peer.sock.connect(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
        peer.get("/", keep=False)
        try:
            return peer.answer() == b"/"
        except OSError:
            return False


@pytest.mark.parametrize("how", ["run", "explicit", "command"])
def test_FCGI_WEB_SERVER_ADDRS_lets_nobody_else_in(how: str, tmp_path: Path) -> None:
    """FastCGI 1.0, 3.2; Linux answers at all of 127.0.0.0/8, so a peer may choose its address."""
    (tmp_path / "app.py").write_text(PROGRAM.partition("sys.exit")[0])
    serve = [sys.executable, "-m", "gateways", "serve", str(tmp_path / "app.py")]
    command = {
        "run": program(),
        "explicit": program("fcgi+fd:0"),
        "command": [*serve, "-b", "fcgi+fd:0"],
    }[how]
    with (
        listening_over_tcp() as listener,
        started(
            command,
            listener,
            log=tmp_path / "log",
            FCGI_WEB_SERVER_ADDRS="127.0.0.2,::1",
            PYTHONPATH=str(ROOT),
        ),
    ):
        port = listener.getsockname()[1]
        assert answered_over_tcp(port, "127.0.0.2")
        assert not answered_over_tcp(port, "127.0.0.1")
    assert "127.0.0.1: it is not in FCGI_WEB_SERVER_ADDRS" in said(tmp_path)


def test_FCGI_WEB_SERVER_ADDRS_knows_IPv6(tmp_path: Path) -> None:
    try:
        with listening_over_tcp("::1") as listener:
            port = listener.getsockname()[1]
            with started(
                program(), listener, log=tmp_path / "log", FCGI_WEB_SERVER_ADDRS="127.0.0.1,::1"
            ):
                assert answered_over_tcp(port, "::1")
            with started(
                program(), listener, log=tmp_path / "log", FCGI_WEB_SERVER_ADDRS="127.0.0.1"
            ):
                assert not answered_over_tcp(port, "::1")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def test_an_IPv4_peer_of_an_IPv6_socket_is_known_by_its_IPv4_address(tmp_path: Path) -> None:
    try:
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with (
        listener,
        started(program(), listener, log=tmp_path / "log", FCGI_WEB_SERVER_ADDRS="127.0.0.2"),
    ):
        assert answered_over_tcp(listener.getsockname()[1], "127.0.0.2")
        assert not answered_over_tcp(listener.getsockname()[1], "127.0.0.1")


def test_with_FCGI_WEB_SERVER_ADDRS_an_open_address_needs_no_allow(tmp_path: Path) -> None:
    code, _, err = outcome(program("0.0.0.0:0"))
    assert (code, "--allow" in err) == (1, True)
    log = tmp_path / "log"
    with started(program("0.0.0.0:0"), log=log, FCGI_WEB_SERVER_ADDRS="127.0.0.2"):
        eventually(lambda: "serving" in log.read_text(), "it listens")
        port = int(log.read_text().partition("fcgi://0.0.0.0:")[2].partition(" ")[0])
        assert answered_over_tcp(port, "127.0.0.2")
        assert not answered_over_tcp(port, "127.0.0.1")


def test_FCGI_WEB_SERVER_ADDRS_does_not_concern_unix_sockets(short_path: Path) -> None:
    with (
        listening(short_path / "app.sock") as listener,
        started(program(), listener, log=short_path / "log", FCGI_WEB_SERVER_ADDRS="192.0.2.1"),
    ):
        assert asked(short_path / "app.sock") == b"/there"


@pytest.mark.parametrize(
    "text", ["localhost", "127.0.0.1,", "127.0.0.1, 127.0.0.2", "10.0.0.0/8", "1.2.3.4%eth0", " "]
)
def test_a_malformed_FCGI_WEB_SERVER_ADDRS_refuses_to_start(text: str) -> None:
    code, _, err = outcome(program("127.0.0.1:0"), FCGI_WEB_SERVER_ADDRS=text)
    assert code == 1
    assert "FCGI_WEB_SERVER_ADDRS in the environment is" in err
    assert "192.0.2.1,2001:db8::1" in err


def test_an_empty_FCGI_WEB_SERVER_ADDRS_is_none(tmp_path: Path) -> None:
    with (
        listening_over_tcp() as listener,
        started(program(), listener, log=tmp_path / "log", FCGI_WEB_SERVER_ADDRS=""),
    ):
        assert answered_over_tcp(listener.getsockname()[1])


# What a CGI request costs.


def modules_of(call: str, stdin: Any) -> set[str]:
    """The modules that an interpreter has loaded when it has answered a CGI request."""
    text = program()[2].partition("sys.exit")[0] + f"{call}(application)\n"
    text += "sys.stderr.write(' '.join(sys.modules))"
    code, out, err = outcome([sys.executable, "-S", "-c", text], stdin, **CGI_REQUEST)
    assert (code, out[-6:]) == (0, b"/there")
    return set(err.split())


def test_a_CGI_request_by_run_imports_what_cgi_run_imports(tmp_path: Path) -> None:
    plain = modules_of("import gateways.cgi; gateways.cgi.run", subprocess.DEVNULL)
    added = modules_of("gateways.run", subprocess.DEVNULL) - plain
    assert added == {"gateways.server.started"}
    with descriptor_0("accepted", tmp_path) as stdin:  # as mod_cgid, where it has to be looked at
        assert modules_of("gateways.run", stdin) - plain == added | {"_socket"}
