"""The commands about nodes: what they say before they do it, and without an account."""

from pathlib import Path

import pytest
import typer
from moto import mock_aws
from typer.testing import CliRunner

from flows.commands import fleet as fleet_commands


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    made = typer.Typer()
    for name, command in fleet_commands.COMMANDS.items():
        made.command(name)(command)
    return made


def said(app: typer.Typer, *argv: str) -> str:
    result = CliRunner().invoke(app, list(argv), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_nothing_of_ours_is_nothing_to_end(app: typer.Typer, tmp_path: Path) -> None:
    with mock_aws():
        assert "nothing to end" in said(app, "reap", "--store", str(tmp_path / "runs"))
        assert "node" in said(app, "nodes")
