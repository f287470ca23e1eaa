"""The tags by which everything of ours in an account is found, explained and ended."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

RUN = "shunt:run"
SLOT = "shunt:slot"
TOKEN = "shunt:token"
OWNER = "shunt:owner"
STORE = "shunt:store"
RECHECK = "shunt:recheck"
"""There, with any value: the worker does not trust done markers."""
KMS_KEY = "shunt:kms-key"
"""With which the store's objects are encrypted; without it, as the bucket is set up."""
EXPIRES_AT = "shunt:expires-at"
"""When a node ends itself whatever happens, ISO 8601 UTC."""


def specification(resource_type: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """One entry of `TagSpecifications`."""
    pairs = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    return {"ResourceType": resource_type, "Tags": pairs}


def of(instance: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a described resource."""
    pairs: Sequence[Mapping[str, str]] = instance.get("Tags", ())
    return {pair["Key"]: pair["Value"] for pair in pairs}


def for_node(
    *,
    run_id: str,
    slot: str,
    token: str,
    owner: str,
    store_uri: str,
    expires_at: datetime,
    recheck: bool = False,
    kms_key_id: str | None = None,
) -> dict[str, str]:
    return {
        **({RECHECK: "true"} if recheck else {}),
        **({KMS_KEY: kms_key_id} if kms_key_id else {}),
        RUN: run_id,
        SLOT: slot,
        TOKEN: token,
        OWNER: owner,
        STORE: store_uri,
        EXPIRES_AT: expires_at.isoformat(),
        "Name": f"shunt {run_id} {slot}",
    }
