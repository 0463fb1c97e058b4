"""From what the user asked for to running processes: options, listeners, then a worker or a master."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

from gateways import addresses, loading
from gateways.errors import ConfigurationError
from gateways.server import log as logs
from gateways.server.listeners import Listener, open_listener
from gateways.server.log import leave, log
from gateways.server.options import Options
from gateways.server.protocols import check_protocol
from gateways.server.worker import Application, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Importing typing takes a megabyte.
    from collections.abc import Callable, Sequence
    from typing import Any


def serve(
    application: Application | str,
    texts: Sequence[str],
    default_protocol: str,
    given: dict[str, Any],
) -> None:
    """Serve `application` at the addresses `texts`; `given` are the options by name."""
    try:
        _serve(application, texts, default_protocol, Options(**given))
    except ConfigurationError as error:
        # What led to it is this package's own affair: the text says it all.
        raise error.with_traceback(None) from None


def _serve(
    application: Application | str, texts: Sequence[str], default_protocol: str, options: Options
) -> None:
    _fill_standard_descriptors()
    logs.configure(options.log_level)
    parsed = [addresses.parse(text, default_protocol=default_protocol) for text in texts]
    for address in parsed:
        check_protocol(address.protocol)
    serve_on(_open_all(parsed, options), application, options)


def serve_on(
    listeners: list[Listener],
    application: Application | str,
    options: Options,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve `application` on `listeners`, which it closes in the end.

    `on_ready` is called when connections are accepted for the first time.
    """
    # A process cannot load an application anew: that takes a master, unless whoever has started
    # this one on a listening socket is to do it.
    reloads = options.touch_reload or options.reload_on_change
    if options.workers == 1 and (not reloads or any(each.inherited for each in listeners)):
        _serve_here(application, listeners, options, on_ready)
    else:
        _serve_in_workers(application, listeners, options, on_ready)
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


def _serve_here(
    application: Application | str,
    listeners: list[Listener],
    options: Options,
    on_ready: Callable[[], None],
) -> None:
    since = time.time()
    try:
        worker = Worker(_load(application), listeners, options, since=since)
    except ConfigurationError:
        _close_all(listeners)
        raise
    frozen = gc.get_freeze_count()
    # What lives now lives as long as this: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    try:
        worker.run(lambda: _announce(application, listeners, options, on_ready))
    finally:
        if not frozen:
            gc.unfreeze()  # the program that called serve() goes on


def _serve_in_workers(
    application: Application | str,
    listeners: list[Listener],
    options: Options,
    on_ready: Callable[[], None],
) -> None:
    from gateways.server.master import Master  # one process alone does without the memory

    master = Master(
        lambda: _load(application),
        listeners,
        options,
        _say,
        lambda: _announce(application, listeners, options, on_ready),
    )
    try:
        loaded = master.run()
    except ConfigurationError:
        _close_all(listeners)
        raise
    if not loaded:
        raise SystemExit(2)  # the worker has said why, once


def _load(application: Application | str) -> Application:
    return loading.load(application) if isinstance(application, str) else application


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
