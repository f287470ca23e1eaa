"""The store's process: what it keeps, for whom, and what it refuses."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from workers.owner_socket import ChannelError
from workers.weights.key import WeightsKey, group_of
from workers.weights.segment import Manifest, WeightsRefused, create, map_readonly
from workers.weights.tensor_store import Mapped, StoreClient, TensorStore

ROOT = Path(__file__).parents[3]
KEY = WeightsKey("c", "bfloat16", "None", 1, 0, "vllm-0.32.0")
DEADLINE_S = 60.0


@pytest.fixture
def store() -> Iterator[TensorStore]:
    kept = TensorStore({**os.environ, "PYTHONPATH": str(ROOT)})
    kept.start()
    yield kept
    kept.close()


def _publish(client: StoreClient, key: WeightsKey, group: str, data: bytes) -> Mapped:
    parts = {f"{group}.weight": (memoryview(data), "uint8", [len(data)])}
    descriptor, manifest = create(group, parts)
    try:
        return client.publish(key, group, descriptor, manifest)
    finally:
        os.close(descriptor)


def _read(mapped: Mapped, group: str) -> bytes:
    manifest, descriptor = mapped[group]
    entry = manifest[f"{group}.weight"]
    with open(descriptor, "rb"), map_readonly(descriptor) as memory:
        return memory[entry["offset"] : entry["offset"] + entry["num_bytes"]]


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.01)


def test_any_stage_takes_the_layers_that_are_there_and_no_others(store: TensorStore) -> None:
    """Stock vLLM's `ipc_cache` knows a stage by its rank: where the split of the layers changed,
    what it lacks is left uninitialised. Here the answer says which groups are there."""
    client = StoreClient(store.door)
    for layer in range(10):
        _publish(client, KEY, f"model.layers.{layer}", bytes([layer]) * 9)
    found = client.attach(KEY, [f"model.layers.{layer}" for layer in range(5, 15)])
    assert sorted(found) == [f"model.layers.{layer}" for layer in range(5, 10)]
    for layer in range(5, 10):
        assert _read(found, f"model.layers.{layer}") == bytes([layer]) * 9
    client.close()


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, content="d"),
        replace(KEY, dtype="float16"),
        replace(KEY, quantization="fp8"),
        replace(KEY, tp_size=2),
        replace(KEY, tp_size=2, tp_rank=1),
        replace(KEY, engine="vllm-0.33.0"),
    ],
)
def test_another_key_finds_nothing(store: TensorStore, other: WeightsKey) -> None:
    client = StoreClient(store.door)
    os.close(_publish(client, KEY, "embed", b"x")["embed"][1])
    assert client.attach(other, ["embed"]) == {}
    client.close()


def test_of_two_who_publish_the_first_is_mapped_by_both(store: TensorStore) -> None:
    one, two = StoreClient(store.door), StoreClient(store.door)
    assert _read(_publish(one, KEY, "head", b"first"), "head") == b"first"
    assert _read(_publish(two, KEY, "head", b"later"), "head") == b"first"
    one.close()
    two.close()


def test_what_could_change_or_lies_outside_is_refused(store: TensorStore, tmp_path: Path) -> None:
    client = StoreClient(store.door)
    manifest: Manifest = {"t": {"offset": 0, "num_bytes": 1, "dtype": "uint8", "shape": [1]}}
    unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.write(unsealed, b"x")
    with open(unsealed, "rb"), pytest.raises(WeightsRefused, match="not sealed"):
        client.publish(KEY, "g", unsealed, manifest)
    (tmp_path / "file").write_bytes(b"x")
    with (tmp_path / "file").open("rb") as file, pytest.raises(WeightsRefused):
        client.publish(KEY, "g", file.fileno(), manifest)
    sealed, _ = create("g", {"t": (memoryview(b"x"), "uint8", [1])})
    manifest["t"]["num_bytes"] = 5000
    with open(sealed, "rb"), pytest.raises(WeightsRefused, match="tensor t: ends outside"):
        client.publish(KEY, "g", sealed, manifest)
    assert client.stat()["sets"] == {}
    client.close()


def test_a_sealed_file_cannot_be_written_by_anybody() -> None:
    descriptor, _ = create("g", {"t": (memoryview(b"x"), "uint8", [1])})
    with open(descriptor, "rb"):
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"y", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)


def test_what_was_mapped_outlives_the_store_and_the_next_one_is_empty(store: TensorStore) -> None:
    before = sorted(os.listdir("/dev/shm"))
    client = StoreClient(store.door)
    mapped = _publish(client, KEY, "embed", b"weights")
    died = store.pid
    os.kill(died, signal.SIGKILL)
    os.waitid(os.P_PID, died, os.WEXITED | os.WNOWAIT)
    assert _read(mapped, "embed") == b"weights"
    with pytest.raises(ChannelError):
        client.stat()
    with pytest.raises(ChannelError):
        StoreClient(store.door)
    client.close()
    store.start()
    fresh = StoreClient(store.door)
    assert store.pid != died
    assert fresh.stat()["sets"] == {}
    fresh.close()
    assert [name for name in sorted(os.listdir("/dev/shm")) if "shunt" in name] == [
        name for name in before if "shunt" in name
    ]


def test_a_lease_ends_with_its_connection_and_what_nobody_leases_makes_room() -> None:
    """Twenty models one after another: no more than the limit is kept, and nothing in use goes."""
    store = TensorStore({**os.environ, "PYTHONPATH": str(ROOT)}, max_bytes=3 << 20)
    store.start()
    try:
        holder = StoreClient(store.door)
        os.close(_publish(holder, KEY, "g", bytes(1 << 20))["g"][1])
        watching = StoreClient(store.door)
        for number in range(20):
            client = StoreClient(store.door)
            key = replace(KEY, content=str(number))
            os.close(_publish(client, key, "g", bytes(1 << 20))["g"][1])
            assert watching.stat()["leases"].keys() == {KEY.name, key.name}
            client.close()
            _until(lambda: watching.stat()["leases"].keys() == {KEY.name})
        assert watching.stat()["num_bytes"] <= 3 << 20
        assert KEY.name in watching.stat()["sets"]
        holder.close()
        watching.close()
    finally:
        store.close()


def test_groups_are_layers_and_single_parameters() -> None:
    assert group_of("model.layers.12.self_attn.qkv_proj.weight") == "model.layers.12"
    assert group_of("transformer.h.3.mlp.c_fc.bias") == "transformer.h.3"
    assert group_of("model.embed_tokens.weight") == "model.embed_tokens.weight"
