"""Nothing in examples/ rots: every file is read the way a run reads it."""

import json
import runpy
from pathlib import Path

import pytest

from shunt.sampling import Sampling

PROMPTS = Path(__file__).parent.parent / "examples" / "prompts"


def rows(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (PROMPTS / name).read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "function"), [("demo.jsonl", "demo_rows"), ("openai_batch.jsonl", "openai_batch")]
)
def test_a_prompt_file_is_what_its_script_writes(name: str, function: str) -> None:
    written = runpy.run_path(str(PROMPTS / "make_demo.py"))[function]()

    assert rows(name) == list(written), "run `python examples/prompts/make_demo.py`"


def test_demo_prompts_are_unique_and_their_sampling_is_valid() -> None:
    demo = rows("demo.jsonl")

    assert len({row["id"] for row in demo}) == len(demo)
    contents = {json.dumps(row | {"id": None}) for row in demo}
    assert len(contents) == len(demo)
    for row in demo:
        assert ("prompt" in row) != ("messages" in row)
        Sampling.model_validate(row["sampling"])
