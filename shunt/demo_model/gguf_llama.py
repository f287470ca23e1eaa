"""Conversion of a GGUF file that holds a Llama with a byte-level BPE tokenizer.

The names and layouts of GGUF are those of llama.cpp's `convert_hf_to_gguf.py`; this undoes them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray

from shunt.demo_model.llama_files import LlamaShape, TokenIds, write_llama
from shunt.demo_model.tokenizer_files import Tokenizer, write_tokenizer

TOP_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_TENSORS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def convert(source: Path, directory: Path) -> None:
    """Write the model of the GGUF file `source` into `directory`, which exists.

    Raises ValueError for an architecture or a tokenizer that this conversion does not know.
    """
    reader = GGUFReader(source)
    _require(reader, "general.architecture", "llama")
    shape = _shape(reader)
    tokenizer = _tokenizer(reader)
    tokens = TokenIds(tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    write_tokenizer(tokenizer, directory)
    write_llama(directory, shape=shape, tokens=tokens, weights=dict(_weights(reader, shape)))


def read_tokenizer(source: Path) -> Tokenizer:
    """The tokenizer of the GGUF file `source`; raises ValueError as `convert` does."""
    return _tokenizer(GGUFReader(source))


def unpermute(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo llama.cpp's reordering of the rows of a query or key projection.

    Rotary embedding pairs row i of a head with row i + head_size / 2 in Hugging Face's layout, and
    with row i + 1 in llama.cpp's; `LlamaModel.permute` interleaves the two halves of each head.
    """
    rows, columns = weight.shape
    return (
        weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def _weights(reader: GGUFReader, shape: LlamaShape) -> Iterator[tuple[str, NDArray[np.float32]]]:
    heads_of_permuted = {"attn_q.weight": shape.heads, "attn_k.weight": shape.kv_heads}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in TOP_TENSORS:
            yield TOP_TENSORS[tensor.name], weight
            continue
        _, layer, kind = tensor.name.split(".", 2)
        if kind in heads_of_permuted:
            weight = unpermute(weight, heads_of_permuted[kind])
        yield f"model.layers.{layer}.{LAYER_TENSORS[kind]}", weight


def _shape(reader: GGUFReader) -> LlamaShape:
    epsilon = np.float32(_field(reader, "llama.attention.layer_norm_rms_epsilon"))
    return LlamaShape(
        layers=_field(reader, "llama.block_count"),
        heads=_field(reader, "llama.attention.head_count"),
        kv_heads=_field(reader, "llama.attention.head_count_kv"),
        hidden_size=_field(reader, "llama.embedding_length"),
        intermediate_size=_field(reader, "llama.feed_forward_length"),
        vocab_size=_field(reader, "llama.vocab_size"),
        context_length=_field(reader, "llama.context_length"),
        rope_theta=_field(reader, "llama.rope.freq_base"),
        # Stored as float32; the shortest decimal that rounds to it is the number that was meant.
        rms_norm_eps=float(str(epsilon)),
        tied=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )


def _tokenizer(reader: GGUFReader) -> Tokenizer:
    _require(reader, "tokenizer.ggml.model", "gpt2")
    _require(reader, "tokenizer.ggml.pre", "smollm")
    return Tokenizer(
        tokens=_field(reader, "tokenizer.ggml.tokens"),
        token_types=_field(reader, "tokenizer.ggml.token_type"),
        merges=_field(reader, "tokenizer.ggml.merges"),
        bos_token_id=_field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_field(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=_field(reader, "tokenizer.ggml.padding_token_id"),
        unknown_token_id=_field(reader, "tokenizer.ggml.unknown_token_id"),
        chat_template=_field(reader, "tokenizer.chat_template"),
        context_length=_field(reader, "llama.context_length"),
    )


def _require(reader: GGUFReader, key: str, expected: str) -> None:
    actual = _field(reader, key)
    if actual != expected:
        raise ValueError(f"{key} is {actual!r}; this conversion knows {expected!r} only")


def _field(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise ValueError(f"the GGUF file has no {key}")
    return field.contents()
