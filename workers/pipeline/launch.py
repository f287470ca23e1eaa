"""From a pipeline of the plan to the engine configuration that runs it."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shunt.plan.plan import Pipeline
from workers.engine.config import EngineConfig
from workers.pipeline.checks import ModelSizes, PipelineRefused, check_gpus, check_stages
from workers.pipeline.memory import check_fit, visible_gpus
from workers.pipeline.network import PORTS, free_rendezvous_port, interface_of
from workers.pipeline.stage_map import LOOPBACK, StageMap

_TOKEN_DIGITS = 5


def stage_map(
    pipeline: Pipeline, addresses: Mapping[str, str], *, model_path: str, number: int = 0
) -> StageMap:
    """The checked stages of `pipeline`. `number` counts the pipelines that one node may head.

    Raises `PipelineRefused`, naming the stage, for what cannot run.
    """
    stages = _side_by_side(StageMap.of_pipeline(pipeline, addresses))
    check_stages(stages, ModelSizes.of_model(model_path))
    if not 0 <= number < len(PORTS) // 2:
        raise PipelineRefused(f"pipeline number {number}: a node heads at most {len(PORTS) // 2}")
    return replace(stages, link_port=PORTS[number])


def _side_by_side(stages: StageMap) -> StageMap:
    """Slots of one machine take its GPUs one after another: in the plan each counts from 0."""
    if stages.num_nodes == 1 or set(stages.addresses) != {LOOPBACK}:
        return stages
    ends = [first + tp for first, tp in zip(stages.first_gpus, stages.tp, strict=True)]
    sizes = [
        max(end for end, on in zip(ends, stages.nodes, strict=True) if on == node)
        for node in range(stages.num_nodes)
    ]
    shifted = (
        first + sum(sizes[:node])
        for first, node in zip(stages.first_gpus, stages.nodes, strict=True)
    )
    return replace(stages, first_gpus=tuple(shifted))


def head_config(config: EngineConfig, stages: StageMap, *, device: str) -> EngineConfig:
    """`config` for one launch of the head: call it again for the next. `device`: cpu or cuda.

    Raises `PipelineRefused`, naming the stage, where a device of this node cannot hold its part.
    """
    check_fit(config, stages, device=device)
    if stages.num_nodes == 1 and stages.uniform_tp:
        return _stock(config, stages, device=device)
    launch = replace(stages, node=0, token=secrets.token_hex(_TOKEN_DIGITS)[:_TOKEN_DIGITS])
    if stages.num_nodes > 1:
        interface_of(stages.addresses[0])
        number = stages.link_port - PORTS.start
        port = free_rendezvous_port(stages.addresses[0], number)
        launch = replace(launch, rendezvous_port=port)
    return part_config(config, launch, device=device)


def part_config(config: EngineConfig, stages: StageMap, *, device: str) -> EngineConfig:
    """`config` of this node's part of a launch whose token is known."""
    # Imports vllm; without it the checks above run where no vllm is.
    from workers.engine.engine_start import load_private

    private, reason = load_private()
    if private is None:
        raise PipelineRefused(f"a pipeline over unequal stages or several nodes: {reason}")
    from workers.pipeline.executor import PipelineExecutor

    if device == "cuda":
        check_gpus(stages, num_gpus=visible_gpus())
    worker = {
        "cpu": "workers.pipeline.cpu_worker.CPUStageWorker",
        "cuda": "workers.pipeline.gpu_worker.GPUStageWorker",
    }[device]
    return _with(
        replace(config, tensor_parallel_size=1, pipeline_parallel_size=stages.num_stages),
        {
            "distributed_executor_backend": PipelineExecutor,
            "worker_cls": worker,
            "additional_config": stages.as_additional_config(),
        },
    )


def layer_environment(stages: StageMap) -> dict[str, str]:
    """What stock vLLM needs in the environment to split the layers as planned."""
    return {"VLLM_PP_LAYER_PARTITION": stages.layer_partition} if stages.num_stages > 1 else {}


def _stock(config: EngineConfig, stages: StageMap, *, device: str) -> EngineConfig:
    os.environ.update(layer_environment(stages))
    stock = replace(
        config, tensor_parallel_size=stages.tp[0], pipeline_parallel_size=stages.num_stages
    )
    options: dict[str, Any] = {}
    if stages.world_size > 1:
        options["distributed_executor_backend"] = "mp"
    if device == "cuda" and stages.first_gpus:
        check_gpus(stages, num_gpus=visible_gpus())
        options["device_ids"] = stages.local_gpus()
    if device == "cpu" and config.enforce_eager and stages.num_stages > 1:
        options["worker_cls"] = "workers.pipeline.cpu_worker.CPUBufferWorker"
    return _with(stock, options)


def _with(config: EngineConfig, options: dict[str, Any]) -> EngineConfig:
    return replace(config, extra=options | dict(config.extra))
