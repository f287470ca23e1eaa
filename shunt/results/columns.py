"""What shunt adds to an input row, and under which names."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from pydantic import JsonValue

from shunt.checkpoint.generation import Generation, Resumption, TokenLogprobs
from shunt.dataset.whole_text import whole_text
from shunt.results.outcome import Outcome

ADDED = (
    "id",
    "generated_text",
    "finish_reason",
    "num_prompt_tokens",
    "num_output_tokens",
    "generations",
    "logprobs",
    "prompt_logprobs",
    "error_code",
    "error_message",
    "resumption",
    "resume_reason",
    "num_resumes",
)
OF_STRUCTURE = ("structure", "structure_problem")
"""Only in runs that have rows with structured outputs."""
RAW_ROW = "raw_row"
"""Stands in results with a row that could not be read: its text."""
ORIGIN = ("input_file", "input_line")
"""Stand in results that were asked to say where each row came from."""
REUSE = ("reused_from", "reused_index")
"""Only in runs with rows that take the answer of another one: the run that generated it, and the
number of that row there, from 0."""
LAYOUT_VERSION = 2
_ADDED_IN_LAYOUT_1 = (
    *("id", "generated_text", "finish_reason", "num_prompt_tokens", "num_output_tokens"),
    *("generations", "logprobs", "prompt_logprobs", "error_code", "error_message"),
    *("resumption", "resume_reason", "num_resumes"),
)

LOWEST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class AddedColumns:
    """The names that columns have in one run's results.

    Ours have their plain names, always: `generated_text` is this run's answer, however many runs
    the rows have been through. An input column of such a name is carried as `generated_text_1`, or
    under the next number that is free. Ids stand in the input's own id column, or else in `id`.
    """

    names: Mapping[str, str]
    """Of our columns: plain name -> name in the files."""
    moved: Mapping[str, str]
    """Of input columns that go by another name: name in the input -> name in the files."""

    @classmethod
    def beside(
        cls,
        input_columns: Collection[str],
        *,
        id_columns: Sequence[str],
        beside: Sequence[str] = (),
    ) -> "AddedColumns":
        """`id_columns`: those that may hold ids, the first that the input has does. `beside`: those
        of `OF_STRUCTURE`, `RAW_ROW`, `ORIGIN` and `REUSE` that are wanted."""
        own_id = next((name for name in id_columns if name in input_columns), "id")
        names = {name: name for name in (*ADDED, *beside)} | {"id": own_id}
        taken = {*input_columns, *names.values()}
        moved: dict[str, str] = {}
        for name in sorted(names.keys() - {own_id}):
            if name in input_columns and name in names.values():
                free = (f"{name}_{number}" for number in count(1))
                moved[name] = next(new for new in free if new not in taken)
                taken.add(moved[name])
        return cls(names, moved)

    @classmethod
    def of_version_1(cls, input_columns: Collection[str], *, has_ids: bool) -> "AddedColumns":
        """The names in results of layout 1, for comparing them: ours gave way to the input's."""
        taken = set(input_columns)

        def free(name: str) -> str:
            while name in taken:
                name = f"shunt_{name}"
            return name

        added = [name for name in _ADDED_IN_LAYOUT_1 if not (name == "id" and has_ids)]
        return cls({name: free(name) for name in added}, {})

    @property
    def id(self) -> str:
        """The column that holds the ids."""
        return self.names["id"]

    def values(self, outcome: Outcome) -> dict[str, JsonValue]:
        """The added part of a result row, by its names in the file."""
        values = added_values(outcome)
        return {name: values[column] for column, name in self.names.items()}


def added_values(outcome: Outcome) -> dict[str, JsonValue]:
    """The added part of a result row, by plain names."""
    generations = outcome.generations
    first = generations[0] if generations else Generation()
    ended = first.finish if outcome.error is None else None
    error = outcome.error
    return {
        "id": outcome.prompt_id,
        "generated_text": None if ended is None else whole_text(ended.text),
        "finish_reason": "error" if ended is None else ended.finish_reason,
        "num_prompt_tokens": first.num_prompt_tokens,
        "num_output_tokens": sum(len(g.token_ids) for g in generations),
        "generations": [_choice(g) for g in generations] if len(generations) > 1 else None,
        "logprobs": _logprobs(first.logprobs),
        "prompt_logprobs": _logprobs(first.prompt_logprobs),
        "error_code": None if error is None else error.code.value,
        "error_message": None if error is None else whole_text(error.message),
        "resumption": weakest_resumption(generations).value,
        "resume_reason": next((g.resume_reason for g in generations if g.resume_reason), None),
        "num_resumes": sum(g.num_resumes for g in generations),
        "structure": None if outcome.kept is None else outcome.kept.keeping.value,
        "structure_problem": (whole_text(outcome.kept.why) or None) if outcome.kept else None,
        RAW_ROW: outcome.raw,
        **dict(zip(ORIGIN, (outcome.file, outcome.line), strict=True)),
        **dict(zip(REUSE, (outcome.reused_from, outcome.reused_index), strict=True)),
    }


_WEAKEST_FIRST = (
    Resumption.RESTARTED,
    Resumption.STATE_EXACT,
    Resumption.BIT_EXACT,
    Resumption.NONE,
)


def weakest_resumption(generations: Collection[Generation]) -> Resumption:
    """The promise that holds for all choices of a prompt."""
    found = {generation.resumption for generation in generations}
    return next((kind for kind in _WEAKEST_FIRST if kind in found), Resumption.NONE)


def _choice(generation: Generation) -> JsonValue:
    finish = generation.finish
    return {
        "text": whole_text(finish.text) if finish else None,
        "finish_reason": finish.finish_reason if finish else None,
        "num_output_tokens": len(generation.token_ids),
        "logprobs": _logprobs(generation.logprobs),
    }


def _logprobs(rows: Sequence[TokenLogprobs | None] | None) -> JsonValue:
    """Per position: the token that stands there first, then the best by rank.

    The first token of a prompt has none.
    """
    if rows is None:
        return None
    return [None if row is None else _position(row) for row in rows]


def _position(row: TokenLogprobs) -> JsonValue:
    return {
        "token_ids": list(row.token_ids),
        "logprobs": [finite(logprob) for logprob in row.logprobs],
        "rank": row.rank,
    }


def finite(logprob: float) -> float:
    """JSON has no infinity: `LOWEST_LOGPROB` stands for it, as in vLLM's OpenAI server."""
    return logprob if math.isfinite(logprob) else LOWEST_LOGPROB
