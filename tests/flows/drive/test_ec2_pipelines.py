"""`shunt run` of a plan whose pipeline spans two nodes: bought together, broken, whole again."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shunt.aws import tags
from shunt.aws.nodes.pool import Pool
from shunt.testing.ec2.market import Market
from tests.flows.ec2_site import SLOW, START, ZONES, Site, check_whole, ec2_site

pytestmark = pytest.mark.timeout(300)

TYPE = "g6.12xlarge"
PLAN: dict[str, Any] = {
    "workload": {"num_prompts": 1000, "input_tokens": 500, "output_tokens": 200},
    "offerings": [{"instance_type": TYPE, "usd_per_hour": 2, "max_nodes": 2}],
    "objective": {"kind": "cost", "deadline_hours": 48},
}
"""A model of 70 billion parameters does not fit on one node of four L4."""


def market() -> Market:
    found = Market()
    for number, zone in enumerate(ZONES):
        found.set_price(Pool(TYPE, zone, "spot"), START, str(3.6 + number))
    return found


def by_slot(at: Site) -> dict[str, str]:
    return {i.tags[tags.SLOT]: i.instance_id for i in at.cloud.living()}


def test_two_nodes_are_one_pipeline_that_outlives_notices_and_an_emptied_zone(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with ec2_site(
        tmp_path,
        tokens_per_s=2 * SLOW,  # one pipeline does the work of two nodes
        market=market(),
        plan=PLAN,
        model="Llama-3.1-70B-Instruct",
        on_demand_usd_per_hour={TYPE: 36},
    ) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        at.until_working(1)
        first = by_slot(at)
        assert len(first) == 2
        assert {i.pool.zone for i in at.cloud.living()} == {ZONES[0]}
        at.cloud.empty(Pool(TYPE, ZONES[0], "spot"))
        done = at.end(run)
        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        zones = [i.pool.zone for i in at.cloud.double.instances.values()]
        assert zones[:2] == [ZONES[0]] * 2
        assert set(zones[2:]) == {ZONES[1]}
        assert at.cloud.double.placement_groups.groups == {}
        groups = {i.placement_group for i in at.cloud.double.instances.values()}
        assert {name.rsplit("-", 3)[-1] for name in groups} == {"1a", "1b"}
        assert at.cloud.double.bill_usd() > Decimal(0)
