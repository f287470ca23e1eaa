"""What fits on the GPUs of a stage: weights, activations, context, and the KV cache in the rest."""

from placement.catalogue.constants import EngineConstants
from placement.catalogue.model_shape import BYTES_16_BIT, ModelShape
from placement.estimate.stage_time import StageRole

# CUDA context, cuBLAS workspaces and captured graphs of one vLLM worker, beyond what its profile
# run counts as activations (vLLM logs 0.5 to 1.5 GiB for 8B to 70B models).
_CONTEXT_BYTES = 0.8e9
# Buffers of the all-reduce per rank when a stage is split.
_COLLECTIVE_BYTES = 0.3e9
# fp32 logits and their sorted copy, per sequence of the largest batch.
_LOGIT_COPIES = 2
_MAX_SEQUENCES = 256


def weight_bytes(shape: ModelShape, role: StageRole) -> float:
    """Bytes of weights on each GPU of the stage."""
    total = role.layers * shape.layer_bytes
    if role.first:
        total += shape.embedding_bytes
    if role.last and not (role.first and shape.tied_embeddings):
        total += shape.embedding_bytes
    return total / role.tp


def overhead_bytes(shape: ModelShape, role: StageRole, engine: EngineConstants) -> float:
    """Context, collective buffers and the activations of one full step, per GPU."""
    widest = max(2 * shape.intermediate / role.tp, shape.query_size / role.tp)
    per_token = (4 * shape.hidden + widest) * BYTES_16_BIT
    activations = min(engine.prefill_tokens, 8192) * per_token
    logits = 0.0
    if role.last:
        logits = _LOGIT_COPIES * 4.0 * _MAX_SEQUENCES * shape.vocab / role.tp
    return _CONTEXT_BYTES + (_COLLECTIVE_BYTES if role.tp > 1 else 0.0) + activations + logits


def kv_bytes_free(
    shape: ModelShape, role: StageRole, *, memory_bytes: float, engine: EngineConstants
) -> float:
    """Bytes left for the cache on each GPU; negative when the weights alone do not fit."""
    return (
        memory_bytes * engine.kv_memory_share
        - weight_bytes(shape, role)
        - overhead_bytes(shape, role, engine)
    )


def kv_tokens(
    shape: ModelShape, role: StageRole, *, memory_bytes: float, engine: EngineConstants
) -> float:
    """Tokens that the stage's cache holds (all of a token's layers on this stage)."""
    free = kv_bytes_free(shape, role, memory_bytes=memory_bytes, engine=engine)
    return free / (role.layers * shape.kv_bytes(role.tp))
