"""The EC2 double: instances, fleets and prices are ours; everything else goes to moto.

It stands between boto3 and the network: a client that was given to `attach` validates its
parameters as ever, then asks us, and what we do not answer goes on to moto where `mock_aws` is on.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from shunt.aws.nodes.pool import Pool
from shunt.testing.ec2.faults import ApiFault, Fault
from shunt.testing.ec2.instance import Instance, described, matches
from shunt.testing.ec2.market import Market
from shunt.testing.ec2.placement_groups import PlacementGroups

Params = dict[str, Any]

NOTICE_S = 120.0
DESCRIBED_AFTER_END_S = 3600.0
"""EC2 shows a terminated instance for about an hour."""
SPOT_QUOTA = "All G and VT Spot Instance Requests"
ON_DEMAND_QUOTA = "Running On-Demand G and VT instances"
_EC2 = "ec2"


@dataclass(slots=True)
class Ec2Double:
    """One account in one region. Time is the caller's."""

    market: Market
    now: Callable[[], datetime]
    visible_after_s: float = 0.0
    """A new instance is missing from listings for so long."""
    faults: list[Fault] = field(default_factory=list[Fault])
    not_offered: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Types that a zone does not have."""
    profile_known_at: datetime | None = None
    """Launches are refused until then, as IAM has not told EC2 of the profile."""
    templates: dict[str, Params] = field(default_factory=dict[str, Params])
    """Launch template data by name, carried through to the instances."""
    on_launch: Callable[[Instance], None] = lambda _: None
    on_end: Callable[[Instance], None] = lambda _: None
    """What stands for the instance is started and really killed here."""
    instances: dict[str, Instance] = field(default_factory=dict[str, Instance])
    placement_groups: PlacementGroups = field(init=False)
    calls: list[str] = field(default_factory=list[str])
    _one_at_a_time: "threading.RLock" = field(default_factory=threading.RLock)
    _replies: dict[tuple[str, str], tuple[Params, Params]] = field(
        default_factory=dict[tuple[str, str], tuple[Params, Params]]
    )

    def __post_init__(self) -> None:
        self.placement_groups = PlacementGroups(self.living)

    def attach(self, client: Any) -> None:
        """Answer this boto3 client's calls."""
        events = client.meta.events
        events.register("before-parameter-build", _remember_params)
        events.register("before-call", self._before_call)

    def detach(self, client: Any) -> None:
        """Let the client go to the network again."""
        client.meta.events.unregister("before-parameter-build", _remember_params)
        client.meta.events.unregister("before-call", self._before_call)

    def advance(self) -> None:
        """Let time act: notices that ran out end their instance, and pools that shrank take
        their youngest nodes back. Call it whenever the clock was moved."""
        for instance in self.living():
            if instance.notice_at is not None and self.now() >= instance.notice_at:
                self.end(instance.instance_id, "Server.SpotInstanceTermination")
        for pool in self.market.capacity:
            living = [i for i in self.living() if i.pool == pool and i.notice_at is None]
            surplus = len(living) - self.market.capacity_at(pool, self.now())
            for instance in sorted(living, key=lambda i: i.launched_at)[::-1][: max(0, surplus)]:
                self.notify(instance.instance_id)

    def notify(self, instance_id: str, *, notice_s: float = NOTICE_S) -> None:
        """A spot notice: the instance ends so many seconds from now."""
        instance = self.instances[instance_id]
        if instance.notice_at is None:
            instance.notice_at = self.now() + timedelta(seconds=notice_s)

    def withdraw(self, instance_id: str) -> None:
        """Take a notice back."""
        self.instances[instance_id].notice_at = None

    def recommend(self, instance_id: str) -> None:
        """A rebalance recommendation."""
        self.instances[instance_id].rebalance_at = self.now()

    def end(self, instance_id: str, code: str = "Client.InstanceInitiatedShutdown") -> None:
        """The instance is gone now."""
        instance = self.instances[instance_id]
        if instance.ended_at is None:
            instance.ended_at, instance.end_code = self.now(), code
            self.on_end(instance)

    def living(self) -> list[Instance]:
        return [i for i in self.instances.values() if i.ended_at is None]

    def bill_usd(self) -> Decimal:
        """What the account owes for all instances so far."""
        return sum(
            (
                self.market.cost(i.pool, i.launched_at, self._billed_until(i))
                for i in self.instances.values()
            ),
            Decimal(0),
        )

    def _billed_until(self, instance: Instance) -> datetime:
        least = instance.launched_at + timedelta(minutes=1)
        return max(instance.ended_at or self.now(), least)

    def answer(self, operation: str, params: Params) -> Params | None:
        """The reply to a call; None where the double has no such operation. Raises `ApiFault`.

        Any thread may call."""
        with self._one_at_a_time:
            return self._answer(operation, params)

    def _answer(self, operation: str, params: Params) -> Params | None:
        answer = getattr(self, f"_{_snake(operation)}", None)
        number = len(self.calls)
        self.calls.append(operation)
        for fault in self.faults:
            fault(number, operation, "before")
        reply = self._answered(operation, answer, params) if answer else None
        for fault in self.faults:
            fault(number, operation, "after")
        return reply

    def _before_call(self, model: Any, context: Params, **_: object) -> Any:
        try:
            reply = self.answer(model.name, context["shunt_params"])
        except ApiFault as fault:
            error = {"Error": {"Code": fault.code, "Message": fault.message}}
            return _Http(400), {**error, "ResponseMetadata": {"HTTPStatusCode": 400}}
        if reply is None:
            return None
        return _Http(200), {**reply, "ResponseMetadata": {"HTTPStatusCode": 200}}

    def _answered(
        self, operation: str, answer: Callable[[Params], Params], params: Params
    ) -> Params:
        """A repeated client token gets the first reply; with other parameters it is refused.
        A dry run does nothing, and says so by its error, as on EC2."""
        if params.get("DryRun"):
            raise ApiFault("DryRunOperation", "Request would have succeeded, but DryRun is set.")
        token = params.get("ClientToken", "")
        if not token:
            return answer(params)
        known = self._replies.get((operation, token))
        if known is None:
            known = self._replies[operation, token] = (params, answer(params))
        if known[0] != params:
            raise ApiFault("IdempotentParameterMismatch", f"token {token} had other parameters")
        return known[1]

    def _run_instances(self, params: Params) -> Params:
        options = params.get("InstanceMarketOptions")
        placement = params.get("Placement", {})
        pool = Pool(
            params["InstanceType"],
            placement["AvailabilityZone"],
            "spot" if options else "on-demand",
        )
        if name := placement.get("GroupName", ""):
            self.placement_groups.admit(name, pool.zone)
        self._room(pool)
        return {"Instances": [described(self._start(pool, params))], "ReservationId": "r-0"}

    def _create_fleet(self, params: Params) -> Params:
        """Price-capacity-optimised as far as a double can be: the cheapest pool with room."""
        target = params["TargetCapacitySpecification"]
        market = target["DefaultTargetCapacityType"]
        config = params["LaunchTemplateConfigs"][0]
        template = config["LaunchTemplateSpecification"]
        choices = [
            (Pool(o["InstanceType"], o["AvailabilityZone"], market), o) for o in config["Overrides"]
        ]
        choices.sort(key=lambda choice: self.market.price_at(choice[0], self.now()))
        groups: list[Params] = []
        errors: list[Params] = []
        missing: int = target["TotalTargetCapacity"]
        for pool, override in choices:
            context = {"LaunchTemplateSpecification": template, "Overrides": override}
            while missing > 0:
                try:
                    self._room(pool)
                except ApiFault as fault:
                    told = {"ErrorCode": fault.code, "ErrorMessage": fault.message}
                    errors.append(
                        {"LaunchTemplateAndOverrides": context, "Lifecycle": market, **told}
                    )
                    break
                instance = self._start(pool, {**params, "LaunchTemplate": template})
                missing -= 1
                groups.append(
                    {
                        "LaunchTemplateAndOverrides": context,
                        "Lifecycle": market,
                        "InstanceIds": [instance.instance_id],
                        "InstanceType": pool.instance_type,
                    }
                )
        return {"FleetId": f"fleet-{len(self.calls)}", "Errors": errors, "Instances": groups}

    def _room(self, pool: Pool) -> None:
        """Raises the error that EC2 gives when the pool or the quota is full, the zone does not
        have the type, or the profile is not known yet."""
        if (pool.instance_type, pool.zone) in self.not_offered:
            where = f"({pool.instance_type}) is not supported in {pool.zone}"
            raise ApiFault("InvalidFleetConfiguration", f"Your requested instance type {where}.")
        if self.profile_known_at is not None and self.now() < self.profile_known_at:
            raise ApiFault("InvalidParameterValue", "Invalid IAM Instance Profile name")
        living = [i for i in self.living() if i.pool.market == pool.market]
        quota = self.market.quotas.get(
            SPOT_QUOTA if pool.market == "spot" else ON_DEMAND_QUOTA, float("inf")
        )
        used = sum(self.market.vcpus.get(i.pool.instance_type, 8) for i in living)
        if used + self.market.vcpus.get(pool.instance_type, 8) > quota:
            code = "MaxSpotInstanceCountExceeded" if pool.market == "spot" else "VcpuLimitExceeded"
            raise ApiFault(code, "the vCPU quota is reached")
        if sum(i.pool == pool for i in living) >= self.market.capacity_at(pool, self.now()):
            raise ApiFault(
                "InsufficientInstanceCapacity",
                f"no {pool.market} capacity for {pool.instance_type} in {pool.zone}",
            )

    def _start(self, pool: Pool, params: Params) -> Instance:
        name = params.get("LaunchTemplate", {}).get("LaunchTemplateName", "")
        data = {**self.templates.get(name, {}), **params}
        tags = {
            pair["Key"]: pair["Value"]
            for spec in params.get("TagSpecifications", ())
            if spec["ResourceType"] == "instance"
            for pair in spec["Tags"]
        }
        instance = Instance(
            instance_id=f"i-{len(self.instances):017x}",
            pool=pool,
            launched_at=self.now(),
            tags=tags,
            metadata_options=data.get("MetadataOptions", {}),
            instance_profile=data.get("IamInstanceProfile", {}).get("Name", ""),
            shutdown_behaviour=data.get("InstanceInitiatedShutdownBehavior", "stop"),
            token=params.get("ClientToken", ""),
            placement_group=params.get("Placement", {}).get("GroupName", ""),
        )
        self.instances[instance.instance_id] = instance
        self.on_launch(instance)
        return instance

    def _describe_instances(self, params: Params) -> Params:
        visible = [i for i in self.instances.values() if self._visible(i)]
        wanted = [i for i in visible if matches(i, params)]
        start = int(params.get("NextToken") or 0)
        page = wanted[start : start + params.get("MaxResults", 1000)]
        more = start + len(page) < len(wanted)
        token = {"NextToken": str(start + len(page))} if more else {}
        return {"Reservations": [{"Instances": [described(i) for i in page]}], **token}

    def _visible(self, instance: Instance) -> bool:
        now = self.now()
        if instance.ended_at is not None:
            return (now - instance.ended_at).total_seconds() < DESCRIBED_AFTER_END_S
        return (now - instance.launched_at).total_seconds() >= self.visible_after_s

    def _terminate_instances(self, params: Params) -> Params:
        for instance_id in params["InstanceIds"]:
            if instance_id not in self.instances:
                raise ApiFault("InvalidInstanceID.NotFound", instance_id)
        for instance_id in params["InstanceIds"]:
            self.end(instance_id, "Client.UserInitiatedShutdown")
        return {"TerminatingInstances": []}

    def _create_tags(self, params: Params) -> Params:
        for instance_id in params["Resources"]:
            if instance_id not in self.instances:
                raise ApiFault("InvalidInstanceID.NotFound", instance_id)
            self.instances[instance_id].tags |= {t["Key"]: t["Value"] for t in params["Tags"]}
        return {}

    def _describe_spot_price_history(self, params: Params) -> Params:
        start = params.get("StartTime") or self.now()
        end = params.get("EndTime") or self.now()
        rows: list[Params] = []
        for pool, steps in self.market.prices.items():
            if pool.market == "spot" and pool.instance_type in params["InstanceTypes"]:
                rows += [
                    {
                        "InstanceType": pool.instance_type,
                        "AvailabilityZone": pool.zone,
                        "SpotPrice": str(usd),
                        "Timestamp": at,
                    }
                    for at, usd in steps.between(start, end)
                ]
        return {"SpotPriceHistory": sorted(rows, key=lambda r: r["Timestamp"], reverse=True)}

    def _get_spot_placement_scores(self, params: Params) -> Params:
        zones = sorted({pool.zone for pool in (*self.market.prices, *self.market.capacity)})
        scores: list[Params] = []
        for zone in zones:
            pools = [Pool(t, zone, "spot") for t in params["InstanceTypes"]]
            room = sum(self.market.capacity_at(pool, self.now()) for pool in pools)
            target = max(1, params["TargetCapacity"])
            score = max(1, min(10, 10 * room // target)) if len(pools) >= 3 else 1
            scores.append({"Region": "us-east-1", "AvailabilityZoneId": zone, "Score": score})
        return {"SpotPlacementScores": scores}

    def _list_service_quotas(self, params: Params) -> Params:
        if params["ServiceCode"] != _EC2:
            return {"Quotas": []}
        return {
            "Quotas": [
                {"QuotaName": name, "QuotaCode": "L-0", "Value": value}
                for name, value in self.market.quotas.items()
            ]
        }

    def _create_placement_group(self, params: Params) -> Params:
        return self.placement_groups.create(params)

    def _describe_placement_groups(self, params: Params) -> Params:
        return self.placement_groups.describe(params)

    def _delete_placement_group(self, params: Params) -> Params:
        return self.placement_groups.delete(params)


@dataclass(frozen=True, slots=True)
class _Http:
    status_code: int


def _remember_params(params: Params, context: Params, **_: object) -> None:
    context["shunt_params"] = dict(params)


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
