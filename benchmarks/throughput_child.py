"""One measurement of `benchmarks.throughput`, in the worker environment."""

import asyncio
import json
import os
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.throughput import MAX_NUM_SEQS, MODEL, OUTPUT_TOKENS
from shunt.checkpoint.request import Request
from shunt.dataset.rendering import renderer_for
from shunt.job.job import EngineOptions, Input, Job, Model
from shunt.job.sampling import Sampling
from shunt.run.prepare import prepare
from shunt.store.config import StoreConfig
from shunt.store.opening import open_store
from workers.engine.config import engine_arguments, engine_environment
from workers.engine.protocol import Engine
from workers.setup import engine_config, worker_of

_CONTEXT_TOKENS = 1024


def main(kind: str, directory: Path) -> None:
    """Measure, and leave what was measured in `told.json`."""
    os.environ.update(engine_environment(threads=len(os.sched_getaffinity(0)), kv_cache_gib=1))
    prompts: list[str] = json.loads((directory / "prompts.json").read_text())
    job = _job(directory, prompts)
    told = _plain(job, prompts) if kind == "plain" else asyncio.run(_shunt(job))
    (directory / "told.json").write_text(json.dumps(told))


def _job(directory: Path, prompts: list[str]) -> Job:
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    (directory / "prompts.jsonl").write_text("\n".join(lines))
    return Job(
        name="throughput",
        model=Model(
            path=str(MODEL),
            dtype="bfloat16",
            max_model_len_tokens=_CONTEXT_TOKENS,
            engine=EngineOptions(
                enforce_eager=True, max_num_seqs=MAX_NUM_SEQS, gpu_memory_utilization=0.3
            ),
        ),
        input=Input(path=str(directory / "prompts.jsonl")),
        sampling=Sampling(max_tokens=OUTPUT_TOKENS, ignore_eos=True),
        store=StoreConfig(uri=str(directory / "store")),
        shard_prompts=48,
        checkpoint_interval_s=5,
    )


def _plain(job: Job, prompts: list[str]) -> dict[str, float]:
    # Heavy, and only for this kind.
    from vllm import LLM, SamplingParams

    arguments = engine_arguments(engine_config(job))
    arguments.pop("enable_log_requests")
    engine = LLM(**arguments)
    params = SamplingParams(max_tokens=OUTPUT_TOKENS, temperature=0, ignore_eos=True)
    engine.generate(["warm up"], params, use_tqdm=False)
    started_s = time.perf_counter()
    outputs = engine.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - started_s
    return {"tokens": sum(len(o.outputs[0].token_ids) for o in outputs), "seconds": seconds}


async def _shunt(job: Job) -> dict[str, float]:
    store = open_store(job.store.uri)
    renderer = renderer_for(
        job.model.path, revision=None, max_model_len=_CONTEXT_TOKENS, fake=False
    )
    manifest = prepare(job, store, renderer, now=datetime.now(UTC))
    worker = worker_of(
        store,
        manifest,
        node_id="benchmark",
        owner="benchmark",
        trust_done=True,
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        rng=random.Random(0),
        pid=os.getpid(),
    )
    started_s: list[float] = []
    start_engine = worker.room.start_engine

    async def timed_start() -> Engine:
        engine = await start_engine()
        await engine.generate(Request("warm-up", (1, 2, 3), job.sampling))  # as the plain one is
        started_s.append(time.monotonic())
        return engine

    worker.room.start_engine = timed_start
    code = await worker.run()
    assert code == 0
    return {
        "tokens": worker.tally.output_tokens,
        "seconds": worker.desk.stored_s - started_s[0],  # until the last row was durable
        "bytes": worker.tally.segment_bytes,
        "puts": worker.tally.segments,
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
