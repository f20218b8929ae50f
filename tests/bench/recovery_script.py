"""A tiny torch script for recovery.py: two matrices, one all-reduce a step, a saved state."""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from drakkar_workers.channel import send_step

folder, every = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo")
rank = dist.get_rank()
state = folder / "state.pt"
weights = torch.load(state) if state.exists() else {"step": torch.zeros(1), "w": torch.ones(64, 64)}
with (folder / "steps.jsonl").open("a") as log:
    while True:
        weights["w"] = torch.tanh(weights["w"] @ weights["w"].T)
        dist.all_reduce(weights["w"])
        weights["step"] += 1
        step = int(weights["step"])
        send_step(rank=rank, step=step, total_steps=1_000_000)
        if rank == 0:
            print(json.dumps({"time": time.time(), "step": step}), file=log, flush=True)
            if step % every == 0:
                torch.save(weights, folder / "state.tmp")
                (folder / "state.tmp").replace(state)
        time.sleep(0.02)
