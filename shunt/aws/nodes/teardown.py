"""The way out: every node ended and proven gone, then the bill, then the role of the run."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from shunt.aws.errors import AwsError
from shunt.aws.money.meter import Meter
from shunt.aws.nodes.fleet import Ec2Fleet
from shunt.aws.nodes.inventory import NotGone
from shunt.errors import ShuntError
from shunt.run.driver import Hold
from shunt.run.event import EventKind

log = logging.getLogger(__name__)


class RunRole(Protocol):
    """What gives the run's nodes their rights."""

    def make(self) -> str:
        """The launch template that carries them. May be called again."""
        ...

    def remove(self) -> None: ...


class NodesRemain(ShuntError):
    """A run's nodes could not be ended; they end themselves later."""

    def __init__(self, run_id: str, expires_at: datetime, reason: str) -> None:
        super().__init__(
            f"{reason}\nnodes of run {run_id} may be left: each ends itself when its work is done, "
            f"at the latest at {expires_at:%Y-%m-%d %H:%M} UTC. See `shunt nodes`; a new "
            "`shunt resume` takes them over, `shunt reap` ends them"
        )
        self.run_id = run_id


def end_run(
    fleet: Ec2Fleet,
    meter: Meter,
    role: RunRole | None,
    hold: Hold,
    *,
    error: BaseException | None,
    tell: Callable[[EventKind, str], None],
) -> None:
    """End what this driver holds. `error` is what the fleet is left for; it is never hidden.

    Who lost the run to another driver ends nothing: nodes and role are the other's. Who cannot ask
    ends the nodes that it knows of, and leaves the role to whoever can. Only nodes that may be left
    raise: `NodesRemain`. Everything else is told, and the next step is taken all the same.
    """
    if hold is Hold.LOST:
        log.warning("run %s has another driver: its nodes are left to it", fleet.run_id)
        return
    if hold is Hold.UNKNOWN:
        _end_known(fleet, error)
        return
    if fleet.ever_launched:
        _end_nodes(fleet, error)
    try:
        if fleet.ever_launched:
            _clear(fleet)
            _tell_bill(meter, tell)
    finally:  # whatever becomes of the bill
        _remove(role)


def _remove(role: RunRole | None) -> None:
    if role is None:
        return
    try:
        role.remove()
    except ShuntError as left:
        log.warning("role of the run not removed; shunt aws teardown does it: %s", left)


def _end_nodes(fleet: Ec2Fleet, error: BaseException | None) -> None:
    try:
        fleet.end_nodes()
    except (AwsError, NotGone) as second:
        raise _remain(fleet, error, second) from second


def _end_known(fleet: Ec2Fleet, error: BaseException | None) -> None:
    try:
        fleet.end_known()
    except AwsError as second:
        raise _remain(fleet, error, second) from second
    log.warning(
        "run %s: the store does not say whether it has another driver; the nodes that this one "
        "knows of are ended, the role is left. shunt reap and shunt aws teardown end the rest",
        fleet.run_id,
    )


def _remain(fleet: Ec2Fleet, error: BaseException | None, second: ShuntError) -> NodesRemain:
    first = f"{error}; then " if isinstance(error, ShuntError) else ""
    return NodesRemain(fleet.run_id, fleet.expires_at, f"{first}{second}")


def _clear(fleet: Ec2Fleet) -> None:
    try:
        fleet.clear()
    except ShuntError as left:
        log.warning("placement groups or launches of the run not cleared: %s", left)


def _tell_bill(meter: Meter, tell: Callable[[EventKind, str], None]) -> None:
    try:
        spend = meter.read()
    except ShuntError as unknown:
        tell(EventKind.FLEET_ENDED, f"no node is left; what they cost is not known: {unknown}")
        return
    one = spend.num_launched == 1
    ended = "its one node has ended" if one else f"all {spend.num_launched} nodes have ended"
    cost = f"{'it' if one else 'they'} cost {spend.usd} USD"
    tell(EventKind.FLEET_ENDED, f"{ended}; {cost}")
