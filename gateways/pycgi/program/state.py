"""What a script changes in its process, and the next request in-process must not see."""

from __future__ import annotations

import _locale
import _signal  # type: ignore[import-not-found]  # typeshed leaves it out; without enumerations it is faster
import _thread
import gc
import os
import resource
import sys
import warnings
from contextlib import suppress
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Logging:
    """What the script itself does to loggers, which is taken back when its request is over.

    What a module does to them while it is imported stays, since it is imported once.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []
        self._watched = False

    def watch(self) -> None:
        """Notice handlers that are added and levels that are set, once there is a module logging."""
        module: Any = sys.modules.get("logging")
        if module is None or self._watched:
            return
        self._watched = True
        add, set_level = module.Logger.addHandler, module.Logger.setLevel

        def add_handler(logger: Any, handler: Any) -> None:
            if handler not in logger.handlers and _is_script_at_work():
                self._undo.append(lambda: (logger.removeHandler(handler), handler.close()))
            add(logger, handler)

        def note_and_set_level(logger: Any, level: Any) -> None:
            if _is_script_at_work():
                self._undo.append(partial(set_level, logger, logger.level))
            set_level(logger, level)

        module.Logger.addHandler, module.Logger.setLevel = add_handler, note_and_set_level
        self._watch_what_silences(module)

    def _watch_what_silences(self, module: Any) -> None:
        add, disable = module.Filterer.addFilter, module.disable

        def add_filter(filterer: Any, added: Any) -> None:
            if added not in filterer.filters and _is_script_at_work():
                self._undo.append(lambda: filterer.removeFilter(added))
            add(filterer, added)

        def note_and_disable(level: int = module.CRITICAL) -> None:
            if _is_script_at_work():
                self._undo.append(partial(disable, module.root.manager.disable))
            disable(level)

        module.Filterer.addFilter, module.disable = add_filter, note_and_disable

    def take_back(self) -> None:
        """Undo it, the last first; a handler that is closed writes out what it holds."""
        while self._undo:
            with suppress(Exception):
                self._undo.pop()()


def _is_script_at_work() -> bool:
    """Whether the caller's caller is the script, itself or through others, and no import of its."""
    names = sys.modules["__main__"].__dict__
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_globals is names:
            return True
        if frame.f_code.co_name == "<module>":
            return False
        frame = frame.f_back
    return False


class State:
    """What a script may change and the next request must not see, as it is before the first one."""

    def __init__(self) -> None:
        self._filters: list[Any] = list(warnings.filters)

        self._path = list(sys.path)
        self._hooks = [
            (name, getattr(sys, name), list(getattr(sys, name)))
            for name in ("meta_path", "path_hooks")
        ]
        self._numbers: list[tuple[Any, Any]] = [
            (set_number, get_number())
            for set_number, get_number in (
                (sys.setrecursionlimit, sys.getrecursionlimit),
                (sys.setswitchinterval, sys.getswitchinterval),
                (
                    getattr(sys, "set_int_max_str_digits", None),
                    getattr(sys, "get_int_max_str_digits", lambda: 0),
                ),
            )
            if set_number is not None
        ]
        self._gc = gc.isenabled(), gc.get_threshold()
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._signals = {number: _signal.getsignal(number) for number in _signal.valid_signals()}
        self._mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self._set_locale = _locale.setlocale
        self._all = _locale.LC_ALL
        self._locale = _locale.setlocale(self._all, None)
        kinds = {getattr(resource, each) for each in dir(resource) if each.startswith("RLIMIT_")}
        self._get_limit, self._set_limit = resource.getrlimit, resource.setrlimit
        self._limits = {kind: resource.getrlimit(kind) for kind in kinds}
        self._rights = self._look_at_rights()

    def restore(self) -> bool:
        """Put it back; return whether that was possible."""
        self._restore_signals()
        self._restore_interpreter()
        os.umask(self._umask)
        if self._set_locale(self._all, None) != self._locale:
            self._set_locale(self._all, self._locale)
        self._restore_modules()
        with suppress(ChildProcessError):  # children that the script did not wait for
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return self._restore_limits() and self._look_at_rights() == self._rights

    def _look_at_rights(self) -> tuple[object, ...]:
        """Return what cannot be put back: who this process is, and how nice."""
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        return os.getresuid(), os.getresgid(), os.getgroups(), niceness

    def _restore_signals(self) -> None:
        for timer in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF):
            _signal.setitimer(timer, 0)
        _signal.set_wakeup_fd(-1)
        for number, handler in self._signals.items():
            if _signal.getsignal(number) is not handler and handler is not None:
                _signal.signal(number, handler)
        # After the handlers: one that was blocked may be waiting.
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)

    def _restore_interpreter(self) -> None:
        if sys.path != self._path:
            sys.path[:] = self._path
        for name, hooks, then in self._hooks:
            now = getattr(sys, name)
            if now != then:
                # A module that is imported once, six for example, may need its own.
                added = [each for each in now if each not in then and not _is_of_script(each)]
                hooks[:] = [*then, *added]
                setattr(sys, name, hooks)
                sys.path_importer_cache.clear()
        sys.excepthook, sys.displayhook = sys.__excepthook__, sys.__displayhook__
        sys.unraisablehook, sys.breakpointhook = sys.__unraisablehook__, sys.__breakpointhook__
        sys.settrace(None)
        sys.setprofile(None)
        for set_number, number in self._numbers:
            set_number(number)
        (gc.enable if self._gc[0] else gc.disable)()
        gc.set_threshold(*self._gc[1])

    def _restore_modules(self) -> None:
        modules: Any = sys.modules
        found = modules.get("warnings", warnings)
        found.resetwarnings()
        found.filters[:] = self._filters
        if "socket" in modules and modules["socket"].getdefaulttimeout() is not None:
            modules["socket"].setdefaulttimeout(None)
        if "threading" in modules:
            modules["threading"].excepthook = _thread._excepthook
        if "faulthandler" in modules:
            modules["faulthandler"].cancel_dump_traceback_later()
        if "random" in modules:
            modules["random"].seed()

    def _restore_limits(self) -> bool:
        for kind, limits in self._limits.items():
            if self._get_limit(kind) != limits:
                try:
                    self._set_limit(kind, limits)
                except (OSError, ValueError):
                    return False  # a hard limit that was lowered stays so
        return True


def _is_of_script(hook: object) -> bool:
    return "__main__" in (getattr(hook, "__module__", ""), type(hook).__module__)
