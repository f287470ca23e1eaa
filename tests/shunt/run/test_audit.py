"""Comparing a resumed generation with an undisturbed one."""

from dataclasses import replace

from shunt.checkpoint.generation import Finish, Generation, TokenLogprobs
from shunt.run.audit import compare


def _row(*pairs: tuple[int, float]) -> TokenLogprobs:
    ids, values = zip(*pairs, strict=True)
    return TokenLogprobs(ids, values, 1)


ONE = Generation(
    token_ids=(1, 2, 3),
    logprobs=(_row((1, -0.1)), _row((2, -0.5), (9, -0.6)), _row((3, -0.2))),
    num_prompt_tokens=4,
    finish=Finish("length", None, "abc"),
)


def test_equal_generations() -> None:
    assert compare(ONE, ONE).exact(0.0)


def test_first_difference_and_how_near_the_tie_was() -> None:
    other = replace(ONE, token_ids=(1, 9, 3))
    comparison = compare(ONE, other)
    assert comparison.first_difference == 1
    assert comparison.choice_gap is not None
    assert abs(comparison.choice_gap - 0.1) < 1e-9
    assert not comparison.exact(1.0)


def test_a_shorter_generation_differs_at_its_end() -> None:
    comparison = compare(ONE, replace(ONE, token_ids=(1, 2)))
    assert (comparison.first_difference, comparison.choice_gap) == (2, None)


def test_logprobs_are_compared_by_token() -> None:
    rows = (_row((1, -0.1)), _row((2, -0.5), (9, -0.625)), _row((3, -0.2)))
    comparison = compare(ONE, replace(ONE, logprobs=rows))
    assert abs(comparison.max_logprob_gap - 0.025) < 1e-9
    assert comparison.exact(0.03)
    assert not comparison.exact(0.02)
    assert compare(ONE, replace(ONE, logprobs=None)).max_logprob_gap == float("inf")


def test_text_and_usage_count() -> None:
    assert not compare(ONE, replace(ONE, finish=Finish("stop", None, "abc"))).exact(1.0)
    assert not compare(ONE, replace(ONE, num_cached_tokens=3)).exact(1.0)
