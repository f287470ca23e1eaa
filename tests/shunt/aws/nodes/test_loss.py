from typing import Any

import pytest

from shunt.aws.nodes.loss import LossKind, loss_of


def instance(code: str = "", message: str = "", transition: str = "") -> dict[str, Any]:
    reason = {"StateReason": {"Code": code, "Message": message}} if code else {}
    return {**reason, "StateTransitionReason": transition}


@pytest.mark.parametrize(
    ("described", "kind", "told"),
    [
        (instance("Server.SpotInstanceTermination"), LossKind.SPOT, "taken back by spot"),
        (
            instance("Server.InsufficientInstanceCapacity"),
            LossKind.CAPACITY,
            "want of capacity after its launch",
        ),
        (instance("Client.InternalError"), LossKind.FAULT, "KMS key"),
        (instance("Client.VolumeLimitExceeded"), LossKind.FAULT, "Service Quotas"),
        (instance("Client.UserInitiatedShutdown"), LossKind.OURS, "ended by a call"),
        (instance("Client.InstanceInitiatedShutdown"), LossKind.ITSELF, "powered itself off"),
        (
            instance("Server.ScheduledStop", "Server.ScheduledStop: Stopped due to maintenance"),
            LossKind.UNKNOWN,
            "Stopped due to maintenance",
        ),
        (
            instance(transition="Server.SpotInstanceTermination: price-capacity"),
            LossKind.SPOT,
            "spot",
        ),
        (
            instance(transition="Client.InternalError: Client error on launch"),
            LossKind.FAULT,
            "KMS key",
        ),
        ({}, LossKind.UNKNOWN, "ended by EC2"),
    ],
)
def test_an_end_is_told_by_either_reason(
    described: dict[str, Any], kind: LossKind, told: str
) -> None:
    loss = loss_of(described)
    assert loss.kind is kind
    assert told in loss.sentence
