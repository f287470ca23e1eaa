"""What EC2 refuses, and what follows: another pool, a wait, or one sentence with the remedy."""

from datetime import timedelta

import pytest

from shunt.aws.errors import ConfigurationError, PermissionRefused, error_of
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.fleet.protocol import NotLaunched
from shunt.testing.ec2.faults import FailFirst
from tests.shunt.aws.conftest import ZONES, Account, any_zone

TYPE = "g6.12xlarge"
DAY_S = 86_400.0


def test_a_type_that_a_zone_does_not_have_closes_that_pool_for_good(account: Account) -> None:
    account.double.not_offered = {(TYPE, zone) for zone in ZONES[:-1]}
    fleet = account.fleet({"worker-0": any_zone("worker-0")})
    node = account.double.instances[fleet.launch("worker-0")]
    assert node.pool.zone == ZONES[-1]
    account.now_s += 30 * DAY_S
    assert fleet.blocklist.open_pools(any_zone("x").pools) == (Pool(TYPE, ZONES[-1], "spot"),)


def test_a_market_that_is_merely_empty_beside_one_that_is_closed_is_waited_for(
    account: Account,
) -> None:
    """One refusal of the second kind ended the run, and every node of it."""
    account.double.not_offered = {(TYPE, ZONES[0])}
    for zone in ZONES[1:]:
        account.market.set_capacity(Pool(TYPE, zone, "spot"), account.now(), 0)
    fleet = account.fleet({"worker-0": any_zone("worker-0")})
    with pytest.raises(NotLaunched):
        fleet.launch("worker-0")
    for zone in ZONES[1:]:
        account.market.set_capacity(Pool(TYPE, zone, "spot"), account.now(), 9)
    account.now_s += 200
    assert account.double.instances[fleet.launch("worker-0")].pool.zone in ZONES[1:]


def test_a_type_that_no_zone_has_is_one_sentence(account: Account) -> None:
    account.double.not_offered = {(TYPE, zone) for zone in ZONES}
    fleet = account.fleet({"worker-0": any_zone("worker-0")})
    with pytest.raises(NotLaunched, match="is not supported in"):
        fleet.launch("worker-0")
    with pytest.raises(ConfigurationError, match=rf"does not have {TYPE} in .*name other types"):
        fleet.launch("worker-0")


@pytest.mark.parametrize("pools", [any_zone("x").pools, any_zone("x").pools[:1]])
def test_a_profile_that_ec2_does_not_know_yet_is_waited_for(
    account: Account, pools: tuple[Pool, ...]
) -> None:
    """Both calls: EC2 Fleet over several pools, RunInstances for one."""
    fleet = account.fleet({"worker-0": SlotSpec("worker-0", pools)})
    fleet.fresh_until_s = account.now_s + 300.0
    account.double.profile_known_at = account.now() + timedelta(seconds=40)
    for _ in range(4):
        with pytest.raises(NotLaunched, match="Invalid IAM Instance Profile"):
            fleet.launch("worker-0")
        account.now_s += 10
    assert fleet.blocklist.closed() == frozenset()
    assert fleet.launch("worker-0") in account.double.instances


def test_a_profile_that_stays_unknown_stops_the_run_with_the_remedy(account: Account) -> None:
    fleet = account.fleet({"worker-0": any_zone("worker-0")})
    account.double.profile_known_at = account.now() + timedelta(days=1)
    with pytest.raises(ConfigurationError, match="shunt aws doctor"):
        fleet.launch("worker-0")


def test_a_template_made_just_now_is_waited_for(account: Account) -> None:
    code = "InvalidLaunchTemplateName.NotFoundException"
    account.double.faults = [FailFirst("create_fleet", code, 1), FailFirst("CreateFleet", code, 1)]
    fleet = account.fleet({"worker-0": any_zone("worker-0")})
    with pytest.raises(NotLaunched):
        fleet.launch("worker-0")
    assert fleet.launch("worker-0") in account.double.instances


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("RequestExpired", PermissionRefused, "clock of this machine is wrong"),
        ("OptInRequired", PermissionRefused, "enable it under Account"),
        (
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
            PermissionRefused,
            "shunt aws setup",
        ),
        ("UnauthorizedOperation", PermissionRefused, "decode-authorization-message"),
        ("InvalidSubnetID.NotFound", ConfigurationError, "fleet.ec2.subnets"),
    ],
)
def test_what_stops_a_run_names_its_remedy(code: str, kind: type[Exception], told: str) -> None:
    error = error_of("run_instances", code, "Encoded authorization failure message: abc.")
    assert isinstance(error, kind)
    assert told in str(error)
