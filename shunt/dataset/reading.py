"""From a job's input to chunks of rows, whatever the format."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

from shunt.dataset.files import SourceFile
from shunt.dataset.input_row import Chunk
from shunt.dataset.jsonl import read_jsonl
from shunt.dataset.tabular import one_schema, read_csv, read_parquet
from shunt.errors import InputError
from shunt.job.job import Input

InputFormat = Literal["jsonl", "parquet", "csv", "openai-batch"]

_SAMPLED_ROWS = 16


def input_format(job_input: Input, files: Sequence[SourceFile]) -> InputFormat:
    """The one format of all files. Raises `InputError` when they differ or it cannot be told."""
    if job_input.format != "auto":
        return job_input.format
    formats: set[InputFormat] = {source.format() for source in files}
    if len(formats) > 1:
        names = ", ".join(sorted(formats))
        raise InputError(f"input.path: names files of several formats: {names}")
    found = formats.pop()
    if found == "jsonl" and any(_looks_like_a_batch(source) for source in files):
        return "openai-batch"
    return found


def read_chunks(
    job_input: Input, files: Sequence[SourceFile], file_format: InputFormat
) -> Iterator[Chunk]:
    """All rows of all files in order."""
    wanted = _prompt_columns(job_input)
    schema = one_schema(files) if file_format == "parquet" else None
    for number, source in enumerate(files):
        if schema is not None:
            chunks = read_parquet(source, wanted, schema)
        elif file_format == "csv":
            chunks = read_csv(source)
        else:
            chunks = read_jsonl(source)
        for chunk in chunks:
            yield chunk.of_file(number)


def _prompt_columns(job_input: Input) -> list[str] | None:
    """The columns that make prompts; a template may use any."""
    if job_input.template is not None:
        return None
    columns = job_input.columns
    names = [columns.prompt, columns.messages, columns.token_ids, columns.sampling]
    return [*names, *([columns.id] if columns.id else ["custom_id", "id"])]


def _looks_like_a_batch(source: SourceFile) -> bool:
    """Whether the first row that can be read is an OpenAI batch request."""
    for chunk in islice(read_jsonl(source), 1):
        for position in range(min(len(chunk), _SAMPLED_ROWS)):
            row = chunk.row(position)
            if row.error is None:
                return "custom_id" in row.columns and "body" in row.columns
    return False
