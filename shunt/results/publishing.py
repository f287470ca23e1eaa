"""Moving finished result files to where the user wants them."""

import os
import shutil
import uuid
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from shunt.errors import JobError
from shunt.results.place import Reach
from shunt.results.summary import SUMMARY_NAME, ResultSummary
from shunt.store.errors import ObjectMissing, StoreDenied, StoreError
from shunt.store.opening import directory_of, open_store
from shunt.store.protocol import Store
from shunt.store.reaching import StoreUnusable, require_reachable

JSONL_NAME = "results.jsonl"
PARQUET_NAME = "results.parquet"
BATCH_OUTPUT_NAME = "batch_output.jsonl"
BATCH_ERRORS_NAME = "batch_errors.jsonl"
CARD_NAME = "dataset/README.md"
PARTS_PREFIX = "dataset/data/"
"""Names of files have slashes, wherever they lie."""
NAME_OF = {"jsonl": JSONL_NAME, "parquet": PARQUET_NAME, "dataset": CARD_NAME}
"""Of each format: the file without which it is not there."""
RESULT_NAMES = (JSONL_NAME, PARQUET_NAME, BATCH_OUTPUT_NAME, BATCH_ERRORS_NAME)
_PARTIAL = "partial"
_PROBE = "shunt-write-check"
"""An empty object beside the results, which stays where we may not delete."""
PARTIAL_SUMMARY_NAME = "summary.partial.json"


def publish(
    files: Mapping[str, Path],
    summary_name: str,
    summary: str,
    directory: str,
    reach: Reach = open_store,
) -> None:
    """Put the files, by the names that they are to have, into a local directory or an s3:// prefix;
    the summary last; an older summary goes first, so that one beside the files means that they are
    complete.

    Each file appears whole. Publishing again writes the same rows again. Raises `JobError` when the
    directory cannot be written, `StoreError` for S3.
    """
    local = directory_of(directory)
    if local is None:
        store = reach(directory)
        _withdraw(store, [summary_name])
        for name, path in files.items():
            store.put_file(name, path)
        store.put(summary_name, summary.encode())
        return
    try:
        local.mkdir(parents=True, exist_ok=True)
        (local / summary_name).unlink(missing_ok=True)
        for name, path in files.items():
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            _move_in(path, local / name)
        beside = _beside(local / summary_name)
        beside.write_text(summary, encoding="utf-8")
        beside.replace(local / summary_name)
    except OSError as error:
        raise JobError(f"output.path: {local} cannot be written: {error.strerror}") from error


def remove_others(
    summary: ResultSummary, names: Collection[str], reach: Reach = open_store
) -> None:
    """Remove files of an earlier summary of the same place that have none of these names: parts of
    a dataset that has fewer now."""
    others = [file.name for file in summary.files if file.name not in names]
    local = directory_of(summary.directory)
    if local is None:
        return _withdraw(reach(summary.directory), others) if others else None
    for name in others:
        (local / name).unlink(missing_ok=True)
    return None


def partial_name(name: str) -> str:
    """The name of a file that holds a part of the rows: `results.partial.jsonl`."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}.{_PARTIAL}{dot}{suffix}"


def remove_partial(directory: str, reach: Reach = open_store) -> None:
    """Remove files of a part of the rows, now that the files of all of them are there."""
    names = [partial_name(name) for name in RESULT_NAMES] + [PARTIAL_SUMMARY_NAME]
    local = directory_of(directory)
    if local is None:
        _withdraw(reach(directory), names)
        return
    for name in names:
        (local / name).unlink(missing_ok=True)


@contextmanager
def result_copy(directory: str, name: str, reach: Reach = open_store) -> Generator[Path | None]:
    """A published file on this machine for as long as the block lasts; None where it is missing.

    Raises `StoreError` for S3.
    """
    local = directory_of(directory)
    if local is not None:
        yield local / name if (local / name).is_file() else None
        return
    with TemporaryDirectory(prefix="shunt-verify-") as folder:
        copy: Path | None = Path(folder) / name
        try:
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            reach(directory).download(name, Path(folder) / name)
        except ObjectMissing:
            copy = None
        yield copy


def is_whole(summary: ResultSummary, formats: Collection[str], reach: Reach = open_store) -> bool:
    """Whether the files of the summary are all there, at their sizes, in these formats.

    On S3 the summary, which is written last and removed first, stands for them.
    """
    names = {file.name for file in summary.files}
    if any(NAME_OF[name] not in names for name in formats):
        return False
    local = directory_of(summary.directory)
    if local is None:
        return names | {SUMMARY_NAME} <= set(reach(summary.directory).list(""))
    sizes = {local / file.name: file.num_bytes for file in summary.files}
    return (local / SUMMARY_NAME).is_file() and all(
        path.is_file() and path.stat().st_size == size for path, size in sizes.items()
    )


def check_writable(directory: str, reach: Reach = open_store) -> None:
    """Raises `JobError` when the output cannot be written: by a real write, before any is due."""
    local = directory_of(directory)
    if local is None:
        _check_bucket(reach(directory.partition("{run_id}")[0]))
        return
    standing = local
    while not standing.exists():
        standing = standing.parent
    probe = standing / f".shunt-{uuid.uuid4().hex}"
    try:
        probe.mkdir()  # permissions tell only half: a full or virtual file system says no as well
        probe.rmdir()
    except OSError as error:
        why = f"{local} cannot be written ({error.strerror}); change it or its permissions"
        raise JobError(f"output.path: {why}") from error


def _check_bucket(place: Store) -> None:
    try:
        require_reachable(place, under="", may_list=False)
        place.put(_PROBE, b"")
        with suppress(StoreDenied):  # a right to write need not be one to delete
            place.delete(_PROBE)
    except (StoreUnusable, StoreError) as error:
        raise JobError(f"output.path: {error}") from error


def _withdraw(store: Store, names: Sequence[str]) -> None:
    """Remove what is there of these. Who may write and not delete leaves it: files that are written
    again have the same rows, and partial ones have a name of their own."""
    for name in names:
        with suppress(ObjectMissing, StoreDenied):
            store.size_bytes(name)
            store.delete(name)


def _move_in(path: Path, target: Path) -> None:
    """Copy beside the target, then rename: the temporary directory may be on another disk."""
    beside = _beside(target)
    shutil.copyfile(path, beside)
    with beside.open("rb") as copied:
        os.fsync(copied.fileno())
    beside.replace(target)


def _beside(target: Path) -> Path:
    """A name of this writer alone: two drivers of one run may end together."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.new")
