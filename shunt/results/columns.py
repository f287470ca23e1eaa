"""What shunt adds to an input row, and under which names."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from shunt.checkpoint.generation import Generation, Resumption, TokenLogprobs
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
    "structure",
    "structure_problem",
)
OF_STRUCTURE = ("structure", "structure_problem")
"""Only in runs that have rows with structured outputs."""
CLASH_PREFIX = "shunt_"
"""Where the input has a column of that name already, ours gets this prefix, again until
the name is free; `id` is then left out,
as the input's own column says the same."""

LOWEST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class AddedColumns:
    """The names that the added columns have in one run's results."""

    names: dict[str, str]

    @classmethod
    def beside(
        cls, input_columns: Collection[str], *, has_ids: bool, structured: bool = False
    ) -> "AddedColumns":
        """`has_ids`: the rows carry their ids in a column of their own. `structured`: some rows
        have structured outputs."""
        taken = set(input_columns)

        def free(name: str) -> str:
            while name in taken:
                name = CLASH_PREFIX + name
            return name

        absent = {*(("id",) if has_ids else ()), *(() if structured else OF_STRUCTURE)}
        wanted = [name for name in ADDED if name not in absent]
        return cls({name: free(name) for name in wanted})

    def values(self, outcome: Outcome) -> dict[str, JsonValue]:
        """The added part of a result row, by its names in the file."""
        values = added_values(outcome)
        return {name: values[column] for column, name in self.names.items()}


def added_values(outcome: Outcome) -> dict[str, JsonValue]:
    """The added part of a result row, by the plain names of `ADDED`."""
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


def whole_text(text: str) -> str:
    """With U+FFFD for each half surrogate: no file in UTF-8 can hold one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
