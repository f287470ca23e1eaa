"""`python running.py ROLE SPEC`: one node of a pipeline as a process, told what to do in JSON.

ROLE `head` starts the engine, prints `started PID_OF_CORE`, generates, prints generations and batch
counts as JSON, and stops; with `hold` it generates until it is killed or the engine dies (`died`).
ROLE `follow` runs another node's part.
"""

# ruff: noqa: T201  (it speaks to the test through its output)

import asyncio
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from shunt.errors import EngineDied
from shunt.generation import Generation
from shunt.plan import Pipeline, Stage
from shunt.request import Request
from shunt.sampling import Sampling
from workers.engine.config import EngineConfig, engine_environment


def pipeline_of(tp: list[int], layers: list[int], nodes: list[int]) -> Pipeline:
    """Stages on slots `n-0`, `n-1`..., layers one after another."""
    stages = []
    for index, count in enumerate(layers):
        first = sum(layers[:index])
        slot = f"n-{nodes[index]}"
        stages.append(Stage(slot=slot, tp=tp[index], first_layer=first, end_layer=first + count))
    return Pipeline(name="p", stages=tuple(stages), max_num_seqs=8, predicted_requests_per_s=1.0)


def config_of(spec: dict[str, Any]) -> EngineConfig:
    return EngineConfig(
        model_path=spec["model"],
        dtype="float32",
        max_model_len=256,
        max_num_seqs=8,
        max_num_batched_tokens=spec.get("budget", 32),
        enforce_eager=True,
    )


def requests(*, max_tokens: int, count: int = 12) -> list[Request]:
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True, logprobs=5)
    return [Request(f"r{i}", tuple(range(50 + 7 * i, 70 + 11 * i)), sampling) for i in range(count)]


async def head(spec: dict[str, Any]) -> None:
    from workers.engine.vllm_engine import VllmEngine
    from workers.pipeline.launch import head_config, stage_map

    pipeline = pipeline_of(spec["tp"], spec["layers"], spec["nodes"])
    stages = stage_map(
        pipeline,
        spec.get("addresses", {}),
        model_path=spec["model"],
        number=spec.get("number", 0),
    )
    config = head_config(config_of(spec), stages, device="cpu")
    engine = await VllmEngine.start(config)
    private = engine._private
    assert private is not None
    print("started", private.core_processes(engine._llm)[0].pid, flush=True)
    hold = spec.get("hold", False)
    work = requests(max_tokens=200 if hold else 24)
    try:
        while True:
            done = await asyncio.gather(*(engine.generate(request) for request in work))
            if not hold:
                print(json.dumps(await _told(engine, config, done)), flush=True)
                break
    except EngineDied:
        print("died", flush=True)
    await engine.stop()


async def _told(engine: Any, config: EngineConfig, done: list[Generation]) -> dict[str, Any]:
    """Of a pipeline with our executor: how many batches started as the k-th in flight."""
    from workers.pipeline.executor import BATCH_STARTS

    ours = "additional_config" in config.extra
    starts = await engine._llm.collective_rpc(BATCH_STARTS) if ours else []
    return {"generations": [asdict(generation) for generation in done], "batch_starts": starts}


def follow_head(spec: dict[str, Any]) -> int:
    from workers.pipeline.follower import follow
    from workers.pipeline.launch import stage_map

    pipeline = pipeline_of(spec["tp"], spec["layers"], spec["nodes"])
    stages = stage_map(pipeline, spec["addresses"], model_path=spec["model"])
    return follow(config_of(spec), stages, node=spec["node"], device="cpu", deadline_s=120)


if __name__ == "__main__":
    os.environ.update(engine_environment(threads=1, kv_cache_gib=1))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
    role, told = sys.argv[1], json.loads(sys.argv[2])
    if role == "follow":
        sys.exit(follow_head(told))
    asyncio.run(head(told))
