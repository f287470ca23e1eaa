"""The master problem: which columns, how often, and which nodes to buy for them.

    max  w sum_c value_c x_c - rent sum_o price_o n_o
    s.t. sum_c gpus_cg x_c <= gpus per node x sum_{o in g} n_o        for every supply group g
         n_o <= max nodes of o;  sum price_o n_o <= budget;  sum value_c x_c >= least throughput
         sum x_c >= least replicas;  spread cuts
    x, n integer (the LP relaxes both)

Nodes are counted in GPUs: stages take 1, 2, 4 or 8 GPUs of a node, and powers of two that fit in
number always fit in boxes of a larger power of two, so that no packing variable is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.offering import SupplyGroup
from placement.estimate.stage_table import Array, Unit

# A rent so small that it never outweighs throughput, yet leaves unused nodes unbought.
FREE_RENT = 1e-7


class _Duals(Protocol):
    marginals: Array


class _LinearResult(Protocol):
    """What we read of scipy's `linprog` result, which it leaves untyped."""

    status: int
    x: Array
    fun: float
    ineqlin: _Duals


class _IntegerResult(Protocol):
    """What we read of scipy's `milp` result."""

    x: Array | None
    fun: float
    mip_dual_bound: float | None


@dataclass(frozen=True, slots=True)
class Goal:
    """The linear objective and side constraints of one master solve."""

    throughput_weight: float = 1.0
    rent: float = FREE_RENT
    """Requests/s that one USD/h must earn."""
    budget_usd_per_hour: float | None = None
    least_throughput: float = 0.0
    least_replicas: int = 0
    most_nodes: int | None = None
    spread_groups: frozenset[int] = frozenset()
    """Groups that some pipeline must do without."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Solution of the LP: value, and the worth of one GPU of each group (requests/s)."""

    objective: float
    x: Array
    gpu_worth: Array
    throughput_worth: float
    """Dual of the least throughput: added to the weight of a column's value."""
    replica_worth: float


@dataclass(frozen=True, slots=True)
class Purchase:
    """An integer solution: copies of each column, nodes of each offering (group by group)."""

    objective: float
    ceiling: float
    x: NDArray[np.int64]
    nodes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Master:
    """The columns' uses and the market, fixed; values and goals vary from solve to solve."""

    groups: tuple[SupplyGroup, ...]
    gpu_use: Array
    """GPUs of each group that a column takes: columns x groups."""

    @property
    def prices(self) -> Array:
        return np.array([o.usd_per_hour for g in self.groups for o in g.offerings])

    @property
    def node_caps(self) -> Array:
        return np.array([float(o.max_nodes) for g in self.groups for o in g.offerings])

    def relax(self, values: Array, goal: Goal) -> Relaxation | None:
        """The LP, or None where it is infeasible."""
        # Late: half a second of imports, and few commands solve anything.
        from scipy.optimize import linprog

        matrix, upper, lower_rows = self._rows(values, goal)
        cost = -self._objective(values, goal)
        bounds = [(0, None)] * len(values) + [(0, cap) for cap in self.node_caps]
        found = cast(
            "_LinearResult",
            linprog(cost, A_ub=matrix, b_ub=upper, bounds=bounds, method="highs"),
        )
        if found.status != 0:
            return None
        duals = -np.asarray(found.ineqlin.marginals, dtype=np.float64)
        x = np.asarray(found.x[: len(values)], dtype=np.float64)
        num_groups = len(self.groups)
        return Relaxation(
            objective=-float(found.fun),
            x=x,
            gpu_worth=duals[:num_groups],
            throughput_worth=float(duals[lower_rows["throughput"]]),
            replica_worth=float(duals[lower_rows["replicas"]]),
        )

    def buy(self, values: Array, goal: Goal, *, gap: float, time_limit_s: float) -> Purchase | None:
        """The integer problem by HiGHS, or None where it is infeasible."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # late: as above

        matrix, upper, _ = self._rows(values, goal)
        cost = -self._objective(values, goal)
        limits = Bounds(
            np.zeros(len(cost)),
            np.concatenate([np.full(len(values), np.inf), self.node_caps]),
        )
        solved: object = milp(
            cost,
            constraints=LinearConstraint(matrix, -np.inf, upper),
            bounds=limits,
            integrality=np.ones(len(cost), dtype=np.int64),
            options={"mip_rel_gap": gap, "time_limit": time_limit_s},
        )
        found = cast("_IntegerResult", solved)
        if found.x is None:
            return None
        whole = np.rint(np.asarray(found.x, dtype=np.float64)).astype(np.int64)
        ceiling = -float(found.mip_dual_bound) if found.mip_dual_bound is not None else np.inf
        return Purchase(-float(found.fun), ceiling, whole[: len(values)], whole[len(values) :])

    def _objective(self, values: Array, goal: Goal) -> Array:
        return np.concatenate([goal.throughput_weight * values, -goal.rent * self.prices])

    def _rows(self, values: Array, goal: Goal) -> tuple[Array, Array, dict[str, int]]:
        """Constraint matrix (all rows <=), right-hand sides, and where the named rows are."""
        num_columns, num_offerings = len(values), len(self.prices)
        supply = np.zeros((len(self.groups), num_offerings))
        at = 0
        for g, group in enumerate(self.groups):
            for _ in group.offerings:
                supply[g, at] = -group.instance.gpu_count
                at += 1
        none = np.zeros(num_columns)
        idle = np.zeros(num_offerings)
        extra: list[Array] = [
            np.concatenate([-values, idle]),
            np.concatenate([-np.ones(num_columns), idle]),
        ]
        right = [0.0] * len(self.groups) + [-goal.least_throughput, -float(goal.least_replicas)]
        names = {"throughput": len(self.groups), "replicas": len(self.groups) + 1}
        if goal.budget_usd_per_hour is not None:
            extra.append(np.concatenate([none, self.prices]))
            right.append(goal.budget_usd_per_hour)
        if goal.most_nodes is not None:
            extra.append(np.concatenate([none, np.ones(num_offerings)]))
            right.append(float(goal.most_nodes))
        for group in sorted(goal.spread_groups):
            without = (self.gpu_use[:, group] == 0).astype(float)
            extra.append(np.concatenate([-without, idle]))
            right.append(-1.0)
        top = np.concatenate([self.gpu_use.T, supply], axis=1)
        matrix = np.concatenate([top, np.array(extra)])
        return matrix, np.array(right), names


def gpu_use_of(counts: NDArray[np.int64], units: Sequence[Unit], num_groups: int) -> Array:
    """GPUs per column and group."""
    use = np.zeros((len(counts), num_groups))
    for i, unit in enumerate(units):
        use[:, unit.group] += counts[:, i] * unit.tp
    return use


def cheapest_gpu_prices(groups: Sequence[SupplyGroup]) -> Array:
    """USD/h of one GPU of each group, on its cheapest offering."""
    return np.array([g.offerings[0].usd_per_hour / g.instance.gpu_count for g in groups])


def cheapest_price(groups: Sequence[SupplyGroup], gpu_use: Array) -> float:
    """USD/h of the cheapest column in whole nodes."""
    per_node = np.array([g.instance.gpu_count for g in groups])
    price = np.array([g.offerings[0].usd_per_hour for g in groups])
    return float(np.min(np.ceil(gpu_use / per_node - 1e-9) @ price))


def integer_solution(solved: object) -> Array | None:
    """The variables of scipy's `milp` result, or None where it found no solution."""
    return cast("_IntegerResult", solved).x
