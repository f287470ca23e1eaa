"""What an error of AWS means for us. Five classes, each with one reaction.

AwsError                 (a ShuntError)
|- CapacityError         a pool has none: block the pool for a while, take another
|  |- NotOffered          the zone does not have the type: close the pool for good
|- QuotaError            the account may have no more: block the family in the region
|- ThrottledError        asked too often: back off and ask again
|- PermissionRefused     IAM: stop, and say which permission
|  |- CredentialsRefused  nobody, or nobody any more: stop, and say so
|- NotVisibleYet         what was just made (profile, template) is not known everywhere: wait
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


class NotOffered(CapacityError):
    """The zone does not have the type, or not in this market."""


class NotVisibleYet(AwsError):
    """Something that was made seconds ago is not known everywhere: ask again."""


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
        }
    ),
    # CreateFleet says the first for a type that a zone does not have, RunInstances the second
    # (karpenter-provider-aws #2243 and #476).
    NotOffered: frozenset({"InvalidFleetConfiguration", "Unsupported"}),
    NotVisibleYet: frozenset(
        {
            "InvalidLaunchTemplateName.NotFoundException",
            "InvalidLaunchTemplateId.NotFound",
            "InvalidLaunchTemplateId.NotFoundException",
            "InvalidLaunchTemplateId.VersionNotFound",
        }
    ),
    QuotaError: frozenset(
        {
            "MaxSpotInstanceCountExceeded",
            "MaxFleetCountExceeded",
            "InstanceLimitExceeded",
            "VolumeLimitExceeded",
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
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
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


_REMEDIES = {
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": (
        "AWS's own role for spot is missing, and the controller may not make it: run shunt aws "
        "setup with the rights of an administrator"
    ),
    "OptInRequired": "this region is not enabled: enable it under Account, AWS Regions",
    "RequestExpired": "the clock of this machine is wrong by minutes: set it (chronyc makestep)",
    "InvalidSubnetID.NotFound": "fleet.ec2.subnets names a subnet that the region does not have",
    "InvalidAMIID.NotFound": "the image of the launch template is gone: run shunt aws setup",
    "InvalidGroup.NotFound": "the security group of the launch template is gone: shunt aws setup",
    "InvalidParameterValue": "look at the launch template and its profile: run shunt aws doctor",
    "UnauthorizedOperation": "an encoded message is read by: aws sts decode-authorization-message",
}
"""What to do about errors that name no remedy of their own."""


def error_of(operation: str, code: str, message: str) -> AwsError:
    """The error of a code; a code that nobody listed is a wrong request."""
    if (remedy := _REMEDIES.get(code)) is not None:
        message = f"{message.rstrip('.')}. {remedy}"
    for error_class, codes in _CLASSES.items():
        if code in codes:
            return error_class(operation, code, message)
    return ConfigurationError(operation, code, message)
