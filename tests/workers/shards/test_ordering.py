"""Serving order: over all that waits, prefixes together, long ones first."""

from shunt.checkpoint.request import Request
from shunt.job.sampling import Sampling
from workers.admission import Admission
from workers.shards.ordering import PREFIX_TOKENS, in_serving_order, share_prefixes


def request(index: int, *, prefix: int, max_tokens: int = 16) -> Request:
    prompt = (prefix,) * PREFIX_TOKENS + (index,)
    return Request(f"{index}.0", prompt, Sampling(max_tokens=max_tokens))


def test_a_prefix_that_is_spread_over_shards_is_served_in_one_go() -> None:
    """Its group is placed by the longest member, which another shard may have brought."""
    admission = Admission(max_deaths=2)
    admission.add([request(0, prefix=1), request(1, prefix=2, max_tokens=20)])
    admission.add([request(2, prefix=1, max_tokens=99), request(3, prefix=2)])
    served = [found.request_id for _ in range(4) if (found := admission.next(0)) is not None]
    assert served == ["0.0", "2.0", "1.0", "3.0"]


def test_without_common_prefixes_the_longest_comes_first() -> None:
    lengths = [3, 50, 7, 20]
    requests = [request(i, prefix=i, max_tokens=n) for i, n in enumerate(lengths)]
    assert [r.sampling.max_tokens for r in in_serving_order(requests)] == [50, 20, 7, 3]


def test_common_prefixes_are_noticed() -> None:
    assert not share_prefixes([request(i, prefix=i) for i in range(8)])
    assert share_prefixes([request(i, prefix=i // 2) for i in range(8)])
