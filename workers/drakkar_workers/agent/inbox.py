"""Receives what trainer processes tell over the channel."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable

from drakkar_workers.channel import MESSAGE_LIMIT_BYTES, Message, address, decode

BATCH = 256
"""Messages taken before other work has its turn."""
COMPLAINTS = 10
"""Bad messages that are logged; after these they are dropped in silence."""

log = logging.getLogger(__name__)


class Inbox:
    """A datagram socket in the abstract namespace: no file that a killed agent could leave."""

    def __init__(self, take: Callable[[Message], None]) -> None:
        self._take = take
        self._complaints = COMPLAINTS
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        # Unguessable, since all of the pod's network namespace can send.
        self.name = f"@drakkar-{secrets.token_hex(16)}"
        self._socket.bind(address(self.name))

    def open(self) -> None:
        """Begin to receive. Needs a running event loop."""
        asyncio.get_running_loop().add_reader(self._socket, self.drain)

    def close(self) -> None:
        """Stop; messages under way are lost."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def drain(self) -> None:
        """Take what has arrived."""
        for _ in range(BATCH):
            try:
                datagram = self._socket.recv(MESSAGE_LIMIT_BYTES + 1)
            except OSError:
                return
            try:
                message = decode(datagram)
            except ValueError as error:
                if self._complaints:
                    self._complaints -= 1
                    log.warning("%s", error)
                continue
            self._take(message)
