"""The master problem: which columns, how often, and which nodes to buy for them.

    max  w sum_c value_c x_c - rent sum_o price_o n_o
    s.t. sum_c gpus_cs x_c <= gpus per node x sum_{o in g} n_o        for every shelf s of a group g
         n_o <= max nodes of o;  sum price_o n_o <= budget;  sum value_c x_c >= least throughput
         sum x_c >= least replicas;  spread cuts
    x, n integer (the LP relaxes both)

Nodes are counted in GPUs, on the shelves of `supply.py`, so that no packing variable is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.offering import SupplyGroup
from placement.estimate.stage_table import Array
from placement.search.quiet import stdout_is_ours
from placement.search.supply import Shelf, node_worth, nodes_needed

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
    most_replicas: int | None = None
    most_nodes: int | None = None
    spread_groups: frozenset[int] = frozenset()
    """Groups that some pipeline must do without."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Solution of the LP: value, and the worth of one GPU of each shelf (requests/s)."""

    objective: float
    x: Array
    gpu_worth: Array
    throughput_worth: float
    """Dual of the least throughput: added to the weight of a column's value."""
    replica_worth: float
    node_worth: float
    """Dual of the most nodes: requests/s that one node more would bring."""


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
    shelves: tuple[Shelf, ...]
    gpu_use: Array
    """GPUs of each shelf that a column takes: columns x shelves; the first ones are the groups."""

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
        with stdout_is_ours():
            solved: object = linprog(cost, A_ub=matrix, b_ub=upper, bounds=bounds, method="highs")
        found = cast("_LinearResult", solved)
        if found.status != 0:
            return None
        duals = -np.asarray(found.ineqlin.marginals, dtype=np.float64)
        x = np.asarray(found.x[: len(values)], dtype=np.float64)
        return Relaxation(
            objective=-float(found.fun),
            x=x,
            gpu_worth=duals[: len(self.shelves)],
            throughput_worth=float(duals[lower_rows["throughput"]]),
            replica_worth=float(duals[lower_rows["replicas"]]),
            node_worth=float(duals[lower_rows["nodes"]]) if "nodes" in lower_rows else 0.0,
        )

    def dual_bound(self, goal: Goal, worth: Array, relaxation: Relaxation) -> float:
        """Bound on every purchase of columns of which none beats its GPUs at this `worth`.

        The Lagrangian of the LP: what nodes are worth beyond their rent, and the budget at the
        price that makes the sum smallest. Cuts are left out, which only raises it.
        """
        prices, caps = self.prices, self.node_caps
        of_group = [g for g, group in enumerate(self.groups) for _ in group.offerings]
        node = node_worth(self.shelves, worth, len(self.groups))[of_group] - relaxation.node_worth
        fixed = relaxation.node_worth * float(goal.most_nodes or 0)
        fixed -= relaxation.throughput_worth * goal.least_throughput
        fixed -= relaxation.replica_worth * goal.least_replicas
        budget = goal.budget_usd_per_hour
        if budget is None:
            return fixed + float(caps @ np.maximum(node - goal.rent * prices, 0.0))
        # Piecewise linear in the budget's price: the least value is at a corner.
        corners = node / np.maximum(prices, 1e-12) - goal.rent
        tried = np.concatenate([[0.0], corners[np.isfinite(corners) & (corners > 0)]])
        left = np.maximum(node[None, :] - (goal.rent + tried[:, None]) * prices[None, :], 0.0)
        return fixed + float(np.min(left @ caps + tried * budget))

    def buy(self, values: Array, goal: Goal, *, gap: float, time_limit_s: float) -> Purchase | None:
        """The integer problem by HiGHS, or None where it is infeasible."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # late: as above

        matrix, upper, _ = self._rows(values, goal)
        cost = -self._objective(values, goal)
        limits = Bounds(
            np.zeros(len(cost)),
            np.concatenate([np.full(len(values), np.inf), self.node_caps]),
        )
        with stdout_is_ours():
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
        group_of = [g for g, group in enumerate(self.groups) for _ in group.offerings]
        supply = np.array(
            [[-float(s.per_node) if s.group == g else 0.0 for g in group_of] for s in self.shelves]
        )
        none = np.zeros(num_columns)
        idle = np.zeros(num_offerings)
        extra: list[Array] = [
            np.concatenate([-values, idle]),
            np.concatenate([-np.ones(num_columns), idle]),
        ]
        right = [0.0] * len(supply) + [-goal.least_throughput, -float(goal.least_replicas)]
        names = {"throughput": len(supply), "replicas": len(supply) + 1}
        if goal.budget_usd_per_hour is not None:
            extra.append(np.concatenate([none, self.prices]))
            right.append(goal.budget_usd_per_hour)
        if goal.most_nodes is not None:
            names["nodes"] = len(right)
            extra.append(np.concatenate([none, np.ones(num_offerings)]))
            right.append(float(goal.most_nodes))
        if goal.most_replicas is not None:
            extra.append(np.concatenate([np.ones(num_columns), idle]))
            right.append(float(goal.most_replicas))
        for group in sorted(goal.spread_groups):
            without = (self.gpu_use[:, group] == 0).astype(float)
            extra.append(np.concatenate([-without, idle]))
            right.append(-1.0)
        top = np.concatenate([self.gpu_use.T, supply], axis=1)
        matrix = np.concatenate([top, np.array(extra)])
        return matrix, np.array(right), names


def cheapest_shelf_prices(groups: Sequence[SupplyGroup], shelves: Sequence[Shelf]) -> Array:
    """USD/h of one GPU of each shelf, on the group's cheapest offering: for all its stages on the
    first shelf, so that no column costs less than the sum over its GPUs."""
    prices = np.zeros(len(shelves))
    for s in range(len(groups)):
        prices[s] = groups[s].offerings[0].usd_per_hour / shelves[s].per_node
    return prices


def cheapest_price(
    groups: Sequence[SupplyGroup], shelves: Sequence[Shelf], gpu_use: Array
) -> float:
    """USD/h of the cheapest column in whole nodes."""
    price = np.array([g.offerings[0].usd_per_hour for g in groups])
    return float(np.min(nodes_needed(gpu_use, shelves, len(groups)) @ price))


def integer_solution(solved: object) -> Array | None:
    """The variables of scipy's `milp` result, or None where it found no solution."""
    return cast("_IntegerResult", solved).x
