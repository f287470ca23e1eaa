"""An account in virtual time: the double, a client of it, a store, and the fleet over them."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shunt.aws.api import AwsApi, client_of
from shunt.aws.nodes.fleet import Ec2Fleet
from shunt.aws.nodes.launch_request import LaunchSettings
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.fleet.reconcile import Reconciler
from shunt.run.event import Event
from shunt.testing.ec2.double import Ec2Double
from shunt.testing.ec2.market import Market
from shunt.testing.memory_store import MemoryStore

START = datetime(2026, 3, 1, tzinfo=UTC)
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
RUN = "drill-0001"


class Clients:
    """boto3 clients are slow to make: one per service, given to one double at a time."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}
        self._doubles: dict[str, Ec2Double] = {}

    def of(self, service: str, double: Ec2Double) -> Any:
        if service not in self._clients:
            self._clients[service] = client_of(service, "us-east-1")
        client = self._clients[service]
        if service in self._doubles:
            self._doubles[service].detach(client)
        double.attach(client)
        self._doubles[service] = double
        return client


class Account:
    """Everything a controller needs, with a clock that the test turns."""

    def __init__(self, clients: "Clients") -> None:
        self.clients = clients
        self.now_s = 0.0
        self.skew_s = 0.0
        self.market = Market()
        self.store = MemoryStore()
        self.double = Ec2Double(self.market, self.true_now)
        self.double.templates["shunt-worker"] = {
            "IamInstanceProfile": {"Name": "shunt-worker"},
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        }

    def true_now(self) -> datetime:
        return START + timedelta(seconds=self.now_s)

    def now(self) -> datetime:
        """The controller's clock, which may be wrong."""
        return self.true_now() + timedelta(seconds=self.skew_s)

    def sleep(self, for_s: float) -> None:
        self.now_s += for_s
        self.double.advance()

    def api(self, service: str = "ec2") -> AwsApi:
        return AwsApi(self.clients.of(service, self.double), self.sleep)

    def fleet(self, specs: Mapping[str, SlotSpec], *, at_once: int = 1) -> Ec2Fleet:
        """Launches one after the other, unless asked: then calls have no certain order."""
        return Ec2Fleet(
            ec2=self.api(),
            store=self.store,
            run_id=RUN,
            specs=specs,
            settings=LaunchSettings("shunt-worker", {zone: f"subnet-{zone}" for zone in ZONES}),
            owner="tests",
            expires_at=START + timedelta(hours=12),
            now=self.now,
            monotonic=lambda: self.now_s,
            sleep=self.sleep,
            at_once=at_once,
        )

    def reconciler(self, fleet: Ec2Fleet, slots: Iterable[str], events: list[Event]) -> Reconciler:
        return Reconciler(
            fleet=fleet,
            slots=list(slots),
            max_crashes=3,
            monotonic=lambda: self.now_s,
            now=self.now,
            tell=events.append,
        )


def any_zone(slot: str, instance_type: str = "g6.12xlarge") -> SlotSpec:
    return SlotSpec(slot, tuple(Pool(instance_type, zone, "spot") for zone in ZONES))


@pytest.fixture(scope="session")
def clients() -> Iterator[Clients]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield Clients()


@pytest.fixture
def account(clients: Clients) -> Account:
    return Account(clients)


@pytest.fixture
def specs() -> dict[str, SlotSpec]:
    return {f"worker-{n}": any_zone(f"worker-{n}") for n in range(4)}
