"""`python running.py ROLE SPEC`: one node of a pipeline as a process, told what to do in JSON; or
a fork of the tests' warm process that plays the same role.

ROLE `head` starts the engine, prints `started PID_OF_CORE`, generates, prints generations and batch
counts as JSON, and stops; with `hold` it first generates until it is killed or the engine dies
(`died`).
ROLE `follow` runs another node's part. ROLE `moves` generates on one rank, moves the same requests
between that engine and a pipeline whose slots are all here, and prints what differs.
"""

# ruff: noqa: T201  (it speaks to the test through its output)

import asyncio
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.errors import EngineDied
from shunt.job.sampling import Sampling
from shunt.plan.plan import Pipeline, Stage
from shunt.run.audit import compare
from workers.engine.config import EngineConfig, engine_environment
from workers.owner_socket import listen, private_directory
from workers.testing.moves import move
from workers.warm.__main__ import main as warm_process
from workers.warm.popen import WarmContext
from workers.warm.warm_process import WarmDoor

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
"""setns(2); in Python's `os` from 3.12 on."""

NUM_TOKENS = 24
"""Of each request, unless told otherwise."""
SAMPLINGS = {
    "greedy": Sampling(max_tokens=24, temperature=0.0, ignore_eos=True, logprobs=5),
    "seeded": Sampling(max_tokens=24, temperature=0.8, seed=7, ignore_eos=True, logprobs=5),
    "penalties": Sampling(
        max_tokens=24, temperature=0.0, presence_penalty=0.5, frequency_penalty=0.5,
        repetition_penalty=1.2, ignore_eos=True, logprobs=5,
    ),
}  # fmt: skip


def pipeline_of(tp: list[int], layers: list[int], nodes: list[int]) -> Pipeline:
    """Stages on slots `n-0`, `n-1`..., layers one after another."""
    stages = []
    for index, count in enumerate(layers):
        first = sum(layers[:index])
        slot = f"n-{nodes[index]}"
        gpu = sum(
            size for size, node in zip(tp[:index], nodes, strict=False) if node == nodes[index]
        )
        stages.append(
            Stage(
                slot=slot,
                first_gpu=gpu,
                tp=tp[index],
                first_layer=first,
                end_layer=first + count,
            )
        )
    return Pipeline(name="p", stages=tuple(stages), max_num_seqs=8, predicted_requests_per_s=1.0)


def config_of(spec: dict[str, Any]) -> EngineConfig:
    return EngineConfig(
        model_path=spec["model"],
        dtype=spec.get("dtype", "float32"),
        max_model_len=256,
        max_num_seqs=8,
        max_num_batched_tokens=spec.get("budget", 32),
        enforce_eager=device_of(spec) == "cpu",
        gpu_memory_utilization=0.3,
        adapters=spec.get("adapters", {}),
    )


def device_of(spec: dict[str, Any]) -> str:
    return spec.get("device", "cpu")


def requests(*, max_tokens: int, count: int = 12, adapter: str | None = None) -> list[Request]:
    sampling = Sampling(
        max_tokens=max_tokens, temperature=0.0, ignore_eos=True, logprobs=5, adapter=adapter
    )
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
    config = head_config(config_of(spec), stages, device=device_of(spec))
    engine = await VllmEngine.start(config, _warm(spec))
    private = engine._private
    assert private is not None
    print("started", private.core_processes(engine._llm)[0].pid, flush=True)
    adapter = next(iter(config.adapters), None)
    work = requests(max_tokens=spec.get("max_tokens", NUM_TOKENS), adapter=adapter)
    try:
        done = await asyncio.gather(*(engine.generate(request) for request in work))
        print(json.dumps(await _told(engine, config, done)), flush=True)
        work = requests(max_tokens=200, adapter=adapter)
        while spec.get("hold", False):
            await asyncio.gather(*(engine.generate(request) for request in work))
    except EngineDied:
        print("died", flush=True)
    await engine.stop()


async def moves(spec: dict[str, Any]) -> None:
    from workers.engine.vllm_engine import VllmEngine
    from workers.pipeline.engine import PipelineStarter

    config = config_of(spec)
    pipeline = pipeline_of(spec["tp"], spec["layers"], spec["nodes"])
    alone = await VllmEngine.start(config, _warm(spec))
    try:
        split = await PipelineStarter(
            config, pipeline, _unexpected, processes=lambda: _warm(spec)
        ).start()
        try:
            work = [
                replace(request, request_id=f"{name}{index}", sampling=sampling)
                for name, sampling in SAMPLINGS.items()
                for index, request in enumerate(requests(max_tokens=24, count=3))
            ]
            expected = await asyncio.gather(*(alone.generate(request) for request in work))
            moved = await asyncio.gather(
                *(move([alone, split], request, (5, 11, 17)) for request in work)
            )
            print(json.dumps([
                {"request": request.request_id, "moves": count, "resumption": generation.resumption,
                 **asdict(compare(undisturbed, generation))}
                for request, undisturbed, (generation, count)
                in zip(work, expected, moved, strict=True)
            ]), flush=True)  # fmt: skip
        finally:
            await split.stop()
    finally:
        await alone.stop()


def _warm(spec: dict[str, Any]) -> BaseContext | None:
    """What the engine's processes are forked from; None: each of them is spawned."""
    return _context(spec["warm"]) if "warm" in spec else None


def _context(door: str) -> WarmContext:
    return WarmDoor(Path(door)).context(_unexpected)


def _unexpected(detail: str) -> None:
    raise AssertionError(detail)


async def _told(engine: Any, config: EngineConfig, done: list[Generation]) -> dict[str, Any]:
    """Of a pipeline with our executor: how many batches started as the k-th in flight."""
    from workers.pipeline.executor import OBSERVED

    ours = "additional_config" in config.extra
    starts = (await engine._llm.collective_rpc(OBSERVED))["batch_starts"] if ours else []
    return {"generations": [asdict(generation) for generation in done], "batch_starts": starts}


def follow_head(spec: dict[str, Any]) -> None:
    from workers.pipeline.follower import follow
    from workers.pipeline.launch import stage_map

    pipeline = pipeline_of(spec["tp"], spec["layers"], spec["nodes"])
    stages = stage_map(
        pipeline, spec["addresses"], model_path=spec["model"], number=spec.get("number", 0)
    )
    follow(config_of(spec), stages, node=spec["node"], device=device_of(spec), deadline_s=120)


ENVIRONMENT = engine_environment(threads=1, kv_cache_gib=1) | {
    "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}


def main(role: str, spec: dict[str, Any]) -> None:
    if role == "follow":
        follow_head(spec)
    asyncio.run({"head": head, "moves": moves}[role](spec))


def play(role: str, spec: dict[str, Any], output: str, door: str, network: str) -> None:
    """In a fork of the warm process behind `door`: what `running.py` does, its words to a file."""
    if network:
        with _warm_process_in(network) as inside:
            again = _context(inside).Process(target=play, args=(role, spec, output, inside, ""))
            again.start()
            again.join()
        sys.exit(again.exitcode)
    tempfile.tempdir = None  # the warm process may have looked before
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
    main(role, spec | {"warm": door})


@contextmanager
def _warm_process_in(network: str) -> Generator[str]:
    """Move there, and become a warm process once more, as a child: what it forks is there, too."""
    with open(f"/run/netns/{network}") as namespace:
        if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    door = private_directory("shunt-warm-") / "warm"
    lifeline, held = os.pipe()
    with listen(door) as listener:
        if os.fork() == 0:
            try:
                os.close(held)
                os.dup2(lifeline, 0)
                warm_process([str(listener.fileno())])
            finally:
                os._exit(0)
    os.close(lifeline)
    yield str(door)
    os.close(held)


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    main(sys.argv[1], json.loads(sys.argv[2]))
