"""Running a user's Python script in a fork of the warm process, instead of a new interpreter.

Asked for by ``DRAKKAR_WARM=1`` in the pod: the script then finds torch imported already, and its
restarts take a tenth of a second. Not the default, because a script may rely on being the first to
import a library, for example to set its options beforehand.
"""

import atexit
import runpy
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

WARM_ENV = "DRAKKAR_WARM"


def script_arguments(argv: Sequence[str], environ: Mapping[str, str]) -> list[str] | None:
    """What follows the interpreter in ``python SCRIPT ...`` or ``python -m MODULE ...``.

    None if the command is something else, if another interpreter than this one would run it, or if
    it is not to run warm.
    """
    if environ.get(WARM_ENV) != "1" or len(argv) < 2:
        return None
    program = shutil.which(argv[0], path=environ.get("PATH"))
    if program is None or Path(program).absolute() not in _own_names():
        return None
    rest = list(argv[1:])
    if rest[0] == "-u":
        del rest[0]
    if rest[:1] == ["-m"]:
        return rest if len(rest) > 1 else None
    return rest if rest and not rest[0].startswith("-") else None


def _own_names() -> set[Path]:
    # By its name, not by where links lead: a virtual environment's python is a link to another's.
    own = Path(sys.executable).absolute()
    return {own, *(own.parent / name for name in ("python", "python3"))}


def run_script(arguments: Sequence[str]) -> int:
    """Run it as ``__main__``; its exit code. Raises what it raises."""
    code: object = None
    try:
        if arguments[0] == "-m":
            sys.argv = list(arguments[1:])
            sys.path[0] = str(Path.cwd())
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(arguments)
            sys.path[0] = str(Path(arguments[0]).absolute().parent)
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    # What the interpreter does at its end, which the caller's os._exit leaves out.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, int):
        return code & 0xFF
    if code is not None:
        print(code, file=sys.stderr)
    return int(code is not None)
