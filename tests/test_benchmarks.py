"""The harness in benchmarks/ measures what it says: its client, its arithmetic, its files.

It runs here for gateways alone and for moments, so that nothing depends on how long things take.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import (
    accounting,
    bounds,
    cgi_python,
    cgi_scripts,
    cgi_startup,
    cgi_warm,
    contenders,
    environment,
    page,
    picture,
    quick,
    ratios,
    results,
)
from benchmarks import targets as verdicts
from benchmarks.load import WORKS, LoadFailed, load
from benchmarks.rounds import run
from benchmarks.running import ServerFailed, serving
from benchmarks.sections import QUICK
from benchmarks.tables import aligned
from tests.interop.servers import require

ROOT = Path(__file__).resolve().parent.parent

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="session")
def load_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("load") / "fcgiload"
    source = ROOT / "benchmarks" / "fcgiload.c"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-o", program, source], check=True)
    return program


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, load_client: Path, tmp_path: Path) -> None:
    """No peers are installed, and the interpreter is this one."""
    monkeypatch.setattr(environment, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(environment, "LOAD", load_client)
    monkeypatch.setattr(environment, "LIBFCGI", tmp_path / "is not here")
    monkeypatch.setattr(environment, "installed", lambda: {"click": "8"})


def gateways(text: str) -> contenders.Contender:
    return contenders.parse(text, ROOT)


# --- The whole of it, small


@needs_compiler
@pytest.mark.usefixtures("alone")
def test_a_run_writes_results_from_which_tables_and_picture_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "quick.json"
    quick.main(argparse.Namespace(rounds=2, seconds=0.05, tree=ROOT, output=output))
    found = json.loads(output.read_text())
    samples = found["sections"]["hello"]["samples"]
    ours = {name for name in QUICK.contenders if name.startswith("gateways-")}
    assert set(samples) == ours
    for columns in samples.values():
        assert {"cpu_us", "rps", "p50_us", "p99_us", "resident"} <= set(columns)
        assert all(len(values) == 2 and min(values) > 0 for values in columns.values())
    assert found["conditions"]["machine"]
    assert "gateways, FastCGI, kept" in capsys.readouterr().out
    drawing = ElementTree.fromstring(picture.bars(found))
    texts = [each.text for each in drawing.iter() if each.tag.endswith("text")]
    assert "gateways, SCGI, closed" in texts


@needs_compiler
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("app", ["hello", "echo", "big", "sleeper"])
@pytest.mark.parametrize("name", ["gateways-fcgi-keep", "gateways-fcgi-close-t8", "gateways-scgi"])
def test_gateways_answers_each_application_as_the_client_expects(app: str, name: str) -> None:
    contender = gateways(name)
    work = WORKS.get(app, WORKS["hello"])
    with serving(contender, app) as server:
        counted = load(contender, work, server.socket, requests=20)
    assert counted["ok"] == 20
    # Closed connections are not reused, kept ones are not opened again.
    assert (counted["connects"] == 20) == (not contender.keep)


@needs_compiler
@pytest.mark.usefixtures("alone")
def test_a_contender_that_fails_twice_is_left_out_and_told() -> None:
    broken = gateways("gateways-fcgi@/nowhere")

    def measure(contender: contenders.Contender) -> dict[str, float]:
        if contender is broken:
            raise ServerFailed("it does not start")
        return {"cpu_us": 1.0}

    found = run([broken, gateways("gateways-scgi")], measure, 3, "test")
    assert found.samples == {"gateways-scgi-close": [{"cpu_us": 1.0}] * 3}
    assert found.failures == ["gateways-fcgi-keep@/nowhere: it does not start"] * 2


@pytest.mark.usefixtures("alone")
def test_a_server_that_ends_at_once_is_told_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "gateways.py").write_text("raise SystemExit('not today')")
    with (
        pytest.raises(ServerFailed, match="not today"),
        serving(contenders.parse("gateways-fcgi", tmp_path), "hello"),
    ):
        pass


# --- CGI


@pytest.fixture
def hello_cgi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    program = tmp_path / "hello_cgi"
    source = ROOT / "benchmarks" / "hello_cgi.c"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-o", program, source], check=True)
    monkeypatch.setattr(environment, "HELLO_CGI", program)
    return program


@pytest.fixture
def without_web_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "program", lambda name: None)
    monkeypatch.setattr(environment, "interpreter", lambda: sys.executable)


def told(module: ModuleType, found: Any) -> str:
    """The table of what was measured, as text."""
    return aligned(module.HEAD, module.rows(found))


@pytest.mark.usefixtures("alone", "without_web_servers")
def test_the_start_of_a_cgi_request_is_set_beside_a_bare_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cgi_startup, "TIMES_ROUNDS", 1)
    found = cgi_startup.measure(ROOT, 2)
    assert {name: len(taken) for name, taken in found.items()} == dict.fromkeys(
        cgi_startup.VARIANTS, 2
    )
    assert "gateways.cgi.run" in told(cgi_startup, found)
    rows = verdicts.verdicts({"sections": {}, "figures": {"cgi-startup": {"found": found}}})
    assert [row.target for row in rows] == ["≤ 1.50"]


@needs_compiler
@pytest.mark.usefixtures("alone", "without_web_servers")
def test_a_warm_request_is_the_stub_and_the_share_of_its_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cgi_warm, "REQUESTS", 2)
    found = cgi_warm.measure(ROOT, 1)
    assert set(found) == {"c", "python"}
    for columns in found.values():
        assert min(columns["daemon"]) > 0
        assert min(columns["stub"]) > 0
    assert "the C stub" in told(cgi_warm, found)


@needs_compiler
@pytest.mark.usefixtures("alone", "without_web_servers")
def test_scripts_cost_what_they_cost_by_themselves_and_what_their_host_adds(
    monkeypatch: pytest.MonkeyPatch, hello_cgi: Path
) -> None:
    @contextmanager
    def account(pid: int) -> Iterator[Callable[[], float]]:
        yield lambda: accounting.cpu_seconds(pid)  # without fcgiwrap there are no orphans

    monkeypatch.setattr(accounting, "account", account)
    monkeypatch.setattr(cgi_scripts, "OWN_RUNS", 5)
    found = cgi_scripts.measure(ROOT, 1, seconds=0.2)
    assert set(found["hosts"]) == {"cgihost", "cgihost-t8"}
    assert found["own"][0] > 0
    assert "the script by itself" in told(cgi_scripts, found)


@pytest.mark.interop
@pytest.mark.usefixtures("alone")
def test_a_python_script_answers_alike_under_apache_and_through_pycgi(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require("nginx", "apache")
    if not environment.program("wrk") or not cgi_python.has_cgi(environment.interpreter()):
        pytest.skip("needs wrk, and an interpreter that has the module cgi")
    monkeypatch.setattr(environment, "PYTHON", Path(environment.interpreter()))
    monkeypatch.setattr(cgi_python, "SECONDS", 1)
    monkeypatch.setattr(cgi_python, "SLOW_SECONDS", 1)
    found = cgi_python.measure(ROOT, 1)
    assert {host: len(rates) for host, rates in found.items()} == dict.fromkeys(
        cgi_python.LABELS, 1
    )
    rows = verdicts.verdicts({"sections": {}, "figures": {"cgi-python": {"found": found}}})
    assert [row.target for row in rows] == ["≥ 5", "≥ 20"]


# --- The load client refuses wrong answers

HEAD = b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n"
HELLO = b"Hello World\n"


def record(kind: int, content: bytes, request_id: int = 1) -> bytes:
    head = bytes(
        [1, kind, request_id >> 8, request_id & 255, len(content) >> 8, len(content) & 255]
    )
    return head + bytes(2) + content


END = record(3, bytes(8))
RIGHT = record(6, HEAD + HELLO) + record(6, b"") + END

WRONG = {
    "body": record(6, HEAD + b"Hello Wurld\n") + END,
    "length": record(6, HEAD + HELLO[:-1]) + END,
    "status": record(6, HEAD.replace(b"200 OK", b"500 No") + HELLO) + END,
    "protocol": record(6, HEAD + HELLO, request_id=2) + record(3, bytes(8), request_id=2),
    "endreq": record(6, HEAD + HELLO) + record(3, bytes(4) + b"\2" + bytes(3)),
    "eof": record(6, HEAD + HELLO),
}
"""What the client calls it → an answer that is wrong in that way."""


@contextmanager
def answering(answer: bytes, where: Path) -> Iterator[None]:
    """A server that gives the same answer to each request, and closes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen(16)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    received = b""
                    # A request ends with the empty record of its STDIN.
                    while not received.endswith(bytes([1, 5, 0, 1, 0, 0, 0, 0])):
                        more = connection.recv(65536)
                        if not more:
                            break
                        received += more
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@needs_compiler
@pytest.mark.usefixtures("alone")
def test_the_load_client_accepts_the_right_answer(tmp_path: Path) -> None:
    with answering(RIGHT, tmp_path / "s"):
        counted = load(gateways("gateways-fcgi-close"), WORKS["hello"], tmp_path / "s", requests=5)
    assert counted["ok"] == 5


@needs_compiler
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("fault", WRONG)
def test_the_load_client_refuses_a_wrong_answer(fault: str, tmp_path: Path) -> None:
    with answering(WRONG[fault], tmp_path / "s"), pytest.raises(LoadFailed, match=f"{fault}=5"):
        load(gateways("gateways-fcgi-close"), WORKS["hello"], tmp_path / "s", requests=5)


# --- The arithmetic


def test_the_interval_of_twenty_rounds_is_that_of_the_sixth_from_each_end() -> None:
    found = ratios.interval([float(each) for each in range(20, 0, -1)])
    assert found[:3] == (10.5, 6, 15)
    # 1 - 2 · P(at most 5 of 20 coins), to four digits as the tables have it.
    assert round(found.sure, 4) == 0.9586


@pytest.mark.parametrize(("rounds", "sure"), [(1, 0), (2, 0.5), (5, 0.9375), (6, 0.96875)])
def test_few_rounds_give_the_range_and_say_what_it_is_worth(rounds: int, sure: float) -> None:
    found = ratios.interval([float(each) for each in range(rounds)])
    assert (found.low, found.high, found.sure) == (0, rounds - 1, sure)


def test_a_ratio_is_that_of_the_same_round() -> None:
    found = ratios.paired([1, 20, 300], [2, 40, 600])
    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="each round"):
        ratios.paired([1, 2, 3], [1, 2])


def test_a_contender_of_every_second_round_meets_the_others_in_those_rounds() -> None:
    assert ratios.paired([1, 2], [2, 9, 4, 9]).median == 0.5
    assert ratios.paired([2, 9, 4, 9], [1, 2]).median == 2


def test_the_end_of_the_interval_decides_and_not_the_middle() -> None:
    def word(ours: list[float]) -> str:
        samples = {
            "gateways-fcgi-keep": {"cpu_us": ours},
            "uwsgi-fcgi-close": {"cpu_us": [10.0] * len(ours)},
        }
        found = {"sections": {"hello": {"samples": samples}}, "figures": {}}
        return verdicts.verdicts(found)[0].word

    assert word([7.0] * 10 + [7.4] * 10) == "met"
    assert word([7.0] * 14 + [9.0] * 6) == "met, not surely"
    assert word([8.0] * 20) == "MISSED"


# --- The accounting

BURN = """
import subprocess, sys, threading, time
def burn():
    end = time.thread_time() + 0.15
    while time.thread_time() < end:
        pass
thread = threading.Thread(target=burn)
thread.start(); thread.join()
if len(sys.argv) > 1:
    command = [sys.executable, __file__]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
print("done", flush=True)
sys.stdin.read()
"""


def test_threads_that_ended_and_children_living_or_reaped_are_counted(tmp_path: Path) -> None:
    script = tmp_path / "burn.py"
    script.write_text(BURN)
    command = [sys.executable, str(script), "children"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"done\n"
        assert len(accounting.tree(process.pid)) == 2
        # A thread here, one of a child that ended, one of a child that lives.
        assert accounting.cpu_seconds(process.pid) >= 3 * 0.15 - 0.03
        prints = accounting.footprints(process.pid)
        assert all(each.resident >= each.proportional > 0 for each in prints)
        assert process.stdin
        process.stdin.close()


ORPHANS = """
import signal, subprocess, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
sys.stdin.readline()
burn = "import time\\nwhile time.process_time() < 0.2: pass"
child = subprocess.Popen([sys.executable, "-S", "-c", burn], stdout=subprocess.PIPE)
child.stdout.read()
print("done", flush=True)
sys.stdin.read()
"""


def test_a_control_group_counts_children_that_nobody_waits_for() -> None:
    command = [sys.executable, "-c", ORPHANS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            with accounting.account(process.pid) as used:
                before = used()
                process.stdin.write(b"go\n")
                process.stdin.flush()
                assert process.stdout.readline() == b"done\n"
                assert used() - before >= 0.2
        except accounting.NoAccount as error:
            pytest.skip(f"no control group for us: {error}")
        finally:
            process.stdin.close()


# --- Names and files


@pytest.mark.parametrize("name", [*QUICK.contenders, "gateways-fcgi-keep-t8@/tmp/old"])
def test_a_name_means_the_contender_that_is_called_so(name: str) -> None:
    assert gateways(name).name == name


@pytest.mark.parametrize("name", ["uwsgi-fcgi-keep", "apache-http", "flup-fcgi-t8", "gateways"])
def test_a_contender_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        gateways(name)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = {"sections": {"a": {"samples": {"b": {"rps": [1, 2.5, 3e-05]}}, "failures": []}}}
    results.write(tmp_path / "r.json", found)
    assert results.read(tmp_path / "r.json") == found
    assert "[1, 2.5, 3e-05]" in (tmp_path / "r.json").read_text()


@pytest.mark.skipif(not bounds.FULL.exists(), reason="no run of the bounds has been checked in")
def test_the_page_of_the_bounds_is_that_of_the_results() -> None:
    assert bounds.PAGE.read_text() == bounds.page(json.loads(bounds.FULL.read_text()))


@pytest.mark.skipif(not results.FULL.exists(), reason="no full run has been checked in")
def test_the_page_and_the_picture_are_those_of_the_results() -> None:
    found = results.read(results.FULL)
    assert page.PAGE.read_text() == page.text(found)
    assert results.FULL.with_suffix(".svg").read_text() == picture.bars(found)
