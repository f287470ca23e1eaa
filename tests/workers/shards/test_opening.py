"""What becomes of a shard's rows when it is opened."""

from pathlib import Path

import pytest

from shunt.checkpoint.generation import Finish, Generation
from shunt.checkpoint.lease import LeaseObserver
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.progress import replay
from shunt.checkpoint.request import digest_of
from shunt.checkpoint.segment import Gain
from shunt.dataset.prompt import Prompt
from shunt.job.sampling import Sampling
from shunt.store.opening import open_store
from workers.shards.cadence import Cadence
from workers.shards.opening import choice_sampling, hold_shard

RUN, SHARD = "run", "000000"
PROMPT = Prompt(0, "a", Sampling(n=2, max_tokens=None), text="x")


def test_a_row_with_another_prompt_is_begun_again_with_all_its_choices(tmp_path: Path) -> None:
    """A choice that had finished, too: one row answers one prompt."""
    store = open_store(str(tmp_path))
    observer = LeaseObserver(store, RUN, 0.0, lambda: 0.0)
    lease = observer.acquire(SHARD, "one")
    assert lease is not None
    done = Finish("stop", None, "text")
    digest = digest_of((1, 2))
    ended = Generation(token_ids=(7,), prompt_digest=digest, finish=done)
    begun = Generation(token_ids=(8,), prompt_digest=digest)
    CheckpointLog(lease, replay(store, RUN, SHARD)).append(
        [Gain(0, 0, 0, ended), Gain(0, 1, 0, begun)]
    )
    for rendered, expected in (((1, 2), ["0.1"]), ((1, 3), ["0.0", "0.1"])):
        lease = observer.acquire(SHARD, "other")
        assert lease is not None
        opened = hold_shard(
            lease,
            [PROMPT],
            render=lambda _prompt, ids=rendered: ids,
            cadence=Cadence(10, 1000, 0, 0),
            context_tokens=10,
        )
        requests = opened.shard.open
        assert sorted(requests) == expected
        assert all(r.has_other_prompt == (rendered == (1, 3)) for r in requests.values())
        assert {r.sampling.max_tokens for r in requests.values()} == {8}


@pytest.mark.parametrize("seed", [None, -1])
def test_a_row_without_a_seed_is_given_one(seed: int | None) -> None:
    """To vLLM -1 is no seed: the row would be drawn otherwise after a move."""
    prompt = Prompt(0, "a", Sampling(temperature=1.0, seed=seed), text="x")
    given = choice_sampling("run", prompt, 0).seed
    assert given is not None
    assert given > 0
