"""Seeds for prompts that asked for sampling and named none, so that a rerun repeats."""

import hashlib

SEED_BITS = 53
"""Survives a trip through JSON readers that hold numbers as doubles."""


def seed_for(run_id: str, prompt_id: str) -> int:
    """The seed of a prompt; choice c is sampled with seed + c, as vLLM does with its n sequences.

    A hash of run and prompt: any worker that generates the row again, now or after a loss, draws
    the same tokens; another run draws others.
    """
    digest = hashlib.blake2b(f"{run_id}\0{prompt_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)
