"""What is wrong with a job file, in a sentence each: where it stands, and what to write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]

_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda ctx: f"must be more than {ctx['gt']:g}",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']:g}",
    "less_than": lambda ctx: f"must be less than {ctx['lt']:g}",
    "less_than_equal": lambda ctx: f"must be at most {ctx['le']:g}",
    "literal_error": lambda ctx: f"must be {ctx['expected']}",
    "too_short": lambda ctx: f"needs at least {ctx['min_length']}",
    "too_long": lambda ctx: f"may have at most {ctx['max_length']}",
    "string_too_short": lambda _: "must not be empty",
    "string_pattern_mismatch": lambda ctx: f"must match {ctx['pattern']}",
    "missing": lambda _: "is missing; add it",
    "value_error": lambda ctx: str(ctx["error"]),
}
_KINDS = (
    ("int", "must be a whole number"),
    ("float", "must be a number"),
    ("decimal", "must be a number"),
    ("finite_number", "must be a number"),
    ("bool", "must be true or false"),
    ("datetime", "must be an instant with its time zone, as 2026-12-01T06:00:00Z"),
    ("timezone", "must be an instant with its time zone, as 2026-12-01T06:00:00Z"),
    ("list", "must be a list"),
    ("tuple", "must be a list"),
    ("dict", "must be a section of keys"),
    ("model", "must be a section of keys"),
    ("string", "must be text"),
)
"""By how pydantic's name of the error begins (https://errors.pydantic.dev)."""


@dataclass(slots=True)
class Places:
    """Where each key of a job came from: line and column of its file, or an option."""

    source: str
    keys: dict[Path, str] = field(default_factory=dict[Path, str])
    """Each key and item that is written down: its file, line and column, counted from one."""
    overrides: list[Path] = field(default_factory=list[Path])
    page: str = "docs/jobs.md"
    """Says which keys there are."""

    def name(self, path: Path) -> str:
        """Of a key, or of the nearest one above it that was written down; `--set` for an option."""
        for override in self.overrides:
            made = override[: len(path)] == path and path not in self.keys
            if path and (made or path[: len(override)] == override):
                return "--set"
        above = (path[:length] for length in range(len(path), -1, -1))
        return next((self.keys[found] for found in above if found in self.keys), self.source)


def mistakes_of(
    error: ValidationError, tree: object, model: type[BaseModel], places: Places
) -> list[str]:
    """One line per place that is wrong."""
    told: dict[tuple[str, str, str], list[str]] = {}
    for problem in error.errors():
        path = _path_in(tree, problem["loc"], missing=problem["type"] == "missing")
        place = (places.name(path), dotted(path), _given(problem))
        words = told.setdefault(place, [])
        sentence = _sentence(problem, path, model, places.page)
        if sentence not in words:
            words.append(sentence)
    return [
        f"{place}{' ' if place == '--set' else ': '}{key}{key and ': '}{', or '.join(words)}{given}"
        for (place, key, given), words in told.items()
    ]


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _sentence(problem: Mapping[str, Any], path: Path, model: type[BaseModel], page: str) -> str:
    kind = str(problem["type"])
    if kind == "extra_forbidden":
        close = get_close_matches(str(path[-1]), _keys_beside(model, path[:-1]), n=1)
        meant = f"is it {close[0]}?" if close else "remove it;"
        return f"unknown key; {meant} {page} has all keys"
    return _WORDS[kind](problem.get("ctx", {})) if kind in _WORDS else _of_kind(kind, problem)


def _given(problem: Mapping[str, Any]) -> str:
    given = problem["input"]
    silent = problem["type"] in ("missing", "extra_forbidden", "value_error")
    return "" if silent or isinstance(given, dict | list) else f" (it is {given!r})"


def _of_kind(kind: str, problem: Mapping[str, Any]) -> str:
    found = next((words for begin, words in _KINDS if kind.startswith(begin)), None)
    return found or str(problem["msg"]).removeprefix("Input should be ")


def _path_in(tree: object, loc: Sequence[str | int], *, missing: bool) -> Path:
    """The part of pydantic's location that is of the file: it also names the members of unions."""
    path: list[str | int] = []
    for number, part in enumerate(loc):
        last = number == len(loc) - 1
        if isinstance(tree, dict) and part in tree:
            tree = cast("dict[Any, object]", tree)[part]
            path.append(part)
        elif isinstance(tree, list) and isinstance(part, int):
            items = cast("list[object]", tree)
            tree = items[part] if part < len(items) else None
            path.append(part)
        elif last and missing:
            path.append(part)
    return tuple(path)


def _keys_beside(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that a section has, as far as it is a model of its own."""
    for part in path:
        found = model.model_fields.get(str(part))
        inner = None if found is None else section_of(found.annotation)
        if inner is None:
            return []
        model = inner
    return [found.alias or name for name, found in model.model_fields.items()]


def section_of(annotation: object) -> type[BaseModel] | None:
    """The model in a field's type, where it is a section of keys of its own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inside = (section_of(part) for part in get_args(annotation))
    return next((found for found in inside if found is not None), None)
