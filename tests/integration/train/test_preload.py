import subprocess
import sys

CHECK = """
import os, sys
from drakkar_workers.train.preload import preload
preload()
assert len(os.listdir("/proc/self/task")) == 1, "a thread was started"
before = set(sys.modules)
import torch.distributed as dist
assert not dist.is_initialized()
pid = os.fork()
if pid == 0:
    # A child that inherited a lock held for ever would hang here.
    import torch
    torch.set_num_threads(2)
    layer = torch.nn.Linear(256, 256)
    layer(torch.ones(256, 256)).sum().backward()
    os._exit(0 if set(sys.modules) == before else 3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_what_is_preloaded_starts_no_thread_and_can_be_forked():
    subprocess.run([sys.executable, "-c", CHECK], check=True, timeout=120)


def test_the_package_itself_does_not_load_torch():
    code = "import sys, drakkar_workers.train; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
