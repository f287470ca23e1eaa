"""The plan of byte ranges, over files that the safetensors library itself has written."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from workers.weights.checkpoint import (
    ByteRange,
    StoredTensor,
    check_whole,
    layer_of,
    ranges_of,
    read_tensors,
    stored_tensors,
    weight_files,
)
from workers.weights.content import ContentDigests
from workers.weights.segment import WeightsRefused

ROWS = 300


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Ten layers over two files, as they come from a hub: not in the order of the layers."""
    rng = np.random.default_rng(0)
    for file in range(2):
        tensors = {
            f"model.layers.{layer}.{name}.weight": rng.random((ROWS, 64), np.float32)
            for layer in range(file * 5, file * 5 + 5)
            for name in ("mlp.up_proj", "self_attn.o_proj")
        }
        if file == 0:
            tensors["model.embed_tokens.weight"] = rng.random((4 * ROWS, 64), np.float32)
        save_file(tensors, tmp_path / f"model-0000{file}.safetensors")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


class Reads:
    """Counts what is read of a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: list[int] = []

    def __call__(self, file: str, start: int, length: int) -> bytes:
        self.calls.append(length)
        with (self.directory / file).open("rb") as opened:
            opened.seek(start)
            return opened.read(length)


def _all(model: Path) -> list[StoredTensor]:
    return [tensor for path in weight_files(model) for tensor in check_whole(path)]


def test_a_stage_reads_hardly_more_than_it_needs(model: Path) -> None:
    """Layers 3 to 6 lie in both files; of each the plan reads one range, and every tensor is as the
    library reads it."""
    wanted = [t for t in _all(model) if (layer_of(t.name) or 0) in range(3, 7)]
    reads = Reads(model)
    ranges = ranges_of(wanted, gap_bytes=0)
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    found = {
        tensor.name: np.frombuffer(data, np.float32).reshape(tensor.shape)
        for tensor, data in read_tensors(ranges, reads, told=tell)
    }
    assert len(found) == 8
    for path in weight_files(model):
        for name, expected in load_file(path).items():
            if name in found:
                np.testing.assert_array_equal(found.pop(name), expected)
    assert not found
    needed = sum(tensor.num_bytes for tensor in wanted)
    assert sum(reads.calls) == needed
    assert told[-1] == (needed, needed)


def test_near_ranges_are_read_as_one_and_far_ones_are_not() -> None:
    def tensor(start: int, file: str = "a") -> StoredTensor:
        return StoredTensor(f"t{start}", file, start, 10, "U8", (10,))

    near, far, other = tensor(15), tensor(40), tensor(0, "b")
    assert ranges_of([far, near, other, tensor(0)], gap_bytes=5) == [
        ByteRange("a", 0, 25, (tensor(0), near)),
        ByteRange("a", 40, 50, (far,)),
        ByteRange("b", 0, 10, (other,)),
    ]


@pytest.mark.parametrize("size", [0, 4, 5000, -1])
def test_a_file_that_was_cut_is_refused_by_name(model: Path, size: int) -> None:
    path = weight_files(model)[1]
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(WeightsRefused, match=path.name):
        check_whole(path)
    with pytest.raises(WeightsRefused, match=path.name):
        ContentDigests().of_model(model)


def test_a_header_of_nonsense_is_refused_by_name(model: Path) -> None:
    path = weight_files(model)[0]
    path.write_bytes((20).to_bytes(8, "little") + b"{" * 100)
    with pytest.raises(WeightsRefused, match=path.name):
        check_whole(path)


def test_a_range_that_comes_short_is_refused(model: Path) -> None:
    ranges = ranges_of(stored_tensors("model-00000.safetensors", Reads(model)))
    with pytest.raises(WeightsRefused, match=r"model-00000\.safetensors: cut short"):
        list(
            read_tensors(ranges, lambda file, start, length: Reads(model)(file, start, length - 1))
        )


def test_two_fine_tunes_with_one_header_are_two_contents(model: Path) -> None:
    """Stock vLLM's `ipc_cache` digests headers, and takes the one for the other."""
    digests = ContentDigests()
    one = digests.of_model(model)
    assert digests.of_model(model) == one
    path = weight_files(model)[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert digests.of_model(model) != one
    data[-1] ^= 1
    path.write_bytes(data)
    assert digests.of_model(model) == one
