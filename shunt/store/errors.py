"""What can go wrong with the object store.

StoreError                 the store refused or failed
|- ObjectMissing           no object under this key
|- ObjectKeyInvalid        the key is one that not every store can hold
|- StoreDenied             the credentials do not allow the call
|  |- CredentialsMissing   there are none, or they lapsed
|- StoreFull               no space left for the object
|- StoreUnavailable        transient; retries are used up, and a write may or may not have happened
"""

from shunt.errors import ShuntError

_HEAD_CHARS, _TAIL_CHARS = 200, 150
"""Of another program's message: the answer of a server that is not S3 may be a whole page."""


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


class CredentialsMissing(StoreDenied):
    """No credentials were found, or those that there were have lapsed and could not be renewed."""


class StoreFull(StoreError):
    """The store had no space left; nothing of the object is visible."""


class StoreUnavailable(StoreError):
    """The store did not give an answer in time. A write may or may not have happened."""


def brief(message: object) -> str:
    """Another program's message in one line of bounded length."""
    told = " ".join(str(message).split())
    if len(told) <= _HEAD_CHARS + _TAIL_CHARS:
        return told
    return f"{told[:_HEAD_CHARS]} ... {told[-_TAIL_CHARS:]}"
