"""The seam between the reconciler and whatever gives us nodes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from shunt.errors import ShuntError


class NotLaunched(ShuntError):
    """A slot could not be filled now; another time or another pool may do."""

    def __init__(self, slot: str, reason: str, *, retry_after_s: float) -> None:
        super().__init__(f"no node for {slot}: {reason}")
        self.slot = slot
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class FleetNode:
    """One node as it is observed now."""

    node_id: str
    slot: str
    """The place of the plan that this node fills."""
    exit_code: int | None
    """None while it lives; otherwise how its worker ended (negative: killed by that signal)."""
    reason: str = ""
    """Why it ended, in one sentence, where more is known than the exit code."""
    fault: bool = False
    """It ended by something of ours that would end the next one in the same way."""


class Fleet(Protocol):
    """Launch, observe, interrupt, end. Every verb is idempotent and safe to call again."""

    def nodes(self) -> Sequence[FleetNode]:
        """Everything this fleet has started for the run, living or ended."""
        ...

    def launch(self, slot: str) -> str:
        """Start a node for the slot; returns its node id at once, before it is ready.

        Raises `NotLaunched` where there is no capacity for it now.
        """
        ...

    def launch_many(self, slots: Sequence[str]) -> Iterator[tuple[str, str | NotLaunched]]:
        """`launch` for each slot, at once where the fleet can: the slot with its node id, or with
        why it has none. An error of another kind rises after the launches that went well."""
        ...

    def vacate(self, node_id: str) -> None:
        """The node is going: the next launch for its slot is of another one, beside it."""
        ...

    def interrupt(self, node_id: str, *, notice_s: float | None) -> None:
        """Take the node away: with a notice of so many seconds, or (None) without one."""
        ...

    def terminate(self) -> None:
        """End every node and wait until nothing of them is left."""
        ...


def one_after_another(
    launch: Callable[[str], str], slots: Sequence[str]
) -> Iterator[tuple[str, str | NotLaunched]]:
    """`launch_many` of a fleet whose launches take no time."""
    for slot in slots:
        try:
            yield slot, launch(slot)
        except NotLaunched as refusal:
            yield slot, refusal
