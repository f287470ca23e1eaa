"""The manifest: what a run is. Written once, never changed."""

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from shunt import keys
from shunt.errors import JobError, RunMissing
from shunt.job.job import Job
from shunt.job.model_defaults import with_model_defaults
from shunt.model.listing import ModelListing
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store
from shunt.structure.backend import with_backend


class InputFile(BaseModel):
    """One file of the dataset, as it was when the run was prepared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str
    num_bytes: int
    digest: str
    """xxh3-128 of the bytes."""


class ShardEntry(BaseModel):
    """One line of the shard table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard_id: str
    first_index: int
    num_prompts: int
    num_error_rows: int
    """Rows that preflight refused."""
    num_reused_rows: int = 0
    """Rows that take the answer of another one."""

    @property
    def needs_no_engine(self) -> bool:
        return self.num_error_rows + self.num_reused_rows == self.num_prompts


class Follows(BaseModel):
    """A run that generates some rows of another one again, and takes the others from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    where: tuple[str, ...]
    """Which rows, as `shunt retry` was told."""


class Manifest(BaseModel):
    """Fingerprints, configuration and shard table of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    run_id: str
    created_at: AwareDatetime
    job: Job
    """As it was when the run was first prepared; a rerun may differ where results do not."""
    input_format: Literal["jsonl", "parquet", "csv", "openai-batch"]
    files: tuple[InputFile, ...]
    shards: tuple[ShardEntry, ...]
    model_files: dict[str, str] = {}
    """Fingerprints of the model's directories, see `shunt.run.model_identity`. Empty in manifests
    of earlier versions, and where the model is no directory."""
    model: ModelListing | None = None
    """The model's files, where nodes fetch them; None where `job.model.path` is used as it is."""
    grammar_backend: str = ""
    """Of the engine, settled from the constraints of all rows. Empty: the engine's own choice, as
    in manifests of earlier versions."""
    sampling_defaults: dict[str, JsonValue] = {}
    """What the model's generation_config.json gave, under the job's own. Empty in manifests of
    earlier versions, which did not read it."""
    structured: bool = False
    """Some rows have structured outputs, and results say whether the answers keep them. False in
    manifests of earlier versions, whose results stay as they are."""

    reused_runs: tuple[str, ...] = ()
    """Finished runs whose answers rows take; their shards name them by number, from 1."""
    follows: Follows | None = None
    """The run of which this one is a retry."""

    @property
    def settled_job(self) -> Job:
        """The job with what was settled when the run was prepared: what engines and readers of
        shards go by."""
        job = with_model_defaults(self.job, self.sampling_defaults)
        return with_backend(job, self.grammar_backend)

    @property
    def num_rows(self) -> int:
        return sum(shard.num_prompts for shard in self.shards)

    @property
    def num_error_rows(self) -> int:
        return sum(shard.num_error_rows for shard in self.shards)

    @property
    def num_reused_rows(self) -> int:
        return sum(shard.num_reused_rows for shard in self.shards)


def write_manifest(store: Store, manifest: Manifest) -> Manifest:
    """Write it if the run has none; returns the one that stands.

    Two that prepare one run at once write the same shards and differ in `created_at` alone.
    """
    key = keys.manifest(manifest.run_id)
    if store.put_if_absent(key, manifest.model_dump_json().encode()):
        return manifest
    return read_manifest(store, manifest.run_id)


def read_manifest(store: Store, run_id: str) -> Manifest:
    """Raises `RunMissing`."""
    try:
        data = store.get(keys.manifest(run_id))
    except ObjectMissing as error:
        raise RunMissing(
            run_id, f"has no manifest in {store.uri}; check run id and store"
        ) from error
    return Manifest.model_validate_json(data)


def find_manifest(store: Store, beginning: str) -> Manifest:
    """Of the run of this id, or of the only one that begins so. Raises `RunMissing`, and `JobError`
    where several do."""
    try:
        return read_manifest(store, beginning)
    except RunMissing:
        matching = [found for found in list_runs(store) if found.startswith(beginning)]
        if len(matching) > 1:
            raise JobError(
                f"{beginning} may be any of: {', '.join(matching)}; write more of it"
            ) from None
        if not matching:
            raise RunMissing(
                beginning,
                f"is not in {store.uri}. --store goes by the directory where the command runs, "
                "store.uri by that of its job file; `shunt status --store URI` lists what is there",
            ) from None
        return read_manifest(store, matching[0])


def list_runs(store: Store) -> list[str]:
    """Ids of all runs of the store, by one listing of everything: for people, not for loops."""
    found = {key.split("/")[1] for key in store.list("runs/") if key.endswith("/manifest.json")}
    return sorted(found)
