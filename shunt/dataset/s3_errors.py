"""What a read from S3 through fsspec can raise of AWS's client, beside plain `OSError`s."""

from botocore.exceptions import (  # pyright: ignore[reportMissingTypeStubs]
    BotoCoreError,
    ClientError,
)

S3_READ_ERRORS: tuple[type[Exception], ...] = (BotoCoreError, ClientError)
"""No endpoint, no credentials, no right: s3fs hands these on as they are."""
