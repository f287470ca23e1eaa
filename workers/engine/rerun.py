"""Running a resumed row again, undisturbed: the worker's part of `shunt audit`."""

from dataclasses import replace

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.run.audit import Comparison, compare
from workers.engine.protocol import Engine

AUDIT_LOGPROBS = 5
"""Best tokens asked for: enough to find the token that a flip chose instead."""


async def rerun(engine: Engine, request: Request, finished: Generation) -> Comparison:
    """Generate `request` from its prompt and compare with its resumed and `finished` generation."""
    sampling = request.sampling
    if not sampling.logprob_token_ids:
        num_logprobs = max(sampling.logprobs or 0, AUDIT_LOGPROBS)
        sampling = sampling.model_copy(update={"logprobs": num_logprobs})
    undisturbed = await engine.generate(replace(request, sampling=sampling, saved=None))
    comparison = compare(undisturbed, finished)
    return replace(
        comparison,
        max_logprob_gap=comparison.max_logprob_gap if finished.logprobs is not None else 0.0,
        same_usage=len(undisturbed.token_ids) == len(finished.token_ids),
    )
