"""Why an instance ended, by what EC2 says of it: the reaction differs.

`StateReason` and `StateTransitionReason` carry the same codes (EC2 API reference, StateReason; user
guide, "Troubleshoot instance terminated immediately").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class LossKind(StrEnum):
    SPOT = "spot"
    """Taken back by the provider: its pool is blocked for a while."""
    CAPACITY = "capacity"
    """Refused for want of capacity after the launch had been accepted: as `SPOT`."""
    FAULT = "fault"
    """By something of ours that would end the next node in the same way."""
    OURS = "ours"
    """Ended by a call, ours or a person's."""
    ITSELF = "itself"
    """The machine powered itself off: its worker's exit code says why."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Loss:
    """How one instance ended."""

    kind: LossKind
    sentence: str
    """For people: what EC2 said and, for a fault, the remedy."""


_REMEDIES = {
    "Client.InternalError": (
        "EC2 ended it at its start, mostly because it may not use the KMS key of an encrypted "
        "volume or snapshot: allow the key to the role AWSServiceRoleForEC2Spot and to the "
        "controller, or use the key aws/ebs"
    ),
    "Client.VolumeLimitExceeded": (
        "the account's quota of EBS storage is used up: delete volumes, or ask for more in Service "
        "Quotas (Storage for General Purpose SSD (gp3) volumes)"
    ),
    "Client.InvalidSnapshot.NotFound": (
        "the image's snapshot is gone: run shunt aws setup with another --image"
    ),
    "Client.InvalidParameterValue": (
        "the launch template is not accepted at the start: run shunt aws doctor"
    ),
}
_KINDS = {
    "Server.SpotInstanceTermination": LossKind.SPOT,
    "Server.SpotInstanceShutdown": LossKind.SPOT,
    "Server.InsufficientInstanceCapacity": LossKind.CAPACITY,
    "Client.UserInitiatedShutdown": LossKind.OURS,
    "Client.UserInitiatedHibernate": LossKind.OURS,
    "Client.InstanceInitiatedShutdown": LossKind.ITSELF,
    "Client.InstanceTerminated": LossKind.OURS,
    **dict.fromkeys(_REMEDIES, LossKind.FAULT),
}
_SENTENCES = {
    LossKind.SPOT: "taken back by spot",
    LossKind.CAPACITY: "refused for want of capacity after its launch",
    LossKind.OURS: "ended by a call of the EC2 API",
    LossKind.ITSELF: "powered itself off",
    LossKind.UNKNOWN: "ended by EC2",
}


def loss_of(instance: Mapping[str, Any]) -> Loss:
    """Of a described instance that has ended or is ending."""
    reason: Mapping[str, str] = instance.get("StateReason") or {}
    transition: str = instance.get("StateTransitionReason") or ""
    code = reason.get("Code") or transition.split(":", 1)[0].split(" ", 1)[0]
    kind = _KINDS.get(code, LossKind.UNKNOWN)
    message = (reason.get("Message") or transition).removeprefix(f"{code}: ")
    if kind is LossKind.FAULT:
        return Loss(kind, f"{code}: {_REMEDIES[code]}")
    told = f" ({code}: {message})" if kind is LossKind.UNKNOWN and code else ""
    return Loss(kind, f"{_SENTENCES[kind]}{told}")
