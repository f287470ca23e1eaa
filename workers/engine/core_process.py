"""The entry of the engine core's process: its own session, and no life without its parent.

A signal to the worker's process group (Ctrl-C, a fleet that ends a node) must reach the worker
only: it drains, reading tokens that the engine core is still making. A worker that is killed
outright must leave nothing behind.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from workers.engine import vllm_private


def run_engine_core(*args: Any, **kwargs: Any) -> None:
    """Stands in for vLLM's function of the same name as the target of the spawned process."""
    os.setsid()
    end_with_parent()
    vllm_private.run_engine_core(*args, **kwargs)


def end_sessions(processes: Sequence[BaseProcess]) -> None:
    """Leave nothing of the engine cores and the worker processes they started."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


def end_with_parent() -> None:
    """Kill this process's whole session as soon as the process that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child that multiprocessing started has a parent to watch"

    def watch() -> None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
