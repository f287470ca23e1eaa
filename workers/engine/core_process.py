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
from typing import Any

from workers.engine import held_tokens
from workers.engine.private import core
from workers.engine.private.processes import sleep_while_waiting
from workers.pipeline.janitor import SOCKETS, start_janitor, watch_janitor
from workers.pipeline.stage_map import KEY


def install() -> None:
    """Let the engine cores that this process starts enter by `run_engine_core`."""
    core.install_core_process(run_engine_core)


def run_engine_core(*args: Any, **kwargs: Any) -> None:
    """Stands in for vLLM's function of the same name as the target of the spawned process."""
    if os.getsid(0) != os.getpid():  # a core that the warm process forked leads one already
        os.setsid()
    if KEY not in kwargs["vllm_config"].additional_config:  # else its executor has one
        threading.Thread(target=_keep_janitor, name="janitor-watch", daemon=True).start()
    end_with_parent()
    core.place_rendezvous(os.environ[SOCKETS])
    core.end_survivors_at_once()
    sleep_while_waiting()
    held_tokens.install()
    core.run_engine_core(*args, **kwargs)


def _keep_janitor() -> None:
    """Whoever kills or stops the janitor gets another: the engine does not need it to go on."""
    while True:
        janitor = start_janitor()
        watch_janitor(janitor)
        janitor.kill()
        janitor.wait()


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
