"""What a web server makes impossible: rows of the suite that cannot hold behind one of them.

Each entry says where interop.md, the record of what was seen on the wire, has the fact.  Each is a
test as well: its row has to fail there, and an entry whose row holds has to go.  What a server
merely alters is no entry but a trait of its door.
"""

from __future__ import annotations

from typing import NamedTuple


class Impossible(NamedTuple):
    row: str
    door: str
    where: str
    """The section of interop.md and its words; "unrecorded" where the fact was first seen here."""
    reason: str


_CHUNKED = (
    "§1.3, apache-proxy_scgi: “411 CL=- TE=-”",
    "SCGI needs the body's length before the body, and Apache does not store an upload to learn it.",
)

_LIGHTTPD = {
    "the-method-FOO-arrives": (
        "§1.3: “Unknown method FOO passes …, lighttpd 501”",
        "lighttpd knows the methods that are registered, and no others.",
    ),
    "a-GET-may-have-a-body": (
        "§1.3: “GET with a body passes everywhere but lighttpd (400)”",
        "lighttpd refuses one unless server.http-parseopts says method-get-body.",
    ),
    "an-encoded-line-feed-in-a-path-is-only-a-character": (
        "§0 fact 18: “lighttpd 400”",
        "Debian's lighttpd.conf has url-ctrls-reject.",
    ),
    "encoded-bytes-that-are-not-UTF-8-arrive": (
        "unrecorded",
        "Debian's lighttpd.conf has url-ctrls-reject, which counts %FF among the controls.",
    ),
    "a-query-arrives-undecoded": (
        "unrecorded",
        "Debian's lighttpd.conf has url-normalize-required, which makes %2F in a query a slash.",
    ),
    "a-second-question-mark-is-part-of-the-query": (
        "unrecorded",
        "With url-normalize-required lighttpd 1.4.69 splits the target at the second question mark.",
    ),
}

IMPOSSIBLE = [
    Impossible(
        "Host-arrives-with-its-port",
        "nginx-fastcgi-stock",
        "§0 fact 10: “set HTTP_HOST $host: the port is lost”",
        "Debian's fastcgi_params says so, and fastcgi-stock.conf is that file and nothing else.",
    ),
    Impossible(
        "a-body-of-10-MiB-arrives",
        "nginx-fastcgi-stock",
        "unrecorded",
        "nginx answers 413 to more than client_max_body_size, whose default is 1m.",
    ),
    Impossible(
        "the-required-keys-are-there-and-native-strings",
        "nginx-https",
        "§1.3: “nginx HTTPS=on and REQUEST_SCHEME=https”",
        "The row wants wsgi.url_scheme to be http; test_https.py wants https here.",
    ),
    *(
        Impossible(row, "apache-proxy_scgi", *_CHUNKED)
        for row in (
            "a-chunked-upload-arrives",
            "an-empty-chunked-upload-is-an-empty-body",
            "a-chunked-upload-of-single-bytes-arrives",
            "a-chunked-upload-of-1-MiB-arrives",
        )
    ),
    *(
        Impossible(row, door, where, reason)
        for row, (where, reason) in _LIGHTTPD.items()
        for door in (
            "lighttpd-cgi",
            "lighttpd-fastcgi-spawned",
            "lighttpd-fastcgi",
            "lighttpd-scgi",
        )
    ),
]

_BY_KEY = {(entry.row, entry.door): entry for entry in IMPOSSIBLE}


def impossible(row: str, door: str) -> Impossible | None:
    """The entry for a row behind a door, None where the row holds."""
    return _BY_KEY.get((row, door))
