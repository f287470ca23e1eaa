"""How each prompt ended."""

from dataclasses import dataclass

import pyarrow as pa

from shunt.checkpoint.generation import Generation
from shunt.dataset.row_error import RowError
from shunt.structure.answer import Kept


@dataclass(frozen=True, slots=True)
class Outcome:
    """The terminal row of a prompt. With `error`, `generations` holds what was saved before it."""

    index: int
    prompt_id: str
    generations: tuple[Generation, ...] = ()
    """By choice."""
    error: RowError | None = None
    kept: Kept | None = None
    """Whether the answer keeps its structured-output constraint; None where it has none, where the
    row ended as an error, and in runs of earlier versions."""


@dataclass(frozen=True, slots=True)
class ShardOutcomes:
    """A shard's prompts (table of `shunt.dataset.shard`) beside their outcomes, in input order."""

    table: pa.Table
    outcomes: tuple[Outcome, ...]
