"""The contract of `shunt.store.protocol`, over every store."""

import random
import threading
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from shunt.retry import RetryPolicy
from shunt.store.errors import ObjectKeyInvalid, ObjectMissing, StoreError
from shunt.store.opening import open_store
from shunt.store.protocol import Store
from shunt.testing.fault_proxy import FaultProxy, at_random, fault_proxy
from shunt.testing.memory_store import MemoryStore
from shunt.testing.s3_server import S3Server
from shunt.testing.store_race import StoreAddress, race_bytes, race_key, race_processes

FAULTS = 0.05
QUICK = RetryPolicy(attempts=10, total_s=60.0, first_wait_s=0.01, max_wait_s=0.1)
EVERY_BYTE = bytes(range(256)) * 4096

S3_KINDS = [
    pytest.param("s3", marks=pytest.mark.s3),
    pytest.param("s3 with faults", marks=pytest.mark.s3),
]


@pytest.fixture
def proxy(s3: S3Server) -> Generator[FaultProxy]:
    with fault_proxy(s3.endpoint_url, at_random(FAULTS, rng=random.Random(7))) as proxy:
        yield proxy


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> StoreAddress:
    """A store with nothing in it, as another process can open it too."""
    if kind == "directory":
        return StoreAddress(str(tmp_path / "store"))
    server = cast("S3Server", request.getfixturevalue("s3"))
    endpoint = server.endpoint_url
    if kind == "s3 with faults":
        endpoint = cast("FaultProxy", request.getfixturevalue("proxy")).url
    uri = f"s3://{server.bucket}/{uuid.uuid4().hex}"
    return StoreAddress(uri, endpoint, server.region, server.credentials)


@pytest.fixture(params=["memory", "directory", *S3_KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest) -> Store:
    if kind == "memory":
        return MemoryStore()
    at = cast("StoreAddress", request.getfixturevalue("address"))
    return open_store(
        at.uri,
        endpoint_url=at.endpoint_url,
        region=at.region,
        credentials=at.credentials,
        retry=QUICK,
    )


@pytest.mark.parametrize("data", [b"", b"x", EVERY_BYTE], ids=["empty", "one", "1MiB"])
def test_an_object_comes_back_as_it_was_put(store: Store, data: bytes) -> None:
    store.put("a/b.json", data)
    assert store.get("a/b.json") == data
    assert store.size_bytes("a/b.json") == len(data)


def test_put_replaces(store: Store) -> None:
    store.put("a", b"a longer first value")
    store.put("a", b"second")
    assert store.get("a") == b"second"


def test_every_legal_character_of_a_key_survives(store: Store) -> None:
    key = "runs/AZaz09_=+@,~:.-/x.tar.gz"
    store.put(key, b"1")
    assert store.get(key) == b"1"
    assert list(store.list("runs/")) == [key]


def test_what_is_absent_is_missing_for_every_reader(store: Store, tmp_path: Path) -> None:
    store.put("folder/object", b"1")
    for key in ("absent", "folder", "folder/object/below"):
        with pytest.raises(ObjectMissing) as missing:
            store.get(key)
        assert missing.value.key == key
        with pytest.raises(ObjectMissing):
            store.get_range(key, start=0, length=1)
        with pytest.raises(ObjectMissing):
            store.size_bytes(key)
        with pytest.raises(ObjectMissing):
            store.download(key, tmp_path / "local")
    assert not (tmp_path / "local").exists()


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 4, b"0123"), (3, 2, b"34"), (8, 2, b"89"), (8, 100, b"89"), (9, 1, b"9")],
)
def test_get_range_is_a_slice(store: Store, start: int, length: int, expected: bytes) -> None:
    store.put("digits", b"0123456789")
    assert store.get_range("digits", start=start, length=length) == expected


@pytest.mark.parametrize(("start", "length"), [(10, 1), (-1, 1), (0, 0), (0, -1)])
def test_get_range_refuses_what_is_no_range(store: Store, start: int, length: int) -> None:
    store.put("digits", b"0123456789")
    with pytest.raises(StoreError):
        store.get_range("digits", start=start, length=length)


def test_list_is_sorted_by_the_whole_key_and_stays_under_its_prefix(store: Store) -> None:
    keys = ["a-b", "a/b", "a/b.c/d", "a/b/c", "a0", "ab/c", "b"]
    keys.remove("a/b")  # a directory cannot hold both this and what lies under it
    for key in reversed(keys):
        store.put(key, b"")
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("a/")) == ["a/b.c/d", "a/b/c"]
    assert list(store.list("a/b/")) == ["a/b/c"]
    assert list(store.list("absent/")) == []


def test_list_sees_each_write_that_returned(store: Store) -> None:
    for number in range(30):
        assert store.put_if_absent(f"log/{number:06d}", b"")
        assert list(store.list("log/"))[-1] == f"log/{number:06d}"


def test_list_goes_on_past_one_page(store: Store) -> None:
    keys = [f"many/{number:06d}" for number in range(1_100)]  # a page of S3 holds 1,000
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda key: store.put(key, b""), keys):
            pass
    assert list(store.list("many/")) == keys


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    assert store.put_if_absent("lease", b"first")
    assert not store.put_if_absent("lease", b"second")
    assert store.get("lease") == b"first"


def test_put_if_absent_knows_its_own_object_again(store: Store) -> None:
    assert store.put_if_absent("lease", b"ours")
    assert store.put_if_absent("lease", b"ours")
    assert not store.put_if_absent("lease", b"")


def test_put_if_absent_yields_to_an_object_that_put_made(store: Store) -> None:
    store.put("key", b"put")
    assert not store.put_if_absent("key", b"created")


@pytest.mark.parametrize("size_bytes", [0, 3, 40 << 20])
def test_files_go_up_and_come_down(store: Store, tmp_path: Path, size_bytes: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    source.write_bytes(random.Random(1).randbytes(size_bytes))
    store.put_file("results/part.parquet", source)
    store.download("results/part.parquet", target)
    assert target.read_bytes() == source.read_bytes()
    assert store.size_bytes("results/part.parquet") == size_bytes
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_put_file_replaces(store: Store, tmp_path: Path) -> None:
    store.put("results/a", b"a longer first value")
    (tmp_path / "source").write_bytes(b"second")
    store.put_file("results/a", tmp_path / "source")
    assert store.get("results/a") == b"second"


def test_delete_may_be_repeated(store: Store) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    assert list(store.list("")) == []
    assert store.put_if_absent("a/b", b"2")


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".a", "a b", "a#1", "ä", "a\n"]
)
def test_a_key_that_not_every_store_can_hold_is_refused(
    store: Store, tmp_path: Path, key: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for call in (
        lambda: store.get(key),
        lambda: store.get_range(key, start=0, length=1),
        lambda: store.size_bytes(key),
        lambda: store.put(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.put_file(key, tmp_path / "file"),
        lambda: store.download(key, tmp_path / "local"),
        lambda: store.delete(key),
    ):
        with pytest.raises(ObjectKeyInvalid):
            call()


@pytest.mark.parametrize("prefix", ["a", "/", "../", "a//", "a/.."])
def test_half_a_segment_is_no_prefix(store: Store, prefix: str) -> None:
    with pytest.raises(ObjectKeyInvalid):
        store.list(prefix)


def test_a_reader_never_sees_half_a_write(store: Store) -> None:
    values = [bytes([letter]) * (300_000 + letter) for letter in b"AB"]
    store.put("heartbeat", values[0])
    stop = threading.Event()

    def overwrite() -> None:
        while not stop.is_set():
            for value in values:
                store.put("heartbeat", value)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(overwrite)
        try:
            assert all(store.get("heartbeat") in values for _ in range(60))
        finally:
            stop.set()
        writer.result()


def test_one_thread_of_several_wins(store: Store, kind: str) -> None:
    writers, rounds = (4, 3) if kind.startswith("s3") else (8, 50)
    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            start = threading.Barrier(writers)

            def write(
                writer: int, key: str = race_key(number), start: threading.Barrier = start
            ) -> bool:
                start.wait()
                return store.put_if_absent(key, race_bytes(writer))

            won = list(pool.map(write, range(writers)))
            assert won.count(True) == 1
            assert store.get(race_key(number)) == race_bytes(won.index(True))


@pytest.mark.parametrize("kind", ["directory", *S3_KINDS], indirect=False)
def test_one_process_of_several_wins(store: Store, address: StoreAddress, kind: str) -> None:
    # SeaweedFS settles contended puts in steps of a second, so few rounds there.
    writers, rounds = (4, 300) if kind == "directory" else (3, 4)
    winners = race_processes(address, writers=writers, rounds=rounds)
    assert [len(won) for won in winners] == [1] * rounds
    for number, (winner,) in enumerate(winners):
        assert store.get(race_key(number)) == race_bytes(winner)
    assert len({winner for (winner,) in winners}) > 1 or rounds < 10, "they did not race"


@pytest.mark.s3
def test_the_faulty_store_was_faulty(s3: S3Server, proxy: FaultProxy) -> None:
    """Guards the suite: what it calls faults are faults."""
    store = open_store(
        f"s3://{s3.bucket}/{uuid.uuid4().hex}",
        endpoint_url=proxy.url,
        region=s3.region,
        credentials=s3.credentials,
        retry=QUICK,
    )
    for number in range(200):
        assert store.put_if_absent(f"{number}", b"1")
    injected = proxy.counts.total() - proxy.counts["passed"]
    assert injected >= 5
