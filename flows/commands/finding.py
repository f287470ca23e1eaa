"""Stores and runs as the command line names them."""

import os

from flows.screen.words import console as console_of
from shunt.errors import JobError
from shunt.run.manifest import Manifest, find_manifest
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
    return store, find_manifest(store, run_id)
