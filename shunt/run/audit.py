"""Was a resumed generation the one that would have been? A comparison with an undisturbed run."""

from dataclasses import dataclass
from itertools import zip_longest

from shunt.checkpoint.generation import Generation, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a resumed generation differs from an undisturbed one of the same request."""

    num_tokens: int
    """Tokens before the first difference."""
    first_difference: int | None
    """Position of the first token that differs; None where all are equal."""
    choice_gap: float | None
    """At that position: by how much the undisturbed run preferred its own token to the resumed
    run's, as a difference of logprobs. Near 0 is a tie that numerics decided. None where the
    undisturbed run's logprobs do not list both tokens."""
    max_logprob_gap: float
    """Largest difference of a logprob that both runs have, before the first difference."""
    same_finish: bool
    """Finish reason, stop reason and text are equal."""
    same_usage: bool
    """Prompt, output and cached token counts are equal."""

    @property
    def same_tokens(self) -> bool:
        return self.first_difference is None

    def exact(self, logprob_tolerance: float) -> bool:
        """Whether nothing differs but logprobs by less than the tolerance."""
        return (
            self.same_tokens
            and self.same_finish
            and self.same_usage
            and self.max_logprob_gap <= logprob_tolerance
        )


def compare(undisturbed: Generation, resumed: Generation) -> Comparison:
    """Compare token by token. Both are finished generations of one request."""
    first = _first_difference(undisturbed.token_ids, resumed.token_ids)
    num_equal = len(undisturbed.token_ids) if first is None else first
    return Comparison(
        num_tokens=num_equal,
        first_difference=first,
        choice_gap=None if first is None else _choice_gap(undisturbed, resumed, first),
        max_logprob_gap=max(
            _rows_gap(undisturbed.logprobs, resumed.logprobs, num_equal),
            _rows_gap(undisturbed.prompt_logprobs, resumed.prompt_logprobs, None),
        ),
        same_finish=undisturbed.finish == resumed.finish,
        same_usage=_usage(undisturbed) == _usage(resumed),
    )


def _first_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    pairs = enumerate(zip_longest(one, other))
    return next((position for position, (a, b) in pairs if a != b), None)


def _choice_gap(undisturbed: Generation, resumed: Generation, position: int) -> float | None:
    rows = undisturbed.logprobs
    if rows is None or position >= len(rows) or position >= len(resumed.token_ids):
        return None
    row = rows[position]
    known = dict(zip(row.token_ids, row.logprobs, strict=True))
    other = known.get(resumed.token_ids[position])
    return None if other is None else abs(row.logprobs[0] - other)


def _rows_gap(
    one: tuple[TokenLogprobs | None, ...] | None,
    other: tuple[TokenLogprobs | None, ...] | None,
    num_rows: int | None,
) -> float:
    """Largest gap of the logprobs of tokens that both sides list; infinite if one side has none."""
    if one is None or other is None:
        return 0.0 if one is other else float("inf")
    if num_rows is None and len(one) != len(other):
        return float("inf")
    pairs = zip(one[:num_rows], other[:num_rows], strict=False)
    return max((_row_gap(a, b) for a, b in pairs), default=0.0)


def _row_gap(one: TokenLogprobs | None, other: TokenLogprobs | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else float("inf")
    known = dict(zip(other.token_ids, other.logprobs, strict=True))
    pairs = zip(one.token_ids, one.logprobs, strict=True)
    return max((abs(value - known[token]) for token, value in pairs if token in known), default=0.0)


def _usage(generation: Generation) -> tuple[int, int, int]:
    return (
        generation.num_prompt_tokens,
        len(generation.token_ids),
        generation.num_cached_tokens,
    )
