"""Putting a model into a bucket for nodes to read, with an index of digests."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from shunt.model.bucket import INDEX
from shunt.model.errors import ModelError
from shunt.model.listing import ModelFile, ModelListing
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store

_READ_BYTES = 1 << 20


def push(
    directory: Path,
    listing: ModelListing,
    store: Store,
    *,
    told: Callable[[ModelFile, bool], None] = lambda _file, _sent: None,
) -> ModelListing:
    """Upload every file of the listing from `directory` to the store, which is opened at the
    model's prefix; the index comes last. Returns the index.

    May be repeated: a file that an index there names with the same digest is not sent again. `told`
    gets each file and whether it was sent. Raises `StoreError`, and `ModelError` where another
    model is there.
    """
    files = tuple(_hashed(directory, file) for file in listing.files)
    index = ModelListing(kind="s3", place=store.uri, files=files)
    there = _index_there(store)
    if there is not None and there.identity != index.identity:
        raise ModelError(
            store.uri, "another model is there, which runs may use; choose another prefix"
        )
    for file in files:
        sent = not (there is not None and _is_sent(store, file))
        if sent:
            store.put_file(file.name, directory / file.name)  # the pusher alone writes this prefix
        told(file, sent)
    store.put_if_absent(INDEX, index.model_dump_json().encode())
    return index


def _index_there(store: Store) -> ModelListing | None:
    try:
        return ModelListing.model_validate_json(store.get(INDEX))
    except ObjectMissing:
        return None


def _is_sent(store: Store, file: ModelFile) -> bool:
    try:
        return store.size_bytes(file.name) == file.num_bytes
    except ObjectMissing:
        return False


def _hashed(directory: Path, file: ModelFile) -> ModelFile:
    digest = hashlib.sha256()
    for data in _blocks(directory / file.name):
        digest.update(data)
    return file.model_copy(update={"digest": f"sha256:{digest.hexdigest()}"})


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as opened:
        while data := opened.read(_READ_BYTES):
            yield data
