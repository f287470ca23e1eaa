"""How a run's OpenAI batch output is written: by the model's own tokenizer."""

import os
from functools import cache

from shunt.dataset.rendering import HuggingFaceTokenizer
from shunt.errors import ShuntError
from shunt.results.openai_body import BY_NUMBER, Tokens
from shunt.results.openai_lines import BatchFile
from shunt.run.fetched_model import control_copy
from shunt.run.manifest import Manifest


def batch_file_of(manifest: Manifest) -> BatchFile | None:
    """None where the input is no OpenAI batch file."""
    if manifest.input_format != "openai-batch":
        return None
    model = manifest.job.model.path.rstrip("/").rpartition("/")[2]
    return BatchFile(manifest.run_id, manifest.created_at, model, _tokens(manifest))


def _tokens(manifest: Manifest) -> Tokens:
    """Text and bytes of token ids, by the model's tokenizer, which is read at the first row that
    has logprobs. By number, where the tokenizer cannot be had any more."""
    if manifest.job.model.engine_kind == "fake":
        return BY_NUMBER

    @cache
    def found() -> Tokens:
        job = manifest.job
        try:
            if manifest.model is not None:
                job = control_copy(job, manifest.model, os.environ)
            text = HuggingFaceTokenizer(job.model.path, job.model.revision).token_text
        except (ShuntError, OSError):
            return BY_NUMBER
        return Tokens(text.text_of, text.bytes_of)

    return Tokens(lambda token_id: found().text_of(token_id), lambda i: found().bytes_of(i))
