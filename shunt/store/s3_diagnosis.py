"""Why a bucket cannot be used, in one sentence with what to do about it.

obstore tells a bucket that is missing from a wrong key by the text of its errors alone. So the
bucket is asked again: by a plain request that needs no credentials, for the way to it, and by
botocore, whose errors have codes, for the rest.
"""

# Botocore has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import http.client
import importlib.util
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from shunt.store.credentials import AwsChain, Credentials
from shunt.store.errors import CredentialsMissing
from shunt.store.s3 import S3Access

LIMIT_S = 1.5
"""Of each of the two questions: whoever asks sits at a terminal."""
_REGION_HEADER = "x-amz-bucket-region"

_DENIED = "AccessDenied"
_OF_CODE = {
    "NoSuchBucket": "there is no bucket {bucket} at {endpoint}: create it, or correct the name",
    "InvalidAccessKeyId": (
        "{endpoint} does not know the access key: check where the credentials come from "
        "(AWS_PROFILE, AWS_ACCESS_KEY_ID, store.access_key_id_env)"
    ),
    "SignatureDoesNotMatch": (
        "the secret key does not belong to the access key: check where the credentials come from "
        "(AWS_PROFILE, AWS_SECRET_ACCESS_KEY, store.secret_access_key_env)"
    ),
    "ExpiredToken": "the credentials have lapsed: run `aws sso login`, or export new ones",
    "InvalidToken": "the session token is not valid: log in again, or unset AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "the clock of this machine is wrong by minutes: set it",
    _DENIED: (
        "access denied: this identity needs s3:ListBucket on the bucket {bucket}, and s3:GetObject "
        "and s3:PutObject under the prefix (`aws sts get-caller-identity` says who it is)"
    ),
}
_OTHER_NAMES = {
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "403": _DENIED,
    "AllAccessDisabled": _DENIED,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a bucket, and what to do."""

    told: str
    denied: bool = False
    """Whether it is there, and this identity may not list it."""


def diagnose(bucket: str, prefix: str, access: S3Access) -> Fault | None:
    """Why a bucket just failed; None where all is well by now, or will be."""
    if isinstance(access.credentials, AwsChain):
        try:
            access.credentials.current()
        except CredentialsMissing as error:
            return Fault(str(error))
    endpoint = access.endpoint_url or f"https://s3.{access.region or 'us-east-1'}.amazonaws.com"
    if blocked := _way(endpoint, bucket, access):
        return Fault(blocked)
    return _answer(endpoint, bucket, prefix, access)


def _way(endpoint: str, bucket: str, access: S3Access) -> str:
    """What keeps us from the server, or from the bucket's region."""
    url = urlsplit(endpoint)
    try:
        headers = _head(url, bucket)
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {endpoint} is not trusted ({error.verify_message})"
    except ssl.SSLError:
        return f"{endpoint} does not speak TLS: write endpoint_url as http://{url.netloc}"
    except socket.gaierror:
        return f"there is no host {url.hostname}: check endpoint_url, the region and the network"
    except ConnectionRefusedError:
        return f"nothing listens at {endpoint}: check endpoint_url, and that the server runs"
    except TimeoutError:
        return f"{endpoint} does not answer within {LIMIT_S:g} s: check endpoint_url and network"
    except (OSError, http.client.HTTPException) as error:
        return f"{endpoint} cannot be reached ({error}): check endpoint_url and the network"
    region, ours = headers.get(_REGION_HEADER), access.region or "us-east-1"
    if region and region != ours:
        return f"the bucket {bucket} is in {region}, not in {ours}: set store.region to {region}"
    return ""


def _head(url: SplitResult, bucket: str) -> http.client.HTTPMessage:
    """S3 names a bucket's region also to those whom it refuses (API reference of HeadBucket)."""
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(str(url.hostname), url.port, timeout=LIMIT_S)
    try:
        connection.request("HEAD", f"{url.path.rstrip('/')}/{quote(bucket)}")
        return connection.getresponse().headers
    finally:
        connection.close()


def _answer(endpoint: str, bucket: str, prefix: str, access: S3Access) -> Fault | None:
    """What the server says of the question that the store asks first."""
    if importlib.util.find_spec("botocore") is None:
        return None
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        listing = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": 1}
        _client(endpoint, access).list_objects_v2(**listing)
    except ClientError as error:
        return _told(error.response, endpoint, bucket)
    except BotoCoreError as error:
        return Fault(f"{endpoint}: {error}")
    return None


def _client(endpoint: str, access: S3Access) -> Any:
    # Not in the worker environment.
    from botocore.config import Config
    from botocore.session import Session

    found = access.credentials
    pair = found.current() if isinstance(found, AwsChain) else found or Credentials("", "")
    return Session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name=access.region or "us-east-1",
        aws_access_key_id=pair.access_key_id,
        aws_secret_access_key=pair.secret_access_key,
        aws_session_token=pair.session_token,
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=LIMIT_S,
            read_timeout=LIMIT_S,
            s3={"addressing_style": "path"},
        ),
    )


def _told(response: Any, endpoint: str, bucket: str) -> Fault | None:
    """A server error or a throttle is no fault of the configuration, and passes."""
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    code = response["Error"].get("Code", "")
    code = _OTHER_NAMES.get(code, code)
    if code in _OF_CODE:
        told = _OF_CODE[code].format(bucket=bucket, endpoint=endpoint)
        return Fault(told, denied=code == _DENIED)
    if status >= 500 or status == http.client.TOO_MANY_REQUESTS:
        return None
    if not response["ResponseMetadata"].get("RequestId"):
        return Fault(f"{endpoint} answers {status}, but not as S3 does: check endpoint_url")
    message = response["Error"].get("Message", "")
    return Fault(f"{endpoint} refuses the bucket {bucket} ({code}): {message}")
