"""Conversion of a small GGUF file that the test writes with llama.cpp's own layout."""

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from numpy.typing import NDArray
from safetensors.numpy import load_file

from shunt.demo_model.gguf_llama import LAYER_TENSORS, convert, unpermute

HEADS, KV_HEADS, HIDDEN = 2, 1, 64
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*SPECIAL_TOKENS, "h", "i", "hi", "Ġ", "1"]
ROWS = {"attn_k.weight": HIDDEN // HEADS * KV_HEADS, "attn_v.weight": HIDDEN // HEADS * KV_HEADS}


def llama_cpp_permute(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, *, pre: str = "smollm", untied: bool = False) -> None:
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL_TOKENS) + [1] * (len(TOKENS) - len(SPECIAL_TOKENS)))
    writer.add_token_merges(["h i"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    rng = np.random.default_rng(0)
    top = ["token_embd.weight", "output_norm.weight", *(["output.weight"] if untied else [])]
    for name in [*top, *(f"blk.0.{name}" for name in LAYER_TENSORS)]:
        rows = ROWS.get(name.removeprefix("blk.0."), HIDDEN)
        shape = (HIDDEN,) if "norm" in name else (rows, HIDDEN)
        values = rng.standard_normal(shape, dtype=np.float32)
        quantised = GGMLQuantizationType.F32 if "norm" in name else GGMLQuantizationType.Q4_1
        writer.add_tensor(name, quantize(values, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_unpermute_undoes_what_llama_cpp_did_to_query_and_key_rows() -> None:
    weight = np.arange(24 * 5, dtype=np.float32).reshape(24, 5)

    assert np.array_equal(unpermute(llama_cpp_permute(weight, 3), 3), weight)


def test_every_tensor_keeps_its_dequantised_value(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((HIDDEN, HIDDEN), dtype=np.float32)
    q4_1 = GGMLQuantizationType.Q4_1

    convert(tmp_path / "model.gguf", tmp_path)

    weights = load_file(tmp_path / "model.safetensors")
    assert len(weights) == 2 + len(LAYER_TENSORS)
    assert weights["model.layers.0.self_attn.k_proj.weight"].shape == (32, HIDDEN)
    expected = dequantize(quantize(embedding, q4_1), q4_1)
    assert np.array_equal(weights["model.embed_tokens.weight"], expected)


def test_query_and_key_are_unpermuted_with_their_own_number_of_heads(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")

    convert(tmp_path / "model.gguf", tmp_path)

    stored = _stored_tensors(tmp_path / "model.gguf")
    weights = load_file(tmp_path / "model.safetensors")
    for name, heads in (("q", HEADS), ("k", KV_HEADS)):
        converted = weights[f"model.layers.0.self_attn.{name}_proj.weight"]
        original = stored[f"blk.0.attn_{name}.weight"]
        assert np.array_equal(llama_cpp_permute(converted, heads), original)


def test_config_holds_the_sizes_and_special_tokens(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")

    convert(tmp_path / "model.gguf", tmp_path)

    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_attention_heads"] == HEADS
    assert config["num_key_value_heads"] == KV_HEADS
    assert config["head_dim"] == HIDDEN // HEADS
    assert config["rms_norm_eps"] == 1e-5
    assert config["tie_word_embeddings"] is True
    assert config["eos_token_id"] == 2


def test_an_output_projection_makes_the_model_untied(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", untied=True)

    convert(tmp_path / "model.gguf", tmp_path)

    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in load_file(tmp_path / "model.safetensors")


def test_an_unknown_tokenizer_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", pre="llama-bpe")

    with pytest.raises(ValueError, match=r"tokenizer.ggml.pre is 'llama-bpe'"):
        convert(tmp_path / "model.gguf", tmp_path)


def _stored_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    from gguf import GGUFReader

    return {
        tensor.name: dequantize(tensor.data, tensor.tensor_type)
        for tensor in GGUFReader(path).tensors
    }
