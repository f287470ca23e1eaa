"""What is decided before a request reaches the engine."""

from dataclasses import replace
from typing import Any

import pytest

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowErrorCode
from shunt.job.sampling import Sampling
from workers.engine.resume_plan import EngineTraits, reason_to_restart, refusal

V1_CPU = EngineTraits(runner="v1", device="cpu", max_model_len=100)
V2 = EngineTraits(
    runner="v2",
    device="cuda",
    max_model_len=100,
    max_allowed_token_ids=1024,
    max_logit_bias=1024,
    max_stop_token_ids=128,
)
SAVED = Generation(token_ids=(5, 6, 7))


def _request(saved: Generation | None = SAVED, **fields: Any) -> Request:
    return Request("0.0", (1, 2, 3), Sampling.model_validate(fields), saved)


@pytest.mark.parametrize(
    "fields",
    [
        {"allowed_token_ids": list(range(1025))},
        {"logit_bias": dict.fromkeys(range(1025), 1.0)},
        {"stop_token_ids": list(range(129))},
    ],
)
def test_runner_v2_is_not_given_more_than_it_holds(fields: dict[str, Any]) -> None:
    """V2 raises in the worker above these limits, which ends the engine; V1 has no such limit."""
    refused = refusal(_request(**fields), V2, ())
    assert refused is not None
    assert refused[0] == RowErrorCode.INVALID_PARAMETER
    assert refusal(_request(**fields), V1_CPU, ()) is None


def test_no_grammar_goes_to_a_backend_that_cannot_be_loaded() -> None:
    broken = replace(V1_CPU, no_grammars="the backend cannot be loaded")
    expected = (RowErrorCode.INVALID_PARAMETER, "the backend cannot be loaded")
    structured = _request(structured_outputs={"regex": "a+"})
    assert refusal(structured, broken, ()) == expected
    assert refusal(_request(), broken, ()) is None
    assert refusal(structured, V1_CPU, ()) is None


def test_a_row_that_takes_its_neighbours_logprobs_is_refused_where_nothing_mends_that() -> None:
    request = _request(logprob_token_ids=[1])
    refused = refusal(request, replace(V1_CPU, cannot_resume="another vLLM"), ())
    assert refused is not None
    assert refused[0] == RowErrorCode.INVALID_PARAMETER
    assert refusal(request, replace(V2, cannot_resume="another vLLM"), ()) is None
    assert refusal(request, V1_CPU, ()) is None


def test_seeded_rows_are_carried_where_the_noise_can_be_found_again() -> None:
    request = _request(temperature=1.0, seed=1)
    assert reason_to_restart(request, V1_CPU) is None
    assert reason_to_restart(request, V2) is None
    reason = reason_to_restart(request, replace(V1_CPU, device="cuda"))
    assert reason is not None
    assert "random state" in reason


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"temperature": 1.0}, "seed"),
        ({"thinking_token_budget": 9}, "thinking"),
        ({"logprobs": 1}, "logprobs"),
        ({"prompt_logprobs": 1}, "prompt"),
    ],
)
def test_what_cannot_be_carried_is_restarted(fields: dict[str, Any], word: str) -> None:
    reason = reason_to_restart(_request(**fields), V2)
    assert reason is not None
    assert word in reason


def test_an_engine_without_hooks_restarts_everything() -> None:
    traits = replace(V2, cannot_resume="vLLM is 0.33.0, not 0.32.0")
    assert reason_to_restart(_request(), traits) == "vLLM is 0.33.0, not 0.32.0"


def test_more_saved_than_the_context_holds() -> None:
    request = _request(Generation(token_ids=tuple(range(98))))
    assert "context" in (reason_to_restart(request, V2) or "")
