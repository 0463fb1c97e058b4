"""The application behind every door of the suite: it runs the row that the request names.

    X-Row: NAME             the row's application
    X-Row: NAME;validate    the same, wrapped in wsgiref.validate

Run as a script it answers the one CGI request in its environment.  Without X-Row it says so, with
status 200, so that a door can be waited for by asking.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.validate import validator

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from tests.suite import row_named


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Run the row that the request's X-Row header names."""
    chosen = environ.get("HTTP_X_ROW", "")
    if not chosen:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"no row asked for\n"]
    name, _, wrapping = chosen.partition(";")
    application = row_named(name).application
    return (validator(application) if wrapping == "validate" else application)(
        environ, start_response
    )


if __name__ == "__main__":
    from gateways import cgi

    cgi.run(application)
