"""The engine of a pipeline: started from a plan, with the followers that are on this machine."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from vllm.platforms import current_platform

from shunt.plan import Pipeline
from workers.engine.config import EngineConfig
from workers.engine.engine_start import StartedEngine, start_engine
from workers.engine.vllm_engine import VllmEngine
from workers.pipeline.checks import kv_mismatch
from workers.pipeline.launch import head_config, stage_map
from workers.pipeline.local_followers import LocalFollowers
from workers.pipeline.network import claim_number
from workers.pipeline.stage_map import LOOPBACK

log = logging.getLogger(__name__)


class PipelineEngine(VllmEngine):
    """A `VllmEngine` that ends its followers and gives its number back, too."""

    def __init__(
        self,
        started: StartedEngine,
        config: EngineConfig,
        followers: LocalFollowers,
        claim: socket.socket,
    ) -> None:
        super().__init__(started, config)
        self._followers = followers
        self._claim = claim

    async def stop(self) -> None:
        await super().stop()
        await asyncio.to_thread(self._followers.close)
        self._claim.close()


@dataclass(frozen=True, slots=True)
class PipelineStarter:
    """Starts the engine of `pipeline` with all its node slots on this machine."""

    config: EngineConfig
    pipeline: Pipeline
    tell: Callable[[str], None]
    """Told of what is not as the plan said."""

    async def start(self) -> PipelineEngine:
        """One launch. Raises `PipelineRefused` before, `EngineDied` where it does not come up."""
        number, claim = claim_number()
        try:
            return await self._launch(number, claim)
        except BaseException:
            claim.close()
            raise

    async def _launch(self, number: int, claim: socket.socket) -> PipelineEngine:
        device = current_platform.device_type
        stages = stage_map(
            self.pipeline,
            dict.fromkeys((stage.slot for stage in self.pipeline.stages), LOOPBACK),
            model_path=self.config.model_path,
            number=number,
        )
        config = head_config(self.config, stages, device=device)
        followers = LocalFollowers(self.config, stages, device)
        followers.start()
        try:
            started = await start_engine(config)
        except BaseException:
            await asyncio.to_thread(followers.close)
            raise
        if (report := kv_mismatch(stages.predicted_kv_tokens, started.kv_tokens)) is not None:
            log.warning("pipeline %s: %s", self.pipeline.name, report)
            await asyncio.to_thread(self.tell, f"pipeline {self.pipeline.name}: {report}")
        return PipelineEngine(started, config, followers, claim)
