"""Nodes that work together: one zone, all or none, and away from where not all can be had."""

import pytest

from shunt.aws.nodes.one_zone import Gathered, gathered
from shunt.aws.nodes.pool import Blocklist, Pool, SlotSpec

ZONES = ("a", "b", "c")
TYPES = {"head": "g6.xlarge", "tail": "g6e.xlarge"}


def spec(slot: str, zones: tuple[str, ...] = ZONES, group: str = "p") -> SlotSpec:
    return SlotSpec(slot, tuple(pool(slot, zone) for zone in zones), group)


def pool(slot: str, zone: str) -> Pool:
    return Pool(TYPES.get(slot, "g5.xlarge"), zone, "spot")


def found(*specs: SlotSpec, closed: str = "", living: str = "", after_s: float = 0.0) -> Gathered:
    """`closed` and `living`: pairs such as `tail:a`, by slot. Looks so long after they closed."""
    now_s = [0.0]
    blocklist = Blocklist(lambda: now_s[0])
    for pair in closed.split():
        blocklist.block(pool(*pair.split(":")))
    now_s[0] = after_s
    holding = {pair.split(":")[0]: pool(*pair.split(":")) for pair in living.split()}
    given = specs or (spec("head"), spec("tail"))
    return gathered({s.slot: s for s in given}, holding, blocklist)


def zones(result: Gathered) -> dict[str, str]:
    assert all(len(spec.pools) == 1 for spec in result.specs.values())
    return {slot: spec.pools[0].zone for slot, spec in result.specs.items()}


@pytest.mark.parametrize(
    ("closed", "living", "zone", "moving"),
    [
        ("", "", "a", []),
        ("tail:a", "", "b", []),  # the head alone could be had in a
        ("tail:a head:b", "", "c", []),
        ("head:b", "tail:b", "a", ["tail"]),
        ("", "tail:b", "b", []),
        ("tail:a", "head:a", "b", ["head"]),
        ("tail:a head:b tail:c", "head:a", "a", []),  # nowhere better: it waits where it is
        ("head:a tail:a", "head:a tail:a", "a", []),  # complete: what is closed is no matter
        ("", "head:a tail:b", "a", ["tail"]),
    ],
)
def test_the_zone_of_a_pipeline(closed: str, living: str, zone: str, moving: list[str]) -> None:
    result = found(closed=closed, living=living)
    assert zones(result) == {"head": zone, "tail": zone}
    assert result.moving == dict.fromkeys(moving, zone)


def test_missing_nodes_wait_for_each_other_and_not_for_those_that_live() -> None:
    result = found(closed="head:a tail:b tail:c", living="tail:a")
    assert result.specs["head"].waits_for
    assert all(s.waits_for for s in found(closed="tail:a tail:b tail:c").specs.values())
    assert not any(s.waits_for for s in found(closed="tail:a").specs.values())
    assert not found(closed="tail:a head:b", living="tail:a").specs["head"].waits_for


def test_what_was_refused_lately_is_asked_for_before_the_rest_is_bought() -> None:
    result = found(spec("head", ("a",)), spec("tail", ("a",)), closed="tail:a", after_s=300.0)
    assert not result.specs["tail"].waits_for
    assert "g6e.xlarge" in result.specs["head"].waits_for
    result = found(spec("head", ("a",)), spec("tail", ("a",)), closed="tail:a", after_s=9000.0)
    assert not result.specs["head"].waits_for


def test_a_zone_that_one_of_them_cannot_be_in_is_not_taken() -> None:
    assert zones(found(spec("head"), spec("tail", ("c", "b")))) == {"head": "b", "tail": "b"}


def test_nodes_that_work_alone_keep_all_their_pools() -> None:
    alone = spec("alone", group="")
    result = found(alone, spec("head"), spec("tail"), closed="alone:a")
    assert result.specs["alone"] == alone
