"""What an error of AWS means for us. Five classes, each with one reaction.

AwsError                 (a ShuntError)
|- CapacityError         a pool has none: block the pool for a while, take another
|- QuotaError            the account may have no more: block the family in the region
|- ThrottledError        asked too often: back off and ask again
|- PermissionRefused     IAM: stop, and say which permission
|  |- CredentialsRefused  nobody, or nobody any more: stop, and say so
|- ConfigurationError    the request can never work: stop
|- OutcomeUnknown        no reply: ask again with the same token, then list by tag
"""

import re

from shunt.errors import ShuntError

_CREDENTIALS = "valid AWS credentials (AWS_PROFILE, aws sso login, or a role)"


class AwsError(ShuntError):
    """AWS refused or failed a call."""

    def __init__(self, operation: str, code: str, message: str) -> None:
        super().__init__(f"{operation}: {code}: {message}")
        self.operation = operation
        self.code = code


class CapacityError(AwsError):
    """The pool had no capacity."""


class QuotaError(AwsError):
    """A quota of the account was reached."""


class ThrottledError(AwsError):
    """The account asked more often than it may."""


class PermissionRefused(AwsError):
    """The caller was not allowed to do it."""

    def __init__(self, operation: str, code: str, message: str, permission: str = "") -> None:
        named = re.search(r"perform: (\S+)", message)  # only to tell people, never to decide
        told = named[1] if named else f"the permission for {operation}"
        self.permission = permission or told
        super().__init__(operation, code, f"needs {self.permission}. {message}")


class CredentialsRefused(PermissionRefused):
    """There were no credentials, or AWS does not take them (any more)."""

    def __init__(self, operation: str, code: str, message: str) -> None:
        super().__init__(operation, code, message, _CREDENTIALS)


class ConfigurationError(AwsError):
    """The request was wrong and would be wrong again."""


class OutcomeUnknown(AwsError):
    """The reply was lost, so it may or may not have happened."""


# Codes as the EC2 API reference lists them; Karpenter and SkyPilot sort them alike.
_CLASSES: dict[type[AwsError], frozenset[str]] = {
    CapacityError: frozenset(
        {
            "InsufficientInstanceCapacity",
            "InsufficientHostCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientFreeAddressesInSubnet",
            "ReservationCapacityExceeded",
            "SpotMaxPriceTooLow",
            "UnfulfillableCapacity",
            "Unsupported",
        }
    ),
    QuotaError: frozenset(
        {
            "MaxSpotInstanceCountExceeded",
            "MaxFleetCountExceeded",
            "InstanceLimitExceeded",
            "VcpuLimitExceeded",
        }
    ),
    ThrottledError: frozenset(
        {
            "RequestLimitExceeded",
            "EC2ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
        }
    ),
    PermissionRefused: frozenset(
        {
            "UnauthorizedOperation",
            "AccessDenied",
            "AccessDeniedException",
            "OptInRequired",
        }
    ),
    CredentialsRefused: frozenset(
        {
            "AuthFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidClientTokenId",
            "NoCredentials",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        }
    ),
    OutcomeUnknown: frozenset(
        {
            "ConnectionFailed",
            "InternalError",
            "InternalFailure",
            "ServiceUnavailable",
            "Unavailable",
        }
    ),
}


def error_of(operation: str, code: str, message: str) -> AwsError:
    """The error of a code; a code that nobody listed is a wrong request."""
    for error_class, codes in _CLASSES.items():
        if code in codes:
            return error_class(operation, code, message)
    return ConfigurationError(operation, code, message)
