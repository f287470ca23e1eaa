"""Engines that die, are stopped, or lose their parent."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from shunt.checkpoint.generation import Resumption
from shunt.checkpoint.request import Request
from shunt.errors import EngineDied
from shunt.run.audit import compare
from workers.engine.config import EngineConfig
from workers.testing.moves import move
from workers.testing.option_cases import CASES, PROMPTS
from workers.warm.warm_process import WarmProcess

psutil = pytest.importorskip("psutil", reason="comes with vLLM")

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

DEADLINE_S = 60.0
MOVED = ("temperature", "penalties, sampled", "json, sampled", "logprobs", "stop")

_WORKER = """
import asyncio, os, signal, sys
from tests_engine_config import config
async def main():
    signal.signal(signal.SIGTERM, lambda *_: None)
    from shunt.checkpoint.request import Request
    from shunt.job.sampling import Sampling
    from workers.engine.vllm_engine import VllmEngine
    engine = await VllmEngine.start(config)
    print("started", flush=True)
    sys.stdin.readline()
    request = Request("0.0", tuple(range(100, 120)), Sampling(max_tokens=4, ignore_eos=True))
    print("tokens", len((await engine.generate(request)).token_ids), flush=True)
    sys.stdin.readline()
if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_death_loses_no_token_and_another_engine_goes_on(
    engine: Any,
    warm: WarmProcess,
    engine_config: Callable[..., EngineConfig],
    new_request: Callable[..., Request],
) -> None:
    """Moved between two engines of unequal layout; then one is killed under its requests.

    What was peeked last is still there after the death, and continues on the other engine. The dead
    one leaves neither a process nor shared memory. Both were forked from a warm process, whose own
    end neither notices. The other one has vLLM's own metrics, which the first has not.
    """
    from workers.engine.vllm_engine import VllmEngine

    greedy = await engine.generate(new_request(PROMPTS[1], CASES["greedy"](1, "")))
    requests = [new_request(PROMPTS[1], CASES[n](1, greedy.finish.text)) for n in MOVED]
    expected = await asyncio.gather(*(engine.generate(request) for request in requests))
    cold: list[str] = []
    other = await VllmEngine.start(
        engine_config(
            max_num_seqs=4, extra={"block_size": 64}, enable_prefix_caching=False, log_stats=True
        ),
        warm.context(cold.append),
    )
    assert cold == []
    os.kill(warm.pid, signal.SIGKILL)
    try:
        moved = await asyncio.gather(
            *(move([engine, other], request, (5, 11, 17)) for request in requests)
        )
        for request, undisturbed, (generation, _) in zip(requests, expected, moved, strict=True):
            assert compare(undisturbed, generation).exact(1e-3), request.sampling
        assert _counted("vllm:generation_tokens_total") > len(requests)

        tasks = [asyncio.create_task(other.generate(request)) for request in requests[:4]]
        await _until(lambda: _all_have(other, 6, 4))
        before = other.progress()
        private = other._private
        assert private is not None
        core = private.core_processes(other._llm)[0]
        family = [core.pid, *(c.pid for c in psutil.Process(core.pid).children(recursive=True))]
        memory = set(re.findall(r"/dev/shm/psm_\w+", Path(f"/proc/{core.pid}/maps").read_text()))
        core.kill()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, EngineDied) for result in results)
        after = other.progress()
        for request, undisturbed in zip(requests[:4], expected, strict=False):
            saved = after[request.request_id]
            assert len(saved.token_ids) >= len(before[request.request_id].token_ids)
            generation = await engine.generate(replace(request, saved=saved))
            assert compare(undisturbed, generation).exact(1e-3)
            assert generation.resumption is Resumption.STATE_EXACT
        with pytest.raises(EngineDied):
            await other.generate(requests[4])
    finally:
        await other.stop()
    await other.stop()
    await _until(lambda: not any(_runs(pid) for pid in family))
    assert memory, "the engine core talks to its worker through shared memory"
    await _until(lambda: not any(Path(name).exists() for name in memory))


async def test_the_core_sleeps_while_the_rank_computes(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    """vLLM's own would look for the answer without a pause: half of two cores for nothing."""
    core = psutil.Process(engine._private.core_processes(engine._llm)[0].pid)
    before = _cpu_s([core]), _cpu_s(core.children(recursive=True))
    await asyncio.gather(
        *(engine.generate(new_request(p, max_tokens=32, ignore_eos=True)) for p in PROMPTS)
    )
    asked, computed = _cpu_s([core]) - before[0], _cpu_s(core.children(recursive=True)) - before[1]
    assert computed > 0.2, "too little to see anything"
    assert asked < computed / 4


def _cpu_s(processes: Sequence[Any]) -> float:
    """User and system time of these processes."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _all_have(engine: Any, num_tokens: int, num_requests: int) -> bool:
    live = engine.progress().values()
    return sum(len(generation.token_ids) >= num_tokens for generation in live) == num_requests


def _counted(name: str) -> float:
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "not within the deadline"
        await asyncio.sleep(0.01)


async def test_signals_reach_the_worker_only_and_its_death_ends_the_engine(
    engine_config: Callable[..., EngineConfig], tmp_path: Path
) -> None:
    """SIGTERM to the process group spares the engine core; SIGKILL of the worker ends it."""
    config = engine_config()
    (tmp_path / "tests_engine_config.py").write_text(
        f"from workers.engine.config import EngineConfig\nconfig = {config!r}\n"
    )
    script = tmp_path / "worker.py"
    script.write_text(_WORKER)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            assert await asyncio.to_thread(worker.stdout.readline) == "started\n"
            family = psutil.Process(worker.pid).children(recursive=True)
            os.killpg(worker.pid, signal.SIGTERM)
            worker.stdin.write("go\n")
            worker.stdin.flush()
            assert await asyncio.to_thread(worker.stdout.readline) == "tokens 4\n"
        finally:
            worker.kill()
        await _until(lambda: not any(process.is_running() for process in family))
