"""A prompt admitted to an engine: one choice, its sampling, and what is already saved of it."""

from dataclasses import dataclass

from shunt.checkpoint.generation import Generation
from shunt.job.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """What an engine is asked to generate.

    `sampling.n` is 1: choices are fanned out before. `sampling.seed` is set whenever
    `sampling.temperature` > 0, so that the request repeats wherever it runs.
    """

    request_id: str
    """`{prompt index}.{choice}`: unique in a run."""
    prompt_token_ids: tuple[int, ...]
    sampling: Sampling
    saved: Generation | None = None
    """Tokens to continue from; None or empty for a new request."""
