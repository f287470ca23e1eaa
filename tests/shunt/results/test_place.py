"""Results on S3: the right server, the right name, and a write before any row is made."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shunt.errors import JobError
from shunt.job.job import Job
from shunt.results.place import access_to, reach_of
from shunt.results.publishing import check_writable, publish, remove_partial
from shunt.results.summary import SUMMARY_NAME
from shunt.run.collect import collect
from shunt.run.verify import verify
from shunt.store.errors import StoreDenied
from shunt.testing.memory_store import MemoryStore
from shunt.testing.s3_server import S3Server
from tests.shunt.run.test_verify import run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINIO = {"uri": "s3://team/runs", "endpoint_url": "http://minio:9000", "access_key_id_env": "ID",
         "secret_access_key_env": "SECRET", "kms_key_id": "alias/team"}  # fmt: skip
ENVIRONMENT = {"ID": "shunt-test-id", "SECRET": "shunt-test-secret"}


def job(store: dict[str, Any], **output: Any) -> Job:
    return Job.model_validate(
        {
            "name": "small",
            "model": {"path": "fake", "engine_kind": "fake"},
            "input": {"path": "none"},
            "output": output,
            "store": store,
        }
    )


def test_the_stores_own_access_counts_for_its_bucket_and_its_server() -> None:
    own = job(MINIO).store
    assert access_to(job(MINIO), "s3://team/out") == own.model_copy(update={"uri": "s3://team/out"})
    here = job(MINIO, endpoint_url="http://minio:9000")
    assert access_to(here, "s3://other/out").access_key_id_env == "ID"


def test_another_bucket_is_on_aws_unless_an_endpoint_is_named() -> None:
    aws = access_to(job(MINIO), "s3://other/out")
    assert (aws.endpoint_url, aws.access_key_id_env) == (None, None)
    named = job({"uri": "runs"}, endpoint_url="http://ceph:80")
    assert access_to(named, "s3://other/out").endpoint_url == "http://ceph:80"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("s3://b/results/", "s3://b/results"),
        (" s3://b/results ", "s3://b/results"),
        ("s3://b/{run_id}/x//", "s3://b/{run_id}/x"),
        ("out/", "out"),
        ("/", "/"),
    ],
)
def test_a_slash_or_a_space_too_many_is_no_other_place(written: str, meant: str) -> None:
    assert job({"uri": "runs"}, path=written).output.path == meant


@pytest.mark.parametrize("path", ["gs://b/x", "s3://", "s3://b/a b"])
def test_a_path_that_can_never_be_written_is_refused_at_once(path: str) -> None:
    with pytest.raises(ValidationError, match=r"write s3://|object key"):
        job({"uri": "runs"}, path=path)


@pytest.mark.s3
def test_results_go_to_the_stores_server_and_are_verified_there(
    s3: S3Server, tmp_path: Path
) -> None:
    store, manifest = run(tmp_path)
    prefix = uuid.uuid4().hex
    given = {**MINIO, "uri": f"s3://{s3.bucket}/runs", "endpoint_url": s3.endpoint_url}
    asked = job({k: v for k, v in given.items() if k != "kms_key_id"},
                path=f"s3://{s3.bucket}/{prefix}/")  # fmt: skip
    manifest = manifest.model_copy(
        update={
            "job": manifest.job.model_copy(update={"output": asked.output, "store": asked.store})
        }
    )
    reach = reach_of(manifest.job, ENVIRONMENT)
    check_writable(asked.output.path, reach)
    for _ in range(2):  # the second one finds all that is asked for
        summary = collect(store, manifest, now=NOW, reach=reach)
        assert summary.directory == f"s3://{s3.bucket}/{prefix}/{manifest.run_id}"
    assert verify(store, manifest, reach=reach).problems == []
    place = reach(f"s3://{s3.bucket}/{prefix}")
    names = {key.rsplit("/", 1)[-1] for key in place.list("")}
    assert names == {"results.jsonl", "results.parquet", SUMMARY_NAME}
    told = json.loads(place.get(f"{manifest.run_id}/{SUMMARY_NAME}"))
    assert told["num_rows"] == 5
    place.put(f"{manifest.run_id}/results.jsonl", b"{}\n")
    assert verify(store, manifest, reach=reach).problems


@pytest.mark.s3
def test_an_output_that_cannot_be_written_is_known_before_the_first_token(s3: S3Server) -> None:
    given = {**MINIO, "endpoint_url": s3.endpoint_url}
    missing = job(given, path="s3://team/out")
    with pytest.raises(JobError, match=r"output.path: s3://team/out cannot be used: .*no bucket"):
        check_writable(missing.output.path, reach_of(missing, ENVIRONMENT))


def test_who_may_write_and_not_delete_can_publish(tmp_path: Path) -> None:
    class WriteOnly(MemoryStore):
        def delete(self, key: str) -> None:
            raise StoreDenied("s3:DeleteObject is not granted", key=key)

    store = WriteOnly()
    check_writable("s3://b/out", lambda _uri: store)
    store.put("results.partial.jsonl", b"{}")
    (tmp_path / "results.jsonl").write_text("{}")
    for told in ("{}", '{"again": 1}'):
        publish(
            {"results.jsonl": tmp_path / "results.jsonl"},
            SUMMARY_NAME,
            told,
            "s3://b/out",
            lambda _uri: store,
        )
        remove_partial("s3://b/out", lambda _uri: store)
        assert store.get(SUMMARY_NAME) == told.encode()
