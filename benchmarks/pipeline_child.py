"""One measurement of `benchmarks.pipeline`, in the worker environment: prints JSON lines."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shunt.plan.plan import Pipeline, Stage
from workers.engine.config import EngineConfig, engine_arguments, engine_environment

MODEL = Path(__file__).resolve().parent.parent / ".cache/models/SmolLM2-135M-Instruct"
LAYERS = (15, 15)
NUM_REQUESTS = 32
MAX_NUM_SEQS = 16
OUTPUT_TOKENS = 24
PROMPT_TOKENS = 48
ROUNDS = 5


def main(argv: Sequence[str]) -> None:
    """`compare`, or one end of a link: `head` or `follow` with the addresses of both."""
    os.environ.update(engine_environment(threads=1, kv_cache_gib=1))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
    kind, *addresses = argv
    if kind == "follow":
        _follow(addresses)
    else:
        asyncio.run({"compare": _compare, "head": _head}[kind](addresses))


def _config() -> EngineConfig:
    return EngineConfig(
        model_path=str(MODEL),
        dtype="bfloat16",
        max_model_len=512,
        max_num_seqs=MAX_NUM_SEQS,
        enforce_eager=True,
        enable_prefix_caching=False,
    )


def _pipeline(num_slots: int) -> Pipeline:
    split = LAYERS[0]
    return Pipeline(
        name="benchmark",
        stages=(
            Stage(slot="n-0", tp=1, first_layer=0, end_layer=split),
            Stage(slot=f"n-{num_slots - 1}", tp=1, first_layer=split, end_layer=sum(LAYERS)),
        ),
        max_num_seqs=MAX_NUM_SEQS,
        predicted_requests_per_s=1.0,
    )


async def _compare(_: Sequence[str]) -> None:
    """Plain vLLM and ours, both up, in turn; then where the time of our start went."""
    # Reads the environment that was set above.
    from workers.engine.vllm_engine import VllmEngine
    from workers.pipeline.executor import OBSERVED
    from workers.pipeline.launch import part_config, stage_map

    plain = _plain_engine()
    await _generate(plain)
    begin_s = time.monotonic()
    stages = stage_map(_pipeline(1), {}, model_path=str(MODEL))
    # One host and one TP degree: a launch would take vLLM's own executor.
    launch = part_config(_config(), replace(stages, token="bbbbb"), device="cpu")
    ours = await VllmEngine.start(launch)
    ready_s = time.monotonic()
    await _generate(ours._llm, count=1, output_tokens=1)
    first_s = time.monotonic()
    observed = await ours._llm.collective_rpc(OBSERVED)
    instants = observed["instants_s"]
    _tell(
        core=instants["core"] - begin_s,
        ranks=instants["ranks"] - instants["core"],
        cache=ready_s - instants["ranks"],
        first_token=first_s - ready_s,
    )
    await _generate(ours._llm)
    for _round in range(ROUNDS):
        for name, llm in (("plain", plain), ("ours", ours._llm)):
            _tell(kind=name, tokens_per_s=await _generate(llm))
    await ours.stop()
    plain.shutdown()


def _plain_engine() -> Any:
    from vllm import AsyncEngineArgs, AsyncLLMEngine

    own = {
        "distributed_executor_backend": "mp",
        # vLLM's worker with the buffer that it forgets to allocate on CPU.
        "worker_cls": "workers.pipeline.cpu_worker.CPUBufferWorker",
    }
    config = replace(_config(), pipeline_parallel_size=len(LAYERS), extra=own)
    return AsyncLLMEngine.from_engine_args(AsyncEngineArgs(**engine_arguments(config)))


async def _generate(
    llm: Any, *, count: int = NUM_REQUESTS, output_tokens: int = OUTPUT_TOKENS
) -> float:
    """Output tokens per second of `count` requests that are there at once."""
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input

    params = SamplingParams(max_tokens=output_tokens, temperature=0.0, ignore_eos=True)

    async def one(number: int) -> None:
        prompt = [(7 * number + 3 * at) % 40_000 + 100 for at in range(PROMPT_TOKENS)]
        async for _ in llm.generate(tokens_input(prompt), params, f"{time.monotonic_ns()}"):
            pass

    begin_s = time.monotonic()
    await asyncio.gather(*(one(number) for number in range(count)))
    return count * output_tokens / (time.monotonic() - begin_s)


async def _head(addresses: Sequence[str]) -> None:
    """Generate when told to; says how many tokens have crossed the link by then."""
    from workers.engine.vllm_engine import VllmEngine
    from workers.pipeline.launch import head_config, stage_map

    by_slot = {f"n-{node}": address for node, address in enumerate(addresses)}
    stages = stage_map(_pipeline(2), by_slot, model_path=str(MODEL))
    engine = await VllmEngine.start(head_config(_config(), stages, device="cpu"))
    await _generate(engine._llm)
    for _line in sys.stdin:
        await _generate(engine._llm)
        # The last token of a request is sampled, and never computed.
        _tell(tokens=NUM_REQUESTS * (PROMPT_TOKENS + OUTPUT_TOKENS - 1))
    await engine.stop()


def _follow(addresses: Sequence[str]) -> None:
    from workers.pipeline.follower import follow
    from workers.pipeline.launch import stage_map

    by_slot = {f"n-{node}": address for node, address in enumerate(addresses)}
    stages = stage_map(_pipeline(2), by_slot, model_path=str(MODEL))
    follow(_config(), stages, node=1, device="cpu", deadline_s=300)


def _tell(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
