"""flup 1.0.3's server around a small application: python flup_application.py fcgi|scgi SOCKET."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("201 Made", [("Content-Type", "text/plain"), ("X-Two", "1")])
    path = environ["PATH_INFO"]
    if path == "/digest":
        digest = hashlib.sha256()
        # flup's SCGI would wait for more than CONTENT_LENGTH bytes, and gives text for no bytes.
        remaining = int(environ["CONTENT_LENGTH"])
        while remaining:
            piece = environ["wsgi.input"].read(min(remaining, 8192))
            remaining -= len(piece)
            digest.update(piece)
        return [digest.hexdigest().encode()]
    if path == "/large":
        return [bytes(10000)] * 500
    if path == "/pieces":
        return (b"piece %d" % number for number in range(3))
    if path == "/errors":
        environ["wsgi.errors"].write("something is odd\n")
        return [b"done"]
    if path == "/early":
        write(b"early")
        return []
    names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI")
    told = {name: environ.get(name) for name in (*names, "HTTP_X_COLOUR", "SERVER_NAME")}
    return [json.dumps(told).encode()]


def main() -> None:
    protocol, path = sys.argv[1:]
    server = importlib.import_module(f"flup.server.{protocol}")
    server.WSGIServer(application, bindAddress=path).run()


if __name__ == "__main__":
    main()
