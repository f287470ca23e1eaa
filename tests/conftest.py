"""Fixtures that more than one folder of tests uses."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from shunt.testing.s3_server import S3Server, s3_server
from workers.warm.warm_process import WarmProcess

# A busy machine makes nothing wrong, and each run of the default tests asks the same. New examples
# are drawn by `make soak`.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("drawn", _PATIENT)
settings.register_profile("same", _PATIENT, derandomize=True)
settings.load_profile("same")


@pytest.fixture(scope="session")
def s3() -> Generator[S3Server]:
    """One S3 server for the whole session; give each test its own prefix."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def warm() -> Generator[WarmProcess]:
    """What the engines of the session are forked from: each start saves its imports."""
    process = WarmProcess(dict(os.environ))
    yield process
    process.close()
