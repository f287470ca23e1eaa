"""Tokens held in the engine core: handed over in order, whole, at the end, a pause and in time."""

from enum import Enum, auto
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.vllm


class Pause(Enum):
    UNPAUSED = auto()
    PAUSED_ALL = auto()


class Steps:
    """Stands where vLLM's scheduler is: gives the outputs of the steps that a test says."""

    def __init__(self) -> None:
        self.vllm_config = SimpleNamespace(additional_config={})
        self.requests: dict[str, Any] = {}
        self.pause_state = Pause.UNPAUSED

    def admit(self, name: str, *, stop: tuple[str, ...] = ()) -> None:
        self.requests[name] = SimpleNamespace(sampling_params=SimpleNamespace(stop=stop))

    def update_from_output(self, step: dict[str, Any]) -> dict[int, Any]:
        from workers.engine.private.core import EngineCoreOutput, EngineCoreOutputs

        outputs = [EngineCoreOutput(request_id=name, **said) for name, said in step.items()]
        for name in [out.request_id for out in outputs if out.finish_reason is not None]:
            del self.requests[name]  # as vLLM has done when it tells of the end
        return {0: EngineCoreOutputs(outputs=outputs)}


def holding(*names: str) -> Any:
    from workers.engine.held_tokens import HoldingTokens

    class Scheduler(HoldingTokens, Steps):
        pass

    scheduler = Scheduler()
    for name in names:
        scheduler.admit(name)
    return scheduler


def told(by_client: dict[int, Any]) -> dict[str, list[int]]:
    return {out.request_id: out.new_token_ids for out in by_client[0].outputs} if by_client else {}


def step(**tokens: int) -> dict[str, Any]:
    return {name: {"new_token_ids": [token]} for name, token in tokens.items()}


def test_tokens_are_handed_over_together_and_in_order() -> None:
    from workers.engine.held_tokens import HOLD_STEPS

    scheduler = holding("a", "b")
    for number in range(HOLD_STEPS - 1):
        assert scheduler.update_from_output(step(a=number, b=-number)) == {}
    whole = told(scheduler.update_from_output(step(a=HOLD_STEPS - 1)))  # b was not in the step
    assert whole == {
        "a": list(range(HOLD_STEPS)),
        "b": [-number for number in range(HOLD_STEPS - 1)],
    }
    assert scheduler.update_from_output(step(a=77)) == {}


def test_an_end_brings_what_was_held_of_its_request_and_leaves_the_others() -> None:
    from workers.engine.held_tokens import HOLD_STEPS

    for at in range(1, 2 * HOLD_STEPS):  # at every place between two hand-overs
        scheduler = holding("a", "b", "c")
        heard: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        for number in range(at):
            for name, tokens in told(scheduler.update_from_output(step(a=number, b=9))).items():
                heard[name] += tokens
        last = {"a": {"new_token_ids": [at], "finish_reason": _stopped()}}
        for name, tokens in told(scheduler.update_from_output(last)).items():
            heard[name] += tokens
        assert heard["a"] == list(range(at + 1))
        rest = scheduler.take_held().get(0, {}).values()
        assert len(heard["b"]) + sum(len(out.new_token_ids) for out in rest) == at


def test_who_is_alone_stops_at_strings_or_has_logprobs_is_told_of_at_once() -> None:
    scheduler = holding("a")
    assert told(scheduler.update_from_output(step(a=1))) == {"a": [1]}
    scheduler = holding("a")
    scheduler.admit("b", stop=("x",))
    assert told(scheduler.update_from_output(step(a=1, b=2))) == {"b": [2]}
    with_logprobs = {"a": {"new_token_ids": [3], "new_logprobs": ()}}
    assert told(scheduler.update_from_output(with_logprobs)) == {"a": [1, 3]}


def test_a_pause_hands_over_and_holds_nothing_more() -> None:
    scheduler = holding("a", "b")
    scheduler.update_from_output(step(a=1, b=2))
    held = scheduler.take_held()[0]
    assert {name: out.new_token_ids for name, out in held.items()} == {"a": [1], "b": [2]}
    scheduler.pause_state = Pause.PAUSED_ALL  # what was in flight comes after it
    assert told(scheduler.update_from_output(step(a=3))) == {"a": [3]}


def test_nothing_is_told_of_a_request_that_was_aborted() -> None:
    scheduler = holding("a", "b", "c")
    scheduler.update_from_output(step(a=1, b=2, c=3))
    del scheduler.requests["b"]
    assert set(scheduler.take_held()[0]) == {"a", "c"}


def _stopped() -> Any:
    from vllm.v1.engine import FinishReason

    return FinishReason.STOP
