"""What prompts have in common: chained hashes of their blocks, and who has seen which."""

from collections import OrderedDict
from collections.abc import Sequence

import xxhash

BLOCK_CHARACTERS = 64
"""About the 16 tokens of an engine's block."""
MAX_BLOCKS = 1024
"""Of a prompt; what follows is not compared."""


def blocks(root: str, text: str) -> list[int]:
    """A hash per full block of ``text``, each of all that precedes it too.

    ``root`` tells apart what never shares a cache: adapters, salts.
    """
    found: list[int] = []
    last = xxhash.xxh3_64_intdigest(root.encode(errors="surrogatepass"))
    end = min(len(text) // BLOCK_CHARACTERS, MAX_BLOCKS) * BLOCK_CHARACTERS
    for start in range(0, end, BLOCK_CHARACTERS):
        block = text[start : start + BLOCK_CHARACTERS].encode(errors="surrogatepass")
        last = xxhash.xxh3_64_intdigest(block, seed=last)
        found.append(last)
    return found


class Seen:
    """The blocks that a replica was sent, the least recently used forgotten first.

    A block is never forgotten before those that follow it, so what is left of a chain is always its
    beginning.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def matched(self, chain: Sequence[int]) -> int:
        """How many of a chain's first blocks it has; by bisection, since they are its beginning."""
        low, high = 0, len(chain)
        while low < high:
            middle = (low + high) // 2
            if chain[middle] in self._blocks:
                low = middle + 1
            else:
                high = middle
        return low

    def add(self, chain: Sequence[int]) -> None:
        """It is sent a prompt."""
        # Backwards, so that the beginning is the most recently used.
        for block in reversed(chain):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self.capacity:
            self._blocks.popitem(last=False)
