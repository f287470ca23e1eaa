"""From prompts to token ids, at the edge of the context."""

import json
from pathlib import Path

import pytest

from shunt.dataset.prompt import Prompt
from shunt.dataset.rendering import TEMPLATE_MARGIN_TOKENS, context_length, renderer_for
from shunt.errors import JobError, RequestRefused
from shunt.job.sampling import Sampling

MODEL = Path(__file__).parents[3] / ".cache" / "models" / "SmolLM2-135M-Instruct"


def prompt(text: str) -> Prompt:
    return Prompt(0, "p", Sampling(), text=text)


@pytest.mark.parametrize(("num_tokens", "fits"), [(0, False), (1, True), (9, True), (10, False)])
def test_one_token_must_be_left(num_tokens: int, fits: bool) -> None:
    renderer = renderer_for("x", revision=None, max_model_len=10, fake=True)
    if fits:
        assert len(renderer.render(prompt("x" * num_tokens))) == num_tokens
        return
    with pytest.raises(RequestRefused) as refusal:
        renderer.render(prompt("x" * num_tokens))
    assert refusal.value.code == ("context_length" if num_tokens else "empty_prompt")


def test_a_prompt_that_surely_fits_is_not_counted() -> None:
    renderer = renderer_for("x", revision=None, max_model_len=1000, fake=True)
    longest = 1000 - TEMPLATE_MARGIN_TOKENS - 1
    assert not renderer.may_overflow(prompt("x" * longest))
    assert renderer.may_overflow(prompt("x" * (longest + 1)))
    assert renderer.may_overflow(prompt("é" * (longest // 2 + 1)))


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 7}, 7),
        ({"text_config": {"max_position_embeddings": 8}}, 8),
    ],
)
def test_the_context_length_is_the_models(tmp_path: Path, config: object, length: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(str(tmp_path)) == length


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_without_a_context_length_the_job_has_to_say_it(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(JobError, match=r"set model\.max_model_len_tokens"):
        context_length(str(tmp_path))


@pytest.mark.skipif(not MODEL.is_dir(), reason="the demo model is not converted yet: make demo")
def test_a_chat_is_rendered_by_the_models_own_template() -> None:
    renderer = renderer_for(str(MODEL), revision=None, max_model_len=None, fake=False)
    chat = Prompt(0, "p", Sampling(), messages=({"role": "user", "content": "hi"},))
    token_ids = renderer.render(chat)
    expected = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert token_ids == tuple(renderer.tokenizer.encode(expected))
