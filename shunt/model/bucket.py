"""A model under a prefix of a bucket, as `shunt model push` or any copying program put it there.

A pushed model has an index with a digest of each file. Without the index, files are told apart by
the ETags that the bucket gives them, which change with every new version.
"""

from shunt.model.errors import (
    ModelDamaged,
    ModelDenied,
    ModelError,
    ModelMissing,
    ModelUnavailable,
)
from shunt.model.listing import ModelFile, ModelListing, wanted_files
from shunt.store.errors import ObjectMissing, StoreDenied, StoreError, StoreUnavailable
from shunt.store.protocol import Store
from shunt.store.s3 import S3Store

INDEX = "shunt-model.json"
_ETAG = "etag:"


class BucketSource:
    """`store` is opened at the model's prefix."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def listing(self) -> ModelListing:
        try:
            raw = self.store.get(INDEX)
        except ObjectMissing:
            return self._listed()
        except StoreError as error:
            raise self._translated(error) from error
        index = ModelListing.model_validate_json(raw)
        return index.model_copy(update={"kind": "s3", "place": self.store.uri, "commit": ""})

    def read_range(self, file: ModelFile, *, start: int, length: int) -> bytes:
        try:
            if file.digest.startswith(_ETAG) and start == 0:
                self._require_version(file)
            return self.store.get_range(file.name, start=start, length=length)
        except StoreError as error:
            raise self._translated(error, file.name) from error

    def _listed(self) -> ModelListing:
        try:
            files = [self._described(key) for key in self.store.list("")]
        except StoreError as error:
            raise self._translated(error) from error
        if not any(file.name == "config.json" for file in files):
            raise ModelMissing(
                self.store.uri, "there is no config.json; put a model there: shunt model push"
            )
        return ModelListing(kind="s3", place=self.store.uri, files=wanted_files(files))

    def _described(self, key: str) -> ModelFile:
        digest = f"{_ETAG}{self.store.etag(key)}" if isinstance(self.store, S3Store) else ""
        return ModelFile(name=key, num_bytes=self.store.size_bytes(key), digest=digest)

    def _require_version(self, file: ModelFile) -> None:
        assert isinstance(self.store, S3Store)  # nobody else gives ETags
        found = f"{_ETAG}{self.store.etag(file.name)}"
        if found != file.digest:
            raise ModelDamaged(
                self.store.uri,
                f"{file.name} was replaced since the run was prepared ({found}, not {file.digest})",
            )

    def _translated(self, error: StoreError, name: str = "") -> ModelError:
        place = f"{self.store.uri}/{name}".rstrip("/")
        match error:
            case ObjectMissing():
                return ModelMissing(place, "no such object")
            case StoreDenied():
                return ModelDenied(place, str(error))
            case StoreUnavailable():
                return ModelUnavailable(place, str(error))
            case _:
                return ModelError(place, str(error))
