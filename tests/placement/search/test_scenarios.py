"""Choosing for recorded availability."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from placement.catalogue.offering import Offering, group_offerings
from placement.errors import BadInput
from placement.question.objective import RiskAversion
from placement.search.scenarios import Scenarios, choose, read_scenarios, score

Offer = Callable[..., Offering]


def test_the_tail_prefers_pipelines_that_share_no_pool(offer: Offer) -> None:
    """Two nodes each of A and B. Column 0 takes one of both and makes 1.1; column 1 two of A and
    makes 1.0; column 2 two of B and makes 1.0. Whenever A or B is gone, two mixed pipelines stand
    still, the two pure ones lose one. With all there, mixed is better."""
    groups = group_offerings([offer("g6e.xlarge", 2), offer("g6.xlarge", 2)])
    values = np.array([1.1, 1.0, 1.0])
    use = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    rough = Scenarios(np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]))
    calm = Scenarios(np.array([[2.0, 2.0]]))
    assert choose(values, use, groups, calm, RiskAversion(0.5, 0.4)) == pytest.approx([2, 0, 0])
    pure = choose(values, use, groups, rough, RiskAversion(0.5, 0.4))
    assert pure == pytest.approx([0, 1, 1])
    assert pure is not None
    assert score(values, use, groups, pure, rough).worst == 1.0
    assert score(values, use, groups, np.array([2, 0, 0]), rough).worst == 0.0


def test_reading_scenarios(tmp_path: Path, offer: Offer) -> None:
    groups = group_offerings([offer("g6e.xlarge", 2), offer("g6.xlarge", 3)])
    file = tmp_path / "windows.csv"
    file.write_text("scenario,instance_type,nodes\nnight,g6e.xlarge,0\nday,g6.xlarge,9\n")
    assert read_scenarios(file, groups).nodes.tolist() == [[0, 3], [2, 3]]
    file.write_text("scenario,instance_type,nodes\nnight,p5.48xlarge,0\n")
    with pytest.raises(BadInput, match="not offered"):
        read_scenarios(file, groups)
    with pytest.raises(BadInput, match="weight"):
        RiskAversion(weight=2.0)
