"""Admission: one queue over shards, and the search for the prompt that kills engines."""

from dataclasses import replace

import pytest

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.job.sampling import Sampling
from workers.admission import ALONE_DEATHS, Admission


def request(name: str) -> Request:
    return Request(name, (1,), Sampling())


def with_tokens(request: Request, count: int) -> Request:
    return replace(request, saved=Generation(token_ids=(7,) * count))


def admit(admission: Admission, running: list[Request], limit: int) -> list[Request]:
    """Admit as the worker does: until the engine is full or nothing may go in."""
    while len(running) < limit and (found := admission.next(len(running))) is not None:
        running.append(found)
    return running


def test_requests_go_in_the_order_in_which_they_came() -> None:
    admission = Admission(max_deaths=2)
    admission.add([request("0.0"), request("1.0")])
    admission.add([request("2.0")])
    assert [r.request_id for r in admit(admission, [], 9)] == ["0.0", "1.0", "2.0"]
    assert admission.next(3) is None


@pytest.mark.parametrize("killer", range(8))
def test_the_killer_is_found_and_everything_else_finishes(killer: int) -> None:
    """Each death halves the group; at last the killer dies alone, twice at the same token."""
    admission = Admission(max_deaths=2)
    admission.add([request(f"{index}.0") for index in range(8)])
    finished: set[str] = set()
    convicted: list[str] = []
    deaths = 0
    while len(finished) + len(convicted) < 8:
        running = admit(admission, [], 4)
        assert running
        if any(r.request_id == f"{killer}.0" for r in running):
            deaths += 1
            convicted += [r.request_id for r in admission.engine_died(running)]
        else:
            for ended in running:
                admission.cleared(ended.request_id)
                finished.add(ended.request_id)
    assert convicted == [f"{killer}.0"]
    assert deaths <= 5


def test_suspects_never_share_the_engine_with_the_innocent() -> None:
    admission = Admission(max_deaths=3)
    admission.add([request("0.0"), request("1.0"), request("2.0"), request("3.0")])
    in_flight = admit(admission, [], 2)
    admission.engine_died(in_flight)
    trial = admit(admission, [], 4)
    assert [r.request_id for r in trial] == ["0.0"]
    admission.cleared("0.0")
    assert [r.request_id for r in admit(admission, [], 4)] == ["1.0"]
    admission.cleared("1.0")
    assert [r.request_id for r in admit(admission, [], 4)] == ["2.0", "3.0"]


def test_deaths_at_other_tokens_convict_nobody() -> None:
    """An engine that is killed from outside strikes anywhere; a killing prompt, at one place."""
    admission = Admission(max_deaths=2)
    admission.add([request("0.0")])
    for tokens in range(1, ALONE_DEATHS * 2):
        assert [r.request_id for r in admit(admission, [], 4)] == ["0.0"]
        assert admission.engine_died([with_tokens(request("0.0"), tokens)]) == []


def test_a_request_that_creeps_on_is_convicted_in_the_end() -> None:
    admission = Admission(max_deaths=2)
    deaths = [admission.engine_died([with_tokens(request("0.0"), n)]) for n in range(1, 9)]
    assert [bool(convicted) for convicted in deaths] == [False] * 7 + [True]


def test_requests_of_a_lost_shard_are_forgotten() -> None:
    admission = Admission(max_deaths=2)
    admission.add([request("0.0"), request("1.0")])
    admission.suspect(request("2.0"), deaths=1)
    admission.forget({"0.0", "2.0"})
    assert [r.request_id for r in admit(admission, [], 9)] == ["1.0"]


def test_suspects_of_other_owners_run_half_at_once_too() -> None:
    """A batch that died twice before its first segment is not run one row at a time."""
    admission = Admission(max_deaths=2)
    for index in range(256):
        admission.suspect(request(f"{index}.0"), deaths=1)
    assert len(admit(admission, [], 256)) == 128
