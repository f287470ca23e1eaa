"""The files of a model: name, size and digest of each. The same listing is the same model."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot")
_PREFERRED = ".safetensors"
_FALLBACK = ".bin"
_LEFT_OUT_FOLDERS = ("original", "onnx", "metal", "openvino", "coreml")
"""Second copies of the weights in the formats of other programs, as hub repositories have them."""
_IDENTITY_DIGITS = 16


class ModelFile(BaseModel):
    """One file of a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Relative to the model's directory, with forward slashes."""
    num_bytes: int
    digest: str = ""
    """`sha256:` or `md5:` and the hexadecimal digest of the bytes; `git:` and the id that git gives
    them as a blob; `etag:` and what a bucket calls this version; empty where nobody knows one."""

    @property
    def is_weights(self) -> bool:
        return self.name.endswith(_WEIGHTS)


class ModelListing(BaseModel):
    """What a model consists of, at one commit, version or instant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    kind: Literal["directory", "s3", "hub"]
    place: str
    """The directory, `s3://bucket/prefix`, or the hub's id of the model."""
    commit: str = ""
    """Of the hub, in full: what a revision was resolved to."""
    files: tuple[ModelFile, ...]

    @property
    def identity(self) -> str:
        """Hexadecimal; the same for the same files, wherever they are."""
        files = sorted((f.name, f.num_bytes, f.digest) for f in self.files)
        text = json.dumps(files, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:_IDENTITY_DIGITS]

    @property
    def folder_name(self) -> str:
        """Of the copy on a machine: the model's own name, for people, and the identity."""
        return f"{PurePosixPath(self.place.rstrip('/')).name}-{self.identity}"

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    def without_weights(self) -> "ModelListing":
        """Configuration, tokenizer and chat template: what renders prompts."""
        files = tuple(file for file in self.files if not file.is_weights)
        return self.model_copy(update={"files": files})


def wanted_files(files: Iterable[ModelFile]) -> tuple[ModelFile, ...]:
    """The files that vLLM loads: safetensors where there are any, else PyTorch's, and everything
    that is no weights. Sorted by name. Hidden files are left out."""
    known = [
        file
        for file in files
        if not any(part.startswith(".") for part in file.name.split("/"))
        and file.name.split("/")[0] not in _LEFT_OUT_FOLDERS
    ]
    loadable = [file for file in known if file.name.endswith(_PREFERRED)]
    if not loadable:
        loadable = [file for file in known if file.name.endswith(_FALLBACK)]
    others = [file for file in known if not file.is_weights]
    return tuple(sorted([*loadable, *others], key=lambda file: file.name))
