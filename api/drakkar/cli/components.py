"""Commands that other parts of Drakkar bring, where these are installed beside this one."""

import importlib.metadata
from collections.abc import Callable, Sequence

from drakkar.cli.session import fail


def component(group: str, name: str, extra: str) -> Callable[[Sequence[str]], int]:
    """The entry point ``name`` of ``group``: takes arguments, returns an exit code.

    ``extra`` of the package brings what it needs. Ends with exit code 1 if it is not there.
    """
    command = f"{group.removeprefix('drakkar.')} {name}"
    for entry in importlib.metadata.entry_points(group=group, name=name):
        try:
            found: Callable[[Sequence[str]], int] = entry.load()
        except ImportError as error:
            raise fail(
                f"{command} runs code of the {extra}, which needs {error.name}: "
                f"pip install 'drakkar[{extra}]'"
            ) from None
        return found
    raise fail(
        f"{command} runs code of the {extra}, which is not installed here: "
        f"pip install 'drakkar[{extra}]'"
    )
