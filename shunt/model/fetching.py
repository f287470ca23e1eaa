"""Bringing a model to this machine: in parallel, verified, resumable, one copy for all processes.

A file is written in chunks to `{name}.part`; which chunks are there is noted in `{name}.chunks`,
each after its bytes are on the disk. A fetch that was killed goes on with the chunks that are
missing. A whole file gets its own name only after its digest was checked. The folder holds
`shunt-complete.json`, the listing, once all files are there; whoever finds it fetches nothing.
"""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from shunt.model.errors import ModelDamaged, ModelError
from shunt.model.listing import ModelFile, ModelListing
from shunt.model.source import ModelSource

CHUNK_BYTES = 32 << 20
"""Large enough that a request's own time is small, small enough to be read again."""
THREADS = 8
"""One stream of S3 gives about 90 MB/s (AWS's performance guide); nodes have 10 Gbit/s and more."""
COMPLETE = "shunt-complete.json"
LOCK_POLL_S = 0.5
_READ_BYTES = 1 << 20
_SPARE_BYTES = 256 << 20
"""Of the disk, for the engine's own caches."""


class Interrupted(ModelError):
    """The process was told to leave while it fetched; what is there is kept."""


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a fetch is."""

    num_bytes: int
    total_bytes: int
    waiting: bool = False
    """Another process of this machine fetches."""

    def __str__(self) -> str:
        if self.waiting:
            return "waits for another process of this machine that fetches the weights"
        gb, total_gb = self.num_bytes / 1e9, self.total_bytes / 1e9
        return f"fetching weights: {gb:.2f} of {total_gb:.2f} GB"


class Told(Protocol):
    """Who is told of progress, from the thread that fetches."""

    def __call__(self, progress: FetchProgress, /) -> None: ...


def fetch(
    source: ModelSource,
    listing: ModelListing,
    cache: Path,
    *,
    told: Told = lambda _progress: None,
    stop: Event | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    threads: int = THREADS,
) -> Path:
    """The model's directory under `cache`, with every file of the listing, each verified.

    May be called by several processes at once: one fetches, the others wait for it. Raises
    `Interrupted` when `stop` is set, and `ModelError` (a file that is not what the listing says, a
    full disk, a source that refuses).
    """
    stop = stop or Event()
    folder = cache / listing.folder_name
    if _complete(folder, listing):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f"{listing.folder_name}.lock", listing, told, stop):
        if _complete(folder, listing):
            return folder
        work = _Fetch(source, listing, folder, told, stop, chunk_bytes, threads)
        try:
            work.run()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise ModelError(listing.place, f"{folder} cannot be written: {error}") from error
            raise _full(listing, folder, shutil.disk_usage(folder).free) from error
    return folder


def _complete(folder: Path, listing: ModelListing) -> bool:
    try:
        return (folder / COMPLETE).read_text() == listing.model_dump_json()
    except FileNotFoundError:
        return False


@contextmanager
def _alone(path: Path, listing: ModelListing, told: Told, stop: Event) -> Generator[None]:
    """Holds the lock of the folder; the kernel gives it back however a process ends."""
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                told(FetchProgress(0, listing.num_bytes, waiting=True))
                if stop.wait(LOCK_POLL_S):
                    raise _interrupted(listing) from None
        yield


class _Fetch:
    """One fetch of one process, under the folder's lock."""

    def __init__(
        self,
        source: ModelSource,
        listing: ModelListing,
        folder: Path,
        told: Told,
        stop: Event,
        chunk_bytes: int,
        threads: int,
    ) -> None:
        self._source = source
        self._listing = listing
        self._folder = folder
        self._told = told
        self._stop = stop
        self._chunk_bytes = chunk_bytes
        self._threads = threads
        self._done_bytes = 0

    def run(self) -> None:
        missing = [file for file in self._listing.files if not self._is_there(file)]
        self._require_space(missing)
        self._done_bytes = self._listing.num_bytes - sum(file.num_bytes for file in missing)
        parts = {file.name: _Part(self._folder, file, self._chunk_bytes) for file in missing}
        self._done_bytes += sum(part.num_bytes_there for part in parts.values())
        self._tell()
        with ThreadPoolExecutor(self._threads, "fetch") as pool:
            self._chunks(pool, parts)
        for part in parts.values():
            if self._stop.is_set():
                raise _interrupted(self._listing)
            part.finish(self._listing.place)
        (self._folder / COMPLETE).write_text(self._listing.model_dump_json())

    def _chunks(self, pool: ThreadPoolExecutor, parts: dict[str, "_Part"]) -> None:
        """A window of chunks in flight, so that a failure or a stop ends it soon."""
        todo = ((part, number) for part in parts.values() for number in part.missing())
        flying: dict[Future[bytes], tuple[_Part, int]] = {}

        def start_some() -> None:
            while len(flying) < self._threads and (item := next(todo, None)) is not None:
                flying[pool.submit(self._read, *item)] = item

        start_some()
        try:
            while flying:
                done, _ = wait(flying, timeout=LOCK_POLL_S, return_when=FIRST_COMPLETED)
                if self._stop.is_set():
                    raise _interrupted(self._listing)
                for future in done:
                    part, number = flying.pop(future)
                    part.write(number, future.result())
                    self._done_bytes += part.length(number)
                self._tell()
                start_some()
        finally:
            for future in flying:
                future.cancel()

    def _read(self, part: "_Part", number: int) -> bytes:
        start = number * self._chunk_bytes
        return self._source.read_range(part.file, start=start, length=part.length(number))

    def _is_there(self, file: ModelFile) -> bool:
        path = self._folder / file.name
        return path.is_file() and path.stat().st_size == file.num_bytes

    def _require_space(self, missing: list[ModelFile]) -> None:
        free = shutil.disk_usage(self._folder).free
        there = sum(_Part(self._folder, f, self._chunk_bytes).num_bytes_there for f in missing)
        if sum(file.num_bytes for file in missing) - there + _SPARE_BYTES > free:
            raise _full(self._listing, self._folder, free)

    def _tell(self) -> None:
        self._told(FetchProgress(self._done_bytes, self._listing.num_bytes))


class _Part:
    """A file that is being fetched: its bytes so far, and which chunks they are."""

    def __init__(self, folder: Path, file: ModelFile, chunk_bytes: int) -> None:
        self.file = file
        self._chunk_bytes = chunk_bytes
        self._path = folder / file.name
        self._bytes = self._path.with_name(self._path.name + ".part")
        self._notes = self._path.with_name(self._path.name + ".chunks")
        self._there = self._noted()

    @property
    def num_bytes_there(self) -> int:
        return sum(self.length(number) for number in self._there)

    def length(self, number: int) -> int:
        return min(self._chunk_bytes, self.file.num_bytes - number * self._chunk_bytes)

    def missing(self) -> Iterator[int]:
        num_chunks = -(-self.file.num_bytes // self._chunk_bytes)
        yield from (number for number in range(num_chunks) if number not in self._there)

    def write(self, number: int, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._bytes, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, data, number * self._chunk_bytes)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if not self._there:
            self._notes.write_text(self._header())
        with self._notes.open("a") as notes:
            notes.write(f"{number}\n")
        self._there.add(number)

    def finish(self, place: str) -> None:
        """Check the digest, and give the file its name. Raises `ModelDamaged`, and then forgets the
        bytes, so that another fetch reads them anew."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self.file.num_bytes:
            self._bytes.touch()
        found = _digest(self._bytes, self.file)
        if found != self.file.digest:
            self._bytes.unlink()
            self._notes.unlink(missing_ok=True)
            raise ModelDamaged(
                place,
                f"{self.file.name} came with {found}, but its listing says {self.file.digest}; "
                "the copy there is damaged or was replaced: put it there again, and start anew",
            )
        self._bytes.replace(self._path)
        self._notes.unlink(missing_ok=True)

    def _noted(self) -> set[int]:
        """Chunks of an earlier fetch of these very bytes; a torn last line is left out."""
        try:
            text = self._notes.read_text()
        except FileNotFoundError:
            return set()
        if not text.startswith(self._header()) or not self._bytes.exists():
            return set()
        lines = text[len(self._header()) :].split("\n")[:-1]
        return {int(line) for line in lines if line.isdecimal()}

    def _header(self) -> str:
        return f"{self.file.digest} {self.file.num_bytes} {self._chunk_bytes}\n"


def _digest(path: Path, file: ModelFile) -> str:
    """Of the bytes on the disk, in the kind that the listing has. An ETag says nothing of the
    bytes: it was compared before they were read."""
    kind = file.digest.partition(":")[0]
    if kind == "git":
        hashed = hashlib.sha1(f"blob {file.num_bytes}\0".encode(), usedforsecurity=False)
    elif kind in ("sha256", "md5"):
        hashed = hashlib.new(kind, usedforsecurity=False)
    else:
        return file.digest
    with path.open("rb") as opened:
        while data := opened.read(_READ_BYTES):
            hashed.update(data)
    return f"{kind}:{hashed.hexdigest()}"


def _interrupted(listing: ModelListing) -> Interrupted:
    return Interrupted(listing.place, "told to leave while its weights were fetched")


def _full(listing: ModelListing, folder: Path, free_bytes: int) -> ModelError:
    need = (listing.num_bytes + _SPARE_BYTES) / 1e9
    return ModelError(
        listing.place,
        f"needs {need:.1f} GB in {folder}, where {free_bytes / 1e9:.1f} GB are free; take a type "
        "with a larger local disk, or a larger root volume (shunt aws setup --volume-gb)",
    )
