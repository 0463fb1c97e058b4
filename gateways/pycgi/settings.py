"""What can be set for a Python script, and `pycgi:PATH?name=value`, the text that sets it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gateways.cgihost.settings import OF_PYTHON, ScriptSettings, check_least, split
from gateways.errors import ConfigurationError

if TYPE_CHECKING:
    from gateways.pycgi.application import PythonScript


class Settings(ScriptSettings):
    """How a Python script is run: what ScriptSettings has, and

    - `processes`: of "inprocess" mode, at most so many in one process of the server, each for one
      request at a time; each makes way for a new one after `max_requests`.
    - `interpreter`: the Python that runs the script, by default this one.
    """

    def __init__(
        self,
        *,
        processes: int = 4,
        max_requests: int = 1000,
        interpreter: str = "",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_least(1, processes=processes, max_requests=max_requests)
        if interpreter and not os.path.isabs(interpreter):
            raise ConfigurationError(
                f"the interpreter {interpreter!r} is no absolute path, as /usr/bin/python3 is"
            )
        self.processes = processes
        self.max_requests = max_requests
        self.interpreter = interpreter


def load(text: str, mode: str) -> PythonScript:
    """Return the application that `pycgi:TEXT` means: a path, and settings after a `?`.

    Raises ConfigurationError.
    """
    from gateways.pycgi.application import PythonScript

    path, given = split(text, OF_PYTHON)
    return PythonScript(path, mode, **given)
