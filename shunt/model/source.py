"""Where a model's files are read from: one seam for whoever needs whole files or parts of them.

`fetch` (shunt.model.fetching) reads whole files through it. A loader that needs the tensors of some
layers alone reads the safetensors header and then just those byte ranges through the same
`read_range`, so that there is one way to a model's bytes, not two.
"""

from pathlib import Path
from typing import Protocol

from shunt.model.errors import ModelMissing
from shunt.model.listing import ModelFile, ModelListing, wanted_files


class ModelSource(Protocol):
    """Lists a model's files and reads ranges of them. May be used from several threads at once.

    Both verbs retry what is transient, within bounds, and raise `shunt.model.errors` only.
    """

    def listing(self) -> ModelListing:
        """The files that are there now, weights in one format only."""
        ...

    def read_range(self, file: ModelFile, *, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`; the range must lie inside of the file. Raises
        `ModelDamaged` where the place holds another version of the file by now."""
        ...


class DirectorySource:
    """A model in Hugging Face layout in a directory of this machine. Sizes, and no digests: whoever
    needs them reads the files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def listing(self) -> ModelListing:
        if not (self._path / "config.json").is_file():
            raise ModelMissing(str(self._path), "no config.json: it is no Hugging Face model")
        files = [
            ModelFile(name=path.relative_to(self._path).as_posix(), num_bytes=path.stat().st_size)
            for path in self._path.rglob("*")
            if path.is_file()
        ]
        return ModelListing(kind="directory", place=str(self._path), files=wanted_files(files))

    def read_range(self, file: ModelFile, *, start: int, length: int) -> bytes:
        with (self._path / file.name).open("rb") as opened:
            opened.seek(start)
            return opened.read(length)
