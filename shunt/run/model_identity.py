"""What of a model decides results: a run is of one model, and no other goes on with it."""

from pathlib import Path

from pydantic import JsonValue

from shunt.errors import RunError
from shunt.job.job import Job, Model
from shunt.model.fingerprint import directory_fingerprint
from shunt.model.listing import ModelListing
from shunt.run.manifest import Manifest

_BASE = "model"
HARMLESS_EXTRA = frozenset(
    {
        "block_size",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_log_requests",
        "kv_cache_memory_bytes",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "swap_space",
    }
)
"""Keys of `model.engine.extra` that decide how fast and where, and not what. Any other may decide
results (quantization, rope scaling, a reasoning parser...): with another value it is another run.
"""


class ModelReplaced(RunError):
    """The model of a run is not the one that its rows were begun with."""


def model_files(model: Model) -> dict[str, str]:
    """Fingerprints of the directories: the model's under `model`, adapters' under their names. What
    is no directory of this machine is left out: its name and revision are all that is known."""
    paths = {_BASE: model.path, **{f"adapter {name}": p for name, p in model.adapters.items()}}
    found = {name: directory_fingerprint(Path(path)) for name, path in paths.items()}
    return {name: fingerprint for name, fingerprint in found.items() if fingerprint}


def model_identity(job: Job, listing: ModelListing | None = None) -> dict[str, object]:
    """What decides results of the model, without where on this machine it lies. `listing`: of a
    model that nodes fetch; it stands for the revision, which may move."""
    model, files = job.model, model_files(job.model)
    fetched = {"listing": listing.identity, "revision": None} if listing is not None else {}
    # Left out where there is none: older ids stay as they are.
    parser = {"tool_call_parser": model.tool_call_parser} if model.tool_call_parser else {}
    return {
        "name": Path(model.path).name if _BASE in files else model.path,
        "files": files,
        "revision": model.revision,
        "dtype": model.dtype,
        "max_model_len_tokens": model.max_model_len_tokens,
        "adapters": sorted(model.adapters),
        "engine_kind": model.engine_kind,
        "extra": deciding_extra(model),
        **parser,
        **fetched,
    }


def deciding_extra(model: Model) -> dict[str, JsonValue]:
    """Of `model.engine.extra`, in the order of its keys."""
    extra = model.engine.extra
    return {key: extra[key] for key in sorted(extra) if key not in HARMLESS_EXTRA}


def require_same_model(manifest: Manifest) -> None:
    """Raises `ModelReplaced` where a directory of the model holds another one than at the start."""
    now = model_files(manifest.job.model)
    for name, fingerprint in manifest.model_files.items():
        if now.get(name, fingerprint) != fingerprint:
            model = manifest.job.model
            path = model.path if name == _BASE else model.adapters[name.removeprefix("adapter ")]
            raise ModelReplaced(
                manifest.run_id,
                f"the {name} in {path} is not the one with which its rows were begun: put that one "
                "back to go on, or let `shunt run` make a new run of this one",
            )
