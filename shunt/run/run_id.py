"""The id of a run: a fingerprint of the input's bytes and of everything that decides results."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from shunt.dataset.files import SourceFile, input_files
from shunt.dataset.reading import InputFormat, input_format, partition_columns
from shunt.errors import InputError
from shunt.job.job import Input, Job
from shunt.model.listing import ModelListing
from shunt.run.manifest import Follows, InputFile
from shunt.run.model_identity import model_identity

FINGERPRINT_VERSION = 2
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Dataset:
    """The files of a job, found and fingerprinted."""

    sources: list[SourceFile]
    files: tuple[InputFile, ...]
    input_format: InputFormat
    stamps: tuple[tuple[object, ...], ...]
    """Of the files, as they were before the first byte was read."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    def require_unchanged(self) -> None:
        """Raises `InputError`: a file that was written to meanwhile is not the one input."""
        for source, stamp in zip(self.sources, self.stamps, strict=True):
            if source.stamp() != stamp:
                raise InputError(f"{source.uri}: changed while it was read; start again")


_NOT_DECISIVE = {"path", "endpoint_url", "format", "storage_options"}
"""Of the input: how it is reached. What it holds decides."""


def find_dataset(job: Job) -> Dataset:
    """Raises `InputError` when a path names nothing, cannot be read, or is of no known format."""
    sources = input_files(job.input)
    stamps = tuple(source.stamp() for source in sources)
    files: list[InputFile] = []
    for source in sources:
        num_bytes, digest = source.digest()
        files.append(InputFile(uri=source.uri, num_bytes=num_bytes, digest=digest))
    return Dataset(sources, tuple(files), input_format(job.input, sources), stamps)


def run_id_of(
    job: Job,
    dataset: Dataset,
    *,
    sample: int | None = None,
    model: ModelListing | None = None,
    card: Mapping[str, JsonValue] | None = None,
    follows: Follows | None = None,
) -> str:
    """`{name}-{fingerprint}`: of the input's bytes and of everything that decides results.

    Not of the fleet, the store, the output or the checkpoint cadence, which may change between an
    interrupted run and its resumption.
    """
    decisive: dict[str, object] = {
        "version": FINGERPRINT_VERSION,
        "model": model_identity(job, model),
        "input": _decisive_input(job.input),
        "format": dataset.input_format,
        "sampling": job.sampling.model_dump(mode="json", by_alias=True),
        "shard_prompts": job.shard_prompts,
        "files": [file.digest for file in dataset.files],
        "sample": sample,
    }
    if taken := taken_defaults(job, card):
        decisive["sampling_defaults"] = dict(taken)
    if any(partitions := partition_columns(dataset.sources)):
        decisive["partitions"] = partitions
    if job.errors.broken_structure != "keep":  # left out otherwise: older ids stay as they are
        decisive["broken_structure"] = job.errors.broken_structure
    if not job.reuse:
        decisive["reuse"] = False
    if follows is not None:
        decisive["follows"] = follows.model_dump(mode="json")
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    return f"{job.name}-{hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]}"


def answers_basis(job: Job, model: ModelListing | None) -> bytes:
    """What decides the answers of all rows of a job alike, beside what their own parts say."""
    decisive = {
        "version": FINGERPRINT_VERSION,
        "model": model_identity(job, model),
        "add_special_tokens": job.input.add_special_tokens,
        "broken_structure": job.errors.broken_structure,
    }
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _decisive_input(job_input: Input) -> dict[str, object]:
    given = job_input.model_dump(mode="json", exclude=_NOT_DECISIVE)
    if job_input.delimiter is None:  # older ids stay as they are
        del given["delimiter"]
    return given


def taken_defaults(job: Job, card: Mapping[str, JsonValue] | None) -> Mapping[str, JsonValue]:
    """What of the model's own sampling defaults decides results."""
    return card or {} if job.model.generation_config == "auto" else {}
