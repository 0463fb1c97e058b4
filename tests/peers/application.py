"""The application that hostile and broken requests are sent to, behind gateways and behind flup.

The meta-variable PROBE names what it does, so that the path and every header stay free for the
test; PROBE_ARGUMENT says how.  What it notices beside the answer it appends to the file `records`
in the folder that GATEWAYS_PROBE_STATE names, one line at a time.

    python -m tests.peers.application gateways '{"addresses": ["fcgi+unix:/x"], "options": {}}'
    python -m tests.peers.application flup '{"module": "fcgi", "options": {"bindAddress": "/x"}}'
    python -m tests.peers.application cgi '{}'
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

STATE = "GATEWAYS_PROBE_STATE"
GIVE_UP_SECONDS = 30.0

Headers = list[tuple[str, str]]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Do what PROBE says; without it, answer with the environ."""
    record("ran")
    return PROBES[environ.get("PROBE", "environ")](environ, start_response)


def record(line: str) -> None:
    """Append a line for the test to find; a single write, so lines of several processes stay whole."""
    with (state() / "records").open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def state() -> Path:
    return Path(os.environ[STATE])


def answer(start_response: StartResponse, told: object) -> Iterable[bytes]:
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]


def tell_environ(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The environ's strings, and which HTTP_ names the process's own environment has."""
    told: dict[str, Any] = {k: v for k, v in environ.items() if type(v) is str}
    told["own"] = sorted(name for name in os.environ if name.startswith("HTTP_"))
    return answer(start_response, told)


def read(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the body with read(), to its end."""
    body = environ["wsgi.input"].read()
    told: dict[str, Any] = {"type": type(body).__name__, "length": len(body)}
    if isinstance(body, bytes):
        told["digest"] = hashlib.sha256(body).hexdigest()
    return answer(start_response, told)


def read_lines(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the body with readline(ARGUMENT) and tell how long each piece was."""
    size = int(environ["PROBE_ARGUMENT"])
    lengths = []
    while piece := environ["wsgi.input"].readline(size):
        lengths.append(len(piece))
    return answer(start_response, lengths)


def follow(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the body as it comes; record that reading began, and how it ended."""
    record("reading")
    try:
        while environ["wsgi.input"].read(1000):
            pass
    except BaseException as error:
        record(f"stopped by {'an OSError' if isinstance(error, OSError) else type(error)}")
        raise
    record("read to the end")
    return answer(start_response, None)


def meet(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer when ARGUMENT requests are here at once: each must be running for any to go on."""
    record("met")
    wait_for(lambda: records().count("met") >= int(environ["PROBE_ARGUMENT"]))
    return answer(start_response, os.getpid())


def hold(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer when the test makes the file ARGUMENT in the state's folder."""
    record("holding")
    wait_for((state() / environ["PROBE_ARGUMENT"]).exists)
    return answer(start_response, "held")


def tell_pid(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return answer(start_response, os.getpid())


def fail(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("the probe fails at once")


def fail_midway(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Fail when a part of the body has been given."""
    start_response("200 OK", [("Content-Type", "text/plain")])

    def body() -> Iterator[bytes]:
        yield b"the first part\n" * 100
        raise RuntimeError("the probe fails midway")

    return body()


def give_head(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the status and headers of ARGUMENT, which is JSON."""
    status, headers = json.loads(environ["PROBE_ARGUMENT"])
    start_response(status, [(name, value) for name, value in headers])
    return [b"" if status[:3] in ("204", "304") else b"body"]


def give_bytes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """One piece of ARGUMENT bytes."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [bytes(int(environ["PROBE_ARGUMENT"]))]


def complain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write ARGUMENT to wsgi.errors once for each place it can be cut in two, cut there."""
    text = environ["PROBE_ARGUMENT"]
    for cut in range(len(text) + 1):
        line = f"{cut:03} {text}\n"
        environ["wsgi.errors"].write(line[: 4 + cut])
        environ["wsgi.errors"].write(line[4 + cut :])
    return answer(start_response, None)


def scribble(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write nonsense into every pipe this process has, as one that was taken over could."""
    scribbled = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"):
                os.set_blocking(int(name), False)
                scribbled += os.write(int(name), os.urandom(65536))
        except OSError:
            continue
    return answer(start_response, scribbled)


PROBES: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    "environ": tell_environ,
    "read": read,
    "readline": read_lines,
    "follow": follow,
    "meet": meet,
    "hold": hold,
    "pid": tell_pid,
    "fail": fail,
    "midway": fail_midway,
    "head": give_head,
    "bytes": give_bytes,
    "complain": complain,
    "scribble": scribble,
}


def records() -> list[str]:
    path = state() / "records"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)


def without_cgitb() -> None:
    """Make this Python one from which cgi and cgitb are gone, as they are from 3.13."""
    for name in ("cgi", "cgitb"):
        sys.modules[name] = None  # type: ignore[assignment]  # this makes importing it fail


def main() -> None:
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    without_cgitb()
    if kind == "cgi":
        from gateways.server import cgi

        sys.exit(cgi.run(application))
    elif kind == "gateways":
        import gateways

        served = settings.get("application") or application
        gateways.serve(served, *settings["addresses"], **settings["options"])
    else:
        server = importlib.import_module(f"flup.server.{settings['module']}")
        server.WSGIServer(application, **settings["options"]).run()


if __name__ == "__main__":
    main()
