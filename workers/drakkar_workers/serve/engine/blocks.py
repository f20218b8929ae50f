"""The paged cache of keys and values, as numbers: who holds which block, and what it contains.

A block is ``size`` consecutive tokens of all layers. Full blocks are known by a chained hash of
everything before and in them, so that equal prefixes share blocks; blocks that nobody holds keep
their content until they are needed, least recently used first.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence as SequenceOf

from drakkar_workers.serve.engine.sequence import Sequence

DIGEST_BYTES = 16


class BlockManager:
    """Hands out blocks, counts their holders, remembers their content."""

    def __init__(self, count: int, size: int, *, caching: bool = True) -> None:
        if count < 1 or size < 1:
            raise ValueError(f"a cache of {count} blocks of {size} tokens holds nothing")
        self.count = count
        self.size = size
        self.caching = caching
        self._holders = [0] * count
        self._hash_of: list[bytes | None] = [None] * count
        self._block_of: dict[bytes, int] = {}
        # Ordered from the next to be reused to the last; a linked list, so all steps are O(1).
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self.queries = 0
        """Prompt tokens that were looked up."""
        self.hits = 0
        """Prompt tokens that were found."""

    @property
    def free(self) -> int:
        """Blocks that nobody holds, cached content or not."""
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of blocks that are held, 0 to 1."""
        return 1.0 - len(self._free) / self.count

    def need(self, sequence: Sequence, tokens: int) -> int:
        """Further blocks that a sequence needs to hold ``tokens`` tokens in all."""
        return max(0, -(-tokens // self.size) - len(sequence.blocks))

    def cached_prefix(self, sequence: Sequence) -> list[int]:
        """Blocks that hold the beginning of a sequence already.

        At least one token is left out, since logits come from computing a token.
        """
        if not self.caching or sequence.request.reads_all:
            return []
        found: list[int] = []
        usable = (len(sequence.tokens) - 1) // self.size
        for index in range(usable):
            block = self._block_of.get(self._hash(sequence, index))
            if block is None:
                break
            found.append(block)
        return found

    def admit(self, sequence: Sequence, prefix: SequenceOf[int]) -> None:
        """Let a sequence without blocks start with a cached prefix."""
        assert not sequence.blocks and sequence.computed == 0
        for block in prefix:
            self._take(block)
        sequence.blocks = list(prefix)
        sequence.computed = len(prefix) * self.size
        sequence.published = len(prefix)
        if sequence.preemptions == 0 and not sequence.request.reads_all:
            sequence.cached = sequence.computed
            self.queries += len(sequence.tokens)
            self.hits += sequence.computed

    def free_without(self, prefix: SequenceOf[int]) -> int:
        """Free blocks once those of a cached prefix are taken."""
        return len(self._free) - sum(self._holders[block] == 0 for block in prefix)

    def grow(self, sequence: Sequence, tokens: int) -> bool:
        """Give a sequence the blocks for ``tokens`` tokens in all; False and nothing if too few."""
        need = self.need(sequence, tokens)
        if need > len(self._free):
            return False
        for _ in range(need):
            block, _none = self._free.popitem(last=False)
            self._forget(block)
            self._holders[block] = 1
            sequence.blocks.append(block)
        return True

    def publish(self, sequence: Sequence) -> None:
        """Let others find the full blocks that a sequence has computed."""
        if not self.caching:
            return
        full = sequence.computed // self.size
        for index in range(sequence.published, full):
            digest = self._hash(sequence, index)
            block = sequence.blocks[index]
            if digest not in self._block_of:
                # Of two that computed the same at once, the first is kept.
                self._block_of[digest] = block
                self._hash_of[block] = digest
        sequence.published = max(sequence.published, full)

    def release(self, sequence: Sequence) -> None:
        """Take all blocks back; what they hold stays findable until they are reused."""
        # From the end: a prefix without its beginning is worth nothing, so ends are reused first.
        for block in reversed(sequence.blocks):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                if self._hash_of[block] is None:
                    self._free.move_to_end(block, last=False)
        sequence.blocks = []
        sequence.computed = 0
        sequence.published = 0

    def reset(self) -> None:
        """Forget all cached content, as after new weights or an adapter of the same name."""
        for block in range(self.count):
            self._forget(block)

    def check(self, sequences: SequenceOf[Sequence]) -> None:
        """Raise AssertionError unless books and sequences agree; for idle moments and tests."""
        holders = [0] * self.count
        for sequence in sequences:
            for block in sequence.blocks:
                holders[block] += 1
            assert len(set(sequence.blocks)) == len(sequence.blocks), "a block is held twice"
            assert sequence.computed <= len(sequence.blocks) * self.size, "tokens without blocks"
        assert holders == self._holders, "holders are miscounted"
        assert set(self._free) == {b for b, n in enumerate(holders) if n == 0}, "free list is wrong"
        for digest, block in self._block_of.items():
            assert self._hash_of[block] == digest, "two ideas of a block's content"
        known = sum(digest is not None for digest in self._hash_of)
        assert known == len(self._block_of), "a block is known by nothing"

    def _take(self, block: int) -> None:
        if self._holders[block] == 0:
            del self._free[block]
        self._holders[block] += 1

    def _forget(self, block: int) -> None:
        digest = self._hash_of[block]
        if digest is not None:
            del self._block_of[digest]
            self._hash_of[block] = None

    def _hash(self, sequence: Sequence, index: int) -> bytes:
        hashes = sequence.hashes
        while len(hashes) <= index:
            start = len(hashes) * self.size
            before = (
                hashes[-1] if hashes else _root(sequence.request.adapter, sequence.request.salt)
            )
            tokens = array("I", sequence.tokens[start : start + self.size])
            digest = hashlib.blake2b(before + tokens.tobytes(), digest_size=DIGEST_BYTES)
            hashes.append(digest.digest())
        return hashes[index]


def _root(adapter: str | None, salt: str) -> bytes:
    """What the first block's hash is chained to: nothing is shared across adapters or salts."""
    text = f"{len(adapter)}:{adapter}" if adapter is not None else "-"
    return hashlib.blake2b(f"{text}/{salt}".encode(), digest_size=DIGEST_BYTES).digest()
