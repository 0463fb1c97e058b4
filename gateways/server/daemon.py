"""From what the user asked for to running processes: options, listeners, then a worker or a master."""

from __future__ import annotations

import gc
import os
import sys
import threading

from gateways import addresses, loading
from gateways.errors import ConfigurationError
from gateways.server import forks
from gateways.server import log as logs
from gateways.server.listeners import Listener, open_listener
from gateways.server.log import leave, log
from gateways.server.options import Options
from gateways.server.protocols import check_protocol
from gateways.server.watching import watch_for
from gateways.server.worker import Application, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Importing typing takes a megabyte.
    from collections.abc import Callable, Sequence
    from typing import Any

    from gateways.server.started import Start


def serve(
    application: Application | str,
    texts: Sequence[str],
    default_protocol: str,
    given: dict[str, Any],
    start: Start | None = None,
) -> None:
    """Serve `application` at the addresses `texts`; `given` are the options by name.

    `start` is what started this process where that did not say where to serve, which is then
    explained in the log.
    """
    try:
        _serve(application, texts, default_protocol, Options(**given), start)
    except ConfigurationError as error:
        # What led to it is this package's own affair: the text says it all.
        raise error.with_traceback(None) from None


def _serve(
    application: Application | str,
    texts: Sequence[str],
    default_protocol: str,
    options: Options,
    start: Start | None,
) -> None:
    _fill_standard_descriptors()
    logs.configure(options.log_level)
    if start is not None and start.remark:
        log.warning("%s", start.remark)
    parsed = [addresses.parse(text, default_protocol=default_protocol) for text in texts]
    for address in parsed:
        check_protocol(address.protocol)
    serve_on(_open_all(parsed, options), application, options, explained=start is not None)


def serve_on(
    listeners: list[Listener],
    application: Application | str,
    options: Options,
    on_ready: Callable[[], None] = lambda: None,
    *,
    due: Callable[[], str] | None = None,
    explained: bool = False,
) -> None:
    """Serve `application` on `listeners`, which it closes in the end.

    `on_ready` is called when connections are accepted for the first time.  `due` is asked each
    second for a reason to end gracefully, "" where there is none; only one process alone asks it.
    With `explained` the log says how to ask it.
    """

    def announce() -> None:
        _announce(application, listeners, options, on_ready)
        if explained:
            _explain(listeners)

    # A process cannot load an application anew: that takes a master, unless whoever has started
    # this one on a listening socket is to do it.
    reloads = options.touch_reload or options.reload_on_change
    alone = options.workers == 1 and (not reloads or any(each.inherited for each in listeners))
    if reloads and not alone and not isinstance(application, str):
        _close_all(listeners)
        raise ConfigurationError(
            "options touch_reload and reload_on_change: the application was given as an object,"
            ' which cannot be loaded anew; give its name instead, such as "path/app.py" or'
            ' "package.module:attribute"'
        )
    if alone:
        _serve_here(application, listeners, options, announce, due)
    else:
        _serve_in_workers(application, listeners, options, announce)
    log.info("stopped")
    left = [thread.name for thread in threading.enumerate() if not thread.daemon]
    if isinstance(application, str) and len(left) > 1:
        # A program that was only started to serve would wait for these for ever.
        log.warning("the application left threads running: %s", ", ".join(left[1:]))
        leave(0)


def _fill_standard_descriptors() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed, as FastCGI 2.2 starts applications.

    Otherwise the next socket would be one of them, and whatever is printed would go into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:  # it was closed when the interpreter started
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - it lives as long as the process


def _open_all(parsed: list[addresses.Address], options: Options) -> list[Listener]:
    opened: list[Listener] = []
    try:
        for address in parsed:
            opened.append(open_listener(address, options))
    except ConfigurationError:
        _close_all(opened)
        raise
    return opened


def _close_all(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.unlink()
        listener.close()


class _Listeners:
    """Listening sockets, before the worker has them: an application may fork while it is loaded."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners

    def before_fork(self) -> bool:
        """Nothing changes meanwhile."""
        return False

    def after_fork(self) -> None:
        """Nothing was held up."""

    def in_child(self) -> None:
        """Have the child listen no more."""
        forks.void([each.fileno() for each in self._listeners])


def _serve_here(
    application: Application | str,
    listeners: list[Listener],
    options: Options,
    announce: Callable[[], None],
    due: Callable[[], str] | None,
) -> None:
    watch = watch_for(options)
    try:
        with forks.held(_Listeners(listeners)):
            loaded = _load_here(application, listeners, options)
        worker = Worker(loaded, listeners, options, watch=watch, due=due)
    except ConfigurationError:
        _close_all(listeners)
        raise
    frozen = gc.get_freeze_count()
    # What lives now lives as long as this: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    try:
        worker.run(announce)
    finally:
        if not frozen:
            gc.unfreeze()  # the program that called serve() goes on


def _serve_in_workers(
    application: Application | str,
    listeners: list[Listener],
    options: Options,
    announce: Callable[[], None],
) -> None:
    from gateways.server.master import Master  # one process alone does without the memory

    master = Master(lambda: _load(application), listeners, options, _say, announce)
    try:
        loaded = master.run()
    except ConfigurationError:
        _close_all(listeners)
        raise
    if not loaded:
        raise SystemExit(2)  # the worker has said why, once


def _load(application: Application | str) -> Application:
    return loading.load(application) if isinstance(application, str) else application


def _load_here(
    application: Application | str, listeners: list[Listener], options: Options
) -> Application:
    """Load it; or, for a web server's process manager and with a crash log, one that tells why not.

    Such a manager would only start this process again and again.  This way the visitor is shown a
    reference, and whoever cannot read the web server's log finds the fault in their own.
    """
    try:
        return _load(application)
    except ConfigurationError as error:
        if not (options.crash_log and all(each.managed for each in listeners)):
            raise
        _say(error)
        return loading.unloadable(error)


def _say(error: ConfigurationError) -> None:
    trace = getattr(error, "traceback_text", "")
    print(f"{trace}gateways: {error}", file=sys.stderr, flush=True)


def _announce(
    application: Application | str,
    listeners: list[Listener],
    options: Options,
    on_ready: Callable[[], None],
) -> None:
    on_ready()
    where = ", ".join(str(listener.address) for listener in listeners)
    log.info(
        "serving %s at %s (%d worker%s, %d thread%s)",
        loading.import_name(application),
        where,
        options.workers,
        "s" * (options.workers > 1),
        options.threads,
        "s" * (options.threads > 1),
    )


def _explain(listeners: list[Listener]) -> None:
    """Say, to whom nothing but a command line has started this, what it does and how to ask it."""
    from shlex import quote

    where = [listener.address for listener in listeners if listener.address.family != "fd"]
    asks = [
        f"gateways get {quote(str(each))}{' /' if each.family == 'unix' else '/'}" for each in where
    ]
    if asks:
        log.info(
            "no web server or service manager handed over a request or a socket, so this listens by"
            " itself until Ctrl-C or SIGTERM; ask it: %s",
            "; ".join(asks),
        )
