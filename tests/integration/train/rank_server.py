"""Forks trainers from one process that has torch in memory, as the agent's fork server does.

Reads one JSON object per line from stdin, answers each with one on stdout:
{"environ": {...}, "output": PATH, "file_limit": BYTES or null} -> {"pid": PID};
{"wait": PID, "seconds": S} -> {"code": CODE}, negative for a signal, null if it still runs.
"""

import json
import os
import resource
import sys
import time
import traceback

from drakkar_workers.train import main
from drakkar_workers.train.preload import preload


def start(request: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        descriptor = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ.update(request["environ"])
        if request["file_limit"] is not None:
            limit = request["file_limit"]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = int(main([]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)


if __name__ == "__main__":
    preload()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(json.dumps({"code": wait(request["wait"], request["seconds"])}), flush=True)
        else:
            print(json.dumps({"pid": start(request)}), flush=True)
