"""Segments: what goes in comes out, and damage never passes for data."""

from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shunt.checkpoint.generation import Finish, Generation, Resumption, TokenLogprobs
from shunt.checkpoint.segment import Gain, SegmentHeader, decode_segment, encode_segment
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import CorruptSegment
from shunt.keys import Position

tokens = st.integers(0, 2**31 - 1)
float32 = st.floats(width=32, allow_nan=False)
token_logprobs = st.builds(
    TokenLogprobs,
    st.lists(tokens, min_size=1, max_size=3).map(tuple),
    st.lists(float32, min_size=1, max_size=3).map(tuple),
    st.integers(1, 50_000),
)
finishes = st.builds(
    Finish,
    st.sampled_from(["stop", "length", "error"]),
    st.none() | tokens | st.text(min_size=1),
    st.text(),
    st.none() | st.builds(RowError, st.sampled_from(RowErrorCode), st.text()),
)
generations = st.builds(
    Generation,
    token_ids=st.lists(tokens, max_size=5).map(tuple),
    logprobs=st.none() | st.lists(token_logprobs, max_size=3).map(tuple),
    prompt_logprobs=st.none() | st.lists(st.none() | token_logprobs, max_size=3).map(tuple),
    num_prompt_tokens=st.integers(0, 10**6),
    num_cached_tokens=st.integers(0, 10**6),
    num_resumes=st.integers(0, 100),
    resumption=st.sampled_from(Resumption),
    resume_reason=st.text(),
    fingerprint=st.text(),
    prompt_digest=st.just("") | st.binary(min_size=8, max_size=8).map(bytes.hex),
    finish=st.none() | finishes,
)
gains = st.builds(
    Gain, st.integers(0, 10**9), st.integers(0, 127), st.integers(0, 10**6), generations
)
HEADER = SegmentHeader("run", "000003", Position(4, 0), "owner", {1: 3, 2: -1, 3: 0})


@given(st.lists(gains, max_size=4))
def test_a_segment_comes_back_as_it_was(written: list[Gain]) -> None:
    header, read = decode_segment("key", encode_segment(HEADER, written))
    assert (header, read) == (HEADER, written)


def test_equal_arguments_give_equal_bytes() -> None:
    """A put that may have happened is repeated with the same bytes and recognised as our own."""
    gain = Gain(1, 0, 0, Generation(token_ids=(1, 2)))
    assert encode_segment(HEADER, [gain]) == encode_segment(HEADER, [gain])


@given(st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    encoded = bytearray(encode_segment(HEADER, [Gain(1, 0, 0, Generation(token_ids=(1, 2, 3)))]))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptSegment):
        decode_segment("key", bytes(encoded))


@given(st.data())
def test_a_cut_segment_is_refused(data: st.DataObject) -> None:
    encoded = encode_segment(HEADER, [Gain(1, 0, 0, Generation(token_ids=(1, 2, 3)))])
    with pytest.raises(CorruptSegment):
        decode_segment("key", encoded[: data.draw(st.integers(0, len(encoded) - 1))])


def test_a_newer_format_says_upgrade() -> None:
    encoded = bytearray(encode_segment(HEADER, []))
    encoded[4] = 4
    with pytest.raises(CorruptSegment, match=r"format version 4.*upgrade"):
        decode_segment("key", bytes(encoded))


def test_a_segment_of_the_first_format_is_read() -> None:
    data = b64decode((Path(__file__).parent / "segment_v1.b64").read_text())
    header, [gain] = decode_segment("key", data)
    assert header == HEADER
    finish = Finish("stop", None, "abc")
    assert gain.generation == Generation(
        token_ids=(1, 2, 3), num_prompt_tokens=5, fingerprint="f", finish=finish
    )
