"""The one table of options: the command line, the environment and the documentation come from it.

Limits stand here with the reason beside them.
"""

from __future__ import annotations

import os

from gateways.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Option:
    """One option: `kind` is "int", "float" (seconds), "str", "bool", "mode" (octal) or "choice"."""

    def __init__(
        self,
        name: str,
        kind: str,
        default: Any,
        help: str,
        section: str,
        minimum: float | None = None,
        maximum: float | None = None,
        choices: tuple[str, ...] = (),
        multiple: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.help = help
        self.section = section
        self.minimum = minimum
        self.maximum = maximum
        self.choices = choices
        self.multiple = multiple


PROCESSES = "Processes and threads"
APPLICATION = "The application"
SOCKETS = "Sockets"
LIMITS = "Limits"
LOGS = "Logs"

OPTIONS: tuple[Option, ...] = (
    Option(
        "workers",
        "int",
        1,
        "Worker processes. With more than one, a master process watches over them and replaces those that die.",
        PROCESSES,
        1,
        1024,
    ),
    Option(
        "threads",
        "int",
        8,
        "Threads in each worker process. With one, the application runs in the main thread.",
        PROCESSES,
        1,
        1024,
    ),
    Option(
        "lazy",
        "bool",
        False,
        "Load the application in each worker, instead of once before the workers are forked. For applications that start threads or open connections while they are imported.",
        PROCESSES,
    ),
    Option(
        "graceful_timeout",
        "float",
        30.0,
        "Seconds that running requests get to finish in when the server stops (at most 7 when it was started on descriptor 0, because mod_fcgid kills after 8.3).",
        PROCESSES,
        0,
        86400,
    ),
    Option(
        "idle_exit",
        "float",
        0.0,
        "Seconds without a request after which the server ends; 0 is never. A request that comes at that moment has all the time it needs, until a signal says otherwise. For a server that is started again when it is needed.",
        PROCESSES,
        0,
        31_536_000,
    ),
    Option(
        "touch_reload",
        "str",
        (),
        "File whose change (touch is enough) has the application loaded anew, as SIGHUP does; repeat for more. A single process that was started on a listening socket ends instead, so that whoever started it (mod_fcgid, lighttpd, multiwatch, systemd) starts it anew. Otherwise the application has to be given by name: an object cannot be loaded anew.",
        APPLICATION,
        multiple=True,
    ),
    Option(
        "reload_on_change",
        "bool",
        False,
        "Do the same when a file of a module changes that the application has imported, unless it is the standard library's or an installed package's.",
        APPLICATION,
    ),
    Option(
        "script_name",
        "str",
        "",
        "The path that the application is mounted at, such as /app, where the web server cannot say so; it is taken off the path. / is the root; . is the folder of the script, where the web server rewrites the URLs of that folder to the script (mod_rewrite).",
        APPLICATION,
    ),
    Option(
        "stream_requests",
        "bool",
        False,
        "Start the application before the request's body has arrived, however small it is.",
        APPLICATION,
    ),
    Option(
        "remote_user",
        "bool",
        True,
        "Pass REMOTE_USER and AUTH_TYPE on. Stock nginx and haproxy fill them from the Authorization header without checking it; say --no-remote-user behind those.",
        APPLICATION,
    ),
    Option(
        "debug",
        "bool",
        False,
        "Show the traceback of a failed request on its error page, with source, variables and environ. Never where strangers can see it.",
        APPLICATION,
    ),
    Option(
        "socket_mode",
        "mode",
        0o660,
        "Permissions of a unix socket, in octal.",
        SOCKETS,
        0,
        0o777,
    ),
    Option(
        "exclusive",
        "bool",
        False,
        "Nobody else accepts on the listening unix socket that this server was started on, as under mod_fcgid and lighttpd: when it ends, whoever connects is refused at once and can go elsewhere. Not under systemd, which keeps the socket for the next start.",
        SOCKETS,
    ),
    Option("socket_owner", "str", "", "User that is to own a unix socket.", SOCKETS),
    Option(
        "socket_group",
        "str",
        "",
        "Group that is to own a unix socket: the web server's, such as www-data.",
        SOCKETS,
    ),
    Option(
        "backlog",
        "int",
        2048,
        "Connections that the kernel may hold until a worker accepts them. A full unix socket is a 502 at once.",
        SOCKETS,
        1,
        65535,
    ),
    Option(
        "allow",
        "str",
        (),
        "Network that may connect over TCP, such as 10.0.0.0/8; repeat for more. Needed for an address that is not loopback: who can reach an open FastCGI port can run the application as anybody.",
        SOCKETS,
        multiple=True,
    ),
    Option(
        "max_connections",
        "int",
        1024,
        "Open connections per worker. Past it the idle one that was used longest ago is closed; when none is idle, new requests are answered 503.",
        LIMITS,
        1,
        1_000_000,
    ),
    Option(
        "max_open_requests",
        "int",
        64,
        "Requests open at once on one multiplexed FastCGI connection; past it FCGI_OVERLOADED. Half-open requests are memory.",
        LIMITS,
        1,
        65535,
    ),
    Option(
        "max_variables",
        "int",
        1000,
        "Meta-variables in one request.",
        LIMITS,
        1,
        1_000_000,
    ),
    Option(
        "max_variable_bytes",
        "int",
        131072,
        "Bytes of meta-variables in one request. caddy and h2o send over 80 KiB; nginx and mod_fcgid stop at 64 KiB.",
        LIMITS,
        1024,
        67_108_864,
    ),
    Option(
        "head_timeout",
        "float",
        10.0,
        "Seconds within which a request's head must be complete.",
        LIMITS,
        0.1,
        86400,
    ),
    Option(
        "min_rate",
        "int",
        1024,
        "Bytes a second, averaged over rate_window, that a web server must send of a body which is waited for, and take of an answer that waits; slower connections are cut. An answer may last for ever as long as what there is of it is taken.",
        LIMITS,
        1,
        1_000_000_000,
    ),
    Option(
        "rate_window",
        "float",
        30.0,
        "Seconds over which min_rate is averaged. A timeout that starts anew with every byte would let a connection be held for ever.",
        LIMITS,
        0.1,
        86400,
    ),
    Option(
        "body_memory",
        "int",
        65536,
        "Bytes of one request's body that are held in memory; the rest goes to a private temporary file.",
        LIMITS,
        4096,
        1_073_741_824,
    ),
    Option(
        "max_spooled_body",
        "int",
        67_108_864,
        "Bytes up to which a body is complete before the application starts, so that a slow sender holds no thread; of longer ones the rest streams.",
        LIMITS,
        0,
        1_099_511_627_776,
    ),
    Option(
        "answer_tail",
        "int",
        1_048_576,
        "Bytes of a finished answer that may still be unsent when its thread goes on to other requests, so that a slow reader holds no thread.",
        LIMITS,
        0,
        1_073_741_824,
    ),
    Option(
        "answer_memory",
        "int",
        67_108_864,
        "Bytes of such answers in the memory of one worker; more of them go to temporary files.",
        LIMITS,
        0,
        1_099_511_627_776,
    ),
    Option(
        "spool_size",
        "int",
        1_073_741_824,
        "Bytes of temporary files of one worker. Past it requests with bodies are answered 503, and the slowest readers are cut.",
        LIMITS,
        0,
        1_099_511_627_776,
    ),
    Option(
        "spool_folder",
        "str",
        "",
        "Folder for temporary files. The default is the system's, or /var/tmp where that is in memory.",
        LIMITS,
    ),
    Option(
        "error_stream",
        "choice",
        "log",
        "Where wsgi.errors goes: this server's log, the web server's (FastCGI's FCGI_STDERR), or both. Tracebacks always go to this server's log, and with web-server and both to the web server's as well.",
        LOGS,
        choices=("log", "web-server", "both"),
    ),
    Option(
        "crash_log",
        "str",
        "",
        "File that gets an entry for each fault of the application: reference, request, traceback, environ with secrets masked. Made with mode 600, in a folder of your own outside the web server's document root; at most 1 MiB, and once more as PATH.1. With it, a single process that a web server has started on descriptor 0 answers 500 where its application cannot be loaded, instead of ending.",
        LOGS,
    ),
    Option(
        "log_level",
        "choice",
        "info",
        "The least that is logged, on stderr.",
        LOGS,
        choices=("debug", "info", "warning", "error"),
    ),
)

BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}


class Options:
    """The options in force: an attribute for each row of the table.

    Raises ConfigurationError for an unknown name (with the nearest known one) and for a value
    that is not of the option's kind or out of its bounds.
    """

    workers: int
    threads: int
    lazy: bool
    graceful_timeout: float
    idle_exit: float
    touch_reload: tuple[str, ...]
    reload_on_change: bool
    script_name: str
    stream_requests: bool
    remote_user: bool
    debug: bool
    socket_mode: int
    exclusive: bool
    socket_owner: str
    socket_group: str
    backlog: int
    allow: tuple[str, ...]
    max_connections: int
    max_open_requests: int
    max_variables: int
    max_variable_bytes: int
    head_timeout: float
    min_rate: int
    rate_window: float
    body_memory: int
    max_spooled_body: int
    answer_tail: int
    answer_memory: int
    spool_size: int
    spool_folder: str
    error_stream: str
    crash_log: str
    log_level: str

    def __init__(self, **given: Any) -> None:
        for name in given:
            if name not in BY_NAME:
                raise ConfigurationError(_unknown(name))
        for option in OPTIONS:
            value = given.get(option.name, option.default)
            setattr(self, option.name, check(option, value))
        if self.script_name not in ("", ".") and not self.script_name.startswith("/"):
            raise ConfigurationError(
                f"option script_name: {self.script_name!r} does not begin with /; write /app"
            )
        # The application may go to another folder.
        self.crash_log = _absolute(self.crash_log)
        self.spool_folder = _absolute(self.spool_folder)
        self.touch_reload = tuple(map(_absolute, self.touch_reload))


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def check(option: Option, value: Any) -> Any:
    """Return `value` as the option holds it; ConfigurationError when it is not one."""
    if option.multiple:
        if isinstance(value, str):
            raise ConfigurationError(f"option {option.name}: give a list of values, not one string")
        return tuple(str(each) for each in value)
    if option.kind in ("int", "mode", "float"):
        return _number(option, value)
    if option.kind == "bool":
        if not isinstance(value, bool):
            raise ConfigurationError(f"option {option.name}: {value!r} is not true or false")
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"option {option.name}: {value!r} is not text")
    if option.choices and value not in option.choices:
        raise ConfigurationError(
            f"option {option.name}: {value!r} is not one of {', '.join(option.choices)}"
        )
    return value


def _number(option: Option, value: Any) -> int | float:
    wanted = (int, float) if option.kind == "float" else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ConfigurationError(
            f"option {option.name}: {value!r} is not a {'number' if option.kind == 'float' else 'whole number'}"
        )
    low, high = option.minimum, option.maximum
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        shown, least, most = (
            f"{int(each or 0):o}" if option.kind == "mode" else str(each)
            for each in (value, low, high)
        )
        raise ConfigurationError(
            f"option {option.name}: {shown} is out of bounds; it goes from {least} to {most}"
        )
    return float(value) if option.kind == "float" else int(value)


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, BY_NAME, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown option {name}{hint}"
