"""vLLM's multiprocess executor for a pipeline with a TP degree per stage, on one node or several.

It runs in the engine core on the head, and in `follow` on the other nodes. Whatever is lost, a rank
or a node or a link, the whole part of the pipeline on this node ends at once: the engine cannot be
repaired, and survivors sit in collectives that nobody will complete.
"""

import logging
import multiprocessing
import multiprocessing.shared_memory
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any
from unittest.mock import patch

from vllm.platforms import current_platform

from workers.engine.private.core import MultiprocExecutor, WorkerProc
from workers.pipeline.batches import BatchesInFlight
from workers.pipeline.janitor import (
    remove_sockets,
    rendezvous_name,
    semaphore_prefix,
    shared_memory_prefix,
    start_janitor,
    sweep,
    watch_janitor,
)
from workers.pipeline.link import (
    FINISHED,
    JOIN_DEADLINE_S,
    Hello,
    accept_followers,
    keep_alive,
    say_goodbye,
)
from workers.pipeline.network import network_environment
from workers.pipeline.stage_map import StageMap

EXIT_LOST = 1
OBSERVED = "shunt_pipeline_observed"
"""A collective RPC of this name is answered by the executor: by its `observed`."""

log = logging.getLogger(__name__)


class PipelineExecutor(MultiprocExecutor):
    """`distributed_executor_backend` of a pipeline. Leaves nothing behind, however it ends."""

    supports_pp = True
    _janitor: "subprocess.Popen[bytes] | None" = None
    _leaving = False
    _exiting = False
    """A thread ends the process: the others must not do so before it is done."""

    def __init__(self, vllm_config: Any, monitor_workers: bool = True) -> None:
        self._links: list[socket.socket] = []
        self._batches = BatchesInFlight()
        self._instants_s: dict[str, float] = {}
        super().__init__(vllm_config, monitor_workers)

    def _init_executor(self) -> None:
        stages = self._stages = StageMap.of_vllm(self.vllm_config)
        self._instants_s["core"] = time.monotonic()
        mark_shared_memory(stages.token)
        self._janitor = start_janitor(stages.token)
        threading.Thread(target=self._watch_janitor, name="janitor-watch", daemon=True).start()
        if current_platform.is_cuda_alike():
            os.environ.update(device_environment(stages))
        if stages.num_nodes > 1:
            os.environ.update(network_environment(stages.addresses[stages.node]))
            self._before_ranks()
            self._instants_s["linked"] = time.monotonic()
        apply_to(self.parallel_config, stages)
        make = self._planned(WorkerProc.make_worker_process)
        # Stock numbers ranks as if all nodes were equal; the planned ones are put in instead.
        with patch.object(WorkerProc, "make_worker_process", make):
            super()._init_executor()
        self._instants_s["ranks"] = time.monotonic()
        log.info("pipeline part ready node=%d ranks=%s", stages.node, stages.local_ranks())

    def leave(self) -> None:
        """End a follower's process when its ranks are gone; never returns."""
        self._let_exit()
        os._exit(EXIT_LOST)

    def _let_exit(self) -> None:
        if self._exiting:
            threading.Event().wait()

    def _before_ranks(self) -> None:
        """Every other node is linked before a rank of this one starts."""
        self._open_links(self._stages)

    def watch_link(self, link: socket.socket) -> None:
        """End this node's part with `link`."""
        self._links.append(link)
        keep_alive(link, self._on_link_lost)

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        if scheduler_output.total_num_scheduled_tokens:
            self._batches.begin()
        return super().execute_model(scheduler_output, non_block)

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        reply = super().sample_tokens(grammar_output, non_block)
        if isinstance(reply, Future):  # always: the engine core queues a pipeline's batches
            self._batches.end_with(reply)
        return reply

    def collective_rpc(self, method: Any, *args: Any, **options: Any) -> Any:
        if method == OBSERVED:
            return self.observed
        return super().collective_rpc(method, *args, **options)

    @property
    def observed(self) -> dict[str, Any]:
        """`batch_starts`: see `BatchesInFlight.starts`. `instants_s`: of the launch, monotonic."""
        return {"batch_starts": self._batches.starts, "instants_s": self._instants_s}

    def shutdown(self) -> None:
        self._let_exit()
        if getattr(self, "is_failed", False) and not self._leaving:
            self.fail("a rank died")
        self._leaving = True
        while self._links:
            say_goodbye(self._links.pop())
        super().shutdown()
        # What vLLM's CPU ranks never remove. The rest has owners: their destructors in this
        # process, and the janitor where the process is killed.
        sweep(self._stages.token, message_queues=False)

    @staticmethod
    def _ensure_worker_termination(worker_procs: Sequence[BaseProcess]) -> None:
        """They hold nothing that is still wanted; told to leave, they would take ten seconds."""
        for rank in worker_procs:
            rank.kill()
        for rank in worker_procs:
            rank.join()

    def fail(self, reason: str) -> None:
        """Kill every rank of this node and leave the process; never returns."""
        self._leaving = self._exiting = True
        log.error("pipeline part ends node=%d: %s", self._stages.node, reason)
        self._ensure_worker_termination(multiprocessing.active_children())
        sweep(self._stages.token)
        remove_sockets()
        if self._janitor is not None:
            self._janitor.kill()  # its work is done, and a stopped one would stay
        # The engine loop may sit in a read of a remote rank's queue, which nothing interrupts;
        # whoever started this process notices its end at once.
        os._exit(EXIT_LOST)

    def _planned(self, make: Callable[..., Any]) -> Callable[..., Any]:
        stages = self._stages
        local = stages.local_ranks()
        place = os.path.join(tempfile.gettempdir(), rendezvous_name(stages.token, stages.node))

        def make_worker_process(**arguments: Any) -> Any:
            arguments["rank"] = local[arguments["local_rank"]]
            arguments["is_driver_worker"] = self._is_driver_worker(arguments["rank"])
            arguments["distributed_init_method"] = f"file://{place}"
            handle = make(**arguments)
            assert self._janitor is not None
            assert self._janitor.stdin is not None
            self._janitor.stdin.write(b"%d\n" % handle.proc.pid)
            self._janitor.stdin.flush()
            return handle

        return make_worker_process

    def _open_links(self, stages: StageMap) -> None:
        links = accept_followers(
            (stages.addresses[0], stages.link_port),
            Hello(stages.token, stages.rendezvous_port),
            nodes=set(range(1, stages.num_nodes)),
            deadline_s=JOIN_DEADLINE_S,
        )
        for link in links:
            self.watch_link(link)

    def _on_link_lost(self, reason: str) -> None:
        if self._leaving:
            return
        if reason == FINISHED and self._stages.node != 0:
            self._leaving = self._exiting = True
            self._end_in_order()
        self.fail(reason)

    def _end_in_order(self) -> None:
        """A follower's end when the head stopped its engine: nothing is being generated."""
        self.shutting_down = True  # the watch over the ranks does not call it a death
        self._ensure_worker_termination(multiprocessing.active_children())
        sweep(self._stages.token)
        os._exit(0)

    def _watch_janitor(self) -> None:
        assert self._janitor is not None
        watch_janitor(self._janitor)
        if not self._leaving:
            self.fail("the janitor was killed or stopped")

    def _get_parallel_sizes(self) -> tuple[int, int, int]:
        self.world_size = self._stages.world_size
        self.local_world_size = len(self._stages.local_ranks())
        return self.world_size, 1, 1  # stock asserts the product

    def _is_driver_worker(self, rank: int) -> bool:
        # Stock asks about ranks, too, that it computed for equal nodes.
        return rank in self._stages.leaders

    def _get_output_rank(self) -> int:
        return self._stages.leaders[-1]


def apply_to(parallel_config: Any, stages: StageMap) -> None:
    """What is the same for every rank. `ParallelConfig` refuses it while it is constructed."""
    parallel_config.pipeline_parallel_size = stages.num_stages
    parallel_config.world_size = stages.world_size
    parallel_config.nnodes = stages.num_nodes
    parallel_config.node_rank = stages.node
    parallel_config.master_addr = stages.addresses[0]
    parallel_config.master_port = stages.rendezvous_port


def device_environment(stages: StageMap) -> dict[str, str]:
    """The planned GPUs of this node's ranks, out of those that this process may see.

    In the process that starts the ranks, which serves one launch: vLLM's `device_ids` would be
    checked against a number of ranks that holds for equal nodes only.
    """
    name = current_platform.device_control_env_var
    visible = [each for each in os.environ.get(name, "").split(",") if each]
    chosen = [visible[gpu] if visible else str(gpu) for gpu in stages.local_gpus()]
    return {name: ",".join(chosen)}


def mark_shared_memory(token: str) -> None:
    """What this process makes in /dev/shm from now on carries the token, and is left to `sweep`.

    Python's tracker would complain of every segment of a killed rank, and may be killed itself.
    """
    multiprocessing.shared_memory._SHM_NAME_PREFIX = (  # type: ignore[attr-defined]
        f"/{shared_memory_prefix(token)}"
    )
    multiprocessing.current_process()._config["semprefix"] = (  # type: ignore[attr-defined]
        f"/{semaphore_prefix(token)}"
    )
    for name in ("register", "unregister"):
        tracked = getattr(resource_tracker, name)
        setattr(resource_tracker, name, _but_ours(tracked))


def _but_ours(tracked: Callable[[str, str], None]) -> Callable[[str, str], None]:
    def track(name: str, kind: str) -> None:
        if kind not in ("shared_memory", "semaphore"):
            tracked(name, kind)

    return track
