"""From a URI to a store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shunt.errors import JobError
from shunt.retry import STORE_RETRY, RetryPolicy
from shunt.store.credentials import Credentials, aws_chain, aws_endpoint, aws_region
from shunt.store.directory import DirectoryStore
from shunt.store.object_key import check_key
from shunt.store.protocol import Store
from shunt.store.s3 import S3Access, S3Store

_UNTRIED = ("gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "http", "https", "oci", "r2")
"""Schemes that people know of other stores."""


def open_store(
    uri: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    credentials: Credentials | None = None,
    kms_key_id: str | None = None,
    retry: RetryPolicy = STORE_RETRY,
) -> Store:
    """Open `s3://bucket/prefix`, `file:///path` or a plain path; nothing is contacted yet.

    For S3, what is left out comes from the standard AWS environment variables and configuration.
    Raises `JobError` for a URI that names no store.
    """
    if (path := directory_of(uri)) is not None:
        return DirectoryStore(path)
    bucket, prefix = bucket_of(uri)
    access = S3Access(
        endpoint_url=check_endpoint(endpoint_url or aws_endpoint()),
        region=region or aws_region(),
        credentials=credentials or aws_chain(),
        retry=retry,
        kms_key_id=kms_key_id,
    )
    return S3Store(bucket, prefix, access=access)


def directory_of(uri: str) -> Path | None:
    """The directory that the URI names; None when it names no directory."""
    parts = urlsplit(uri)
    if "://" not in uri and uri != "":
        return Path(uri)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost") or parts.path in ("", "/"):
        raise JobError(f"store {uri!r}: write file:///absolute/path, or just the path")
    return Path(unquote(parts.path))


def bucket_of(uri: str) -> tuple[str, str]:
    """Bucket and prefix of an S3 URI; the prefix has no slash at its ends."""
    parts = urlsplit(uri)
    if parts.scheme in _UNTRIED:
        raise JobError(
            f"store {uri!r}: {parts.scheme}:// is not supported, as create-if-absent, on which all "
            "rests, was not tried there; write s3://bucket/prefix (with endpoint_url, any server "
            "that speaks S3), file:///path or a plain path"
        )
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise JobError(f"store {uri!r}: write s3://bucket/prefix, file:///path or a plain path")
    prefix = parts.path.strip("/")
    return parts.netloc, check_key(prefix) if prefix else ""


def check_endpoint(url: str | None) -> str | None:
    """Return the address of a server; obstore ends a process for one that is none. Raises
    `JobError`."""
    parts = urlsplit(url or "http://none")
    if parts.scheme in ("http", "https") and parts.hostname:
        return url
    raise JobError(f"endpoint_url {url!r} is no address: write http://host:port or https://host")


def kms_key_of(store: Store) -> str | None:
    """The key of KMS that the store's objects are encrypted with; None: as the bucket is set up."""
    return store.access.kms_key_id if isinstance(store, S3Store) else None


def with_retry(store: Store, policy: RetryPolicy) -> Store:
    """The same store with another patience; one that does not retry is as it was."""
    return store.with_retry(policy) if isinstance(store, S3Store) else store
