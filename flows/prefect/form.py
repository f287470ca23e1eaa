"""The form of a deployment: what a person fills first, in groups; the rest as a job file's text.

No field is optional in the sense of JSON Schema: Prefect's page shows a union with null as
"Property is type None". An empty text, or 0, stands for what is not said.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from shunt.job.job import Job
from shunt.job.job_file import check_job, resolve_paths
from shunt.job.mistakes import Places as KeyPlaces
from shunt.job.yaml_text import Tree, read_yaml, read_yaml_file

_AS_FILE = "as the job file says"
_AS_TEXT = "as job_text says"
_BOTH = "parquet and jsonl"


class _Group(BaseModel):
    """Descriptions of the page are the docstrings here."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class What(_Group):
    """The job: which model answers which prompts."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", examples=["reviews"])]
    """Letters, digits, - and _. The same job over the same input is the same run, and goes on."""
    model: Annotated[str, Field(min_length=1, examples=["Qwen/Qwen3-8B", "s3://bucket/model"])]
    """Id on the Hugging Face hub (Qwen/Qwen3-8B), s3://bucket/prefix, or a directory."""
    input: Annotated[str, Field(min_length=1, examples=["s3://bucket/prompts/*.jsonl.zst"])]
    """JSONL, Parquet, CSV or OpenAI batch: a path, or s3://bucket/prompts/*.jsonl.zst."""
    template: Annotated[str, Field(examples=["Summarise: {{ text }}"])] = ""
    """Makes a prompt of a row's columns: Summarise: {{ text }}. Empty: the column prompt."""
    chat: bool = False
    """Make a chat with one user message of each prompt text."""
    system: Annotated[str, Field(examples=["You answer in one sentence."])] = ""
    """System message of every chat: You answer in one sentence."""
    first_rows: Annotated[int, Field(ge=0)] = 0
    """Run only so many rows, as a run of their own, to see whether all is well. 0: all."""


class Answers(_Group):
    """How answers are sampled. A row's own parameters go over these."""

    max_tokens: Annotated[int, Field(ge=0, examples=[256])] = 0
    """Of an answer. 0: the job file's, or the default."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """0 is greedy. Rows without a seed get one, so a rerun repeats."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the likeliest tokens that have this share together."""


class Places(_Group):
    """Where things are kept."""

    store: Annotated[str, Field(examples=["s3://bucket/runs"])] = ""
    """Where the run keeps every token: s3://bucket/runs. Empty: beside the job file."""
    results: Annotated[str, Field(examples=["s3://bucket/results"])] = ""
    """Where the result files go: s3://bucket/results. Empty: beside the job file."""
    format: Literal["parquet and jsonl", "parquet", "jsonl"] = _BOTH
    """Of the result files."""


class Machines(_Group):
    """Who does the work. Regions, subnets and types of EC2 nodes are of the job file."""

    fleet: Literal["as the job file says", "local", "ec2", "joined"] = _AS_FILE
    """local: processes of the machine that runs this flow; ec2: nodes that cost money; joined:
    machines that join by `shunt worker`."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Each has an engine of its own, and on EC2 a node. 0: the job file's, or one."""


class Stops(_Group):
    """When to stop early. Everything generated is saved, and the next run goes on."""

    max_cost_usd: Annotated[float, Field(ge=0, examples=[25])] = 0.0
    """Of the nodes, over all invocations of the run. 0: no limit."""
    deadline: Annotated[
        str, Field(pattern=r"^$|^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)$",
                   examples=["2026-12-01T06:00:00Z"])
    ] = ""  # fmt: skip
    """With its time zone: 2026-12-01T06:00:00Z. Empty: none."""
    strict: bool = False
    """Refuse to start when a row of the input is bad."""
    bad_rows_allowed: Annotated[int, Field(ge=-1)] = -1
    """More of them, and the flow run is marked TooManyErrorRows. -1: the job file's, or none."""


class More(_Group):
    """Everything else that a job file can say."""

    job_file: Annotated[str, Field(examples=["/srv/jobs/reviews.yaml"])] = ""
    """Path of a job file where this flow runs: a field at its default leaves that to it."""
    job_text: Annotated[str, Field(examples=["model: {dtype: bfloat16}"])] = ""
    """The same as YAML, over the file: model: {dtype: bfloat16}. docs/jobs.md has all keys."""


_Filled = TypeVar("_Filled", bound=_Group)


def job_of(
    what: What, answers: Answers, places: Places, machines: Machines, stops: Stops, more: More
) -> Job:
    """The job that the form describes. Raises `JobError`."""
    directory = Path(more.job_file).parent if more.job_file else Path.cwd()
    tree, key_places = _read(more)
    for path, value in _said(what, answers, places, machines, stops):
        _put(tree, path, value)
        key_places.keys[tuple(path.split("."))] = "form"
    return check_job(resolve_paths(tree, directory), source=key_places)


def job_of_parameters(parameters: Mapping[str, object]) -> Job:
    """The same, of a flow run's parameters. Raises pydantic's `ValidationError` too."""

    def group(model: type[_Filled], name: str) -> _Filled:
        return model.model_validate(parameters.get(name, {}))

    return job_of(
        group(What, "what"),
        group(Answers, "answers"),
        group(Places, "places"),
        group(Machines, "machines"),
        group(Stops, "stops"),
        group(More, "more"),
    )


def form_of(job: Tree) -> dict[str, JsonValue]:
    """The form filled with a job, as a deployment's parameters: what has no field is text."""
    rest = deepcopy(job)
    what: Tree = {"name": _take(rest, "name"), "model": _take(rest, "model.path")}
    what["input"] = _take(rest, "input.path")
    if isinstance(what["input"], list):
        _put(rest, "input.path", what["input"])
        what["input"] = _AS_TEXT
    groups: dict[str, dict[str, JsonValue]] = {
        "what": what, "answers": {}, "places": {}, "machines": {}, "stops": {}
    }  # fmt: skip
    for group, field, path in PLAIN_FIELDS:
        value = _take(rest, path)
        if value is not None:
            groups[group][field] = value
    if (kind := _take(rest, "fleet.kind")) is not None:
        groups["machines"]["fleet"] = kind
    text = yaml.safe_dump(_without_empty(rest), sort_keys=False) if _without_empty(rest) else ""
    return {**{name: cast(JsonValue, group) for name, group in groups.items()},
            "more": {"job_text": text}}  # fmt: skip


PLAIN_FIELDS = (
    ("what", "template", "input.template"), ("what", "chat", "input.chat"),
    ("what", "system", "input.system"), ("answers", "max_tokens", "sampling.max_tokens"),
    ("answers", "temperature", "sampling.temperature"), ("answers", "top_p", "sampling.top_p"),
    ("places", "store", "store.uri"), ("places", "results", "output.path"),
    ("machines", "workers", "fleet.workers"), ("stops", "max_cost_usd", "limits.max_cost_usd"),
    ("stops", "deadline", "limits.deadline"), ("stops", "strict", "errors.strict"),
    ("stops", "bad_rows_allowed", "errors.max_error_rows"),
)  # fmt: skip
"""(group, field, path in the job) of the fields that mean what the job's key means."""


def _said(
    what: What, answers: Answers, places: Places, machines: Machines, stops: Stops
) -> list[tuple[str, JsonValue]]:
    """(path in the job, value) of what the form says: a field at its default says nothing."""
    groups: dict[str, _Group] = {
        "what": what, "answers": answers, "places": places, "machines": machines, "stops": stops
    }  # fmt: skip
    said: list[tuple[str, JsonValue]] = [("name", what.name), ("model.path", what.model)]
    if what.input != _AS_TEXT:
        said.append(("input.path", what.input))
    for group, field, path in PLAIN_FIELDS:
        form = groups[group]
        value = getattr(form, field)
        if value != type(form).model_fields[field].default:
            said.append((path, value))
    if machines.fleet != _AS_FILE:
        said.append(("fleet.kind", machines.fleet))
    if places.format != _BOTH:
        said.append(("output.formats", [places.format]))
    return said


def _read(more: More) -> tuple[Tree, KeyPlaces]:
    """The job file with the text over it."""
    expected = "keys and values as in a job file"
    tree, places = dict[str, JsonValue](), KeyPlaces("form")
    if more.job_file:
        tree, places = read_yaml_file(Path(more.job_file), expected=expected)
        places.source = "form"
    if more.job_text.strip():
        over, over_places = read_yaml(more.job_text, "more.job_text", expected=expected)
        tree = _merged(tree, over)
        places.keys |= over_places.keys
    return tree, places


def _merged(under: Tree, over: Tree) -> Tree:
    """`over` wins, section by section."""
    found = dict(under)
    for name, value in over.items():
        below = found.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        found[name] = _merged(cast(Tree, below), cast(Tree, value)) if both else value
    return found


def _put(tree: Tree, path: str, value: JsonValue) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        below = tree.get(parent)
        tree[parent] = dict(below) if isinstance(below, dict) else {}
        tree = cast(Tree, tree[parent])
    tree[last] = value


def _take(tree: Tree, path: str) -> JsonValue:
    """The value, out of the tree; None where there is none."""
    *parents, last = path.split(".")
    for parent in parents:
        below = tree.get(parent)
        if not isinstance(below, dict):
            return None
        tree = below
    return tree.pop(last, None)


def _without_empty(tree: Tree) -> Tree:
    return {name: value for name, value in tree.items() if value != {}}
