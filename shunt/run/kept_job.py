"""A run's job as its nodes are to see it: the manifest's, or the newest that was kept after it.

A later invocation may say other things of cadence and engine. A node has no command line of ours,
so it finds them here: numbered versions, each created if absent.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from shunt import keys
from shunt.job.job import Job
from shunt.run.manifest import Manifest
from shunt.store.numbered import newest_number
from shunt.store.protocol import Store

_NOT_OF_NODES = {"fleet", "input", "limits", "output", "plan", "store"}
"""Parts that a node does not read."""


def current_job(store: Store, manifest: Manifest) -> Job:
    """What nodes of the run that start now go by."""
    newest = newest_number(store, keys.job_prefix(manifest.run_id))
    if not newest:
        return manifest.job
    return Job.model_validate_json(store.get(keys.job(manifest.run_id, newest)))


def keep_job(store: Store, manifest: Manifest, job: Job) -> None:
    """Nodes that start from now on go by it."""
    number = newest_number(store, keys.job_prefix(manifest.run_id)) + 1
    data = job.model_dump_json(by_alias=True, exclude_unset=True).encode()
    while not store.put_if_absent(keys.job(manifest.run_id, number), data):
        number += 1


def changed_keys(old: Job, new: Job) -> list[str]:
    """What a node would see differently, as `checkpoint_interval_s` or `model.engine.extra`."""
    return sorted(_changed(_seen(old), _seen(new)))


def _seen(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json", by_alias=True, exclude=_NOT_OF_NODES)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            pair = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
            yield from _changed(*pair, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}"
