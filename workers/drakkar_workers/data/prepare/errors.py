"""What is wrong with data, said with file and record."""

from drakkar_workers.errors import ConfigError


class DataError(ConfigError):
    """Data that can't be used; ``where`` is a file, or a file and a record of it."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where, self.what = where, what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class BadRecord(DataError):  # noqa: N818 (the record is bad, not the program)
    """One record can't be used, those after it can: ``--on-bad skip`` leaves it out."""
