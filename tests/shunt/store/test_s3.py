"""How the S3 store meets one bad answer at a time. A real server, a proxy that misbehaves."""

import random
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shunt.retry import NO_RETRY, RetryPolicy
from shunt.store.credentials import Credentials
from shunt.store.errors import ObjectMissing, StoreDenied, StoreError, StoreUnavailable
from shunt.store.s3 import S3Access, S3Store
from shunt.testing.fault_proxy import (
    TRANSIENT_FAULTS,
    FaultProxy,
    ProxiedRequest,
    ProxyFault,
    fault_proxy,
    in_order,
)
from shunt.testing.s3_server import S3Server

pytestmark = pytest.mark.s3

ATTEMPTS = 4
QUICK = RetryPolicy(attempts=ATTEMPTS, total_s=30.0, first_wait_s=0.01, max_wait_s=0.02)
NOT_CONFLICT = [fault for fault in TRANSIENT_FAULTS if fault is not ProxyFault.CONFLICT]


@pytest.fixture
def proxy(s3: S3Server) -> Generator[FaultProxy]:
    with fault_proxy(s3.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


def access(
    server: S3Server,
    endpoint_url: str,
    *,
    retry: RetryPolicy = QUICK,
    request_timeout_s: float = 30.0,
) -> S3Access:
    return S3Access(endpoint_url, server.region, server.credentials, request_timeout_s, retry)


@pytest.fixture
def store(s3: S3Server, proxy: FaultProxy, prefix: str) -> S3Store:
    """Through the proxy."""
    return S3Store(s3.bucket, prefix, access=access(s3, proxy.url))


@pytest.fixture
def rival(s3: S3Server, prefix: str) -> S3Store:
    """The same objects, past the proxy."""
    return S3Store(s3.bucket, prefix, access=access(s3, s3.endpoint_url))


def num_requests(proxy: FaultProxy) -> int:
    return proxy.counts.total()


@pytest.mark.parametrize("fault", TRANSIENT_FAULTS)
def test_a_create_survives_one_fault_and_is_ours(
    store: S3Store, rival: S3Store, proxy: FaultProxy, fault: ProxyFault
) -> None:
    proxy.choose = in_order([fault])
    assert store.put_if_absent("lease", b"ours")
    assert proxy.counts[fault] == 1
    assert rival.get("lease") == b"ours"


@pytest.mark.parametrize("fault", TRANSIENT_FAULTS)
def test_a_create_that_lost_says_so_through_one_fault(
    store: S3Store, rival: S3Store, proxy: FaultProxy, fault: ProxyFault
) -> None:
    rival.put("lease", b"theirs")
    proxy.choose = in_order([fault])
    assert not store.put_if_absent("lease", b"ours")
    assert proxy.counts[fault] == 1
    assert rival.get("lease") == b"theirs"


def test_a_lost_reply_is_recognised_at_the_second_attempt(
    store: S3Store, proxy: FaultProxy
) -> None:
    proxy.choose = in_order([ProxyFault.REPLY_LOST])
    assert store.put_if_absent("lease", b"ours")
    assert num_requests(proxy) == 3, "the put, the put again (412), the look at what is there"


def test_a_conflict_is_tried_again_and_may_be_won(store: S3Store, proxy: FaultProxy) -> None:
    proxy.choose = in_order([ProxyFault.CONFLICT] * (ATTEMPTS - 1))
    assert store.put_if_absent("lease", b"ours")
    assert proxy.counts[ProxyFault.CONFLICT] == ATTEMPTS - 1


def test_a_conflict_with_a_rival_that_finishes_is_lost(
    store: S3Store, rival: S3Store, proxy: FaultProxy
) -> None:
    def rival_wins(request: ProxiedRequest) -> ProxyFault | None:
        if request.number == 0:
            assert rival.put_if_absent("lease", b"theirs")
            return ProxyFault.CONFLICT
        return None

    proxy.choose = rival_wins
    assert not store.put_if_absent("lease", b"ours")


def test_conflicts_without_end_leave_it_open(store: S3Store, proxy: FaultProxy) -> None:
    proxy.choose = in_order([ProxyFault.CONFLICT] * 100)
    with pytest.raises(StoreUnavailable, match="409"):
        store.put_if_absent("lease", b"ours")
    assert proxy.counts[ProxyFault.CONFLICT] == ATTEMPTS


@pytest.mark.parametrize("fault", NOT_CONFLICT)
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_put_and_get_survive_one_fault(
    store: S3Store, proxy: FaultProxy, fault: ProxyFault, method: str
) -> None:
    proxy.choose = in_order([fault], method=method)
    data = random.Random(2).randbytes(200_000)
    store.put("a/segment", data)
    assert store.get("a/segment") == data
    assert proxy.counts[fault] == 1


@pytest.mark.parametrize("fault", NOT_CONFLICT)
def test_a_listing_survives_one_fault(store: S3Store, proxy: FaultProxy, fault: ProxyFault) -> None:
    store.put("a/b", b"1")
    proxy.choose = in_order([fault], method="GET")
    assert list(store.list("a/")) == ["a/b"]
    assert proxy.counts[fault] == 1


def test_a_request_without_an_answer_is_given_up_and_tried_again(
    s3: S3Server, proxy: FaultProxy, prefix: str
) -> None:
    store = S3Store(s3.bucket, prefix, access=access(s3, proxy.url, request_timeout_s=0.5))
    proxy.choose = in_order([ProxyFault.TIMEOUT])
    assert store.put_if_absent("lease", b"ours")
    proxy.choose = in_order([ProxyFault.TIMEOUT], method="GET")
    assert store.get("lease") == b"ours"
    assert proxy.counts[ProxyFault.TIMEOUT] == 2


@pytest.mark.parametrize(
    "verb", ["put", "put_if_absent", "get", "get_range", "size_bytes", "list", "delete"]
)
def test_no_retry_is_wrapped_around_a_retry(
    store: S3Store, rival: S3Store, proxy: FaultProxy, verb: str
) -> None:
    """A server that is down for good gets exactly the policy's number of requests."""
    rival.put("a/b", b"1")
    calls = {
        "put": lambda: store.put("a/b", b""),
        "put_if_absent": lambda: store.put_if_absent("a/b", b""),
        "get": lambda: store.get("a/b"),
        "get_range": lambda: store.get_range("a/b", start=0, length=1),
        "size_bytes": lambda: store.size_bytes("a/b"),
        "list": lambda: store.list("a/"),
        "delete": lambda: store.delete("a/b"),
    }
    proxy.choose = lambda _request: ProxyFault.SLOW_DOWN
    with pytest.raises(StoreUnavailable) as unavailable:
        calls[verb]()
    # A failed range asks for the size too, to tell a wrong range from a failure.
    assert num_requests(proxy) == ATTEMPTS * (2 if verb == "get_range" else 1)
    assert unavailable.value.uri == store.uri
    assert "run again" in str(unavailable.value)


@pytest.mark.parametrize("fault", NOT_CONFLICT)
@pytest.mark.parametrize("at", ["create upload", "part", "complete"])
def test_an_upload_survives_one_fault(
    store: S3Store, rival: S3Store, proxy: FaultProxy, tmp_path: Path, at: str, fault: ProxyFault
) -> None:
    data = random.Random(3).randbytes(20 << 20)
    (tmp_path / "big").write_bytes(data)
    method, before = {"create upload": ("POST", 0), "part": ("PUT", 1), "complete": ("POST", 1)}[at]
    proxy.choose = in_order([None] * before + [fault], method=method)
    store.put_file("results/big", tmp_path / "big")
    assert proxy.counts[fault] == 1
    rival.download("results/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_an_upload_to_a_server_that_is_down_ends(
    store: S3Store, rival: S3Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(bytes(20 << 20))
    proxy.choose = lambda request: ProxyFault.SLOW_DOWN if request.method == "PUT" else None
    with pytest.raises(StoreUnavailable):
        store.put_file("results/big", tmp_path / "big")
    assert list(rival.list("")) == []


def test_wrong_credentials_are_told_at_once(s3: S3Server, proxy: FaultProxy, prefix: str) -> None:
    wrong = Credentials(s3.credentials.access_key_id, "not the secret")
    store = S3Store(s3.bucket, prefix, access=S3Access(proxy.url, s3.region, wrong, retry=QUICK))
    with pytest.raises(StoreDenied, match="check the credentials"):
        store.put_if_absent("a", b"")
    assert num_requests(proxy) == 1


def test_a_server_that_is_not_there_is_told(prefix: str) -> None:
    access = S3Access("http://127.0.0.1:9", "us-east-1", Credentials("a", "b"), retry=NO_RETRY)
    with pytest.raises(StoreUnavailable, match="check the endpoint"):
        S3Store("bucket", prefix, access=access).get("a")


def test_a_missing_object_is_not_tried_again(store: S3Store, proxy: FaultProxy) -> None:
    with pytest.raises(ObjectMissing):
        store.get("absent")
    assert num_requests(proxy) == 1


def test_a_range_outside_of_the_object_is_not_tried_again(
    store: S3Store, proxy: FaultProxy
) -> None:
    store.put("a", b"0123")
    proxy.counts.clear()
    with pytest.raises(StoreError, match="outside"):
        store.get_range("a", start=4, length=1)
    assert num_requests(proxy) == 2


def test_a_long_listing_survives_faults_on_each_page(
    store: S3Store, rival: S3Store, proxy: FaultProxy
) -> None:
    keys = sorted(
        f"a/{number:04d}{joint}x" for number in range(700) for joint in ("-", "/", "0/", "1")
    )
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda key: rival.put_if_absent(key, b""), keys))
    proxy.choose = lambda request: None if request.number % 2 else ProxyFault.SLOW_DOWN
    assert list(store.list("a/")) == keys
    assert num_requests(proxy) == 6, "three pages, each at its second attempt"


def test_stores_of_one_bucket_do_not_see_each_other(s3: S3Server, prefix: str) -> None:
    one = S3Store(s3.bucket, f"{prefix}/run1", access=access(s3, s3.endpoint_url))
    other = S3Store(s3.bucket, f"{prefix}/run11", access=access(s3, s3.endpoint_url))
    one.put("a", b"1")
    assert list(other.list("")) == []
    assert one.uri == f"s3://{s3.bucket}/{prefix}/run1"


def test_secrets_stay_out_of_what_is_printed() -> None:
    assert "hush" not in repr(S3Access(credentials=Credentials("hush", "hush", "hush")))


def test_a_missing_object_is_missing_also_to_who_may_not_list_the_bucket(
    store: S3Store, rival: S3Store, proxy: FaultProxy
) -> None:
    """S3 then answers 403. What is there and is refused stays refused."""
    proxy.hides_missing = True
    rival.put("runs/r/nodes/b.json", b"there")
    rival.put("runs/r/nodes/a.jso", b"there")
    rival.put("runs/r/nodes/a.json2", b"there")
    for key in ("runs/r/nodes/a.json", "manifest.json", "runs/q/spend.json"):
        with pytest.raises(ObjectMissing):
            store.get(key)
        with pytest.raises(ObjectMissing):
            store.size_bytes(key)
    assert store.get("runs/r/nodes/b.json") == b"there"


def test_an_object_that_is_there_and_refused_is_denied(
    s3: S3Server, proxy: FaultProxy, store: S3Store
) -> None:
    store.put("runs/r/manifest.json", b"there")
    wrong = Credentials(s3.credentials.access_key_id, "not the secret")
    refused = S3Store(
        s3.bucket,
        store.uri.rsplit("/", 1)[-1],
        access=S3Access(proxy.url, s3.region, wrong, 30.0, QUICK),
    )
    with pytest.raises(StoreDenied):
        refused.get("runs/r/manifest.json")
    with pytest.raises(StoreDenied):
        refused.get("runs/r/nothing.json")
