"""`python -m workers.warm LISTENER`: import all, then fork on request until stdin closes.

LISTENER is the descriptor of a socket that listens already: who asks early waits, and is not
turned away.
"""

import argparse
import gc
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from workers.owner_socket import accept
from workers.warm.children import run_child
from workers.warm.fitness import ImportedWith
from workers.warm.fork_server import ForkServer
from workers.warm.preload import import_engine

log = logging.getLogger("workers.warm")

_PATIENCE_S = 10.0
"""A client that has connected sends its request at once."""


def main(argv: Sequence[str]) -> int:
    """Serve; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.warm", description=__doc__)
    parser.add_argument("listener", type=int)
    parser.add_argument("--asked", default="{}", help="what its starter's environment lacks")
    parser.add_argument("--import", dest="modules", default="", help="more modules, as a,b")
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    lifeline = os.dup(0)
    # A child that spawns in its turn must not have our end of the owner's pipe as its stdin.
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    started_with = dict(os.environ)
    import_engine(tuple(filter(None, options.modules.split(","))))
    others: dict[str, str | None] = json.loads(options.asked)
    asked = {k: v for k, v in (started_with | others).items() if v is not None}
    imported = ImportedWith(asked=asked, now=dict(os.environ))
    # Pages that the collector never touches stay shared with every child.
    gc.collect()
    gc.freeze()
    log.info("warm process ready pid=%d", os.getpid())
    listener = socket.socket(fileno=options.listener)
    ForkServer(listener, _admit, lifeline, run_child(imported), imported).serve()
    # Here and not by the owner, who may have been killed.
    shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
    return 0


def _admit(listener: socket.socket) -> socket.socket:
    return accept(listener, timeout_s=_PATIENCE_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
