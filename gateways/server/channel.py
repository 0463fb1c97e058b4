"""What the master and a template process tell each other: small messages of one size.

Each message is one send and one read of the same size, so the descriptor that may travel with it
(a worker's pidfd) arrives with the message that it belongs to.
"""

from __future__ import annotations

import os
import socket
from struct import Struct

# The template's reports.
LOADED = 1
"""The application is loaded, and workers can be started."""
BORN = 2
"""Worker `pid` has been forked for `slot`; its pidfd comes along where there are such."""
NOT_BORN = 3
"""No worker could be forked for `slot`; `value` is the errno."""
READY = 4
"""Worker `pid` accepts connections."""
DIED = 5
"""Worker `pid` has been reaped; `value` is its wait status."""

# The master's orders.
FORK = 6
"""Fork a worker for `slot`."""
STOP = 7
"""Send the signal `value` to the workers, fork no more, and end after the last of them."""

_FORM = Struct("=4i")


class Message:
    """One report or order; what a kind has no use for is 0, and `descriptor` -1."""

    __slots__ = ("kind", "pid", "slot", "value", "descriptor")

    def __init__(
        self, kind: int, *, pid: int = 0, slot: int = 0, value: int = 0, descriptor: int = -1
    ) -> None:
        self.kind = kind
        self.pid = pid
        self.slot = slot
        self.value = value
        self.descriptor = descriptor


class Channel:
    """One end of the connection between the master and a template."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed."""
        return self._socket.fileno()

    def set_blocking(self, blocking: bool) -> None:
        """Let `send` and `receive` wait, or raise BlockingIOError instead."""
        self._socket.setblocking(blocking)

    def send(self, message: Message) -> None:
        """Send; BrokenPipeError when the other end is gone."""
        data = _FORM.pack(message.kind, message.pid, message.slot, message.value)
        if message.descriptor >= 0:
            socket.send_fds(self._socket, [data], [message.descriptor])
        else:
            self._socket.send(data)

    def receive(self) -> Message | None:
        """Return the next message, None when the other end is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _FORM.size, 1)
        except ConnectionResetError:
            return None
        if len(data) < _FORM.size:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        kind, pid, slot, value = _FORM.unpack(data)
        # With no descriptor left in this process the kernel keeps the one that was sent.
        descriptor = descriptors[0] if descriptors else -1
        return Message(kind, pid=pid, slot=slot, value=value, descriptor=descriptor)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def channel_pair() -> tuple[Channel, Channel]:
    """Return two ends that are connected."""
    one, other = socket.socketpair()
    return Channel(one), Channel(other)
