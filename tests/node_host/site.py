"""What stands around a node in the rehearsal: S3 by AWS's own name, metadata, a prepared run."""

import json
import socket
import ssl
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shunt.aws.account.bundle import make_bundle
from shunt.dataset.rendering import renderer_for
from shunt.job.job import Job
from shunt.model.bucket import BucketSource
from shunt.model.pushing import push
from shunt.model.source import DirectorySource
from shunt.run.manifest import Manifest
from shunt.run.prepare import prepare
from shunt.store.opening import open_store
from shunt.store.protocol import Store
from shunt.testing.ec2.imds_server import Metadata, imds_server
from shunt.testing.s3_server import S3Server
from tests.node_host.machine import (
    ADDRESS,
    IMDS,
    REPOSITORY,
    S3_ADDRESS,
    Machine,
    relay,
)

REGION = "us-east-1"
S3_NAME = f"s3.{REGION}.amazonaws.com"
ROLE = "shunt-run-rehearsal"
NODE = "i-0rehearsal"
WEIGHTS = "team/weights/SmolLM2-135M-Instruct"
MODEL = REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"
HOUR = timedelta(hours=1)


@dataclass(slots=True)
class Site:
    """One node, what it is told, and the run that it is for."""

    machine: Machine
    metadata: Metadata
    store: Store
    server: S3Server
    manifest: Manifest

    def first_boot(self, *, timeout_s: int = 900) -> None:
        """Run the user data as cloud-init does: once, as root, in a unit of its own."""
        self.machine.run(
            *("systemd-run", "--unit=cloud-final", "--no-block"),
            *(f"--property=RuntimeMaxSec={timeout_s}", "/bin/bash", "/var/lib/cloud/user-data"),
        )

    def expire(self, at: datetime) -> None:
        self.metadata.tags["shunt:expires-at"] = at.isoformat()


def bucket(server: S3Server, prefix: str) -> Store:
    return open_store(
        f"s3://{server.bucket}/{prefix}",
        endpoint_url=server.endpoint_url,
        region=server.region,
        credentials=server.credentials,
    )


def prepared_run(server: S3Server, folder: Path, *, name: str, num_rows: int) -> Manifest:
    """A run on real vLLM whose model is in the bucket."""
    rows = [{"id": str(n), "prompt": f"Count to {n}:"} for n in range(num_rows)]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = {"max_num_seqs": 8, "enforce_eager": True}
    job = Job.model_validate(
        {
            "name": name,
            "model": {
                "path": f"s3://{server.bucket}/{WEIGHTS}",
                "dtype": "float32",
                "max_model_len_tokens": 256,
                "engine": engine,
            },
            "input": {"path": str(path)},
            "sampling": {"max_tokens": 24, "ignore_eos": True},
            "shard_prompts": 4,
            "store": {"uri": f"s3://{server.bucket}/team"},
        }
    )
    weights = bucket(server, WEIGHTS)
    push(MODEL, DirectorySource(MODEL).listing(), weights)
    renderer = renderer_for(str(MODEL), revision=None, max_model_len=256, fake=False)
    listing = BucketSource(weights).listing()
    store = bucket(server, "team")
    return prepare(job, store, renderer, now=datetime.now(UTC), model=listing)


@contextmanager
def site(
    machine: Machine, server: S3Server, manifest: Manifest, *, installed: bool = True
) -> Generator[Site]:
    """The node, booted, before its user data ran. `installed`: its image has the worker."""
    tls = _own_ca(machine.root, server.bucket)
    _lay_out(machine, installed=installed)
    pair = server.credentials
    expires = datetime.now(UTC) + 6 * HOUR
    role = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": pair.access_key_id,
        "SecretAccessKey": pair.secret_access_key,
        "Token": "",
        "LastUpdated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    metadata = Metadata(
        instance_id=NODE,
        tags={
            "shunt:run": manifest.run_id,
            "shunt:slot": "worker-0",
            "shunt:store": f"s3://{server.bucket}/team",
            "shunt:expires-at": (datetime.now(UTC) + 6 * HOUR).isoformat(),
        },
        values={
            "instance-type": "m7i.xlarge",
            "placement/region": REGION,
            "local-ipv4": ADDRESS,
            "iam/security-credentials/": ROLE,
            f"iam/security-credentials/{ROLE}": json.dumps(role),
        },
    )
    machine.boot()
    with imds_server(metadata, machine.listening(IMDS, 80)):
        listener = machine.listening(S3_ADDRESS, 443)
        parts = urlsplit(server.endpoint_url)
        relay(listener, (parts.hostname or "", parts.port or 0), tls)
        try:
            yield Site(machine, metadata, bucket(server, "team"), server, manifest)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def _lay_out(machine: Machine, *, installed: bool) -> None:
    """The image: names of AWS, the user data and, where `installed`, environment, code, units."""
    root = machine.root
    shared = f"{S3_ADDRESS} {S3_NAME} {_bucket_names()}\n"
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{shared}")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    user_data = root / "var/lib/cloud/user-data"
    user_data.parent.mkdir(parents=True, exist_ok=True)
    user_data.write_text((REPOSITORY / "deployments/aws/user-data.sh").read_text())
    if not installed:
        return
    subprocess.run(["chroot", root, "python3.11", "-m", "venv", "/opt/shunt/venv"], check=True)
    packages = Path("lib/python3.11/site-packages")
    machine.binds[Path("/opt/shunt/venv") / packages] = REPOSITORY / ".venv/worker" / packages
    code = root / "opt/shunt/code"
    code.mkdir(parents=True)
    unpack = ["tar", "-xz", "-C", str(code)]
    subprocess.run(unpack, input=make_bundle(REPOSITORY).data, check=True)
    units = root / "etc/systemd/system"
    for unit in (code / "deployments/aws").glob("shunt-*.*"):
        (units / unit.name).write_text(unit.read_text())


def _bucket_names() -> str:
    return f"shunt-test.{S3_NAME}"


def _own_ca(root: Path, bucket_name: str) -> ssl.SSLContext:
    """A certificate for S3's names, by an authority that the node's image trusts."""
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ours = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rehearsal")])
    names = [x509.DNSName(S3_NAME), x509.DNSName(f"{bucket_name}.{S3_NAME}")]
    trusted = (
        _certificate(ours, authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority, hashes.SHA256())
    )
    shown = (
        _certificate(ours, server, subject=x509.Name([]))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority, hashes.SHA256())
    )
    private = server.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with (root / "etc/ssl/certs/ca-certificates.crt").open("ab") as bundle:
        bundle.write(trusted.public_bytes(serialization.Encoding.PEM))
    chain = root.parent / "s3.pem"
    chain.write_bytes(private + shown.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


def _certificate(
    issuer: x509.Name, key: ec.EllipticCurvePrivateKey, subject: x509.Name | None = None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(issuer if subject is None else subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 24 * HOUR)
        .not_valid_after(now + 24 * HOUR)
    )
