"""Model runner V2, the default on GPU, through Triton's interpreter: slow, run by itself."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "runner_v2"
ROOT = Path(__file__).parents[3]
MODEL = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct"
PATIENCE_S = 1500


@pytest.mark.soak
@pytest.mark.vllm
@pytest.mark.timeout(PATIENCE_S + 60)
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="no Triton here: see runner_v2/README.md"
)
def test_runner_v2_resumes_exactly() -> None:
    environment = os.environ | {
        "PYTHONPATH": f"{HERE}:{ROOT}",
        "TRITON_INTERPRET": "1",
        "VLLM_USE_V2_MODEL_RUNNER": "1",
    }
    run = subprocess.run(
        [sys.executable, str(HERE / "contract.py"), str(MODEL)],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=True,
        text=True,
    )
    result = json.loads(run.stdout.splitlines()[-1])
    assert "/v2/" in result["fingerprint"]
    assert result["resumes"] >= 20
    assert result["differing"] == []
    assert result["restarted"] == []
    assert result["naive_differing"] > 0
