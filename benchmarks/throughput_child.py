"""One engine, all workloads, one after the other; in the worker environment.

Plain vLLM generates each workload by `LLM.generate`; shunt serves each by a worker of its own over
a run of its own, on the engine that is up. A worker's engine "starts" for `START_S`, which is less
than any real start: what a worker does while its engine starts is done then, in both worlds.
"""

import asyncio
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cpu_time import CpuTimes, cpu_times, spent
from benchmarks.step_log import LOG, count, read_steps
from benchmarks.workloads import Workload
from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.dataset.rendering import renderer_for
from shunt.job.job import EngineOptions, Input, Job, Model
from shunt.job.sampling import Sampling
from shunt.run.prepare import prepare
from shunt.store.config import StoreConfig, open_configured_store
from workers.engine.config import engine_arguments, engine_environment
from workers.engine.protocol import Engine
from workers.setup import engine_config, worker_of

START_S = 1.0
CONTEXT_TOKENS = 1024


@dataclass(slots=True)
class Told:
    """What one workload took. Instants are seconds after the engine was up."""

    tokens: int
    seconds: float
    """Until the last row was there: durable, for shunt."""
    first_admitted_s: float = 0.0
    last_ended_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict[str, float])
    """CPU seconds by process and thread."""
    steps: dict[str, int] = field(default_factory=dict[str, int])
    scheduled_tokens: int = 0
    first_step_s: float = 0.0
    last_step_s: float = 0.0
    segments: int = 0
    segment_bytes: int = 0


def main(kind: str, directory: Path) -> None:
    """Measure, and leave what was measured in `told.json`."""
    os.environ.update(engine_environment(threads=len(os.sched_getaffinity(0)), kv_cache_gib=1))
    os.environ[LOG] = str(directory)
    asked = json.loads((directory / "asked.json").read_text())
    workloads = [Workload(**workload) for workload in asked["workloads"]]
    measure = _plain if kind == "plain" else _shunt
    told = measure(directory, workloads, StoreConfig.model_validate(asked["store"]))
    (directory / "told.json").write_text(json.dumps([asdict(one) for one in told]))


def _job(directory: Path, workload: Workload, store: StoreConfig) -> Job:
    lines = [
        json.dumps({"prompt": prompt, "sampling": {"max_tokens": tokens}})
        for prompt, tokens in zip(workload.prompts, workload.output_tokens, strict=True)
    ]
    path = directory / f"{workload.name}.jsonl"
    path.write_text("\n".join(lines))
    extra = {} if workload.kv_blocks is None else {"num_gpu_blocks_override": workload.kv_blocks}
    return Job(
        name="throughput",
        reuse=False,
        model=Model(
            path=os.environ["SHUNT_BENCHMARK_MODEL"],
            dtype="bfloat16",
            max_model_len_tokens=CONTEXT_TOKENS,
            engine=EngineOptions(
                enforce_eager=True,
                max_num_seqs=workload.max_num_seqs,
                gpu_memory_utilization=0.3,
                extra=extra,
            ),
        ),
        input=Input(path=str(path)),
        sampling=Sampling(ignore_eos=True),
        store=store.model_copy(update={"uri": f"{store.uri}/{workload.name.replace(' ', '-')}"}),
        shard_prompts=workload.shard_prompts,
        checkpoint_interval_s=5,
    )


def _plain(directory: Path, workloads: list[Workload], store: StoreConfig) -> list[Told]:
    # Heavy, and only for this kind.
    from vllm import LLM, SamplingParams

    arguments = engine_arguments(engine_config(_job(directory, workloads[0], store)))
    arguments.pop("enable_log_requests")
    engine = LLM(**arguments, scheduler_cls=_scheduler_name("Counted"))
    budget = engine.llm_engine.vllm_config.scheduler_config.max_num_batched_tokens
    engine.generate(["warm up"], SamplingParams(max_tokens=8, temperature=0), use_tqdm=False)
    told: list[Told] = []
    for workload in workloads:
        params = [
            SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
            for tokens in workload.output_tokens
        ]
        before, started_s = cpu_times(), time.monotonic()
        outputs = engine.generate(workload.prompts, params, use_tqdm=False)
        ended_s = time.monotonic()
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        one = Told(tokens, ended_s - started_s, cpu_s=spent(before, cpu_times()))
        told.append(_with_steps(one, directory, workload, started_s, budget))
    return told


def _shunt(directory: Path, workloads: list[Workload], store: StoreConfig) -> list[Told]:
    return asyncio.run(_serve(directory, workloads, store))


async def _serve(directory: Path, workloads: list[Workload], store: StoreConfig) -> list[Told]:
    # Heavy, and not for plain vLLM.
    from workers.engine import engine_start
    from workers.engine.vllm_engine import VllmEngine

    name = _scheduler_name("CountedResume")
    setattr(engine_start, "_scheduler_class", lambda _config: name)  # noqa: B010
    engine = await VllmEngine.start(engine_config(_job(directory, workloads[0], store)))
    budget = engine._started.llm.vllm_config.scheduler_config.max_num_batched_tokens
    warm_up = Sampling(max_tokens=8, ignore_eos=True)
    await engine.generate(Request("warm-up", (1, 2, 3), warm_up))
    told: list[Told] = []
    for workload in workloads:
        one, started_s = await _one(_job(directory, workload, store), engine)
        told.append(_with_steps(one, directory, workload, started_s, budget))
    await engine.stop()
    return told


async def _one(job: Job, engine: Engine) -> tuple[Told, float]:
    store = open_configured_store(job.store, environment=os.environ)
    renderer = renderer_for(job.model.path, revision=None, max_model_len=CONTEXT_TOKENS, fake=False)
    manifest = prepare(job, store, renderer, now=datetime.now(UTC))
    kept = _KeptUp(engine)
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
    finished = worker.room.on_finished

    def on_finished(request_id: str, generation: Generation) -> None:
        kept.last_ended_s = time.monotonic()
        finished(request_id, generation)

    worker.room.start_engine = kept.start
    worker.room.on_finished = on_finished
    code = await worker.run()
    after = cpu_times()
    assert code == 0
    durable_s = worker.desk.stored_s
    told = Told(
        tokens=worker.tally.output_tokens,
        seconds=durable_s - kept.up_s,
        first_admitted_s=kept.first_admitted_s - kept.up_s,
        last_ended_s=kept.last_ended_s - kept.up_s,
        cpu_s=spent(kept.cpu, after),
        segments=worker.tally.segments,
        segment_bytes=worker.tally.segment_bytes,
    )
    return told, kept.up_s


class _KeptUp:
    """An engine that outlives its worker; notes when it was up and got its first request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.up_s = self.first_admitted_s = self.last_ended_s = 0.0
        self.cpu: CpuTimes = {}

    async def start(self) -> Engine:
        await asyncio.sleep(START_S)
        self.up_s, self.cpu = time.monotonic(), cpu_times()
        return self

    async def generate(self, request: Request) -> Generation:
        self.first_admitted_s = self.first_admitted_s or time.monotonic()
        return await self._engine.generate(request)

    async def stop(self) -> None:
        """Left up for the next workload."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _with_steps(
    told: Told, directory: Path, workload: Workload, started_s: float, budget: int
) -> Told:
    steps = read_steps(directory, started_s)
    counts = count(
        steps,
        requests=len(workload.prompts),
        max_num_seqs=workload.max_num_seqs,
        budget=budget,
    )
    told.steps = {**asdict(counts), "total": counts.total, "budget_tokens": budget}
    told.scheduled_tokens = sum(step.tokens for step in steps)
    told.first_step_s = steps[0].at_s - started_s
    told.last_step_s = steps[-1].at_s - started_s
    return told


def _scheduler_name(prefix: str) -> str:
    # vLLM schedules asynchronously wherever it can, which on a CPU it cannot.
    from vllm.platforms import current_platform

    order = "" if current_platform.is_cpu() else "Async"
    return f"benchmarks.step_schedulers.{prefix}{order}Scheduler"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
