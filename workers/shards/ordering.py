"""The order in which waiting requests are served. Result order never depends on it."""

from collections.abc import Iterable, Sequence

from shunt.checkpoint.request import Request

PREFIX_TOKENS = 32
"""Requests that agree in so many first tokens share cached KV blocks: two blocks of vLLM's 16."""
_SHARING = 0.75
"""Fewer groups per request than this: prefixes are worth bringing together over shards."""

_UNLIMITED = 1 << 30


def in_serving_order(requests: Iterable[Request]) -> list[Request]:
    """Longest expected first, with requests that share a prefix side by side.

    Long generations first keep the tail of the shards short; neighbours with a common prefix find
    its KV blocks still cached. A group of one prefix is placed by its longest member.
    """
    ordered = sorted(_groups(requests).values(), key=_longest, reverse=True)
    return [request for group in ordered for request in _inside(group)]


def share_prefixes(requests: Sequence[Request]) -> bool:
    """Whether many of them have a prefix in common with another."""
    return len(_groups(requests)) <= _SHARING * len(requests)


def _groups(requests: Iterable[Request]) -> dict[tuple[int, ...], list[Request]]:
    groups: dict[tuple[int, ...], list[Request]] = {}
    for request in requests:
        groups.setdefault(request.prompt_token_ids[:PREFIX_TOKENS], []).append(request)
    return groups


def _longest(group: Sequence[Request]) -> int:
    return max(_expected_tokens(request) for request in group)


def _inside(group: Sequence[Request]) -> list[Request]:
    return sorted(group, key=lambda r: (r.prompt_token_ids, -_expected_tokens(r)))


def _expected_tokens(request: Request) -> int:
    """Tokens still to be generated at most: the only forecast that needs no model."""
    saved = len(request.saved.token_ids) if request.saved else 0
    limit = request.sampling.max_tokens
    return (_UNLIMITED if limit is None else limit) - saved
