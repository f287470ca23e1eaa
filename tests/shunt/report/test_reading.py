"""The report's facts, from a run whose story is known."""

import pytest

from shunt.report.reading import read_report
from shunt.report.report import RunReport
from shunt.run.cancellation import cancel
from shunt.run.event import Event, EventKind, record
from shunt.run.status import RunState
from shunt.testing.memory_store import MemoryStore
from tests.shunt.report.story import (
    BOOT_S,
    END_S,
    GAP_S,
    LOAD_S,
    NUM_LOSSES,
    NUM_SLOTS,
    RATE,
    RUN,
    UNSAVED,
    at,
    story_store,
)


@pytest.fixture(scope="module")
def told() -> RunReport:
    return read_report(story_store(), RUN, now=at(END_S + 3600))


def test_every_place_has_its_nodes_in_the_order_of_their_lives(told: RunReport) -> None:
    assert [lane.slot for lane in told.lanes] == [f"w-{slot}" for slot in range(NUM_SLOTS)]
    for slot, lane in enumerate(told.lanes):
        assert [life.node_id for life in lane.lives] == [f"i-{slot}{n}" for n in range(4)]
        assert [life.ending for life in lane.lives] == [*["interrupted"] * NUM_LOSSES, "done"]


def test_a_life_is_boot_load_and_work_without_a_gap(told: RunReport) -> None:
    life = told.lanes[1].lives[0]
    assert [span.activity for span in life.spans] == ["booting", "starting", "running"]
    boot, load, work = life.spans
    assert (boot.from_s, boot.to_s) == (life.began_s, life.began_s + BOOT_S)
    assert (load.from_s, load.to_s) == (boot.to_s, boot.to_s + LOAD_S)
    assert (work.from_s, work.to_s) == (load.to_s, life.ended_s)


def test_an_interruption_says_what_it_cost(told: RunReport) -> None:
    assert len(told.interruptions) == NUM_SLOTS * NUM_LOSSES == 12
    assert told.interruptions == tuple(sorted(told.interruptions, key=lambda i: i.at_s))
    for interruption in told.interruptions:
        noticed = interruption.reason.startswith("interruption notice")
        assert interruption.lost_tokens == (0 if noticed else UNSAVED)
        assert interruption.replaced_after_s == pytest.approx(GAP_S + BOOT_S + LOAD_S)
    assert told.lost_tokens == 6 * UNSAVED
    assert told.taken_over_tokens == 12 * 400


def test_the_speed_is_that_of_the_workers_that_work(told: RunReport) -> None:
    curve = told.speed
    made = sum(curve.tokens_per_s) * curve.step_s
    by_hand = sum(
        RATE * (life.ended_s - life.began_s - BOOT_S - LOAD_S)
        for lane in told.lanes
        for life in lane.lives
    )
    assert made == pytest.approx(by_hand, rel=0.01)
    middle = int(60 / curve.step_s)
    assert curve.tokens_per_s[middle] == pytest.approx(4 * RATE, rel=0.05)
    assert curve.tokens_per_s[0] == 0
    parts = zip(*curve.by_slot.values(), strict=True)
    assert [sum(part) for part in parts] == pytest.approx(curve.tokens_per_s, abs=0.05)


def test_the_tail_is_told_when_all_rows_have_ended(told: RunReport) -> None:
    assert told.rows[-1].rows == told.num_rows == 400
    assert told.tail is not None
    assert told.tail.half_s < told.tail.p95_s < told.tail.last_s <= END_S


def test_money_is_told_pool_by_pool_against_on_demand(told: RunReport) -> None:
    assert told.money is not None
    assert (told.money.usd, told.money.on_demand_usd) == (2.15, pytest.approx(3.81))
    assert sum(float(pool.usd) for pool in told.money.pools) == pytest.approx(told.money.usd)


def test_the_forecast_is_scored(told: RunReport) -> None:
    duration, cost = told.scores
    assert duration.inside
    assert duration.happened == told.duration_s == END_S
    assert not cost.inside


def test_a_report_survives_being_written_and_read(told: RunReport) -> None:
    assert RunReport.model_validate_json(told.model_dump_json()) == told


def test_an_open_run_ends_at_its_last_word() -> None:
    store = story_store()
    without = MemoryStore()
    for key in store.list(""):
        if "/results/" not in key and "/done/" not in key:
            without.put(key, store.get(key))
    cancel(without, RUN)
    record(without, RUN, Event(at=at(END_S + 5), kind=EventKind.CANCELLED))
    told = read_report(without, RUN, now=at(END_S + 9000))
    assert told.state is RunState.CANCELLED
    assert told.duration_s == END_S + 5
    assert (told.results, told.scores) == ("", ())
