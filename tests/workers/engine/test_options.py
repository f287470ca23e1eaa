"""The table of options is complete, in code and in the documentation."""

import re
from pathlib import Path

import pytest

from shunt.job.sampling import Sampling
from workers.engine.options import OPTIONS, Handling

DOCS = Path(__file__).parents[3] / "docs" / "resume.md"
OFFERED = {Handling.CARRIED, Handling.CONDITIONAL}


@pytest.mark.vllm
def test_every_field_of_vllms_sampling_params_is_in_the_table() -> None:
    """A field that a new vLLM adds has no fate yet: this fails until someone decides."""
    from vllm import SamplingParams

    assert set(OPTIONS) == set(SamplingParams.__struct_fields__)


def test_what_the_table_offers_a_row_can_ask_for() -> None:
    offered = {name for name, option in OPTIONS.items() if option.handling in OFFERED}
    assert offered == set(Sampling.model_fields) - {"n", "adapter"}


def test_the_documentation_shows_the_table() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCS.read_text(), re.MULTILINE))
    assert rows == {name: str(option.handling) for name, option in OPTIONS.items()}
