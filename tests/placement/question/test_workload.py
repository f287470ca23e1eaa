"""Moments of the joint length distribution, by hand."""

from pathlib import Path

import pytest

from placement.errors import BadInput
from placement.question.workload import LengthPair, read_lengths, workload_of


def test_moments_of_two_prompts() -> None:
    """(10 in, 2 out) and (30 in, 6 out), equally often.

    mean output 4; E[s^2]/2 = (50 + 450)/2 = 250; contexts: (2 x 11 + 6 x 33)/2 / 4 = 27.5;
    residual: E[o^2]/(2 E[o]) = 20/8 = 2.5; more than 2 further tokens: E[max(o-2,0)]/4 = 0.5.
    """
    work = workload_of([LengthPair(10, 2), LengthPair(30, 6)], num_prompts=5)
    assert work.mean_input == 20
    assert work.mean_output == 4
    assert work.prompt_pairs == 250
    assert work.mean_context == 27.5
    assert work.mean_residual_output == 2.5
    assert work.share_still_running(2) == 0.5
    assert work.max_context == 36


def test_merging_keeps_the_means() -> None:
    pairs = [LengthPair(i % 97 + 1, i % 311 + 1) for i in range(5000)]
    work = workload_of(pairs, num_prompts=1)
    assert len(work.pairs) <= 400
    assert work.mean_input == pytest.approx(sum(p.input_tokens for p in pairs) / 5000)
    assert work.mean_output == pytest.approx(sum(p.output_tokens for p in pairs) / 5000)
    assert work.max_context == max(p.input_tokens + p.output_tokens for p in pairs)


def test_nothing_to_plan_for() -> None:
    with pytest.raises(BadInput, match="0 prompts"):
        workload_of([LengthPair(1, 1)], num_prompts=0)
    with pytest.raises(BadInput, match="at least 1"):
        workload_of([LengthPair(0, 1)], num_prompts=1)


def test_lengths_file(tmp_path: Path) -> None:
    file = tmp_path / "lengths.csv"
    file.write_text("input_tokens,output_tokens\n10,1\n5000,2\n")
    assert [p.input_tokens for p in read_lengths(file, output_tokens=None, max_input=100)] == [10]
    assert read_lengths(file, output_tokens=7, max_input=None)[1].output_tokens == 7
    file.write_text("input_tokens,output_tokens\n10,x\n")
    with pytest.raises(BadInput, match="line 2"):
        read_lengths(file, output_tokens=None, max_input=None)
    file.write_text("prompt\n10\n")
    with pytest.raises(BadInput, match="no column 'input_tokens'"):
        read_lengths(file, output_tokens=None, max_input=None)
