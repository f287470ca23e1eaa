"""Retry policies, by name. Adapters use them, and nobody above an adapter does.

A policy is bounded twice, in attempts and in time. The wait before attempt n+1 is drawn uniformly
from [0, min(max_wait_s, first_wait_s * 2^(n-1))] ("full jitter", AWS Architecture Blog, 2015), so
that many workers hit by one throttle do not come back together.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try again. No attempt starts after `total_s`."""

    attempts: int
    total_s: float
    first_wait_s: float
    max_wait_s: float


STORE_RETRY = RetryPolicy(attempts=10, total_s=60.0, first_wait_s=0.1, max_wait_s=10.0)
"""Object stores: outlives a throttle or a fail-over of some tens of seconds. The time stays under
the five minutes for which a signed request is sure to be valid."""

NO_RETRY = RetryPolicy(attempts=1, total_s=0.0, first_wait_s=0.0, max_wait_s=0.0)
"""For tests, and for a first probe whose failure the user should see at once."""


def call_with_retry(
    call: Callable[[], T],
    *,
    policy: RetryPolicy,
    transient: type[Exception] | tuple[type[Exception], ...],
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until it returns, raises something else, or the policy ends; the last error then rises.

    `call` must be idempotent: it may run again after an attempt whose outcome is not known.
    """
    retrying = Retrying(
        stop=stop_after_attempt(policy.attempts) | stop_before_delay(policy.total_s),
        wait=wait_random_exponential(multiplier=policy.first_wait_s, max=policy.max_wait_s),
        retry=retry_if_exception_type(transient),
        sleep=sleep,
        reraise=True,
    )
    return retrying(call)
