"""A held fleet of two in virtual time, with the account under it and what its workers say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from shunt.aws.money.meter import Meter
from shunt.aws.nodes.event_queue import EventQueue
from shunt.aws.nodes.held_fleet import HeldFleet
from shunt.aws.nodes.node_watch import NodeWatch
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.aws.nodes.replanning import Planner
from shunt.aws.nodes.teardown import RunRole
from shunt.job.job import Ec2, Limits
from shunt.run.driver import DriverLease
from shunt.run.event import Event
from shunt.run.node_status import NodeState, NodeStatus, write_status
from shunt.run.status import RunState, RunStatus, ShardStatus
from shunt.testing.ec2.notice_queue import NoticeQueue
from tests.shunt.aws.conftest import RUN, START, ZONES, Account, any_zone

TYPE = "g6.12xlarge"


class _QueueApi:
    """The double's queue, asked as `AwsApi` asks SQS."""

    def __init__(self, queue: NoticeQueue) -> None:
        self.queue = queue

    def call(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        return self.queue.answer("".join(w.title() for w in operation.split("_")), params)


@dataclass
class Stand:
    """A held fleet of two, the account under it, and what its workers say."""

    account: Account
    held: HeldFleet
    queue: NoticeQueue
    events: list[Event]
    said: dict[str, NodeStatus] = field(default_factory=dict)
    shards: tuple[ShardStatus, ...] = ()
    """Empty: the status does not list them."""

    def look(self, *, after_s: float = 5.0, eta_s: float | None = None, speak: bool = True) -> None:
        """Time passes, every worker speaks, the controller looks."""
        self.account.sleep(after_s)
        if speak:
            for node_id in self.held.reconciler.holding.values():
                idle = self.shards and node_id not in {s.holder for s in self.shards}
                self.say(node_id, NodeState.IDLE if idle else NodeState.RUNNING)
        status = RunStatus(
            run_id=RUN,
            read_at=self.account.now(),
            state=RunState.OPEN,
            rows_total=1,
            rows_terminal=0,
            rows_failed=0,
            output_tokens=0,
            shards=self.shards,
            nodes=tuple(self.said.values()),
        )
        self.held.step(status, eta_s)

    def say(self, node_id: str, state: NodeState, exit_code: int | None = None) -> None:
        status = NodeStatus(
            node_id=node_id,
            pid=1,
            state=state,
            started_at=self.account.now(),
            updated_at=self.account.now(),
            exit_code=exit_code,
        )
        self.said[node_id] = status
        write_status(self.account.store, RUN, status)

    def nodes(self) -> list[str]:
        return sorted(self.held.reconciler.holding.values())

    def living(self) -> list[str]:
        return sorted(i.instance_id for i in self.account.double.living())

    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.events]

    def markets(self) -> list[str]:
        return [i.pool.market for i in self.account.double.instances.values()]


def stand_of(
    account: Account,
    *,
    limits: Limits | None = None,
    specs: Mapping[str, SlotSpec] | None = None,
    planner: Planner | None = None,
    role: RunRole | None = None,
    lease: DriverLease | None = None,
    **settings: Any,
) -> Stand:
    """Two nodes of any zone, or those of `specs`."""
    for zone in ZONES:
        account.market.set_price(Pool(TYPE, zone, "spot"), START - timedelta(days=9), "3.6")
        account.market.set_price(Pool(TYPE, zone, "on-demand"), START - timedelta(days=9), "36")
    specs = specs or {f"worker-{n}": any_zone(f"worker-{n}") for n in range(2)}
    fleet, events = account.fleet(specs), list[Event]()
    queue = NoticeQueue(monotonic=lambda: account.now_s)
    limits = limits or Limits()
    given = {"region": "us-east-1", "subnets": {"us-east-1a": "s"}, "instance_types": [TYPE]}
    prices = {TYPE: Decimal(36)}
    held = HeldFleet(
        fleet=fleet,
        reconciler=account.reconciler(fleet, specs, events),
        watch=NodeWatch(
            silent_s=180.0,
            boot_limit_s=1200.0,
            monotonic=lambda: account.now_s,
            now=account.now,
            queue=EventQueue(
                _QueueApi(queue),  # type: ignore[arg-type]
                "url",
                ours=lambda node: node in {o.instance_id for o in fleet.launched()},
                now=account.now,
            ),
        ),
        meter=Meter(
            ec2=fleet.ec2,
            store=account.store,
            run_id=RUN,
            on_demand_usd_per_hour=prices,
            max_cost_usd=limits.max_cost_usd,
            now=account.now,
            launched=fleet.launched,
        ),
        settings=Ec2.model_validate({**given, **settings}),
        limits=limits,
        specs=specs,
        monotonic=lambda: account.now_s,
        now=account.now,
        tell=events.append,
        planner=planner,
        role=role,
        lease=lease,
    )
    return Stand(account, held, queue, events)
