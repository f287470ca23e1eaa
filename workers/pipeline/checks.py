"""A pipeline that cannot run is refused before anything starts, and the stage is named."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from shunt.errors import ShuntError
from workers.pipeline.stage_map import StageMap

KV_TOLERANCE = 0.05
"""Relative difference of the KV cache from the plan that is still called equal."""
_RENAMED = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size",
}
_PLAIN_WIDTHS = ("intermediate_size", "intermediate_size_mlp")
_EXPERT_WIDTHS = ("moe_intermediate_size", "shared_expert_intermediate_size")
_VOCAB_PADDING = 64
"""vLLM pads embedding and output projection to a multiple (DEFAULT_VOCAB_PADDING_SIZE)."""


class PipelineRefused(ShuntError):
    """The pipeline could not run as planned; nothing was started."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What a model's `config.json` says and a split has to respect."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int = 0
    """0: not checked."""
    widths: tuple[tuple[str, int], ...] = ()
    """Inner sizes of the feed-forward layers, under the names that config.json gives them."""
    group_size: int = 0
    """Rows of a quantised weight that share a scale (GPTQ, AWQ); 0: not quantised so."""

    @classmethod
    def of_model(cls, model_path: str) -> Self:
        """Raises `PipelineRefused` where the directory has no config or it lacks a size."""
        fields = model_fields(model_path)
        try:
            heads = int(fields["num_attention_heads"])
            return cls(
                num_layers=int(fields["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(fields.get("num_key_value_heads") or heads),
                vocab_size=int(fields.get("vocab_size") or 0),
                widths=tuple(_widths(fields)),
                group_size=_group_size(fields.get("quantization_config") or {}),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PipelineRefused(f"{model_path}/config.json does not say {error}") from error


def model_fields(model_path: str) -> dict[str, Any]:
    """The language model's part of a `config.json`, older names turned into those of today.

    Raises `PipelineRefused` where there is none.
    """
    path = Path(model_path) / "config.json"
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PipelineRefused(f"{path} cannot be read: {error}") from error
    fields = fields.get("text_config", fields)
    return {_RENAMED.get(name, name): value for name, value in fields.items()}


def _widths(fields: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    # Where experts have a size of their own, few or no layers use the plain one.
    plain = () if fields.get("moe_intermediate_size") else _PLAIN_WIDTHS
    for name in (*plain, *_EXPERT_WIDTHS):
        if isinstance(width := fields.get(name), int) and width:
            yield name, width


def _group_size(quantization: Mapping[str, Any]) -> int:
    if quantization.get("quant_method") not in ("gptq", "awq"):
        return 0
    return max(0, int(quantization.get("group_size") or 0))  # -1: a group is a whole column


def check_stages(stages: StageMap, model: ModelSizes) -> None:
    """Raises `PipelineRefused` for the first stage that cannot run."""
    for stage, (tp, layers) in enumerate(zip(stages.tp, stages.layers, strict=True)):
        if tp < 1 or layers < 1:
            raise PipelineRefused(f"stage {stage} has TP {tp} and {layers} layers: both must be 1+")
        if problem := _indivisible(tp, model):
            raise PipelineRefused(f"stage {stage}: TP {tp} {problem}")
        if stage in (0, stages.num_stages - 1) and _padded(model.vocab_size) % tp:
            raise PipelineRefused(
                f"stage {stage}: TP {tp} does not divide the vocabulary of {model.vocab_size}, "
                f"padded to {_padded(model.vocab_size)}"
            )
    if sum(stages.layers) != model.num_layers:
        raise PipelineRefused(
            f"stage {stages.num_stages - 1} ends at layer {sum(stages.layers)}, but the model has "
            f"{model.num_layers}"
        )
    seen = -1
    for stage, node in enumerate(stages.nodes):
        if node not in (max(seen, 0), seen + 1):
            raise PipelineRefused(
                f"stage {stage} is on node {node} after node {max(seen, 0)}: a node's stages must "
                "follow each other, and the head must hold stage 0"
            )
        seen = node
    _check_addresses(stages)


def _indivisible(tp: int, model: ModelSizes) -> str | None:
    if model.num_heads % tp:
        return f"does not divide the {model.num_heads} attention heads"
    if model.num_kv_heads % tp and tp % model.num_kv_heads:
        return f"neither divides nor repeats the {model.num_kv_heads} key-value heads"
    for name, width in model.widths:
        if width % tp:
            return f"does not divide the {name} of {width}"
        if model.group_size and width // tp % model.group_size:
            return f"splits the {name} of {width} within groups of {model.group_size} weights"
    return None


def _padded(vocab_size: int) -> int:
    return -(-vocab_size // _VOCAB_PADDING) * _VOCAB_PADDING


def _check_addresses(stages: StageMap) -> None:
    if stages.num_nodes == 1:
        return
    if len(stages.addresses) != stages.num_nodes:
        raise PipelineRefused(
            f"{stages.num_nodes} nodes, but {len(stages.addresses)} addresses were given"
        )
    local = [address.startswith("127.") for address in stages.addresses]
    if all(local):
        return  # all on one machine
    if any(local):
        node = local.index(True)
        raise PipelineRefused(
            f"stage {stages.nodes.index(node)} is on node {node}, whose address "
            f"{stages.addresses[node]} no other node can reach"
        )


def check_gpus(stages: StageMap, *, num_gpus: int) -> None:
    """Raises `PipelineRefused` where two stages want one GPU, or this node has not that many.

    `num_gpus`: that this process may see.
    """
    taken: dict[tuple[str, int], int] = {}
    for stage, first in enumerate(stages.first_gpus):
        node = stages.nodes[stage]
        for gpu in range(first, first + stages.tp[stage]):
            place = (stages.addresses[node], gpu)
            if place in taken:
                raise PipelineRefused(
                    f"stage {stage} wants GPU {gpu} of node {node}, which stage {taken[place]} has"
                )
            taken[place] = stage
            if node == stages.node and gpu >= num_gpus:
                raise PipelineRefused(
                    f"stage {stage} wants GPU {gpu}, but node {node} has {num_gpus} GPUs"
                )


def check_memory(
    stages: StageMap,
    *,
    free_bytes: dict[int, int],
    weights_bytes: tuple[int, ...],
    cache_bytes: tuple[int, ...] = (),
) -> None:
    """Refuse a stage whose weights and least cache do not fit. `free_bytes` of one device.

    Only the stages that `free_bytes` names are looked at; the other two are of whole stages.
    """
    for stage, free in sorted(free_bytes.items()):
        weights = weights_bytes[stage] // stages.tp[stage]
        cache = cache_bytes[stage] // stages.tp[stage] if cache_bytes else 0
        if weights + cache >= free:
            raise PipelineRefused(
                f"stage {stage} has no memory left: {weights} bytes of weights and {cache} bytes "
                f"of KV cache per device, {free} bytes free"
            )


def kv_mismatch(expected_tokens: int, actual_tokens: int) -> str | None:
    """What to report where the cache is not as planned; None within `KV_TOLERANCE`."""
    if abs(actual_tokens - expected_tokens) <= expected_tokens * KV_TOLERANCE:
        return None
    if not expected_tokens:
        return None
    return f"KV cache holds {actual_tokens} tokens where the plan counted on {expected_tokens}"
