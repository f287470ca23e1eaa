"""Files that a command writes where a person says."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from shunt.errors import JobError


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Raises `JobError` where the block cannot write the file."""
    try:
        yield
    except OSError as error:
        raise JobError(f"{path}: cannot be written: {error.strerror}; name another file") from error
