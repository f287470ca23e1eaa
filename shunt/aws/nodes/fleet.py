"""The EC2 fleet of a run: launches by intent, observes by tag, and leaves nothing behind.

API calls: one per node launched (a few at once), one describe per thousand nodes of an observation,
one terminate per hundred nodes ended. What was launched is read from the store, so a new controller
knows it too.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shunt.aws import tags
from shunt.aws.api import AwsApi
from shunt.aws.errors import (
    AwsError,
    CapacityError,
    ConfigurationError,
    NotVisibleYet,
    QuotaError,
)
from shunt.aws.nodes.intent import Intent, Outcome, declare, new_token, read_intents, settle
from shunt.aws.nodes.inventory import (
    LIVING_STATES,
    SETTLE_S,
    describe_run,
    terminate_instances,
    wait_until_gone,
)
from shunt.aws.nodes.launch_request import (
    LaunchSettings,
    expiry_of,
    group_of,
    launch_request,
    pools_of,
    refusal,
    refused_pool,
)
from shunt.aws.nodes.loss import LossKind, loss_of
from shunt.aws.nodes.placement_group import make_placement_group, remove_placement_groups
from shunt.aws.nodes.pool import Blocklist, Pool, SlotSpec, offered_nowhere
from shunt.fleet.protocol import FleetNode, NotLaunched
from shunt.fleet.worker_exit import WorkerExit
from shunt.run.node_status import read_status
from shunt.store.opening import kms_key_of
from shunt.store.protocol import Store

LAUNCHES_AT_ONCE = 8
"""Fewer than the ten connections that boto3 keeps. The launches after these heed their refusals."""
VISIBLE_WITHIN_S = 60.0
"""A launched instance may be missing from a listing for so long (eventual consistency)."""
FORGOTTEN_AFTER = timedelta(minutes=30)
"""One that was launched so long ago is not late to appear: EC2 has forgotten it, an hour after its
end. So long, because the clock of whoever launched it may have been wrong."""
LOST = -9
"""How a node ended that did not say so itself: as if killed."""
FAILED = 1
"""How a node ended that powered itself off, and whose worker did not say that it was done."""


@dataclass(slots=True)
class Ec2Fleet:
    """The nodes of one run in one region. Satisfies `shunt.fleet.protocol.Fleet`."""

    ec2: AwsApi
    store: Store
    run_id: str
    specs: Mapping[str, SlotSpec]
    settings: LaunchSettings
    owner: str
    expires_at: datetime
    """Deadline tag: a node ends itself then, whatever happens."""
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    recheck: bool = False
    """Nodes look into every shard, whatever is marked done, and no ended node has done so."""
    settle_s: float = SETTLE_S
    """Between the listings of teardown."""
    at_once: int = LAUNCHES_AT_ONCE
    """Launches whose replies are waited for together, each in a thread of its own."""
    fresh_until_s: float = 0.0
    """Until then the run's role and profile may not be known everywhere."""
    blocklist: Blocklist = field(init=False)
    _intents: dict[str, list[tuple[Intent, Outcome | None]]] = field(init=False)
    _ended: dict[str, int] = field(default_factory=dict[str, int])
    _expires: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """Deadline tags that were moved, by node."""
    _why: dict[str, tuple[str, bool]] = field(default_factory=dict[str, tuple[str, bool]])
    """Of ended nodes: a sentence, and whether it was our own fault."""
    _missing_since: dict[str, float] = field(default_factory=dict[str, float])
    _vacated: set[str] = field(default_factory=set[str])
    _groups: set[str] = field(default_factory=set[str])
    """Placement groups that are there."""
    _inherited: set[str] = field(default_factory=set[str])
    """Nodes of earlier controllers."""
    _before: set[str] = field(default_factory=set[str])
    """Nodes of earlier passes that were not seen alive in this one."""

    def __post_init__(self) -> None:
        self.blocklist = Blocklist(self.monotonic)
        self._intents = {}
        for intent, outcome in read_intents(self.store, self.run_id):
            self._intents.setdefault(intent.slot, []).append((intent, outcome))
            if outcome is not None:
                self._inherited.add(outcome.instance_id)
            if self.recheck and outcome is not None:
                self._before.add(outcome.instance_id)

    @property
    def ever_launched(self) -> bool:
        """Whether there can be anything of the run in the account."""
        return bool(self._intents)

    def nodes(self) -> Sequence[FleetNode]:
        """Every node that was ever launched for the run (of a recheck: those that live, or did when
        it began to watch); unfinished launches are finished first."""
        for slot in list(self._intents):
            self._resolve(slot)
        described = {i["InstanceId"]: i for i in describe_run(self.ec2, self.run_id)}
        seen = [
            self._observed(slot, outcome, described)
            for slot, intents in self._intents.items()
            for _, outcome in intents
            if outcome is not None and outcome.instance_id
        ]
        self._before -= {node.node_id for node in seen if node.exit_code is None}
        return [node for node in seen if node.node_id not in self._before]

    def launch(self, slot: str) -> str:
        """Start a node for the slot, or say which one it has. Raises `NotLaunched`, `AwsError`."""
        self._resolve(slot)
        settled = self._intents.get(slot, [])
        if settled:
            outcome = settled[-1][1]
            gone = self._ended.keys() | self._vacated
            if outcome and outcome.instance_id and outcome.instance_id not in gone:
                return outcome.instance_id
        spec = self.specs[slot]
        if spec.waits_for:
            raise NotLaunched(slot, spec.waits_for, retry_after_s=0.0)
        pools = self.blocklist.open_pools(spec.pools)
        if not pools:
            wait_s = min(self.blocklist.wait_s(pool) for pool in spec.pools)
            if wait_s == math.inf:
                raise offered_nowhere(spec)
            raise NotLaunched(slot, "every pool of it is blocked", retry_after_s=wait_s)
        intent = declare(self.store, self._intent(spec, pools, len(settled)))
        self._intents.setdefault(slot, []).append((intent, None))
        outcome = self._perform(intent)
        if not outcome.instance_id:
            raise NotLaunched(slot, outcome.reason, retry_after_s=0.0)
        return outcome.instance_id

    def launch_many(self, slots: Sequence[str]) -> Iterator[tuple[str, str | NotLaunched]]:
        for first in range(0, len(slots), self.at_once):
            batch = slots[first : first + self.at_once]
            failed: list[AwsError] = []
            for slot, found in zip(batch, self._launched_together(batch), strict=True):
                if isinstance(found, AwsError):
                    failed.append(found)
                else:
                    yield slot, found
            if failed:
                raise failed[0]

    def vacate(self, node_id: str) -> None:
        self._vacated.add(node_id)

    def stay(self, node_id: str) -> None:
        """The node that was to go stays: the next launch for its slot is none."""
        self._vacated.discard(node_id)

    def renew(
        self,
        node_ids: Iterable[str],
        expires_at: datetime,
        *,
        soon: datetime,
        by: timedelta,
        longest: timedelta,
    ) -> None:
        """Move the deadline tags that are due before `soon` on to `expires_at`, and those that are
        due after it back to it, as the money does not last so long any more; none for less than
        `by`, and none past `longest` after the node's launch. Raises `AwsError`."""
        found: dict[datetime, list[str]] = {}
        wanted = set(node_ids)
        for intents in self._intents.values():
            for intent, outcome in intents:
                if outcome is None or outcome.instance_id not in wanted:
                    continue
                node_id = outcome.instance_id
                stands = self._expires.get(node_id) or expiry_of(intent)
                moved = min(expires_at, outcome.settled_at + longest)
                if stands is None:
                    continue
                if (stands < soon and moved - stands >= by) or stands - moved >= by:
                    found.setdefault(moved, []).append(node_id)
        for moved, nodes in found.items():
            tag = {"Key": tags.EXPIRES_AT, "Value": moved.isoformat()}
            self.ec2.call("create_tags", {"Resources": nodes, "Tags": [tag]})
            self._expires |= dict.fromkeys(nodes, moved)

    def launched(self) -> Iterator[Outcome]:
        """Every launch that gave a node."""
        for intents in self._intents.values():
            for _, outcome in intents:
                if outcome is not None and outcome.instance_id:
                    yield outcome

    def pool_of(self, node_id: str) -> Pool:
        """Where a node of this fleet was bought; KeyError for any other."""
        for outcome in self.launched():
            if outcome.instance_id == node_id:
                return outcome.pool
        raise KeyError(node_id)

    def interrupt(self, node_id: str, *, notice_s: float | None) -> None:
        """End the node. EC2 gives no notice on demand; its shutdown sends SIGTERM."""
        del notice_s
        terminate_instances(self.ec2, [node_id])

    def terminate(self) -> None:
        """End every node, whether or not the store knows it, and see that nothing is left.

        Raises `NotGone` and `AwsError`.
        """
        self.end_nodes()
        self.clear()

    def end_nodes(self) -> None:
        """The first half: every node of the run is gone. Needs no store."""
        wait_until_gone(
            self.ec2,
            self.run_id,
            monotonic=self.monotonic,
            sleep=self.sleep,
            settle_s=self.settle_s,
        )

    def end_known(self) -> None:
        """Ask for the end of the living nodes that this fleet knows of, and wait for nothing."""
        known = {outcome.instance_id for outcome in self.launched()}
        described = describe_run(self.ec2, self.run_id)
        living = [i["InstanceId"] for i in described if i["State"]["Name"] in LIVING_STATES]
        terminate_instances(self.ec2, [node_id for node_id in living if node_id in known])

    def clear(self) -> None:
        """The second half: placement groups, and launches that will not happen any more."""
        if any(group_of(intent) for intents in self._intents.values() for intent, _ in intents):
            remove_placement_groups(self.ec2, self.run_id)
            self._groups.clear()
        for intents in self._intents.values():
            intent, outcome = intents[-1]
            if outcome is None:
                gone = Outcome(reason="the run was ended", settled_at=self.now())
                intents[-1] = (intent, settle(self.store, intent, gone))

    def _launched_together(self, slots: Sequence[str]) -> list[str | NotLaunched | AwsError]:
        """Each thread touches the intents of its own slot only."""
        if len(slots) == 1:
            return [self._launched(slots[0])]
        with ThreadPoolExecutor(len(slots), "launch") as threads:
            return list(threads.map(self._launched, slots))

    def _launched(self, slot: str) -> str | NotLaunched | AwsError:
        try:
            return self.launch(slot)
        except (NotLaunched, AwsError) as error:
            return error

    def _resolve(self, slot: str) -> None:
        """Finish a launch whose outcome is not known: the same call under the same token."""
        intents = self._intents.get(slot)
        if intents and intents[-1][1] is None:
            self._perform(intents[-1][0])

    def _intent(self, spec: SlotSpec, pools: tuple[Pool, ...], number: int) -> Intent:
        token = new_token()
        operation, request = launch_request(
            spec,
            pools,
            settings=self.settings,
            token=token,
            node_tags=tags.for_node(
                run_id=self.run_id,
                slot=spec.slot,
                token=token,
                owner=self.owner,
                store_uri=self.store.uri,
                expires_at=self.expires_at,
                recheck=self.recheck,
                kms_key_id=kms_key_of(self.store),
            ),
        )
        return Intent(
            run_id=self.run_id,
            slot=spec.slot,
            number=number,
            token=token,
            operation=operation,
            request=request,
            created_at=self.now(),
        )

    def _perform(self, intent: Intent) -> Outcome:
        """Call and settle. An outcome that stays unknown or a lost permission rises unsettled."""
        if (group := group_of(intent)) and group not in self._groups:
            make_placement_group(self.ec2, self.run_id, group)
            self._groups.add(group)
        try:
            reply = self.ec2.call(intent.operation, intent.request)
        except (CapacityError, QuotaError, NotVisibleYet, ConfigurationError) as error:
            if isinstance(error, ConfigurationError) and not self._may_pass(error):
                raise
            for pool in pools_of(intent):
                self.blocklist.refused(pool, error)
            outcome = Outcome(reason=str(error), settled_at=self.now())
        else:
            outcome = self._outcome(intent, reply)
        outcome = settle(self.store, intent, outcome)
        self._intents[intent.slot][-1] = (intent, outcome)
        return outcome

    def _outcome(self, intent: Intent, reply: Mapping[str, Any]) -> Outcome:
        refusals = [(e, refusal(e)) for e in reply.get("Errors", ())]
        for told, error in refusals:
            self.blocklist.refused(refused_pool(told, pools_of(intent)), error)
        market = pools_of(intent)[0].market
        if intent.operation == "run_instances":
            instance = reply["Instances"][0]
            return Outcome(
                instance_id=instance["InstanceId"],
                instance_type=instance["InstanceType"],
                zone=instance["Placement"]["AvailabilityZone"],
                market=market,
                settled_at=self.now(),
            )
        for group in reply.get("Instances", ()):
            override = group["LaunchTemplateAndOverrides"]["Overrides"]
            return Outcome(
                instance_id=group["InstanceIds"][0],
                instance_type=group["InstanceType"],
                zone=override["AvailabilityZone"],
                market=market,
                settled_at=self.now(),
            )
        heeded = (CapacityError, QuotaError, NotVisibleYet)
        wrong = [e for _, e in refusals if not (isinstance(e, heeded) or self._may_pass(e))]
        if wrong:
            raise wrong[0]
        reasons = "; ".join(str(error) for _, error in refusals) or "the fleet came back empty"
        return Outcome(reason=reasons, settled_at=self.now())

    def _may_pass(self, error: AwsError) -> bool:
        """Whether it may be that EC2 does not know the run's new profile yet, which it calls an
        invalid value like any other."""
        return error.code == "InvalidParameterValue" and self.monotonic() < self.fresh_until_s

    def _observed(
        self, slot: str, outcome: Outcome, described: Mapping[str, Mapping[str, Any]]
    ) -> FleetNode:
        node_id = outcome.instance_id
        code = self._exit_code(outcome, described)
        why, fault = self._why.get(node_id, ("", False)) if code is not None else ("", False)
        return FleetNode(node_id, slot, code, why, fault)

    def _exit_code(
        self, outcome: Outcome, described: Mapping[str, Mapping[str, Any]]
    ) -> int | None:
        node_id = outcome.instance_id
        if node_id in self._ended:
            return self._ended[node_id]
        instance = described.get(node_id)
        if instance is None and not self._forgotten(outcome):
            since = self._missing_since.setdefault(node_id, self.monotonic())
            if self.monotonic() - since < VISIBLE_WITHIN_S:  # no wall clock: it may be wrong
                return None
        elif instance is not None and instance["State"]["Name"] in LIVING_STATES:
            self._missing_since.pop(node_id, None)
            return None
        loss = loss_of(instance or {})
        if loss.kind in (LossKind.SPOT, LossKind.CAPACITY):
            self.blocklist.block(outcome.pool)
        code = FAILED if loss.kind is LossKind.ITSELF else LOST
        why, fault = loss.sentence, loss.kind is LossKind.FAULT
        status = read_status(self.store, self.run_id, node_id)
        if status is not None and status.exit_code is not None:  # as its worker wrote it
            code, why = status.exit_code, status.failure
            fault = code == WorkerExit.UNFIT
        self._ended[node_id], self._why[node_id] = code, (why, fault)
        return code

    def _forgotten(self, outcome: Outcome) -> bool:
        """Whether it is a node of an earlier controller, too old to be late to appear."""
        if outcome.instance_id not in self._inherited:
            return False
        return self.now() - outcome.settled_at > FORGOTTEN_AFTER
