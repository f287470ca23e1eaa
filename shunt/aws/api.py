"""Calls to AWS: errors of ours, bounded retries, and a count of the calls made."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]
from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]
from botocore.exceptions import (  # pyright: ignore[reportMissingTypeStubs]
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from shunt.aws.errors import AwsError, OutcomeUnknown, ThrottledError, error_of
from shunt.retry import RetryPolicy, call_with_retry

AWS_RETRY = RetryPolicy(attempts=8, total_s=120.0, first_wait_s=0.5, max_wait_s=20.0)
"""EC2 refills its request buckets within seconds."""


ASK_RETRY = RetryPolicy(attempts=3, total_s=15.0, first_wait_s=0.5, max_wait_s=3.0)
"""For a person who waits, and for questions whose answer one can do without."""

_NO_CREDENTIALS = (
    CredentialRetrievalError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)


def client_of(service: str, region: str) -> Any:
    """A boto3 client that does not retry: one layer does, and it is `AwsApi`. Raises `AwsError`."""
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30)
    try:
        return cast(Any, boto3).client(service, region_name=region, config=config)
    except BotoCoreError as error:
        raise _translated(f"client of {service}", error) from error


@dataclass(slots=True)
class AwsApi:
    """One service in one region."""

    client: Any
    sleep: Callable[[float], None] = time.sleep
    retry: RetryPolicy = AWS_RETRY
    calls: dict[str, int] = field(default_factory=dict[str, int])
    """Requests sent, by operation."""
    _counting: "threading.Lock" = field(default_factory=threading.Lock)

    def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Call by boto3's method name. Retries throttles and lost replies, so every call that
        changes something carries a client token or is idempotent by nature. Raises `AwsError`."""
        return call_with_retry(
            lambda: self._once(operation, params),
            policy=self.retry,
            transient=(ThrottledError, OutcomeUnknown),
            sleep=self.sleep,
        )

    def pages(self, operation: str, params: Mapping[str, Any], items: str) -> Iterator[Any]:
        """The items of all pages."""
        token = ""
        while True:
            page = self.call(operation, {**params, "NextToken": token} if token else params)
            yield from page.get(items, ())
            token = page.get("NextToken") or ""
            if not token:
                return

    def _once(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        with self._counting:
            self.calls[operation] = self.calls.get(operation, 0) + 1
        try:
            return getattr(self.client, operation)(**params)
        except ClientError as error:
            told = cast(dict[str, Any], cast(Any, error).response)["Error"]
            raise error_of(operation, told["Code"], told.get("Message", "")) from error
        except BotoCoreError as error:
            raise _translated(operation, error) from error


def _translated(operation: str, error: BotoCoreError) -> AwsError:
    """What the client itself refused or could not do, without a reply of AWS."""
    if isinstance(error, _NO_CREDENTIALS):
        return error_of(operation, "NoCredentials", str(error))
    if isinstance(error, (ConnectionError, HTTPClientError)):
        return error_of(operation, "ConnectionFailed", str(error))
    return error_of(operation, type(error).__name__, str(error))


__all__ = ["ASK_RETRY", "AWS_RETRY", "AwsApi", "AwsError", "client_of"]
