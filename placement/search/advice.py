"""Why a model fits nowhere in a pool, and what would make it fit."""

import math
from dataclasses import replace

from placement.catalogue.model_shape import ModelShape, WeightFormat
from placement.catalogue.offering import SupplyGroup
from placement.errors import Infeasible
from placement.estimate.memory import overhead_bytes
from placement.estimate.roofline_model import RooflineModel
from placement.estimate.stage_time import StageRole
from placement.question.objective import Constraints
from placement.question.workload import Workload

_GB = 1e9


def why_infeasible(
    shape: ModelShape,
    workload: Workload,
    groups: tuple[SupplyGroup, ...],
    model: RooflineModel,
    constraints: Constraints,
) -> Infeasible:
    """An error that names the shortage, with changes that would each help."""
    if not groups:
        return Infeasible("no offering has a node to sell", ("raise max_nodes of some offering",))
    if not model.units:
        return Infeasible(
            f"no TP degree divides {shape.name}: {shape.num_heads} heads, "
            f"{shape.num_kv_heads} KV heads",
            ("allow TP 1 under plan.constraints.allowed_tp",),
        )
    usable = {g: _usable_bytes(shape, group, model) for g, group in enumerate(groups)}
    pool_bytes = sum(usable[g] * group.max_gpus for g, group in enumerate(groups))
    one_sequence = workload.max_context * shape.num_layers * shape.kv_bytes(1)
    needed = shape.total_bytes + one_sequence
    best = max(usable, key=lambda g: usable[g] * groups[g].instance.gpu_count)
    per_node = max(usable[best], 1.0) * groups[best].instance.gpu_count
    advice = [
        f"{math.ceil(needed / per_node)} nodes of {groups[best].instance.name} in one pipeline",
    ]
    if math.ceil(needed / per_node) > constraints.max_stages:
        advice.append(f"plan.constraints.max_stages above {constraints.max_stages}, or larger GPUs")
    if shape.weight_format is WeightFormat.BF16:
        for smaller in (WeightFormat.FP8, WeightFormat.INT4):
            size = replace(shape, weight_format=smaller).total_bytes
            advice.append(
                f"{smaller} weights: {size / _GB:.0f} GB instead of "
                f"{shape.total_bytes / _GB:.0f} GB"
            )
    if one_sequence > 0.2 * shape.total_bytes:
        advice.append(f"a max_context below {workload.max_context:.0f} tokens")
    return Infeasible(
        f"{shape.name} fits nowhere: weights of {shape.total_bytes / _GB:.1f} GB and "
        f"{one_sequence / _GB:.1f} GB of cache for one sequence of "
        f"{workload.max_context:.0f} tokens, against {max(pool_bytes, 0.0) / _GB:.1f} GB usable on "
        f"all GPUs offered, in at most {constraints.max_stages} stages",
        tuple(advice),
    )


def _usable_bytes(shape: ModelShape, group: SupplyGroup, model: RooflineModel) -> float:
    """Memory of one GPU after context and activations."""
    role = StageRole(1, 1, first=False, last=False)
    free = group.instance.gpu.memory_bytes * model.engine.kv_memory_share
    return free - overhead_bytes(shape, role, model.engine)
