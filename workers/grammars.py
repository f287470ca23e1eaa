"""`python -m workers.grammars MODEL`: can the engine's grammar back ends enforce a constraint?

Preflight asks before anything runs. One JSON object a line on stdin, `{"backend", "structure"}`,
one on stdout, `{"problem"}`: vLLM's own validation with its back end, and any warning that the back
end prints meanwhile, as those say what is ignored. The first line out says that it is ready.
"""

import json
import os
import re
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from transformers import AutoTokenizer
from vllm.config import ModelConfig, StructuredOutputsConfig

from shunt.job.sampling import Sampling, StructuredOutput
from workers.engine.grammar_backend import problem_of
from workers.engine.params import sampling_params

MEMORY_BYTES = 8 << 30
"""Of this process's data: a constraint that needs more ends the process, and its row is told so."""
_SHOWN = 240
"""Characters of a reason: some quote all of a pattern."""
_MODEL = cast("ModelConfig", SimpleNamespace(is_diffusion=False, max_logprobs=0))
"""What the validation asks of a model, for a request that has a constraint and nothing else."""
_PREFIX = re.compile(r"\[[\d:]+\] \S+:\d+: (Warning: )?")
"""Of xgrammar's messages: the time, and the line of its own source."""


def problem(backend: str, structure: StructuredOutput, tokenizer: Any) -> str:
    """Why the back end cannot enforce it, or empty."""
    if broken := problem_of(backend):
        return broken
    params = sampling_params(Sampling(structured_outputs=structure))
    config = StructuredOutputsConfig(backend=cast("Any", backend))
    try:
        params.verify(_MODEL, None, config, tokenizer)
    except Exception as error:  # noqa: BLE001 - whatever a back end raises is its answer
        cause = error.__cause__ if str(error) == "Invalid grammar specification." else None
        return f"{backend}: {_sentence(str(cause or error))}"
    return ""


def with_warnings(ask: Callable[[], str], backend: str) -> str:
    """The answer; where there is no problem, what was written to the standard error meanwhile and
    warns. Native code writes there, so the descriptor itself is turned."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            found = ask()
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
        written.seek(0)
        lines = written.read().decode(errors="replace").splitlines()
    warned = next((line for line in lines if "Warning: " in line), "")
    return found or (warned and f"{backend}: {_sentence(warned)}")


def _sentence(text: str) -> str:
    """The first line that says something, without the source line of a library."""
    lines = [_PREFIX.sub("", line).strip() for line in text.splitlines()]
    said = [line for line in lines if line]
    head = next((line for line in said if not line.endswith(":")), "it is refused")
    found = " ".join(dict.fromkeys([said[0], head])) if said else head
    return found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."


def main(argv: Sequence[str]) -> int:
    """Answer until the standard input ends."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    tokenizer = AutoTokenizer.from_pretrained(argv[0])
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        backend = asked["backend"]
        structure = StructuredOutput.model_validate(asked["structure"])
        found = with_warnings(partial(problem, backend, structure, tokenizer), backend)
        answers.write(json.dumps({"problem": found}) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
