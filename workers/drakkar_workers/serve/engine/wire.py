"""What the server's process and the engine's process say to each other.

Frames over a Unix socket pair: 4 bytes of length, then MessagePack.
"""

import struct
from socket import socket

import msgspec

from drakkar_workers.serve.engine.engine import Stats
from drakkar_workers.serve.engine.request import Output, Request

HEADER = struct.Struct("<I")


class Add(msgspec.Struct, frozen=True, tag=True):
    """Serve a request."""

    request: Request


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Drop requests."""

    ids: list[str]


class Adapter(msgspec.Struct, frozen=True, tag=True):
    """Load a LoRA adapter from a folder, or unload it."""

    call: int
    name: str
    folder: str | None


Command = Add | Abort | Adapter


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded."""

    max_length: int
    vocab: int
    blocks: int
    block_size: int
    backend: str
    dtype: str
    load_seconds: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The model can't be loaded; a sentence."""

    message: str


class Step(msgspec.Struct, frozen=True, tag=True):
    """What a step added, and how the engine stands; also sent now and then when idle."""

    outputs: list[Output]
    stats: Stats


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A request was not taken."""

    id: str
    full: bool
    """The queue is full: the same request may be taken later."""
    message: str


class Answer(msgspec.Struct, frozen=True, tag=True):
    """An adapter was loaded or unloaded, or not."""

    call: int
    error: str


Event = Ready | Failed | Step | Refused | Answer

encoder = msgspec.msgpack.Encoder()
command_decoder = msgspec.msgpack.Decoder(Command)
event_decoder = msgspec.msgpack.Decoder(Event)


def pack(message: Command | Event) -> bytes:
    """One frame."""
    body = encoder.encode(message)
    return HEADER.pack(len(body)) + body


class Inbox:
    """Commands from a blocking or non-blocking socket, as whole frames."""

    def __init__(self, connection: socket) -> None:
        self._connection = connection
        self._data = bytearray()
        self.closed = False

    def read(self) -> list[Command]:
        """Commands that have come; may be none. Sets ``closed`` once the peer has gone."""
        try:
            chunk = self._connection.recv(1 << 20)
        except BlockingIOError:
            return []
        except ConnectionError:
            chunk = b""
        if not chunk:
            self.closed = True
            return []
        self._data += chunk
        found: list[Command] = []
        at = 0
        while len(self._data) - at >= HEADER.size:
            (length,) = HEADER.unpack_from(self._data, at)
            end = at + HEADER.size + length
            if end > len(self._data):
                break
            found.append(command_decoder.decode(self._data[at + HEADER.size : end]))
            at = end
        del self._data[:at]
        return found
