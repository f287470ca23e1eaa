"""The text of a file as UTF-8, whichever Unicode encoding it has."""

import codecs
import io
from collections.abc import Iterator
from typing import IO, Any

from shunt.dataset.files import SourceFile
from shunt.errors import InputError

BLOCK_BYTES = 4 << 20
_HEAD_BYTES = 4
_ENCODINGS = {  # by their byte order marks; those of UTF-32 begin like those of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHERS = {
    b"PAR1": "is a Parquet file; set input.format: parquet",
    b"\x1f\x8b": "is compressed by gzip; its name should end in .gz",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; its name should end in .zst",
    b"PK\x03\x04": "is a zip archive or a workbook; unpack it, or save it as CSV",
}


def utf8_blocks(source: SourceFile, stream: IO[bytes]) -> Iterator[bytes]:
    """The text in blocks, without byte order mark. UTF-8 goes through as it is, mistakes and all.

    Raises `InputError` for what is known to be no text, and for damaged UTF-16 and UTF-32.
    """
    head = stream.read(_HEAD_BYTES)
    mark = next((mark for mark in _ENCODINGS if head.startswith(mark)), b"")
    encoding = _ENCODINGS.get(mark, "utf-8")
    _refuse_others(source, head, marked=bool(mark))
    if encoding == "utf-8":
        rest = head.removeprefix(mark)
        while block := rest + stream.read(BLOCK_BYTES):
            rest = b""
            yield block
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    block = head
    try:
        while block:
            yield decoder.decode(block).encode()
            block = stream.read(BLOCK_BYTES)
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise InputError(f"{source.uri}: is not whole {encoding.upper()} text: {error}") from error


def utf8_stream(source: SourceFile, stream: IO[bytes]) -> IO[bytes]:
    """The same to read from."""
    return io.BufferedReader(_Blocks(utf8_blocks(source, stream)), BLOCK_BYTES)


def _refuse_others(source: SourceFile, head: bytes, *, marked: bool) -> None:
    for begin, what in _OTHERS.items():
        if head.startswith(begin):
            raise InputError(f"{source.uri}: {what}")
    if not marked and (_is_wide(head[::2], head[1::2]) or _is_wide(head[1::2], head[::2])):
        why = "seems to be UTF-16 or UTF-32 without a byte order mark; save it as UTF-8"
        raise InputError(f"{source.uri}: {why}")


def _is_wide(high: bytes, low: bytes) -> bool:
    """Whether these halves of a head look like two characters of a row, or one of four bytes."""
    text = low.replace(b"\0", b"").decode("latin-1")
    return high == b"\0\0" and text != "" and text.isprintable()


class _Blocks(io.RawIOBase):
    """Blocks of bytes as a stream."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._ready = block
        taken, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)
