"""The summary of a collected run: its presence says that the result files are complete."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt import keys
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store

SUMMARY_NAME = "summary.json"
_BLOCK_BYTES = 8 << 20


class ResultFile(BaseModel):
    """One published file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    num_bytes: int
    sha256: str


class ResultSummary(BaseModel):
    """Counts, files, and the exact log positions that the results were made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    run_id: str
    collected_at: AwareDatetime
    num_rows: int
    num_ok: int
    num_errors: int
    errors: Mapping[str, int] = {}
    """Error rows by code."""
    num_prompt_tokens: int
    num_output_tokens: int
    num_resumed_rows: int
    """Rows whose generation was moved to another engine at least once."""
    num_restarted_rows: int
    num_cut_rows: int | None = None
    """Rows with an answer that was cut at max_tokens or at the end of the context. None in
    summaries of earlier versions, as below."""
    num_cut_structured_rows: int | None = None
    """Those of them whose answer was to keep to a schema, a pattern or a grammar."""
    num_reused_rows: int = 0
    """Rows that take the answer of another one; their tokens are counted above, though nobody
    generated them again."""
    layout_version: int = 1
    """Of the names of the result columns."""
    has_origin: bool = False
    """Whether the rows say which file and line they came from."""
    directory: str
    files: tuple[ResultFile, ...]
    cuts: Mapping[str, Mapping[int, int]]
    """Shard id -> epoch -> last segment that counts."""


def read_summary(store: Store, run_id: str) -> ResultSummary | None:
    """None while the run is not collected."""
    try:
        return ResultSummary.model_validate_json(store.get(keys.result(run_id, SUMMARY_NAME)))
    except ObjectMissing:
        return None


def result_file(path: Path, name: str | None = None) -> ResultFile:
    """Name (its own, if no other is given), size and digest of a file on this machine."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return ResultFile(
        name=name or path.name, num_bytes=path.stat().st_size, sha256=digest.hexdigest()
    )
