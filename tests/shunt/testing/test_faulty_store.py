"""The failing store fails where it is told to, and counts."""

from collections import Counter
from pathlib import Path

import pytest

from shunt.store.errors import StoreUnavailable
from shunt.testing.faulty_store import FaultyStore, When, fail_call
from shunt.testing.memory_store import MemoryStore


def test_a_call_that_fails_before_changes_nothing() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, fail_call(1, When.BEFORE))
    store.put("a", b"1")
    with pytest.raises(StoreUnavailable):
        store.put("b", b"2")
    store.put("c", b"3")
    assert list(inner.list("")) == ["a", "c"]


def test_a_call_that_fails_after_was_done() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, fail_call(0, When.AFTER))
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("a", b"1")
    assert inner.get("a") == b"1"


def test_a_lost_reply_is_answered_by_the_second_try() -> None:
    store = FaultyStore(MemoryStore(), fail_call(0, When.REPLY_LOST))
    assert store.put_if_absent("a", b"ours")
    assert not store.put_if_absent("a", b"theirs")


def test_a_test_may_act_a_crash() -> None:
    class Killed(BaseException):
        pass

    store = FaultyStore(MemoryStore(), fail_call(0, When.BEFORE, error=Killed()))
    with pytest.raises(Killed):
        store.get("a")


def test_it_counts_calls_and_bytes(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    (tmp_path / "file").write_bytes(b"12345")
    store.put("a", b"123")
    store.put_if_absent("b", b"12")
    store.put_file("c", tmp_path / "file")
    store.get("a")
    store.get_range("a", start=1, length=2)
    assert list(store.list("")) == ["a", "b", "c"]
    assert store.size_bytes("c") == 5
    store.download("c", tmp_path / "back")
    store.delete("a")
    assert store.num_calls == 9
    assert store.traffic.calls["put"] == 1
    assert store.traffic.bytes_written == Counter(put=3, put_if_absent=2, put_file=5)
    assert store.traffic.bytes_read == {"get": 3, "get_range": 2}
