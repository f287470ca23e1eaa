"""What it costs to make one segment durable: `put_if_absent` of 16 KiB.

Two stores, each next to a plain client doing the same in the same run, in turns: the directory next
to obstore's LocalStore (which does not sync to the disk), S3 on SeaweedFS next to boto3.
A flush runs beside generation, so what counts is the CPU it takes from the engine; the latency only
bounds how old the newest checkpoint is.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import obstore
from botocore.client import BaseClient
from botocore.config import Config
from obstore.store import LocalStore

from benchmarks.report import Row, write
from shunt.store.opening import open_store
from shunt.testing.fault_proxy import fault_proxy
from shunt.testing.s3_server import S3Server, s3_server

SEGMENT = bytes(range(256)) * 64
PUTS = 200
REPEATS = 5
THREADS = 16

Put = Callable[[str], None]


@dataclass(slots=True)
class Samples:
    """Milliseconds per put of one client: one number per repeat."""

    latency_ms: list[float] = field(default_factory=list[float])
    worst_ms: list[float] = field(default_factory=list[float])
    cpu_ms: list[float] = field(default_factory=list[float])
    parallel_ms: list[float] = field(default_factory=list[float])


def main() -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, s3_server() as server:
        puts = {
            "directory": _shunt_put(folder),
            "LocalStore": _local_store_put(Path(folder) / "plain"),
            "S3": _shunt_put(f"s3://{server.bucket}/ours", server),
            "boto3": _boto3_put(server),
        }
        samples = measure(puts)
        rows = [
            *_rows("directory", samples["directory"], "LocalStore", samples["LocalStore"]),
            *_rows("S3", samples["S3"], "boto3", samples["boto3"]),
            _requests_row(server),
        ]
    write("store_flush", rows)


def measure(puts: dict[str, Put]) -> dict[str, Samples]:
    """Every client in turn, `REPEATS` times over, after one warm-up."""
    samples = {name: Samples() for name in puts}
    for name, put in puts.items():
        for number in range(20):
            put(f"warm-{name}/{number}")
    for repeat in range(REPEATS):
        for name, put in puts.items():
            _measure_once(put, f"{name}-{repeat}", samples[name])
    return samples


def _measure_once(put: Put, prefix: str, samples: Samples) -> None:
    latencies: list[float] = []
    cpu = _cpu_s()
    for number in range(PUTS):
        started = time.perf_counter()
        put(f"{prefix}/serial/{number}")
        latencies.append((time.perf_counter() - started) * 1e3)
    samples.cpu_ms.append((_cpu_s() - cpu) * 1e3 / PUTS)
    samples.latency_ms.append(statistics.median(latencies))
    samples.worst_ms.append(max(latencies))
    with ThreadPoolExecutor(THREADS) as pool:
        started = time.perf_counter()
        list(pool.map(put, [f"{prefix}/parallel/{number}" for number in range(PUTS)]))
        samples.parallel_ms.append((time.perf_counter() - started) * 1e3 / PUTS)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _rows(name: str, ours: Samples, other: str, theirs: Samples) -> list[Row]:
    """A synced put may cost more time than an unsynced one; S3 may not cost more than boto3."""
    synced = name == "directory"
    return [
        _row(f"{name}: latency (reference {other})", ours.latency_ms, theirs.latency_ms,
             10.0 if synced else None),
        _row(f"{name}: worst latency", ours.worst_ms, theirs.worst_ms, None, judged=False),
        _row(f"{name}: client CPU", ours.cpu_ms, theirs.cpu_ms, 1.0 if synced else None),
        _row(f"{name}: {THREADS} threads", ours.parallel_ms, theirs.parallel_ms,
             10.0 if synced else None),
    ]  # fmt: skip


def _row(
    metric: str,
    ours: list[float],
    theirs: list[float],
    bound_ms: float | None,
    *,
    judged: bool = True,
) -> Row:
    value, reference = statistics.median(ours), statistics.median(theirs)
    bound = reference if bound_ms is None else bound_ms
    return Row(
        metric=metric,
        value=value,
        unit="ms/put",
        spread=(min(ours), max(ours)),
        reference=reference,
        target=f"<= {'reference' if bound_ms is None else bound_ms}" if judged else None,
        met=value <= bound if judged else None,
    )


def _requests_row(server: S3Server) -> Row:
    with fault_proxy(server.endpoint_url) as proxy:
        put = _shunt_put(f"s3://{server.bucket}/counted", server, endpoint_url=proxy.url)
        for number in range(PUTS):
            put(f"{number}")
        requests = proxy.counts.total() / PUTS
    return Row("S3: requests", requests, "requests/put", target="<= 1", met=requests <= 1)


def _shunt_put(uri: str, server: S3Server | None = None, *, endpoint_url: str | None = None) -> Put:
    store = open_store(
        uri,
        endpoint_url=endpoint_url or (server and server.endpoint_url),
        region=server and server.region,
        credentials=server and server.credentials,
    )

    def put(key: str) -> None:
        assert store.put_if_absent(key, SEGMENT)

    return put


def _local_store_put(folder: Path) -> Put:
    folder.mkdir(parents=True)
    store = LocalStore(folder)

    def put(key: str) -> None:
        obstore.put(store, key, SEGMENT, mode="create")

    return put


def _boto3_put(server: S3Server) -> Put:
    client: BaseClient = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name=server.region,
        aws_access_key_id=server.credentials.access_key_id,
        aws_secret_access_key=server.credentials.secret_access_key,
        config=Config(max_pool_connections=THREADS),
    )

    def put(key: str) -> None:
        client.put_object(Bucket=server.bucket, Key=f"boto3/{key}", Body=SEGMENT, IfNoneMatch="*")

    return put


if __name__ == "__main__":
    main()
