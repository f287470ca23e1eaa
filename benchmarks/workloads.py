"""Prompt sets of the throughput benchmarks: made from a seed, so that others can ask for others."""

import random
from dataclasses import asdict, dataclass, replace
from typing import Any

_WORDS = ("river", "engine", "garden", "market", "planet", "letter", "bridge", "winter", "copper")


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts, the number of tokens that each is given, and the engine that serves them."""

    name: str
    prompts: list[str]
    output_tokens: list[int]
    max_num_seqs: int = 32
    shard_prompts: int = 48
    kv_blocks: int | None = None
    """Blocks of KV cache (128 tokens each on a CPU), where it is to be as scarce as on a GPU that
    its model nearly fills."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def short(seed: int, rows: int = 96) -> Workload:
    """A short run: what is paid once weighs most. All rows end together, in three waves."""
    return Workload("short", _varied(seed, rows), [64] * rows)


def varied(seed: int, rows: int = 256) -> Workload:
    """Prompts with nothing in common, answers of 16 to 112 tokens."""
    rng = random.Random(seed + 1)
    lengths = [rng.randrange(16, 113) for _ in range(rows)]
    return Workload("varied", _varied(seed + 1, rows), lengths)


def shared_prefix(seed: int, rows: int = 192, groups: int = 32) -> Workload:
    """Long instructions, each before several questions, shuffled over the dataset.

    All instructions together need more KV cache than there is, as with thousands of documents.
    """
    rng = random.Random(seed + 2)
    instructions = [
        f"You are assistant number {rng.randrange(10**6)}. "
        + " ".join(f"Rule {rng.randrange(10**4)}: be {rng.choice(_WORDS)}." for _ in range(72))
        for _ in range(groups)
    ]
    prompts = [f"{instructions[n % groups]} Question {n}: name {n} things." for n in range(rows)]
    rng.shuffle(prompts)
    lengths = [rng.randrange(8, 25) for _ in range(rows)]
    return Workload("shared prefix", prompts, lengths, kv_blocks=120)


MAKERS = {"short": short, "varied": varied, "shared": shared_prefix}


def small(workload: Workload, rows: int = 48) -> Workload:
    """Enough of it to count steps and requests on a machine with no time to spare."""
    return replace(
        workload,
        prompts=workload.prompts[:rows],
        output_tokens=[max(4, tokens // 4) for tokens in workload.output_tokens[:rows]],
        max_num_seqs=16,
        shard_prompts=24,
        kv_blocks=workload.kv_blocks and workload.kv_blocks // 2,
    )


def _varied(seed: int, rows: int) -> list[str]:
    rng = random.Random(seed)
    return [
        f"{rng.randrange(10**6)}: write about {' and '.join(rng.sample(_WORDS, 4))} "
        f"in {rng.randrange(3, 30)} lines."
        for _ in range(rows)
    ]
