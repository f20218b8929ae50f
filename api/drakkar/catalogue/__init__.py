"""What each accelerator can do: peaks, memory, links, power, each with its source.

For model FLOP/s utilisation, planning, simulated devices and the bandwidths of a topology.
"""

from drakkar.catalogue.chip import PRECISIONS, Chip, Peaks, Precision, Source, SourceKind
from drakkar.catalogue.load import chips, find, load, sources

__all__ = [
    "PRECISIONS",
    "Chip",
    "Peaks",
    "Precision",
    "Source",
    "SourceKind",
    "chips",
    "find",
    "load",
    "sources",
]
