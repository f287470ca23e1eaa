"""Reading a job file: YAML, overrides from the command line, paths relative to the file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import yaml
from pydantic import JsonValue, ValidationError

from shunt.errors import JobError
from shunt.job.job import Job

Tree = dict[str, JsonValue]


def load_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Read and check a job file. `overrides` are `a.b=value`, the value as YAML.

    Raises `JobError` with one line per mistake: where it stands and what to do.
    """
    tree = _read(path)
    for override in overrides:
        _override(tree, override)
    return check_job(resolve_paths(tree, path.parent), source=str(path))


def check_job(tree: Tree, *, source: str) -> Job:
    """Validate a job given as plain data. Raises `JobError`."""
    try:
        return Job.model_validate(tree)
    except ValidationError as error:
        lines = [f"{source}: {_told(problem)}" for problem in error.errors()]
        raise JobError("\n".join(lines)) from error


def override_job(tree: Tree, overrides: Sequence[str]) -> Job:
    """A job as plain data (a run's own, from its manifest) with overrides over it."""
    for override in overrides:
        _override(tree, override)
    return check_job(tree, source="overrides")


def job_schema() -> dict[str, JsonValue]:
    """JSON Schema of a job file, for editors."""
    schema = Job.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def resolve_paths(tree: Tree, directory: Path) -> Tree:
    """Make relative paths absolute, against the job file's directory."""
    resolved = dict(tree)
    for section, key in (("input", "path"), ("output", "path"), ("store", "uri")):
        part = resolved.get(section)
        if isinstance(part, dict) and key in part:
            resolved[section] = {**part, key: _absolute(part[key], directory)}
    model = resolved.get("model")
    if isinstance(model, dict) and isinstance(model.get("path"), str):
        local = directory / str(model["path"])
        if local.exists():  # otherwise it may be a hub id
            resolved["model"] = {**model, "path": str(local.resolve())}
    resolved.setdefault("output", {"path": str((directory / "results").resolve())})
    resolved.setdefault("store", {"uri": str((directory / "runs").resolve())})
    return resolved


def _read(path: Path) -> Tree:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: is not UTF-8 text; a job file is YAML") from error
    try:
        compose = cast("Callable[..., yaml.Node | None]", yaml.compose)  # pyright: ignore[reportUnknownMemberType]
        _refuse_repeated_keys(path, compose(text, Loader=yaml.SafeLoader))
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise JobError(f"{path}: must be a mapping with name, model and input")
    return cast(Tree, tree)


def _refuse_repeated_keys(path: Path, node: yaml.Node | None) -> None:
    """YAML keeps the last of two values of a key, without a word."""
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _refuse_repeated_keys(path, each)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value in lines:
            why = f"{key.value}: stands at line {lines[key.value]} too; remove one of them"
            raise JobError(f"{path}:{line}:{key.start_mark.column + 1}: {why}")
        lines[str(key.value)] = line
        _refuse_repeated_keys(path, value)


def _override(tree: Tree, override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise JobError(f"--set {override}: write it as section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobError(f"--set {override}: the value is not valid YAML") from error
    *parents, last = name.split(".")
    part = tree
    for parent in parents:
        below = part.setdefault(parent, {})
        if not isinstance(below, dict):
            raise JobError(f"--set {override}: {parent} is a value, not a section")
        part = below
    part[last] = value


def _absolute(value: JsonValue, directory: Path) -> JsonValue:
    if isinstance(value, list):
        return [_absolute(each, directory) for each in value]
    if not isinstance(value, str) or "://" in value:
        return value
    return str((directory / value).resolve())


def _told(problem: object) -> str:
    details = cast("dict[str, object]", problem)
    location = cast("tuple[str | int, ...]", details["loc"])
    where = ".".join(str(part) for part in location) or "job"
    if details["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it, or see docs/jobs.md for the keys there are"
    if details["type"] == "missing":
        return f"{where}: is missing; add it"
    return f"{where}: {details['msg']} (got {details['input']!r})"
