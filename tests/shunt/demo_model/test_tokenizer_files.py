"""SmolLM2's tokenizer as transformers reads it."""

import json

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from shunt.demo_model.gguf_llama import read_tokenizer
from shunt.demo_model.smollm2 import smollm2_gguf
from shunt.demo_model.tokenizer_files import write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(read_tokenizer(smollm2_gguf()), directory)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize(
    "text",
    [
        "Plain words, and punctuation!",
        "naïve café — 日本語 🎉",
        "tabs\tand\r\nlines\n\n  and runs   of blanks ",
        "<|im_start|>user\nHi<|im_end|>",
    ],
)
def test_decoding_gives_back_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_are_split_from_the_blanks_before_them(tokenizer: PreTrainedTokenizerFast) -> None:
    """SmolLM2 was trained that way; GPT-2's splitting alone would keep one blank for the number."""
    assert tokenizer.tokenize("in  2024") == ["in", "ĠĠ", "2", "0", "2", "4"]


def test_known_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.encode("You are a helpful") == [2683, 359, 253, 5356]
    assert tokenizer.encode("<|endoftext|><|im_start|><|im_end|>") == [0, 1, 2]


def test_chat_template_is_chatml_with_smollms_system_prompt(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )

    assert rendered == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_special_tokens_are_known_by_role(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.bos_token == "<|im_start|>"
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.decode([1, 2683, 2], skip_special_tokens=True) == "You"
    assert tokenizer.model_max_length == 8192
