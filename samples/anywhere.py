#!/usr/bin/env python3
# Run:  python3 samples/anywhere.py 127.0.0.1:9000
#
# One file for every way to start it, unchanged: as a CGI script (mode 755, where the web server runs
# them), by mod_fcgid, lighttpd, spawn-fcgi or multiwatch, by systemd, or by hand as above.  The last
# line finds out which it is; docs/run.md says how.  Then ask for /environ, for example with
# gateways get fcgi://127.0.0.1:9000/environ
#
# The interpreter in the first line must be able to import gateways: name the one of your virtual
# environment (#!/path/to/.venv/bin/python), or copy the folder gateways/ beside this file.

import sys
import time

import gateways

# The whole of os.environ, which a CGI script has in its environ as well, is nobody's business.
SHOWN = (
    "REQUEST_",
    "SCRIPT_",
    "PATH_INFO",
    "QUERY_",
    "CONTENT_",
    "SERVER_",
    "REMOTE_ADDR",
    "HTTP_",
    "wsgi.",
)


def application(environ, start_response):  # type: ignore[no-untyped-def]  # shown without types
    path = environ["PATH_INFO"]
    if path == "/old":
        start_response("302 Found", [("Location", environ["SCRIPT_NAME"] + "/environ")])
        return [b"It has moved.\n"]
    if path == "/echo":
        body = environ["wsgi.input"].read()
    elif path == "/wait":  # to see what a stop does to a running request
        seconds = min(int(environ["QUERY_STRING"] or 1), 5)
        environ["wsgi.errors"].write(f"waiting {seconds} s\n")
        time.sleep(seconds)
        environ["wsgi.errors"].write(f"waited {seconds} s\n")
        body = b"waited %d s\n" % seconds
    elif path in ("", "/") or path.startswith("/environ"):
        names = sorted(name for name in environ if name.startswith(SHOWN))
        lines = [f"{name} = {environ[name]!r}\n" for name in names]
        body = "".join(lines).encode("ascii", "backslashreplace")
    else:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"There is no such page.\n"]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    sys.exit(gateways.run(application, *sys.argv[1:]))
