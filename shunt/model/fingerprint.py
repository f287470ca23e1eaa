"""Which model lies in a directory, by its bytes and not by its place or its dates.

Configuration, tokenizer and templates count whole. Of weights, which take minutes to read, count
size, safetensors header (names, types and shapes) and samples over the whole file: another training
run changes every tensor, so it cannot miss them all. A copy elsewhere is the same model.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from shunt.model.errors import ModelMissing
from shunt.model.listing import ModelFile
from shunt.model.source import DirectorySource

_SAMPLES = 64
_SAMPLE_BYTES = 4096
_WHOLE_BYTES = 64 << 20
"""Files that are no weights count whole up to this; the largest tokenizers have 35 MB."""
_HEADER_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 32 << 20
_NO_MATTER = (".md", ".txt", ".png", ".jpg", ".pdf", ".lock", ".gitattributes", ".gitignore")
_COUNT_ANYWAY = ("merges.txt", "vocab.txt")


def directory_fingerprint(path: Path) -> str:
    """Hexadecimal; empty where there is no model and no adapter in the directory."""
    if (path / "config.json").is_file():
        return _fingerprint(path, DirectorySource(path).listing().files)
    if (path / "adapter_config.json").is_file():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        files = tuple(ModelFile(name=n, num_bytes=(path / n).stat().st_size) for n in names)
        return _fingerprint(path, files)
    return ""


def _fingerprint(path: Path, files: tuple[ModelFile, ...]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        if file.name.endswith(_NO_MATTER) and file.name.rpartition("/")[2] not in _COUNT_ANYWAY:
            continue
        digest.update(f"{file.name}\0{file.num_bytes}\0".encode())
        for block in _blocks(path, file):
            digest.update(block)
    return digest.hexdigest()[:32]


def _blocks(path: Path, file: ModelFile) -> Iterator[bytes]:
    try:
        with (path / file.name).open("rb") as opened:
            if not file.is_weights and file.num_bytes <= _WHOLE_BYTES:
                yield opened.read()
                return
            if file.name.endswith(".safetensors"):
                length = int.from_bytes(opened.read(_HEADER_LENGTH_BYTES), "little")
                yield opened.read(min(length, _MOST_HEADER_BYTES))
            last = max(0, file.num_bytes - _SAMPLE_BYTES)
            for number in range(_SAMPLES):
                opened.seek(last * number // (_SAMPLES - 1))
                yield opened.read(_SAMPLE_BYTES)
    except OSError as error:
        reason = f"{file.name} cannot be read: {error.strerror}"
        raise ModelMissing(str(path), reason) from error
