"""Stores and runs as the command line names them."""

import os

from flows.screen.words import console as console_of
from shunt.errors import JobError, RunMissing
from shunt.run.manifest import Manifest, list_runs, read_manifest
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.opening import directory_of
from shunt.store.protocol import Store
from shunt.store.reaching import require_reachable


def reached(config: StoreConfig) -> Store:
    """The store, after it was reached once. Raises `StoreUnusable`."""
    store = open_configured_store(config, environment=os.environ)
    if directory_of(config.uri) is None:  # a line on terminals, for as long as it takes
        with console_of(stderr=True).status(f"looking at {config.uri}"):
            require_reachable(store)
    return store


def opened_store(uri: str, endpoint_url: str | None, *, must_exist: bool = False) -> Store:
    """The store that `--store` and `--endpoint-url` name. Raises `JobError`."""
    config = StoreConfig(uri=uri, endpoint_url=endpoint_url)
    directory = directory_of(uri)
    if must_exist and directory is not None and not directory.is_dir():
        raise JobError(
            f"--store {uri}: {directory.absolute()} is no directory; `store.uri` of the job file "
            "says where its runs are, relative to that file"
        )
    return reached(config)


def find_run(run_id: str, uri: str, endpoint_url: str | None) -> tuple[Store, Manifest]:
    """The run of this id, or the only one that begins so. Raises `RunMissing`."""
    store = opened_store(uri, endpoint_url, must_exist=True)
    try:
        return store, read_manifest(store, run_id)
    except RunMissing:
        matching = [found for found in list_runs(store) if found.startswith(run_id)]
        if len(matching) > 1:
            raise JobError(
                f"{run_id} may be any of: {', '.join(matching)}; write more of it"
            ) from None
        if not matching:
            raise RunMissing(
                run_id,
                f"is not in {store.uri}. --store goes by the directory where the command runs, "
                "store.uri by that of its job file; `shunt status --store URI` lists what is there",
            ) from None
        return store, read_manifest(store, matching[0])
