"""What errors look like: one line that begins with "gateways: ".

Only the user's own code is shown with a traceback.
"""

from __future__ import annotations

import os
import sys

from gateways.errors import ConfigurationError, GatewayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def tell(run: Callable[[], object]) -> int:
    """Run something; return the exit code, having said in a line what went wrong."""
    try:
        result = run()
    except ConfigurationError as error:
        # An ApplicationImportError carries the traceback of the user's own code.
        sys.stderr.write(getattr(error, "traceback_text", ""))
        return say(str(error), 2)
    except GatewayError as error:
        return say(str(error), 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough.  Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def say(words: str, code: int) -> int:
    """Print an error; return the exit code."""
    print(f"gateways: {words}", file=sys.stderr)
    return code
