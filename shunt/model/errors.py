"""What can go wrong with a model's files.

ModelError                 the files are not what they should be, or may not be read
|- ModelMissing            nothing of that name is there
|- ModelDenied             the token or the credentials do not allow it
|- ModelDamaged            the bytes are not those of the listing
|- ModelUnavailable        transient: no usable answer within the retries
"""

from shunt.errors import ShuntError


class ModelError(ShuntError):
    """A model's files could not be had; `place` says where they were looked for."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"model {place}: {message}")
        self.place = place


class ModelMissing(ModelError):
    """There was no such model, revision or file."""


class ModelDenied(ModelError):
    """The place did not let us read."""


class ModelDamaged(ModelError):
    """A file was not what the listing says of it."""


class ModelUnavailable(ModelError):
    """No usable answer came within the retries."""
