"""Nothing in examples/ rots: every file is read the way a run reads it."""

import json
import runpy
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.commands.plan import read_sections
from flows.prefect.deployment_file import load_deployments
from shunt.dataset.rendering import renderer_of
from shunt.job.job_file import job_schema, load_job
from shunt.job.sampling import Sampling
from shunt.run.prepare import preflight

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = REPOSITORY / "examples"
PROMPTS = EXAMPLES / "prompts"


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


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_job_file_loads_and_its_rows_are_good(path: Path) -> None:
    job = load_job(path, ["model.engine_kind=fake"])

    report = preflight(job, renderer_of(job, clock=datetime(2026, 1, 1, tzinfo=UTC)))
    assert report.num_rows > 0
    assert report.num_error_rows == 0


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("planning/*.yaml")), ids=lambda path: path.name
)
def test_a_planning_file_is_read(path: Path) -> None:
    assert read_sections(path).plan.offerings


def test_every_script_imports() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert "main" in runpy.run_path(str(path), run_name="imported")


def test_every_deployment_has_a_job_that_loads() -> None:
    shipped = REPOSITORY / "deployments/deployments.yaml"
    for deployment in load_deployments(shipped).deployments:
        assert load_job(shipped.parent / deployment.job)


def test_the_schema_in_the_docs_is_the_job_files() -> None:
    written = json.loads((REPOSITORY / "docs/job.schema.json").read_text(encoding="utf-8"))

    assert written == job_schema(), "run `shunt schema > docs/job.schema.json`"
