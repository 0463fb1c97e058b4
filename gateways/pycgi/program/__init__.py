"""What runs in a helper process: it keeps one Python CGI script warm (see helpers.py).

    python program fork PATH DESCRIPTOR MOST GRACE [MODULE …]   a parent that forks for each request
    python program inprocess PATH DESCRIPTOR REQUESTS           runs the script itself, again and again

DESCRIPTOR is one end of a stream socket.  Each byte that arrives on it is a request and carries
four descriptors: the script's stdin, stdout and stderr, and a socket on which the request's
variables come and its fate is told:

    ◀─ STARTED                       or STALE: this helper has outlived the script's files; or
                                     FULL: as many scripts run as may
    ◀─ kind, exit status, stays      EXITED, RAISED or SIGNALLED; only the first one counts
    ─▶ RELEASE [milliseconds]        the answer is complete, and the script may run on for so long,
                                     for ever without a number; an end without it ends the script

The end of file on DESCRIPTOR ends this process: whoever started it wants it no more.  MOST is how many
scripts may run at once, and GRACE how many seconds one that is ended has between SIGTERM and SIGKILL.

It imports nothing of gateways, so that any Python can run it and nothing stands in the script's
way.  In fork mode it has one thread and runs no code of the script's folder; the imports that it
preloads are the ones from elsewhere.

Read `script.py` for how a script is run, `request.py` for what it finds, then `forking.py` or
`resident.py`.
"""

from __future__ import annotations

STARTED, STALE, FULL = b"R", b"S", b"F"
EXITED, RAISED, SIGNALLED = b"E", b"X", b"G"
RELEASE = b"D"

FAILED = 70  # EX_SOFTWARE: our own fault
