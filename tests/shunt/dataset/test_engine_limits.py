"""Limits that the engine's own settings move, and rows over them."""

from pathlib import Path
from typing import Any

import pytest

from shunt.dataset.engine_limits import EngineLimits, engine_limits
from shunt.dataset.input_row import InputRow
from shunt.dataset.prompt_row import PromptReader
from shunt.dataset.rendering import ByteTokenizer, Renderer
from shunt.job.job import Job
from shunt.job.sampling import Sampling
from tests.shunt.dataset.rows import make_job


def limits_of(tmp_path: Path, config: str = '{"vocab_size": 100}', **extra: Any) -> EngineLimits:
    (tmp_path / "config.json").write_text(config)
    job = make_job(tmp_path / "x.jsonl", model={"path": str(tmp_path), "engine": {"extra": extra}})
    return engine_limits(job, lambda text: list(text.encode()))


def refused(limits: EngineLimits, **sampling: Any) -> str:
    return limits.refused(Sampling.model_validate(sampling))


def test_max_logprobs_is_that_of_the_engine(tmp_path: Path) -> None:
    assert refused(limits_of(tmp_path), logprobs=20) == ""
    assert refused(limits_of(tmp_path), logprobs=21) == (
        "logprobs: 21 are more than the engine gives, which is 20; set "
        "model.engine.extra.max_logprobs"
    )
    assert refused(limits_of(tmp_path, max_logprobs=30), logprobs=21) == ""
    assert refused(limits_of(tmp_path, max_logprobs=-1), prompt_logprobs=100) == ""
    assert "which is 100" in refused(limits_of(tmp_path, max_logprobs=-1), prompt_logprobs=101)


def test_a_vocabulary_may_stand_deeper_in_the_configuration_or_nowhere(tmp_path: Path) -> None:
    nested = limits_of(tmp_path, '{"text_config": {"vocab_size": 7}}')
    assert refused(nested, stop_token_ids=[7]) == (
        "stop_token_ids: 7 is outside the vocabulary of 7 tokens"
    )
    assert refused(limits_of(tmp_path, "{}"), stop_token_ids=[10**6]) == ""
    assert limits_of(tmp_path, "{}").refused_ids([10**6]) == ""


def test_what_other_parts_of_the_engine_allow(tmp_path: Path) -> None:
    assert "needs a reasoning parser" in refused(limits_of(tmp_path), thinking_token_budget=1)
    thinking = limits_of(tmp_path, reasoning_parser="deepseek_r1")
    assert refused(thinking, thinking_token_budget=1) == ""
    assert refused(limits_of(tmp_path), min_p=0.1) == ""
    assert "speculative" in refused(limits_of(tmp_path, speculative_config={"m": 1}), min_p=0.1)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"token_ids": [1, 100]}, "token_ids: 100 is outside the vocabulary of 100 tokens"),
        ({"prompt": "x", "sampling": {"logprobs": 99}}, "logprobs: 99 are more"),
        ({"prompt": "x", "sampling": {"stop": [""]}}, "stop: has an empty text"),
        ({"prompt": "x", "sampling": {"bad_words": [""]}}, "bad_words: has an empty text"),
    ],
)
def test_a_row_over_them_is_refused_with_its_place(
    tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    reader = _reader(make_job(tmp_path / "x.jsonl"), limits_of(tmp_path))
    error = reader.read(InputRow("x.jsonl:3", row), 0).prompt.error
    assert error is not None
    assert error.code == "invalid_parameter"
    assert error.message.startswith(f"x.jsonl:3: {told}")


def test_defaults_over_them_are_told_of_every_row(tmp_path: Path) -> None:
    job = make_job(tmp_path / "x.jsonl", sampling={"logprobs": 21})
    reader = _reader(job, limits_of(tmp_path))
    assert reader.plain is None
    assert reader.read(InputRow("x:1", {"prompt": "x"}), 0).prompt.error is not None


class _WithBos(ByteTokenizer):
    @property
    def begins_with(self) -> str:
        return "<s>"


def test_a_second_bos_is_warned_of_once_for_all_rows(tmp_path: Path) -> None:
    reader = PromptReader(
        make_job(tmp_path / "x.jsonl"), Renderer(_WithBos(), 512), openai_batch=False
    )
    assert reader.plain is not None
    assert reader.plain.read([{"prompt": "a"}, {"prompt": "<s>a"}]) is None
    assert reader.plain.read([{"prompt": "a"}, {"prompt": "b<s>"}]) is not None
    assert reader.notes == []
    for index, text in enumerate(["a", "<s>b", "<s>c"]):
        assert reader.read(InputRow(f"x:{index}", {"prompt": text}), index).prompt.error is None
    reader.read(InputRow("x:1", {"prompt": "<s>b"}), 1)  # looked at again, for its id
    [note] = reader.notes
    assert note.startswith("2 prompts begin with '<s>'")
    assert "(the first: x:1)" in note
    assert "input.add_special_tokens: false" in note


def _reader(job: Job, limits: EngineLimits) -> PromptReader:
    return PromptReader(job, Renderer(ByteTokenizer(), 512, limits), openai_batch=False)
