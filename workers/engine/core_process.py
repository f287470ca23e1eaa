"""The entry of the engine core's process: its own session, and no life without its parent.

A signal to the worker's process group (Ctrl-C, a fleet that ends a node) must reach the worker
only: it drains, reading tokens that the engine core is still making. A worker that is killed
outright must leave nothing behind; what is in /dev/shm and /tmp is the janitor's.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any

from vllm.utils import network_utils

from workers.engine import vllm_private
from workers.pipeline.janitor import SOCKETS, start_janitor, watch_janitor
from workers.pipeline.stage_map import KEY

_DEATH_SEEN_S = 0.5
"""From the failure of a rank's neighbours to the end of its own connections."""


def run_engine_core(*args: Any, **kwargs: Any) -> None:
    """Stands in for vLLM's function of the same name as the target of the spawned process."""
    os.setsid()
    if KEY not in kwargs["vllm_config"].additional_config:  # else its executor has one
        threading.Thread(target=_keep_janitor, name="janitor-watch", daemon=True).start()
    end_with_parent()
    _place_rendezvous()
    _end_survivors_at_once()
    vllm_private.run_engine_core(*args, **kwargs)


def _keep_janitor() -> None:
    """Whoever kills or stops the janitor gets another: the engine does not need it to go on."""
    while True:
        janitor = start_janitor()
        watch_janitor(janitor)
        janitor.kill()
        janitor.wait()


def _place_rendezvous() -> None:
    """Put the file over which the ranks meet beside their sockets: killed ranks do not remove it.

    vLLM asks `tempfile` where it goes, in one function only.
    """
    directory = os.environ[SOCKETS]
    setattr(network_utils, "tempfile", SimpleNamespace(gettempdir=lambda: directory))  # noqa: B010


def _end_survivors_at_once() -> None:
    """Where a rank died, kill the others: they wait for it, and vLLM for them nine seconds."""
    executor = vllm_private.MultiprocExecutor
    patiently = executor._ensure_worker_termination

    def end(worker_procs: list[BaseProcess]) -> None:
        died = not all(process.is_alive() for process in worker_procs)
        # A killed rank's connections break, others fail of it, and its sentinel is ready, while
        # the kernel still frees its memory and calls it alive.
        ending = wait([process.sentinel for process in worker_procs], _DEATH_SEEN_S)
        for process in worker_procs:
            if process.sentinel in ending:
                process.join()
                died = died or (process.exitcode or 0) < 0
        if died:
            for process in worker_procs:
                process.kill()
        patiently(worker_procs)

    executor._ensure_worker_termination = staticmethod(end)


def end_sessions(processes: Sequence[BaseProcess]) -> None:
    """Leave nothing of the engine cores and the processes they started."""
    for process in processes:
        assert process.pid is not None, "a started process has a pid"
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
