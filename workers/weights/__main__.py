"""`python -m workers.weights LISTENER`: keep the node's weights until stdin closes.

LISTENER is the descriptor of a socket that listens already.
"""

import argparse
import os
import shutil
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from workers.weights.keeper import Keeper


def main(argv: Sequence[str]) -> int:
    """Serve; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.weights", description=__doc__)
    parser.add_argument("listener", type=int)
    parser.add_argument("--max-bytes", type=int, default=0)
    options = parser.parse_args(argv)
    listener = socket.socket(fileno=options.listener)
    keeper = Keeper(listener, options.max_bytes)
    threading.Thread(target=keeper.serve, name="keeper", daemon=True).start()
    while os.read(0, 1):
        pass
    # Here and not by the owner, who may have been killed.
    shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
