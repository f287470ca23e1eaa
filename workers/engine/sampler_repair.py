"""In model runner V1's process: one row's `logprob_token_ids` must not take others' `logprobs`."""

import functools
from typing import Any

import torch

from workers.engine.private.worker import Sampler


def mend_sampler() -> None:
    """Wrap two methods of the sampler class; once a process.

    `Sampler.forward` returns the logprobs of the named tokens for the whole batch, which are empty
    for the rows that asked for the best ones; these get theirs back here.
    """
    forward, gather = Sampler.forward, Sampler.gather_specific_token_logprobs
    if hasattr(gather, "__wrapped__"):
        return

    @functools.wraps(forward)
    def remembering(
        self: Any, logits: Any, sampling_metadata: Any, *rest: Any, **named: Any
    ) -> Any:
        self.shunt_num_logprobs = sampling_metadata.max_num_logprobs
        return forward(self, logits, sampling_metadata, *rest, **named)

    @functools.wraps(gather)
    def gathering(
        self: Any, logprobs: torch.Tensor, logprob_token_ids: dict[int, list[int]], sampled: Any
    ) -> Any:
        named = gather(self, logprobs, logprob_token_ids, sampled)
        if named is None or not self.shunt_num_logprobs:
            return named
        best = self.gather_logprobs(logprobs, self.shunt_num_logprobs, token_ids=sampled)
        return both_logprobs(named, best, list(logprob_token_ids))

    Sampler.forward = remembering
    Sampler.gather_specific_token_logprobs = gathering


def both_logprobs(named: Any, best: Any, rows: list[int]) -> Any:
    """`best`, but for `rows` those of `named`: vLLM's tensors [batch, 1 + k], the wider k of both.

    The front end cuts each row to the number that its request asked for.
    """
    width = max(named.logprobs.shape[1], best.logprobs.shape[1])
    token_ids = best.logprob_token_ids.new_zeros((best.logprobs.shape[0], width))
    logprobs = best.logprobs.new_full(token_ids.shape, float("-inf"))
    token_ids[:, : best.logprobs.shape[1]] = best.logprob_token_ids
    logprobs[:, : best.logprobs.shape[1]] = best.logprobs
    token_ids[rows], logprobs[rows] = 0, float("-inf")
    token_ids[rows, : named.logprobs.shape[1]] = named.logprob_token_ids[rows]
    logprobs[rows, : named.logprobs.shape[1]] = named.logprobs[rows]
    return type(best)(token_ids, logprobs, best.selected_token_ranks)
