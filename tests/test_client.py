"""The client against peers that behave, and peers that do not."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import socket
import tempfile
import threading
import time
import wsgiref.util
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from gateways import events, fastcgi, interface, scgi
from gateways.client import ProxyApplication, connect, request, variables
from gateways.errors import (
    ConfigurationError,
    ConnectFailed,
    LocalProtocolError,
    RemoteProtocolError,
    RequestAborted,
    TransportError,
    TransportTimeout,
)

Respond = Callable[[events.Request, bytes], Iterable[events.Event]]


class Peer:
    """Listens on a unix socket and runs `behave` in a thread for each connection that comes."""

    def __init__(self, path: Path, behave: Callable[[socket.socket], None]) -> None:
        self.path = path
        self.accepted = 0
        self.failure: BaseException | None = None
        self._behave = behave
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(20)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            connected, _ = self._listener.accept()
            with connected:
                connected.settimeout(20)
                if connected.recv(1, socket.MSG_PEEK) == b"\0":
                    return
                self.accepted += 1
                try:
                    self._behave(connected)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # The client went away, which some of the tests are about.
                except BaseException as error:
                    self.failure = error

    def stop(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
            last.sendall(b"\0")
            self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a peer; returns the path of its socket."""
    started: list[Peer] = []

    def start(behave: Callable[[socket.socket], None]) -> str:
        started.append(Peer(tmp_path / f"s{len(started)}", behave))
        return str(started[-1].path)

    yield start
    for one in started:
        one.stop()


StartPeer = Callable[[Callable[[socket.socket], None]], str]


def conversation(protocol: str, respond: Respond) -> Callable[[socket.socket], None]:
    """Return a peer that answers each complete request over `protocol` with the events of `respond`."""

    def behave(connected: socket.socket) -> None:
        codec: interface.ServerConnection = (
            fastcgi.ServerConnection() if protocol == "fcgi" else scgi.ServerConnection()
        )
        head: events.Request | None = None
        body = b""
        while not codec.must_close:
            received = connected.recv(65536)
            for event in codec.receive_data(received):
                if isinstance(event, events.Request):
                    head, body = event, b""
                elif isinstance(event, events.RequestBody):
                    body += event.data
                elif isinstance(event, events.EndOfRequest) and head is not None:
                    for answer in respond(head, body):
                        codec.send(answer)
                        connected.sendall(codec.data_to_send())
            connected.sendall(codec.data_to_send())
            if not received:
                return

    return behave


def plain(request: events.Request, *pieces: bytes) -> list[events.Event]:
    return [
        events.Response(request.request_id, "200 OK", [("Content-Type", "text/plain")]),
        *(events.ResponseBody(request.request_id, piece) for piece in pieces),
        events.EndOfResponse(request.request_id),
    ]


def read_request(connected: socket.socket) -> None:
    """Read until the empty STDIN record, which is the last of a request without a body."""
    received = b""
    while not received.endswith(bytes([1, 5, 0, 1, 0, 0, 0, 0])):
        more = connected.recv(65536)
        if not more:
            return
        received += more


def stdout(content: bytes) -> bytes:
    return fastcgi.Record(fastcgi.RecordType.STDOUT, 1, content).encode()


def end_request(app_status: int = 0, protocol_status: int = 0) -> bytes:
    content = app_status.to_bytes(4, "big") + bytes([protocol_status, 0, 0, 0])
    return fastcgi.Record(fastcgi.RecordType.END_REQUEST, 1, content).encode()


HEAD = stdout(b"Content-Type: text/plain\r\n\r\n")


# Connecting


def refusal(address: str) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        connect(address)
    assert "\n" not in str(caught.value)
    assert "Errno" not in str(caught.value)
    return caught.value


def test_a_missing_socket_file_is_named(tmp_path: Path) -> None:
    error = refusal(f"unix:{tmp_path}/none.sock")
    assert f"there is no socket file {tmp_path}/none.sock" in str(error)
    assert error.errno == errno.ENOENT


def test_a_socket_file_that_a_stopped_server_left_is_explained(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/old.sock")
    assert "stopped and left the file behind" in str(refusal(f"unix:{tmp_path}/old.sock"))


def test_a_file_that_is_no_socket_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a socket" in str(refusal(f"unix:{tmp_path}/file"))


def test_a_port_where_nobody_listens_is_said_so() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        error = refusal(f"127.0.0.1:{reserved.getsockname()[1]}")
    assert "nobody listens at fcgi://127.0.0.1:" in str(error)


def test_an_unknown_host_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert 'the host name "nowhere.invalid"' in str(refusal("nowhere.invalid:9000"))


def test_a_name_that_can_be_no_host_is_refused() -> None:
    assert '"a..b" in fcgi://a..b:9000 cannot be a host name' in str(refusal("a..b:9000"))


def test_a_socket_without_permission_tells_whose_it_is() -> None:
    # A folder of its own, because pytest's may only be entered by the user who runs it.
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/s")
            listener.listen()
            (folder / "s").chmod(0)
            with as_an_ordinary_user():
                error = refusal(f"unix:{folder}/s")
    finally:
        shutil.rmtree(folder)
    assert "no permission" in str(error)
    assert "mode 0000, owner " in str(error)
    assert "--socket-group" in str(error)


@contextlib.contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Give up root's power over file modes, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("address", ["ajp://127.0.0.1:8009", "uwsgi+unix:/a", "http://127.0.0.1:1"])
def test_a_protocol_without_a_client_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="speaks fcgi and scgi"):
        connect(address)


def test_a_listening_descriptor_is_nothing_to_connect_to() -> None:
    with pytest.raises(ConfigurationError, match="only a server can use"):
        connect("fcgi+fd:0")


def test_connecting_to_a_full_backlog_times_out(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(path)
        with pytest.raises(TransportTimeout, match="did not accept the connection within"):
            connect(path, timeout=0.1)


# Requests and answers


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_an_answer_has_a_status_headers_and_a_body(peer: StartPeer, protocol: str) -> None:
    def respond(head: events.Request, body: bytes) -> list[events.Event]:
        name = dict(head.variables)[b"QUERY_STRING"]
        return [
            events.Response(head.request_id, "404 Not There", [("X-One", "1"), ("X-One", "2")]),
            events.ResponseBody(head.request_id, name + body),
            events.EndOfResponse(head.request_id),
        ]

    path = peer(conversation(protocol, respond))
    with request(f"{protocol}+unix:{path}", "/?ada", method="POST", body=b"!") as answer:
        assert (answer.status, answer.reason) == (404, "Not There")
        assert answer.headers == [("X-One", "1"), ("X-One", "2")]
        assert answer.header("x-one") == "1"
        assert answer.header("x-two", "none") == "none"
        assert answer.read() == b"ada!"
        assert answer.complete


def test_a_tcp_address_works_as_a_unix_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connected, _ = listener.accept()
            with connected:
                conversation("fcgi", lambda head, body: plain(head, b"tcp"))(connected)

        thread = threading.Thread(target=serve)
        thread.start()
        assert request(f"127.0.0.1:{listener.getsockname()[1]}").read() == b"tcp"
        thread.join(20)


def test_a_body_of_unknown_length_arrives_over_scgi_with_its_length(peer: StartPeer) -> None:
    path = peer(conversation("scgi", lambda head, body: plain(head, body)))
    pieces = (b"%d," % number for number in range(5))
    answer = request(f"scgi+unix:{path}", method="POST", body=pieces)
    assert answer.read() == b"0,1,2,3,4,"


def test_a_body_of_unknown_length_is_delimited_by_fastcgi(peer: StartPeer) -> None:
    def respond(head: events.Request, body: bytes) -> list[events.Event]:
        return plain(head, body + b"|" + dict(head.variables)[b"CONTENT_LENGTH"])

    path = peer(conversation("fcgi", respond))
    assert request(path, method="POST", body=iter([b"a", b"b"])).read() == b"ab|"


def test_a_file_is_sent_from_where_it_stands(peer: StartPeer, tmp_path: Path) -> None:
    path = peer(conversation("scgi", lambda head, body: plain(head, body)))
    (tmp_path / "file").write_bytes(b"skipped" + b"sent" * 50_000)
    with open(tmp_path / "file", "rb") as file:
        file.seek(7)
        assert request(f"scgi+unix:{path}", body=file).read() == b"sent" * 50_000


def test_text_for_a_body_is_refused_with_the_remedy(peer: StartPeer) -> None:
    path = peer(conversation("fcgi", plain))
    with pytest.raises(TypeError, match='open the file with "rb"'):
        request(path, body=io.StringIO("text"))  # type: ignore[arg-type]  # the mistake itself


def test_a_peer_that_writes_everything_before_it_reads_does_not_stop_us(peer: StartPeer) -> None:
    size = 5_000_000

    def behave(connected: socket.socket) -> None:
        connected.sendall(HEAD)
        for _ in range(size // 50_000):
            connected.sendall(stdout(bytes(50_000)))
        read_request(connected)
        connected.sendall(end_request())

    answer = request(peer(behave), method="POST", body=bytes(size))
    assert len(answer.read()) == size


def test_an_answer_can_be_read_while_the_body_is_still_being_made(peer: StartPeer) -> None:
    def behave(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(HEAD + stdout(b"early") + end_request())

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(60_000)

    assert request(peer(behave), method="POST", body=endless()).read() == b"early"


def test_the_whole_small_request_is_one_write(peer: StartPeer) -> None:
    sizes: list[int] = []

    def behave(connected: socket.socket) -> None:
        sizes.append(len(connected.recv(65536)))
        connected.sendall(HEAD + end_request())

    request(peer(behave), body=b"small").read()
    assert sizes[0] > 200  # the variables, the body and the end of both


def test_a_connection_is_kept_for_the_next_request(peer: StartPeer) -> None:
    counted: list[bytes] = []

    def respond(head: events.Request, body: bytes) -> list[events.Event]:
        counted.append(body)
        return plain(head, b"%d" % len(counted))

    with connect(peer(conversation("fcgi", respond))) as connection:
        for expected in (b"1", b"2", b"3"):
            assert connection.request(variables("/")).read() == expected


def test_a_connection_is_kept_however_the_end_of_the_body_and_of_the_answer_meet(
    peer: StartPeer,
) -> None:
    path = peer(conversation("fcgi", lambda head, body: plain(head, b"%d" % len(body))))
    # The answer often ends in the same turn of the crank that sent the last of the body.
    with connect(path) as connection:
        for _ in range(50):
            answer = connection.request(variables("/", content_length=70_000), bytes(70_000))
            assert answer.read() == b"70000"
            assert connection.reusable


def test_the_limits_of_a_server_can_be_asked_before_a_request(peer: StartPeer) -> None:
    path = peer(conversation("fcgi", lambda head, body: plain(head, b"after")))
    with connect(path) as connection:
        assert connection.get_values()["FCGI_MPXS_CONNS"] == "1"
        assert connection.get_values(["FCGI_MAX_REQS"])["FCGI_MAX_REQS"] == "1"
        assert connection.request(variables("/")).read() == b"after"


def test_a_server_that_closes_instead_of_telling_its_limits_is_reported(peer: StartPeer) -> None:
    def behave(connected: socket.socket) -> None:
        connected.recv(65536)

    with connect(peer(behave)) as connection:
        with pytest.raises(RequestAborted, match="instead of answering FCGI_GET_VALUES"):
            connection.get_values()
        assert connection.closed


def test_a_filter_gets_its_data_after_its_body(peer: StartPeer) -> None:
    seen: list[str] = []

    def behave(connected: socket.socket) -> None:
        codec = fastcgi.ServerConnection()
        ended = False
        while not ended:
            for event in codec.receive_data(connected.recv(65536)):
                seen.append(type(event).__name__)
                ended = isinstance(event, events.EndOfRequest)
        connected.sendall(HEAD + end_request())

    with connect(peer(behave)) as connection:
        made = variables(
            "/",
            content_length=1,
            extra={"FCGI_DATA_LENGTH": "2", "FCGI_DATA_LAST_MOD": "0"},
        )
        connection.request(made, b"b", role=events.FILTER, data=b"dd").read()
    assert seen == ["Request", "RequestBody", "FilterData", "EndOfRequest"]


def test_an_authorizer_is_asked_without_a_body(peer: StartPeer) -> None:
    roles: list[str] = []

    def respond(head: events.Request, body: bytes) -> list[events.Event]:
        roles.append(head.role)
        return plain(head)

    with request(peer(conversation("fcgi", respond)), role=events.AUTHORIZER) as answer:
        assert answer.status == 200
    assert roles == ["authorizer"]


def test_error_output_is_handed_over_and_kept_up_to_a_bound(peer: StartPeer) -> None:
    piece = fastcgi.Record(fastcgi.RecordType.STDERR, 1, b"e" * 60_000).encode()
    seen: list[int] = []

    def behave(connected: socket.socket) -> None:
        read_request(connected)
        connected.sendall(HEAD + piece * 20 + end_request(3))

    answer = request(peer(behave), on_errors=lambda data: seen.append(len(data)))
    assert answer.read() == b""
    assert sum(seen) == 1_200_000
    assert len(answer.errors) == 1024 * 1024
    assert answer.app_status == 3


# Faults


def behave_after_request(*data: bytes) -> Callable[[socket.socket], None]:
    def behave(connected: socket.socket) -> None:
        read_request(connected)
        for piece in data:
            connected.sendall(piece)

    return behave


def test_an_answer_cut_before_its_head_is_reported(peer: StartPeer) -> None:
    with pytest.raises(RemoteProtocolError, match="end of file"):
        request(peer(behave_after_request(stdout(b"Content-"))))


def test_an_answer_cut_in_its_body_raises_after_what_came(peer: StartPeer) -> None:
    answer = request(peer(behave_after_request(HEAD + stdout(b"half"))))
    pieces = answer.iter_body()
    assert next(pieces) == b"half"
    with pytest.raises(RemoteProtocolError, match="end of file"):
        next(pieces)
    assert not answer.complete


def test_a_reset_of_the_connection_is_reported(peer: StartPeer) -> None:
    def behave(connected: socket.socket) -> None:
        connected.recv(1)  # What is left unread turns the close of a unix socket into a reset.

    with pytest.raises(TransportError, match="reset the connection before its answer") as caught:
        request(peer(behave))
    assert caught.value.errno == errno.ECONNRESET


def test_a_peer_of_another_protocol_is_reported(peer: StartPeer) -> None:
    with pytest.raises(RemoteProtocolError, match="version"):
        request(peer(behave_after_request(b"HTTP/1.1 400 Bad Request\r\n\r\n")))


def test_an_answer_that_is_refused_says_why(peer: StartPeer) -> None:
    with pytest.raises(RequestAborted, match="FCGI_OVERLOADED"):
        request(peer(behave_after_request(end_request(0, 2))))


def test_a_refusal_with_an_answer_shows_both(peer: StartPeer) -> None:
    head = stdout(b"Status: 503 Busy\r\nRetry-After: 1\r\n\r\n")
    answer = request(peer(behave_after_request(head + end_request(0, 2))))
    assert answer.status == 503
    answer.read()
    assert answer.protocol_status == 2


def test_a_peer_that_does_not_answer_times_out(peer: StartPeer) -> None:
    def behave(connected: socket.socket) -> None:
        while connected.recv(65536):
            pass

    started = time.monotonic()
    with pytest.raises(TransportTimeout, match="did not answer within"):
        request(peer(behave), timeout=0.2)
    assert time.monotonic() - started < 10


def test_a_peer_that_does_not_read_times_out(peer: StartPeer) -> None:
    done = threading.Event()

    def behave(connected: socket.socket) -> None:
        done.wait(20)

    try:
        with pytest.raises(TransportTimeout, match="did not take the request within"):
            request(peer(behave), method="POST", body=bytes(5_000_000), timeout=0.2)
    finally:
        done.set()


def test_trickling_bytes_do_not_prolong_a_wait(peer: StartPeer) -> None:
    done = threading.Event()

    def behave(connected: socket.socket) -> None:
        read_request(connected)
        while not done.wait(0.01):
            connected.sendall(stdout(b"X"))

    try:
        with pytest.raises(TransportTimeout):
            request(peer(behave), timeout=0.3)
    finally:
        done.set()


def test_an_abort_is_a_record_and_the_answer_ends_with_its_status(peer: StartPeer) -> None:
    seen: list[str] = []

    def behave(connected: socket.socket) -> None:
        codec = fastcgi.ServerConnection()
        connected.sendall(HEAD + stdout(b"first"))
        while not seen or seen[-1] != "RequestAborted":
            seen.extend(type(e).__name__ for e in codec.receive_data(connected.recv(65536)))
        connected.sendall(stdout(b"too late") + end_request(7))
        connected.recv(65536)

    with connect(peer(behave)) as connection:
        answer = connection.request(variables("/"), keep_conn=True)
        assert next(answer.iter_body()) == b"first"
        answer.abort()
        assert answer.read() == b""
        assert answer.app_status == 7
        assert connection.reusable


def test_an_abort_in_the_middle_of_a_body_stops_the_body(peer: StartPeer) -> None:
    seen: list[events.Event] = []

    def behave(connected: socket.socket) -> None:
        codec = fastcgi.ServerConnection()
        connected.sendall(HEAD)
        while not (seen and isinstance(seen[-1], events.RequestAborted)):
            seen.extend(codec.receive_data(connected.recv(65536)))
        connected.sendall(end_request(1))

    answer = request(peer(behave), method="POST", body=bytes(5_000_000))
    answer.abort()
    assert answer.read() == b""
    assert seen[-1] == events.RequestAborted(1)


def test_an_abort_over_scgi_closes_the_connection(peer: StartPeer) -> None:
    ends: list[bytes] = []

    def behave(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(b"Status: 200 OK\r\n\r\nfirst")
        ends.append(connected.recv(65536))

    answer = request(f"scgi+unix:{peer(behave)}")
    answer.abort()
    with pytest.raises(RequestAborted, match="is closed"):
        answer.read()
    assert answer._connection.closed


def test_variables_that_the_format_cannot_carry_are_refused_before_anything_is_sent(
    peer: StartPeer,
) -> None:
    path = peer(conversation("scgi", plain))
    with pytest.raises(LocalProtocolError, match="NUL"):
        request(f"scgi+unix:{path}", extra={"X": "a\0b"})


# The variables of a request


def made(target: str, **options: Any) -> dict[str, str]:
    return {n.decode("latin-1"): v.decode("latin-1") for n, v in variables(target, **options)}


def test_a_target_becomes_a_decoded_path_and_a_raw_query() -> None:
    seen = made("/a%20b/%C3%BC//c?x=%20&y")
    assert seen["PATH_INFO"] == "/a b/Ã¼//c"
    assert seen["SCRIPT_NAME"] == ""
    assert seen["QUERY_STRING"] == "x=%20&y"
    assert seen["REQUEST_URI"] == "/a%20b/%C3%BC//c?x=%20&y"


def test_characters_outside_ascii_are_percent_encoded_and_others_stay() -> None:
    assert made("/grüße?[]=|{}")["REQUEST_URI"] == "/gr%C3%BC%C3%9Fe?[]=|{}"


def test_an_empty_query_keeps_its_mark() -> None:
    assert made("/a?")["REQUEST_URI"] == "/a?"
    assert made("/a?")["QUERY_STRING"] == ""


def test_a_script_name_is_taken_off_the_path() -> None:
    seen = made("/my%20app/x", script_name="/my app")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/my app", "/x")
    assert made("/app", script_name="/app")["PATH_INFO"] == ""


@pytest.mark.parametrize(
    ("target", "script_name"), [("/other", "/app"), ("/apple", "/app"), ("/app/", "/app/")]
)
def test_a_path_outside_the_script_name_is_refused(target: str, script_name: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not below the script name"):
        made(target, script_name=script_name)


def test_headers_become_variables_and_repeated_ones_are_joined() -> None:
    seen = made(
        "/",
        headers=[
            ("Accept", "a"),
            ("accept", "b"),
            ("Cookie", "c=1"),
            ("Cookie", "d=2"),
            ("X-Bytes", "ü".encode()),
            ("Content-Type", "text/plain"),
        ],
    )
    assert seen["HTTP_ACCEPT"] == "a, b"
    assert seen["HTTP_COOKIE"] == "c=1; d=2"
    assert seen["HTTP_X_BYTES"] == "Ã¼"
    assert seen["CONTENT_TYPE"] == "text/plain"
    assert "HTTP_CONTENT_TYPE" not in seen


def test_the_host_header_names_the_server() -> None:
    seen = made("/", headers=[("Host", "shop.example:8080")])
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("shop.example", "8080")
    assert (made("/")["SERVER_NAME"], made("/")["SERVER_PORT"]) == ("localhost", "80")


def test_extra_variables_replace_and_add() -> None:
    seen = made("/", extra={"SERVER_PORT": "443", "SCRIPT_FILENAME": b"/srv/index.php"})
    assert (seen["SERVER_PORT"], seen["SCRIPT_FILENAME"]) == ("443", "/srv/index.php")


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("greet", {}, "does not begin with a slash"),
        ("", {}, "does not begin with a slash"),
        ("/a b", {}, "write it as %20"),
        ("/a\r\nX: y", {}, "space or control character"),
        ("/", {"method": "GET /"}, "is not a token"),
        ("/", {"method": ""}, "is not a token"),
        ("/", {"headers": [("X Y", "1")]}, "is not a token"),
        ("/", {"headers": [("X", "1\r\nY: 2")]}, "CR, LF or NUL"),
        ("/", {"headers": [("X", "€")]}, "outside latin-1"),
        ("/", {"headers": [("Content-Length", "5")]}, "the body has 0 bytes"),
    ],
)
def test_what_no_http_request_could_hold_is_refused(
    target: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        made(target, **options)


# The proxy


class Visit:
    """One call of the proxy, through wsgiref's validator, as a server makes it."""

    def __init__(self, address: str, body: bytes = b"", **environ: Any) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.errors = io.StringIO()
        self.environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST" if body else "GET",
            "CONTENT_LENGTH": str(len(body)),
            "QUERY_STRING": "",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": self.errors,
        }
        wsgiref.util.setup_testing_defaults(self.environ)
        self.environ.update(environ)
        self.application = ProxyApplication(address, timeout=0.5)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], object]:
        self.status, self.headers = status, headers
        return lambda data: None

    def body(self) -> bytes:
        result = validator(self.application)(self.environ, self.start_response)
        try:
            return b"".join(result)
        finally:
            result.close()  # type: ignore[attr-defined]  # the validator's iterator has it


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_the_proxy_forwards_request_and_answer(peer: StartPeer, protocol: str) -> None:
    seen: dict[bytes, bytes] = {}

    def respond(head: events.Request, body: bytes) -> list[events.Event]:
        seen.update(head.variables)
        return [
            events.Response(
                head.request_id,
                "201 Made",
                [("Content-Type", "text/plain"), ("Connection", "close"), ("Set-Cookie", "a=1")],
            ),
            events.ResponseBody(head.request_id, body * 2),
            events.EndOfResponse(head.request_id),
        ]

    visit = Visit(
        f"{protocol}+unix:{peer(conversation(protocol, respond))}",
        b"abc",
        PATH_INFO="/grÃ¼n",
        QUERY_STRING="x=1",
        HTTP_X_COLOUR="red",
        REMOTE_ADDR="192.0.2.1",
    )
    assert visit.body() == b"abcabc"
    assert visit.status == "201 Made"
    assert visit.headers == [("Content-Type", "text/plain"), ("Set-Cookie", "a=1")]
    assert seen[b"CONTENT_LENGTH"] == b"3"
    assert seen[b"PATH_INFO"] == "/grün".encode()
    assert seen[b"REQUEST_URI"] == b"/gr%C3%BCn?x=1"
    assert seen[b"HTTP_X_COLOUR"] == b"red"
    assert seen[b"REMOTE_ADDR"] == b"192.0.2.1"


def test_the_proxy_forwards_nothing_that_is_not_the_visitor_s(peer: StartPeer) -> None:
    seen: dict[bytes, bytes] = {}

    def respond(head: events.Request, body: bytes) -> list[events.Event]:
        seen.update(head.variables)
        return plain(head)

    visit = Visit(
        peer(conversation("fcgi", respond)),
        PATH="/usr/bin",
        AWS_SECRET="secret",
        HTTP_PROXY="http://evil.example",
        HTTP_CONNECTION="close, X-Mine",
        HTTP_X_MINE="1",
        HTTP_TE="trailers",
        HTTP_TRANSFER_ENCODING="chunked",
        HTTP_EXPECT="100-continue",
    )
    visit.body()
    assert not [n for n in seen if n in (b"PATH", b"AWS_SECRET") or n.startswith(b"wsgi")]
    assert [n for n in seen if n.startswith(b"HTTP_")] == [b"HTTP_HOST"]


def test_the_proxy_tells_a_fastcgi_backend_of_https(peer: StartPeer) -> None:
    seen: dict[bytes, bytes] = {}

    def respond(head: events.Request, body: bytes) -> list[events.Event]:
        seen.update(head.variables)
        return plain(head)

    visit = Visit(peer(conversation("fcgi", respond)))
    visit.environ["wsgi.url_scheme"] = "https"
    visit.body()
    assert seen[b"HTTPS"] == b"on"


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_the_proxy_forwards_a_body_of_unknown_length(peer: StartPeer, protocol: str) -> None:
    path = peer(conversation(protocol, lambda head, body: plain(head, body)))
    visit = Visit(f"{protocol}+unix:{path}", b"x" * 100_000)
    visit.environ.update({"CONTENT_LENGTH": "", "wsgi.input_terminated": True})
    assert visit.body() == b"x" * 100_000


def test_the_proxy_reads_no_more_than_the_body(peer: StartPeer) -> None:
    visit = Visit(peer(conversation("fcgi", lambda head, body: plain(head, body))))
    visit.environ["CONTENT_LENGTH"] = "3"
    visit.environ["wsgi.input"] = io.BytesIO(b"abcNEXT REQUEST")
    assert visit.body() == b"abc"


def test_events_pass_the_proxy_as_they_are_made(peer: StartPeer) -> None:
    go_on = threading.Event()

    def respond(head: events.Request, body: bytes) -> Iterator[events.Event]:
        first, second, *rest = plain(head, b"data: 1\n\n", b"data: 2\n\n")
        yield from (first, second)
        go_on.wait(20)
        yield from rest

    visit = Visit(peer(conversation("fcgi", respond)))
    pieces = visit.application(visit.environ, visit.start_response)
    try:
        iterator = iter(pieces)
        assert next(iterator) == b"data: 1\n\n"
        go_on.set()
        assert b"".join(iterator) == b"data: 2\n\n"
    finally:
        go_on.set()


def test_a_backend_that_is_not_there_is_a_502_and_one_line(tmp_path: Path) -> None:
    visit = Visit(f"unix:{tmp_path}/none")
    assert b"did not answer" in visit.body()
    assert visit.status == "502 Bad Gateway"
    assert visit.errors.getvalue().count("\n") == 1
    assert f"there is no socket file {tmp_path}/none" in visit.errors.getvalue()


def test_a_backend_that_breaks_the_format_is_a_502(peer: StartPeer) -> None:
    visit = Visit(peer(behave_after_request(stdout(b"oh no\n\n"), end_request())))
    assert b"oh no" not in visit.body()
    assert visit.status == "502 Bad Gateway"
    assert "oh no" in visit.errors.getvalue()


def test_a_backend_that_takes_too_long_is_a_504(peer: StartPeer) -> None:
    def behave(connected: socket.socket) -> None:
        while connected.recv(65536):
            pass

    visit = Visit(peer(behave))
    visit.body()
    assert visit.status == "504 Gateway Timeout"


def test_an_answer_cut_in_its_body_is_raised_to_the_server(peer: StartPeer) -> None:
    visit = Visit(peer(behave_after_request(HEAD + stdout(b"half"))))
    pieces = iter(visit.application(visit.environ, visit.start_response))
    assert next(pieces) == b"half"
    with pytest.raises(RemoteProtocolError):
        next(pieces)
    assert "(answer cut)" in visit.errors.getvalue()


def test_closing_the_proxy_s_answer_closes_the_backend_s_connection(peer: StartPeer) -> None:
    closed = threading.Event()

    def behave(connected: socket.socket) -> None:
        read_request(connected)
        connected.sendall(HEAD)
        assert connected.recv(1) == b""
        closed.set()

    visit = Visit(peer(behave))
    result = visit.application(visit.environ, visit.start_response)
    assert not isinstance(result, list)
    result.close()  # type: ignore[attr-defined]  # what PEP 3333 lets a server look for
    assert closed.wait(20)


def test_a_visitor_who_vanishes_in_the_body_ends_the_request_to_the_backend(
    peer: StartPeer,
) -> None:
    ends: list[str] = []

    def behave(connected: socket.socket) -> None:
        codec = fastcgi.ServerConnection()
        while received := connected.recv(65536):
            ends.extend(type(e).__name__ for e in codec.receive_data(received))
        ends.extend(type(e).__name__ for e in codec.receive_data(b""))

    visit = Visit(peer(behave))
    visit.environ["CONTENT_LENGTH"] = "10"
    visit.environ["wsgi.input"] = io.BytesIO(b"abc")
    with pytest.raises(RequestAborted, match="ended after 3 bytes of 10"):
        visit.application(visit.environ, visit.start_response)
    deadline = time.monotonic() + 20
    while "RequestAborted" not in ends and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ends[-1] == "RequestAborted"
    assert "EndOfRequest" not in ends


@pytest.mark.parametrize("length", ["x", "-1", "1_0", "٣"])
def test_a_content_length_that_is_no_number_is_a_400(tmp_path: Path, length: str) -> None:
    visit = Visit(f"unix:{tmp_path}/none")
    visit.environ["CONTENT_LENGTH"] = length
    # The validator would itself object to the environ.
    body = b"".join(visit.application(visit.environ, visit.start_response))
    assert visit.status == "400 Bad Request"
    assert b"CONTENT_LENGTH" in body


@pytest.mark.parametrize("protocol", ["fcgi", "scgi"])
def test_a_path_that_no_backend_can_be_sent_is_a_400(peer: StartPeer, protocol: str) -> None:
    heard: list[bytes] = []
    path = peer(lambda connected: heard.append(connected.recv(65536)))
    visit = Visit(f"{protocol}+unix:{path}", PATH_INFO="/n\0l")
    assert visit.body() == b"The request cannot be forwarded.\n"
    assert visit.status == "400 Bad Request"
    assert "NUL" in visit.errors.getvalue()
    deadline = time.monotonic() + 20
    while not heard and time.monotonic() < deadline:
        time.sleep(0.01)
    assert heard == [b""]


def test_the_backend_s_error_output_goes_to_wsgi_errors(peer: StartPeer) -> None:
    error = fastcgi.Record(fastcgi.RecordType.STDERR, 1, b"odd\n").encode()
    visit = Visit(peer(behave_after_request(error + HEAD + end_request())))
    visit.body()
    assert visit.errors.getvalue() == "odd\n"


def test_a_bad_address_of_a_proxy_is_told_when_it_is_made() -> None:
    with pytest.raises(ConfigurationError):
        ProxyApplication("nowhere")
