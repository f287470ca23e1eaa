"""The reaper: ends what no living run owns, and nothing else."""

from shunt.aws.nodes.pool import SlotSpec
from shunt.aws.nodes.reaper import reap
from tests.shunt.aws.conftest import RUN, Account


def reaped(account: Account, *, alive: bool, store_uri: str = "") -> list[str]:
    doomed = reap(
        account.api(),
        store_uri=store_uri or account.store.uri,
        run_lives=lambda run: alive and run == RUN,
        now=account.now(),
    )
    return [entry.reason for entry in doomed]


def test_only_nodes_without_a_living_run_are_ended(
    account: Account, specs: dict[str, SlotSpec]
) -> None:
    account.fleet(specs).launch("worker-0")
    assert reaped(account, alive=False) == [], "a node that was born just now is left alone"
    account.sleep(300)
    assert reaped(account, alive=True) == []
    assert reaped(account, alive=False) == [f"run {RUN} is not alive"]
    assert account.double.living() == []
    assert reaped(account, alive=False) == []


def test_a_node_past_its_deadline_is_ended_even_of_a_living_run(
    account: Account, specs: dict[str, SlotSpec]
) -> None:
    account.fleet(specs).launch("worker-0")
    account.sleep(12 * 3600)
    assert reaped(account, alive=True) == ["its deadline 2026-03-01 12:00 is past"]


def test_nodes_of_another_store_are_left_to_their_deadline(
    account: Account, specs: dict[str, SlotSpec]
) -> None:
    """Its runs are not known here, which is not the same as not alive."""
    account.fleet(specs).launch("worker-0")
    account.sleep(300)
    assert reaped(account, alive=False, store_uri="s3://another/team") == []
    assert len(account.double.living()) == 1
    account.sleep(12 * 3600)
    (reason,) = reaped(account, alive=False, store_uri="s3://another/team")
    assert "deadline" in reason


def test_an_instance_that_is_not_ours_is_never_seen(account: Account) -> None:
    account.api().call(
        "run_instances",
        {
            "InstanceType": "m5.large",
            "Placement": {"AvailabilityZone": "us-east-1a"},
            "MinCount": 1,
            "MaxCount": 1,
        },
    )
    account.sleep(9999)
    assert reaped(account, alive=False) == []
    assert len(account.double.living()) == 1
