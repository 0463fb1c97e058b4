"""Runs the package under a name that no script's module has: theirs may be called `program`, or `script`.

Any Python can run it, whether or not it can import gateways.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import module_from_spec, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

NAME = "_gateways_pycgi"


def load() -> ModuleType:
    """Import the package that this file stands in, and return it."""
    folder = os.path.dirname(os.path.abspath(__file__))
    spec = spec_from_file_location(
        NAME, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    return package


if __name__ == "__main__":
    _ourselves = sys.modules["__main__"]  # the script takes its place there
    load()
    from _gateways_pycgi.command import main  # type: ignore[import-not-found]  # load() names it so

    try:
        _status = main(sys.argv[1:])
    except BaseException as _error:
        sys.__excepthook__(type(_error), _error, _error.__traceback__)
        sys.stderr.flush()
        # Not an exit status: that would be the script's own.
        os.kill(os.getpid(), signal.SIGKILL)
        raise
    os._exit(_status)
