"""What the log and the visitor are told of one request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gateways.cgihost.resolving import Refused
from gateways.server.log import printable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


class Reporter:
    """Writes lines on wsgi.errors that begin with a reference and a name, the script's once it is known."""

    name = ""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._errors = environ["wsgi.errors"]
        self._path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")

    @cached_property
    def reference(self) -> str:
        """What a visitor can be shown; most requests need none."""
        return os.urandom(4).hex()

    def __str__(self) -> str:
        return f"cgi {self.reference} {printable(self.name or self._path[:200])}"

    def log(self, text: str) -> None:
        """Write a line."""
        self._errors.write(f"{self}: {text}\n")
        self._errors.flush()

    def refuse(self, refusal: Refused, start_response: StartResponse) -> list[bytes]:
        """Answer in place of a script; the visitor learns the reference and not the reason."""
        status = HTTPStatus(refusal.status)
        self.log(f"{printable(str(refusal))} ({refusal.status} sent)")
        body = f"{refusal.status} {status.phrase}\n\nReference: {self.reference}\n".encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
        ]
        if refusal.status == 503:
            headers.append(("Retry-After", "1"))
        start_response(f"{refusal.status} {status.phrase}", headers)
        return [body]
