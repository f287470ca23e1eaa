"""Reconcile of a thousand EC2 nodes: our time and the API calls, over the double (no network)."""

import os
import time
from datetime import UTC, datetime, timedelta

from benchmarks.report import Row, write
from shunt.aws.api import AwsApi, client_of
from shunt.aws.nodes.fleet import LAUNCHES_AT_ONCE, Ec2Fleet
from shunt.aws.nodes.launch_request import LaunchSettings
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.fleet.reconcile import Reconciler
from shunt.testing.ec2.double import Ec2Double
from shunt.testing.ec2.market import Market
from shunt.testing.memory_store import MemoryStore

NODES = 1000
REPEATS = 5
REPLY_S = 0.2
SLOW_NODES = 100
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def main() -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
    together_s, alone_s = (_slow_launch_s(at_once) for at_once in (LAUNCHES_AT_ONCE, 1))
    double = Ec2Double(Market(), lambda: NOW)
    reconciler = _reconciler(double, NODES)
    launch_s, launch_calls = _timed(reconciler, double)
    steady = [_timed(reconciler, double) for _ in range(REPEATS)]
    times = [taken for taken, _ in steady]
    for node in list(double.instances)[:100]:
        double.end(node, "Server.SpotInstanceTermination")
    repair_s, repair_calls = _timed(reconciler, double)
    median = sorted(times)[REPEATS // 2]
    spread = (min(times), max(times))
    write(
        "fleet_reconcile",
        [
            Row(
                "reconcile 1,000 nodes, nothing to do", median, "s", spread, None, "< 2", median < 2
            ),
            Row("API calls of it", steady[0][1], "calls", None, None, "<= 1", steady[0][1] <= 1),
            Row("launch 1,000 nodes", launch_s, "s"),
            Row(
                "API calls of it",
                launch_calls,
                "calls",
                None,
                None,
                "<= 1001",
                launch_calls <= 1001,
            ),
            Row(
                f"launch {SLOW_NODES} nodes, {REPLY_S} s a reply",
                together_s,
                "s",
                None,
                alone_s,
                "< 0.25 of one by one",
                together_s < 0.25 * alone_s,
            ),
            Row("replace 100 lost of 1,000", repair_s, "s", None, None, "< 2", repair_s < 2),
            Row(
                "API calls of it", repair_calls, "calls", None, None, "<= 101", repair_calls <= 101
            ),
        ],
    )


def _reconciler(
    double: Ec2Double, nodes: int, *, at_once: int = LAUNCHES_AT_ONCE, reply_s: float = 0.0
) -> Reconciler:
    client = client_of("ec2", "us-east-1")
    if reply_s:
        client.meta.events.register("before-call", lambda **_: time.sleep(reply_s))
    double.attach(client)
    pools = tuple(Pool("g6.12xlarge", f"us-east-1{letter}", "spot") for letter in "abc")
    specs = {f"w-{n}": SlotSpec(f"w-{n}", pools) for n in range(nodes)}
    fleet = Ec2Fleet(
        ec2=AwsApi(client),
        store=MemoryStore(),
        run_id="bench",
        specs=specs,
        settings=LaunchSettings("shunt-worker", {p.zone: f"subnet-{p.zone}" for p in pools}),
        owner="bench",
        expires_at=NOW + timedelta(hours=1),
        now=lambda: NOW,
        monotonic=time.monotonic,
        sleep=lambda _: None,
        at_once=at_once,
    )
    return Reconciler(
        fleet=fleet,
        slots=list(specs),
        max_crashes=3,
        monotonic=time.monotonic,
        now=lambda: NOW,
        tell=lambda _: None,
    )


def _slow_launch_s(at_once: int) -> float:
    """First launch where EC2 takes its time."""
    double = Ec2Double(Market(), lambda: NOW)
    reconciler = _reconciler(double, SLOW_NODES, at_once=at_once, reply_s=REPLY_S)
    return _timed(reconciler, double)[0]


def _timed(reconciler: Reconciler, double: Ec2Double) -> tuple[float, int]:
    calls, started_s = len(double.calls), time.perf_counter()
    reconciler.step(0)
    return time.perf_counter() - started_s, len(double.calls) - calls


if __name__ == "__main__":
    main()
