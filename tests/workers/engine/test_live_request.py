"""What a move makes of a generation's record."""

import pytest

from shunt.checkpoint.generation import Generation, Resumption
from workers.engine.live_request import restarted, resumed_from, weakest

SAVED = Generation(token_ids=(1, 2), fingerprint="a", num_resumes=1)


def test_equal_batch_invariant_engines_are_bit_exact() -> None:
    moved = resumed_from(SAVED, fingerprint="a", bit_exact=True)
    assert (moved.resumption, moved.fingerprint) == (Resumption.BIT_EXACT, "a")
    assert moved.num_resumes == 2
    assert moved.token_ids == SAVED.token_ids


@pytest.mark.parametrize(("fingerprint", "invariant"), [("b", True), ("a", False)])
def test_other_numerics_are_state_exact(fingerprint: str, invariant: bool) -> None:
    moved = resumed_from(SAVED, fingerprint=fingerprint, bit_exact=invariant)
    assert moved.resumption is Resumption.STATE_EXACT
    assert moved.fingerprint == ("mixed" if fingerprint == "b" else "a")


def test_a_restart_keeps_no_token_and_says_why() -> None:
    again = restarted(SAVED, reason="grammar", fingerprint="b")
    assert (again.token_ids, again.resume_reason, again.num_resumes) == ((), "grammar", 2)


def test_the_weakest_promise_stands() -> None:
    assert weakest(Resumption.STATE_EXACT, Resumption.BIT_EXACT) is Resumption.STATE_EXACT
    assert weakest(Resumption.NONE, Resumption.BIT_EXACT) is Resumption.BIT_EXACT
    assert weakest(Resumption.RESTARTED, Resumption.STATE_EXACT) is Resumption.RESTARTED
