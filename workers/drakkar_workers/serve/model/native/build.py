"""Compiles the kernels once per machine and keeps them: about five seconds, then none."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")


class NoKernelsError(RuntimeError):
    """The kernels can't be compiled or loaded here; says why."""


def load() -> ctypes.CDLL:
    """The compiled kernels. Raises NoKernelsError."""
    # torch first: both must share one OpenMP runtime, else two pools of threads fight for the cores.
    import torch  # noqa: F401

    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    path = _folder() / f"kernels-{_digest()}.so"
    if not path.is_file():
        if compiler is None:
            raise NoKernelsError("there is no C++ compiler: install g++, or set CXX")
        _compile(compiler, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernelsError(f"{path}: {error}") from None


def _compile(compiler: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    except OSError as error:
        raise NoKernelsError(
            f"{path.parent} can't be written: {error}; set DRAKKAR_CACHE"
        ) from None
    os.close(handle)
    command = [compiler, *FLAGS, "-Wno-psabi", str(SOURCES / "kernels.cpp"), "-o", part]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise NoKernelsError(f"{compiler}: {done.stderr.strip()[-500:]}")
        # Whole or not at all, whoever else compiles at the same time.
        Path(part).replace(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernelsError(f"{compiler}: {error}") from None
    finally:
        Path(part).unlink(missing_ok=True)


def _folder() -> Path:
    chosen = os.environ.get("DRAKKAR_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache" / "drakkar") / "kernels"


def _digest() -> str:
    """Of the sources, the flags and the processor: a shared folder serves machines of all kinds."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(source.read_bytes())
    digest.update(f"{platform.machine()} {_processor()}".encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    # Model and features, without what differs from core to core or moment to moment.
    wanted = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features")
    return "\n".join(sorted({line for line in lines if line.split("\t")[0].strip() in wanted}))
