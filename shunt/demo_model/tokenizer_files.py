"""The tokenizer of a GGUF file, as the files that Hugging Face's tokenizers read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTROL_TOKEN = 3
"""`LLAMA_TOKEN_TYPE_CONTROL` of llama.cpp: a special token."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A byte-level BPE tokenizer with SmolLM2's splitting: single digits, then GPT-2's regex."""

    tokens: Sequence[str]
    """Token text by id, in the byte-to-unicode alphabet of GPT-2."""
    token_types: Sequence[int]
    merges: Sequence[str]
    """`left right` pairs, in the order in which they apply."""
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    unknown_token_id: int
    chat_template: str
    context_length: int

    @property
    def special_token_ids(self) -> list[int]:
        return [i for i, kind in enumerate(self.token_types) if kind == CONTROL_TOKEN]


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    _write_json(directory / "tokenizer.json", _fast_tokenizer(tokenizer))
    _write_json(directory / "tokenizer_config.json", _settings(tokenizer))


def _fast_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, **_special(tokenizer.tokens[i])} for i in tokenizer.special_token_ids
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokenizer.tokens)},
            "merges": list(tokenizer.merges),
        },
    }


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        # The generic class takes tokenizer.json as it stands; GPT2Tokenizer would build its own
        # splitting, which does not split numbers into digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): _special(tokenizer.tokens[i]) for i in tokenizer.special_token_ids
        },
        "bos_token": tokenizer.tokens[tokenizer.bos_token_id],
        "eos_token": tokenizer.tokens[tokenizer.eos_token_id],
        "pad_token": tokenizer.tokens[tokenizer.pad_token_id],
        "unk_token": tokenizer.tokens[tokenizer.unknown_token_id],
        "chat_template": tokenizer.chat_template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": tokenizer.context_length,
    }


def _special(token: str) -> dict[str, Any]:
    return {
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
