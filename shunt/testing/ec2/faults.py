"""Faults of the EC2 double: what the n-th call of an operation meets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["before", "after"]


class ApiFault(Exception):
    """An error reply of EC2."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class ControllerKilled(BaseException):
    """The controller was SIGKILLed at this call: no `except` of the code under test sees it."""


Fault = Callable[[int, str, Phase], None]
"""Called with the number of the call (from 0), its operation and the phase; raises or returns.
Raised in phase `after`, the call has had its effect and its reply is lost."""


def kill_at(number: int, phase: Phase) -> Fault:
    """Kill the controller at one call."""

    def fault(call: int, operation: str, at: Phase) -> None:
        if call == number and at == phase:
            raise ControllerKilled(f"at call {call}, {operation}, {at}")

    return fault


@dataclass(slots=True)
class FailFirst:
    """The first so many calls of an operation fail with a code."""

    operation: str
    code: str
    times: int
    phase: Phase = "before"

    def __call__(self, call: int, operation: str, phase: Phase) -> None:
        del call
        if operation == self.operation and phase == self.phase and self.times > 0:
            self.times -= 1
            raise ApiFault(self.code, "injected")


def unauthorised(*operations: str) -> Fault:
    """IAM refuses these operations."""

    def fault(call: int, operation: str, phase: Phase) -> None:
        del call
        if operation in operations and phase == "before":
            raise ApiFault(
                "UnauthorizedOperation",
                f"You are not authorized to perform: ec2:{operation} because no identity-based "
                "policy allows it.",
            )

    return fault
