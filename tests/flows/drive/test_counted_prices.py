"""On-demand nodes are counted at the prices of the region that they are bought in."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from flows.drive.ec2_nodes import counted_prices
from shunt.aws.errors import OutcomeUnknown
from shunt.errors import JobError
from shunt.job.job import Ec2

TYPE = "g6e.xlarge"


def settings(region: str, **other: Any) -> Ec2:
    given = {"region": region, "subnets": {f"{region}a": "s"}, "instance_types": [TYPE]}
    return Ec2.model_validate({**given, **other})


def listed() -> Mapping[str, float]:
    return {TYPE: 2.5, "p5.48xlarge": 60.0}


def away() -> Mapping[str, float]:
    raise OutcomeUnknown("get_products", "ConnectionFailed", "no route")


def test_another_region_has_its_own_prices() -> None:
    virginia = counted_prices(settings("us-east-1"), away)  # the catalogue's: nobody is asked
    ireland = counted_prices(settings("eu-west-1"), listed)
    assert ireland[TYPE] == Decimal("2.5")
    assert virginia[TYPE] != ireland[TYPE]


def test_the_jobs_own_price_counts_before_all() -> None:
    own = settings("eu-west-1", on_demand_usd_per_hour={TYPE: 1.25})
    assert counted_prices(own, listed)[TYPE] == Decimal("1.25")


def test_no_price_is_better_than_another_regions() -> None:
    assert counted_prices(settings("eu-west-1"), away) == {}
    with pytest.raises(JobError, match=f"no on-demand price is known for {TYPE}"):
        counted_prices(settings("eu-west-1", on_demand="at-deadline"), away)
