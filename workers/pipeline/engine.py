"""The engine of a pipeline: started from a plan, its other nodes on this machine or elsewhere."""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Protocol

from vllm.platforms import current_platform

from shunt.plan.plan import Pipeline
from workers.engine.config import EngineConfig
from workers.engine.engine_start import StartedEngine, start_engine
from workers.engine.vllm_engine import VllmEngine
from workers.pipeline.checks import kv_mismatch
from workers.pipeline.launch import head_config, stage_map
from workers.pipeline.local_followers import LocalFollowers
from workers.pipeline.network import claim_number
from workers.pipeline.stage_map import LOOPBACK

log = logging.getLogger(__name__)


class OtherNodes(Protocol):
    """The pipeline's nodes on other machines, which join when they are told to."""

    async def gather(self) -> Mapping[str, str]:
        """Wait until all are there; the addresses by slot, our own too."""
        ...

    async def announce(self, link_number: int) -> None: ...


class PipelineEngine(VllmEngine):
    """A `VllmEngine` that ends the followers of this machine and gives its number back, too."""

    def __init__(
        self,
        started: StartedEngine,
        config: EngineConfig,
        followers: LocalFollowers | None,
        claim: socket.socket,
    ) -> None:
        super().__init__(started, config)
        self._followers = followers
        self._claim = claim

    async def stop(self) -> None:
        await super().stop()
        if self._followers is not None:
            await asyncio.to_thread(self._followers.close)
        self._claim.close()


@dataclass(frozen=True, slots=True)
class PipelineStarter:
    """Starts the engine of `pipeline`. Without `others`, all its slots are on this machine."""

    config: EngineConfig
    pipeline: Pipeline
    tell: Callable[[str], None]
    """Told of what is not as the plan said."""
    others: OtherNodes | None = None
    processes: Callable[[], BaseContext | None] = lambda: None
    """Of which context the next core is one, as that of a warm process; None: it is spawned."""

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
        addresses: Mapping[str, str] = dict.fromkeys(self.pipeline.slots, LOOPBACK)
        if self.others is not None:
            addresses = await self.others.gather()
        stages = stage_map(
            self.pipeline, addresses, model_path=self.config.model_path, number=number
        )
        config = head_config(self.config, stages, device=device)
        followers = None
        if self.others is not None:
            await self.others.announce(number)
        else:
            followers = LocalFollowers(self.config, stages, device)
            followers.start()
        try:
            started = await start_engine(config, self.processes())
        except BaseException:
            if followers is not None:
                await asyncio.to_thread(followers.close)
            raise
        if (report := kv_mismatch(stages.predicted_kv_tokens, started.kv_tokens)) is not None:
            log.warning("pipeline %s: %s", self.pipeline.name, report)
            await asyncio.to_thread(self.tell, f"pipeline {self.pipeline.name}: {report}")
        return PipelineEngine(started, config, followers, claim)
