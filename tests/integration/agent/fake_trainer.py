"""A trainer without torch: its ranks step together over TCP, save, resume and leave as real ones do.

Rank 0 serves a barrier; a rank that loses its connection fails as gloo does. ``FAKE_DIR`` holds the
state and the faults to show: the file ``fault`` has one JSON object, ``{"rank": 2, "step": 5, "do":
"raise" | "exit:N" | "hang", "once": true}``.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from drakkar_workers.channel import send_checkpoint, send_error, send_phase, send_step

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
FOLDER = Path(os.environ["FAKE_DIR"])
STEPS, EVERY = int(os.environ["FAKE_STEPS"]), int(os.environ["FAKE_EVERY"])
STEP_SECONDS = float(os.environ["FAKE_STEP_SECONDS"])
STATE, FAULT, HISTORY = FOLDER / "state", FOLDER / "fault", FOLDER / "history.jsonl"

leaving = False


def on_sigterm(_number, _frame):
    global leaving
    leaving = True


def connect(address):
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(address, timeout=30)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Barrier:
    """Everybody waits for everybody, and hears whether anybody wants to leave."""

    def __init__(self):
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if RANK == 0:
            with socket.create_server(address, backlog=64) as server:
                self.peers = [server.accept()[0] for _ in range(WORLD - 1)]
        else:
            self.peers = [connect(address)]

    def step(self, flag):
        if RANK == 0:
            flags = [flag, *(self.read(peer) for peer in self.peers)]
            for peer in self.peers:
                peer.sendall(bytes([max(flags)]))
            return max(flags)
        self.peers[0].sendall(bytes([flag]))
        return self.read(self.peers[0])

    @staticmethod
    def read(peer):
        data = peer.recv(1)
        if not data:
            raise ConnectionError("Connection closed by peer")
        return data[0]


def save(step):
    if RANK == 0:
        temporary = STATE.with_suffix(".tmp")
        temporary.write_text(str(step))
        temporary.rename(STATE)
        send_checkpoint(step=step, path=f"job/step-{step:08d}")


def fault(step):
    try:
        wanted = json.loads(FAULT.read_text())
    except FileNotFoundError:
        return
    if wanted["rank"] not in (RANK, "all") or step < wanted["step"]:
        return
    if wanted.get("once"):
        FAULT.unlink()
    do = wanted["do"]
    if do == "raise":
        raise ZeroDivisionError("a user's bug")
    if do == "hang":
        time.sleep(3600)
    if do.startswith("exit:"):
        code = int(do[5:])
        if code == 78:
            send_error(rank=RANK, reason="ConfigError", message="learningRate: 0 is not above 0")
        os._exit(code)


def main():
    signal.signal(signal.SIGTERM, on_sigterm)
    send_phase(rank=RANK, phase="starting")
    barrier = Barrier()
    step = int(STATE.read_text()) if STATE.exists() else 0
    barrier.step(0)
    while step < STEPS:
        fault(step)
        time.sleep(STEP_SECONDS)
        leave = barrier.step(int(leaving))
        step += 1
        if RANK == 0:
            with HISTORY.open("a") as history:
                entry = {"time": time.time(), "step": step, "epoch": os.environ["DRAKKAR_EPOCH"]}
                print(json.dumps(entry), file=history)
        send_step(
            rank=RANK, step=step, total_steps=STEPS, loss=1.0 / step, step_seconds=STEP_SECONDS
        )
        if leave or step % EVERY == 0 or step == STEPS:
            save(step)
            barrier.step(0)
        if leave:
            return 75
    send_phase(rank=RANK, phase="done")
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:
        send_error(rank=RANK, reason=type(error).__name__, message=str(error))
        print(f"[rank {RANK}] {type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    os._exit(code)
