"""The script that everybody writes first: read the prompts, `LLM.chat`, write the answers.

Arguments: the batch file, the answers' file, engine arguments as JSON. In the worker environment.
"""

import json
import os
import sys
from pathlib import Path

from workers.engine.config import engine_environment


def main(batch: Path, answers: Path, arguments: str) -> None:
    # Heavy, after the environment is set, and in the worker environment only.
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    lines = [json.loads(line) for line in batch.read_text().splitlines()]
    engine = LLM(**json.loads(arguments))
    params = [
        SamplingParams(max_tokens=line["body"]["max_tokens"], temperature=0, ignore_eos=True)
        for line in lines
    ]
    chats = [line["body"]["messages"] for line in lines]
    outputs = engine.chat(chats, params, use_tqdm=False)
    rows = [
        {"id": line["custom_id"], "text": output.outputs[0].text}
        for line, output in zip(lines, outputs, strict=True)
    ]
    answers.write_text("\n".join(json.dumps(row) for row in rows))


if __name__ == "__main__":
    os.environ.update(engine_environment(threads=len(os.sched_getaffinity(0)), kv_cache_gib=1))
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
