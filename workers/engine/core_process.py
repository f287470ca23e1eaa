"""The entry of the engine core's process: its own session, and no life without its parent.

A signal to the worker's process group (Ctrl-C, a fleet that ends a node) must reach the worker
only: it drains, reading tokens that the engine core is still making. A worker that is killed
outright must leave nothing behind.
"""

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from workers.engine import vllm_private


def run_engine_core(*args: Any, **kwargs: Any) -> None:
    """Stands in for vLLM's function of the same name as the target of the spawned process."""
    os.setsid()
    end_with_parent()
    _end_survivors_at_once()
    vllm_private.run_engine_core(*args, **kwargs)


def _end_survivors_at_once() -> None:
    """Where a rank died, kill the others: they wait for it, and vLLM for them nine seconds."""
    executor = vllm_private.MultiprocExecutor
    patiently = executor._ensure_worker_termination

    def end(worker_procs: list[BaseProcess]) -> None:
        if not all(process.is_alive() for process in worker_procs):
            for process in worker_procs:
                process.kill()
        patiently(worker_procs)

    executor._ensure_worker_termination = staticmethod(end)


def shared_memory_of(processes: Sequence[BaseProcess]) -> frozenset[str]:
    """Names of the shared memory segments that engine cores and their ranks have mapped.

    Read while they live: one that is killed leaves its segments to whoever knows their names, and
    ranks on CPU never remove those of their collectives.
    """
    pids = {process.pid for process in processes}
    pids |= {int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if _of(path, pids)}
    names: set[str] = set()
    for pid in pids:
        with suppress(OSError):
            maps = Path(f"/proc/{pid}/maps").read_text()
            names.update(re.findall(r"/dev/shm/((?:psm_|vllm_dist_)\S+)", maps))
    return frozenset(names)


def _of(stat: Path, parents: Collection[int | None]) -> bool:
    with suppress(OSError):
        return int(stat.read_text().rsplit(")", 1)[1].split()[1]) in parents
    return False


def end_sessions(processes: Sequence[BaseProcess], shared_memory: Collection[str]) -> None:
    """Leave nothing of the engine cores, the processes they started and their shared memory."""
    for process in processes:
        assert process.pid is not None, "a started process has a pid"
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    for name in shared_memory:
        (Path("/dev/shm") / name).unlink(missing_ok=True)


def end_with_parent() -> None:
    """Kill this process's whole session as soon as the process that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child that multiprocessing started has a parent to watch"

    def watch() -> None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
