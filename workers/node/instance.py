"""Who this EC2 instance is and for which run it works, from its own metadata and tags."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from shunt.aws import tags
from shunt.aws.imds import Imds
from shunt.errors import ShuntError

PATIENCE_S = 300.0
"""A metadata service may be slow to come up, and the tags slower still; the unit starts the worker
again after it, and the deadline's timer ends a node that never learns who it is."""
_POLL_S = 2.0

log = logging.getLogger(__name__)


class InstanceUnknown(ShuntError):
    """The metadata service did not tell what the node has to know."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What a node is told by its instance."""

    node_id: str
    instance_type: str
    region: str
    """Of the bucket too: setup asks for one region."""
    address: str
    store_uri: str
    run_id: str
    slot: str
    recheck: bool
    kms_key_id: str
    """Empty: objects are encrypted as the bucket is set up."""

    def arguments(self) -> list[str]:
        """Of `python -m workers.node`."""
        key = {"kms_key_id": self.kms_key_id} if self.kms_key_id else {}
        told = [
            *("--store", json.dumps({"uri": self.store_uri, **key})),
            *("--run", self.run_id),
            *("--node", self.node_id),
            *("--slot", self.slot),
            *("--address", self.address),
            *("--instance-type", self.instance_type),
            "--watch-imds",
        ]
        return [*told, "--recheck"] if self.recheck else told

    def environment(self) -> dict[str, str]:
        """What the store's client reads the region from."""
        return {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}


def read_instance(
    imds: Imds,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Instance:
    """Asks until everything was told. Raises `InstanceUnknown` after `PATIENCE_S`."""
    give_up_s = monotonic() + PATIENCE_S
    while True:
        try:
            return _read(imds)
        except (OSError, InstanceUnknown) as error:
            if monotonic() >= give_up_s:
                raise InstanceUnknown(f"instance metadata: {error}") from error
            log.warning("instance metadata not complete, asking again: %s", error)
        sleep(_POLL_S)


def _read(imds: Imds) -> Instance:
    def needed(path: str) -> str:
        if text := imds.get(path):
            return text
        raise InstanceUnknown(f"{path} is not told; does the launch template allow tags in it?")

    def tag(name: str) -> str:
        return needed(f"meta-data/tags/instance/{name}")

    return Instance(
        node_id=needed("meta-data/instance-id"),
        instance_type=needed("meta-data/instance-type"),
        region=needed("meta-data/placement/region"),
        address=needed("meta-data/local-ipv4"),
        store_uri=tag(tags.STORE),
        run_id=tag(tags.RUN),
        slot=tag(tags.SLOT),
        recheck=bool(imds.tag(tags.RECHECK)),
        kms_key_id=imds.tag(tags.KMS_KEY) or "",
    )
