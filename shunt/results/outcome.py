"""How each prompt ended."""

from dataclasses import dataclass

import pyarrow as pa

from shunt.checkpoint.generation import Generation
from shunt.dataset.row_error import RowError


@dataclass(frozen=True, slots=True)
class Outcome:
    """The terminal row of a prompt. With `error`, `generations` holds what was saved before it."""

    index: int
    prompt_id: str
    generations: tuple[Generation, ...] = ()
    """By choice."""
    error: RowError | None = None


@dataclass(frozen=True, slots=True)
class ShardOutcomes:
    """A shard's prompts (table of `shunt.dataset.shard`) beside their outcomes, in input order."""

    table: pa.Table
    outcomes: tuple[Outcome, ...]
