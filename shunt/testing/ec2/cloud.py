"""An EC2 on this machine: the double in real time, over HTTP, with a worker process per instance.

```python
with cloud(worker_python=..., store='{"uri": "/tmp/runs"}', log_directory=...) as ec2:
    subprocess.run(["shunt", "run", "job.yaml"], env={**os.environ, **ec2.environment})
```
"""

import os
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from moto.server import ThreadedMotoServer

from shunt.aws.nodes.pool import Pool
from shunt.testing.ec2.double import NOTICE_S, Ec2Double
from shunt.testing.ec2.instance import Instance
from shunt.testing.ec2.machines import Machines
from shunt.testing.ec2.market import Market
from shunt.testing.ec2.notice_queue import INTERRUPTION, REBALANCE, STATE_CHANGE, NoticeQueue
from shunt.testing.ec2.server import Ec2Server, ec2_server

_TICK_S = 0.05
_END_STATE = {"state": "shutting-down"}


@dataclass(slots=True)
class Cloud:
    """The account as its owner and its provider see it. Every verb may be called at any time."""

    double: Ec2Double
    machines: Machines
    queue: NoticeQueue
    notice_s: float = NOTICE_S
    environment: dict[str, str] = field(default_factory=dict[str, str])
    """What a controller process needs to find this EC2 instead of AWS."""
    lock: "threading.RLock" = field(default_factory=threading.RLock)

    def living(self) -> list[Instance]:
        with self.lock:
            return self.double.living()

    def notify(self, instance_id: str, *, queued: int = 1) -> None:
        """A spot notice, in the metadata and so many times in the queue; then the instance goes."""
        with self.lock:
            self.double.notify(instance_id, notice_s=self.notice_s)
            for _ in range(queued):
                self.queue.put(INTERRUPTION, instance_id, self.double.now())

    def withdraw(self, instance_id: str) -> None:
        with self.lock:
            self.double.withdraw(instance_id)

    def recommend(self, instance_id: str) -> None:
        with self.lock:
            self.double.recommend(instance_id)
            self.queue.put(REBALANCE, instance_id, self.double.now())

    def take(self, *instance_ids: str) -> None:
        """The instances are gone now, without any notice."""
        with self.lock:
            for instance_id in instance_ids:
                self.double.end(instance_id, "Server.SpotInstanceTermination")

    def empty(self, pool: Pool) -> None:
        """The provider wants the whole pool back, with notices, and sells nothing there."""
        with self.lock:
            self.double.market.set_capacity(pool, self.double.now(), 0)

    def tick(self) -> None:
        with self.lock:
            before = {i.instance_id for i in self.double.living() if i.notice_at}
            self.double.advance()
            for instance in self.double.living():
                if instance.notice_at and instance.instance_id not in before:
                    instance.notice_at = self.double.now() + timedelta(seconds=self.notice_s)
                    self.queue.put(INTERRUPTION, instance.instance_id, self.double.now())
            self.machines.tick()


@contextmanager
def cloud(
    *,
    worker_python: Path,
    store: str,
    log_directory: Path,
    market: Market | None = None,
    notice_s: float = NOTICE_S,
    skew_s: float = 0.0,
    stop_timeout_s: float = 95.0,
    rest_of_aws: str = "",
    gpus_by_type: Mapping[str, int] | None = None,
) -> Generator[Cloud]:
    """Serve an account until left. `skew_s`: how far EC2's clock is ahead of this machine's.
    `rest_of_aws`: URL of a moto server for all other calls and services."""

    def now() -> datetime:
        """EC2 tells and bills whole seconds."""
        return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=skew_s)

    queue = NoticeQueue()
    double = Ec2Double(market or Market(), now)
    machines = Machines(
        worker_python=worker_python,
        store=store,
        environment=dict(os.environ),
        log_directory=log_directory,
        power_off=lambda instance: double.end(instance.instance_id),
        stop_timeout_s=stop_timeout_s,
        gpus_by_type=gpus_by_type or {},
    )

    def ended(instance: Instance) -> None:
        machines.end(instance)
        queue.put(STATE_CHANGE, instance.instance_id, now(), **_END_STATE)

    double.on_launch, double.on_end = machines.boot, ended
    account = Cloud(double, machines, queue, notice_s)
    with (
        ec2_server(Ec2Server(double, queue, account.lock, now, rest_of_aws)) as url,
        _ticking(account),
    ):
        account.environment = {
            "AWS_ENDPOINT_URL_EC2": url,
            "AWS_ENDPOINT_URL_SQS": url,
            "AWS_ENDPOINT_URL_PRICING": url,
            "AWS_ENDPOINT_URL_SERVICE_QUOTAS": url,
            "AWS_ACCESS_KEY_ID": "double",
            "AWS_SECRET_ACCESS_KEY": "double",
        }
        if rest_of_aws:
            account.environment["AWS_ENDPOINT_URL"] = rest_of_aws
        try:
            yield account
        finally:
            with account.lock:
                machines.close()


@contextmanager
def moto_server() -> Generator[str]:
    """The rest of AWS, IAM above all, until left; yields its URL."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def _ticking(account: Cloud) -> Generator[None]:
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(_TICK_S):
            account.tick()

    thread = threading.Thread(target=tick, name="ec2-double-clock")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
