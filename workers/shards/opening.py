"""From a won lease to a shard ready for the engine: replay, render, order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from shunt.checkpoint.lease import Lease, past_suspects
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.progress import ShardProgress, replay
from shunt.checkpoint.request import Request
from shunt.dataset.prompt import Prompt
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.dataset.seeding import seed_for
from shunt.errors import RequestRefused
from shunt.job.sampling import Sampling
from workers.shards.cadence import Cadence
from workers.shards.held_shard import HeldShard, ShardCounts
from workers.shards.ordering import in_serving_order


@dataclass(frozen=True, slots=True)
class OpenedShard:
    """A held shard with what its log told about the owners before."""

    shard: HeldShard
    suspects: dict[str, int]
    """Request id -> owners that died with it before they saved anything."""
    resumed_generations: int
    resumed_tokens: int
    previous_epochs: int


Render = Callable[[Prompt], tuple[int, ...]]
"""Prompt to token ids; raises `RequestRefused` where the prompt can never run."""


def hold_shard(
    lease: Lease,
    prompts: Sequence[Prompt],
    *,
    render: Render,
    cadence: Cadence,
    context_tokens: int | None = None,
) -> OpenedShard:
    """Replay the shard's log and make requests of the prompts that are unfinished. Blocking.

    `context_tokens` is what a prompt and its answer may have together, where `max_tokens` is null.
    """
    progress = replay(lease.store, lease.run_id, lease.shard_id)
    requests, refused = _unfinished(lease.run_id, prompts, progress, render, context_tokens)
    ordered = {request.request_id: request for request in in_serving_order(requests)}
    shard = HeldShard(CheckpointLog(lease, progress), cadence, ordered, _counts(prompts, progress))
    for request_id, error in refused.items():
        shard.fail(request_id, error)
    saved = [request.saved for request in requests if request.saved and request.saved.token_ids]
    return OpenedShard(
        shard=shard,
        suspects=_suspects(lease, progress, ordered),
        resumed_generations=len(saved),
        resumed_tokens=sum(len(generation.token_ids) for generation in saved),
        previous_epochs=lease.epoch - 1,
    )


def _unfinished(
    run_id: str,
    prompts: Sequence[Prompt],
    progress: ShardProgress,
    render: Render,
    context_tokens: int | None,
) -> tuple[list[Request], dict[str, RowError]]:
    requests: list[Request] = []
    refused: dict[str, RowError] = {}
    for prompt in prompts:
        if prompt.needs_no_engine or progress.finished(prompt.index, prompt.sampling.n):
            continue
        token_ids, error = _render(prompt, render)
        room = None if context_tokens is None else max(1, context_tokens - len(token_ids))
        for choice in range(prompt.sampling.n):
            saved = progress.generations.get((prompt.index, choice))
            request_id = f"{prompt.index}.{choice}"
            sampling = choice_sampling(run_id, prompt, choice, room)
            request = Request(request_id, token_ids, sampling, saved, prompt.calls_of)
            if saved is not None and saved.finish is not None:
                if error is not None or not request.has_other_prompt:
                    continue
                # One row answers one prompt: what has finished is begun again with the others.
                request = replace(request, saved=replace(saved, finish=None))
            requests.append(request)
            if error is not None:
                refused[request_id] = error
    return requests, refused


def _render(prompt: Prompt, render: Render) -> tuple[tuple[int, ...], RowError | None]:
    try:
        return render(prompt), None
    except RequestRefused as refusal:
        return (), RowError(RowErrorCode(refusal.code), str(refusal))


def choice_sampling(run_id: str, prompt: Prompt, choice: int, room: int | None = None) -> Sampling:
    """One choice's sampling: n is 1, and it has its own seed whenever it samples at all.

    `room` is the number of tokens that the context has behind the prompt.
    """
    sampling = prompt.sampling
    seed = None if sampling.seed == -1 else sampling.seed  # to vLLM, -1 is no seed
    if sampling.temperature > 0:
        seed = seed_for(run_id, prompt.prompt_id) if seed is None else seed
        seed += choice
    max_tokens = room if sampling.max_tokens is None else sampling.max_tokens
    return sampling.model_copy(update={"n": 1, "seed": seed, "max_tokens": max_tokens})


def _counts(prompts: Sequence[Prompt], progress: ShardProgress) -> ShardCounts:
    finished = [g for g in progress.generations.values() if g.finish is not None]
    failed = sum(g.finish is not None and g.finish.error is not None for g in finished)
    return ShardCounts(
        num_rows=len(prompts),
        num_error_rows=failed + sum(prompt.error is not None for prompt in prompts),
        num_output_tokens=sum(len(g.token_ids) for g in finished),
    )


def _suspects(lease: Lease, progress: ShardProgress, open_ids: Iterable[str]) -> dict[str, int]:
    if lease.epoch == 1:
        return {}
    counts = past_suspects(lease.store, lease.run_id, lease.shard_id, fruitful=progress.cut)
    indexed = {request_id: int(request_id.split(".")[0]) for request_id in open_ids}
    return {request_id: counts[i] for request_id, i in indexed.items() if i in counts}
