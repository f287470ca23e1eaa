"""A job file is checked as a whole, and each message says where and what to do."""

import json
from pathlib import Path

import pytest

from shunt.errors import JobError
from shunt.job.job_file import job_schema, load_job

_TEXT = "name: test\nmodel: {path: hub/id}\ninput: {path: rows.jsonl}\n"
_SCHEMA = Path(__file__).parents[3] / "docs" / "job.schema.json"


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    job = load_job(_file(tmp_path, _TEXT))
    assert job.input.path == str(tmp_path / "rows.jsonl")
    assert job.model.path == "hub/id"
    assert job.output.path == str(tmp_path / "results")


def test_overrides_go_over_the_file_as_yaml(tmp_path: Path) -> None:
    job = load_job(_file(tmp_path, _TEXT), ["fleet.workers=3", "input.chat=true"])
    assert job.fleet.workers == 3
    assert job.input.chat


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_TEXT + "zebra: 3\n", r"job.yaml:4:1: zebra: unknown key; remove it"),
        (_TEXT + "shard_promts: 3\n", r":4:1: shard_promts: unknown key; is it shard_prompts\?"),
        (_TEXT + "fleet:\n  wrkers: 3\n", r":5:3: fleet.wrkers: unknown key; is it workers\?"),
        (_TEXT + "shard_prompts: many\n", "shard_prompts: must be a whole number .it is 'many'"),
        (_TEXT + "shard_prompts: 0\n", r"shard_prompts: must be at least 1 .it is 0"),
        (
            _TEXT + "fleet: {kind: ec3}\n",
            r":4:9: fleet.kind: must be 'local', 'ec2' or 'joined' .it is 'ec3'",
        ),
        (_TEXT + "limits: {deadline: soon}\n", "limits.deadline: must be an instant with its time"),
        (
            _TEXT[:-2].replace("rows.jsonl", "3") + "}\n",
            "input.path: must be text, or must be a list",
        ),
        ("name: test\ninput: {path: a.jsonl}\n", "model: is missing; add it"),
        (_TEXT[:-2] + ", storage_options: {secret: x}}\n", "secrets are never written down"),
        ("name: [", r"job.yaml:1:8: is not valid YAML: a bracket is opened and never closed"),
        ("- a list", "must be a mapping with name, model and input"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        load_job(_file(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fleet.workers", "write it as section.key=value"),
        ("name.first=1", "name is a value, not a section"),
        ("name=[", r"^--set name=\[:1:2: is not valid YAML: a bracket is opened"),
        ("fleet.nodes=1", "^--set fleet.nodes: unknown key"),
        ("model.engin.a=1", "^--set model.engin: unknown key; is it engine"),
        ("store.uri=3", r"^--set store.uri: must be text \(it is 3\)"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        load_job(_file(tmp_path, _TEXT), [override])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"none\.yaml: cannot be read"):
        load_job(tmp_path / "none.yaml")


def test_the_schema_for_editors_is_fresh() -> None:
    assert json.loads(_SCHEMA.read_text()) == job_schema()


def test_a_key_that_stands_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: a\nmodel:\n  path: x\n  path: y\n")
    with pytest.raises(JobError, match=r"job\.yaml:4:3: path: stands at line 3 too"):
        load_job(path)
