"""An EC2 fleet held at a run's work: notices heeded, nodes bought and given back, nothing left."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from shunt.aws.errors import AwsError, CredentialsRefused, OutcomeUnknown, ThrottledError
from shunt.aws.money.meter import Meter
from shunt.aws.money.purse import Purse
from shunt.aws.nodes.fleet import Ec2Fleet
from shunt.aws.nodes.idle_nodes import IdleNodes, num_open_shards
from shunt.aws.nodes.node_watch import NodeWatch
from shunt.aws.nodes.one_zone import gathered
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.aws.nodes.replanning import Planner, Remaining, Replanning
from shunt.aws.nodes.teardown import NodesRemain, RunRole, end_run
from shunt.fleet.budget import Verdict
from shunt.fleet.notice import Notice, NoticeKind
from shunt.fleet.reconcile import Reconciler
from shunt.job.job import Ec2, Limits
from shunt.run.driver import DrivenElsewhere, DriverLease, Hold
from shunt.run.event import Event, EventKind
from shunt.run.node_status import NodeStatus
from shunt.run.spend import Spend
from shunt.run.status import RunStatus
from shunt.store.patience import STORE_PATIENCE_S

log = logging.getLogger(__name__)

REPLACED_WITHIN_S = 900.0
"""A node that is left at the provider's advice goes on for so long while its replacement boots."""
FRESH_S = 300.0
"""IAM is consistent later: EC2 may refuse an instance profile for so long after it was made."""
HORIZON_S = 3600.0
"""What a new plan has to pay back in while nobody knows how long the run still takes."""
SLACK_FOR_S = 600.0
"""Slack has to last for so long before an on-demand node is given back for it."""
RENEW_BEFORE = timedelta(minutes=30)
"""The deadline tag of a node that still may work is moved when it is so near."""
RENEW_BY = timedelta(minutes=5)
"""And only by so much at least."""
LOGIN_PATIENCE_S = STORE_PATIENCE_S
"""How long credentials that lapsed while nodes work are waited for."""
_LOOKS_PER_METER_READING = 6
_LOOKS_PER_PLAN = 36
"""Three minutes, at an interval of five seconds."""


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
    workers_a_node: int = 1
    """Of a fleet without a plan."""
    planner: Planner | None = None
    role: RunRole | None = None
    """None: nodes have the rights of the job's launch template."""
    lease: DriverLease | None = None
    """Who lost it to another driver of the run ends nothing."""
    purse: Purse = field(init=False)
    _replanning: Replanning | None = None
    _idle: IdleNodes = field(init=False)
    _next_s: float = 0.0
    _looks: int = 0
    _open_shards: int | None = None
    """None: not known, so every place is wanted."""
    _read_at: datetime | None = None
    """When the last status was read."""
    _has_role: bool = False
    _returning: dict[str, str] = field(default_factory=dict[str, str])
    """On-demand nodes that spot nodes are to replace, by slot."""
    _slack_since_s: float | None = None
    _queue_told: bool = False
    _refused_since_s: float | None = None
    """Since when our credentials are refused."""

    def __post_init__(self) -> None:
        self.reconciler.affordable = self._to_buy
        self.purse = Purse(self.meter, self.settings, self.limits, self.now, self._tell)
        self._idle = IdleNodes(self.monotonic)
        if self.planner is not None:
            every_s = _LOOKS_PER_PLAN * self.settings.observe_interval_s
            self._replanning = Replanning(self.planner, self.monotonic, every_s)

    def __enter__(self) -> "HeldFleet":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._replanning is not None:
            self._replanning.close()
        hold = Hold.HELD if self.lease is None else self.lease.look()
        end_run(self.fleet, self.meter, self.role, hold, error=error, tell=self._tell)

    @property
    def limit(self) -> str:
        """Why the nodes must go, once they must."""
        return self.purse.limit

    @property
    def poll_s(self) -> float:
        """A status is read from the store at every pass, which costs requests too."""
        return self.settings.observe_interval_s

    @property
    def num_workers(self) -> int:
        """Of the fleet as wanted."""
        if self.planner is not None:
            return self.planner.num_workers
        return len(self.specs) * self.workers_a_node

    def step(self, status: RunStatus, left_s: float | None) -> None:
        """One look, when it is time for it. An EC2 that does not answer is asked again later: the
        nodes work on without us. `left_s`: of the work, with the fleet as wanted; None where no
        token was made yet.

        Raises `AwsError` of the other classes, `PriceUnknown` and `DrivenElsewhere`.
        """
        if self.monotonic() < self._next_s:
            return
        self._next_s = self.monotonic() + self.settings.observe_interval_s
        if self.lease is not None:
            self.lease.passed()
        if self.lease is not None and self.lease.lost:
            raise DrivenElsewhere(self.fleet.run_id, "it took over while this one was not heard of")
        try:
            self._look(status, left_s)
        except (ThrottledError, OutcomeUnknown) as error:
            log.warning("ec2 not reached: %s", error)
        except CredentialsRefused as error:
            self._wait_for_login(error)
        else:
            self._refused_since_s = None

    def _wait_for_login(self, error: CredentialsRefused) -> None:
        """Credentials lapse in the middle of a night; without them the nodes cannot be ended."""
        since_s = self.monotonic() if self._refused_since_s is None else self._refused_since_s
        if self._looks == 0 or self.monotonic() - since_s >= LOGIN_PATIENCE_S:
            raise error
        if self._refused_since_s is None:
            what = f"{error}. The nodes work on; log in again within {LOGIN_PATIENCE_S:.0f} s"
            self._tell(EventKind.MARKET, what)
        self._refused_since_s = since_s

    def _look(self, status: RunStatus, left_s: float | None) -> None:
        statuses = {node.node_id: node for node in status.nodes}
        holding = frozenset(self.reconciler.holding.values())
        fresh, self._read_at = status.read_at != self._read_at, status.read_at
        for notice in list(self.watch.news(holding, statuses, fresh=fresh)):
            self._heed(notice, statuses)
        self._tell_queue()
        self._open_shards = None if self.fleet.recheck else num_open_shards(status)
        if self._open_shards == 0:
            self.reconciler.finish_empty()
        self._replan(status, left_s)
        spend, left_s = self._spend(), self._work_left_s(status, left_s)
        if self.purse.weigh(spend, left_s) and self.purse.market is not Verdict.SPOT:
            self.reconciler.ask_again()
        if self.limit:
            return
        self._give_back(left_s)
        if fresh:
            self._release_idle(status)
        self._gather()
        self._set_expiry(spend)
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

    def _tell_queue(self) -> None:
        fault = self.watch.queue_fault
        if fault and not self._queue_told:
            what = f"the notice queue cannot be read, nodes see their notices themselves: {fault}"
            self._tell(EventKind.MARKET, what)
        self._queue_told = bool(fault)

    def _replan(self, status: RunStatus, left_s: float | None) -> None:
        """When pools close or open, other nodes may be worth the switch."""
        if self._replanning is None:
            return
        deadline = self.limits.deadline
        remaining = Remaining(
            share=status.rows_left / max(1, status.rows_total),
            horizon_s=HORIZON_S if left_s is None else left_s,
            deadline_s=deadline and (deadline - self.now()).total_seconds(),
        )
        self._replanning.ask(remaining, self.fleet.blocklist, self._pools())
        if (found := self._replanning.answer()) is not None:
            self.specs, why = found
            self.reconciler.want(list(self.specs))
            self._tell(EventKind.MARKET, f"another plan: {why}")

    def _work_left_s(self, status: RunStatus, left_s: float | None) -> float:
        """Where no token was made yet: by the plan, and without one, where spot has refused us
        and nobody works, all the time that is left. A node that starts is waited for."""
        if left_s is not None:
            return left_s
        if self.planner is not None:
            return self.planner.whole_s * status.rows_left / max(1, status.rows_total)
        deadline = self.limits.deadline
        if deadline is None or self.reconciler.holding or not self.reconciler.refused:
            return 0.0
        return max(0.0, (deadline - self.now()).total_seconds())

    def _give_back(self, left_s: float) -> None:
        """Nodes bought on demand in a drought leave, one at a time, once spot nodes can be had and
        would do. Each works on until its replacement does; where there is none after all, it
        stays."""
        slack = self.purse.has_slack(left_s)
        self._settle_returning(slack=slack)
        if not slack:
            self._slack_since_s = None
            return
        if self._slack_since_s is None:
            self._slack_since_s = self.monotonic()
        if self._returning or self.monotonic() - self._slack_since_s < SLACK_FOR_S:
            return
        for slot, pool in self._pools().items():
            spec = self.specs.get(slot)
            if spec is None or pool.market == "spot" or spec.group or self._always_on_demand(spec):
                continue
            if any(not self.fleet.blocklist.refused_lately(spot) for spot in spec.pools):
                node_id = self.reconciler.holding[slot]
                reason = "on-demand, and spot nodes can be had again: one replaces it"
                self.reconciler.leave(node_id, reason, within_s=REPLACED_WITHIN_S)
                self._returning[slot] = node_id
                return

    def _settle_returning(self, *, slack: bool) -> None:
        for slot, node_id in list(self._returning.items()):
            if node_id not in self.reconciler.leaving:
                del self._returning[slot]
            elif self.reconciler.holding.get(slot) is not None:
                continue  # it works on until its replacement does
            elif slot in self.reconciler.refused or not slack:
                del self._returning[slot]
                self.fleet.stay(node_id)
                self.reconciler.stay(slot, node_id)

    def _release_idle(self, status: RunStatus) -> None:
        """Whoever finds no shard costs money for nothing: the others finish what they hold."""
        if self._open_shards is None:
            return
        holding = {node: slot for slot, node in self.reconciler.holding.items()}
        for node_id in self._idle.to_release(status, holding.keys()):
            if not self.fleet.specs[holding[node_id]].group:
                self.reconciler.release(node_id, "no shard is free for it: ended")

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

    def _set_expiry(self, spend: Spend | None) -> None:
        """Of nodes that are bought now; those that live are told when theirs has moved on."""
        self.fleet.expires_at = expires_at = self.purse.expiry(self.fleet.specs, spend)
        if self._looks % _LOOKS_PER_METER_READING == 0:
            longest = timedelta(hours=self.settings.max_node_hours)
            holding = self.reconciler.holding.values()
            soon = self.now() + RENEW_BEFORE
            try:
                self.fleet.renew(holding, expires_at, soon=soon, by=RENEW_BY, longest=longest)
            except AwsError as error:
                log.warning("deadline tags not moved, the nodes end earlier: %s", error)

    def _take_role(self) -> None:
        """Before the first purchase: who only ends what was bought needs none."""
        if self.role is not None and not self._has_role:
            self.fleet.settings = replace(self.fleet.settings, template=self.role.make())
            self._has_role = True
            self.fleet.fresh_until_s = self.monotonic() + FRESH_S

    def _to_buy(self, slots: Sequence[str]) -> Sequence[str]:
        """Which of the empty places get a node: those that find a shard, and that we can pay."""
        specs = self.fleet.specs
        if self._open_shards is not None:
            units = {specs[slot].group or slot for slot in self.reconciler.holding}
            room = math.ceil(self._open_shards / self.workers_a_node) - len(units)
            empty = dict.fromkeys(specs[slot].group or slot for slot in slots)
            wanted = {*[unit for unit in empty if unit not in units][: max(0, room)], *units}
            slots = [slot for slot in slots if (specs[slot].group or slot) in wanted]
        return self.purse.affordable(slots, specs, self._spend()) if slots else slots

    def _spend(self) -> Spend | None:
        due = self._looks % _LOOKS_PER_METER_READING == 0
        return self.purse.read(frozenset(self.reconciler.holding.values()), due=due)

    def _specs_now(self) -> Mapping[str, SlotSpec]:
        dear = self.purse.market is not Verdict.SPOT
        return {
            name: on_demand_spec(spec) if dear or self._always_on_demand(spec) else spec
            for name, spec in self.specs.items()
        }

    def _always_on_demand(self, spec: SlotSpec) -> bool:
        return self.settings.on_demand == "head" and spec.heads

    def _tell(self, kind: EventKind, detail: str, node_id: str = "") -> None:
        self.tell(Event(at=self.now(), kind=kind, node_id=node_id, detail=detail))


def on_demand_spec(spec: SlotSpec) -> SlotSpec:
    """The same slot from on-demand nodes."""
    pools = tuple(pool._replace(market="on-demand") for pool in spec.pools)
    return replace(spec, pools=tuple(dict.fromkeys(pools)))


__all__ = ["HeldFleet", "NodesRemain", "Planner", "Remaining", "RunRole", "on_demand_spec"]
