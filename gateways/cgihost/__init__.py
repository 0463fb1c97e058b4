"""The edge that runs CGI scripts: any executable, or a folder of them, as a WSGI application (RFC 3875).

    application = CGIApplication("/srv/cgi-bin")                    a folder; the path names the script
    application = CGIApplication("/usr/lib/git-core/git-http-backend", set={"GIT_PROJECT_ROOT": "/srv/git"})

`gateways serve cgi:/srv/cgi-bin` is the same from the command line; `load` reads what stands after
"cgi:".  Read `application.py` for one request, `resolving.py` for which file a path names,
`variables.py` for what a script sees, `run.py` for the process, `answer.py` for what it printed.
"""

from __future__ import annotations

from gateways.cgihost.application import CGIApplication
from gateways.cgihost.settings import Settings, load

__all__ = ["CGIApplication", "Settings", "load"]
