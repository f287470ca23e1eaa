"""Files that appear under their name whole or not at all, also after a power loss.

Bytes go to a hidden file in the same folder, are synced to the disk, and only then get their name;
then the folder is synced. A writer that is killed leaves at most a hidden file, which no listing
shows and which may be deleted when no writer runs.
"""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

STAGED_PREFIX = ".staged-"


@contextmanager
def staged_file(target: Path) -> Generator[tuple[BinaryIO, Path]]:
    """Open a new hidden file beside `target`; what is left of it goes when the block ends.

    Folders above are created. Call `publish_new` or `publish_over` inside the block.
    """
    make_folder(target.parent)
    staged = target.parent / f"{STAGED_PREFIX}{secrets.token_hex(8)}-{target.name}"
    try:
        with staged.open("xb") as file:
            yield file, staged
    finally:
        staged.unlink(missing_ok=True)


def publish_new(file: BinaryIO, staged: Path, target: Path) -> bool:
    """Give the staged file its name unless the name is taken: atomic between processes."""
    _sync_file(file)
    try:
        os.link(staged, target)
        created = True
    except FileExistsError:
        created = False
    staged.unlink()
    sync_folder(target.parent)
    return created


def publish_over(file: BinaryIO, staged: Path, target: Path) -> None:
    """Give the staged file its name, in the place of what bears it."""
    _sync_file(file)
    staged.replace(target)
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Create the folder and those above it, each synced into the one above."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
