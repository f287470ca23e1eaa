"""Private names of vLLM: in one room, checked at the start, and never wrong where they changed."""

import ast
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

WORKERS = Path(__file__).parents[3] / "workers"
PRIVATE = WORKERS / "engine/private"

PUBLIC = {
    "vllm",
    "vllm.config",
    "vllm.exceptions",
    "vllm.inputs.engine",
    "vllm.lora.request",
    "vllm.platforms",
    "vllm.sampling_params",
    "vllm.usage.usage_lib",
}
"""Modules of vLLM that its own examples and documentation import from."""


def test_private_modules_are_imported_in_one_room_alone() -> None:
    offenders = [
        f"{path.relative_to(WORKERS)} imports {name}"
        for path in sorted(WORKERS.rglob("*.py"))
        if PRIVATE not in path.parents
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
        if name.split(".")[0] == "vllm" and name not in PUBLIC
    ]
    assert not offenders


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.vllm
def test_the_pinned_version_has_no_problem() -> None:
    from workers.engine.private import names

    assert names.problems() == []


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
    from workers.engine.private import names

    def add_request(self: Any, request: Any, when: float) -> None: ...

    changed = ((add_request, "self request"),)
    monkeypatch.setattr(names, "_SIGNATURES", changed)
    assert any("add_request takes" in problem for problem in names.problems())


@pytest.mark.vllm
def test_a_missing_attribute_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.engine.private import names

    class Request:
        def __init__(self) -> None:
            self.status = 0

    monkeypatch.setattr(names, "_INSTANCE_ATTRIBUTES", ((Request, "status prefill_stats"),))
    assert names.problems() == ["Request.__init__ does not set prefill_stats"]


@pytest.mark.vllm
def test_a_missing_name_of_a_module_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.engine.private import names

    module = ModuleType("vllm.module")
    monkeypatch.setattr(names, "_MODULE_ATTRIBUTES", ((module, "_TP"),))
    assert names.problems() == ["vllm.module has no _TP"]
