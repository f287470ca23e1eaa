"""A generation begun on one rank goes on in a pipeline, and back."""

import json

import pytest

from tests.workers.pipeline.holding import assert_nothing_kept
from tests.workers.pipeline.processes import NEAR_TIE, play

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def test_moves_between_one_rank_and_a_pipeline_of_two_slots(model: str) -> None:
    """Greedy, seeded and penalised rows, moved three times each: the tokens of the first engine."""
    spec = {"model": model, "tp": [2, 1], "layers": [4, 2], "nodes": [0, 1]}
    rows = json.loads(play("moves", spec).end(500))
    assert len(rows) == 9
    for row in rows:
        assert row["moves"] >= 2, row  # to the pipeline and back; a third may come too late
        assert row["resumption"] == "state-exact", row
        assert row["max_logprob_gap"] < NEAR_TIE, row
        assert row["first_difference"] is None or row["choice_gap"] < NEAR_TIE, row
    assert_nothing_kept()
