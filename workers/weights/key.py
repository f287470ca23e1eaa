"""What must be equal for one engine to map another's weights, and the names in the store."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass

_LAYER = re.compile(r"^(.*?\.?(?:layers|h)\.\d+)\.")


@dataclass(frozen=True, slots=True)
class WeightsKey:
    """One shard set: the tensors of one content as one rank of one TP degree has them.

    Which layers are there is not in it, and follows from no rank: the store says which it has.
    """

    content: str
    """Digest of the bytes of the weights and of config.json: not of headers, which two fine-tunes
    of one model have in common."""
    dtype: str
    quantization: str
    tp_size: int
    tp_rank: int
    engine: str
    """Version of what cuts and fuses the tensors."""

    @property
    def name(self) -> str:
        """Hexadecimal; another for another value of any field."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def group_of(parameter: str) -> str:
    """What is shared whole or not at all: a layer, or a parameter outside of the layers."""
    found = _LAYER.match(parameter)
    return found[1] if found else parameter
