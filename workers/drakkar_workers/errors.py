"""Errors that workers report by name."""


class ConfigError(ValueError):
    """The configuration can't work: another try would fail in the same way."""


class TrainingError(RuntimeError):
    """The training can't go on; ``reason`` is CamelCase, as conditions want it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
