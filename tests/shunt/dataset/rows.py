"""Jobs and datasets of the tests of this folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from shunt.dataset.cutting import ShardCutter
from shunt.dataset.duplicates import IdRegister
from shunt.dataset.files import find_files
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.prompt_row import PromptReader
from shunt.dataset.reading import input_format, read_chunks
from shunt.dataset.rendering import Renderer, renderer_for
from shunt.dataset.row_error import RowErrorCode
from shunt.job.job import Job

CONTEXT_TOKENS = 512


def make_job(path: Path | str, **sections: Any) -> Job:
    """Over the fake engine, whose tokens are bytes."""
    input_section = {"path": str(path), **sections.pop("input", {})}
    model = {"path": "none", "engine_kind": "fake", **sections.pop("model", {})}
    return Job.model_validate({"name": "test", "model": model, "input": input_section, **sections})


def renderer() -> Renderer:
    return renderer_for("none", revision=None, max_model_len=CONTEXT_TOKENS, fake=True)


def cut(job: Job, *, plain: bool = True) -> tuple[list[pa.Table], PreflightReport]:
    """The shard tables of a job's input; `plain=False` looks at every row closely."""
    sources = find_files(job.input.path)
    file_format = input_format(job.input, sources)
    reader = PromptReader(job, renderer(), openai_batch=file_format == "openai-batch")
    if not plain:
        reader.plain = None
    report = PreflightReport([], file_format)
    cutter = ShardCutter(reader, job.shard_prompts, report, IdRegister())
    chunks = read_chunks(job.input, sources, file_format)
    tables = [table for chunk in chunks for table in cutter.cut(chunk)]
    return [*tables, *cutter.rest()], report


def mistakes(job: Job) -> list[tuple[str, RowErrorCode]]:
    """(file and line, code) of every bad row."""
    _, report = cut(job)
    return [(error.message.split(": ")[0], error.code) for error in report.examples]
