"""Starting vLLM: with the hooks for resuming where they fit, without them where they do not."""

import asyncio
import contextlib
import gc
import importlib
import logging
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any

import torch
import vllm
from vllm import AsyncEngineArgs, AsyncLLMEngine, envs
from vllm.config import VllmConfig
from vllm.exceptions import VLLMServerError
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext

from shunt.errors import EngineDied
from workers.engine.config import EngineConfig, engine_arguments
from workers.engine.fingerprint import NumericsFingerprint
from workers.engine.grammar_backend import problem_of
from workers.engine.resume_plan import EngineTraits
from workers.pipeline.janitor import place_sockets, remove_sockets
from workers.pipeline.stage_map import KEY, StageMap

log = logging.getLogger(__name__)

_PREPARE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class StartedEngine:
    """An engine that takes requests, and what was found out about it."""

    llm: AsyncLLMEngine
    private: ModuleType | None
    """`workers.engine.private.front_end`, or None where it must not be used."""
    traits: EngineTraits
    fingerprint: NumericsFingerprint
    kv_tokens: int
    """Tokens that the KV cache holds."""
    sockets: str
    """Directory of its Unix sockets."""


async def start_engine(config: EngineConfig, processes: BaseContext | None = None) -> StartedEngine:
    """Build the engine beside the event loop. Raises `EngineDied` when it does not come up.

    Its core is a process of the multiprocessing context `processes`, or spawned.
    """
    private, reason = load_private()
    if private is None:
        log.warning("moved rows will be restarted: %s", reason)
    sockets = place_sockets()
    try:
        llm = await asyncio.to_thread(_build, config, private, processes)
    except (RuntimeError, OSError, ValueError) as error:
        remove_sockets(sockets)
        raise EngineDied(f"the engine did not start: {error}") from error
    description = {"runner": "unknown", "device": current_platform.device_type}
    if private is not None:
        private.fail_calls_at_death(llm)
        try:
            # The same answer from every rank; each has installed what its model runner needs.
            answers = await llm.collective_rpc("shunt_prepare", timeout=_PREPARE_TIMEOUT_S)
        except VLLMServerError as error:
            await asyncio.to_thread(llm.shutdown, timeout=0.0)
            raise EngineDied("the engine died before it took requests") from error
        description = answers[0]
    gc.freeze()  # what the start left behind lives on: no collection need look at it again
    traits = _traits(llm, description, private, reason)
    fingerprint = _fingerprint(llm, description)
    log.info("engine started fingerprint=%s resumes=%s", fingerprint, private is not None)
    cache = llm.vllm_config.cache_config
    kv_tokens = (cache.num_gpu_blocks or 0) * cache.block_size
    return StartedEngine(llm, private, traits, fingerprint, kv_tokens, sockets)


def stop_engine(started: StartedEngine, grace_s: float) -> None:
    """End the engine core and everything it started; blocks until they are gone."""
    private, llm = started.private, started.llm
    processes = private.core_processes(llm) if private is not None else []
    if private is not None:
        private.stop_reading(llm)
    llm.shutdown(timeout=grace_s)
    if processes:
        _core_process().end_sessions(processes)
    remove_sockets(started.sockets)


def _core_process() -> ModuleType:
    # Its import needs the private names, so it is made only where they are there.
    return importlib.import_module("workers.engine.core_process")


def load_private() -> tuple[ModuleType | None, str]:
    """The hooks, or None and why they do not fit the vLLM that is installed."""
    try:
        # Imported here, by name: on another vLLM its own imports may fail, and that is an answer.
        names = importlib.import_module("workers.engine.private.names")
        front_end = importlib.import_module("workers.engine.private.front_end")
    except (ImportError, AttributeError) as error:
        return None, f"vLLM {vllm.__version__} lacks a private name: {error}"
    if found := names.problems():
        return None, "; ".join(found)
    return front_end, ""


def _build(
    config: EngineConfig, private: ModuleType | None, processes: BaseContext | None
) -> AsyncLLMEngine:
    arguments = engine_arguments(config)
    if private is None and current_platform.is_cpu():
        # Runner V1 on CPU fails over a prefill chunk of a seeded request; only a hook mends that.
        arguments["enable_chunked_prefill"] = False
    if private is not None:
        arguments.setdefault("worker_extension_cls", "workers.engine.resume_worker.ResumeWorker")
    # The sizes that nobody gave are those of an offline engine: nobody waits for a first token.
    vllm_config = AsyncEngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
    if private is not None:
        scheduler = vllm_config.scheduler_config
        scheduler.scheduler_cls = _scheduler_class(vllm_config)
        _core_process().install()
    with contextlib.ExitStack() as stack:
        if private is not None and processes is not None:
            starting = importlib.import_module("workers.engine.private.processes")
            stack.enter_context(starting.cores_started_by(processes))
        return AsyncLLMEngine.from_vllm_config(
            vllm_config,
            disable_log_stats=arguments["disable_log_stats"],
            enable_log_requests=False,
        )


def _scheduler_class(vllm_config: VllmConfig) -> str:
    order = "Async" if vllm_config.scheduler_config.async_scheduling else ""
    if vllm_config.parallel_config.pipeline_parallel_size > 1:
        return f"workers.pipeline.scheduler.Pipeline{order}Scheduler"
    return f"workers.engine.resume_scheduler.Resume{order}Scheduler"


def _traits(
    llm: AsyncLLMEngine, description: dict[str, str], private: Any, reason: str
) -> EngineTraits:
    runner = description["runner"]
    limits = {}
    if private is not None and runner == "v2":
        limits = {
            "max_allowed_token_ids": private.MAX_ALLOWED_TOKEN_IDS_V2,
            "max_logit_bias": private.MAX_LOGIT_BIAS_V2,
            "max_stop_token_ids": private.MAX_STOP_TOKEN_IDS_V2,
        }
    return EngineTraits(
        runner=runner,
        device=description["device"],
        max_model_len=llm.model_config.max_model_len,
        cannot_resume=reason,
        no_grammars=problem_of(llm.vllm_config.structured_outputs_config.backend),
        **limits,
    )


def _fingerprint(llm: AsyncLLMEngine, description: dict[str, str]) -> NumericsFingerprint:
    model, parallel = llm.model_config, llm.vllm_config.parallel_config
    return NumericsFingerprint(
        engine=f"vllm-{vllm.__version__}+torch-{torch.__version__}",
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=str(model.quantization or "none"),
        device=description.get("device_name", description["device"]),
        tensor_parallel=_tensor_parallel(llm),
        pipeline_parallel=parallel.pipeline_parallel_size,
        runner=description["runner"],
        batch_invariant=bool(envs.VLLM_BATCH_INVARIANT),
    )


def _tensor_parallel(llm: AsyncLLMEngine) -> str:
    """The degree; of each stage, as `2-1`, where they differ: sums round as their splits do."""
    additional = llm.vllm_config.additional_config
    if not isinstance(additional, dict) or KEY not in additional:
        return str(llm.vllm_config.parallel_config.tensor_parallel_size)
    degrees = StageMap.of_config(additional).tp
    return "-".join(str(tp) for tp in (degrees if len(set(degrees)) > 1 else degrees[:1]))
