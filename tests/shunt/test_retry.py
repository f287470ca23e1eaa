"""The bounds of a retry policy, with a clock that does not wait."""

import pytest

from shunt.retry import NO_RETRY, STORE_RETRY, RetryPolicy, call_with_retry


class Transient(Exception):
    pass


def test_it_returns_at_the_first_success() -> None:
    answers = iter([Transient, Transient, None])
    waits: list[float] = []

    def call() -> str:
        if error := next(answers):
            raise error
        return "done"

    assert call_with_retry(call, policy=STORE_RETRY, transient=Transient, sleep=waits.append)
    assert len(waits) == 2


def test_it_is_bounded_in_attempts_and_in_each_wait() -> None:
    policy = RetryPolicy(attempts=5, total_s=1e9, first_wait_s=1.0, max_wait_s=3.0)
    attempts: list[int] = []
    waits: list[float] = []

    def call() -> None:
        attempts.append(1)
        raise Transient

    with pytest.raises(Transient):
        call_with_retry(call, policy=policy, transient=Transient, sleep=waits.append)
    assert len(attempts) == 5
    assert all(wait <= bound for wait, bound in zip(waits, [1.0, 2.0, 3.0, 3.0], strict=True))
    assert len(set(waits)) == 4, "no jitter"


def test_it_is_bounded_in_time() -> None:
    """With no time to wait, the first failure is the last."""
    policy = RetryPolicy(attempts=5, total_s=0.0, first_wait_s=1.0, max_wait_s=3.0)
    attempts: list[int] = []

    def call() -> None:
        attempts.append(1)
        raise Transient

    with pytest.raises(Transient):
        call_with_retry(call, policy=policy, transient=Transient)
    assert len(attempts) == 1


@pytest.mark.parametrize(
    ("policy", "error"), [(STORE_RETRY, ValueError), (NO_RETRY, Transient)], ids=str
)
def test_it_leaves_other_errors_alone(policy: RetryPolicy, error: type[Exception]) -> None:
    attempts: list[int] = []

    def call() -> None:
        attempts.append(1)
        raise error

    with pytest.raises(error):
        call_with_retry(call, policy=policy, transient=Transient)
    assert len(attempts) == 1
