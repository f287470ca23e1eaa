"""Ids that repeat are found among all, in order."""

from hypothesis import given
from hypothesis import strategies as st

from shunt.dataset.duplicates import IdRegister


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=6))
def test_exactly_the_rows_with_a_repeated_id_are_candidates(pieces: list[list[str]]) -> None:
    register = IdRegister()
    for piece in pieces:
        register.add(piece)
    ids = [prompt_id for piece in pieces for prompt_id in piece]
    repeated = [index for index, prompt_id in enumerate(ids) if ids.count(prompt_id) > 1]
    assert list(register.candidates()) == repeated
