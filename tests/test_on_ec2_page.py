"""docs/on-ec2.md tells the truth: its commands, typed in its order, print what it says they print.

EC2, prices and quotas are the double's, IAM is moto's, S3 is a real server, and the node is a
process with real vLLM.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from shunt.aws.nodes.pool import Pool
from shunt.testing.ec2.cloud import cloud, moto_server
from shunt.testing.ec2.market import Market
from shunt.testing.s3_server import S3Server, s3_server

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "on-ec2.md"
PRICES = {"g4dn.xlarge": ("0.21", "0.526"), "g6.xlarge": ("0.42", "0.8048")}
"""Spot and on-demand, of the page's table."""
QUOTAS = {"All G and VT Spot Instance Requests": 64.0, "Running On-Demand G and VT instances": 8.0}
_NODES_ID, _NODES_SECRET = "NODES_ID", "NODES_SECRET"
_CHANGES = (
    (r"\d\d\d\d-\d\d-\d\d", "DATE"),
    (r"\d+:\d\d:\d\d", "TIME"),
    (r"\bsg-[0-9a-f]+", "SG"),
    (r"\bi-[0-9a-f]{17}", "NODE"),
    (r"reviews-[0-9a-f]{12}", "RUN"),
    (r"\d+ s old", "AGE"),
    (r"from \d+ segments?", "SEGMENTS"),
    (r"\d+ tokens", "TOKENS"),
    (r"0\.0\d\b", "CENTS"),
    (r"\d+(\.\d+)? kB", "SIZE"),
    (r"cut: \d+ answers? ", "CUT"),
)
"""What no two runs have in common. Answers are sampled, and seeds come from the run's id."""

pytestmark = [pytest.mark.timeout(900), pytest.mark.s3, pytest.mark.prefect]


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Every `$ command` of the page's code blocks, with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```\n(\$ .*?)```", page, re.DOTALL):
        command, *lines = block.splitlines()
        found.append((command.removeprefix("$ "), lines))
    return found


def plain(text: str) -> str:
    for pattern, word in _CHANGES:
        text = re.sub(pattern, word, text)
    return re.sub(r"\s+", " ", text).strip()


def is_told(told: list[str], said: list[str]) -> bool:
    """Whether the page's lines are those of the output; `...` stands for any number of lines."""
    if not told:
        return not said
    if told[0] == "...":
        return any(is_told(told[1:], said[skip:]) for skip in range(len(said) + 1))
    return bool(said) and plain(told[0]) == plain(said[0]) and is_told(told[1:], said[1:])


def market() -> Market:
    priced = Market(quotas=dict(QUOTAS))
    long_ago = datetime(2026, 3, 1, tzinfo=UTC)
    for instance_type, (spot, on_demand) in PRICES.items():
        for zone in ("us-east-1a", "us-east-1b"):
            pool = Pool(instance_type, zone, "spot")
            priced.set_price(pool, long_ago, spot)
            priced.set_capacity(pool, long_ago, 100)
            priced.set_price(Pool(instance_type, zone, "on-demand"), long_ago, on_demand)
    return priced


@contextmanager
def account(directory: Path, s3: S3Server) -> Generator[dict[str, str]]:
    """An empty account with a bucket; yields the environment of a shell that has it."""
    keys = {
        "AWS_ACCESS_KEY_ID": s3.credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.credentials.secret_access_key,
    }
    store = {
        "uri": f"s3://{s3.bucket}/team",
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "access_key_id_env": _NODES_ID,
        "secret_access_key_env": _NODES_SECRET,
    }
    with (
        moto_server() as url,
        cloud(
            worker_python=REPOSITORY / ".venv/worker/bin/python",
            store=json.dumps(store),
            log_directory=directory / "nodes",
            market=market(),
            rest_of_aws=url,
        ) as ec2,
    ):
        names = {"AWS_DEFAULT_REGION": s3.region, "AWS_ENDPOINT_URL_SQS": url, "COLUMNS": "110"}
        yield {
            **{n: v for n, v in os.environ.items() if n not in ("PREFECT_API_URL", "PREFECT_HOME")},
            **ec2.environment,
            **keys,
            **names,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "SHUNT_MODEL_CACHE": str(directory / "models"),
            "HOME": str(directory / "home"),  # looks at prices are kept there
            "MOTO_URL": url,
        }


def test_every_command_of_the_page_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    job = tmp_path / "examples" / "ec2.yaml"
    # A GPU's own bfloat16 is a minute of arithmetic on a CPU that has none.
    job.write_text(job.read_text().replace("model:\n", "model:\n  dtype: float32\n", 1))
    (tmp_path / ".cache").symlink_to(REPOSITORY / ".cache")
    typed = commands(PAGE.read_text())
    assert len(typed) == 13
    with s3_server(bucket="my-bucket") as s3, ExitStack() as stack:
        monkeypatch.setenv(_NODES_ID, s3.credentials.access_key_id)
        monkeypatch.setenv(_NODES_SECRET, s3.credentials.secret_access_key)
        environment = stack.enter_context(account(tmp_path, s3))
        make_bucket(environment, s3.region)
        for command, told in typed:
            # Of the account's own questions about the bucket the S3 server knows too little.
            asks_account = command.startswith("shunt aws")
            s3_url = environment["MOTO_URL"] if asks_account else s3.endpoint_url
            done = subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                env=environment | {"AWS_ENDPOINT_URL_S3": s3_url},
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
            said = done.stdout.splitlines()
            assert is_told(told, said), f"$ {command}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
            assert "Error" not in done.stderr, done.stderr


def make_bucket(environment: dict[str, str], region: str) -> None:
    """The account's view of the bucket, closed to the public as new buckets are."""
    client = boto3.client(
        "s3",
        endpoint_url=environment["MOTO_URL"],
        region_name=region,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="my-bucket")
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    client.put_public_access_block(
        Bucket="my-bucket", PublicAccessBlockConfiguration=dict.fromkeys(names, True)
    )
