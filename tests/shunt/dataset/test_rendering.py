"""From prompts to token ids, at the edge of the context."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shunt.dataset.prompt import Prompt
from shunt.dataset.rendering import (
    TEMPLATE_MARGIN_TOKENS,
    HuggingFaceTokenizer,
    Renderer,
    context_length,
    renderer_for,
)
from shunt.errors import JobError, RequestRefused
from shunt.job.sampling import Sampling

MODEL = Path(__file__).parents[3] / ".cache" / "models" / "SmolLM2-135M-Instruct"
needs_model = pytest.mark.skipif(
    not MODEL.is_dir(), reason="the demo model is not converted yet: make demo"
)


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


@needs_model
def test_a_chat_is_rendered_by_the_models_own_template() -> None:
    renderer = renderer_for(str(MODEL), revision=None, max_model_len=None, fake=False)
    chat = Prompt(0, "p", Sampling(), messages=({"role": "user", "content": "hi"},))
    token_ids = renderer.render(chat)
    expected = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert token_ids == tuple(renderer.tokenizer.encode(expected))


CLOCK = datetime(2026, 3, 4, 23, 59, tzinfo=UTC)


def model_with(directory: Path, template: str) -> str:
    """The demo model's tokenizer with another chat template, or with none."""
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(MODEL / name, directory)
    settings = json.loads((MODEL / "tokenizer_config.json").read_text())
    settings |= {"chat_template": template} if template else {}
    if not template:
        settings.pop("chat_template")
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(directory)


def dated_model(tmp_path: Path) -> str:
    """Its chat template asks for the date, as those of several families do."""
    return model_with(
        tmp_path,
        "{%- macro today() %}{{ strftime_now('%d %b %Y') }}{% endmacro -%}"
        "{% if strftime_now is defined %}{{ today() }}{% endif %}: {{ messages[0].content }}",
    )


@needs_model
def test_a_template_is_told_the_time_of_the_run(tmp_path: Path) -> None:
    """Not the machine's: a worker after midnight, or in another zone, makes the same prompt."""
    renderer = HuggingFaceTokenizer(dated_model(tmp_path), clock=CLOCK)
    message = {"role": "user", "content": "hi"}
    assert renderer.apply_chat_template([message]) == renderer.encode("04 Mar 2026: hi")


@needs_model
def test_without_a_clock_a_template_that_asks_is_refused(tmp_path: Path) -> None:
    renderer = Renderer(HuggingFaceTokenizer(dated_model(tmp_path)), 100)
    chat = Prompt(0, "p", Sampling(), messages=({"role": "user", "content": "hi"},))
    with pytest.raises(RequestRefused, match="asks for the time"):
        renderer.render(chat)


@needs_model
def test_a_chat_for_a_model_without_a_template_is_refused(tmp_path: Path) -> None:
    renderer = Renderer(HuggingFaceTokenizer(model_with(tmp_path, "")), 100)
    chat = Prompt(0, "p", Sampling(), messages=({"role": "user", "content": "hi"},))
    with pytest.raises(RequestRefused, match="there is none") as refusal:
        renderer.render(chat)
    assert refusal.value.code == "invalid_messages"
