"""In-process mode: one process that runs the script again and again, one request at a time."""

from __future__ import annotations

import atexit
import gc
import os
import socket
import sys
import time
from contextlib import suppress
from contextvars import copy_context

from . import STALE, STARTED
from .preloading import is_below
from .request import Request, Setting, receive, tell
from .script import Script, end_program, flush_files, is_threaded, signature
from .state import Logging, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .script import Signature


class Resident:
    """Runs the script in this process, one request at a time."""

    def __init__(self, script: Script, sock: socket.socket, most: int) -> None:
        self._script = script
        self._sock = sock
        self._setting = Setting(script)
        self._left = most
        self._own_stderr = os.dup(2)
        self._null = os.open(os.devnull, os.O_RDWR)
        self._watched: dict[str, Signature] = {}
        self._known = 0
        self._exits: list[tuple[Callable[..., object], Any, Any]] = []
        self._setting.note_putenv()
        self._wrap_atexit()
        self._state = State()
        self._logging = Logging()

    def run(self) -> None:
        """Serve until whoever started this process is gone, or a new one is to take its place."""
        self._script.refresh()
        if b"logging" in self._script.source:
            import logging  # noqa: F401  # what the script does to it can be told apart from now on
        while True:
            try:
                request = receive(self._sock)
            except EOFError:
                continue
            if request is None:
                return
            with request.control, suppress(BrokenPipeError):  # given up meanwhile
                if self._is_stale():
                    request.control.send(STALE)
                    return
                request.control.send(STARTED)
                # Context variables, decimal's precision for one, are the request's own.
                if not copy_context().run(self._answer, request):
                    return

    def _answer(self, request: Request) -> bool:
        """Answer one request; return whether this process can answer another."""
        self._setting.prepare(request)
        time.tzset()
        self._logging.watch()
        kind, status = self._script.run()
        main = sys.modules.get("__main__")
        self._left -= 1
        threading: Any = sys.modules.get("threading")
        # Threads that a request leaves running would go on in the next one's answer.
        stays = self._left > 0 and not is_threaded()
        if not stays and threading is not None:
            threading._shutdown()
        while self._exits:
            function, arguments, keywords = self._exits.pop()
            try:
                function(*arguments, **keywords)
            except BaseException as error:
                with suppress(Exception):
                    sys.__excepthook__(type(error), error, error.__traceback__)
        if not stays:
            atexit._run_exitfuncs()
        self._logging.take_back()
        end_program(main)
        gc.collect(1)
        if not stays:
            flush_files()
        try:
            stays = self._state.restore() and stays
        except Exception:  # whatever the script has done: its answer is complete
            stays = False
        self._setting.streams.flush()
        for number in range(3):
            os.dup2(self._null if number < 2 else self._own_stderr, number)
        # What could not be written must not stand before the next answer.
        self._setting.streams.flush()
        self._watch()
        tell(request.control, kind, status, stays=stays)
        return stays

    def _is_stale(self) -> bool:
        if self._script.refresh():
            return True
        return any(signature(path) != seen for path, seen in self._watched.items())

    def _watch(self) -> None:
        """Note the modules of the script's folder that have been imported."""
        if len(sys.modules) == self._known:
            return
        self._known = len(sys.modules)
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and is_below(self._script.library, path):
                self._watched.setdefault(path, signature(path))

    def _wrap_atexit(self) -> None:
        """Take what the script itself registers for the end of each request."""
        register, unregister = atexit.register, atexit.unregister

        def register_for_request(function: Any, /, *arguments: Any, **keywords: Any) -> Any:
            main = sys.modules.get("__main__")
            if main is not None and sys._getframe(1).f_globals is main.__dict__:
                self._exits.append((function, arguments, keywords))
                return function
            return register(function, *arguments, **keywords)

        def unregister_for_request(function: Any, /) -> None:
            self._exits[:] = [each for each in self._exits if each[0] != function]
            unregister(function)

        atexit.register, atexit.unregister = register_for_request, unregister_for_request
