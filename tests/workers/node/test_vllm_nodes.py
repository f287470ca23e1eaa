"""Nodes of a plan with real vLLM: a pipeline over two of them, one of which is replaced."""

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shunt.job.job import EngineOptions, Model
from tests.workers.node.site import Site, site_of, wait_until
from tests.workers.pipeline.holding import assert_nothing_kept
from tests.workers.pipeline.processes import Told, assert_same
from tests.workers.pipeline.running import pipeline_of, requests

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here"
    ),
]

SAMPLING = requests(max_tokens=160)[0].sampling
ROWS = [{"token_ids": request.prompt_token_ids} for request in requests(max_tokens=160)]
"""Those that fixture `alone` has generated."""


@pytest.fixture
def site(model: str, tmp_path: Path) -> Iterator[Site]:
    found = site_at(tmp_path, model)
    yield found
    found.end()


def site_at(directory: Path, model: str) -> Site:
    engine = EngineOptions(enforce_eager=True, max_num_batched_tokens=64)
    return site_of(
        directory,
        Model(path=model, dtype="float32", max_model_len_tokens=256, engine=engine),
        SAMPLING,
        ROWS,
    )


@pytest.mark.parametrize(
    "notice",
    [pytest.param(True, id="notice"), pytest.param(False, id="sudden", marks=pytest.mark.soak)],
)
def test_a_pipeline_over_two_nodes_outlives_the_loss_of_one(
    site: Site, alone: Told, notice: bool
) -> None:
    """A notice costs no token; a node that is gone without a word costs no row."""
    site.plan(pipeline_of([1, 1], [4, 2], [0, 1]))
    site.start("i-0", "n-0")
    site.start("i-1", "n-1")
    wait_until(lambda: site.tokens() > 60, 300)
    if notice:
        site.nodes["i-1"].send_signal(signal.SIGTERM)
    else:
        site.take("i-1")
    site.start("i-2", "n-1")
    codes = site.codes(400)
    assert codes == {"i-0": 0, "i-2": 0} | ({"i-1": 75} if notice else {})
    found = site.generations()
    assert_same(alone, Told(found, []))
    launch = site.launch("n-0.0", after=1)
    assert launch is not None
    assert [seat.node_id for seat in launch.seats] == ["i-0", "i-2"]
    if notice:
        assert site.tokens() == len(ROWS) * (SAMPLING.max_tokens or 0)
    assert_nothing_kept()
