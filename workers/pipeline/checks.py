"""A pipeline that cannot run is refused before anything starts, and the stage is named."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shunt.errors import ShuntError
from workers.pipeline.stage_map import StageMap

KV_TOLERANCE = 0.05
"""Relative difference of the KV cache from the plan that is still called equal."""


class PipelineRefused(ShuntError):
    """The pipeline could not run as planned; nothing was started."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What a model's `config.json` says and a split has to respect."""

    num_layers: int
    num_heads: int
    num_kv_heads: int

    @classmethod
    def of_model(cls, model_path: str) -> Self:
        """Raises `PipelineRefused` where the directory has no config or it lacks a size."""
        path = Path(model_path) / "config.json"
        try:
            fields = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise PipelineRefused(f"{path} cannot be read: {error}") from error
        fields = fields.get("text_config", fields)
        try:
            heads = int(fields["num_attention_heads"])
            return cls(
                num_layers=int(fields["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(fields.get("num_key_value_heads") or heads),
            )
        except (KeyError, TypeError) as error:
            raise PipelineRefused(f"{path} does not say {error}") from error


def check_stages(stages: StageMap, model: ModelSizes) -> None:
    """Raises `PipelineRefused` for the first stage that cannot run."""
    for stage, (tp, layers) in enumerate(zip(stages.tp, stages.layers, strict=True)):
        if tp < 1 or layers < 1:
            raise PipelineRefused(f"stage {stage} has TP {tp} and {layers} layers: both must be 1+")
        if model.num_heads % tp:
            raise PipelineRefused(
                f"stage {stage}: TP {tp} does not divide the {model.num_heads} attention heads"
            )
        if model.num_kv_heads % tp and tp % model.num_kv_heads:
            raise PipelineRefused(
                f"stage {stage}: TP {tp} neither divides nor repeats the {model.num_kv_heads} "
                "key-value heads"
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


def check_gpus(stages: StageMap) -> None:
    """Raises `PipelineRefused` where two stages of a node want the same GPU."""
    taken: dict[tuple[int, int], int] = {}
    for stage, first in enumerate(stages.first_gpus):
        node = stages.nodes[stage]
        for gpu in range(first, first + stages.tp[stage]):
            if (node, gpu) in taken:
                raise PipelineRefused(
                    f"stage {stage} wants GPU {gpu} of node {node}, which stage "
                    f"{taken[node, gpu]} has"
                )
            taken[node, gpu] = stage


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
