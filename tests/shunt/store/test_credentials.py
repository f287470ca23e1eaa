"""The store signs with whatever the AWS configuration says, and finds what was renewed there."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.credentials import DeferredRefreshableCredentials
from botocore.exceptions import CredentialRetrievalError
from botocore.session import Session

from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.credential_server import lent_credentials
from shunt.store.credentials import AwsChain, aws_chain
from shunt.store.errors import CredentialsMissing
from shunt.store.s3 import S3Access, S3Store
from shunt.testing.s3_server import S3Server

pytestmark = pytest.mark.s3
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials in the environment, whoever runs the tests and whatever ran before."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


class Provider:
    """A `credential_process` of an AWS profile: it says what stands in a file, and counts."""

    def __init__(self, folder: Path) -> None:
        self.answer, self.calls = folder / "answer.json", folder / "calls"
        self.calls.touch()
        script = folder / "provider.py"
        script.write_text(
            f"open({str(self.calls)!r}, 'a').write('x')\nprint(open({str(self.answer)!r}).read())\n"
        )
        self.config = folder / "config"
        self.config.write_text(
            f"[profile team]\nregion = us-east-1\ncredential_process = {sys.executable} {script}\n"
        )

    def gives(self, server: S3Server, *, for_s: float) -> None:
        told = {
            "Version": 1,
            "AccessKeyId": server.credentials.access_key_id,
            "SecretAccessKey": server.credentials.secret_access_key,
            "Expiration": (datetime.now(UTC) + timedelta(seconds=for_s)).isoformat(),
        }
        self.answer.write_text(json.dumps(told))

    def fails(self) -> None:
        self.answer.unlink()

    @property
    def num_calls(self) -> int:
        return len(self.calls.read_text())


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Provider:
    provider = Provider(tmp_path)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(provider.config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    return provider


def config_of(server: S3Server) -> StoreConfig:
    return StoreConfig(
        uri=f"s3://{server.bucket}/{uuid.uuid4().hex}", endpoint_url=server.endpoint_url
    )


def test_a_store_signs_with_a_profiles_credential_process(s3: S3Server, provider: Provider) -> None:
    provider.gives(s3, for_s=3600)
    store = open_configured_store(config_of(s3), environment={})
    for number in range(3):
        store.put(f"a{number}", b"1")
    assert provider.num_calls == 1


def test_what_is_about_to_lapse_is_renewed(s3: S3Server, provider: Provider) -> None:
    """botocore's mandatory refresh: ten minutes before the end."""
    provider.gives(s3, for_s=500)
    chain = AwsChain(Session)
    for _ in range(3):
        chain.current()
    assert provider.num_calls >= 3


def test_a_renewal_that_fails_is_no_loss_before_the_end(s3: S3Server, provider: Provider) -> None:
    provider.gives(s3, for_s=500)
    chain = AwsChain(Session)
    first = chain.current()
    provider.fails()
    assert chain.current() == first
    assert chain.fault == ""


def test_a_role_that_lapses_is_told_and_taken_up_again(s3: S3Server) -> None:
    role = Role(s3)
    # An instant of long ago: obstore asks before every request.
    chain = AwsChain(lambda: role, now=lambda: datetime(2020, 1, 1, tzinfo=UTC))
    access = S3Access(s3.endpoint_url, s3.region, chain)
    store = S3Store(s3.bucket, uuid.uuid4().hex, access=access)
    store.put("a", b"1")
    role.revoked = True
    role.now += timedelta(minutes=55)
    store.put("a", b"2")  # the role is not renewed any more, but lasts for five minutes
    role.now += timedelta(minutes=6)
    with pytest.raises(CredentialsMissing, match=r"no AWS credentials \(.*revoked.*aws sso login"):
        store.put("a", b"3")
    role.revoked = False
    store.put("a", b"4")
    assert store.get("a") == b"4"


class Role:
    """A session of botocore's with a role for an hour, on a clock of its own."""

    def __init__(self, server: S3Server) -> None:
        self.now, self.revoked, self.server = datetime.now(UTC), False, server

    def get_credentials(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._assume, "assume-role", lambda: self.now)

    def _assume(self) -> dict[str, str | None]:
        if self.revoked:
            raise CredentialRetrievalError(provider="assume-role", error_msg="revoked")
        return {
            "access_key": self.server.credentials.access_key_id,
            "secret_key": self.server.credentials.secret_access_key,
            "token": None,
            "expiry_time": (self.now + timedelta(hours=1)).isoformat(),
        }


def test_a_pair_that_was_replaced_in_its_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    chain = aws_chain()
    assert chain is not None
    for key in ("old", "new"):
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n")
        assert chain.current().access_key_id == key


def test_a_worker_without_botocore_reaches_the_store_as_its_controller_does(
    s3: S3Server, provider: Provider
) -> None:
    provider.gives(s3, for_s=3600)
    config = config_of(s3)
    with lent_credentials(config, {}) as lent:
        assert lent["AWS_REGION"] == "us-east-1"
        done = in_worker(config, lent)
        assert done.returncode == 0, done.stderr
        assert not any(s3.credentials.secret_access_key in value for value in lent.values())
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(lent["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
    assert open_configured_store(config, environment={}).get("by-a-worker") == b"1"


def test_nothing_is_lent_where_a_worker_can_help_itself(s3: S3Server, tmp_path: Path) -> None:
    cases: list[tuple[StoreConfig, Mapping[str, str]]] = [
        (StoreConfig(uri=str(tmp_path)), {}),
        (config_of(s3), {"AWS_ACCESS_KEY_ID": "there"}),
    ]
    for config, environment in cases:
        with lent_credentials(config, environment) as lent:
            assert lent == {}


def in_worker(
    config: StoreConfig, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """A put by the interpreter of the workers, which knows nothing but this environment."""
    program = (
        "import sys\n"
        "from shunt.store.config import StoreConfig, open_configured_store\n"
        "assert not __import__('importlib').util.find_spec('botocore')\n"
        "config = StoreConfig.model_validate_json(sys.argv[1])\n"
        "open_configured_store(config, environment={}).put('by-a-worker', b'1')\n"
    )
    python = REPOSITORY / ".venv/worker/bin/python"
    return subprocess.run(
        [python, "-c", program, config.model_dump_json()],
        env={"PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
    )
