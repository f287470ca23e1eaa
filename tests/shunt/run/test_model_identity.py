"""A run is of one model: of its bytes, wherever they lie."""

import os
import shutil
import struct
from pathlib import Path

import pytest

from shunt.job.job import Job
from shunt.model.fingerprint import directory_fingerprint
from shunt.run.manifest import Manifest
from shunt.run.model_identity import (
    ModelReplaced,
    model_files,
    model_identity,
    require_same_model,
)
from tests.shunt.aws.conftest import START

WEIGHTS = 3 << 20


def make_model(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    (path / "chat_template.jinja").write_text("{{ messages }}")
    header = b'{"w": {}}'
    data = struct.pack("<Q", len(header)) + header + os.urandom(WEIGHTS)
    (path / "model.safetensors").write_bytes(data)
    (path / "README.md").write_text("no matter")
    return path


def job_of(path: Path, **model: object) -> Job:
    given = {"path": str(path), "engine_kind": "fake", **model}
    return Job.model_validate({"name": "small", "model": given, "input": {"path": "in.jsonl"}})


def change(path: Path, at: int) -> None:
    """Another training run: every byte is another one."""
    data = bytearray(path.read_bytes())
    data[at:] = os.urandom(len(data) - at)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]
)
def test_each_file_that_decides_results_counts(tmp_path: Path, name: str) -> None:
    model = make_model(tmp_path / "model")
    before = model_identity(job_of(model))
    stamp = (model / name).stat()
    change(model / name, at=0 if name != "model.safetensors" else 100)
    os.utime(model / name, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert model_identity(job_of(model)) != before


def test_a_copy_elsewhere_is_the_same_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copytree(model, tmp_path / "elsewhere" / "model"))
    os.utime(copy / "model.safetensors", (1, 1))
    (copy / "README.md").write_text("another text")
    assert model_identity(job_of(model)) == model_identity(job_of(copy))


def test_adapters_and_engine_options_that_decide_count(tmp_path: Path) -> None:
    model, adapter = make_model(tmp_path / "model"), tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(os.urandom(1000))
    before = model_identity(job_of(model, adapters={"a": str(adapter)}))
    change(adapter / "adapter_model.safetensors", at=0)
    assert model_identity(job_of(model, adapters={"a": str(adapter)})) != before
    plain = model_identity(job_of(model))
    assert model_identity(job_of(model, engine={"extra": {"quantization": "fp8"}})) != plain
    assert model_identity(job_of(model, engine={"extra": {"swap_space": 1}})) == plain


def test_a_replaced_model_is_not_resumed_with(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    job = job_of(model)
    manifest = Manifest(
        run_id="small-0",
        created_at=START,
        job=job,
        input_format="jsonl",
        files=(),
        shards=(),
        model_files=model_files(job.model),
    )
    require_same_model(manifest)
    require_same_model(manifest.model_copy(update={"model_files": {}}))
    change(model / "model.safetensors", at=100)
    with pytest.raises(ModelReplaced, match=r"run small-0: the model in .* is not the one"):
        require_same_model(manifest)


def test_what_is_no_model_has_no_fingerprint(tmp_path: Path) -> None:
    assert directory_fingerprint(tmp_path) == ""
    assert directory_fingerprint(tmp_path / "nothing") == ""
