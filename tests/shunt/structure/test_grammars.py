"""One back end per job, settled from all its rows; those that it cannot enforce are refused."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shunt.dataset.preflight import PreflightReport
from shunt.dataset.rendering import renderer_for
from shunt.dataset.shard import read_shard_table
from shunt.job.job import Job
from shunt.job.sampling import StructuredOutput
from shunt.keys import shard_prompts
from shunt.run.prepare import prepare
from shunt.structure.backend import NO_WORKER, NoCompiler
from shunt.testing.memory_store import MemoryStore

PLAIN = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
MULTIPLE = {"type": "integer", "multipleOf": 3}
UNIQUE = {"type": "array", "uniqueItems": True}
NAMES = {"type": "object", "propertyNames": {"pattern": "^a"}}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Backends:
    """A compiler that refuses what is listed, and counts what it is asked."""

    note = ""

    def __init__(self, *refused: tuple[str, dict[str, Any]]) -> None:
        self.refused = refused
        self.asked = 0

    def problem(self, backend: str, structure: StructuredOutput) -> str:
        self.asked += 1
        return "no" if (backend, structure.json_schema) in self.refused else ""


def prepared(
    tmp_path: Path, schemas: list[dict[str, Any]], compiler: Any = None, **sections: Any
) -> tuple[Any, PreflightReport, list[str | None]]:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "hi"} | ({"sampling": {"structured_outputs": {"json": s}}} if s else {})
        for s in schemas
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {"path": "none", "engine_kind": "fake", **sections.pop("model", {})}
    given = {"name": "t", "model": model, "input": {"path": str(path)}, "shard_prompts": 2}
    job = Job.model_validate(given | sections)
    store, reports = MemoryStore(), list[PreflightReport]()
    renderer = renderer_for("none", revision=None, max_model_len=None, fake=True)
    manifest = prepare(job, store, renderer, now=NOW, compiler=compiler, saw=reports.append)
    tables = [
        read_shard_table(store.get(shard_prompts(manifest.run_id, entry.shard_id)))
        for entry in manifest.shards
    ]
    messages = [m for table in tables for m in table.column("error_message").to_pylist()]
    assert manifest.num_error_rows == sum(m is not None for m in messages)
    assert reports[0].num_error_rows == manifest.num_error_rows
    return manifest, reports[0], messages


def backend_of(manifest: Any) -> Any:
    config = manifest.settled_job.model.engine.extra.get("structured_outputs_config")
    return config and config.get("backend")


def test_rows_without_constraints_need_no_back_end(tmp_path: Path) -> None:
    manifest, report, _ = prepared(tmp_path, [{}, {}])
    assert (manifest.grammar_backend, manifest.structured) == ("", False)
    assert backend_of(manifest) is None
    assert report.notes == []


def test_xgrammar_is_the_first_choice(tmp_path: Path) -> None:
    manifest, _, messages = prepared(tmp_path, [PLAIN, {}])
    assert manifest.grammar_backend == "xgrammar" == backend_of(manifest)
    assert messages == [None, None]


def test_guidance_is_taken_where_it_enforces_more(tmp_path: Path) -> None:
    manifest, _, messages = prepared(tmp_path, [PLAIN, MULTIPLE, PLAIN])
    assert manifest.grammar_backend == "guidance" == backend_of(manifest)
    assert messages == [None, None, None]


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_rows_decides_nothing(tmp_path: Path, order: int) -> None:
    rows = [MULTIPLE, PLAIN, NAMES, MULTIPLE][::order]
    manifest, report, messages = prepared(tmp_path, rows)
    assert manifest.grammar_backend == "guidance"
    at = rows.index(NAMES)
    assert [m is not None for m in messages] == [number == at for number in range(4)]
    assert messages[at] == (
        f"rows.jsonl:{at + 1}: structured_outputs.json: #: guidance does not keep propertyNames "
        "(xgrammar would; a job has one back end)"
    )
    assert report.errors == {"invalid_schema": 1}


def test_what_no_back_end_keeps_is_refused_by_name(tmp_path: Path) -> None:
    _, _, messages = prepared(tmp_path, [{"not": {}}, UNIQUE, PLAIN])
    assert messages[0] == (
        "rows.jsonl:1: structured_outputs.json: #: xgrammar does not keep not; "
        "#: guidance does not keep not"
    )
    assert messages[1] is not None
    assert "uniqueItems" in messages[1]
    assert messages[2] is None


def test_the_back_end_that_the_job_names_is_the_one(tmp_path: Path) -> None:
    extra = {"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}}
    manifest, _, messages = prepared(
        tmp_path, [MULTIPLE, PLAIN], model={"engine": {"extra": extra}}
    )
    assert manifest.grammar_backend == ""
    assert manifest.settled_job.model.engine.extra == extra
    assert messages[0] is not None
    assert messages[1] is None


def test_other_settings_of_the_back_end_stay(tmp_path: Path) -> None:
    extra = {"structured_outputs_config": {"disable_any_whitespace": True}}
    manifest, _, _ = prepared(tmp_path, [PLAIN], model={"engine": {"extra": extra}})
    assert manifest.settled_job.model.engine.extra["structured_outputs_config"] == {
        "disable_any_whitespace": True,
        "backend": "xgrammar",
    }


def test_the_jobs_own_constraint_is_of_every_plain_row(tmp_path: Path) -> None:
    sampling = {"structured_outputs": {"json": MULTIPLE}}
    manifest, _, messages = prepared(tmp_path, [{}, {}, NAMES, NAMES, NAMES], sampling=sampling)
    assert manifest.grammar_backend == "xgrammar"
    assert [m is not None for m in messages] == [True, True, False, False, False]


def test_a_compiler_is_asked_once_of_each_constraint(tmp_path: Path) -> None:
    compiler = Backends(("xgrammar", PLAIN))
    manifest, _, _ = prepared(tmp_path, [PLAIN] * 50, compiler)
    assert manifest.grammar_backend == "guidance"
    assert compiler.asked == 2


def test_a_repeated_id_and_a_refused_constraint_are_one_mistake(tmp_path: Path) -> None:
    sampling = {"structured_outputs": {"json": NAMES}}
    path = tmp_path / "same.jsonl"
    lines = [{"id": "a", "prompt": "x", "sampling": s} for s in ({}, sampling)]
    lines += [{"id": str(n), "prompt": "x", "sampling": _multiple()} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, report, messages = prepared(tmp_path, [], input={"path": str(path)})
    assert report.errors == {"invalid_schema": 1}
    assert [m is not None for m in messages] == [False, True, False, False, False]


def test_it_is_said_where_nothing_could_compile(tmp_path: Path) -> None:
    _, report, _ = prepared(tmp_path, [PLAIN], NoCompiler(NO_WORKER))
    assert report.notes == [NO_WORKER]


def _multiple() -> dict[str, Any]:
    return {"structured_outputs": {"json": MULTIPLE}}
