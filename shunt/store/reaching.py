"""Whether a store can be used: asked once, before anything is started."""

import secrets
from dataclasses import replace

from shunt import keys
from shunt.errors import JobError
from shunt.retry import NO_RETRY
from shunt.store.errors import StoreDenied, StoreUnavailable
from shunt.store.protocol import Store
from shunt.store.s3 import S3Store
from shunt.store.s3_diagnosis import diagnose

LOOK_LIMIT_S = 1.5
"""Of the one request. With the two questions of a diagnosis it stays under five seconds."""


class StoreUnusable(JobError):
    """The store that was named cannot be used; nothing was started."""


def require_reachable(store: Store, *, under: str = "runs/", may_list: bool = True) -> None:
    """Ask for keys under a prefix once. A failure is explained within five seconds; one that may
    pass is left to the store's own retries, and so is a refusal unless we need to list
    (`may_list`). Raises `StoreUnusable`."""
    if not isinstance(store, S3Store):
        return
    access = replace(store.access, request_timeout_s=LOOK_LIMIT_S, retry=NO_RETRY)
    try:
        S3Store(store.bucket, store.prefix, access=access).look(under)
    except (StoreUnavailable, StoreDenied) as error:
        prefix = "/".join(filter(None, (store.prefix, under)))
        fault = diagnose(store.bucket, prefix, access)
        if fault is not None and (may_list or not fault.denied):
            raise StoreUnusable(f"{store.uri} cannot be used: {fault.told}") from error


def require_exclusive(store: Store) -> None:
    """See that of two writers of one key the store takes the first alone: all ownership rests on
    it. A few bytes are written once in the life of a store. Raises `StoreUnusable`, `StoreError`.
    """
    for _ in range(2):
        if not store.put_if_absent(keys.STORE_CHECK, secrets.token_bytes(16)):
            return
    raise StoreUnusable(
        f"{store.uri} cannot be used: the server writes over an object that must only be created "
        "(PUT with If-None-Match), so two workers could own one shard. Take another server, or a "
        "newer version of it"
    )
