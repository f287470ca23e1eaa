"""An EC2 fleet held at a run's work: notices heeded, money and deadline watched, nothing left."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from shunt.aws.api import AwsError
from shunt.aws.errors import OutcomeUnknown, ThrottledError
from shunt.aws.money.meter import Meter
from shunt.aws.nodes.fleet import Ec2Fleet
from shunt.aws.nodes.inventory import NotGone
from shunt.aws.nodes.node_watch import NodeWatch
from shunt.aws.nodes.one_zone import gathered
from shunt.aws.nodes.pool import Blocklist, Pool, SlotSpec
from shunt.errors import ShuntError
from shunt.fleet.budget import Standing, Verdict, num_affordable, verdict
from shunt.fleet.notice import Notice, NoticeKind
from shunt.fleet.reconcile import Reconciler
from shunt.job.job import Ec2, Limits
from shunt.run.event import Event, EventKind
from shunt.run.node_status import NodeStatus
from shunt.run.spend import Spend
from shunt.run.status import RunStatus

log = logging.getLogger(__name__)

REPLACED_WITHIN_S = 900.0
"""A node that is left at the provider's advice goes on for so long while its replacement boots."""
EXPIRY_MARGIN = timedelta(minutes=10)
"""The controller ends nodes at the deadline; the deadline tag is for when there is none."""
HORIZON_S = 3600.0
"""What a new plan has to pay back in while nobody knows how long the run still takes."""
_LOOKS_PER_METER_READING = 6


@dataclass(frozen=True, slots=True)
class Remaining:
    """What of a run is still to do."""

    share: float
    """Of its rows."""
    horizon_s: float
    """How long it goes on, as far as anybody knows."""
    deadline_s: float | None
    """Seconds until its deadline."""


class Planner(Protocol):
    """Who knows better nodes when the market changes."""

    def replanned(
        self, remaining: Remaining, *, closed: Blocklist, holding: Mapping[str, Pool]
    ) -> tuple[Mapping[str, SlotSpec], str] | None:
        """Other slots, and why; None where those there are stay. `holding`: pools by slot."""
        ...


class RunRole(Protocol):
    """What gives the run's nodes their rights."""

    def make(self) -> str:
        """The launch template that carries them. May be called again."""
        ...

    def remove(self) -> None: ...


class NodesRemain(ShuntError):
    """A run's nodes could not be ended; they end themselves later."""

    def __init__(self, run_id: str, expires_at: datetime, reason: str) -> None:
        super().__init__(
            f"{reason}\nnodes of run {run_id} may be left: each ends itself when its work is done, "
            f"at the latest at {expires_at:%Y-%m-%d %H:%M} UTC. See `shunt nodes`; a new "
            "`shunt resume` takes them over, `shunt reap` ends them"
        )
        self.run_id = run_id


@dataclass(slots=True)
class HeldFleet:
    """What a drive holds while an EC2 fleet works. Leaving it ends every node and proves it.

    One look every `observe_interval_s`: a describe, what is in the queue, and launches; every
    sixth look, or when nodes changed, also the meter.
    """

    fleet: Ec2Fleet
    reconciler: Reconciler
    watch: NodeWatch
    meter: Meter
    settings: Ec2
    limits: Limits
    specs: Mapping[str, SlotSpec]
    """Of spot pools; on-demand takes their place when the slack is gone."""
    monotonic: Callable[[], float]
    now: Callable[[], datetime]
    """EC2's clock."""
    tell: Callable[[Event], None]
    planner: Planner | None = None
    role: RunRole | None = None
    """None: nodes have the rights of the job's launch template."""
    limit: str = ""
    """Why the nodes must go, once they must."""
    _next_s: float = 0.0
    _looks: int = 0
    _spend: Spend | None = None
    _metered: frozenset[str] = frozenset()
    _market: Verdict = Verdict.SPOT
    _closed: frozenset[tuple[str, str, str]] = frozenset()
    _has_role: bool = False
    _too_dear: int = 0
    """Nodes that were not bought at the last look, for the cost limit."""

    def __post_init__(self) -> None:
        self.reconciler.affordable = self._affordable

    def __enter__(self) -> "HeldFleet":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.fleet.ever_launched:
            self._end_nodes(error)
        if self.role is not None:
            try:
                self.role.remove()
            except AwsError as left:
                log.warning("role of the run not removed; shunt aws teardown does it: %s", left)

    def _end_nodes(self, error: BaseException | None) -> None:
        try:
            self.fleet.terminate()
            spend = self.meter.read()
        except (AwsError, NotGone) as second:
            first = f"{error}; then " if isinstance(error, ShuntError) else ""
            run_id, expires_at = self.fleet.run_id, self.fleet.expires_at
            raise NodesRemain(run_id, expires_at, f"{first}{second}") from second
        self._tell(
            EventKind.FLEET_ENDED,
            f"none of {spend.num_launched} nodes is left; they cost {spend.usd} USD",
        )

    @property
    def poll_s(self) -> float:
        """A status is read from the store at every pass, which costs requests too."""
        return self.settings.observe_interval_s

    def step(self, status: RunStatus, eta_s: float | None) -> None:
        """One look, when it is time for it. An EC2 that does not answer is asked again later: the
        nodes work on without us. Raises `AwsError` of the other classes, and `PriceUnknown`."""
        if self.monotonic() < self._next_s:
            return
        self._next_s = self.monotonic() + self.settings.observe_interval_s
        try:
            self._look(status, eta_s)
        except (ThrottledError, OutcomeUnknown) as error:
            log.warning("ec2 not reached: %s", error)

    def _look(self, status: RunStatus, eta_s: float | None) -> None:
        statuses = {node.node_id: node for node in status.nodes}
        holding = self.reconciler.holding.values()
        for notice in list(self.watch.news(frozenset(holding), statuses)):
            self._heed(notice, statuses)
        self._replan(status, eta_s)
        self._weigh(eta_s)
        if self.limit:
            return
        self.fleet.expires_at = self._expiry()
        self._gather()
        self._take_role()
        self.reconciler.step(status.output_tokens)
        self._looks += 1

    def _heed(self, notice: Notice, statuses: Mapping[str, NodeStatus]) -> None:
        """One event, whoever told it; then a replacement, at once."""
        node_id = notice.node_id
        told = f"({notice.source.value}, for {notice.at:%H:%M:%S})"
        match notice.kind:
            case NoticeKind.INTERRUPTION:
                self.fleet.blocklist.block(self.fleet.pool_of(node_id))
                self.reconciler.leave(node_id, f"notice {told}; a replacement is asked for")
            case NoticeKind.REBALANCE if self.settings.replace_at_rebalance:
                reason = f"advice to leave {told}; a replacement is asked for"
                self.fleet.blocklist.block(self.fleet.pool_of(node_id))
                self.reconciler.leave(node_id, reason, within_s=REPLACED_WITHIN_S)
            case NoticeKind.REBALANCE:
                self._tell(EventKind.REBALANCE, f"advice to leave {told}; it stays", node_id)
            case NoticeKind.LOST:
                never = node_id not in statuses
                what = "its worker never spoke" if never else "its worker is not heard of any more"
                self.reconciler.leave(node_id, f"{what}; ended", within_s=0.0, crashed=never)

    def _gather(self) -> None:
        """Nodes that work together are wanted in one zone, which may not be where they are."""
        found = gathered(self._specs_now(), self._pools(), self.fleet.blocklist)
        for slot, zone in found.moving.items():
            node_id = self.reconciler.holding[slot]
            self.reconciler.leave(
                node_id, f"not all of its pipeline is to be had here: moves to {zone}", within_s=0.0
            )
        self.fleet.specs = found.specs

    def _pools(self) -> dict[str, Pool]:
        """Of the nodes that hold a slot, by slot: one pass over all launches, at every look."""
        pools = {outcome.instance_id: outcome.pool for outcome in self.fleet.launched()}
        return {slot: pools[node_id] for slot, node_id in self.reconciler.holding.items()}

    def _take_role(self) -> None:
        """Before the first purchase: who only ends what was bought needs none."""
        if self.role is not None and not self._has_role:
            self.fleet.settings = replace(self.fleet.settings, template=self.role.make())
            self._has_role = True

    def _replan(self, status: RunStatus, eta_s: float | None) -> None:
        """When pools close or open, other nodes may be worth the switch."""
        closed = self.fleet.blocklist.closed()
        if self.planner is None or closed == self._closed:
            return
        self._closed = closed
        deadline = self.limits.deadline
        found = self.planner.replanned(
            Remaining(
                share=status.rows_left / max(1, status.rows_total),
                horizon_s=HORIZON_S if eta_s is None else eta_s,
                deadline_s=deadline and (deadline - self.now()).total_seconds(),
            ),
            closed=self.fleet.blocklist,
            holding=self._pools(),
        )
        if found is not None:
            self.specs, why = found
            self.reconciler.want(list(self.specs))
            self._tell(EventKind.MARKET, f"another plan: {why}")

    def _weigh(self, eta_s: float | None) -> None:
        """Whether to go on, and in which market."""
        spend = self._metered_spend()
        found = verdict(
            self._standing(spend, eta_s or 0.0),
            max_cost_usd=self.limits.max_cost_usd,
            deadline=self.limits.deadline,
            on_demand=self.settings.on_demand,
            startup_s=self.settings.startup_s,
        )
        if found is Verdict.STOP_COST:
            self.limit = (
                f"the cost limit of {self.limits.max_cost_usd:.2f} USD is reached: "
                f"{spend.usd} USD are spent, and the nodes must still drain"
            )
        elif found is Verdict.STOP_DEADLINE:
            assert self.limits.deadline is not None
            self.limit = f"the deadline {self.limits.deadline.isoformat()} has passed"
        elif found is not self._market:
            self._buy_in(found)

    def _standing(self, spend: Spend, remaining_s: float = 0.0) -> Standing:
        now, rate = self.now(), float(spend.usd_per_hour)
        since_h = max(0.0, (now - spend.at).total_seconds() / 3600)
        spent_usd = float(spend.usd) + rate * since_h
        return Standing(now=now, spent_usd=spent_usd, usd_per_hour=rate, remaining_s=remaining_s)

    def _affordable(self, slots: Sequence[str]) -> Sequence[str]:
        """As many as the cost limit has room for, and no part of a pipeline without the rest; the
        limit is reached where that is no node."""
        limit_usd = self.limits.max_cost_usd
        if limit_usd is None or not slots:
            return slots
        spend = self._metered_spend()
        rates = [float(self.meter.dearest(self.fleet.specs[slot].pools)) for slot in slots]
        number = num_affordable(rates, self._standing(spend), max_cost_usd=limit_usd)
        left_out = {self.fleet.specs[slot].group for slot in slots[number:]} - {""}
        bought = [slot for slot in slots[:number] if self.fleet.specs[slot].group not in left_out]
        if len(bought) < len(slots) and not bought and not spend.num_nodes:
            what = "all nodes of a pipeline" if left_out else "a node"
            self.limit = (
                f"the cost limit of {limit_usd:.2f} USD has no room for {what}: {spend.usd} USD "
                f"are spent, a node costs up to {rates[0]:.2f} USD an hour, one minute is "
                "billed at least, and five are kept back for its end"
            )
        elif (too_dear := len(slots) - len(bought)) != self._too_dear:
            self._too_dear = too_dear
            if too_dear:
                room = f"the cost limit has no room for {too_dear} of the nodes that are wanted"
                self._tell(EventKind.MARKET, room)
        return bought

    def _metered_spend(self) -> Spend:
        holding = frozenset(self.reconciler.holding.values())
        due = self._looks % _LOOKS_PER_METER_READING == 0 or holding != self._metered
        if self._spend is None or due:
            self._spend, self._metered = self.meter.read(), holding
        return self._spend

    def _buy_in(self, market: Verdict) -> None:
        self._market = market
        if market is Verdict.SPOT:
            self._tell(EventKind.MARKET, "spot again: the deadline has slack")
            return
        self._tell(
            EventKind.MARKET, "on-demand from now on: new spot nodes might miss the deadline"
        )
        self.reconciler.ask_again()

    def _specs_now(self) -> Mapping[str, SlotSpec]:
        always = self.settings.on_demand == "head"
        return {
            name: on_demand_spec(spec)
            if self._market is not Verdict.SPOT or (always and spec.heads)
            else spec
            for name, spec in self.specs.items()
        }

    def _expiry(self) -> datetime:
        longest = self.now() + timedelta(hours=self.settings.max_node_hours)
        deadline = self.limits.deadline
        return longest if deadline is None else min(longest, deadline + EXPIRY_MARGIN)

    def _tell(self, kind: EventKind, detail: str, node_id: str = "") -> None:
        self.tell(Event(at=self.now(), kind=kind, node_id=node_id, detail=detail))


def on_demand_spec(spec: SlotSpec) -> SlotSpec:
    """The same slot from on-demand nodes."""
    pools = tuple(pool._replace(market="on-demand") for pool in spec.pools)
    return replace(spec, pools=tuple(dict.fromkeys(pools)))
