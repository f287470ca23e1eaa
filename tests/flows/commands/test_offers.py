"""`shunt offers` and `shunt plan --offers`: the sheet that is shown is the one that is planned."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.commands import offers as offers_command
from shunt.plan.offering_sheet import OfferingSheet, SpotPrice, keep_sheet
from shunt.plan.plan import Plan

JOB = """
model: {path: Qwen3-8B}
plan:
  workload: {num_prompts: 1000, input_tokens: 763, output_tokens: 232}
  constraints: {max_stages: 2, max_sequences: 64}
"""
REFUSED = "spot prices: not shown; it needs ec2:DescribeSpotPriceHistory"


def sheet(*, age_s: float = 0.0, usd: float = 0.4, **changes: object) -> OfferingSheet:
    return OfferingSheet(
        region="us-east-1",
        taken_at=datetime.now(UTC) - timedelta(seconds=age_s),
        prices=(SpotPrice(instance_type="g6.xlarge", zone="us-east-1a", usd_per_hour=usd),),
        quotas={"All G and VT Spot Instance Requests": 8},
    ).model_copy(update=changes)


@pytest.fixture
def market(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[OfferingSheet], list[datetime]]:
    """What AWS answers; returns when it was asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def answers(found: OfferingSheet) -> list[datetime]:
        asked: list[datetime] = []

        def ask(region: str, now: datetime) -> OfferingSheet:
            assert region == "us-east-1"
            asked.append(now)
            return found

        monkeypatch.setattr(offers_command, "_asked", ask)
        return asked

    return answers


Market = Callable[[OfferingSheet], list[datetime]]


def said(*argv: str) -> str:
    result = CliRunner().invoke(app, list(argv), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_look_is_kept_for_ten_minutes(market: Market, tmp_path: Path) -> None:
    asked = market(sheet())
    assert "0.4000" in said("offers")
    assert "s old, from AWS" in said("offers")
    assert len(asked) == 1
    said("offers", "--refresh")
    assert len(asked) == 2
    keep_sheet(tmp_path / "shunt" / "offers-us-east-1.json", sheet(age_s=700))
    said("offers")
    assert len(asked) == 3
    (tmp_path / "shunt" / "offers-us-east-1.json").write_text("{")
    said("offers")
    assert len(asked) == 4


def test_one_type_is_shown_and_all_are_kept(market: Market) -> None:
    market(sheet())
    assert "g6.xlarge" not in said("offers", "--type", "g5.xlarge")
    assert "g6.xlarge" in said("offers", "--offline")


def test_a_sheet_that_lacks_something_is_shown_and_asked_for_again(market: Market) -> None:
    """So that a permission given in between is seen at once."""
    asked = market(sheet(missing=("quotas: not shown; it needs servicequotas:X",)))
    assert "quotas: not shown; it needs servicequotas:X" in said("offers")
    said("offers")
    assert len(asked) == 2


def test_without_prices_the_last_good_sheet_stays(market: Market, tmp_path: Path) -> None:
    keep_sheet(tmp_path / "shunt" / "offers-us-east-1.json", sheet(age_s=7200))
    market(sheet(prices=(), missing=(REFUSED,)))
    output = said("offers")
    assert REFUSED in output
    assert "shown instead: AWS, 2 h old" in output
    assert "0.4000" in output
    assert "2 h old" in said("offers", "--offline")


def test_without_anything_there_is_the_shipped_snapshot(market: Market) -> None:
    market(sheet(prices=(), missing=(REFUSED,)))
    assert "shown instead: the snapshot that is shipped" in said("offers")
    assert "karpenter-provider-aws@1d92708" in said("offers", "--offline")


def test_without_credentials_there_is_a_line_and_the_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_PROFILE", "nobody-has-this")
    output = said("offers")
    assert "nothing shown; client of ec2: NoCredentials: needs valid AWS credentials" in output
    assert "shown instead: the snapshot that is shipped" in output
    assert not list(tmp_path.iterdir()), "a sheet without prices is not kept"


def test_planning_takes_the_sheet_and_its_quota(market: Market, tmp_path: Path) -> None:
    """A quota of 8 vCPU is two g6.xlarge, at the price of the sheet."""
    asked = market(sheet(usd=0.31))
    (tmp_path / "job.yaml").write_text(JOB)
    file = tmp_path / "sheet.json"
    file.write_text(said("offers", "--json"))
    market(sheet(usd=9.0))
    for source in ("live", "offline", str(file)):
        argv = ["plan", str(tmp_path / "job.yaml"), "--json", "--offers", source]
        result = CliRunner().invoke(app, argv)
        assert result.exit_code == 0, result.output
        made = Plan.model_validate_json(result.stdout)
        assert [n.usd_per_hour for n in made.nodes] == [0.31, 0.31]
        assert "old, from AWS" in result.stderr
    assert len(asked) == 1


def test_a_file_that_is_no_sheet_is_bad_input(market: Market, tmp_path: Path) -> None:
    market(sheet())
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "no.json").write_text(json.dumps({"a": 1}))
    argv = ["plan", str(tmp_path / "job.yaml"), "--offers", str(tmp_path / "no.json")]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 2
    assert "error: " in result.output
    assert "shunt offers --json" in result.output
