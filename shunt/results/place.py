"""How result files reach the place that a job names for them: which server, with which rights."""

from collections.abc import Callable, Mapping

from shunt.job.job import Job
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.opening import bucket_of, directory_of
from shunt.store.protocol import Store

Reach = Callable[[str], Store]
"""From the URI of a prefix to the store there."""


def reach_of(job: Job, environment: Mapping[str, str]) -> Reach:
    """The way to the job's results, wherever exactly they go."""
    return lambda uri: open_configured_store(access_to(job, uri), environment=environment)


def access_to(job: Job, uri: str) -> StoreConfig:
    """The store's own access for its own bucket and for others of its server; else what
    `output.endpoint_url` names, and without it AWS."""
    endpoint, store = job.output.endpoint_url, job.store
    if directory_of(uri) is None and directory_of(store.uri) is None:
        same_bucket = endpoint is None and bucket_of(uri)[0] == bucket_of(store.uri)[0]
        if same_bucket or (endpoint is not None and endpoint == store.endpoint_url):
            return store.model_copy(update={"uri": uri})
    return StoreConfig(uri=uri, endpoint_url=endpoint)
