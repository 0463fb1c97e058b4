"""Warm CGI: a CGI script that hands its request to a resident daemon, which it starts on demand.

For hosts that run nothing but CGI.  In a CGI file by hand:

    #!/usr/bin/python3
    from gateways import warm
    warm.run("app.py")

or as a stub that `gateways warm app.py -o app.cgi` writes: in C where a compiler is (stub.c), else
in Python (stub.py).  The daemon (daemon.py) runs as the same user, is reached through a private
folder, ends when it is idle or when the application's files change, and is started by the next
request.  Where it cannot run, the request is answered as plain CGI.

Every request passes here, so nothing is imported that is not needed.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE_SECONDS = 300
THREADS = 4

_PRIME = 2**128 - 159


class Plan:
    """How an application is served warm, and how it is as plain CGI.

    `daemon` and `plain` are commands, `name` is that of the socket in the private folder: other
    settings, and another version of this package, make another, so that an old daemon is never
    asked for what only a new one does.
    `file` is the application's file, "" where it is a module.  `keep` are names of environment
    variables that the daemon takes over from the first request.  It runs in `cwd`: the CGI file's
    folder, as it would in plain CGI; that is `folder` where nothing is said.
    """

    def __init__(
        self,
        application: str,
        folder: str,
        *,
        idle: float = IDLE_SECONDS,
        threads: int = THREADS,
        script_name: str = "",
        debug: bool = False,
        touch_reload: Sequence[str] = (),
        crash_log: str = "",
        interpreter: str = "",
        keep: Sequence[str] = (),
        cwd: str = "",
    ) -> None:
        for each in keep:
            if not each or "=" in each or "\0" in each:
                from gateways.errors import ConfigurationError

                raise ConfigurationError(
                    f"{each!r} is not the name of a variable; its value comes from the web server's"
                    " environment (SetEnv): give the name alone, such as DATABASE_URL"
                )
        self.keep = list(keep)
        target, colon, attribute = application.partition(":")
        self.file = ""
        if "/" in target or target.endswith((".py", ".wsgi", ".fcgi", ".cgi")):
            self.file = os.path.join(folder, target)
            application = self.file + colon + attribute
        elif target in ("cgi", "pycgi"):
            self.file = os.path.join(folder, attribute)
            application = target + colon + self.file
        interpreter = interpreter or sys.executable
        self.touch = touch = [os.path.join(folder, each) for each in touch_reload]
        self.crash_log = crash_log = os.path.join(folder, crash_log) if crash_log else ""
        settings = [f"{idle:g}", str(threads), script_name, "1" if debug else "0", crash_log]
        self.daemon = [
            *(interpreter, "-P", "-c", _boot("gateways.warm.daemon", folder)),
            *(application, *settings, cwd or folder, *touch),
        ]
        options = [f"--script-name={script_name}"] if script_name else []
        options += [f"--crash-log={crash_log}"] if crash_log else []
        options += ["--debug"] if debug else []
        boot = _boot("gateways.cli.cgi", folder)
        self.plain = [interpreter, "-P", "-c", boot, *options, application]
        key = os.fsencode("\0".join([_version(), *sorted(self.keep), "", *self.daemon]))
        self.name = f"{int.from_bytes(key, 'big') % _PRIME:032x}"


def _version() -> str:
    """Return what an upgrade of this package changes; a folder that was copied has no number."""
    try:
        found = os.stat(__file__)
    except OSError:  # it is in an archive
        return ""
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"


def _boot(module: str, folder: str) -> str:
    """Return a program that runs `main` of a module of this very package.

    The package may be a folder that was copied; modules beside the CGI file are found as well.
    """
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return (
        f"import sys; sys.path.insert(0, {folder!r});"
        f" {package!r} in sys.path or sys.path.insert(1, {package!r});"
        f" from {module} import main; sys.exit(main(sys.argv[1:]))"
    )


def run(
    application: str,
    *,
    idle: float = IDLE_SECONDS,
    threads: int = THREADS,
    script_name: str = "",
    debug: bool = False,
    touch_reload: Sequence[str] = (),
    crash_log: str = "",
    runtime_dir: str = "",
    keep: Sequence[str] = (),
) -> None:
    """Answer the CGI request that this process was started for, and exit.

    `application` is a file beside the CGI file ("app.py", "app.py:attribute"), or a module and its
    attribute.  The daemon has `threads` threads and ends after `idle` seconds without a request;
    touching a file of `touch_reload` ends it as well.  `crash_log` is as for `gateways serve`.
    `runtime_dir` is the private folder, `keep`
    are names of environment variables that it takes over from the first request.
    """
    from gateways.warm import stub

    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    plan = Plan(
        application,
        folder,
        idle=idle,
        threads=threads,
        script_name=script_name,
        debug=debug,
        touch_reload=touch_reload,
        crash_log=crash_log,
        keep=keep,
    )

    def plain() -> int:
        os.execv(plan.plain[0], plan.plain)

    status = stub.run(
        plan.name, runtime_dir, plan.daemon, plan.file, plan.keep, plain, dict(os.environb)
    )
    sys.exit(status)
