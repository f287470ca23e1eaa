"""The part of a pipeline on a node that is not its head."""

import logging
import os
import socket
from dataclasses import replace

from vllm import AsyncEngineArgs
from vllm.config import VllmConfig
from vllm.usage.usage_lib import UsageContext

from workers.engine.config import EngineConfig, engine_arguments
from workers.pipeline.checks import PipelineRefused
from workers.pipeline.executor import PipelineExecutor
from workers.pipeline.janitor import place_sockets
from workers.pipeline.launch import part_config
from workers.pipeline.link import join_head, refuse_head
from workers.pipeline.memory import check_fit
from workers.pipeline.network import network_environment
from workers.pipeline.stage_map import StageMap

log = logging.getLogger(__name__)


def follow(
    config: EngineConfig, stages: StageMap, *, node: int, device: str, deadline_s: float
) -> None:
    """Run this node's stages for one launch of the head, and end this process with it.

    Call it from the main thread of a process of its own. The exit code is 0 where the head stopped
    its engine, 1 where something was lost; then start another process for the next launch.
    Raises `PipelineRefused` when no head is there within `deadline_s`, and, having told the head,
    when this node's devices cannot hold their stages.
    """
    os.environ.update(network_environment(stages.addresses[node]))
    address = (stages.addresses[0], stages.link_port)
    try:
        check_fit(config, replace(stages, node=node), device=device)
    except PipelineRefused as error:
        refuse_head(address, node, str(error), deadline_s=deadline_s)
        raise
    link, hello = join_head(address, node, deadline_s=deadline_s)
    log.info("pipeline joined node=%d head=%s:%d", node, *address)
    launch = replace(stages, node=node, token=hello.token, rendezvous_port=hello.rendezvous_port)
    arguments = engine_arguments(part_config(config, launch, device=device))
    arguments.setdefault("worker_extension_cls", "workers.engine.resume_worker.ResumeWorker")
    vllm_config = AsyncEngineArgs(**arguments).create_engine_config(
        UsageContext.ENGINE_CONTEXT, headless=True
    )
    executor = FollowerExecutor(vllm_config, link)
    executor.start_worker_monitor(inline=True)
    executor.leave()


class FollowerExecutor(PipelineExecutor):
    """The executor of a node that joined: its link is watched before its ranks start."""

    def __init__(self, vllm_config: VllmConfig, link: socket.socket) -> None:
        self._link_to_head = link
        place_sockets()
        super().__init__(vllm_config, monitor_workers=False)

    def _before_ranks(self) -> None:
        self.watch_link(self._link_to_head)
