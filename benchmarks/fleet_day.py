"""A day of a thousand EC2 nodes in virtual time: the real reconciler and fleet over the double.

Capacity and price of three pools change every ten minutes; what shrinks takes nodes back with a
notice of two minutes. The controller looks once a minute. In the end the fleet is torn down:
nothing may be left, and the bill that we compute must be the double's. The first look launches all;
CPU time counts boto3 and the double too, but not what else this machine does.
"""

import os
import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from benchmarks.report import Row, write
from shunt.aws.api import AwsApi, client_of
from shunt.aws.money.bill import price_history, spend_usd, usages
from shunt.aws.nodes.fleet import Ec2Fleet
from shunt.aws.nodes.launch_request import LaunchSettings
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.fleet.reconcile import Reconciler
from shunt.testing.ec2.double import Ec2Double
from shunt.testing.ec2.market import Market
from shunt.testing.memory_store import MemoryStore

NODES, DAY_S, LOOK_S, CHANGE_S = 1000, 86400, 60, 600
RUN = "bench"
ACCOUNT_EVERY = 30
"""Looks between two accounts of what was spent: EC2 forgets a node an hour after its end."""
START = datetime(2026, 3, 1, tzinfo=UTC)
POOLS = tuple(Pool("g6.12xlarge", f"us-east-1{letter}", "spot") for letter in "abc")


class Day:
    """The double, the fleet over it, and the clock that both go by."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.market = Market()
        self.double = Ec2Double(self.market, self.now)
        client = client_of("ec2", "us-east-1")
        self.double.attach(client)
        rng = random.Random(0)
        for at_s in range(0, DAY_S, CHANGE_S):
            for pool in POOLS:
                at = START + timedelta(seconds=at_s)
                self.market.set_capacity(pool, at, rng.randint(250, 450))
                self.market.set_price(pool, at, f"{rng.uniform(1.5, 2.5):.4f}")
        specs = {f"worker-{n}": SlotSpec(f"worker-{n}", POOLS) for n in range(NODES)}
        self.ec2, self.store = AwsApi(client), MemoryStore()
        self.fleet = Ec2Fleet(
            ec2=self.ec2,
            store=self.store,
            run_id=RUN,
            specs=specs,
            settings=LaunchSettings("shunt-worker", {p.zone: f"subnet-{p.zone}" for p in POOLS}),
            owner="bench",
            expires_at=START + timedelta(days=2),
            now=self.now,
            monotonic=lambda: self.now_s,
            sleep=self.sleep,
        )
        self.reconciler = Reconciler(
            fleet=self.fleet,
            slots=list(specs),
            max_crashes=3,
            monotonic=lambda: self.now_s,
            now=self.now,
            tell=lambda _: None,
        )

    def now(self) -> datetime:
        return START + timedelta(seconds=self.now_s)

    def sleep(self, for_s: float) -> None:
        self.now_s += for_s
        self.double.advance()


def main() -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
    day = Day()
    started_s, node_looks = time.perf_counter(), 0
    looks_s: list[float] = []
    looks_cpu_s: list[float] = []
    for look in range(DAY_S // LOOK_S):
        before_s, before_cpu_s = time.perf_counter(), time.process_time()
        day.reconciler.step(look)
        looks_s.append(time.perf_counter() - before_s)
        looks_cpu_s.append(time.process_time() - before_cpu_s)
        node_looks += len(day.double.living())
        day.sleep(LOOK_S)
        if look % ACCOUNT_EVERY == 0:
            usages(day.ec2, day.store, RUN, now=day.now())
    day.fleet.terminate()
    used = usages(day.ec2, day.store, RUN, now=day.now())
    spent = spend_usd(used, price_history(day.ec2, used, now=day.now()), {})
    bill = day.double.bill_usd().quantize(Decimal("0.01"))
    taken_s = time.perf_counter() - started_s
    looks_s.sort()
    longest = max(looks_cpu_s)
    lost = day.reconciler.num_lost
    launches = len(day.double.instances)
    calls = day.double.calls
    asked = sum(name in ("CreateFleet", "RunInstances") for name in calls)
    left = len(day.double.living())
    write(
        "fleet_day",
        [
            Row("simulated in", taken_s, "s", None, None, "< 600", taken_s < 600),
            Row("a look, median", looks_s[len(looks_s) // 2], "s", (looks_s[0], looks_s[-1])),
            Row("CPU time of the longest", longest, "s", None, None, "< 2", longest < 2),
            Row("living nodes, mean", node_looks / (DAY_S // LOOK_S), "nodes", None, NODES),
            Row("nodes lost", lost, "nodes"),
            Row("nodes launched", launches, "nodes"),
            Row("launch calls", asked, "calls", None, launches),
            Row("all other calls", len(calls) - asked, "calls"),
            Row("spent", float(spent), "USD", None, float(bill), "the bill", spent == bill),
            Row("left after teardown", left, "nodes", None, None, "0", left == 0),
        ],
    )


if __name__ == "__main__":
    main()
