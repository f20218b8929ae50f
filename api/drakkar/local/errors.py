"""The one error this package raises on purpose."""


class ClusterError(Exception):
    """Something the user can act on: a sentence saying what is missing and what fixes it."""
