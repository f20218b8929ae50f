"""Which documents are in the data already: equal ones by hash, similar ones by MinHash.

Near duplicates are found as Broder (1997) and Leskovec et al. (Mining of Massive Datasets, 3.4) do:
signatures whose rows agree in a band are compared as wholes.
"""

import hashlib
import re

import numpy as np
import xxhash
from datasketch import MinHash
from numpy.typing import NDArray

from drakkar_workers.data.prepare.settings import DedupSettings

KEY_BYTES = 16
_WORD = re.compile(r"\w+")


def key_of(text: str) -> bytes:
    """Names a text: equal texts have equal keys."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


class Signer:
    """Makes signatures: the share of rows that two have in common estimates their Jaccard
    similarity."""

    def __init__(self, settings: DedupSettings) -> None:
        self._shingle = settings.shingle
        self._hash = MinHash(settings.permutations, seed=1, hashfunc=xxhash.xxh32_intdigest)

    def sign(self, text: str) -> NDArray[np.uint32]:
        """Shape (permutations,)."""
        words = [word.encode() for word in _WORD.findall(text.casefold())]
        count = max(1, len(words) - self._shingle + 1)
        shingles = {b" ".join(words[i : i + self._shingle]) for i in range(count)}
        self._hash.clear()
        self._hash.update_batch(shingles)
        signature: NDArray[np.uint32] = self._hash.hashvalues.astype(np.uint32)
        return signature


def rows_of_band(permutations: int, threshold: float) -> int:
    """Rows of a band such that pairs somewhat below the threshold are still compared."""
    fits = [rows for rows in range(1, permutations + 1) if permutations % rows == 0]
    at_least = [r for r in fits if (r / permutations) ** (1 / r) <= threshold - 0.05]
    return max(at_least, default=1)


def first_of_equals(keys: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which of these documents, shape (n,), are the first with their key."""
    first = np.zeros(len(keys), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def near_duplicates(signatures: NDArray[np.uint32], settings: DedupSettings) -> NDArray[np.bool_]:
    """Which documents, signatures of shape (n, permutations), are like one before them."""
    count, permutations = signatures.shape
    rows = rows_of_band(permutations, settings.threshold)
    found = np.zeros(count, np.bool_)
    for at in range(0, permutations, rows):
        band = np.ascontiguousarray(signatures[:, at : at + rows])
        bytes_of = band.view(np.dtype((np.void, rows * band.itemsize))).ravel()
        _, group = np.unique(bytes_of, return_inverse=True)
        order = np.argsort(group, kind="stable")
        begins = np.flatnonzero(np.diff(group[order], prepend=-1))
        sizes = np.diff(begins, append=count)
        firsts = order[np.repeat(begins, sizes)]
        # Compared with the first of the band and with the one before: most groups are alike.
        before = np.concatenate((order[:1], order[:-1]))
        same_group = np.ones(count, np.bool_)
        same_group[begins] = False
        for others in (firsts, before):
            open_ = same_group & ~found[order]
            a, b = order[open_], others[open_]
            alike = np.concatenate(
                [
                    (signatures[a[i : i + 65536]] == signatures[b[i : i + 65536]]).mean(1)
                    for i in range(0, len(a), 65536)
                ]
                or [np.empty(0)]
            )
            found[a[alike >= settings.threshold]] = True
    return found
