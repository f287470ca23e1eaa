"""Fixtures that more than one folder of tests uses."""

from collections.abc import Generator

import pytest

from shunt.testing.s3_server import S3Server, s3_server


@pytest.fixture(scope="session")
def s3() -> Generator[S3Server]:
    """One S3 server for the whole session; give each test its own prefix."""
    with s3_server() as server:
        yield server
