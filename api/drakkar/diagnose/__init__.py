"""What is wrong with a job or service, and what to do: known patterns over what the cluster says."""

from drakkar.diagnose.facts import Facts, Finding
from drakkar.diagnose.patterns import diagnose

__all__ = ["Facts", "Finding", "diagnose"]
