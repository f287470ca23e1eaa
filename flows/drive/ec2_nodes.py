"""A job's EC2 fleet, put together: clients, pools, prices, the meter and the watch."""

import getpass
import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from flows.drive.ec2_plan import PlannedNodes, planned_nodes
from flows.surroundings import Surroundings
from placement.catalogue.hardware import load_catalogue
from placement.catalogue.snapshot import ON_DEMAND_REGION
from shunt.aws.account.check import caller
from shunt.aws.account.run_identity import make_identity, remove_identity
from shunt.aws.account.setup import Services
from shunt.aws.api import ASK_RETRY, AwsApi, client_of
from shunt.aws.clock import AwsClock
from shunt.aws.errors import AwsError
from shunt.aws.money.meter import Meter
from shunt.aws.money.price_list import PRICE_LIST_REGION, on_demand_prices
from shunt.aws.nodes.event_queue import EventQueue
from shunt.aws.nodes.fleet import Ec2Fleet
from shunt.aws.nodes.held_fleet import HeldFleet
from shunt.aws.nodes.inventory import LIVING_STATES, describe_run
from shunt.aws.nodes.launch_request import LaunchSettings
from shunt.aws.nodes.node_watch import NodeWatch
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.checkpoint.gone import teller_of_gone
from shunt.errors import JobError
from shunt.fleet.reconcile import Reconciler
from shunt.job.job import Ec2, Job
from shunt.run.driver import DriverLease, take_drive
from shunt.run.event import Event
from shunt.run.kept_job import changed_keys, current_job, keep_job
from shunt.run.manifest import Manifest, read_manifest
from shunt.store.protocol import Store

log = logging.getLogger(__name__)

_SETTLE_LOOKS = 2
"""Teardown looks so many intervals apart: a launch may be late to appear."""


@contextmanager
def hold_ec2(
    manifest: Manifest,
    store: Store,
    around: Surroundings,
    tell: Callable[[Event], None],
    *,
    recheck: bool,
) -> Generator[HeldFleet]:
    """The run's nodes on EC2, those of an earlier controller included. Buys nothing yet.

    One driver has them at a time: another one's nodes are ended by nobody but itself. Raises
    `DrivenElsewhere` while one lives, `JobError` and `AwsError`.
    """
    with (
        take_drive(
            store, manifest.run_id, monotonic=around.monotonic, sleep=around.stop.wait
        ) as lease,
        _held(manifest, store, around, tell, recheck=recheck, lease=lease) as held,
    ):
        yield held


def _held(
    manifest: Manifest,
    store: Store,
    around: Surroundings,
    tell: Callable[[Event], None],
    *,
    recheck: bool,
    lease: DriverLease,
) -> HeldFleet:
    job, run_id = manifest.job, manifest.run_id
    settings = ec2_of(job)
    ec2, clock = AwsApi(client_of("ec2", settings.region)), AwsClock(around.now)
    clock.listen(ec2)
    prices = counted_prices(settings, partial(_listed_prices, settings.region))
    _tell_nodes(manifest, store, ec2)
    planner, specs = _wanted(manifest, store)
    fleet = Ec2Fleet(
        ec2=ec2,
        store=store,
        run_id=run_id,
        specs=specs,
        settings=LaunchSettings(
            settings.launch_template, settings.subnets, settings.placement_groups
        ),
        owner=getpass.getuser(),
        expires_at=clock.now(),  # moved on before every launch
        now=clock.now,
        monotonic=around.monotonic,
        sleep=time.sleep,
        recheck=recheck,
        settle_s=settings.observe_interval_s * _SETTLE_LOOKS,
    )
    reconciler = Reconciler(
        fleet=fleet,
        slots=list(specs),
        max_crashes=job.fleet.max_crashes,
        monotonic=around.monotonic,
        now=clock.now,
        tell=tell,
        on_gone=teller_of_gone(store, run_id),
    )
    return HeldFleet(
        fleet=fleet,
        reconciler=reconciler,
        watch=NodeWatch(
            silent_s=settings.silent_s,
            boot_limit_s=settings.boot_limit_s,
            monotonic=around.monotonic,
            now=clock.now,
            queue=_queue(settings, fleet, clock),
        ),
        meter=Meter(
            ec2=ec2,
            store=store,
            run_id=run_id,
            on_demand_usd_per_hour=prices,
            max_cost_usd=job.limits.max_cost_usd,
            now=clock.now,
            launched=fleet.launched,
        ),
        settings=settings,
        limits=job.limits,
        specs=specs,
        workers_a_node=workers_a_node(job, settings),
        monotonic=around.monotonic,
        now=clock.now,
        tell=tell,
        planner=planner,
        role=_RoleOfRun(ec2, settings, run_id) if settings.role_per_run else None,
        lease=lease,
    )


def _tell_nodes(manifest: Manifest, store: Store, ec2: AwsApi) -> None:
    """Let nodes go by what this invocation says. Raises `JobError` while nodes live that go by
    something else: all nodes of a run are told the same."""
    known = current_job(store, read_manifest(store, manifest.run_id))
    changed = changed_keys(known, manifest.job)
    if not changed:
        return
    living = [i for i in describe_run(ec2, manifest.run_id) if i["State"]["Name"] in LIVING_STATES]
    if living:
        raise JobError(
            f"{len(living)} nodes of an earlier invocation live and go by other settings "
            f"({', '.join(changed)}): go on without this change, or end them first (shunt cancel)"
        )
    keep_job(store, manifest, manifest.job)


@dataclass(frozen=True, slots=True)
class _RoleOfRun:
    ec2: AwsApi
    settings: Ec2
    run_id: str

    def make(self) -> str:
        template = self.settings.launch_template
        return make_identity(self._services(), self.run_id, template=template)

    def remove(self) -> None:
        remove_identity(self._services(), self.run_id)

    def _services(self) -> Services:
        region = self.settings.region
        return Services(
            ec2=self.ec2,
            iam=AwsApi(client_of("iam", region)),
            s3=AwsApi(client_of("s3", region)),
            account=caller(AwsApi(client_of("sts", region))),
            region=region,
        )


def ec2_of(job: Job) -> Ec2:
    assert job.fleet.ec2 is not None  # the model checks it for this kind
    return job.fleet.ec2


def ec2_specs(manifest: Manifest, store: Store) -> dict[str, SlotSpec]:
    """What fills each place: any of the named types, or what the plan says. Raises `JobError`."""
    return _wanted(manifest, store)[1]


def _wanted(manifest: Manifest, store: Store) -> tuple[PlannedNodes | None, dict[str, SlotSpec]]:
    settings = ec2_of(manifest.job)
    if settings.instance_types:
        return None, _pool_specs(manifest.job, settings)
    planner = planned_nodes(manifest.job, settings, store, manifest.run_id)
    return planner, planner.specs()


def _pool_specs(job: Job, settings: Ec2) -> dict[str, SlotSpec]:
    """Every place may be filled from every type in every zone. Raises `JobError`."""
    require_whole_nodes(job, settings)
    pools = tuple(
        Pool(name, zone, "spot") for name in settings.instance_types for zone in settings.subnets
    )
    slots = [f"worker-{number}" for number in range(job.fleet.workers)]
    return {slot: SlotSpec(slot, pools) for slot in slots}


def require_whole_nodes(job: Job, settings: Ec2) -> None:
    """Raises `JobError` for a type whose GPUs the workers of a node would not all use, or of which
    one would miss some: the others would idle at full price."""
    used = job.model.engine.num_gpus
    for name, count in _gpu_counts(settings).items():
        if count % used:
            idle = f"leaves {count % used} of them idle" if count > used else "has too few"
            raise JobError(
                f"fleet.ec2.instance_types: {name} has {count} GPUs, and a worker uses {used}, "
                f"which {idle}. Set model.engine.tensor_parallel_size to a divisor of {count}, "
                f"name types with a multiple of {used}, or leave instance_types empty and let the "
                "job's plan split the model over them"
            )


def workers_a_node(job: Job, settings: Ec2) -> int:
    """Of the smallest type that a node may have: what the fleet can be counted on for."""
    counts = _gpu_counts(settings).values()
    return max(1, min(counts, default=1) // job.model.engine.num_gpus)


def _gpu_counts(settings: Ec2) -> dict[str, int]:
    """By type, of those that the catalogue knows."""
    known = load_catalogue().instances
    return {name: known[name].gpu_count for name in settings.instance_types if name in known}


def counted_prices(
    settings: Ec2, listed: Callable[[], Mapping[str, float]]
) -> Mapping[str, Decimal]:
    """On-demand prices of the job's region, to count nodes by: the job's own over AWS's list
    (`listed`; the catalogue's in the region that it is of).

    Raises `JobError` where on-demand is allowed and a type has no price.
    """
    own = settings.on_demand_usd_per_hour
    known = _catalogue_prices() if settings.region == ON_DEMAND_REGION else _asked(listed)
    prices = {name: Decimal(str(usd)) for name, usd in {**known, **own}.items()}
    missing = [name for name in settings.instance_types if name not in prices]
    if missing and settings.on_demand != "never":
        raise JobError(
            f"fleet.ec2.on_demand is {settings.on_demand}, but no on-demand price is known for "
            f"{', '.join(missing)}; give fleet.ec2.on_demand_usd_per_hour"
        )
    return prices


def _catalogue_prices() -> Mapping[str, float]:
    return {
        name: instance.ondemand_usd_per_hour
        for name, instance in load_catalogue().instances.items()
        if instance.ondemand_usd_per_hour is not None
    }


def _listed_prices(region: str) -> Mapping[str, float]:
    pricing = AwsApi(client_of("pricing", PRICE_LIST_REGION), retry=ASK_RETRY)
    return on_demand_prices(pricing, region)


def _asked(listed: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    try:
        return listed()
    except AwsError as error:
        log.warning("on-demand prices of the region are not known: %s", error)
        return {}


def _queue(settings: Ec2, fleet: Ec2Fleet, clock: AwsClock) -> EventQueue | None:
    if settings.notice_queue_url is None:
        return None
    return EventQueue(
        AwsApi(client_of("sqs", settings.region), retry=ASK_RETRY),
        settings.notice_queue_url,
        ours=lambda node_id: any(node_id == found.instance_id for found in fleet.launched()),
        now=clock.now,
    )
