"""What the fork server imports before it forks trainers.

A trainer that finds these in memory does its first step in a tenth of a second instead of ten.
Importing them must start no thread: a forked child has only the thread that forked, and locks held
by the others stay locked for ever. ``tests/unit/train/test_preload.py`` holds both to be true.
"""

import importlib
import os

MODULES = (
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.distributed.checkpoint",
    "torch.distributed.checkpoint.state_dict_saver",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "torch.nn.parallel",
    "torch.optim",
    "torch.utils.serialization.config",
    "numpy",
    "numpy.ctypeslib",
    "numpy.ma",
    "safetensors.torch",
    "tokenizers",
    "jinja2",
    "yaml",
    "drakkar_workers.channel",
    "drakkar_workers.train.entry",
)

# Numpy's BLAS starts its pool of threads when it is loaded, unless it is told before that one is
# enough; trainers compute with torch alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def preload() -> None:
    """Import them all, before the first fork."""
    for name in MODULES:
        importlib.import_module(name)
