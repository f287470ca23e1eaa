"""The files of a dataset: found by path or glob, local or on S3, opened through decompression."""

# Fsspec has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportMissingTypeStubs=false, reportDeprecated=false

import gzip
import io
import stat
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import fsspec
import xxhash
import zstandard
from fsspec.implementations.local import LocalFileSystem

from shunt.errors import InputError
from shunt.job.job import Input

FileFormat = Literal["jsonl", "parquet", "csv"]

_BLOCK_BYTES = 8 << 20
_ZSTD_READ_BYTES = 1 << 16
_SUFFIXES: dict[str, FileFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
}
_WILD = "*?["
_COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file, not opened yet."""

    uri: str
    filesystem: Any
    path: str
    shares_name: bool = False
    """Another file of the dataset has the same last part."""
    folders: tuple[str, ...] = ()
    """The folders between what was named and the file: `key=value` in them are columns."""

    @property
    def name(self) -> str:
        """For messages: the last part of where it is, or all of it where that tells no file."""
        return self.uri if self.shares_name else _last_part(self.uri)

    @property
    def compression(self) -> str:
        return next((c for c in _COMPRESSIONS if self.uri.endswith(c)), "")

    @property
    def delimiter(self) -> str:
        """Between the fields of a table in text, by the name."""
        return "\t" if self.uri.removesuffix(self.compression).endswith(".tsv") else ","

    def format(self) -> FileFormat:
        """What the name says. Raises `InputError` when it says nothing."""
        stem = self.uri.removesuffix(self.compression)
        for suffix, file_format in _SUFFIXES.items():
            if stem.endswith(suffix):
                return file_format
        known = ", ".join(_SUFFIXES)
        raise InputError(f"{self.uri}: set input.format, as the name ends in none of {known}")

    @contextmanager
    def open_raw(self) -> Iterator[IO[bytes]]:
        """The bytes as they are stored. Raises `InputError` when they cannot be read."""
        try:
            with self.filesystem.open(self.path, "rb") as raw:
                yield raw
        except _read_errors(self.uri) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise InputError(f"{self.uri}: cannot be read: {why or error}") from error

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes after decompression. Raises `InputError` on a damaged or cut archive."""
        with self.open_raw() as raw:
            try:
                yield self._decompressed(raw)
            except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
                raise InputError(f"{self.uri}: the archive is damaged or cut: {error}") from error

    def stamp(self) -> tuple[object, ...]:
        """What changes when the file does: size, and time of change or ETag."""
        self.filesystem.invalidate_cache()
        try:
            info = self.filesystem.info(self.path)
        except _read_errors(self.uri) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise InputError(f"{self.uri}: cannot be read: {why or error}") from error
        return tuple(info.get(name) for name in ("size", "mtime", "ETag"))

    def digest(self) -> tuple[int, str]:
        """(number of bytes, xxh3-128) of the stored bytes, by one streaming read."""
        digest, size = xxhash.xxh3_128(), 0
        with self.open_raw() as raw:
            while block := raw.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        return size, digest.hexdigest()

    def _decompressed(self, raw: IO[bytes]) -> IO[bytes]:
        if self.compression == ".gz":
            return io.BufferedReader(gzip.GzipFile(fileobj=raw), _BLOCK_BYTES)  # type: ignore[arg-type]
        if self.compression == ".zst":
            return io.BufferedReader(_ZstdStream(raw), _BLOCK_BYTES)
        return raw


class _ZstdStream(io.RawIOBase):
    """Frames one after the other; unlike the library's reader it says so when one was cut."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame: Any = None
        self._compressed = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._more():
            self._decompress()
        taken, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _more(self) -> bool:
        self._compressed = self._compressed or self._raw.read(_ZSTD_READ_BYTES)
        if not self._compressed and self._frame is not None:
            raise EOFError("it ends in the middle of a frame")
        return bool(self._compressed)

    def _decompress(self) -> None:
        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._ready = self._frame.decompress(self._compressed)
        self._compressed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None


def input_files(job_input: Input) -> list[SourceFile]:
    """The files of a job's input. Raises `InputError`."""
    return find_files(
        job_input.path, endpoint_url=job_input.endpoint_url, options=job_input.storage_options
    )


def find_files(
    paths: str | Sequence[str],
    *,
    endpoint_url: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[SourceFile]:
    """The files that the paths and globs name: those of a glob sorted, a list in its own order.
    `options`: of the file system, for paths with a scheme.

    A path that exists as it is written is that file, whatever signs are in its name. A directory is
    all files in it and below, but those whose names or folders begin with `_` or `.`. Raises
    `InputError` for a path that names nothing.
    """
    found: dict[str, SourceFile] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        for source in _expand(path, _options(path, endpoint_url, options or {})):
            found.setdefault(source.uri, source)
    names = Counter(map(_last_part, found))
    return [replace(s, shares_name=names[_last_part(s.uri)] > 1) for s in found.values()]


def _last_part(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _options(path: str, endpoint_url: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    if "://" not in path:
        return {}
    if path.startswith("s3://") and endpoint_url is not None:
        client = {"endpoint_url": endpoint_url, **given.get("client_kwargs", {})}
        return {**given, "client_kwargs": client}
    return dict(given)


def _expand(path: str, options: Mapping[str, Any]) -> list[SourceFile]:
    try:
        filesystem, plain = fsspec.core.url_to_fs(path, **options)
        is_glob = any(sign in path for sign in _WILD) and not filesystem.exists(plain)
        named = sorted(filesystem.glob(plain)) if is_glob else [plain]
        names = [name for each in named for name in _files_of(filesystem, each, path)]
        _require_regular(filesystem, names)
    except (ImportError, ValueError, TypeError, *_read_errors(path)) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not names:
        raise InputError(f"{path}: no file {'matches' if is_glob else 'is in it'}")
    scheme = path.split("://", 1)[0] + "://" if "://" in path else ""
    root = _literal_folder(plain) if is_glob else plain
    return [
        SourceFile(f"{scheme}{name}", filesystem, name, folders=_folders_below(root, name))
        for name in names
    ]


def _files_of(filesystem: Any, name: str, path: str) -> list[str]:
    """The file of this name, or all that are in the directory."""
    if filesystem.isdir(name):
        found = sorted(filesystem.find(name))
        return [file for file in found if not _is_hidden(_below(name, file))]
    if not filesystem.exists(name):
        raise InputError(f"{path}: there is no such file")
    return [name]


def _require_regular(filesystem: Any, names: Sequence[str]) -> None:
    """Raises `InputError` for what could be read once at most, or would be waited for for ever."""
    if not isinstance(filesystem, LocalFileSystem):
        return
    for name in names:
        if not stat.S_ISREG(Path(name).stat().st_mode):
            raise InputError(
                f"{name}: is a pipe, a socket or a device; write it to a file first, as the input "
                "is read more than once"
            )


def _is_hidden(parts: list[str]) -> bool:
    return any(part.startswith((".", "_")) and "=" not in part for part in parts)


def _literal_folder(pattern: str) -> str:
    """What of a glob stands before its first wild part."""
    parts = pattern.split("/")
    wild = next(number for number, part in enumerate(parts) if any(sign in part for sign in _WILD))
    return "/".join(parts[:wild])


def _below(root: str, name: str) -> list[str]:
    return name.removeprefix(root.rstrip("/")).strip("/").split("/")


def _folders_below(root: str, name: str) -> tuple[str, ...]:
    return tuple(_below(root, name)[:-1])


def _read_errors(uri: str) -> tuple[type[Exception], ...]:
    """What a file system raises when it cannot read."""
    if not uri.startswith("s3://"):
        return (OSError,)
    # Where nothing is on S3, neither s3fs nor its client need be installed.
    from shunt.dataset.s3_errors import S3_READ_ERRORS

    return (OSError, *S3_READ_ERRORS)
