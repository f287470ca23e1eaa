"""Offerings are checked where they enter."""

from collections.abc import Callable

import pytest

from placement.catalogue.offering import Offering, group_offerings
from placement.errors import BadInput

Offer = Callable[..., Offering]


def test_impossible_offerings_are_refused(offer: Offer) -> None:
    with pytest.raises(BadInput, match="negative price"):
        offer("g6e.xlarge", 1, -0.5)
    with pytest.raises(BadInput, match="negative count"):
        offer("g6e.xlarge", -1)
    with pytest.raises(BadInput, match="unknown instance type"):
        offer("x9.large", 1)
    with pytest.raises(BadInput, match="write spot or on-demand"):
        offer("g6e.xlarge", 1, market="free")
    with pytest.raises(BadInput, match="no price"):
        offer("p5e.48xlarge", 1)
    with pytest.raises(BadInput, match="negative interruption rate"):
        offer("g6e.xlarge", 1, rate=-1.0)


def test_equal_nodes_form_a_group(offer: Offer) -> None:
    """Zones of one type and rate are one group, the cheapest first; another rate is another."""
    groups = group_offerings(
        [
            offer("g6e.xlarge", 1, 2.0, zone="a"),
            offer("g6e.xlarge", 2, 1.0, zone="b"),
            offer("g6e.xlarge", 1, 0.5, market="spot", zone="b"),
            offer("g6e.xlarge", 0, 0.1, zone="c"),
        ]
    )
    assert [(g.max_nodes, [o.usd_per_hour for o in g.offerings]) for g in groups] == [
        (3, [1.0, 2.0]),
        (1, [0.5]),
    ]
