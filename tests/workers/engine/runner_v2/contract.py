"""Runs the contract on runner V2 and prints what came out as JSON."""

import asyncio
import json
import os
import sys
from dataclasses import replace

from shunt.checkpoint.request import Request
from shunt.job.sampling import Sampling
from shunt.run.audit import compare
from workers.engine.config import EngineConfig, engine_environment
from workers.testing.moves import cut, naive_resume
from workers.testing.option_cases import CASES

NAMES = (
    "greedy",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "penalties, sampled",
    "min_tokens and stop",
    "logprobs, sampled",
    "prompt_logprobs",
    "bad_words",
    "json, sampled",
    "regex",
)
NUM_TOKENS = 14
PROMPT = tuple(range(300, 316))


async def main(model: str) -> None:
    from workers.engine.vllm_engine import VllmEngine

    engine = await VllmEngine.start(
        EngineConfig(
            model,
            dtype="float32",
            max_model_len=128,
            max_num_seqs=16,
            enforce_eager=True,
            extra={"worker_extension_cls": "stand_ins.InterpretedWorker"},
        )
    )
    requests = {
        name: Request(name, PROMPT, _short(CASES[name](0, "so it is a long text")))
        for name in NAMES
    }
    expected = dict(
        zip(requests, await asyncio.gather(*map(engine.generate, requests.values())), strict=True)
    )
    attempts = [
        (name, point)
        for name in NAMES
        for point in sorted({1, len(expected[name].token_ids) // 2})
        if point < len(expected[name].token_ids)
    ]
    resumed = await asyncio.gather(
        *(
            engine.generate(
                replace(requests[name], request_id=f"{name}@{n}", saved=cut(expected[name], n))
            )
            for name, n in attempts
        )
    )
    naive = await asyncio.gather(
        *(
            naive_resume(
                engine,
                replace(requests[name], request_id=f"{name}~{n}"),
                cut(expected[name], n),
            )
            for name, n in attempts
        )
    )
    result = {
        "fingerprint": engine.fingerprint,
        "resumes": len(attempts),
        "differing": [
            f"{name}@{n}: {comparison}"
            for (name, n), generation in zip(attempts, resumed, strict=True)
            if not (comparison := compare(expected[name], generation)).exact(1e-3)
        ],
        "restarted": [g.resume_reason for g in resumed if g.resume_reason],
        "naive_differing": sum(
            not compare(expected[name], generation).same_tokens
            for (name, _), generation in zip(attempts, naive, strict=True)
        ),
    }
    await engine.stop()
    sys.stdout.write(json.dumps(result) + "\n")


def _short(sampling: Sampling) -> Sampling:
    return sampling.model_copy(
        update={"max_tokens": NUM_TOKENS, "min_tokens": min(sampling.min_tokens, NUM_TOKENS // 2)}
    )


if __name__ == "__main__":
    os.environ.update(engine_environment(threads=1, kv_cache_gib=1))
    asyncio.run(main(sys.argv[1]))
