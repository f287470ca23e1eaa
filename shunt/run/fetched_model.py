"""Where the files of a run's model are, from its job: a directory here, a bucket, or the hub.

What is not a directory is listed once, when the run is prepared; the listing is in the manifest,
and every node fetches exactly these files. The control side fetches all but the weights.
"""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from shunt.cache_folder import cache_folder
from shunt.errors import JobError
from shunt.job.job import Job, Model
from shunt.model.bucket import BucketSource
from shunt.model.errors import ModelDenied, ModelMissing, ModelUnavailable
from shunt.model.fetching import fetch
from shunt.model.hub import HUB_URL, HubSource
from shunt.model.listing import ModelListing
from shunt.model.source import DirectorySource, ModelSource
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.reaching import require_reachable

S3 = "s3://"
CACHE = "SHUNT_MODEL_CACHE"
"""Environment variable: the directory of fetched models."""
HUB = "HF_ENDPOINT"
"""Environment variable, as the hub's own client has it: a mirror of the hub."""
OFFLINE = "HF_HUB_OFFLINE"


def resolve_model(job: Job, environment: Mapping[str, str]) -> ModelListing | None:
    """The files of the job's model, a revision resolved to its commit; None where the path is used
    as it is: a directory, a model that a local fleet has in the hub's own cache, no model at all.

    Raises `JobError`: nothing of that name, no right to read it, no answer.
    """
    model = job.model
    if model.engine_kind == "fake" or is_used_as_it_is(job, environment):
        return None
    if job.fleet.kind == "ec2" and model.token_env and not model.path.startswith(S3):
        raise JobError(
            "model.token_env: nodes on EC2 have no environment of yours, and a token goes into no "
            f"tag; put the model into the bucket, which they read by their role: shunt model push "
            f"{model.path} s3://BUCKET/PREFIX/weights/NAME, and name that as model.path"
        )
    source = source_of(job, environment)
    if isinstance(source, BucketSource):
        require_reachable(source.store, under="", may_list=False)  # an index is enough
    try:
        return source.listing()
    except (ModelMissing, ModelDenied, ModelUnavailable) as error:
        as_what = "" if model.path.startswith(S3) else f"{model.path} is no directory here, and "
        raise JobError(f"model.path: {as_what}{error}") from error


def is_used_as_it_is(job: Job, environment: Mapping[str, str]) -> bool:
    path = job.model.path
    if path.startswith(S3):
        return False
    if Path(path).is_absolute() or Path(path).exists() or path.count("/") > 1:
        return True
    local = job.fleet.kind == "local"
    return local and (bool(environment.get(OFFLINE)) or _in_hub_cache(job.model))


def source_of(
    job: Job,
    environment: Mapping[str, str],
    *,
    commit: str = "",
    store: StoreConfig | None = None,
) -> ModelSource:
    """Where to read the files from. `store`: by which way an S3 server is reached, if not the
    job's; a model in a bucket is on the same server. Raises `JobError`."""
    model, config = job.model, store or job.store
    if model.path.startswith(S3):
        reached = config if config.uri.startswith(S3) else StoreConfig(uri=model.path)
        opened = reached.model_copy(update={"uri": model.path.rstrip("/")})
        return BucketSource(open_configured_store(opened, environment=environment))
    if Path(model.path).is_dir():
        return DirectorySource(Path(model.path))
    return HubSource(
        model.path,
        revision=commit or model.revision or "main",
        token=_token(model, environment),
        url=environment.get(HUB) or HUB_URL,
    )


def control_copy(job: Job, listing: ModelListing, environment: Mapping[str, str]) -> Job:
    """The job with configuration and tokenizer fetched to this machine, for rendering: no weights
    are read. Raises `ModelError`."""
    source = source_of(job, environment, commit=listing.commit)
    folder = fetch(source, listing.without_weights(), model_cache(environment))
    return with_directory(job, folder)


def with_directory(job: Job, folder: Path) -> Job:
    """The job with its model at a directory of this machine."""
    model = job.model.model_copy(update={"path": str(folder), "revision": None})
    return job.model_copy(update={"model": model})


def model_cache(environment: Mapping[str, str]) -> Path:
    """Where fetched models are kept on this machine."""
    if named := environment.get(CACHE):
        return Path(named)
    return cache_folder(environment) / "models"


def _token(model: Model, environment: Mapping[str, str]) -> str:
    if model.token_env is None:
        return ""
    if value := environment.get(model.token_env):
        return value
    raise JobError(f"model.token_env: environment variable {model.token_env} is not set; export it")


def _in_hub_cache(model: Model) -> bool:
    try:
        found = try_to_load_from_cache(model.path, "config.json", revision=model.revision or "main")
    except HFValidationError:
        return False
    return isinstance(found, str)
