"""Offerings: one look at the market, kept for a while, and never a stack trace."""

from datetime import timedelta
from pathlib import Path

import pytest
from moto import mock_aws

from shunt.aws.offerings import OfferingSheet, cached, look
from shunt.aws.pool import Pool
from shunt.testing.ec2.faults import unauthorised
from tests.shunt.aws.conftest import START, ZONES, Account

TYPES = ("g6.xlarge", "g6.12xlarge", "g5.12xlarge")


def taken(account: Account) -> OfferingSheet:
    for zone in ZONES:
        for name in TYPES:
            account.market.set_price(Pool(name, zone, "spot"), START - timedelta(days=3), "1.5")
    account.market.set_price(Pool(TYPES[0], ZONES[0], "spot"), START, "0.4")
    account.market.quotas["All G and VT Spot Instance Requests"] = 96
    account.market.quotas["All P5 Spot Instance Requests"] = 0
    account.market.quotas["All P4, P3 and P2 Spot Instance Requests"] = 64
    with mock_aws():
        return look(
            account.api(),
            account.api("service-quotas"),
            region="us-east-1",
            now=account.now(),
            instance_types=TYPES,
        )


def test_types_prices_scores_and_quotas(account: Account) -> None:
    sheet = taken(account)
    assert sheet.missing == ()
    assert {t.instance_type: (t.gpu, t.gpu_count) for t in sheet.types} == {
        "g6.xlarge": ("L4", 1),
        "g6.12xlarge": ("L4", 4),
        "g5.12xlarge": ("A10G", 4),
    }
    prices = {(p.instance_type, p.zone): p.usd_per_hour for p in sheet.prices}
    assert len(prices) == 9
    assert prices["g6.xlarge", ZONES[0]] == 0.4
    assert set(sheet.scores.values()) == {10}
    assert sheet.quota_vcpus("g6e.xlarge", "spot") == 96
    assert sheet.quota_vcpus("p5.48xlarge", "spot") == 0
    assert sheet.quota_vcpus("p4d.24xlarge", "spot") == 64
    assert sheet.quota_vcpus("g6e.xlarge", "on-demand") is None


@pytest.mark.parametrize(
    ("operation", "column"),
    [
        ("DescribeSpotPriceHistory", "spot prices"),
        ("GetSpotPlacementScores", "placement scores"),
        ("ListServiceQuotas", "quotas"),
        ("DescribeInstanceTypes", "GPU types"),
    ],
)
def test_a_missing_permission_costs_a_column_and_is_named(
    account: Account, operation: str, column: str
) -> None:
    account.double.faults.append(unauthorised(operation))
    (line,) = taken(account).missing
    assert line == f"{column}: not shown; it needs ec2:{operation}"


def test_a_sheet_is_kept_until_it_is_old(tmp_path: Path) -> None:
    sheet = OfferingSheet(region="us-east-1", taken_at=START)
    asked: list[int] = []

    def ask() -> OfferingSheet:
        asked.append(1)
        return sheet

    for age_s in (0.0, 100.0, 700.0):
        now = START + timedelta(seconds=age_s)
        cached(tmp_path / "s.json", max_age_s=600, now=now, ask=ask)
    assert len(asked) == 2
    (tmp_path / "s.json").write_text("{")
    cached(tmp_path / "s.json", max_age_s=600, now=START, ask=ask)
    assert len(asked) == 3
