"""Write the Python modules of the .proto files beside this one.

    python -m drakkar_gpu.plugin.proto.generate

They are committed, so that only developers need the compiler (grpcio-tools, in the extra dev).
"""

import subprocess
import sys
from importlib import resources
from pathlib import Path

PACKAGE = "drakkar_gpu/plugin/proto"
NAMES = ("deviceplugin", "dra", "podresources", "registration")


def generate(target: Path) -> None:
    """Write ``<name>_pb2.py`` and ``.pyi`` below ``target``, the folder that holds drakkar_gpu."""
    sources = Path(__file__).parents[3]
    well_known = str(resources.files("grpc_tools") / "_proto")
    # Compiled by their path below the root, so that the file names in the descriptors, which are
    # shared by a whole process, can't meet those of another package.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{sources}", f"-I{well_known}"]
    command += [f"--python_out={target}", f"--pyi_out={target}"]
    subprocess.run([*command, *(f"{PACKAGE}/{name}.proto" for name in NAMES)], check=True)


if __name__ == "__main__":
    generate(Path(__file__).parents[3])
