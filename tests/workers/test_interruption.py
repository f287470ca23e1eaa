"""What tells a worker to go: EC2's metadata service."""

import asyncio
import threading
import time
from datetime import UTC, datetime

from shunt.aws.imds import Imds
from shunt.testing.ec2.imds_server import Metadata, imds_server
from workers.interruption import on_provider_notice


async def test_a_notice_is_heard_within_five_seconds_and_advice_is_not_one() -> None:
    metadata = Metadata(rebalance_at=datetime(2026, 3, 1, tzinfo=UTC))
    heard: asyncio.Queue[str] = asyncio.Queue()
    stopped = threading.Event()
    with imds_server(metadata) as url:
        thread = on_provider_notice(Imds(url), heard.put_nowait, stopped=stopped)
        await asyncio.to_thread(thread.join, 3.0)
        assert heard.empty()
        metadata.interruption_at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        told_s = time.monotonic()
        reason = await asyncio.wait_for(heard.get(), 10)
        assert time.monotonic() - told_s < 5
        assert "2026-03-01 12:00" in reason
        await asyncio.to_thread(thread.join, 5.0)
        assert not thread.is_alive()


async def test_a_metadata_service_that_is_away_is_no_notice_and_the_watch_can_be_stopped() -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    stopped = threading.Event()
    thread = on_provider_notice(Imds("http://127.0.0.1:9"), heard.put_nowait, stopped=stopped)
    await asyncio.to_thread(thread.join, 2.5)
    assert thread.is_alive()
    stopped.set()
    await asyncio.to_thread(thread.join, 5.0)
    assert not thread.is_alive()
    assert heard.empty()
