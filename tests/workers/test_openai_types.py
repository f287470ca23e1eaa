"""Every line of a batch output is what OpenAI's own types say, with the tokens' text and bytes."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shunt.checkpoint.generation import Finish, Generation, TokenLogprobs
from shunt.dataset.openai_batch import CHAT_URL, COMPLETIONS_URL
from shunt.dataset.rendering import HuggingFaceTokenizer
from shunt.results.openai_body import BY_NUMBER, Tokens
from shunt.results.openai_lines import BatchFile
from shunt.results.outcome import Outcome

pytestmark = pytest.mark.vllm

MODEL = Path(__file__).parents[2] / ".cache" / "models" / "SmolLM2-135M-Instruct"
TEXT = " Köln \U0001f600 and é<|im_end|>"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def tokenizer() -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(str(MODEL))


@pytest.fixture(scope="module")
def tokens(tokenizer: HuggingFaceTokenizer) -> Tokens:
    return Tokens(tokenizer.token_text.text_of, tokenizer.token_text.bytes_of)


def generation(ids: list[int], text: str = TEXT, finish: str = "stop") -> Generation:
    rows = tuple(TokenLogprobs((i, i, 5), (-0.5, -0.5, float("-inf")), 1) for i in ids)
    return Generation(
        tuple(ids), logprobs=rows, num_prompt_tokens=3, finish=Finish(finish, None, text)
    )


def body_of(url: str, request: dict[str, Any], tokens: Tokens, *generations: Generation) -> Any:
    """The answer's body, read by OpenAI's own type."""
    from openai.types import Completion
    from openai.types.chat import ChatCompletion

    row = json.dumps({"custom_id": "a", "url": url, "body": request})
    file = BatchFile("run", datetime(2026, 1, 1, tzinfo=UTC), "small", tokens)
    line = json.loads(file.line(row, Outcome(0, "a", generations)))
    assert line["error"] is None
    kind = ChatCompletion if url == CHAT_URL else Completion
    return kind.model_validate(line["response"]["body"], strict=True)


@pytest.mark.parametrize("url", [CHAT_URL, COMPLETIONS_URL])
@pytest.mark.parametrize("finish", ["stop", "length", "repetition"])
@pytest.mark.parametrize("n", [1, 3])
def test_an_answer_is_of_the_official_type(
    tokenizer: HuggingFaceTokenizer, tokens: Tokens, url: str, finish: str, n: int
) -> None:
    ids = tokenizer.encode_bare(TEXT)
    for known in (tokens, BY_NUMBER):
        body = body_of(url, {}, known, *[generation(ids, finish=finish)] * n)
        assert len(body.choices) == n
        assert body.model == "small"
        assert body.usage.completion_tokens == n * len(ids)
    assert body_of(url, {"model": "m"}, tokens, generation(ids)).model == "m"


def test_bytes_of_all_tokens_are_the_bytes_of_the_text(
    tokenizer: HuggingFaceTokenizer, tokens: Tokens
) -> None:
    ids = tokenizer.encode_bare(TEXT)
    content = body_of(CHAT_URL, {}, tokens, generation(ids)).choices[0].logprobs.content
    assert bytes(b for entry in content for b in entry.bytes).decode() == TEXT
    assert content[0].token == " K"
    assert content[0].top_logprobs[0].token == " K"
    assert any(entry.token.startswith("bytes:\\x") for entry in content)
    assert content[-1].token == "<|im_end|>"
    assert content[0].top_logprobs[1].logprob == -9999.0


def test_completions_have_their_own_form(tokenizer: HuggingFaceTokenizer, tokens: Tokens) -> None:
    ids = tokenizer.encode_bare("one two")
    found = body_of(COMPLETIONS_URL, {}, tokens, generation(ids)).choices[0].logprobs
    assert found.tokens == ["one", " two"]
    assert found.text_offset == [0, 3]
    assert found.top_logprobs[0]["one"] == -0.5
    split = tokenizer.encode_bare("\U0001f600 x")
    offsets = body_of(COMPLETIONS_URL, {}, tokens, generation(split)).choices[0].logprobs
    assert offsets.text_offset[-1] == 1  # of a letter that several tokens make


def test_a_call_is_of_the_official_type(tokens: Tokens) -> None:
    request = {"tools": [TOOL], "tool_choice": "required"}
    text = '[{"name": "f", "parameters": {"a": 1}}]'
    choice = body_of(CHAT_URL, request, tokens, generation([5], text)).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls[0].function.arguments == '{"a": 1}'
    cut = body_of(CHAT_URL, request, tokens, generation([5], "[{", "length")).choices[0]
    assert (cut.finish_reason, cut.message.content, cut.message.tool_calls) == (
        "length",
        "[{",
        None,
    )


def test_a_call_that_the_model_chose_is_of_the_official_type(tokens: Tokens) -> None:
    call = {"name": "f", "arguments": '{"a": 1}'}
    for calls, content, reason in (([call, call], None, "tool_calls"), ([], "no call", "length")):
        read = json.dumps({"content": content, "calls": calls})
        made = generation([5], "<tool_call>", "length")
        made = replace(made, finish=Finish("length", None, "<tool_call>", message=read))
        choice = body_of(CHAT_URL, {"tools": [TOOL]}, tokens, made).choices[0]
        assert (choice.finish_reason, choice.message.content) == (reason, content)
        found = [(c.id, c.function.arguments) for c in choice.message.tool_calls or ()]
        assert found == [(f"call_0_0_{n}", '{"a": 1}') for n in range(len(calls))]


def test_bytes_are_those_of_every_token_of_the_vocabulary(tokens: Tokens) -> None:
    """A token that is text by itself decodes to its bytes."""
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(str(MODEL))
    for token_id in range(0, 49152, 7):
        decoded = loaded.decode([token_id])
        if "\ufffd" not in decoded:
            assert tokens.bytes_of(token_id) == decoded.encode()
