"""Private names of vLLM: in one file, checked at the start, and never wrong where they changed."""

import ast
from pathlib import Path
from typing import Any

import pytest

ENGINE = Path(__file__).parents[3] / "workers"


def test_one_file_alone_imports_private_modules() -> None:
    offenders = [
        path.name
        for path in ENGINE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
        if name.startswith("vllm.v1") and path.name != "vllm_private.py"
    ]
    assert not offenders


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.vllm
def test_the_pinned_version_has_no_problem() -> None:
    from workers.engine import vllm_private

    assert vllm_private.problems() == []


@pytest.mark.vllm
def test_another_version_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and rows are restarted: the engine starts without the hooks."""
    import vllm

    from workers.engine.engine_start import load_private

    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    private, reason = load_private()
    assert private is None
    assert "0.33.0" in reason


@pytest.mark.vllm
def test_a_changed_signature_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.engine import vllm_private

    def add_request(self: Any, request: Any, when: float) -> None: ...

    changed = ((add_request, "self request"),)
    monkeypatch.setattr(vllm_private, "_SIGNATURES", changed)
    assert any("add_request takes" in problem for problem in vllm_private.problems())


@pytest.mark.vllm
def test_a_missing_attribute_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.engine import vllm_private

    class Request:
        def __init__(self) -> None:
            self.status = 0

    monkeypatch.setattr(vllm_private, "_INSTANCE_ATTRIBUTES", ((Request, "status prefill_stats"),))
    assert vllm_private.problems() == ["Request.__init__ does not set prefill_stats"]
