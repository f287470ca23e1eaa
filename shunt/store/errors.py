"""What can go wrong with the object store.

StoreError                 the store refused or failed
|- ObjectMissing           no object under this key
|- ObjectKeyInvalid        the key is one that not every store can hold
|- StoreDenied             the credentials do not allow the call
|- StoreFull               no space left for the object
|- StoreUnavailable        transient; retries are used up, and a write may or may not have happened
"""

from shunt.errors import ShuntError


class StoreError(ShuntError):
    """The store refused or failed; `uri` and `key` say on what."""

    def __init__(self, message: str, *, uri: str = "", key: str = "") -> None:
        super().__init__(message)
        self.uri = uri
        self.key = key


class ObjectMissing(StoreError):
    """No object was found under the key."""


class ObjectKeyInvalid(StoreError):
    """The key or prefix was outside of what every store can hold."""


class StoreDenied(StoreError):
    """The credentials, or the rights of the user, did not allow the call."""


class StoreFull(StoreError):
    """The store had no space left; nothing of the object is visible."""


class StoreUnavailable(StoreError):
    """The store did not give an answer in time. A write may or may not have happened."""
