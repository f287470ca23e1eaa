"""What S3 requests are signed with: a pair that the job names, or the chain of AWS's own tools.

obstore looks into environment variables and asks containers and instances for their role. Profiles,
SSO, assumed roles and `credential_process` of the AWS configuration are botocore's, through which
EC2 is asked and inputs are read. Where botocore is installed, the store signs with its chain too.
Workers have no botocore: nodes have a role, and local workers ask their controller
(`shunt.store.credential_server`).
"""

# Botocore has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false

import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from shunt.store.errors import CredentialsMissing, brief

if TYPE_CHECKING:  # obstore has this name for type checkers only
    from obstore.store import S3Credential

OBSTORE_MARGIN_S = 300
"""obstore asks for new credentials when what it has lasts no longer than this (object_store's
token cache; tried with obstore 0.12)."""
ASK_AGAIN_S = 30
"""How soon a pair that somebody replaced in a file is found."""

_LOG_IN = "set AWS_PROFILE, run `aws sso login`, export a key pair, or give this machine a role"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair, and the token that goes with a temporary one."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class AwsChain:
    """Looked through again and again, as obstore asks. For any thread.

    What renews itself (a role, SSO) is kept, and renewed by botocore ten minutes before it lapses.
    What stands in a file is read again, so that a pair which somebody replaced there is found.
    """

    def __init__(
        self,
        session: Callable[[], Any],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session, self._now = session, now
        self._lock = threading.Lock()
        self._held: Any = None
        self._last: Credentials | None = None
        self.fault = ""
        """Why there were none at the last try; empty when there were."""

    def __call__(self) -> "S3Credential":
        """What obstore calls. Raises `CredentialsMissing`."""
        found = self.current()
        return {
            "access_key_id": found.access_key_id,
            "secret_access_key": found.secret_access_key,
            "token": found.session_token,
            "expires_at": self._now() + timedelta(seconds=OBSTORE_MARGIN_S + ASK_AGAIN_S),
        }

    def current(self) -> Credentials:
        """Raises `CredentialsMissing`."""
        with self._lock:
            try:
                self._last = self._looked_up()
            except CredentialsMissing as error:
                self.fault = str(error)
                self._held = None  # somebody may log in meanwhile: begin anew
                raise
            self.fault = ""
            return self._last

    def _looked_up(self) -> Credentials:
        # Not in the worker environment.
        from botocore.credentials import RefreshableCredentials
        from botocore.exceptions import BotoCoreError, ClientError

        if not isinstance(self._held, RefreshableCredentials):
            self._held = None
        try:
            self._held = self._held or self._session().get_credentials()
            if self._held is None:
                raise CredentialsMissing(f"no AWS credentials were found: {_LOG_IN}")
            frozen: Any = self._held.get_frozen_credentials()
        except (BotoCoreError, ClientError, RuntimeError) as error:
            # A renewal that fails is an error ten minutes before it is a loss.
            if self._held and self._last and not self._held.refresh_needed(refresh_in=0):
                return self._last
            why = f"there are no AWS credentials ({brief(error)}): {_LOG_IN}"
            raise CredentialsMissing(why) from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)


def aws_chain() -> AwsChain | None:
    """The chain of this process; None where botocore is not installed."""
    if importlib.util.find_spec("botocore") is None:
        return None
    from botocore.session import Session

    return AwsChain(Session)


def aws_endpoint() -> str | None:
    """Of a server that is not AWS, by the variables that obstore and AWS's tools know."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next(filter(None, map(os.environ.get, names)), None)


def aws_region() -> str | None:
    """What environment variables, or else the profile of the AWS configuration, name. The two
    variables are read here, as botocore knows but one of them."""
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if named := os.environ.get(variable):
            return named
    if importlib.util.find_spec("botocore") is None:
        return None
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        return Session().get_config_variable("region")
    except BotoCoreError:  # a profile that is not there is told when credentials are looked for
        return None
