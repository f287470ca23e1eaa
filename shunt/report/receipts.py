"""Row receipts: which nodes made a row, what of it was made twice, and its share of the bill.

A node's price is shared by what went through its engine: every token that it generated and saved,
and once the prompt of each row that it worked on, as it had to be computed there. A pool's bill
goes to the rows by that measure; the bill of a pool whose nodes saved nothing (they were lost while
they started, or follow in a pipeline that another node heads) goes to all rows. The shares add up
to the bill, to the last billionth.
"""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shunt import keys
from shunt.checkpoint.gone import node_of
from shunt.checkpoint.progress import read_log
from shunt.run.collect import shard_table
from shunt.run.manifest import Manifest, ShardEntry
from shunt.run.spend import Spend
from shunt.store.protocol import Store

Bought = tuple[str, str, str]
"""Instance type, zone and market of a node."""

_DIGITS = 9
SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("id", pa.string()),
        ("model", pa.string()),
        ("revision", pa.string()),  # the hub's commit, or the digest of the model's files
        ("engines", pa.list_(pa.string())),  # numerics fingerprints, in the order of their turns
        ("nodes", pa.list_(pa.string())),  # likewise
        ("node_types", pa.list_(pa.string())),  # as g6.xlarge (spot); empty on one's own machines
        ("num_prompt_tokens", pa.int32()),
        ("num_output_tokens", pa.int64()),
        ("num_tokens_again", pa.int64()),  # saved ones that a restart threw away
        ("num_resumes", pa.int32()),
        ("cost_usd", pa.decimal128(18, _DIGITS)),  # null where no node was bought
    ]
)
_WORK = pa.map_(pa.string(), pa.int64())


def write_receipts(
    store: Store,
    manifest: Manifest,
    path: Path,
    *,
    bought: Mapping[str, Bought],
    spend: Spend | None,
) -> int:
    """Write a row per input row, in their order, as Parquet; returns how many. Memory stays at one
    shard. `bought`: by machine. Raises `CorruptSegment` and `OSError`.
    """
    shares = _Shares()
    schema = SCHEMA.append(pa.field("work", _WORK))
    with TemporaryDirectory(prefix="shunt-receipts-") as directory:
        counted = Path(directory) / "counted.parquet"
        with pq.ParquetWriter(counted, schema) as writer:
            for entry in manifest.shards:
                rows = _rows_of(store, manifest, entry, bought)
                shares.count(row["work"] for row in rows)
                writer.write_table(pa.Table.from_pylist(rows, schema))
        shares.divide(spend)
        return _write_with_costs(counted, path, shares)


def _write_with_costs(counted: Path, path: Path, shares: "_Shares") -> int:
    num_rows = 0
    with pq.ParquetFile(counted) as file, pq.ParquetWriter(path, SCHEMA) as writer:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            works: list[Any] = table.column("work").to_pylist()
            place = SCHEMA.get_field_index("cost_usd")
            costs = pa.array([shares.of(dict(work)) for work in works], SCHEMA.field(place).type)
            writer.write_table(table.drop("work").set_column(place, SCHEMA.field(place), costs))
            num_rows += table.num_rows
    return num_rows


@dataclass(slots=True)
class _Turns:
    """What the log says of one row."""

    nodes: dict[str, None] = field(default_factory=dict[str, None])
    engines: dict[str, None] = field(default_factory=dict[str, None])
    tokens: Counter[int] = field(default_factory=Counter[int])
    """By choice: those that count."""
    again: int = 0
    prompt_tokens: int = 0
    resumes: Counter[int] = field(default_factory=Counter[int])
    work: Counter[str] = field(default_factory=Counter[str])
    """Tokens by node."""


def _turns(store: Store, manifest: Manifest, entry: ShardEntry) -> dict[int, _Turns]:
    """By the index of a row."""
    found: dict[int, _Turns] = defaultdict(_Turns)
    for header, gains in read_log(store, manifest.run_id, entry.shard_id):
        node = node_of(header.owner)
        for gain in gains:
            turns, generation = found[gain.index], gain.generation
            if gain.base == 0:
                turns.again += turns.tokens.pop(gain.choice, 0)
            if node not in turns.nodes:
                turns.work[node] += generation.num_prompt_tokens
                turns.nodes[node] = None
            if generation.fingerprint:
                turns.engines[generation.fingerprint] = None
            turns.prompt_tokens = generation.num_prompt_tokens
            turns.resumes[gain.choice] = generation.num_resumes
            turns.tokens[gain.choice] += len(generation.token_ids)
            turns.work[node] += len(generation.token_ids)
    return found


def _rows_of(
    store: Store, manifest: Manifest, entry: ShardEntry, bought: Mapping[str, Bought]
) -> list[dict[str, Any]]:
    table = shard_table(store, manifest, entry)
    turns = _turns(store, manifest, entry)
    listing = manifest.model
    revision = "" if listing is None else listing.commit or listing.identity
    rows: list[dict[str, Any]] = []
    columns: list[list[Any]] = [table.column(n).to_pylist() for n in ("index", "prompt_id")]
    indexes, ids = columns
    for index, prompt_id in zip(indexes, ids, strict=True):
        made = turns.get(index, _Turns())
        pools = {node: bought.get(keys.machine_of(node)) for node in made.nodes}
        work: Counter[str] = Counter()
        for node, tokens in made.work.items():
            work[_name(pools[node])] += tokens
        rows.append(
            {
                "index": index,
                "id": prompt_id,
                "model": manifest.job.model.path,
                "revision": revision,
                "engines": list(made.engines),
                "nodes": list(made.nodes),
                "node_types": list(dict.fromkeys(_kind(pool) for pool in pools.values() if pool)),
                "num_prompt_tokens": made.prompt_tokens,
                "num_output_tokens": made.tokens.total(),
                "num_tokens_again": made.again,
                "num_resumes": made.resumes.total(),
                "cost_usd": None,
                "work": list(work.items()),
            }
        )
    return rows


def _kind(pool: Bought) -> str:
    instance_type, _, market = pool
    return f"{instance_type} ({market})"


def _name(pool: Bought | None) -> str:
    return "" if pool is None else " ".join(pool)


_ALL = "all"
"""The name of what belongs to no pool that saved tokens: no pool is called so."""


@dataclass(slots=True)
class _Shares:
    """Divides whole billionths of a dollar. What a row gets is the difference of two rounded sums,
    so that no rounding is lost or made."""

    _work: Counter[str] = field(default_factory=Counter[str])
    _num_rows: int = 0
    _nanos: dict[str, int] | None = None
    _passed: Counter[str] = field(default_factory=Counter[str])
    """Work of the rows that have their share."""

    def count(self, works: Iterator[Sequence[tuple[str, int]]]) -> None:
        """The rows of a shard: work by pool."""
        for work in works:
            self._num_rows += 1
            for name, tokens in work:
                self._work[name] += tokens

    def divide(self, spend: Spend | None) -> None:
        """Between the pools that saved tokens; the rest is everybody's."""
        if spend is None:
            return
        nanos: Counter[str] = Counter()
        for pool in spend.pools:
            name = _name((pool.instance_type, pool.zone, pool.market))
            nanos[name if self._work[name] else _ALL] += _nanos(pool.usd)
        nanos[_ALL] += _nanos(spend.usd) - nanos.total()  # pools are told to the cent
        self._nanos = dict(nanos)

    def of(self, work: Mapping[str, int]) -> Decimal | None:
        """The share of the next row."""
        if self._nanos is None:
            return None
        everything = self._work.total()
        tokens = sum(work.values()) if everything else 1
        share = self._next(_ALL, tokens, everything or self._num_rows)
        for name, amount in work.items():
            if name in self._nanos:
                share += self._next(name, amount, self._work[name])
        return Decimal(share).scaleb(-_DIGITS)

    def _next(self, name: str, tokens: int, total: int) -> int:
        assert self._nanos is not None
        before = self._nanos[name] * self._passed[name] // total
        self._passed[name] += tokens
        return self._nanos[name] * self._passed[name] // total - before


def _nanos(usd: Decimal) -> int:
    return int(usd.scaleb(_DIGITS))
