#!/usr/bin/env python3
# Run:  python3 samples/flup_fcgi.py 127.0.0.1:9000
#
# The FastCGI script of Python's old web HOWTO: a page that shows its environment.  With addresses
# it is a daemon; without any it answers what it was started for, a socket as descriptor 0 or a CGI
# request, which is what flup did by default.
#
# What had to change:
# - `from flup.server.fcgi import WSGIServer` became `from gateways import fastcgi`, and
#   `WSGIServer(app).run()` became `fastcgi.serve(app)`.
# - `cgi.escape` is gone from Python; `html.escape` escapes quotes too.
# - WSGI on Python 3 carries bytes: each piece of the body is encoded, and the charset is named.
# - `environ.iteritems()` is `environ.items()`.
# - Not every value is a string (wsgi.input, wsgi.version): repr() before escape().
# - An HTML page has a doctype and a title.

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from gateways import fastcgi

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    yield b"<!doctype html><title>FastCGI Environment</title><h1>FastCGI Environment</h1><table>"
    for name, value in sorted(environ.items()):
        row = f"<tr><th>{escape(name)}</th><td>{escape(repr(value))}</td></tr>\n"
        yield row.encode("utf-8")
    yield b"</table>"


if __name__ == "__main__":
    fastcgi.serve(app, *sys.argv[1:])
