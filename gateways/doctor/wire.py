"""Which protocol bytes are of: what a probe of each sends, and what the answers look like."""

from __future__ import annotations

from gateways import fastcgi, scgi
from gateways.doctor.findings import shown
from gateways.events import EndOfRequest, Request

FASTCGI, SCGI, HTTP, UWSGI, AJP, TLS = "FastCGI", "SCGI", "HTTP", "uwsgi", "AJP13", "TLS"

NAMES = {"fcgi": FASTCGI, "scgi": SCGI, "http": HTTP, "uwsgi": UWSGI, "ajp": AJP}
"""The scheme of an address → the protocol's name."""

SCHEMES = {name: scheme for scheme, name in NAMES.items()}

DIRECTIVES = {
    FASTCGI: "nginx: fastcgi_pass, Apache: fcgi://, lighttpd: mod_fastcgi",
    SCGI: "nginx: scgi_pass, Apache: scgi://, lighttpd: mod_scgi",
    HTTP: "nginx: proxy_pass http://, Apache: http://, lighttpd: mod_proxy",
    UWSGI: "nginx: uwsgi_pass, Apache: uwsgi://, lighttpd: mod_scgi with protocol uwsgi",
    AJP: "Apache: ajp://",
    TLS: "nginx: proxy_pass https://, Apache: https:// with SSLProxyEngine on",
}
"""How a web server is told to speak it."""

_GREETINGS = (
    (b"SSH-", "SSH"),
    (b"-ERR", "Redis"),
    (b"* OK", "IMAP"),
    (b"+OK", "POP3"),
    (b"220 ", "SMTP or FTP"),
    (b"220-", "SMTP or FTP"),
)


def identify(data: bytes, asked: str) -> str:
    """Return the protocol of an answer to a question in the protocol `asked`; empty if unknown."""
    if data.startswith(b"HTTP/"):
        plain = b"plain HTTP request was sent to HTTPS port"
        if plain in data or b"speaking plain HTTP to an SSL-enabled" in data:
            return TLS
        # What answers the packet in earnest speaks uwsgi; to a web server it is a bad request.
        return UWSGI if asked == UWSGI and data[9:12] != b"400" else HTTP
    if len(data) >= 8 and data[0] == fastcgi.FCGI_VERSION_1 and 1 <= data[1] <= 11:
        return FASTCGI
    # An alert record, of any version of TLS.
    if len(data) >= 5 and data[0] == 0x15 and data[1] == 3 and data[2] <= 4:
        return TLS
    if data.startswith(b"AB\0"):
        return AJP
    name = data.partition(b":")[0].lower()
    if name in (b"status", b"content-type", b"content-length", b"location"):
        return SCGI  # CGI's own form, which is how SCGI answers, also what it cannot read
    if data[:1] and data[3:5] == b"\0\x0a" and data[1:3] == b"\0\0":
        return "MySQL"
    return next((name for start, name in _GREETINGS if data.startswith(start)), "")


def probe(protocol: str) -> bytes:
    """Return a question that harms nobody, in that protocol."""
    if protocol == FASTCGI:
        # FCGI_GET_VALUES would ask for less, but uWSGI does not answer it.
        codec = fastcgi.ClientConnection()
        codec.send(Request(1, [(b"CONTENT_LENGTH", b"0"), *_VARIABLES]))
        codec.send(EndOfRequest(1))
        return codec.data_to_send()
    if protocol == SCGI:
        asked = scgi.ClientConnection()
        asked.send(Request(0, [(b"CONTENT_LENGTH", b"0"), *_VARIABLES]))
        asked.send(EndOfRequest(0))
        return asked.data_to_send()
    if protocol == UWSGI:
        block = b"".join(_uwsgi(name) + _uwsgi(value) for name, value in _VARIABLES)
        return b"\0" + len(block).to_bytes(2, "little") + b"\0" + block
    if protocol == AJP:
        return b"\x12\x34\0\x01\x0a"  # CPing
    return b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"


def _uwsgi(text: bytes) -> bytes:
    return len(text).to_bytes(2, "little") + text


_VARIABLES = [
    (b"REQUEST_METHOD", b"GET"),
    (b"REQUEST_URI", b"/"),
    (b"SCRIPT_NAME", b""),
    (b"PATH_INFO", b"/"),
    (b"QUERY_STRING", b""),
    (b"SERVER_PROTOCOL", b"HTTP/1.1"),
    (b"SERVER_NAME", b"localhost"),
    (b"SERVER_PORT", b"80"),
    (b"HTTP_HOST", b"localhost"),
    (b"REMOTE_ADDR", b"127.0.0.1"),
]


def excerpt(data: bytes) -> str:
    """Return the first bytes of an answer, to be shown."""
    if data[:1].isalpha():
        return f'"{shown(data.splitlines()[0], 50)}"'
    return data[:12].hex(" ")
