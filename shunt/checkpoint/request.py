"""A prompt admitted to an engine: one choice, its sampling, and what is already saved of it."""

import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xxhash
from pydantic import JsonValue

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
    calls_of: Mapping[str, JsonValue] | None = None
    """Where calls of tools are to be read from the answer: what the chat template was told."""

    @property
    def has_other_prompt(self) -> bool:
        """Whether the saved tokens answer another prompt than this one.

        A template, a tokenizer or a clock may have changed between two workers. Logs of format
        version 1 do not tell.
        """
        digest = self.saved.prompt_digest if self.saved else ""
        return bool(digest) and digest != digest_of(self.prompt_token_ids)


def digest_of(prompt_token_ids: Sequence[int]) -> str:
    """xxh3-64 of the ids as 32-bit little-endian integers, as 16 hexadecimal digits."""
    ids = array("i", prompt_token_ids)
    if sys.byteorder == "big":
        ids.byteswap()
    return xxhash.xxh3_64_hexdigest(ids.tobytes())
