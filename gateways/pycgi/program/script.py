"""The script: its file, compiled when it is new or has changed, and how it is run as `__main__`."""

from __future__ import annotations

import builtins
import gc
import io
import os
import sys
from contextlib import suppress
from types import ModuleType

from . import EXITED, RAISED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    Signature = tuple[int, int, int] | None

_BUILTINS = dict(vars(builtins))


def signature(path: str) -> Signature:
    """Return what changes when the file does, None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Script:
    """The script's file, compiled when it is new or has changed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = os.path.dirname(path)
        # The interpreter looks for modules beside the file itself, not beside a link to it.
        self.library = os.path.dirname(os.path.realpath(path))
        self.source = b""
        self._signature: Signature = (0, 0, 0)
        self._code: CodeType | None = None
        self._fault: Exception | None = None

    def refresh(self) -> bool:
        """Compile the file if it has changed; return whether it has."""
        found = signature(self.path)
        if found == self._signature:
            return False
        self._signature = found
        self._code = self._fault = None
        try:
            with open(self.path, "rb") as file:
                self.source = file.read()
            self._code = compile(self.source, self.path, "exec", dont_inherit=True)
        except Exception as error:
            self._fault = error
        return True

    def run(self) -> tuple[bytes, int]:
        """Run it as __main__ until the interpreter would end; return how it ended.

        A process that the script forks, and that does not end itself, ends here.
        """
        pid = os.getpid()
        module = ModuleType("__main__")
        module.__file__ = self.path
        own: dict[str, object] = {"__builtins__": builtins, "__cached__": None}
        if sys.version_info < (3, 14):
            own["__annotations__"] = {}
        vars(module).update(own)
        sys.modules["__main__"] = module
        kind, status = EXITED, 0
        try:
            if isinstance(self._fault, OSError):
                sys.stderr.write(
                    f"{sys.executable}: can't open file {self.path!r}: {self._fault}\n"
                )
                raise SystemExit(2)
            if self._fault is not None:
                raise self._fault.with_traceback(None)
            assert self._code is not None
            exec(self._code, module.__dict__)
        except SystemExit as error:
            status = _exit_status(error)
        except BaseException as error:
            kind, status = _show(error)
        # Everything here needs them, whatever the script has done to them.
        names = builtins.__dict__
        names.update(_BUILTINS)
        for name in names.keys() - _BUILTINS.keys():
            del names[name]
        if os.getpid() != pid:
            end_program(module)
            flush_files()
            os._exit(status)
        return kind, status


def _exit_status(error: SystemExit) -> int:
    """Return what the interpreter makes of sys.exit's argument."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with suppress(Exception):
        print(error.code, file=sys.stderr)
    return 1


def _show(error: BaseException) -> tuple[bytes, int]:
    """Hand an exception that nobody caught to sys.excepthook, as the interpreter would.

    cgitb.enable() sets that hook; what it prints is an answer.  The interpreter's own hook writes
    to stderr, so the answer is incomplete then.
    """
    # The first frame is that of Script.run.
    below = error.__traceback__.tb_next if error.__traceback__ else None
    error = error.with_traceback(below)
    hook = sys.excepthook
    kind = RAISED if hook is sys.__excepthook__ else EXITED
    try:
        hook(type(error), error, below)
    except SystemExit as exit:
        return EXITED, _exit_status(exit)
    except BaseException as second:
        kind = RAISED
        with suppress(Exception):
            print("Error in sys.excepthook:", file=sys.stderr)
            sys.__excepthook__(type(second), second, second.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(type(error), error, below)
    return kind, 130 if isinstance(error, KeyboardInterrupt) else 1


def end_program(main: ModuleType | None) -> None:
    """Empty the script's globals, so that its open files are flushed and its objects finalized."""
    _flush()
    # The interpreter stops daemon threads before it does this; here they would meet empty names.
    if main is not None and not is_threaded():
        main.__dict__.clear()
    _flush()


def is_threaded() -> bool:
    """Whether there are other threads that run Python."""
    return len(sys._current_frames()) > 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the script may have closed it or put anything in its place
            stream.flush()


def flush_files() -> None:
    """Flush files that modules keep open: the interpreter would do so at its end.

    What was there before the fork is frozen and not among these objects.
    """
    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    for each in gc.get_objects():
        if type(each) in kinds:
            with suppress(Exception):
                each.flush()
