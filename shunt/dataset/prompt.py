"""One input row, as the worker sees it."""

from dataclasses import dataclass

from pydantic import JsonValue

from shunt.dataset.row_error import RowError
from shunt.job.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with its sampling parameters; exactly one of text, messages, token_ids is set.

    A prompt with `error` is terminal already: preflight refused it.
    """

    index: int
    """0-based position in the input over all its files: unique in the run."""
    prompt_id: str
    sampling: Sampling
    text: str | None = None
    messages: tuple[dict[str, JsonValue], ...] | None = None
    token_ids: tuple[int, ...] | None = None
    error: RowError | None = None
