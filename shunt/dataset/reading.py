"""From a job's input to chunks of rows, whatever the format."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Literal

from shunt.dataset.files import SourceFile
from shunt.dataset.input_row import Chunk
from shunt.dataset.jsonl import read_jsonl
from shunt.dataset.partitions import Partitions, partitions_of, with_partitions
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
    job_input: Input,
    files: Sequence[SourceFile],
    file_format: InputFormat,
    told: Callable[[str], None] = lambda _note: None,
) -> Iterator[Chunk]:
    """All rows of all files in order. `told` gets what a person should know of a file that is read
    all the same."""
    wanted = _prompt_columns(job_input)
    schema = one_schema(files) if file_format == "parquet" else None
    if schema is not None:
        _tell_missing(job_input, schema.names, told)
    partitions = partition_columns(files)
    for number, source in enumerate(files):
        if schema is not None:
            chunks = read_parquet(source, wanted, schema, told)
        elif file_format == "csv":
            chunks = read_csv(source, job_input.delimiter)
        else:
            chunks = read_jsonl(source)
        for chunk in chunks:
            yield with_partitions(chunk.of_file(number), partitions[number])


def partition_columns(files: Sequence[SourceFile]) -> list[Partitions]:
    """Of each file, all columns that any file has by its folders; null where it has none."""
    found = [partitions_of(list(source.folders)) for source in files]
    names = dict.fromkeys(name for each in found for name in each)
    return [{name: each.get(name) for name in names} for each in found]


def _tell_missing(job_input: Input, names: Sequence[str], told: Callable[[str], None]) -> None:
    """Where no column makes a prompt: which ones there are."""
    columns = job_input.columns
    wanted = [columns.prompt, columns.messages, columns.token_ids]
    if job_input.template is None and not set(wanted) & set(names):
        told(
            f"the input has no column {', '.join(wanted)}; it has {', '.join(names)}. Name the "
            "prompt's in input.columns.prompt"
        )


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
