"""`python -m workers.audit`: run some resumed rows again, undisturbed, and compare.

Prints one JSON object: per compared row the first differing position and the logprob gap there.
"""

import argparse
import asyncio
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.dataset.rendering import renderer_of
from shunt.dataset.shard import prompts_of
from shunt.errors import RunIncomplete
from shunt.results.summary import read_summary
from shunt.run.collect import reading_outcomes
from shunt.run.manifest import Manifest, read_manifest
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store
from workers.engine.config import engine_environment
from workers.engine.rerun import rerun
from workers.setup import engine_starter, threads_per_rank
from workers.shards.opening import choice_sampling

Moved = tuple[Request, Generation]
"""A request from its start, and the generation that was moved at least once."""


def main(argv: Sequence[str]) -> int:
    """Audit a share of a collected run's resumed rows."""
    parser = argparse.ArgumentParser(prog="python -m workers.audit", description=__doc__)
    parser.add_argument("--store", required=True, help="store configuration as JSON")
    parser.add_argument("--run", required=True, help="run id")
    parser.add_argument("--fraction", type=float, default=0.01, help="share of the resumed rows")
    options = parser.parse_args(argv)
    config = StoreConfig.model_validate_json(options.store)
    store = open_configured_store(config, environment=os.environ)
    manifest = read_manifest(store, options.run)
    os.environ.update(
        engine_environment(
            threads=threads_per_rank(manifest.job, len(os.sched_getaffinity(0))),
            kv_cache_gib=manifest.job.model.engine.cpu_kv_cache_gib,
        )
    )
    resumed = list(resumed_requests(store, manifest))
    chosen = sample(resumed, options.fraction, random.Random(manifest.run_id))
    report = asyncio.run(_audit(manifest, chosen))
    json.dump({"run_id": manifest.run_id, "num_resumed": len(resumed), "rows": report}, sys.stdout)
    return 0


def resumed_requests(store: Store, manifest: Manifest) -> Iterator[Moved]:
    """Every generation that was moved, with the request that makes it from the start.

    Raises `RunIncomplete` when the run is not collected.
    """
    summary = read_summary(store, manifest.run_id)
    if summary is None:
        raise RunIncomplete(manifest.run_id, "is not collected yet; audit it when it is")
    renderer = renderer_of(manifest.job, clock=manifest.created_at)
    with reading_outcomes(store, manifest, summary.cuts) as outcomes:
        for shard in outcomes():
            prompts = prompts_of(shard.table, defaults=manifest.settled_job.sampling)
            for prompt, outcome in zip(prompts, shard.outcomes, strict=True):
                if outcome.error is not None or outcome.reused_from is not None:
                    continue
                for choice, generation in enumerate(outcome.generations):
                    if generation.num_resumes:
                        token_ids = renderer.render(prompt)
                        room = renderer.max_model_len - len(token_ids)
                        sampling = choice_sampling(manifest.run_id, prompt, choice, room)
                        name = f"{prompt.index}.{choice}"
                        calls_of = prompt.calls_of
                        yield Request(name, token_ids, sampling, calls_of=calls_of), generation


def sample(items: Sequence[Moved], fraction: float, rng: random.Random) -> list[Moved]:
    """That share of them, at least one if there is any; the same for the same run."""
    count = min(len(items), max(1, round(fraction * len(items))))
    return rng.sample(list(items), count)


async def _audit(manifest: Manifest, chosen: Sequence[Moved]) -> list[dict[str, object]]:
    if not chosen:
        return []
    engine = await engine_starter(manifest.settled_job)()
    try:
        compared = [await rerun(engine, request, resumed) for request, resumed in chosen]
    finally:
        await engine.stop()
    return [
        {"request": request.request_id, **asdict(comparison)}
        for (request, _), comparison in zip(chosen, compared, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
