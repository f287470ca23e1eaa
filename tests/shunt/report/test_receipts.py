"""Receipts of rows: nodes and tokens from the log, and shares that are the bill."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shunt import keys
from shunt.checkpoint.generation import Finish, Generation, Resumption
from shunt.checkpoint.gone import owner_name
from shunt.checkpoint.segment import Gain, SegmentHeader, encode_segment
from shunt.dataset.rendering import renderer_for
from shunt.job.job import Input, Job, Model
from shunt.keys import Position
from shunt.report.receipts import Bought, write_receipts
from shunt.run.manifest import Manifest
from shunt.run.prepare import prepare
from shunt.run.spend import PoolSpend, Spend
from shunt.testing.memory_store import MemoryStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BIG: Bought = ("p5.48xlarge", "us-east-1a", "on-demand")
SMALL: Bought = ("g6.xlarge", "us-east-1b", "spot")
IDLE: Bought = ("g5.xlarge", "us-east-1b", "spot")
PROMPT_TOKENS = 5


class Log:
    """Three rows in two shards, and what is written of them."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryStore()
        rows = [json.dumps({"id": f"row-{n}", "prompt": f"prompt {n}"}) for n in range(3)]
        (directory / "prompts.jsonl").write_text("\n".join(rows))
        job = Job(name="told", model=Model(path="none", engine_kind="fake"), shard_prompts=2,
                  input=Input(path=str(directory / "prompts.jsonl")))  # fmt: skip
        renderer = renderer_for("none", revision=None, max_model_len=None, fake=True)
        self.manifest: Manifest = prepare(job, self.store, renderer, now=NOW)

    def write(self, shard: int, epoch: int, node: str, *gains: Gain, seals: int = 0) -> None:
        name, position = f"{shard:06d}", Position(epoch, 0)
        owner, sealed = owner_name(node, f"{epoch:032d}"), dict.fromkeys(range(1, epoch), seals)
        header = SegmentHeader(self.manifest.run_id, name, position, owner, sealed)
        key = keys.segment(self.manifest.run_id, name, position)
        self.store.put(key, encode_segment(header, gains))

    def receipts(self, path: Path, bought: dict[str, Bought], spend: Spend | None) -> list[Any]:
        count = write_receipts(self.store, self.manifest, path, bought=bought, spend=spend)
        rows = pq.read_table(path).to_pylist()
        assert count == len(rows) == 3
        return rows


def gain(index: int, base: int, num_tokens: int, engine: str, **more: Any) -> Gain:
    tokens = tuple(range(num_tokens))
    made = Generation(tokens, num_prompt_tokens=PROMPT_TOKENS, fingerprint=engine, **more)
    return Gain(index, 0, base, made)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Row 0 moved from i-1 to i-2, row 1 was restarted there, row 2 was made by i-2's worker."""
    log, end = Log(tmp_path), Finish("stop", None, "text")
    log.write(0, 1, "i-1", gain(0, 0, 30, "h100"), gain(1, 0, 8, "h100"))
    log.write(
        0, 2, "i-2",
        gain(0, 30, 10, "l4", num_resumes=1, resumption=Resumption.STATE_EXACT, finish=end),
        gain(1, 0, 20, "l4", num_resumes=1, resumption=Resumption.RESTARTED, finish=end),
    )  # fmt: skip
    log.write(1, 1, "i-2.0-abc123", gain(2, 0, 7, "l4", finish=end))
    return log


def spend(usd: str, **by_pool: str) -> Spend:
    known = {"big": BIG, "small": SMALL, "idle": IDLE}
    pools = tuple(
        PoolSpend(instance_type=known[name][0], zone=known[name][1],
                  market="spot" if known[name][2] == "spot" else "on-demand",
                  num_nodes=1, node_hours=1.0, usd=Decimal(cost), on_demand_usd=None)
        for name, cost in by_pool.items()
    )  # fmt: skip
    return Spend(at=NOW, usd=Decimal(usd), usd_per_hour=Decimal(0), num_nodes=0, num_launched=3,
                 pools=pools)  # fmt: skip


def test_a_receipt_names_who_made_the_row_and_what_was_made_twice(log: Log, tmp_path: Path) -> None:
    rows = log.receipts(tmp_path / "r.parquet", {"i-1": BIG, "i-2": SMALL}, None)
    assert [row["id"] for row in rows] == ["row-0", "row-1", "row-2"]
    assert [row["nodes"] for row in rows] == [["i-1", "i-2"], ["i-1", "i-2"], ["i-2.0-abc123"]]
    both = ["p5.48xlarge (on-demand)", "g6.xlarge (spot)"]
    assert [row["node_types"] for row in rows] == [both, both, both[1:]]
    assert [row["engines"] for row in rows] == [["h100", "l4"], ["h100", "l4"], ["l4"]]
    assert [row["num_output_tokens"] for row in rows] == [40, 20, 7]
    assert [row["num_tokens_again"] for row in rows] == [0, 8, 0]
    assert [row["num_resumes"] for row in rows] == [1, 1, 0]
    assert [row["num_prompt_tokens"] for row in rows] == [PROMPT_TOKENS] * 3
    assert [row["cost_usd"] for row in rows] == [None] * 3


def test_a_pools_bill_goes_to_the_rows_by_what_went_through_its_engines(
    log: Log, tmp_path: Path
) -> None:
    bought = {"i-1": BIG, "i-2": SMALL, "i-3": IDLE}
    told = spend("12.01", big="4.80", small="7.20", idle="0.00")
    rows = log.receipts(tmp_path / "r.parquet", bought, told)
    big, small = (Decimal("4.80") / (30 + 5 + 8 + 5)), (Decimal("7.20") / (15 + 25 + 12))
    shares = [35 * big + 15 * small, 13 * big + 25 * small, 12 * small]
    work = [50, 38, 12]
    for row, share, tokens in zip(rows, shares, work, strict=True):
        cent_that_no_pool_has = Decimal("0.01") * tokens / 100
        assert float(row["cost_usd"]) == pytest.approx(float(share + cent_that_no_pool_has))
    assert sum(row["cost_usd"] for row in rows) == Decimal("12.01")


@pytest.mark.parametrize("usd", ["0.01", "7.77", "123456.78"])
def test_shares_are_the_bill_whatever_it_is(log: Log, tmp_path: Path, usd: str) -> None:
    """Also of a pool whose nodes saved nothing, and of nodes of which nobody knows the pool."""
    rows = log.receipts(tmp_path / "r.parquet", {"i-1": BIG}, spend(usd, big="0.01", idle=usd))
    assert sum(row["cost_usd"] for row in rows) == Decimal(usd)


def test_money_for_nothing_is_shared_by_all_rows(tmp_path: Path) -> None:
    rows = Log(tmp_path).receipts(tmp_path / "r.parquet", {}, spend("1.00", big="1.00"))
    assert sum(row["cost_usd"] for row in rows) == Decimal("1.00")
    assert {round(row["cost_usd"], 8) for row in rows} == {Decimal("0.33333333")}
