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
    structured: bool = False
    """Whether the answer was to keep to a schema, a pattern or a grammar."""
    raw: str | None = None
    """The text of a row that could not be read."""
    file: str | None = None
    line: int | None = None
    """Where the row came from; the line, or the number of the row in a table. None where shards of
    an earlier version do not say it."""
    reused_from: str | None = None
    """The run that generated the answer, where it is another row's."""
    reused_index: int | None = None
    """The index of that row there."""

    @property
    def is_cut(self) -> bool:
        """Whether an answer ended because it had no more room."""
        finishes = [generation.finish for generation in self.generations]
        return self.error is None and any(f and f.finish_reason == "length" for f in finishes)


@dataclass(frozen=True, slots=True)
class ShardOutcomes:
    """A shard's prompts (table of `shunt.dataset.shard`) beside their outcomes, in input order."""

    table: pa.Table
    outcomes: tuple[Outcome, ...]
