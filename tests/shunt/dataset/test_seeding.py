"""Seeds of rows that named none."""

from shunt.dataset.seeding import SEED_BITS, seed_for


def test_a_seed_repeats_and_differs_by_run_and_prompt() -> None:
    assert seed_for("run", "7") == seed_for("run", "7")
    seeds = {seed_for(run, prompt) for run in ("a", "b") for prompt in map(str, range(1000))}
    assert len(seeds) == 2000


def test_a_seed_survives_json_readers_of_doubles() -> None:
    assert all(0 <= seed_for("r", str(n)) < 2**SEED_BITS for n in range(100))
    assert float(seed_for("r", "x")) == seed_for("r", "x")
