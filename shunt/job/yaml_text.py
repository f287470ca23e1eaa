"""YAML that people write: read once for all, with the place of every key, in our words."""

# PyYAML's stubs leave the types of values and of some marks open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, cast

import yaml
from pydantic import JsonValue

from shunt.errors import JobError
from shunt.job.mistakes import Path, Places

Tree = dict[str, JsonValue]

_MAX_VALUES = 100_000
"""Of one text, each alias counted again wherever it is used."""
_WORDS = (
    (r"character '\t'", "a tab; indent with spaces"),
    ("unhashable key", "a value that begins with { or [ must stand in quotes"),
    ("undefined alias", "a value that begins with * must stand in quotes"),
    ("constructor for the tag", "a value that begins with ! or = must stand in quotes"),
    ("cannot start any token", "a value that begins with this character must stand in quotes"),
    ("mapping values", "a second ':' here: put the value in quotes, or mend the indentation"),
    ("find expected ':'", "a ':' is missing after the key of this line"),
    ("unexpected end of stream", "a quote is opened and never closed"),
    ("<stream end>", "a bracket is opened and never closed"),
    ("expected ',' or", "a ',' or the closing bracket is missing before this"),
    ("<block end>", "this does not fit what stands above it; look at the indentation"),
    ("another document", "a second document begins; a file has one, so remove this ---"),
    ("unknown escape", "a backslash in double quotes; use single quotes"),
)
"""By what PyYAML's sentence says."""


class _Loader(yaml.SafeLoader):
    """Instants stay text: whoever takes them reads them, and JSON has none."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in cast("dict[str, list[Any]]", _Loader.yaml_implicit_resolvers).items()
}


def read_yaml_file(path: FilePath, *, expected: str) -> tuple[Tree, Places]:
    """The file's keys, and where each stands. `expected` says what keys it should have.

    Raises `JobError`, with line and column where there is one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: is not UTF-8 text; it must be YAML") from error
    return read_yaml(text, str(path), expected=expected)


def read_yaml(text: str, source: str, *, expected: str) -> tuple[Tree, Places]:
    """The same of a text; `source` says where it is from."""
    value, places = _read(text, source)
    if not isinstance(value, dict):
        raise JobError(f"{source}: must be {expected}")
    return cast(Tree, value), places


def yaml_value(text: str, source: str) -> JsonValue:
    """One value of any kind. Raises `JobError`."""
    return cast(JsonValue, _read(text, source)[0])


def _read(text: str, source: str) -> tuple[object, Places]:
    places = Places(source)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        for number, (path, below) in enumerate(_nodes(node, (), source, ())):
            if number > _MAX_VALUES:
                raise JobError(f"{source}: has more than {_MAX_VALUES} values")
            places.keys[path] = _place(source, below.start_mark)
        return None if node is None else loader.construct_document(node), places
    except yaml.MarkedYAMLError as error:
        place = _place(source, error.problem_mark or error.context_mark)
        told = next((ours for theirs, ours in _WORDS if theirs in str(error)), error.problem)
        raise JobError(f"{place}: is not valid YAML: {told}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        told = f"a character that is not text (U+{ord(text[error.position]):04X})"
        raise JobError(f"{source}:{line}: is not valid YAML: {told}") from error
    except ValueError as error:  # of a value with a tag, as `!!int x`
        raise JobError(f"{source}: is not valid YAML: {error}") from error
    except RecursionError as error:
        raise JobError(f"{source}: is nested too deep") from error


def _nodes(
    node: yaml.Node | None, path: Path, source: str, above: tuple[yaml.Node, ...]
) -> Iterator[tuple[Path, yaml.Node]]:
    """Every key and item. Raises `JobError` where YAML itself would say nothing: of two values of
    one key it keeps the last."""
    if node is not None and node in above:
        raise JobError(f"{_place(source, node.start_mark)}: holds itself")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            name = _key(key, source)
            place = _place(source, key.start_mark)
            if name in seen:
                raise JobError(f"{place}: {name}: stands at line {seen[name]} too; remove one")
            seen[name] = key.start_mark.line + 1
            yield (*path, name), key
            yield from _nodes(value, (*path, name), source, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(cast("list[yaml.Node]", node.value)):
            yield (*path, number), value
            yield from _nodes(value, (*path, number), source, (*above, node))


def _key(key: yaml.Node, source: str) -> str:
    place = _place(source, key.start_mark)
    if not isinstance(key, yaml.ScalarNode):
        raise JobError(f"{place}: is not valid YAML: {_WORDS[1][1]}")
    if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
        raise JobError(f"{place}: the key {key.value or 'null'} must stand in quotes")
    return str(key.value)


def _place(source: str, mark: Any) -> str:
    return source if mark is None else f"{source}:{mark.line + 1}:{mark.column + 1}"
