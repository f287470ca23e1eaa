"""What a process does that was just forked from a warm one."""

import logging
import os
from typing import Any

from workers.warm.fitness import ImportedWith
from workers.warm.fork_server import Run
from workers.warm.nursery import open_nursery
from workers.warm.popen import run_process


def run_child(imported: ImportedWith) -> Run:
    """Of the warm process with these imports: its children may have nurseries of their own, whose
    children stay in the session of the process that the nursery belongs to."""

    def run(request: dict[str, Any], descriptors: list[int]) -> int:
        _forget_logging()
        # Each leads a session, as an engine core does that was spawned: who ends it ends its
        # children with it.
        os.setsid()
        if request["forks"]:
            open_nursery(imported, _run)
        return _run(request, descriptors)

    return run


def _run(_request: dict[str, Any], descriptors: list[int]) -> int:
    """What is asked for is always a process of multiprocessing."""
    return run_process(descriptors)


def _forget_logging() -> None:
    """The warm process's own: a child that logs says how itself."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
