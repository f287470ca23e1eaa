"""The offering sheet: a file that another command reads, and an age that people read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shunt.errors import InputError
from shunt.plan.offering_sheet import OfferingSheet, SpotPrice, keep_sheet, read_sheet

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SHEET = OfferingSheet(
    region="us-east-1",
    taken_at=NOW,
    prices=(
        SpotPrice(instance_type="g6.xlarge", zone="a", usd_per_hour=0.4, since=NOW),
        SpotPrice(instance_type="g5.xlarge", zone="a", usd_per_hour=0.5),
    ),
    on_demand={"g5.xlarge": 1.006},
)


def test_a_sheet_survives_its_file(tmp_path: Path) -> None:
    keep_sheet(tmp_path / "new" / "sheet.json", SHEET)
    assert read_sheet(tmp_path / "new" / "sheet.json") == SHEET


@pytest.mark.parametrize("text", ["", "{", '{"region": "x"}'])
def test_another_file_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "sheet.json").write_text(text)
    with pytest.raises(InputError, match="shunt offers --json"):
        read_sheet(tmp_path / "sheet.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        read_sheet(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("age_s", "told"),
    [(5, "5 s old"), (119, "119 s old"), (600, "10 min old"), (864000, "10 days old")],
)
def test_age_for_people(age_s: float, told: str) -> None:
    assert SHEET.age(NOW + timedelta(seconds=age_s)) == told


def test_a_sheet_of_the_future_is_not_young() -> None:
    assert SHEET.younger(600, NOW + timedelta(seconds=599))
    assert not SHEET.younger(600, NOW + timedelta(seconds=600))
    assert not SHEET.younger(600, NOW - timedelta(seconds=1))


def test_the_part_about_some_types() -> None:
    part = SHEET.only(frozenset({"g6.xlarge"}))
    assert [p.instance_type for p in part.prices] == ["g6.xlarge"]
    assert part.on_demand == {}
