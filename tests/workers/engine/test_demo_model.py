"""The converted SmolLM2 in real vLLM: a wrong permutation or tokenizer would make it babble."""

from collections.abc import Callable
from typing import Any

import pytest

from shunt.checkpoint.request import Request

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


async def test_it_knows_the_capital_of_france(
    engine: Any, tokenizer: Any, new_request: Callable[..., Request]
) -> None:
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)

    generation = await engine.generate(new_request(prompt, max_tokens=30))

    assert generation.finish.text == "The capital of France is Paris."
    assert generation.finish.finish_reason == "stop"
