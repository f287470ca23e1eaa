"""What one token id stands for, as bytes: a letter may be split over several tokens."""

# Transformers types its tokenizers loosely.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"
"""How SentencePiece writes a space."""


class TokenText:
    """Bytes and text of the tokens of one tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.bytes_of = lru_cache(maxsize=1 << 16)(self._bytes_of)

    def text_of(self, token_id: int) -> str:
        """The token as OpenAI's API writes it: `bytes:\\xe2\\x80` where its bytes are no text."""
        found = self.bytes_of(token_id)
        try:
            return found.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in found)

    def _bytes_of(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:  # a column of the logits that no token has
            return b""
        if self._is_byte_level:
            return _byte_level(piece)
        if found := _BYTE_PIECE.fullmatch(piece):
            return bytes.fromhex(found[1])
        return piece.replace(_SPACE, " ").encode()

    @cached_property
    def _added(self) -> Mapping[int, str]:
        return {number: str(t) for number, t in self._tokenizer.added_tokens_decoder.items()}

    @cached_property
    def _is_byte_level(self) -> bool:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        decoder = None if backend is None else json.loads(backend.to_str()).get("decoder")
        return '"ByteLevel"' in json.dumps(decoder)


def _byte_level(piece: str) -> bytes:
    """GPT-2's alphabet: a printable letter for each byte."""
    letters = _byte_letters()
    if any(letter not in letters for letter in piece):
        return piece.encode()
    return bytes(letters[letter] for letter in piece)


@lru_cache(maxsize=1)
def _byte_letters() -> Mapping[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}
