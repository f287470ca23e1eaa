"""Which of the running requests a step may take, so that there is work for every stage."""

from dataclasses import dataclass

import pytest

pytestmark = pytest.mark.vllm


@dataclass(slots=True)
class Running:
    """What `defer_surplus` reads of vLLM's request."""

    num_tokens_with_spec: int
    num_computed_tokens: int
    num_output_placeholders: int = 0
    is_prefill_chunk: bool = False
    next_decode_eligible_step: int = 0


def decoding() -> Running:
    return Running(num_tokens_with_spec=10, num_computed_tokens=9)


def in_flight() -> Running:
    return Running(num_tokens_with_spec=10, num_computed_tokens=10)


def taken(running: list[Running], *, step: int, num_batches: int) -> list[int]:
    from workers.pipeline.scheduler import defer_surplus

    defer_surplus(running, step=step, num_batches=num_batches)
    return [
        index
        for index, request in enumerate(running)
        if request.next_decode_eligible_step <= step
        and request.num_tokens_with_spec > request.num_computed_tokens
    ]


def test_a_batch_takes_its_share_and_the_next_the_rest() -> None:
    running = [decoding() for _ in range(7)]
    assert taken(running, step=5, num_batches=2) == [0, 1, 2, 3]
    for index in range(4):
        running[index] = in_flight()
    assert taken(running, step=6, num_batches=2) == [4, 5, 6]


def test_fewer_requests_than_stages_go_one_by_one() -> None:
    assert taken([decoding(), decoding()], step=1, num_batches=4) == [0]
    assert taken([decoding()], step=1, num_batches=4) == [0]


def test_prefills_are_not_held_back() -> None:
    chunk = Running(num_tokens_with_spec=90, num_computed_tokens=30, is_prefill_chunk=True)
    running = [decoding(), decoding(), chunk]
    assert taken(running, step=1, num_batches=2) == [0, 2]


def test_what_vllm_holds_back_itself_is_no_candidate() -> None:
    running = [decoding(), decoding(), decoding()]
    running[0].next_decode_eligible_step = 9
    assert taken(running, step=1, num_batches=3) == [1]
    assert running[0].next_decode_eligible_step == 9
