"""The store part of a job file: what it accepts, what it opens, and what it says otherwise."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from shunt.errors import JobError
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.directory import DirectoryStore
from shunt.store.opening import open_store
from shunt.store.s3 import S3Store
from shunt.testing.s3_server import S3Server


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "file://localhost{path}"])
def test_a_directory_has_three_spellings(tmp_path: Path, form: str) -> None:
    store = open_store(form.format(path=tmp_path / "my runs"))
    assert isinstance(store, DirectoryStore)
    store.put("a", b"1")
    assert (tmp_path / "my runs" / "a").read_bytes() == b"1"


def test_the_uri_of_a_store_opens_it_again(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "my runs"), "s3://bucket/team/runs/", "s3://bucket"):
        store = open_store(uri)
        assert open_store(store.uri).uri == store.uri


def test_an_s3_uri_opens_s3() -> None:
    store = open_store("s3://bucket/team/runs/")
    assert isinstance(store, S3Store)
    assert store.uri == "s3://bucket/team/runs"


@pytest.mark.parametrize(
    "uri",
    ["", "gs://bucket", "s3://", "s3:///a", "s3://b/../a", "s3://b/a?x=1", "file://", "file://h/a"],
)
def test_a_uri_that_names_no_store_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError, match=r"write s3://|write file:///|object key"):
        StoreConfig(uri=uri)


@pytest.mark.parametrize("uri", ["gs://bucket/x", "az://container/x", "abfss://c@a/x"])
def test_a_store_that_was_never_tried_is_refused_with_the_reason(uri: str) -> None:
    with pytest.raises(
        ValidationError, match=r"is not supported, as create-if-absent.*was not tried"
    ):
        StoreConfig(uri=uri)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="secret_access_key"):
        StoreConfig.model_validate({"uri": "s3://b", "secret_access_key": "written down"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uri": "/runs", "region": "eu-west-1"}, "only for s3:// stores"),
        ({"uri": "s3://b", "endpoint_url": "minio:9000"}, "no address: write http://host:port"),
        ({"uri": "s3://b", "access_key_id_env": "ID"}, "give both"),
        ({"uri": "s3://b", "session_token_env": "TOKEN"}, "session_token_env needs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StoreConfig.model_validate(settings)


def test_a_variable_that_is_not_set_is_named() -> None:
    config = StoreConfig(uri="s3://b", access_key_id_env="MY_ID", secret_access_key_env="MY_KEY")
    with pytest.raises(JobError, match="MY_KEY is not set"):
        open_configured_store(config, environment={"MY_ID": "id", "MY_KEY": ""})


@pytest.mark.s3
def test_credentials_come_from_the_named_variables(s3: S3Server) -> None:
    config = StoreConfig(
        uri=f"s3://{s3.bucket}/config",
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key_id_env="MY_ID",
        secret_access_key_env="MY_KEY",
    )
    pair = s3.credentials
    environment = {"MY_ID": pair.access_key_id, "MY_KEY": pair.secret_access_key}
    store = open_configured_store(config, environment=environment)
    store.put("a", b"1")
    assert store.get("a") == b"1"


@pytest.mark.s3
def test_without_named_variables_the_standard_ones_count(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.credentials.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.credentials.secret_access_key)
    monkeypatch.setenv("AWS_REGION", s3.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint_url)
    store = open_store(f"s3://{s3.bucket}/standard")
    store.put("a", b"1")
    assert store.get("a") == b"1"
