"""Which signals stop a daemon, and which of those that come after the first mean "at once".

A person who is impatient presses Ctrl-C again, or sends SIGTERM a second time.  A process manager
repeats itself without being impatient: mod_fcgid sends SIGTERM again after 1.3 s and SIGKILL after
8.3 s, multiwatch sends SIGUSR1 beside what systemd sends to the whole group.  So where one has
started us, on descriptor 0, SIGTERM and SIGUSR1 never mean "at once", and the time that running
requests get is shorter than the managers' own.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateways.server.listeners import Listener
    from gateways.server.options import Options

MANAGED_SECONDS = 7.0
"""The most that running requests get on descriptor 0."""


def graceful_seconds(options: Options, listeners: Iterable[Listener]) -> float:
    """Return how long running requests may take once the server was told to stop."""
    managed = any(listener.managed for listener in listeners)
    return min(options.graceful_timeout, MANAGED_SECONDS) if managed else options.graceful_timeout


class Stops:
    """The stopping signals that have come so far."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        listeners = list(listeners)
        self.managed = any(listener.managed for listener in listeners)
        self.numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
        """The signals that stop; multiwatch stops its children with SIGUSR1."""
        if any(listener.inherited for listener in listeners):
            self.numbers.append(signal.SIGUSR1)
        self._seen: set[int] = set()

    def means_at_once(self, number: int) -> bool:
        """Take note of a stopping signal; return whether running requests are to be cut."""
        again = number in self._seen if self.managed else bool(self._seen)
        self._seen.add(number)
        if number == signal.SIGQUIT:
            return True
        return again and not (self.managed and number != signal.SIGINT)
