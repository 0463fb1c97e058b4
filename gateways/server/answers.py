"""The answers that the server gives on its own account: plain text, a status, nothing else.

The CGI path imports this module, so it imports nothing that costs time.
"""

from __future__ import annotations

from gateways.events import EndOfResponse, Event, Response, ResponseBody

REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def plain_answer(request_id: int, status: int, text: str) -> list[Event]:
    """Return a whole answer: the status, and `text` below it as the body."""
    line = f"{status} {REASONS[status]}"
    body = f"{line}\n\n{text}\n".encode("utf-8", "backslashreplace")
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    return [
        Response(request_id, line, headers),
        ResponseBody(request_id, body),
        EndOfResponse(request_id),
    ]
