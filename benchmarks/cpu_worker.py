"""Runs vLLM on this CPU and prints requests/s per setting as CSV; started by planner_cpu in the
worker environment. Arguments: model folder, then settings `prompt:output:concurrency`."""

import os
import sys
import time

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

# Reads the environment above; lives in the worker environment only.
from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports] - worker environment


def main() -> None:
    model, *settings = sys.argv[1:]
    engine = LLM(
        model,
        max_model_len=1024,
        enable_prefix_caching=False,
        enforce_eager=True,
        max_num_seqs=32,
        dtype="bfloat16",
    )
    for text in ("16:8:1", *settings):  # the first warms up
        prompt, output, concurrency = (int(part) for part in text.split(":"))
        prompts = [
            {"prompt_token_ids": [(7 * i + 3 * j) % 40000 + 100 for j in range(prompt)]}
            for i in range(concurrency)
        ]
        sampling = SamplingParams(temperature=0, max_tokens=output, ignore_eos=True)
        start = time.perf_counter()
        engine.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - start
        if text != "16:8:1":
            print(f"RUN,{prompt},{output},{concurrency},{concurrency / seconds:.6f}", flush=True)


if __name__ == "__main__":
    main()
