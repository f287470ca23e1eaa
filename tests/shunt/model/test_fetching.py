import hashlib
import multiprocessing
import random
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from shunt.model.bucket import INDEX, BucketSource
from shunt.model.errors import ModelDamaged, ModelDenied, ModelError, ModelMissing
from shunt.model.fetching import COMPLETE, FetchProgress, Interrupted, fetch
from shunt.model.hub import HubSource
from shunt.model.listing import ModelFile, ModelListing
from shunt.model.pushing import push
from shunt.model.source import DirectorySource
from shunt.retry import NO_RETRY, RetryPolicy
from shunt.store.opening import open_store
from shunt.store.protocol import Store
from shunt.testing.s3_server import S3Server, s3_server
from tests.shunt.model.hub import COMMIT, Hub, hub_double

CHUNK = 64 << 10
QUICK = RetryPolicy(attempts=3, total_s=10.0, first_wait_s=0.01, max_wait_s=0.02)


def model_files() -> dict[str, bytes]:
    rng = random.Random(7)
    return {
        "config.json": b'{"max_position_embeddings": 64}',
        "tokenizer.json": rng.randbytes(3000),
        "model-00001-of-00002.safetensors": rng.randbytes(5 * CHUNK + 17),
        "model-00002-of-00002.safetensors": rng.randbytes(2 * CHUNK),
        "empty.txt": b"",
        "pytorch_model.bin": b"a second copy of the weights",
        "original/consolidated.00.pth": b"and a third",
        ".gitattributes": b"x",
    }


WANTED = {
    "config.json",
    "tokenizer.json",
    "empty.txt",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
}


@pytest.fixture
def hub() -> Generator[Hub]:
    with hub_double(model_files()) as double:
        yield double


@pytest.fixture(scope="module")
def server() -> Generator[S3Server]:
    with s3_server() as running:
        yield running


def source_of(hub: Hub, revision: str = "main", token: str = "") -> HubSource:
    return HubSource(hub.model_id, revision=revision, token=token, url=hub.url, retry=QUICK)


def fetched(hub: Hub, cache: Path, **how: object) -> Path:
    listing = source_of(hub).listing()
    source = source_of(hub, listing.commit)
    return fetch(source, listing, cache, chunk_bytes=CHUNK, **how)  # pyright: ignore


def test_a_revision_is_resolved_to_a_commit_and_the_files_arrive_whole(
    hub: Hub, tmp_path: Path
) -> None:
    listing = source_of(hub).listing()
    assert listing.commit == COMMIT
    assert {file.name for file in listing.files} == WANTED
    told: list[FetchProgress] = []
    folder = fetched(hub, tmp_path, told=told.append)
    assert folder.name == f"tiny-{listing.identity}"
    for name in WANTED:
        assert (folder / name).read_bytes() == hub.files[name]
    assert not [p for p in folder.rglob("*") if p.suffix in (".part", ".chunks")]
    assert told[0].num_bytes == 0
    assert told[-1].num_bytes == told[-1].total_bytes == listing.num_bytes


def test_the_hub_is_asked_once_a_file_and_its_token_goes_nowhere_else(
    hub: Hub, tmp_path: Path
) -> None:
    hub.token = "secret-token"
    listing = source_of(hub, token="secret-token").listing()
    source = source_of(hub, listing.commit, token="secret-token")
    fetch(source, listing, tmp_path, chunk_bytes=CHUNK, threads=1)
    resolved = [path for path in hub.asked if "/resolve/" in path]
    assert len(resolved) == len(WANTED) - 1  # the empty file has no bytes to ask for
    assert hub.told_storage == []
    with pytest.raises(ModelDenied, match=r"without a token.*model\.token_env"):
        source_of(hub).listing()
    with pytest.raises(ModelDenied, match="with the token given") as refused:
        source_of(hub, token="wrong-token").listing()
    assert "wrong-token" not in str(refused.value)


def test_a_signed_address_that_grew_old_and_a_hub_that_stumbles(hub: Hub, tmp_path: Path) -> None:
    hub.stale_after, hub.failures = 2, 2
    folder = fetched(hub, tmp_path)
    for name in WANTED:
        assert (folder / name).read_bytes() == hub.files[name]


def test_a_model_or_revision_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(ModelMissing, match="no such model, revision or file"):
        source_of(hub, "no-such-branch").listing()


def test_a_fetch_that_was_interrupted_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    stop = threading.Event()

    def told(progress: FetchProgress) -> None:
        if progress.num_bytes > 3 * CHUNK:
            stop.set()

    with pytest.raises(Interrupted):
        fetched(hub, tmp_path, told=told, stop=stop, threads=1)
    before = sorted(hub.ranges)
    hub.ranges.clear()
    folder = fetched(hub, tmp_path)
    # At most the one that was in flight is read twice.
    assert len(set(before) & set(hub.ranges)) <= 1
    assert len(before) + len(hub.ranges) <= 10 + 1
    assert (folder / "model-00001-of-00002.safetensors").read_bytes() == hub.files[
        "model-00001-of-00002.safetensors"
    ]


def test_a_copy_that_is_there_is_not_read_again(hub: Hub, tmp_path: Path) -> None:
    fetched(hub, tmp_path)
    hub.ranges.clear()
    fetched(hub, tmp_path)
    assert hub.ranges == []


def test_bytes_that_are_not_those_of_the_listing_are_refused_and_not_kept(
    hub: Hub, tmp_path: Path
) -> None:
    listing = source_of(hub).listing()
    name = "model-00002-of-00002.safetensors"
    right = hub.files[name]
    hub.files[name] = bytes(len(right))
    source = source_of(hub, listing.commit)
    with pytest.raises(ModelDamaged, match=rf"{name} came with sha256:.* its listing says sha256:"):
        fetch(source, listing, tmp_path, chunk_bytes=CHUNK)
    assert not (tmp_path / listing.folder_name / COMPLETE).exists()
    hub.files[name] = right
    assert (fetch(source, listing, tmp_path, chunk_bytes=CHUNK) / name).read_bytes() == right


def test_a_disk_without_room_is_told_before_the_first_byte(tmp_path: Path) -> None:
    huge = ModelListing(
        kind="s3", place="s3://b/huge", files=(ModelFile(name="w.safetensors", num_bytes=1 << 60),)
    )
    with pytest.raises(ModelError, match=r"needs 1152921504.* GB in .* are free"):
        fetch(DirectorySource(tmp_path), huge, tmp_path)


def _fetch_here(url: str, model_id: str, cache: str, waited: "multiprocessing.Queue[bool]") -> None:
    listing = HubSource(model_id, url=url).listing()
    source = HubSource(model_id, revision=listing.commit, url=url)
    seen: list[FetchProgress] = []
    fetch(source, listing, Path(cache), chunk_bytes=CHUNK, threads=1, told=seen.append)
    waited.put(any(progress.waiting for progress in seen))


def test_processes_of_one_machine_share_one_copy(hub: Hub, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    waited: multiprocessing.Queue[bool] = context.Queue()
    hub.delay_s = 0.2
    arguments = (hub.url, hub.model_id, str(tmp_path), waited)
    both = [context.Process(target=_fetch_here, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(hub.ranges) == len(set(hub.ranges)) == 10


def model_directory(folder: Path) -> Path:
    for name, data in model_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def bucket_at(server: S3Server, prefix: str) -> Store:
    return open_store(
        f"s3://{server.bucket}/{prefix}",
        endpoint_url=server.endpoint_url,
        region=server.region,
        credentials=server.credentials,
        retry=NO_RETRY,
    )


def test_a_pushed_model_comes_back_from_a_real_s3_server(server: S3Server, tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model")
    store = bucket_at(server, "weights/tiny")
    listing = DirectorySource(directory).listing()
    sent: list[bool] = []
    index = push(directory, listing, store, told=lambda _file, was_sent: sent.append(was_sent))
    assert all(sent)
    found = BucketSource(store).listing()
    assert found.identity == index.identity
    assert all(file.digest.startswith("sha256:") for file in found.files)
    folder = fetch(BucketSource(store), found, tmp_path / "cache", chunk_bytes=CHUNK)
    for name in WANTED:
        assert (folder / name).read_bytes() == model_files()[name]
    sent.clear()
    push(directory, listing, store, told=lambda _file, was_sent: sent.append(was_sent))
    assert not any(sent)
    (directory / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="another model is there"):
        push(directory, DirectorySource(directory).listing(), store)


def test_a_copied_model_without_index_is_held_to_its_etags(
    server: S3Server, tmp_path: Path
) -> None:
    store = bucket_at(server, "copied")
    for name, data in model_files().items():
        if name in WANTED:
            store.put(name, data)
    found = BucketSource(store).listing()
    assert {file.name for file in found.files} == WANTED
    assert all(file.digest.startswith("etag:") for file in found.files)
    fetch(BucketSource(store), found, tmp_path, chunk_bytes=CHUNK)
    store.put("tokenizer.json", hashlib.sha256(b"another").digest() * 10)
    with pytest.raises(ModelDamaged, match=r"tokenizer\.json was replaced"):
        fetch(BucketSource(store), found, tmp_path / "second", chunk_bytes=CHUNK)
    assert BucketSource(store).listing().identity != found.identity


def test_a_prefix_without_a_model_says_so(server: S3Server) -> None:
    with pytest.raises(ModelMissing, match=r"no config\.json.*shunt model push"):
        BucketSource(bucket_at(server, "nothing")).listing()
    assert INDEX == "shunt-model.json"
