"""Credentials for the workers of this machine, lent by the process that started them.

Workers have obstore alone, which knows no profiles and no SSO. It does know the service that a
container gets its role from, so the controller is one: on loopback, to whoever shows a token from a
file that only this user may read. Nothing secret is in an environment or on a command line, and
what the controller renews, its workers have.
"""

import json
import secrets
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from shunt.store.config import StoreConfig
from shunt.store.credentials import AwsChain, Credentials, aws_chain, aws_region
from shunt.store.errors import CredentialsMissing
from shunt.store.opening import directory_of

LENT_S = 600
"""botocore renews ten minutes before the end, so what is lent lasts as long. obstore asks again
when half of it is over: workers whose controller was killed have five minutes to save."""
_KEYS = "AWS_ACCESS_KEY_ID"


@contextmanager
def lent_credentials(
    config: StoreConfig, environment: Mapping[str, str]
) -> Generator[dict[str, str]]:
    """Environment variables by which a worker of this machine reaches the store as we do, for as
    long as the block lasts. Empty where it can by itself: a directory, keys in the environment."""
    by_itself = config.access_key_id_env is not None or bool(environment.get(_KEYS))
    chain = None if by_itself or directory_of(config.uri) is not None else aws_chain()
    if chain is None:
        yield {}
        return
    region = config.region or aws_region()
    with _served(chain) as told:
        yield told if region is None else {**told, "AWS_REGION": region}


@contextmanager
def _served(chain: AwsChain) -> Generator[dict[str, str]]:
    token = secrets.token_urlsafe(32)
    with TemporaryDirectory(prefix="shunt-credentials-") as folder:  # readable by this user alone
        token_file = Path(folder) / "token"
        token_file.write_text(token)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _lender(chain.current, token))
        thread = Thread(target=server.serve_forever, name="lent-credentials", daemon=True)
        thread.start()
        try:
            yield {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{server.server_port}/",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token_file),
            }
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _lender(current: Callable[[], Credentials], token: str) -> type[BaseHTTPRequestHandler]:
    class Lender(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not compare_digest(self.headers.get("Authorization", ""), token):
                self._answer(401, {"message": "no such token"})
                return
            try:
                self._answer(200, _document(current()))
            except CredentialsMissing as error:
                self._answer(503, {"message": str(error)})

        def _answer(self, status: int, document: Mapping[str, str]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # stderr is the view's
            del format, args

    return Lender


def _document(found: Credentials) -> dict[str, str]:
    """As the container credential provider of the AWS SDKs reads it (their reference guide)."""
    expires_at = datetime.now(UTC) + timedelta(seconds=LENT_S)
    return {
        "AccessKeyId": found.access_key_id,
        "SecretAccessKey": found.secret_access_key,
        "Token": found.session_token or "",
        "Expiration": expires_at.isoformat().replace("+00:00", "Z"),
    }
