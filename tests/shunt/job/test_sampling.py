"""What no row may ask for, lest it is misread or ends the engine."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from shunt.job.sampling import Sampling


@pytest.mark.parametrize(
    "given",
    [
        {"max_tokens": True},
        {"max_tokens": "8"},
        {"max_tokens": 8.5},
        {"temperature": "0.5"},
        {"temperature": math.nan},
        {"seed": 2**63 - 1},
        {"seed": -(2**63) - 1},
        {"stop_token_ids": [True]},
        {"logit_bias": {"28": math.inf}},
        {"logit_bias": {"the": 1.0}},
        {"min_tokens": 9, "max_tokens": 8},
        {"best_of": 2},
    ],
)
def test_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(given)


def test_numbers_as_json_and_tables_write_them() -> None:
    given = {"max_tokens": 8.0, "temperature": 1, "logit_bias": {"28": 3}}
    sampling = Sampling.model_validate(given)
    assert (sampling.max_tokens, sampling.temperature) == (8, 1.0)
    assert sampling.logit_bias == {28: 3.0}
