"""One suite for every fleet: the local processes and the nodes of EC2."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.fleet.local import LocalFleet, WorkerCommand
from shunt.fleet.protocol import Fleet
from tests.shunt.aws.conftest import ZONES, Account, Clients

SLOTS = ("worker-0", "worker-1")
Make = Callable[[], Fleet]


def local_fleet(directory: Path) -> LocalFleet:
    sleeper = "import sys, time; sys.stdin.close(); time.sleep(600)"
    argv = (sys.executable, "-c", sleeper)
    return LocalFleet(WorkerCommand(argv, {}, directory), "t", len(SLOTS), drain_timeout_s=5.0)


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield Clients()


@pytest.fixture(params=["local", "ec2"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    if request.param == "local":
        with local_fleet(tmp_path) as made:
            yield made
        return
    account = Account(request.getfixturevalue("clients"))
    pools = tuple(Pool("g6.xlarge", zone, "spot") for zone in ZONES)
    yield account.fleet({slot: SlotSpec(slot, pools) for slot in SLOTS})
    assert account.double.living() == []


def living(fleet: Fleet) -> dict[str, str]:
    return {node.slot: node.node_id for node in fleet.nodes() if node.exit_code is None}


def until_ended(fleet: Fleet, node_id: str) -> int:
    """The local fleet's processes end in real time; poll with a deadline."""
    give_up_s = time.monotonic() + 20
    while time.monotonic() < give_up_s:
        codes = {node.node_id: node.exit_code for node in fleet.nodes()}
        code = codes[node_id]
        if code is not None:
            return code
    raise TimeoutError(node_id)


def test_a_launched_node_is_seen_at_once_in_its_slot(fleet: Fleet) -> None:
    ids = {slot: fleet.launch(slot) for slot in SLOTS}
    assert living(fleet) == ids
    assert len(set(ids.values())) == 2
    fleet.terminate()


def test_many_launched_together_are_as_if_launched_one_by_one(fleet: Fleet) -> None:
    ids = dict(fleet.launch_many(SLOTS))
    assert living(fleet) == ids
    assert len(set(ids.values())) == 2
    fleet.terminate()


@pytest.mark.parametrize("notice_s", [None, 2.0])
def test_an_interrupted_node_ends_and_is_still_shown(fleet: Fleet, notice_s: float | None) -> None:
    node = fleet.launch("worker-0")
    fleet.interrupt(node, notice_s=notice_s)
    assert until_ended(fleet, node) < 0
    fleet.interrupt(node, notice_s=notice_s)
    assert living(fleet) == {}
    assert [n.node_id for n in fleet.nodes()] == [node]
    fleet.terminate()


def test_a_slot_gets_a_new_node_under_a_new_name(fleet: Fleet) -> None:
    first = fleet.launch("worker-0")
    fleet.interrupt(first, notice_s=None)
    until_ended(fleet, first)
    second = fleet.launch("worker-0")
    assert second != first
    assert living(fleet) == {"worker-0": second}
    fleet.terminate()


def test_terminate_leaves_nothing_and_may_be_repeated(fleet: Fleet) -> None:
    for slot in SLOTS:
        fleet.launch(slot)
    fleet.terminate()
    assert living(fleet) == {}
    fleet.terminate()
