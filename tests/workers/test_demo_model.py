"""The converted SmolLM2 in real vLLM: a wrong permutation or tokenizer would make it babble."""

import pytest

from shunt.demo_model.smollm2 import ensure_smollm2

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def answers() -> list[str]:
    from vllm import LLM, SamplingParams  # only in the worker's environment

    llm = LLM(
        str(ensure_smollm2()),
        enforce_eager=True,
        max_model_len=256,
        dtype="float32",
        gpu_memory_utilization=0.1,
        max_num_seqs=2,
    )
    questions = ["What is the capital of France?", "Name the largest planet of the solar system."]
    chats = [[{"role": "user", "content": question}] for question in questions]
    outputs = llm.chat(chats, SamplingParams(temperature=0, max_tokens=30), use_tqdm=False)
    return [output.outputs[0].text for output in outputs]


def test_it_knows_the_capital_of_france(answers: list[str]) -> None:
    assert "Paris" in answers[0]


def test_it_knows_the_largest_planet(answers: list[str]) -> None:
    assert "Jupiter" in answers[1]
