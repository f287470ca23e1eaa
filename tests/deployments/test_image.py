"""The image recipe by a small parse of our own: it was never built where it was written."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "deployments/image/Containerfile"
KNOWN = {"ARG", "FROM", "ENV", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "STOPSIGNAL"}


@dataclass
class Stage:
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)


def parsed() -> tuple[dict[str, str], dict[str, Stage]]:
    """Arguments before the first stage, and the stages by name."""
    text = re.sub(r"^#.*\n", "", RECIPE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        word, _, rest = line.partition(" ")
        assert word in KNOWN, line
        if word == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = Stage(base)
        else:
            [*stages.values()][-1].lines.append((word, rest))
    return arguments, stages


def chain(stages: dict[str, Stage], name: str) -> list[tuple[str, str]]:
    """All lines of a stage, those of the stages that it is made from first."""
    stage = stages[name]
    before = chain(stages, stage.base) if stage.base in stages else []
    return [*before, *stage.lines]


def test_every_base_is_one_version() -> None:
    arguments, stages = parsed()
    assert re.fullmatch(r"python:3\.1[1-3]\.\d+-slim-\w+", arguments["PYTHON"])
    assert {s.base for s in stages.values()} <= {"${PYTHON}", *stages}


@pytest.mark.parametrize(
    ("target", "lock", "package"),
    [("control", "control.lock", "flows"), ("worker", "worker-cuda.lock", "workers")],
)
def test_an_image_has_its_lock_its_code_and_no_root(target: str, lock: str, package: str) -> None:
    _, stages = parsed()
    lines = chain(stages, target)
    users = [rest for word, rest in lines if word == "USER"]
    assert users[-1].isdigit()
    assert int(users[-1]) > 0
    (environment,) = re.findall(
        r"--from=(\S+)", " ".join(rest for word, rest in lines if word == "COPY")
    )
    installs = chain(stages, environment)
    assert ("COPY", f"requirements/{lock} /tmp/{lock}") in installs
    assert any(w == "RUN" and "--require-hashes" in r and lock in r for w, r in installs)
    assert ("COPY", f"{package} /opt/shunt/{package}") in lines


def test_everything_that_is_copied_is_there() -> None:
    _, stages = parsed()
    copied = [r.split() for s in stages.values() for w, r in s.lines if w == "COPY"]
    sources = [words[0] for words in copied if not words[0].startswith("--from=")]
    assert len(sources) > 5
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_locks_have_hashes() -> None:
    """Or `--require-hashes` would refuse them."""
    for lock in ("control.lock", "worker-cuda.lock"):
        text = (ROOT / "requirements" / lock).read_text()
        pinned = re.findall(r"^[\w.\[\]-]+==", text, re.MULTILINE)
        assert len(pinned) > 50
        assert text.count("--hash=") >= len(pinned)
