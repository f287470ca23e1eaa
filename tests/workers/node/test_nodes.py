"""Nodes of a plan as processes, with the fake engine: pipelines form, break, and form again."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.job.job import EngineOptions, Model
from shunt.job.sampling import Sampling
from shunt.plan.plan import Pipeline, Stage
from shunt.plan.seat import Seat
from tests.workers.node.site import ROOT, Site, site_of, wait_until
from workers.engine.fake import expected_generation
from workers.node.part_process import HeadProcess, NodeSetting
from workers.node.parts import Part

SAMPLING = Sampling(max_tokens=150, ignore_eos=True)
ROWS = [{"token_ids": [n, n + 1]} for n in range(24)]


def pipeline(name: str, *stages: tuple[str, int]) -> Pipeline:
    """One layer per stage, TP 1; `stages` are (slot, first GPU)."""
    return Pipeline(
        name=name,
        stages=tuple(
            Stage(slot=slot, first_gpu=gpu, tp=1, first_layer=n, end_layer=n + 1)
            for n, (slot, gpu) in enumerate(stages)
        ),
        max_num_seqs=6,
        predicted_requests_per_s=1,
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    engine = EngineOptions(max_num_seqs=6)
    model = Model(path="none", engine_kind="fake", fake_tokens_per_s=75, engine=engine)
    found = site_of(tmp_path, model, SAMPLING, ROWS)
    yield found
    found.end()


def assert_whole(found: list[Generation]) -> None:
    expected = [
        expected_generation(Request("", tuple(row["token_ids"]), SAMPLING)).token_ids
        for row in ROWS
    ]
    assert [generation.token_ids for generation in found] == expected


def test_two_nodes_form_a_pipeline_and_end_with_its_work(site: Site) -> None:
    site.plan(pipeline("p", ("a", 0), ("b", 0)))
    site.start("i-b", "b")
    site.start("i-a", "a")
    assert site.codes() == {"i-a": 0, "i-b": 0}
    assert_whole(site.generations())
    launch = site.launch("a.0")
    assert launch is not None
    assert launch.number == 1
    assert [seat.node_id for seat in launch.seats] == ["i-a", "i-b"]


def test_a_node_may_have_parts_of_several_pipelines(site: Site) -> None:
    """It heads one alone, heads one with another node, and follows in a third."""
    site.plan(
        pipeline("alone", ("a", 0), ("a", 1)),
        pipeline("head", ("a", 2), ("b", 0)),
        pipeline("tail", ("b", 1), ("a", 3)),
    )
    site.start("i-a", "a")
    site.start("i-b", "b")
    assert site.codes() == {"i-a": 0, "i-b": 0}
    assert_whole(site.generations())
    workers = {
        name.rsplit("-", 1)[0] for name, status in site.statuses().items() if not status.slot
    }
    assert workers == {"i-a.0", "i-a.2", "i-b.1"}


def test_a_node_that_drains_lets_the_head_save_and_another_takes_its_seat(site: Site) -> None:
    site.plan(pipeline("p", ("a", 0), ("b", 0)))
    site.start("i-a", "a")
    site.start("i-b", "b")
    wait_until(lambda: site.tokens() > 100)
    site.nodes["i-b"].send_signal(signal.SIGTERM)
    site.start("i-b2", "b")
    wait_until(lambda: site.launch("a.0", after=1))
    second = site.launch("a.0", after=1)
    assert second is not None
    assert [seat.node_id for seat in second.seats] == ["i-a", "i-b2"]
    assert site.codes() == {"i-a": 0, "i-b": 75, "i-b2": 0}
    assert_whole(site.generations())
    assert site.tokens() == len(ROWS) * (SAMPLING.max_tokens or 0)


def test_a_node_that_is_gone_without_a_word_is_missed_by_its_silence(site: Site) -> None:
    site.plan(pipeline("p", ("a", 0), ("b", 0)))
    site.start("i-a", "a")
    site.start("i-b", "b")
    wait_until(lambda: site.tokens() > 100)
    site.take("i-b")
    site.start("i-b2", "b")
    assert site.codes() == {"i-a": 0, "i-b2": 0}
    assert_whole(site.generations())


def test_a_head_that_is_gone_is_followed_by_another(site: Site) -> None:
    site.plan(pipeline("p", ("a", 0), ("b", 0)))
    site.start("i-a", "a")
    site.start("i-b", "b")
    wait_until(lambda: site.tokens() > 100)
    site.take("i-a")
    site.start("i-a2", "a")
    assert site.codes() == {"i-a2": 0, "i-b": 0}
    assert_whole(site.generations())
    launch = site.launch("a.0", after=1)
    assert launch is not None
    assert launch.seats[0].node_id == "i-a2"


def test_a_new_plan_gives_nodes_other_parts(site: Site) -> None:
    site.plan(pipeline("p", ("a", 0), ("b", 0)))
    site.start("i-a", "a")
    site.start("i-b", "b")
    wait_until(lambda: site.tokens() > 100)
    site.plan(pipeline("p", ("b", 0), ("a", 0)), version=2)
    assert site.codes() == {"i-a": 0, "i-b": 0}
    assert_whole(site.generations())
    assert site.tokens() == len(ROWS) * (SAMPLING.max_tokens or 0)
    assert any(name.startswith("i-b.0") for name in site.statuses())


def test_a_pipeline_that_waits_for_a_node_ends_when_others_have_done_the_work(site: Site) -> None:
    site.plan(pipeline("p", ("a", 0), ("b", 0)), pipeline("alone", ("c", 0), ("c", 1)))
    site.start("i-a", "a")
    site.start("i-c", "c")
    assert site.codes() == {"i-a": 0, "i-c": 0}
    assert_whole(site.generations())


def test_a_worker_that_hangs_is_a_crash_of_its_node(site: Site) -> None:
    own = Seat(slot="a", node_id="i-a", address="127.0.0.1")
    store = json.dumps({"uri": site.manifest.job.store.uri})
    setting = NodeSetting(
        store=site.store,
        run_id=site.manifest.run_id,
        job=site.manifest.job,
        own=own,
        worker_options=["--store", store, "--run", site.manifest.run_id],
        environment={**os.environ, "PYTHONPATH": str(ROOT)},
        cores=1,
        monotonic=time.monotonic,
        silent_s=6.0,
    )
    head = HeadProcess(Part(pipeline("alone", ("a", 0)), "a"), setting)
    head.step()
    assert head._process is not None
    try:
        wait_until(lambda: site.tokens() > 100)
        head.step()
        assert head.lives
        head._process.send_signal(signal.SIGSTOP)
        wait_until(lambda: head.step() or head.crash)
        assert not head.lives
    finally:
        head.kill()
