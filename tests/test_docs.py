"""Docs do not rot: links lead somewhere, tables are their data, commands and options exist."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_command

from benchmarks import tables
from flows.cli import app
from shunt.dataset.row_error import RowErrorCode
from shunt.job.job import Job
from shunt.job.mistakes import section_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.exists()]
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for match in _LINK.finditer(_without_code(page.read_text())):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (page.parent / file).resolve() if file else page
        if not to.exists() or (anchor and anchor not in _anchors(to)):
            wrong.append(target)
    assert not wrong


def test_tables_and_glossary_are_those_of_their_data() -> None:
    assert tables.main(["--check"]) == 0, "run python -m benchmarks.tables"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    """In code blocks and in `code`: `shunt NAME --option` must parse as far as it is written."""
    wrong = []
    for words, rest in _commands(page.read_text()):
        options = _options_of(words)
        if options is None:
            wrong.append(f"shunt {' '.join(words)}")
            continue
        named = re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)
        wrong += [f"shunt {' '.join(words)} {o}" for o in named if o not in options]
    assert not wrong


def test_the_page_of_job_files_has_every_error_code() -> None:
    page = (ROOT / "docs/jobs.md").read_text()
    table = page.partition("## Error codes")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    named = [code for cell in cells for code in re.findall(r"`([a-z_]+)`", cell)]
    assert sorted(named) == sorted(code.value for code in RowErrorCode)


def test_the_page_of_job_files_has_all_keys_and_no_others() -> None:
    """A row names its keys in the first cell; the row of a section (`a.b.*`), or of its first key,
    may name others of the section in the last."""
    rows = re.findall(
        r"^\| (`.+?) \|.*?\| (.*) \|$", (ROOT / "docs/jobs.md").read_text(), re.MULTILINE
    )
    named = {key for cell, _ in rows for key in re.findall(r"`([a-z_.*0-9]+)`", cell)}
    beside = {
        f"{key.rpartition('.')[0]}.{name}"
        for cell, told in rows
        for key in re.findall(r"`([a-z_.*0-9]+)`", cell)
        for name in re.findall(r"`([a-z_0-9]+)`", told)
    }
    keys = set(_keys(Job, ""))
    whole = {key.removesuffix("*") for key in named if key.endswith(".*")}
    assert {k for k in keys if k not in named | beside and not k.startswith("sampling.")} == set()
    assert {k for k in named if not k.endswith("*") and not _is_key(k, keys)} == set()
    assert {w for w in whole if not any(k.startswith(w) for k in keys)} == set()


def _is_key(name: str, keys: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for key in keys)


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Dotted keys of a job file; `plan` and pipelines have pages of their own."""
    for name, found in model.model_fields.items():
        inner = section_of(found.annotation)
        if inner is None or name in ("plan", "pipeline", "interruptions"):
            yield f"{prefix}{found.alias or name}"
        else:
            yield from _keys(inner, f"{prefix}{name}.")


def _commands(text: str) -> list[tuple[list[str], str]]:
    found = []
    for code in re.findall(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", text, re.DOTALL):
        for line in (code[0] or code[1]).splitlines():
            match = re.match(r"(?:\$ )?shunt (?P<rest>[a-z].*)", line.strip())
            if match is None or " | " in line.split("#")[0]:
                continue
            words = match["rest"].split("#")[0].split()
            names = [words[0]]
            if _is_group(words[0]) and len(words) > 1:
                names.append(words[1])
            found.append((names, " ".join(words[len(names) :])))
    return found


@cache
def _root() -> TyperGroup:
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def _is_group(name: str) -> bool:
    return hasattr(_root().commands.get(name), "commands")


def _options_of(words: list[str]) -> set[str] | None:
    """Options of a command; None where there is no such command."""
    command = _root().commands.get(words[0])
    if command is not None and len(words) > 1:
        command = getattr(command, "commands", {}).get(words[1])
    if command is None:
        return None
    own = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)}
    return own | {"--help"}


@cache
def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _without_code(page.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)
