"""Shards: fixed slices of the prompts, each one immutable Arrow object."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from typing import Any

import pyarrow as pa

from shunt.dataset.prompt import Prompt
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.job.sampling import Sampling

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("prompt_id", pa.string()),
        ("text", pa.string()),
        ("messages", pa.string()),  # JSON: a list, or an object of messages and template values
        ("token_ids", pa.list_(pa.int32())),
        ("sampling", pa.string()),  # JSON: the row's own parameters only
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("row", pa.string()),  # the input row as JSON text; null for tabular inputs
    ]
)
BESIDE = pa.schema(
    [
        ("file", pa.int32()),  # which of the manifest's files, from 0
        ("line", pa.int64()),  # or the number of the row in its file, from 1
        ("malformed", pa.string()),  # the text of a row that could not be read
        ("from_run", pa.int32()),  # whose answer it takes: 0 this run, k the manifest's k-th
        ("from_index", pa.int64()),  # the index of the row there
    ]
)
"""Columns that shards of earlier versions lack; `malformed` and `from_...` only where a row has
something in them."""
CARRIED_PREFIX = "column."
"""Columns of tabular inputs are carried beside these under their name with this prefix."""


def encode_shard(table: pa.Table) -> bytes:
    """Arrow IPC, compressed. The table has the columns of `SCHEMA` first, then those of `BESIDE`
    that it has, then carried ones."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def read_shard_table(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def read_shard(data: bytes, *, defaults: Sampling) -> list[Prompt]:
    """The prompts of a shard object, their sampling merged over the job's defaults."""
    return prompts_of(read_shard_table(data), defaults=defaults)


def prompts_of(table: pa.Table, *, defaults: Sampling) -> list[Prompt]:
    """The prompts of a shard table."""
    names = SCHEMA.names[:-1] + (["from_run"] if "from_run" in table.column_names else [])
    return [_prompt(row, defaults) for row in table.select(names).to_pylist()]


def merged(defaults: Sampling, own: dict[str, Any]) -> Sampling:
    """The row's own parameters over the defaults. Raises pydantic's `ValidationError`."""
    if not own:
        return defaults
    return Sampling.model_validate(
        {**defaults.model_dump(by_alias=True, exclude_unset=True), **own}
    )


def _prompt(row: dict[str, Any], defaults: Sampling) -> Prompt:
    error = None
    if row["error_code"] is not None:
        error = RowError(RowErrorCode(row["error_code"]), row["error_message"])
    messages, template, reads_calls = _chat(row["messages"])
    own = sampling_of_row(row["sampling"]) if error is None else {}
    return Prompt(
        index=row["index"],
        prompt_id=row["prompt_id"],
        sampling=merged(defaults, own),
        text=row["text"],
        messages=messages,
        template=template,
        reads_calls=reads_calls,
        token_ids=None if row["token_ids"] is None else tuple(row["token_ids"]),
        is_reused=row.get("from_run") is not None,
        error=error,
    )


def sampling_of_row(text: str | None) -> dict[str, Any]:
    """The row's own parameters, as its shard holds them."""
    return json.loads(text) if text else {}


def chat_text(prompt: Prompt) -> str | None:
    """The chat of a prompt as the shard holds it."""
    if prompt.messages is None:
        return None
    calls = {"reads_calls": True} if prompt.reads_calls else {}
    chat = {"messages": prompt.messages, "template": prompt.template, **calls}
    return compact_json(chat if prompt.template else prompt.messages)


def compact_json(value: object) -> str:
    """JSON text as shards hold it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _chat(text: str | None) -> tuple[tuple[dict[str, Any], ...] | None, dict[str, Any], bool]:
    """(messages, template values, whether calls are read) of what `chat_text` wrote."""
    if text is None:
        return None, {}, False
    value = json.loads(text)
    if isinstance(value, list):
        return tuple(value), {}, False
    return tuple(value["messages"]), value["template"], value.get("reads_calls", False)


def shard_name(number: int) -> str:
    return f"{number:06d}"


def num_error_rows(table: pa.Table) -> int:
    return table.num_rows - table.column("error_code").null_count


def num_reused_rows(table: pa.Table) -> int:
    if "from_run" not in table.column_names:
        return 0
    return table.num_rows - table.column("from_run").null_count
