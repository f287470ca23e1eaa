"""What a directory does when the disk is full, the rights are missing, or the writer is killed."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shunt.store.directory import DirectoryStore
from shunt.store.errors import StoreDenied, StoreError, StoreFull
from shunt.store.staging import STAGED_PREFIX

NOBODY = 65534
"""The user without rights on Debian and most others."""

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from shunt.store.directory import DirectoryStore
store = DirectoryStore(Path(sys.argv[1]))
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    assert store.put_if_absent(f"segments/{number:08d}", b"x" * 300_000)
    store.put("heartbeat", str(number).encode() * 50_000)
    number += 1
"""


@contextmanager
def limited_file_size(limit_bytes: int) -> Generator[None]:
    """Files of this process cannot grow beyond the limit; a write beyond says EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def all_files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("verb", ["put", "put_if_absent", "put_file"])
def test_a_write_that_does_not_fit_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, verb: str
) -> None:
    store = DirectoryStore(tmp_path / "store")
    data = b"x" * 200_000
    (tmp_path / "source").write_bytes(data)
    calls = {
        "put": lambda: store.put("a/b", data),
        "put_if_absent": lambda: store.put_if_absent("a/b", data),
        "put_file": lambda: store.put_file("a/b", tmp_path / "source"),
    }
    with limited_file_size(100_000), pytest.raises(StoreFull, match="free some space") as full:
        calls[verb]()
    assert full.value.key == "a/b"
    assert all_files(tmp_path / "store") == []
    calls[verb]()
    assert store.get("a/b") == data


def test_a_replacement_that_does_not_fit_leaves_the_object_as_it_was(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("heartbeat", b"before")
    with limited_file_size(100_000), pytest.raises(StoreFull):
        store.put("heartbeat", b"x" * 200_000)
    assert store.get("heartbeat") == b"before"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "shunt-test", str(tmp_path)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount here")
    try:
        store = DirectoryStore(tmp_path / "store")
        assert store.put_if_absent("a", b"x" * 100_000)
        with pytest.raises(StoreFull, match="No space left"):
            store.put_if_absent("b", b"x" * 300_000)
        assert list(store.list("")) == ["a"]
        assert store.put_if_absent("b", b"x" * 50_000)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@contextmanager
def folder_of_another_user() -> Generator[Path]:
    """A folder that may be read and not written, also when the tests run as root."""
    # TMPDIR may lie below a folder that is closed to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        (folder / "object").write_bytes(b"1")
        (folder / "secret").write_bytes(b"1")
        (folder / "secret").chmod(0)
        folder.chmod(0o555)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if was_root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_missing_rights_are_told_as_such() -> None:
    with folder_of_another_user() as folder:
        store = DirectoryStore(folder)
        assert store.get("object") == b"1"
        for call in (
            lambda: store.put("a", b""),
            lambda: store.put_if_absent("a/b", b""),
            lambda: store.delete("object"),
            lambda: store.get("secret"),
        ):
            with pytest.raises(StoreDenied, match="right to read and write") as denied:
                call()
            assert denied.value.uri == folder.as_uri()


def test_an_object_under_an_object_is_refused(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a", b"1")
    with pytest.raises(StoreError, match="check the disk and the path"):
        store.put("a/b", b"2")
    assert list(store.list("a/")) == []


def test_bytes_reach_the_disk_before_their_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a power loss cannot leave a name without its bytes."""
    steps: list[str] = []
    fsync, link, replace = os.fsync, os.link, Path.replace

    def traced_fsync(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append("sync folder" if target.is_dir() else "sync bytes")
        fsync(descriptor)

    def traced_link(source: Path, target: Path) -> None:
        steps.append("name")
        link(source, target)

    def traced_replace(source: Path, target: Path) -> Path:
        steps.append("name")
        return replace(source, target)

    store = DirectoryStore(tmp_path)
    store.put("folder/other", b"")
    (tmp_path / "source").write_bytes(b"")
    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "link", traced_link)
    monkeypatch.setattr(Path, "replace", traced_replace)
    for call in (
        lambda: store.put_if_absent("folder/a", b"1"),
        lambda: store.put("folder/a", b"2"),
        lambda: store.put_file("folder/a", tmp_path / "source"),
    ):
        steps.clear()
        call()
        assert steps == ["sync bytes", "name", "sync folder"]
    steps.clear()
    store.put("new/folders/a", b"1")
    assert steps == ["sync folder", "sync folder", "sync bytes", "name", "sync folder"]


def test_a_killed_writer_leaves_whole_objects_only(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for number in range(12):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path), str(number * 1_000_000)],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        first = f"segments/{number * 1_000_000 + number:08d}"
        while first not in store.list("segments/"):
            assert writer.poll() is None
        writer.kill()
        writer.wait()
        writer.stdout.close()
    for key in store.list("segments/"):
        assert store.size_bytes(key) == 300_000
    beat = store.get("heartbeat")
    assert beat == beat[: len(beat) // 50_000] * 50_000


def test_what_a_killed_writer_left_is_no_object(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a/b", b"1")
    (tmp_path / "a" / f"{STAGED_PREFIX}0123-c").write_bytes(b"half")
    assert list(store.list("")) == ["a/b"]
    assert store.put_if_absent("a/c", b"whole")
