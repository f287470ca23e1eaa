"""The files of mistakes in examples/: every mistake has its code, its file and its line."""

from datetime import UTC, datetime
from pathlib import Path

from shunt.dataset.preflight import PreflightReport
from shunt.job.job import Job
from shunt.run.prepare import prepare
from shunt.testing.memory_store import MemoryStore
from tests.shunt.dataset.rows import cut, make_job, renderer

PROMPTS = Path(__file__).parents[3] / "examples" / "prompts"
ODD_ROWS = Path(__file__).parents[2] / "cases" / "odd_rows.jsonl"


def mistakes(job: Job) -> list[tuple[str, str]]:
    """(file and line, code) of every bad row, duplicates included."""
    reports: list[PreflightReport] = []
    now = datetime(2026, 1, 1, tzinfo=UTC)
    prepare(job, MemoryStore(), renderer(), now=now, saw=reports.append)
    return [(e.message.split(": ")[0], e.code.value) for e in reports[0].examples]


def test_rows() -> None:
    columns = {"columns": {"token_ids": "prompt_token_ids"}}
    found = mistakes(make_job(PROMPTS / "bad_rows.jsonl", input=columns))
    assert found == [
        ("bad_rows.jsonl:2", "malformed_row"),
        ("bad_rows.jsonl:3", "malformed_row"),
        ("bad_rows.jsonl:4", "missing_prompt"),
        ("bad_rows.jsonl:5", "empty_prompt"),
        ("bad_rows.jsonl:6", "empty_prompt"),
        ("bad_rows.jsonl:7", "empty_prompt"),
        ("bad_rows.jsonl:8", "invalid_parameter"),
        ("bad_rows.jsonl:9", "invalid_messages"),
        ("bad_rows.jsonl:10", "invalid_messages"),
        ("bad_rows.jsonl:11", "invalid_parameter"),
        ("bad_rows.jsonl:12", "invalid_parameter"),
        ("bad_rows.jsonl:13", "invalid_parameter"),
        ("bad_rows.jsonl:14", "unsupported_parameter"),
        ("bad_rows.jsonl:15", "unsupported_parameter"),
        ("bad_rows.jsonl:16", "invalid_schema"),
        ("bad_rows.jsonl:17", "invalid_schema"),
        ("bad_rows.jsonl:18", "invalid_schema"),
        ("bad_rows.jsonl:22", "context_length"),
        ("bad_rows.jsonl:19", "duplicate_id"),
    ]


def test_batch_requests() -> None:
    assert mistakes(make_job(PROMPTS / "bad_batch.jsonl")) == [
        ("bad_batch.jsonl:2", "unsupported_url"),
        ("bad_batch.jsonl:3", "unsupported_url"),
        ("bad_batch.jsonl:4", "missing_id"),
        ("bad_batch.jsonl:5", "malformed_row"),
        ("bad_batch.jsonl:7", "unsupported_parameter"),
    ]


def test_odd_texts_keep_their_ids_and_only_what_is_no_text_is_refused() -> None:
    tables, _ = cut(make_job(ODD_ROWS))
    found = {row["prompt_id"]: row for table in tables for row in table.to_pylist()}
    assert {
        name: found[name]["error_code"] for name in ("surrogate", "neg", "nul", "rtl", "ok")
    } == {
        "surrogate": "malformed_row",
        "neg": "missing_prompt",
        "nul": None,
        "rtl": None,
        "ok": None,
    }
    assert "half of a surrogate pair" in found["surrogate"]["error_message"]
    assert "\\ud800" in found["surrogate"]["row"]
    assert found["nul"]["text"] == "a\x00b"
    assert found["rtl"]["text"].startswith("\u202e\u200f\ufeff")
