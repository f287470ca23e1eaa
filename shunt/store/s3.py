"""The store as a prefix of an S3 bucket, or of anything that speaks S3, through obstore.

Each request is retried in exactly one place:

- Single requests (get, put, create, a page of a listing...) go through a client whose own retries
  are off, and are retried here by a `RetryPolicy`. A create must be: only we can tell, by reading
  back, whether an attempt whose reply was lost has won, and whether an "already exists" is a 412
  (someone has it) or a 409 ConditionalRequestConflict (two were in flight; nobody may have it).
  And obstore itself would not retry a 429, nor an answer that breaks off.
- The requests of an upload in parts go through a client that retries each, with the same bounds.

obstore's `GenericError` covers everything from a dropped connection to a refused parameter, and the
status code is only in its text, which is not to be relied on: all of it counts as transient.
A process that uses this store must not be forked: obstore has threads. Start children with `spawn`.
"""

import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store as S3Client

from shunt.retry import STORE_RETRY, RetryPolicy, call_with_retry
from shunt.store.credentials import AwsChain, Credentials
from shunt.store.errors import (
    CredentialsMissing,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreUnavailable,
    brief,
)
from shunt.store.object_key import check_key, check_prefix
from shunt.store.staging import publish_over, staged_file

if TYPE_CHECKING:  # obstore has these names for type checkers only
    from obstore.store import ClientConfig, RetryConfig, S3Config

T = TypeVar("T")

_PART_BYTES = 16 << 20
"""Of uploads and downloads: large enough to fill a link, small enough to be sent again."""

_MAX_PARTS = 10_000
"""The limit of S3 for one upload."""

_UPLOAD_CONCURRENCY = 4
_UPLOAD_ATTEMPTS = 3
_LIST_PAGE_KEYS = 1000
"""The most that S3 returns at once."""


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach a bucket. What is None is taken from the standard AWS environment variables."""

    endpoint_url: str | None = None
    region: str | None = None
    credentials: Credentials | AwsChain | None = None
    """None: obstore's own chain of environment variables and the container's or instance's role."""
    request_timeout_s: float = 30.0
    retry: RetryPolicy = STORE_RETRY
    kms_key_id: str | None = None
    """Objects are encrypted with this key of KMS; None: as the bucket is set up."""


class S3Store:
    """Objects under `s3://bucket/prefix`. Credentials are looked for at the first request."""

    def __init__(self, bucket: str, prefix: str = "", *, access: S3Access | None = None) -> None:
        self.bucket, self.prefix, self.access = bucket, prefix, access or S3Access()
        access = self.access
        self._uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._policy = access.retry
        self._once = _client(bucket, prefix, access, retry=_NO_RETRY)
        self._persistent = _client(bucket, prefix, access, retry=_retry_config(access.retry))

    @property
    def uri(self) -> str:
        return self._uri

    def with_retry(self, policy: RetryPolicy) -> "S3Store":
        """The same objects through the same client, with another patience for single requests."""
        other = copy.copy(self)
        other._policy = policy
        return other

    def get(self, key: str) -> bytes:
        check_key(key)
        return self._retried("read", key, lambda: obstore.get(self._once, key).bytes().to_bytes())

    def get_range(self, key: str, *, start: int, length: int) -> bytes:
        check_key(key)
        if start < 0 or length <= 0:
            raise self._error(StoreError, "read", key, f"{length} bytes from {start} is no range")

        def read() -> bytes:
            try:
                return obstore.get_range(self._once, key, start=start, length=length).to_bytes()
            except BaseError as error:
                size = self._head(key)
                if start < size:
                    raise
                reason = f"a range from {start} lies outside of its {size} bytes"
                raise self._error(StoreError, "read", key, reason) from error

        return self._retried("read", key, read)

    def size_bytes(self, key: str) -> int:
        check_key(key)
        return self._retried("read", key, lambda: self._head(key))

    def etag(self, key: str) -> str:
        """What the bucket calls the object's present version; changes whenever it is replaced."""
        check_key(key)
        return self._retried("read", key, lambda: obstore.head(self._once, key)["e_tag"] or "")

    def look(self, prefix: str) -> None:
        """Ask for some keys under a prefix: whether the bucket answers us."""
        self._page(check_prefix(prefix), None)

    def list(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        keys: list[str] = []
        while True:
            page = self._page(prefix, keys[-1] if keys else None)
            keys.extend(page)
            if len(page) < _LIST_PAGE_KEYS:
                # Sorted here because not every server sorts as S3 does across the slash.
                return iter(sorted(keys))

    def put(self, key: str, data: bytes) -> None:
        check_key(key)

        def write() -> None:
            obstore.put(self._once, key, data, use_multipart=False)

        self._retried("write", key, write)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        check_key(key)
        return self._retried("write", key, lambda: self._create(key, data))

    def put_file(self, key: str, path: Path) -> None:
        check_key(key)
        part_bytes = max(_PART_BYTES, -(-path.stat().st_size // _MAX_PARTS))

        def upload() -> None:
            obstore.put(
                self._persistent,
                key,
                path,
                chunk_size=part_bytes,
                max_concurrency=_UPLOAD_CONCURRENCY,
            )

        self._upload(key, upload)

    def download(self, key: str, path: Path) -> None:
        size = self.size_bytes(key)
        with staged_file(path) as (file, staged):
            for start in range(0, size, _PART_BYTES):
                file.write(self.get_range(key, start=start, length=_PART_BYTES))
            publish_over(file, staged, path)

    def delete(self, key: str) -> None:
        check_key(key)

        def remove() -> None:
            obstore.delete(self._once, key)

        self._retried("delete", key, remove)

    def _create(self, key: str, data: bytes) -> bool:
        """One attempt. An "already exists" is settled by what is there."""
        try:
            obstore.put(self._once, key, data, mode="create", use_multipart=False)
            return True
        except AlreadyExistsError as error:
            try:
                return obstore.get(self._once, key).bytes().to_bytes() == data
            except FileNotFoundError:
                reason = "another writer's create was in flight (409)"
                raise self._error(StoreUnavailable, "write", key, reason) from error

    def _page(self, prefix: str, after: str | None) -> "list[str]":
        """The next keys in the server's order; fewer than a page when they are the last."""

        def read() -> "list[str]":
            pages = obstore.list(  # pyright: ignore[reportUnknownMemberType] # of its Arrow overload
                self._once, prefix or None, offset=after, chunk_size=_LIST_PAGE_KEYS
            )
            return [entry["path"] for entry in next(pages, ())]

        return self._retried("list", prefix, read)

    def _upload(self, key: str, upload: Callable[[], None]) -> None:
        """Upload, and begin anew when the upload itself is lost.

        A completion whose reply was lost looks like that at its second try: the upload is finished,
        so its id is not found. Only a new upload can tell, and may, as the key has one writer. This
        repeats uploads, not requests: the client has its own bound for each of those.
        """
        for attempt in range(1, _UPLOAD_ATTEMPTS + 1):
            with self._translated("write", key):
                try:
                    return upload()
                except (PermissionDeniedError, UnauthenticatedError):
                    raise
                except (FileNotFoundError, BaseError):
                    if attempt == _UPLOAD_ATTEMPTS:
                        raise

    def _head(self, key: str) -> int:
        return obstore.head(self._once, key)["size"]

    def _retried(self, verb: str, key: str, call: Callable[[], T]) -> T:
        def attempt() -> T:
            with self._translated(verb, key):
                return call()

        return call_with_retry(attempt, policy=self._policy, transient=StoreUnavailable)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Generator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if verb == "read":
                raise ObjectMissing(
                    f"{self._uri}/{key}: no such object", uri=self._uri, key=key
                ) from error
            reason = "not found; does the bucket exist, in this region?"
            raise self._error(StoreError, verb, key, reason) from error
        except BaseError as error:
            if self._fault:
                raise self._error(CredentialsMissing, verb, key, self._fault) from error
            if not isinstance(error, PermissionDeniedError | UnauthenticatedError):
                reason = (
                    "no usable answer within the retries; check the endpoint, the region and where "
                    f"the credentials come from, then run again: it carries on ({_told(error)})"
                )
                raise self._error(StoreUnavailable, verb, key, reason) from error
            if verb == "read" and self._is_missing(key):
                raise ObjectMissing(
                    f"{self._uri}/{key}: no such object", uri=self._uri, key=key
                ) from error
            reason = (
                f"access denied; check the credentials and the bucket's policy ({_told(error)})"
            )
            raise self._error(StoreDenied, verb, key, reason) from error

    @property
    def _fault(self) -> str:
        """Why no request can be signed."""
        chain = self.access.credentials
        return chain.fault if isinstance(chain, AwsChain) else ""

    def _is_missing(self, key: str) -> bool:
        """Whether a read that was refused is of a key that is not there.

        S3 answers a GET or HEAD of a missing key with 404 only to callers who may list the bucket
        (API reference of GetObject, "Permissions"), and with 403 to all others, lest they learn
        what is there. Our policies admit listings by prefix, and a GET carries none. So the listing
        is asked, right before the key; where that is refused too, the denial stands.
        """
        folder = key.rpartition("/")[0]
        try:
            pages = obstore.list(  # pyright: ignore[reportUnknownMemberType] # of its Arrow overload
                self._once, folder or None, offset=key[:-1], chunk_size=_LIST_PAGE_KEYS
            )
            return all(entry["path"] != key for entry in next(pages, ()))
        except BaseError:
            return False

    def _error(self, kind: type[StoreError], verb: str, key: str, reason: str) -> StoreError:
        return kind(f"cannot {verb} {self._uri}/{key}: {reason}", uri=self._uri, key=key)


_NO_RETRY: "RetryConfig" = {"max_retries": 0}


def _told(error: BaseError) -> str:
    """obstore's message without the dump of its own data that follows it."""
    return brief(str(error).partition("\n\nDebug source:")[0])


def _retry_config(policy: RetryPolicy) -> "RetryConfig":
    return {
        "max_retries": policy.attempts - 1,
        "retry_timeout": timedelta(seconds=policy.total_s),
        "backoff": {
            "init_backoff": timedelta(seconds=policy.first_wait_s),
            "max_backoff": timedelta(seconds=policy.max_wait_s),
            "base": 2,
        },
    }


def _client(bucket: str, prefix: str, access: S3Access, *, retry: "RetryConfig") -> S3Client:
    chain = access.credentials if isinstance(access.credentials, AwsChain) else None
    client: ClientConfig = {
        "timeout": timedelta(seconds=access.request_timeout_s),
        "allow_http": True,  # the endpoint's URL decides; that of AWS is https
    }
    return S3Client(
        bucket,
        prefix=prefix or None,
        config=_config(access),
        client_options=client,
        retry_config=retry,
        credential_provider=chain,
    )


def _config(access: S3Access) -> "S3Config":
    config: S3Config = {}
    if access.endpoint_url is not None:
        config["endpoint"] = access.endpoint_url
    if access.region is not None:
        config["region"] = access.region
    if access.kms_key_id is not None:
        config["server_side_encryption"] = "aws:kms"
        config["sse_kms_key_id"] = access.kms_key_id
    if isinstance(pair := access.credentials, Credentials):
        config["access_key_id"] = pair.access_key_id
        config["secret_access_key"] = pair.secret_access_key
        if pair.session_token is not None:
            config["session_token"] = pair.session_token
    return config
