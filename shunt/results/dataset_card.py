"""The card of results that are a Hugging Face dataset: what the rows are, and how they were made.

The lines between the dashes are what the hub and `datasets.load_dataset` read:
https://huggingface.co/docs/hub/datasets-manual-configuration
"""

import json
from collections.abc import Mapping

from pydantic import JsonValue

from shunt.job.job import Job
from shunt.results.publishing import PARTS_PREFIX

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
"""The hub's names of size categories, by the rows that they have less than."""
_LARGER = ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))


def dataset_card(
    run_id: str,
    job: Job,
    *,
    num_rows: int,
    num_output_tokens: int,
    errors: Mapping[str, int],
    sampling_defaults: Mapping[str, JsonValue],
) -> str:
    """Markdown with the head that the hub reads. Says nothing of where inputs and store lie."""
    data = PARTS_PREFIX.removeprefix("dataset/")
    revision = f" at revision `{job.model.revision}`" if job.model.revision else ""
    sampling = {**sampling_defaults, **job.sampling.model_dump(mode="json", exclude_unset=True)}
    bad = ", ".join(f"{count:,} `{code}`" for code, count in sorted(errors.items()))
    path = job.model.path
    name = path.rstrip("/").rsplit("/", 1)[-1] if path.startswith(("/", "s3://", ".")) else path
    return f"""---
pretty_name: {json.dumps(run_id)}
configs:
- config_name: default
  data_files:
  - split: train
    path: {data}*.parquet
size_categories:
- {_size(num_rows)}
tags:
- synthetic
---

# {run_id}

{num_rows:,} rows, in the order of the input, with {num_output_tokens:,} generated tokens.
{f"Rows without an answer: {bad}." if bad else "Every row has an answer."}

- Model: `{name}`{revision}, dtype `{job.model.dtype}`
- Sampling, where a row says nothing else: `{json.dumps(sampling, sort_keys=True)}`

The columns are those of the input, with `generated_text`, `finish_reason`, token counts, and
`error_code` and `error_message` of rows without an answer beside them.
"""


def _size(num_rows: int) -> str:
    return next((name for most, name in (*_SIZES, *_LARGER) if num_rows < most), "n>1T")
