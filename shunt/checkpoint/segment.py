"""A segment: what a shard gained since the segment before, as one immutable object.

Layout: the magic `SHSG`, one byte of format version, the xxh3-64 of the rest (8 bytes, big endian),
the length of the uncompressed payload (8 bytes), then the payload, compressed by zstd: an Arrow IPC
stream whose schema metadata carries the header. Compressing the whole stream rather than its
buffers keeps a small segment small: an Arrow schema alone is some 4 kB.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import xxhash

from shunt.checkpoint.generation import Finish, Generation, Resumption, TokenLogprobs
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import CorruptSegment
from shunt.keys import Position

FORMAT_VERSION = 3
"""Version 1 has no `prompt_digest`, 2 no `message`."""
_READABLE = (1, 2, 3)
_MAGIC = b"SHSG"
_PREFIX = struct.Struct(">4sBQQ")
_HEADER_KEY = b"shunt.segment"
_CODEC = pa.Codec("zstd", 3)


@dataclass(frozen=True, slots=True)
class Gain:
    """What one generation gained.

    `generation` holds the tail only: its tokens (and logprobs) are those from position `base` on.
    `base` 0 for a generation that has tokens already means that it was restarted.
    """

    index: int
    choice: int
    base: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Who wrote the segment, where it stands, and what it seals."""

    run_id: str
    shard_id: str
    position: Position
    owner: str
    seals: Mapping[int, int] = field(default_factory=dict[int, int])
    """In a segment of sequence 0: the last sequence that counts of every older epoch (-1: none)."""


_LOGPROBS = pa.struct(
    [("ids", pa.list_(pa.int32())), ("values", pa.list_(pa.float32())), ("rank", pa.int32())]
)
_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("choice", pa.int16()),
        ("base", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(_LOGPROBS)),
        ("prompt_logprobs", pa.list_(_LOGPROBS)),
        ("num_prompt_tokens", pa.int32()),
        ("num_cached_tokens", pa.int32()),
        ("num_resumes", pa.int32()),
        ("resumption", pa.string()),
        ("resume_reason", pa.string()),
        ("fingerprint", pa.string()),
        ("prompt_digest", pa.binary(8)),
        ("finish_reason", pa.string()),
        ("stop_token", pa.int64()),
        ("stop_string", pa.string()),
        ("text", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("message", pa.string()),
    ]
)


def encode_segment(header: SegmentHeader, gains: Sequence[Gain]) -> bytes:
    """The object's bytes; equal arguments give equal bytes, so that a put may be repeated."""
    metadata = {
        "run_id": header.run_id,
        "shard_id": header.shard_id,
        "epoch": header.position.epoch,
        "sequence": header.position.sequence,
        "owner": header.owner,
        "seals": {str(epoch): last for epoch, last in sorted(header.seals.items())},
    }
    schema = pa.schema(list(_SCHEMA), {_HEADER_KEY: json.dumps(metadata).encode()})
    table = pa.Table.from_pylist([_to_row(gain) for gain in gains], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)
    raw = sink.getvalue()
    payload = _CODEC.compress(raw, asbytes=True)
    body = struct.pack(">Q", raw.size) + payload
    return _PREFIX.pack(_MAGIC, FORMAT_VERSION, xxhash.xxh3_64_intdigest(body), raw.size) + payload


def decode_segment(key: str, data: bytes) -> tuple[SegmentHeader, list[Gain]]:
    """The inverse of `encode_segment`.

    Raises `CorruptSegment` when the bytes are not a whole segment of a known format version.
    """
    if len(data) < _PREFIX.size:
        raise CorruptSegment(key, f"is {len(data)} bytes long, shorter than a segment's prefix")
    magic, version, digest, size = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptSegment(key, "is not a segment")
    if version not in _READABLE:
        raise CorruptSegment(
            key, f"has format version {version}; this shunt reads {FORMAT_VERSION}: upgrade it"
        )
    payload = data[_PREFIX.size :]
    if xxhash.xxh3_64_intdigest(struct.pack(">Q", size) + payload) != digest:
        raise CorruptSegment(key, "fails its checksum")
    with pa.ipc.open_stream(_CODEC.decompress(payload, size)) as reader:
        table = reader.read_all()
        metadata = json.loads(reader.schema.metadata[_HEADER_KEY])
    header = SegmentHeader(
        run_id=metadata["run_id"],
        shard_id=metadata["shard_id"],
        position=Position(metadata["epoch"], metadata["sequence"]),
        owner=metadata["owner"],
        seals={int(epoch): last for epoch, last in metadata["seals"].items()},
    )
    return header, [_from_row(row) for row in table.to_pylist()]


def _to_row(gain: Gain) -> dict[str, object]:
    generation = gain.generation
    row: dict[str, object] = {
        "index": gain.index,
        "choice": gain.choice,
        "base": gain.base,
        "token_ids": generation.token_ids,
        "logprobs": _pack(generation.logprobs),
        "prompt_logprobs": _pack(generation.prompt_logprobs),
        "num_prompt_tokens": generation.num_prompt_tokens,
        "num_cached_tokens": generation.num_cached_tokens,
        "num_resumes": generation.num_resumes,
        "resumption": generation.resumption.value,
        "resume_reason": generation.resume_reason,
        "fingerprint": generation.fingerprint,
        "prompt_digest": bytes.fromhex(generation.prompt_digest) or None,
    }
    finish = generation.finish
    if finish is not None:
        stop = finish.stop_reason
        row["finish_reason"] = finish.finish_reason
        row["stop_token"] = stop if isinstance(stop, int) else None
        row["stop_string"] = stop if isinstance(stop, str) else None
        row["text"] = finish.text
        row["message"] = finish.message or None
        if finish.error is not None:
            row["error_code"] = finish.error.code.value
            row["error_message"] = finish.error.message
    return row


def _pack(
    rows: Sequence[TokenLogprobs | None] | None,
) -> list[dict[str, object] | None] | None:
    if rows is None:
        return None
    return [
        None if row is None else {"ids": row.token_ids, "values": row.logprobs, "rank": row.rank}
        for row in rows
    ]


def _from_row(row: dict[str, Any]) -> Gain:
    finish = None
    if row["finish_reason"] is not None:
        code = row["error_code"]
        finish = Finish(
            finish_reason=row["finish_reason"],
            stop_reason=row["stop_token"] if row["stop_token"] is not None else row["stop_string"],
            text=row["text"],
            error=None if code is None else RowError(RowErrorCode(code), row["error_message"]),
            message=row.get("message") or "",
        )
    return Gain(
        index=row["index"],
        choice=row["choice"],
        base=row["base"],
        generation=Generation(
            token_ids=tuple(row["token_ids"]),
            logprobs=_unpack_each(row["logprobs"]),
            prompt_logprobs=_unpack(row["prompt_logprobs"]),
            num_prompt_tokens=row["num_prompt_tokens"],
            num_cached_tokens=row["num_cached_tokens"],
            num_resumes=row["num_resumes"],
            resumption=Resumption(row["resumption"]),
            resume_reason=row["resume_reason"],
            fingerprint=row["fingerprint"],
            prompt_digest=(row.get("prompt_digest") or b"").hex(),
            finish=finish,
        ),
    )


def _unpack_each(rows: list[dict[str, Any]] | None) -> tuple[TokenLogprobs, ...] | None:
    return None if rows is None else tuple(_token_logprobs(row) for row in rows)


def _unpack(rows: list[dict[str, Any] | None] | None) -> tuple[TokenLogprobs | None, ...] | None:
    return None if rows is None else tuple(None if r is None else _token_logprobs(r) for r in rows)


def _token_logprobs(row: dict[str, Any]) -> TokenLogprobs:
    return TokenLogprobs(tuple(row["ids"]), tuple(row["values"]), row["rank"])
