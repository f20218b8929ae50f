"""``python -m drakkar_workers.train [--config FILE.yaml --out DIR]``."""

import os
import sys

from drakkar_workers.train import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Communication threads may wait for peers that are gone; the interpreter would wait for them.
    os._exit(code)
