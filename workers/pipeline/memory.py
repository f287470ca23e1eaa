"""What each stage needs and what its devices have, known before anything starts."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engine.config import KV_CACHE_SPACE, EngineConfig
from workers.pipeline.checks import PipelineRefused, check_memory, model_fields
from workers.pipeline.stage_map import StageMap

_LAYER = re.compile(r"\b(?:layers|h)\.(\d+)\.")
_EMBEDDING = re.compile(r"embed|\bwte\b|\bwpe\b")
_OUTPUT = "lm_head"
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Of the weights that are loaded in the model's own type; others stay as they are."""
_HEADER_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header."""
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class StageNeeds:
    """Bytes of each stage, over all of its ranks."""

    weights: tuple[int, ...]
    cache_per_token: tuple[int, ...]


def check_fit(config: EngineConfig, stages: StageMap, *, device: str) -> None:
    """Refuse stages of this node that their devices cannot hold. Raises `PipelineRefused`.

    On one machine all nodes' ranks count, as they share its memory.
    """
    needs = stage_needs(config, stages)
    one_machine = len(set(stages.addresses)) == 1
    mine = list(range(stages.num_stages)) if one_machine else stages.local_stages()
    num_ranks = sum(stages.tp[stage] for stage in mine)
    free = device_bytes(device, num_ranks=num_ranks, share=config.gpu_memory_utilization)
    reserved = _reserved_cache(device)
    tokens = config.max_model_len or 1
    check_memory(
        stages,
        free_bytes=dict.fromkeys(mine, free),
        weights_bytes=needs.weights,
        cache_bytes=tuple(reserved * tp or tokens * each for tp, each in _pairs(stages, needs)),
    )


def _pairs(stages: StageMap, needs: StageNeeds) -> "zip[tuple[int, int]]":
    return zip(stages.tp, needs.cache_per_token, strict=True)


def stage_needs(config: EngineConfig, stages: StageMap) -> StageNeeds:
    """From the headers of the model's safetensors files and its config.json."""
    fields = model_fields(config.model_path)
    item = _item_bytes(config.dtype)
    weights = [0] * stages.num_stages
    last = stages.num_stages - 1
    tensors = _tensors(Path(config.model_path), item)
    # A config.json leaves the flag out where it has its model class's default.
    tied = bool(fields.get("tie_word_embeddings")) or not any(_OUTPUT in t for t, _ in tensors)
    for name, size in tensors:
        if layer := _LAYER.search(name):
            weights[_stage_of(int(layer[1]), stages)] += size
        elif _EMBEDDING.search(name):
            weights[0] += size
            weights[last] += size if tied and last else 0
        else:
            weights[last] += size
    cache_item = _cache_item_bytes(config, item)
    return StageNeeds(
        weights=tuple(weights),
        cache_per_token=tuple(
            layers * _cached_numbers(fields, tp) * cache_item
            for layers, tp in zip(stages.layers, stages.tp, strict=True)
        ),
    )


def _cached_numbers(fields: dict[str, Any], tp: int) -> int:
    """Of a token in a layer, over all ranks; where TP exceeds the heads, several keep each."""
    if latent := fields.get("kv_lora_rank"):  # multi-head latent attention: every rank keeps it
        return tp * (int(latent) + int(fields.get("qk_rope_head_dim") or 0))
    heads = int(fields["num_attention_heads"])
    head_size = int(fields.get("head_dim") or fields["hidden_size"] // heads)
    return 2 * max(int(fields.get("num_key_value_heads") or heads), tp) * head_size


def cache_tokens(config: EngineConfig, stages: StageMap, *, bytes_per_rank: int) -> int:
    """Tokens that a cache of so many bytes on every rank holds: those of the smallest stage."""
    needs = stage_needs(config, stages)
    return min(bytes_per_rank * tp // each for tp, each in _pairs(stages, needs))


def device_bytes(device: str, *, num_ranks: int, share: float) -> int:
    """Memory that one rank may take: its part of the machine's, or its share of a GPU's."""
    if device == "cpu":
        return _available_bytes() // num_ranks
    # Reads it from the driver, without a CUDA context in this process.
    from vllm.platforms import current_platform

    return int(current_platform.get_device_total_memory() * share)


def visible_gpus() -> int:
    """That this process may see; read from the driver, as the memory is."""
    from vllm.platforms import current_platform

    count: Any = current_platform.device_count
    return int(count())


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise PipelineRefused("/proc/meminfo does not say what memory is available")


def _reserved_cache(device: str) -> int:
    """Of each CPU rank, where the environment says so; vLLM takes it whole at the start."""
    if device != "cpu":
        return 0
    return int(float(os.environ.get(KV_CACHE_SPACE, "0")) * _GIB)


def _item_bytes(dtype: str) -> int:
    """vLLM's `auto` turns float32 weights into a type of two bytes."""
    return 4 if dtype in ("float32", "float") else 2


def _cache_item_bytes(config: EngineConfig, item: int) -> int:
    return 1 if str(config.extra.get("kv_cache_dtype", "")).startswith("fp8") else item


def _stage_of(layer: int, stages: StageMap) -> int:
    end = 0
    for stage, count in enumerate(stages.layers):
        end += count
        if layer < end:
            return stage
    return stages.num_stages - 1  # more layers than the model counts, as of a draft head


def _tensors(directory: Path, item: int) -> list[tuple[str, int]]:
    """Name and loaded bytes of every weight. Empty for a model without safetensors files."""
    found: list[tuple[str, int]] = []
    for path in sorted(directory.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            first, end = tensor["data_offsets"]
            size = end - first
            if stored := _ITEM_BYTES.get(tensor["dtype"]):
                size = size // stored * item
            found.append((name, size))
    return found
