"""The `store:` part of a job file."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator, model_validator

from shunt.errors import JobError, ShuntError
from shunt.store.credentials import Credentials
from shunt.store.opening import bucket_of, check_endpoint, directory_of, open_store
from shunt.store.protocol import Store


def _address(url: str | None) -> str | None:
    try:
        return check_endpoint(url)
    except JobError as error:
        raise ValueError(str(error)) from error


EndpointUrl = Annotated[str | None, AfterValidator(_address)]
"""Of a server that speaks S3 and is not AWS, in a job file."""


class StoreConfig(BaseModel):
    """Where a run keeps its state. Secrets are named, never written down: `*_env` are the names of
    environment variables. With none of them, S3 credentials come from the chain of AWS's own tools:
    environment variables, AWS_PROFILE, SSO, assumed roles, `credential_process`, or the role of the
    container or instance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str
    """`s3://bucket/prefix`, `file:///path` or a plain path."""

    endpoint_url: EndpointUrl = None
    """Of a server that speaks S3 and is not AWS."""

    region: str | None = None

    access_key_id_env: str | None = None
    """Name of the environment variable that holds the access key id."""

    secret_access_key_env: str | None = None
    """Name of the environment variable that holds the secret access key."""

    session_token_env: str | None = None
    """Name of the environment variable that holds a temporary credential's token."""

    kms_key_id: str | None = None
    """Key of KMS (its ARN, id or `alias/...`) with which objects are encrypted, where the bucket
    demands it of every request. A bucket's default encryption needs nothing here."""

    @field_validator("uri")
    @classmethod
    def _names_a_store(cls, uri: str) -> str:
        try:
            if directory_of(uri) is None:
                bucket_of(uri)
        except ShuntError as error:
            raise ValueError(str(error)) from error
        return uri

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        only_s3 = {
            name for name in type(self).model_fields if name != "uri" and getattr(self, name)
        }
        if only_s3 and directory_of(self.uri) is not None:
            raise ValueError(
                f"{', '.join(sorted(only_s3))}: only for s3:// stores; remove, or change uri"
            )
        if (self.access_key_id_env is None) != (self.secret_access_key_env is None):
            raise ValueError("access_key_id_env and secret_access_key_env go together: give both")
        if self.session_token_env and not self.access_key_id_env:
            raise ValueError("session_token_env needs access_key_id_env and secret_access_key_env")
        return self


def open_configured_store(config: StoreConfig, *, environment: Mapping[str, str]) -> Store:
    """Open the store of a job file. Raises `JobError` when a named variable is not set."""
    return open_store(
        config.uri,
        endpoint_url=config.endpoint_url,
        region=config.region,
        credentials=_credentials(config, environment),
        kms_key_id=config.kms_key_id,
    )


def _credentials(config: StoreConfig, environment: Mapping[str, str]) -> Credentials | None:
    if config.access_key_id_env is None or config.secret_access_key_env is None:
        return None
    return Credentials(
        access_key_id=_secret("access_key_id_env", config.access_key_id_env, environment),
        secret_access_key=_secret(
            "secret_access_key_env", config.secret_access_key_env, environment
        ),
        session_token=config.session_token_env
        and _secret("session_token_env", config.session_token_env, environment),
    )


def _secret(field: str, variable: str, environment: Mapping[str, str]) -> str:
    if value := environment.get(variable):
        return value
    raise JobError(f"store.{field}: environment variable {variable} is not set; export it")
