"""The EC2 fleet: no double launch, no orphan, every error class its reaction."""

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from shunt.aws.api import AwsApi
from shunt.aws.errors import PermissionRefused
from shunt.aws.nodes import fleet as fleet_module
from shunt.aws.nodes.inventory import list_nodes
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.fleet.protocol import NotLaunched
from shunt.fleet.reconcile import Reconciler
from shunt.run.event import Event
from shunt.run.node_status import NodeState, NodeStatus, write_status
from shunt.store.opening import kms_key_of, open_store
from shunt.testing.ec2.faults import ControllerKilled, FailFirst, Phase, kill_at, unauthorised
from tests.shunt.aws.conftest import RUN, ZONES, Account, Clients, any_zone

Specs = dict[str, SlotSpec]


def reconciler_of(account: Account, specs: Specs, events: list[Event] | None = None) -> Reconciler:
    return account.reconciler(account.fleet(specs), specs, events if events is not None else [])


def finish(account: Account, node_id: str) -> None:
    """The worker on the node says it is done, and the node ends itself."""
    status = NodeStatus(
        node_id=node_id,
        pid=1,
        state=NodeState.ENDED,
        started_at=account.now(),
        updated_at=account.now(),
        exit_code=0,
    )
    write_status(account.store, RUN, status)
    account.double.end(node_id)


def slots_of_the_living(account: Account) -> list[str]:
    return sorted(i.tags["shunt:slot"] for i in account.double.living())


def test_a_node_is_tagged_and_hardened_in_the_call_that_launches_it(
    account: Account, specs: Specs
) -> None:
    fleet = account.fleet(
        {**specs, "exact": SlotSpec("exact", (Pool("p5.48xlarge", ZONES[0], "spot"),))}
    )
    for slot in ("worker-0", "exact"):
        instance = account.double.instances[fleet.launch(slot)]
        assert instance.tags["shunt:run"] == RUN
        assert instance.tags["shunt:slot"] == slot
        assert instance.tags["shunt:expires-at"] == "2026-03-01T12:00:00+00:00"
        assert instance.metadata_options["HttpTokens"] == "required"
        assert instance.metadata_options["HttpPutResponseHopLimit"] == 1
        assert instance.instance_profile == "shunt-worker"
        assert instance.shutdown_behaviour == "terminate"
    assert account.double.calls == ["CreateFleet", "RunInstances"]


def test_a_node_is_told_the_key_of_its_store(
    account: Account, specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store on S3 says its key; the double's account keeps its state in memory."""
    keyed = open_store("s3://bucket/runs", kms_key_id="alias/team")
    stores = (account.store, None), (keyed, "alias/team")
    for slot, (store, told) in zip(specs, stores, strict=False):
        key = kms_key_of(store)
        monkeypatch.setattr(fleet_module, "kms_key_of", lambda _store, key=key: key)
        instance = account.double.instances[account.fleet(specs).launch(slot)]
        assert instance.tags.get("shunt:kms-key") == told


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("code", ["RequestLimitExceeded", "InternalError"])
def test_a_throttle_or_a_lost_reply_launches_once(
    account: Account, specs: Specs, code: str, phase: Phase
) -> None:
    account.double.faults.append(FailFirst("CreateFleet", code, 2, phase))
    account.fleet(specs).launch("worker-0")
    assert slots_of_the_living(account) == ["worker-0"]


def test_a_missing_permission_stops_at_once_and_is_named(account: Account, specs: Specs) -> None:
    account.double.faults.append(unauthorised("CreateFleet"))
    with pytest.raises(PermissionRefused) as caught:
        account.fleet(specs).launch("worker-0")
    assert caught.value.permission == "ec2:CreateFleet"
    assert account.double.calls == ["CreateFleet"]


def test_zones_emptied_one_after_the_other_until_none_is_left(account: Account) -> None:
    fleet = account.fleet({f"w-{n}": any_zone(f"w-{n}") for n in range(9)})
    for number, zone in enumerate(ZONES):
        node = fleet.launch(f"w-{number}")
        assert account.double.instances[node].pool.zone == zone
        account.market.set_capacity(Pool("g6.12xlarge", zone, "spot"), account.now(), 1)
    with pytest.raises(NotLaunched, match="no spot capacity"):
        fleet.launch("w-4")
    calls = len(account.double.calls)
    with pytest.raises(NotLaunched, match="blocked") as caught:
        fleet.launch("w-5")
    assert caught.value.retry_after_s == 180.0
    assert len(account.double.calls) == calls, "a blocked pool is not asked"
    account.sleep(180.0)
    account.market.set_capacity(Pool("g6.12xlarge", ZONES[1], "spot"), account.now(), 2)
    node = fleet.launch("w-5")
    assert account.double.instances[node].pool.zone == ZONES[1]


def test_a_quota_blocks_the_family_in_every_zone(account: Account) -> None:
    account.market.quotas["All G and VT Spot Instance Requests"] = 8
    fleet = account.fleet({"a": any_zone("a"), "b": any_zone("b"), "c": any_zone("c", "g6.xlarge")})
    fleet.launch("a")
    with pytest.raises(NotLaunched, match="MaxSpotInstanceCountExceeded"):
        fleet.launch("b")
    with pytest.raises(NotLaunched, match="blocked"):
        fleet.launch("c")


def run_to_the_end(account: Account, specs: Specs, *, at_once: int = 1) -> int:
    """One controller until every worker is done and the fleet is torn down; returns launches."""
    reconciler = account.reconciler(account.fleet(specs, at_once=at_once), specs, [])
    for step in range(50):
        reconciler.step(step)
        if reconciler.done:
            break
        account.sleep(10.0)
        if account.now_s > 60:
            for instance in account.double.living():
                finish(account, instance.instance_id)
    assert reconciler.done
    reconciler.fleet.terminate()
    return len(account.double.instances)


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_controller_killed_at_every_call_leaves_no_orphan_and_launches_nothing_twice(
    clients: Clients, at_once: int
) -> None:
    specs = {f"worker-{n}": any_zone(f"worker-{n}") for n in range(3)}
    undisturbed = Account(clients)
    run_to_the_end(undisturbed, specs, at_once=at_once)
    num_calls = len(undisturbed.double.calls)
    assert num_calls > 8
    kills = 0
    for number in range(num_calls):
        for phase in ("before", "after"):
            account = Account(clients)
            account.double.visible_after_s = 5.0
            account.double.faults.append(kill_at(number, phase))
            try:
                launched = run_to_the_end(account, specs, at_once=at_once)
            except ControllerKilled:
                kills += 1
                launched = run_to_the_end(account, specs, at_once=at_once)
            assert launched == 3, (number, phase, account.double.calls)
            assert account.double.living() == []
            assert list_nodes(account.api()) == []
    assert kills >= 2 * num_calls - 4


class Meeting(AwsApi):
    """Launches that all wait until so many of them are on their way."""

    barrier: threading.Barrier

    def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        if operation == "create_fleet":
            self.barrier.wait(timeout=10)
        return super().call(operation, params)


def test_launches_wait_for_ec2_together(account: Account, specs: Specs) -> None:
    fleet = account.fleet(specs, at_once=4)
    fleet.ec2 = Meeting(fleet.ec2.client, account.sleep)
    fleet.ec2.barrier = threading.Barrier(4)
    account.reconciler(fleet, specs, []).step(0)
    assert slots_of_the_living(account) == sorted(specs)
    assert account.double.calls == ["DescribeInstances", *["CreateFleet"] * 4]


def test_what_one_refused_pool_teaches_holds_for_the_next_launches(account: Account) -> None:
    for zone in ZONES:
        account.market.set_capacity(Pool("g6.12xlarge", zone, "spot"), account.now(), 0)
    specs = {f"w-{n}": any_zone(f"w-{n}") for n in range(40)}
    fleet = account.fleet(specs, at_once=4)
    found = dict(fleet.launch_many(list(specs)))
    assert all(isinstance(refusal, NotLaunched) for refusal in found.values())
    assert len(account.double.calls) <= 4


def test_a_launch_that_fails_hides_no_launch_beside_it(account: Account, specs: Specs) -> None:
    account.double.faults.append(FailFirst("CreateFleet", "UnauthorizedOperation", 1))
    events: list[Event] = []
    with pytest.raises(PermissionRefused):
        account.reconciler(account.fleet(specs, at_once=4), specs, events).step(0)
    started = {event.slot for event in events}
    assert sorted(started) == slots_of_the_living(account)
    assert len(started) == 3
    account.reconciler(account.fleet(specs, at_once=4), specs, events).step(0)
    assert slots_of_the_living(account) == sorted(specs)
    assert len(account.double.instances) == 4


def test_a_restarted_controller_finds_everything(account: Account, specs: Specs) -> None:
    reconciler_of(account, specs).step(0)
    account.sleep(600)
    again = reconciler_of(account, specs)
    again.step(0)
    assert len(account.double.instances) == 4
    assert not again.done


def test_all_nodes_taken_at_once_are_all_replaced(account: Account, specs: Specs) -> None:
    reconciler = reconciler_of(account, specs)
    reconciler.step(0)
    first = [i.pool.zone for i in account.double.living()]
    for instance in account.double.living():
        account.double.end(instance.instance_id, "Server.SpotInstanceTermination")
    reconciler.step(0)
    assert slots_of_the_living(account) == sorted(specs)
    assert reconciler.num_lost == 4
    assert {i.pool.zone for i in account.double.living()}.isdisjoint(first), "the pool is blocked"


@pytest.mark.parametrize("skew_s", [3600.0, -3600.0])
def test_a_clock_that_is_wrong_by_an_hour_changes_nothing(
    account: Account, specs: Specs, skew_s: float
) -> None:
    account.skew_s = skew_s
    account.double.visible_after_s = 20.0
    assert run_to_the_end(account, specs) == 4


def test_a_clock_that_jumps_during_the_run_launches_nothing_twice(
    account: Account, specs: Specs
) -> None:
    account.double.visible_after_s = 20.0
    reconciler = reconciler_of(account, specs)
    reconciler.step(0)
    account.skew_s = 3600.0
    for _ in range(3):
        reconciler.step(0)
        account.sleep(10)
    assert len(account.double.instances) == 4


def test_an_instance_that_is_not_listed_yet_counts_as_living(
    account: Account, specs: Specs
) -> None:
    account.double.visible_after_s = 30.0
    reconciler = reconciler_of(account, specs)
    for _ in range(5):
        reconciler.step(0)
        account.sleep(10)
    assert len(account.double.instances) == 4


def test_no_capacity_anywhere_is_told_and_tried_again(account: Account, specs: Specs) -> None:
    for zone in ZONES:
        account.market.set_capacity(Pool("g6.12xlarge", zone, "spot"), account.now(), 0)
    events: list[Event] = []
    reconciler = reconciler_of(account, specs, events)
    for _ in range(30):
        reconciler.step(0)
        account.sleep(10)
    assert {event.kind for event in events} == {"not_launched"}
    assert len(account.double.calls) < 60
    for zone in ZONES:
        account.market.set_capacity(Pool("g6.12xlarge", zone, "spot"), account.now(), 9)
    for _ in range(30):
        reconciler.step(0)
        account.sleep(10)
    assert slots_of_the_living(account) == sorted(specs)


def test_ending_a_run_touches_no_other(account: Account, specs: Specs) -> None:
    fleet = account.fleet(specs)
    fleet.launch("worker-0")
    other = account.fleet(specs)
    other.run_id, other._intents = "other-run", {}
    other.launch("worker-0")
    fleet.terminate()
    assert [node.run_id for node in list_nodes(account.api())] == ["other-run"]


def test_a_launch_whose_controller_died_is_ended_by_teardown(
    account: Account, specs: Specs
) -> None:
    account.double.faults.append(kill_at(0, "after"))
    account.double.visible_after_s = 5.0
    with pytest.raises(ControllerKilled):
        account.fleet(specs).launch("worker-0")
    account.fleet(specs).terminate()
    assert account.double.living() == []


def test_ages_are_known_by_the_deadline_tag(
    account: Account, specs: Mapping[str, SlotSpec]
) -> None:
    account.fleet(specs).launch("worker-0")
    (node,) = list_nodes(account.api())
    assert node.expires_at is not None
    assert node.expires_at - node.launched_at == timedelta(hours=12)
