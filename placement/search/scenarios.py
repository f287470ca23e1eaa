"""Plans under recorded availability: the mean over windows, and the mean of the worst of them.

A scenario says how many nodes of each group exist in one window of a trace. Pipelines whose nodes
are short stand still there; the best of those bought run. The choice maximises

    (1 - w) mean_s(T_s) + w CVaR_a(T_s),   CVaR_a = max_eta  eta - E[max(0, eta - T_s)] / a

as one MILP: x_c copies are bought, z_cs <= x_c of them run in scenario s (a stochastic set packing
over the same columns; Rockafellar and Uryasev 2000 for the CVaR term). z is continuous, so that T_s
counts fractions of a pipeline; `score` counts whole ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.hardware import positive, rows_of
from placement.catalogue.offering import SupplyGroup
from placement.errors import BadInput
from placement.estimate.stage_table import Array
from placement.question.objective import RiskAversion
from placement.search.master import integer_solution


@dataclass(frozen=True, slots=True)
class Scenarios:
    """Nodes that exist: scenarios x groups, equally likely."""

    nodes: Array


@dataclass(frozen=True, slots=True)
class Score:
    """Requests/s of a purchase over the scenarios."""

    mean: float
    tail_mean: float
    worst: float


def read_scenarios(file: Path, groups: Sequence[SupplyGroup]) -> Scenarios:
    """Scenarios from a CSV of `scenario,instance_type,nodes`; groups not named keep their nodes.

    Raises `BadInput`.
    """
    rows = [row for _, row in rows_of(file)]
    names = list(dict.fromkeys(row.get("scenario", "") for row in rows))
    if not names:
        raise BadInput(f"scenarios {file.name}: no rows")
    nodes = np.tile(np.array([float(g.max_nodes) for g in groups]), (len(names), 1))
    known = {group.instance.name: g for g, group in enumerate(groups)}
    for row in rows:
        g = known.get(row.get("instance_type", ""))
        if g is None:
            raise BadInput(
                f"scenarios {file.name}: {row.get('instance_type')!r} is not offered; offered are "
                f"{', '.join(sorted(known))}"
            )
        count = positive(file.name, row, "nodes", optional=True)
        nodes[names.index(row.get("scenario", "")), g] = min(count, groups[g].max_nodes)
    return Scenarios(nodes)


def choose(
    values: Array,
    gpu_use: Array,
    groups: Sequence[SupplyGroup],
    scenarios: Scenarios,
    risk: RiskAversion,
    *,
    time_limit_s: float = 20.0,
) -> Array | None:
    """Copies of each column that are best over the scenarios, or None where none can be bought.

    Variables: x (columns, integer), z (scenarios x columns), eta, shortfall (scenarios).
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # late: see master.py

    num_columns, num_scenarios = len(values), len(scenarios.nodes)
    per_node = np.array([float(g.instance.gpu_count) for g in groups])
    pool = np.array([float(g.max_gpus) for g in groups])
    size = num_columns * (1 + num_scenarios) + 1 + num_scenarios
    eta = num_columns * (1 + num_scenarios)
    reward = np.zeros(size)
    for s in range(num_scenarios):
        reward[_z(s, num_columns)] = (1 - risk.weight) / num_scenarios * values
    reward[eta] = risk.weight
    reward[eta + 1 :] = -risk.weight / (risk.tail * num_scenarios)
    rows: list[Array] = []
    right: list[float] = []
    for g in range(len(groups)):
        row = np.zeros(size)
        row[:num_columns] = gpu_use[:, g]
        rows.append(row)
        right.append(float(pool[g]))
        for s in range(num_scenarios):
            row = np.zeros(size)
            row[_z(s, num_columns)] = gpu_use[:, g]
            rows.append(row)
            right.append(float(scenarios.nodes[s, g] * per_node[g]))
    for s in range(num_scenarios):
        for c in range(num_columns):
            row = np.zeros(size)
            row[num_columns * (1 + s) + c], row[c] = 1.0, -1.0
            rows.append(row)
            right.append(0.0)
        # eta - T_s <= shortfall_s
        row = np.zeros(size)
        row[_z(s, num_columns)] = -values
        row[eta], row[eta + 1 + s] = 1.0, -1.0
        rows.append(row)
        right.append(0.0)
    integrality = np.zeros(size, dtype=np.int64)
    integrality[:num_columns] = 1
    solved: object = milp(
        -reward,
        constraints=LinearConstraint(np.array(rows), -np.inf, np.array(right)),
        bounds=Bounds(np.zeros(size), np.full(size, np.inf)),
        integrality=integrality,
        options={"time_limit": time_limit_s, "mip_rel_gap": 1e-3},
    )
    x = integer_solution(solved)
    return None if x is None else np.rint(x[:num_columns])


def _z(scenario: int, num_columns: int) -> slice:
    return slice(num_columns * (1 + scenario), num_columns * (2 + scenario))


def score(
    values: Array,
    gpu_use: Array,
    groups: Sequence[SupplyGroup],
    copies: NDArray[np.float64] | NDArray[np.int64],
    scenarios: Scenarios,
    *,
    tail: float = 0.2,
) -> Score:
    """Requests/s of whole pipelines: in each scenario the fastest that still fit keep running."""
    per_node = np.array([float(g.instance.gpu_count) for g in groups])
    order = np.argsort(-values, kind="stable")
    totals: list[float] = []
    for nodes in scenarios.nodes:
        left = nodes * per_node
        total = 0.0
        for c in order:
            for _ in range(int(copies[c])):
                if np.all(gpu_use[c] <= left + 1e-9):
                    left = left - gpu_use[c]
                    total += float(values[c])
        totals.append(total)
    ranked = np.sort(np.array(totals))
    count = max(1, round(tail * len(ranked)))
    return Score(float(ranked.mean()), float(ranked[:count].mean()), float(ranked[0]))
