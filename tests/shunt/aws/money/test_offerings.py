"""A look at the market: everything asked once, and what is refused costs its own column."""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from shunt.aws.api import AwsApi, client_of
from shunt.aws.errors import CredentialsRefused, OutcomeUnknown
from shunt.aws.money.offerings import SCORE_TYPES, Desk, look
from shunt.aws.nodes.pool import Pool
from shunt.plan.offering_sheet import OfferingSheet
from shunt.retry import NO_RETRY
from shunt.testing.ec2.faults import FailFirst, unauthorised
from shunt.testing.ec2.price_list import PriceListDouble
from tests.shunt.aws.conftest import START, ZONES, Account

TYPES = ("g6.xlarge", "g6.12xlarge", "g5.12xlarge")
ON_DEMAND = {
    ("us-east-1", "g6.xlarge"): "0.8048",
    ("us-east-1", "g6.12xlarge"): "4.6016",
    ("us-east-1", "g5.12xlarge"): "5.6720",
    ("eu-west-1", "g6.xlarge"): "9.9",
}


@pytest.fixture
def price_list(account: Account) -> PriceListDouble:
    del account  # its environment has the credentials
    return PriceListDouble(ON_DEMAND)


@pytest.fixture
def desk(account: Account, price_list: PriceListDouble) -> Iterator[Desk]:
    for zone in ZONES:
        for name in TYPES:
            account.market.set_price(Pool(name, zone, "spot"), START - timedelta(days=3), "1.5")
    account.market.set_price(Pool(TYPES[0], ZONES[0], "spot"), START, "0.4")
    account.market.quotas["All G and VT Spot Instance Requests"] = 96
    account.market.quotas["All P5 Spot Instance Requests"] = 0
    account.market.quotas["All P4, P3 and P2 Spot Instance Requests"] = 64
    client = client_of("pricing", "us-east-1")
    price_list.attach(client)
    with mock_aws():
        yield Desk(account.api(), account.api("service-quotas"), AwsApi(client, account.sleep))


def taken(account: Account, desk: Desk) -> OfferingSheet:
    return look(desk, region="us-east-1", now=account.now())


def test_types_prices_scores_and_quotas(account: Account, desk: Desk) -> None:
    sheet = taken(account, desk)
    assert sheet.missing == ()
    assert {
        t.instance_type: (t.gpu, t.gpu_count, t.vcpus)
        for t in sheet.types
        if t.instance_type in TYPES
    } == {
        "g6.xlarge": ("L4", 1, 4),
        "g6.12xlarge": ("L4", 4, 48),
        "g5.12xlarge": ("A10G", 4, 48),
    }
    prices = {(p.instance_type, p.zone): p.usd_per_hour for p in sheet.prices}
    assert len(prices) == 9
    assert prices["g6.xlarge", ZONES[0]] == 0.4
    assert sheet.on_demand == {"g6.xlarge": 0.8048, "g6.12xlarge": 4.6016, "g5.12xlarge": 5.672}
    assert set(sheet.scores.values()) == {10}
    assert sheet.score_types == SCORE_TYPES
    assert sheet.quota_vcpus("g6e.xlarge", "spot") == 96
    assert sheet.quota_vcpus("p5.48xlarge", "spot") == 0
    assert sheet.quota_vcpus("p4d.24xlarge", "spot") == 64
    assert sheet.quota_vcpus("g6e.xlarge", "on-demand") is None


def test_scores_are_told_by_the_accounts_own_names_of_zones(account: Account, desk: Desk) -> None:
    """EC2 scores zone ids (use1-az1); prices and launches go by names (us-east-1a)."""
    client = desk.ec2.client

    def scores(model: Any, **_: object) -> Any:
        if model.name != "GetSpotPlacementScores":
            return None
        row = {"Region": "us-east-1", "AvailabilityZoneId": "use1-az6", "Score": 7}
        return _Http(), {"SpotPlacementScores": [row]}

    client.meta.events.register_first("before-call", scores)
    try:
        named = desk.ec2.call("describe_availability_zones", {})["AvailabilityZones"]
        (name,) = [z["ZoneName"] for z in named if z["ZoneId"] == "use1-az6"]
        assert taken(account, desk).scores == {name: 7}
    finally:
        client.meta.events.unregister("before-call", scores)


class _Http:
    status_code = 200


@pytest.mark.parametrize(
    ("operation", "column"),
    [
        ("DescribeSpotPriceHistory", "spot prices"),
        ("GetSpotPlacementScores", "placement scores"),
        ("ListServiceQuotas", "quotas"),
        ("DescribeInstanceTypes", "GPU types"),
        ("DescribeAvailabilityZones", "names of zones"),
        ("GetProducts", "on-demand prices"),
    ],
)
def test_a_missing_permission_costs_a_column_and_is_named(
    account: Account, price_list: PriceListDouble, desk: Desk, operation: str, column: str
) -> None:
    refusal = unauthorised(operation)
    account.double.faults.append(refusal)
    price_list.faults.append(refusal)
    (line,) = taken(account, desk).missing
    assert line == f"{column}: not shown; it needs ec2:{operation}"


@pytest.mark.parametrize(
    ("code", "needs"),
    [("ExpiredToken", "valid AWS credentials"), ("ServiceUnavailable", "AWS to be reachable")],
)
def test_where_nobody_answers_the_rest_is_not_asked(
    account: Account, desk: Desk, code: str, needs: str
) -> None:
    account.double.faults.append(FailFirst("DescribeInstanceTypes", code, times=99))
    sheet = taken(account, desk)
    (line,) = sheet.missing
    assert needs in line
    assert line.startswith("GPU types and all after it")
    assert (sheet.types, sheet.prices, sheet.quotas) == ((), (), {})
    assert "describe_spot_price_history" not in desk.ec2.calls


def test_without_credentials_or_network_there_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CredentialsRefused, match="valid AWS credentials"):
        AwsApi(client_of("ec2", "us-east-1"), retry=NO_RETRY).call("describe_instances", {})
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_PROFILE", "nobody-has-this")
    with pytest.raises(CredentialsRefused, match="nobody-has-this"):
        client_of("ec2", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:9")
    with pytest.raises(OutcomeUnknown):
        AwsApi(client_of("ec2", "us-east-1"), retry=NO_RETRY).call("describe_instances", {})
