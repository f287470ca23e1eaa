"""Reading a job file: YAML, overrides from the command line, paths relative to the file."""

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue, ValidationError

from shunt.errors import JobError
from shunt.job.job import Job
from shunt.job.mistakes import Places, mistakes_of
from shunt.job.yaml_text import Tree, read_yaml_file, yaml_value


def load_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Read and check a job file. `overrides` are `a.b=value`, the value as YAML.

    Raises `JobError` with one line per mistake: where it stands and what to do.
    """
    tree, places = read_yaml_file(path, expected="a mapping with name, model and input")
    _override_all(tree, overrides, places)
    return check_job(resolve_paths(tree, path.parent), source=places)


def check_job(tree: Tree, *, source: str | Places) -> Job:
    """Validate a job given as plain data, with where its keys came from. Raises `JobError`."""
    places = Places(source) if isinstance(source, str) else source
    try:
        return Job.model_validate(tree)
    except ValidationError as error:
        raise JobError("\n".join(mistakes_of(error, tree, Job, places))) from error


def override_job(tree: Tree, overrides: Sequence[str]) -> Job:
    """A job as plain data (a run's own, from its manifest) with overrides over it."""
    places = Places("manifest")
    _override_all(tree, overrides, places)
    return check_job(tree, source=places)


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


def _override_all(tree: Tree, overrides: Sequence[str], places: Places) -> None:
    for override in overrides:
        places.overrides.append(_override(tree, override))


def _override(tree: Tree, override: str) -> tuple[str, ...]:
    """Set the value; returns the path of its key."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise JobError(f"--set {override}: write it as section.key=value")
    value = yaml_value(text, f"--set {override}")
    *parents, last = name.split(".")
    part = tree
    for parent in parents:
        below = part.setdefault(parent, {})
        if not isinstance(below, dict):
            raise JobError(f"--set {override}: {parent} is a value, not a section")
        part = below
    part[last] = value
    return (*parents, last)


def _absolute(value: JsonValue, directory: Path) -> JsonValue:
    if isinstance(value, list):
        return [_absolute(each, directory) for each in value]
    if not isinstance(value, str) or "://" in value:
        return value
    # The name as it was written, links and all: messages say it, and a link may be broken.
    return os.path.abspath(directory / value)
