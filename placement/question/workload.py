"""The workload: the joint distribution of prompt and output lengths, and how many prompts."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from placement.errors import BadInput


@dataclass(frozen=True, slots=True)
class LengthPair:
    """Prompts of one length pair, and their weight."""

    input_tokens: float
    output_tokens: float
    weight: float = 1.0


@dataclass(frozen=True)
class Workload:
    """Moments of the joint distribution that the estimator needs, all in tokens."""

    pairs: tuple[LengthPair, ...]
    num_prompts: int
    max_context: float
    """The longest prompt with its output: every stage must hold one such sequence."""

    @cached_property
    def _total(self) -> float:
        return sum(pair.weight for pair in self.pairs)

    def _mean(self, values: Iterable[float]) -> float:
        weighted = zip(self.pairs, values, strict=True)
        return sum(pair.weight * value for pair, value in weighted) / self._total

    @cached_property
    def mean_input(self) -> float:
        return self._mean(p.input_tokens for p in self.pairs)

    @cached_property
    def mean_output(self) -> float:
        return self._mean(p.output_tokens for p in self.pairs)

    @cached_property
    def prompt_pairs(self) -> float:
        """E[s^2] / 2: pairs of tokens that attend to each other in one prompt."""
        return self._mean(p.input_tokens**2 / 2 for p in self.pairs)

    @cached_property
    def mean_context(self) -> float:
        """Tokens in the cache of a sequence in flight, time-averaged: E[o (s + o/2)] / E[o].

        A long output is in flight for longer, so it counts for more than in a plain mean.
        """
        whole = self._mean(
            p.output_tokens * (p.input_tokens + p.output_tokens / 2) for p in self.pairs
        )
        return whole / self.mean_output

    @cached_property
    def mean_residual_output(self) -> float:
        """Tokens that a sequence in flight has still to make: E[o^2] / (2 E[o])."""
        return self._mean(p.output_tokens**2 for p in self.pairs) / (2 * self.mean_output)

    @cached_property
    def max_output(self) -> float:
        return max(p.output_tokens for p in self.pairs)

    def share_still_running(self, tokens: float) -> float:
        """Of the sequences in flight when the queue ends, the share that makes more than `tokens`
        further ones: E[max(o - tokens, 0)] / E[o] (a sequence is met in proportion to o)."""
        return self._mean(max(p.output_tokens - tokens, 0.0) for p in self.pairs) / self.mean_output


def workload_of(
    pairs: Sequence[LengthPair], *, num_prompts: int, max_context: float | None = None
) -> Workload:
    """A workload from length pairs. Raises `BadInput` on no prompts or lengths below one."""
    if num_prompts <= 0:
        raise BadInput(f"workload: {num_prompts} prompts; there is nothing to plan for")
    if not pairs:
        raise BadInput("workload: no lengths; give a lengths file, or input and output tokens")
    for pair in pairs:
        finite = math.isfinite(pair.input_tokens + pair.output_tokens + pair.weight)
        if not finite or pair.input_tokens < 1 or pair.output_tokens < 1 or pair.weight <= 0:
            raise BadInput(
                f"workload: {pair.input_tokens:g} input and {pair.output_tokens:g} output tokens "
                f"with weight {pair.weight:g}; lengths must be at least 1, weights above 0"
            )
    longest = max(pair.input_tokens + pair.output_tokens for pair in pairs)
    return Workload(_condensed(pairs), num_prompts, max_context or longest)


_BUCKETS = 400


def _condensed(pairs: Sequence[LengthPair]) -> tuple[LengthPair, ...]:
    """At most `_BUCKETS` pairs: neighbours in (output, input) order are merged to their means."""
    if len(pairs) <= _BUCKETS:
        return tuple(pairs)
    ordered = sorted(pairs, key=lambda p: (p.output_tokens, p.input_tokens))
    size = -(-len(ordered) // _BUCKETS)
    merged: list[LengthPair] = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        weight = sum(p.weight for p in part)
        merged.append(
            LengthPair(
                sum(p.weight * p.input_tokens for p in part) / weight,
                sum(p.weight * p.output_tokens for p in part) / weight,
                weight,
            )
        )
    return tuple(merged)


def read_lengths(
    file: Path, *, output_tokens: float | None, max_input: float | None
) -> list[LengthPair]:
    """Length pairs of a CSV with `input_tokens` and, unless stated otherwise, `output_tokens`.

    A stated `output_tokens` goes before the column. Rows above `max_input` are left out, as the
    dataset's preflight does with prompts that are too long. Raises `BadInput` with the line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"lengths file {file}: cannot be read ({error.strerror})") from error
    pairs: list[LengthPair] = []
    for line, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        try:
            prompt = float(row["input_tokens"])
            output = output_tokens if output_tokens is not None else float(row["output_tokens"])
            weight = float(row.get("count") or 1)
        except KeyError as error:
            raise BadInput(
                f"lengths file {file}: no column {error}; it needs input_tokens and, unless "
                "workload.output_tokens is given, output_tokens"
            ) from error
        except (TypeError, ValueError) as error:
            raise BadInput(f"lengths file {file} line {line}: not a number ({error})") from error
        if max_input is None or prompt <= max_input:
            pairs.append(LengthPair(prompt, output, weight))
    if not pairs:
        raise BadInput(f"lengths file {file}: it has no prompts")
    return pairs
