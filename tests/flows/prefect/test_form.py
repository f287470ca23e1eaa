"""The form of a deployment: few fields, no field of no type, and the job that it means."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prefect.utilities.callables import parameter_schema

from flows.prefect.deployment_file import load_deployments
from flows.prefect.form import PLAIN_FIELDS, form_of, job_of_parameters
from flows.prefect.generate_form import generate
from flows.surroundings import REPOSITORY
from shunt.errors import JobError
from shunt.job.job import Job
from shunt.job.job_file import load_job

SCHEMA: dict[str, Any] = parameter_schema(generate).model_dump_for_openapi()
GROUPS = ("what", "answers", "places", "machines", "stops", "more")
FORM: dict[str, Any] = {"what": {"name": "a", "model": "m", "input": "/data/in.jsonl"}}


def test_the_form_has_some_twenty_fields_each_with_a_type_and_a_word_of_help() -> None:
    text = json.dumps(SCHEMA)
    assert "null" not in text, "Prefect's page shows a union with null as of no type"
    assert "anyOf" not in text
    fields = [
        field for group in SCHEMA["definitions"].values() for field in group["properties"].values()
    ]
    assert 15 <= len(fields) <= 24
    assert all(field["type"] and field["description"] for field in fields)


SPECIAL = {
    "what": {"name", "model", "input", "first_rows"},
    "places": {"format"},
    "machines": {"fleet"},
    "more": {"job_file", "job_text"},
}
"""Fields that are more, or less, than the value of one key of the job."""


def test_no_field_of_the_form_is_without_a_meaning() -> None:
    """A field that nobody reads would be ignored silently."""
    plain = {(group, field) for group, field, _ in PLAIN_FIELDS}
    special = {(group, field) for group, fields in SPECIAL.items() for field in fields}
    groups = {name: SCHEMA["definitions"][name.capitalize()]["properties"] for name in GROUPS}
    assert plain | special == {(group, f) for group, fields in groups.items() for f in fields}


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("examples/*.yaml")), ids=lambda p: p.name)
def test_a_job_file_becomes_a_form_and_the_same_job_again(path: Path) -> None:
    job = load_job(path)
    form = form_of(job.model_dump(mode="json", by_alias=True, exclude_unset=True))
    jsonschema.validate(form, SCHEMA)
    assert job_of_parameters(form) == job


def test_several_inputs_stay_a_list() -> None:
    tree = {"name": "a", "model": {"path": "m"}, "input": {"path": ["/b.jsonl", "/a.jsonl"]},
            "output": {"path": "/r"}, "store": {"uri": "/s"}}  # fmt: skip
    job = Job.model_validate(tree)
    form = form_of(job.model_dump(mode="json", by_alias=True, exclude_unset=True))
    assert job_of_parameters(form).input.path == ["/b.jsonl", "/a.jsonl"]


def test_what_the_form_says_goes_over_the_file_and_its_text(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "sampling: {max_tokens: 5, temperature: 0.5}\nfleet: {workers: 3}\nshard_prompts: 7\n"
    )
    form = FORM | {
        "answers": {"max_tokens": 9},
        "more": {"job_file": str(tmp_path / "job.yaml"), "job_text": "shard_prompts: 8"},
    }
    job = job_of_parameters(form)
    assert (job.sampling.max_tokens, job.sampling.temperature) == (9, 0.5)
    assert (job.fleet.workers, job.shard_prompts) == (3, 8)
    assert job.store.uri == str(tmp_path / "runs"), "beside the job file"


@pytest.mark.parametrize(
    ("group", "wrong"),
    [
        ("what", {"name": "no spaces", "model": "m", "input": "i"}),
        ("answers", {"temperature": -1}),
        ("machines", {"fleet": "gcp"}),
        ("machines", {"workers": 1000}),
        ("stops", {"deadline": "tomorrow"}),
        ("stops", {"budget": 3}),
    ],
)
def test_a_wrong_value_is_refused_by_the_schema_alone(group: str, wrong: dict[str, object]) -> None:
    jsonschema.validate(FORM, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**FORM, group: wrong}, SCHEMA)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"job_file": "/nowhere/job.yaml"}, "cannot be read"),
        ({"job_text": "a: ["}, "more.job_text:1:5: is not valid YAML: a bracket is opened and"),
        ({"job_text": "just words"}, "must be keys and values"),
        ({"job_text": "shard_promts: 8"}, "more.job_text:1:1: shard_promts: unknown key"),
        ({"job_text": "input: {}\ninput: {}"}, "more.job_text:2:1: input: stands at line 1 too"),
    ],
)
def test_what_the_schema_cannot_know_is_told_in_a_sentence(more: dict[str, str], told: str) -> None:
    with pytest.raises(JobError, match=told):
        job_of_parameters({**FORM, "more": more})


def test_the_shipped_deployments_are_whole() -> None:
    shipped = REPOSITORY / "deployments/deployments.yaml"
    file = load_deployments(shipped)
    assert {deployment.name for deployment in file.deployments} == {"ad-hoc", "nightly"}
    for deployment in file.deployments:
        load_job(shipped.parent / deployment.job)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pools: [{name: p, type: docker}]", "give image"),
        ("deployments: [{name: d, pool: q, job: j}]", "not among the pools"),
        ("deployments: [{name: d, pool: p, job: j, cron: a, interval_s: 3}]", "not both"),
        ("deployments: [{name: d, pool: p, job: j, timezone: Mars/One}]", "Europe/Berlin"),
        ("pools: 3", r"deployments\.yaml:\d:1: pools: must be a list \(it is 3\)"),
        ("pool: 3", r"yaml:\d:1: pool: unknown key; is it pools\? docs/scheduled-jobs"),
    ],
)
def test_a_wrong_deployments_file_says_where(tmp_path: Path, text: str, told: str) -> None:
    whole = {
        "pools": "pools: [{name: p}]",
        "deployments": "deployments: [{name: d, pool: p, job: j}]",
    }
    lines = [text, *(line for name, line in whole.items() if not text.startswith(name))]
    file = tmp_path / "deployments.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(JobError, match=told):
        load_deployments(file)
