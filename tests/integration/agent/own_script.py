"""A plain script for test_own_script.py: the ten lines of docs/how-to/own-script.md, and a record."""

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from drakkar_workers import checkpoint

STEPS = int(os.environ["OWN_STEPS"])
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = torch.nn.Linear(64, 64)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
parallel = DistributedDataParallel(model)

saved = checkpoint.Checkpoint(model=model, optimizer=optimizer)
for step in range(saved.restore() + 1, STEPS + 1):
    x = torch.rand(32, 64)  # Of the generator, whose state is saved, too.
    loss = (parallel(x) - x.flip(1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(0.01)
    leave = saved.step(step, total_steps=STEPS, loss=loss.item())
    if rank == 0:
        with (Path(os.environ["FAKE_DIR"]) / "history.jsonl").open("a") as history:
            entry = {"step": step, "epoch": os.environ["DRAKKAR_EPOCH"], "time": time.time()}
            print(json.dumps(entry), file=history)
    if leave:
        sys.exit(checkpoint.LEAVE)
saved.close()
if rank == 0:
    torch.save(model.state_dict(), Path(os.environ["FAKE_DIR"]) / "final.pt")
dist.barrier()
dist.destroy_process_group()
