"""Run:  python benchmarks/peer_servers.py SERVER APP SOCKET

The two peers that have no command line of their own: flup and bjoern, with their defaults.
`SERVER` is flup-fcgi, flup-scgi or bjoern; `APP` is MODULE:ATTRIBUTE beside this file.
"""

from __future__ import annotations

import importlib
import logging
import sys


def main(server: str, app: str, socket: str) -> None:
    module, _, attribute = app.partition(":")
    application = getattr(importlib.import_module(module), attribute)
    if server == "bjoern":
        bjoern = importlib.import_module("bjoern")
        bjoern.run(application, f"unix:{socket}")
    elif server == "flup-fcgi":
        importlib.import_module("flup.server.fcgi").WSGIServer(
            application, bindAddress=socket
        ).run()
    else:
        # Its SCGI server logs each request unless it is told not to.
        importlib.import_module("flup.server.scgi").WSGIServer(
            application, bindAddress=socket, loggingLevel=logging.ERROR
        ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
