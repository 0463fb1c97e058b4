"""The same servers behind nginx, asked by wrk.

nginx has one process and logs nothing; where the contender keeps connections, nginx keeps up to
sixteen.  The server's CPU and nginx's are reported apart.  One answer is compared whole before each
run; wrk itself counts answers that are not 2xx.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import accounting, environment
from benchmarks.contenders import CONNECTIONS, Contender
from benchmarks.load import VARIANTS, LoadFailed, Work
from benchmarks.rounds import Sample
from benchmarks.running import START_SECONDS, serving, wait_ready

CONFIGURATION = """\
daemon off; master_process off; worker_processes 1; pid %(folder)s/pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off; default_type text/plain;
  client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy;
  fastcgi_temp_path %(folder)s/fastcgi; scgi_temp_path %(folder)s/scgi;
  uwsgi_temp_path %(folder)s/uwsgi;
  client_max_body_size 64m; client_body_buffer_size 128k;
  upstream server { server unix:%(socket)s; %(keepalive)s }
  server {
    listen 127.0.0.1:%(port)d; keepalive_requests 1000000;
    location / { %(passing)s }
  }
}
"""

VARIABLES = """
QUERY_STRING $query_string; REQUEST_METHOD $request_method; CONTENT_TYPE $content_type;
CONTENT_LENGTH $content_length; REQUEST_URI $request_uri; PATH_INFO $document_uri;
SCRIPT_NAME ""; DOCUMENT_ROOT $document_root; SERVER_PROTOCOL $server_protocol;
REQUEST_SCHEME $scheme; REMOTE_ADDR $remote_addr; REMOTE_PORT $remote_port;
SERVER_PORT $server_port; SERVER_NAME $server_name; SERVER_SOFTWARE nginx;
GATEWAY_INTERFACE CGI/1.1;
"""
"""What nginx's own files of parameters set, with PATH_INFO, for all three protocols alike."""

MODULES = {"fcgi": "fastcgi", "scgi": "scgi", "uwsgi": "uwsgi"}

SCRIPT = Path(__file__).with_name("wrk.lua")


def once(contender: Contender, work: Work, seconds: float, warm_up: float) -> Sample:
    """Start a server and an nginx before it, warm up, measure, stop."""
    with serving(contender, work.app) as server, proxy(contender, server.socket) as (port, nginx):
        _check(port, work)
        ask(port, work, warm_up)
        before = accounting.cpu_seconds(server.pid), accounting.cpu_seconds(nginx)
        counted = ask(port, work, seconds)
        after = accounting.cpu_seconds(server.pid), accounting.cpu_seconds(nginx)
        counted["cpu_us"] = 1e6 * (after[0] - before[0]) / counted["ok"]
        counted["nginx_us"] = 1e6 * (after[1] - before[1]) / counted["ok"]
        prints = accounting.footprints(server.pid)
        counted["resident"] = sum(each.resident for each in prints)
        counted["proportional"] = sum(each.proportional for each in prints)
        return counted


@contextlib.contextmanager
def proxy(contender: Contender, upstream: Path) -> Iterator[tuple[int, int]]:
    """Run nginx; give its port and its process id."""
    folder = Path(tempfile.mkdtemp(prefix="gwb-"))
    port = free_port()
    kept = CONNECTIONS if contender.keep else 0
    facts = {
        "folder": folder,
        "socket": upstream,
        "port": port,
        "keepalive": f"keepalive {kept};" if kept else "",
        "passing": passing(contender),
    }
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION % facts)
    program = environment.program("nginx")
    if program is None:
        raise LoadFailed("nginx is not installed")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-p", str(folder), "-c", str(configuration)], stdout=log, stderr=log
        )
    try:
        wait_ready(process, ("127.0.0.1", port), folder / "log", START_SECONDS)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def passing(contender: Contender) -> str:
    """nginx's directives that hand a request on to this contender."""
    protocol = contender.facts.protocol
    if protocol == "http":
        lines = ["proxy_pass http://server;", "proxy_set_header Host $host;"]
        lines += ["proxy_buffers 32 32k; proxy_buffer_size 32k; proxy_max_temp_file_size 0;"]
        if contender.keep:
            lines.append('proxy_http_version 1.1; proxy_set_header Connection "";')
        return " ".join(lines)
    module = MODULES[protocol]
    lines = [f"{module}_pass server;", f"{module}_buffers 32 32k; {module}_buffer_size 32k;"]
    lines += [f"{module}_max_temp_file_size 0;"]
    variables = [each.strip() for each in VARIABLES.split(";") if each.strip()]
    if protocol == "scgi":
        # nginx itself sends the length first.
        variables = [each for each in variables if not each.startswith("CONTENT_LENGTH")]
        variables.append("SCGI 1")
    lines += [f"{module}_param {each};" for each in variables]
    lines += ["fastcgi_keep_conn on;"] if contender.keep else []
    return " ".join(lines)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _check(port: int, work: Work) -> None:
    """Compare one answer whole."""
    body = random.Random(0).randbytes(work.body)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST" if body else "GET", f"/{work.app}", body or None)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    if answer.status != 200 or data != work.answer(body):
        raise LoadFailed(
            f"nginx: status {answer.status}, {len(data)} bytes, which are not the answer"
        )


def ask(port: int, work: Work, seconds: float) -> dict[str, Any]:
    """Run wrk for so many whole seconds, one at least; return what it counted."""
    program = environment.program("wrk")
    if program is None:
        raise LoadFailed("wrk is not installed")
    # It counts in whole seconds.
    duration = f"{max(1, round(seconds))}s"
    command = [program, "-t1", f"-c{work.connections}", f"-d{duration}", "-s", str(SCRIPT)]
    command += [f"http://127.0.0.1:{port}/{work.app}", "--", str(VARIANTS), str(work.body)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        counted: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise LoadFailed(f"wrk: {done.stderr or done.stdout}") from None
    if counted["errors"] or not counted["ok"]:
        raise LoadFailed(
            f"wrk: {counted['ok']} right answers, {counted['errors']} wrong or missing"
        )
    return counted
