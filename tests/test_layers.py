"""The walls of the house: who imports whom, how long a file may be, and which names are refused.

Only the packages are held to the arrows. Tests, benchmarks and examples stand outside: they may
import anything, and nothing imports them.
"""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("shunt", "placement", "workers", "flows", "deployments")
OUTSIDE = ("tests", "benchmarks", "examples")

MAY_IMPORT = {
    "shunt": {"shunt"},
    "placement": {"placement", "shunt"},
    "workers": {"workers", "shunt"},
    "flows": {"flows", "placement", "shunt"},
    "deployments": {"deployments", "placement", "shunt"},
}

ROOMS = {
    "shunt": [
        ["keys", "errors", "retry", "cache_folder", "store"],
        ["plan", "model"],
        ["job"],
        ["structure"],
        ["dataset"],
        ["checkpoint"],
        ["results"],
        ["run"],
        ["fleet"],
        ["report"],
        ["aws"],
        ["drill"],
        ["demo_model", "testing"],
    ],
    "placement": [["errors"], ["catalogue"], ["question"], ["estimate"], ["search"], ["answer"]],
}
"""Rooms stand on those before them, and on their own row; everything in a package is in a room."""

ONLY_IN = {
    "vllm": ["workers/*"],
    "torch": ["workers/*"],
    "prefect": ["flows/prefect/*", "deployments/*"],
    "boto3": ["shunt/aws*"],
    # s3fs, with which inputs are read, hands on its client's errors; the store signs with the chain
    # of AWS's own tools, and asks S3 through their client what is wrong.
    "botocore": [
        "shunt/aws*",
        "shunt/dataset/s3_errors.py",
        "shunt/store/credentials.py",
        "shunt/store/s3_diagnosis.py",
    ],
    # The S3 server for tests makes its bucket with the client that the adapter uses.
    "obstore": ["shunt/store/*", "shunt/testing/s3_server.py"],
}

MAX_LINES = 400
REFUSED_WORDS = {"util", "utils", "common", "helper", "helpers", "manager", "base", "handler"}


def test_packages_import_along_the_arrows() -> None:
    wrong = [
        f"{file}:{line} imports {module}"
        for file, line, module in _imports(PACKAGES)
        if _top(module) in (*PACKAGES, *OUTSIDE) and _top(module) not in MAY_IMPORT[_top(file)]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_stand_on_each_other(package: str) -> None:
    floor = {room: height for height, rooms in enumerate(ROOMS[package]) for room in rooms}
    imports = [
        (f"{file}:{line} imports {module}", _room(file), _room(module))
        for file, line, module in _imports((package,))
        if _top(module) == package and _room(file) and _room(module)
    ]
    unknown = {room for _, *rooms in imports for room in rooms if room not in floor}
    assert not unknown, f"rooms without a floor in ROOMS: {unknown}"
    wrong = [what for what, of, to in imports if floor[to] > floor[of]]
    assert not wrong, "\n".join(wrong)


def test_every_room_says_what_belongs_there() -> None:
    silent = [
        path.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("__init__.py"))
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent, silent


@pytest.mark.parametrize("dependency", ONLY_IN)
def test_a_heavy_dependency_stays_in_its_place(dependency: str) -> None:
    wrong = [
        f"{file}:{line} imports {module}"
        for file, line, module in _imports(PACKAGES)
        if _top(module) == dependency
        and not any(fnmatch(file, place) for place in ONLY_IN[dependency])
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_longer_than_the_wall() -> None:
    lengths = {file: len(source.splitlines()) for file, source in _sources((*PACKAGES, *OUTSIDE))}
    assert {file: length for file, length in lengths.items() if length > MAX_LINES} == {}


def test_names_say_what_a_thing_is() -> None:
    wrong = [
        f"{file}: {name}"
        for file, source in _sources((*PACKAGES, *OUTSIDE))
        for name in _defined_names(file, source)
        # The name of a test is a sentence, and may use any word.
        if REFUSED_WORDS & set(_words(name)) and not name.startswith("test_")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_top_level_is_the_one_in_the_design() -> None:
    """A new top-level package needs a decision record, and a line here."""
    packages = {path.parent.name for path in ROOT.glob("*/*.py") if path.parent.name[0] != "."}
    assert packages <= {*PACKAGES, *OUTSIDE}


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_where_a_change_belongs_names_places_that_exist(page: str) -> None:
    named = re.findall(r"`([\w.*-]+/[\w/.*-]*)`", (ROOT / page).read_text(encoding="utf-8"))
    assert len(named) > 20
    missing = [place for place in named if not any(ROOT.glob(place.rstrip("/")))]
    assert not missing, missing


def _imports(packages: tuple[str, ...]) -> Iterator[tuple[str, int, str]]:
    """File, line and module of every import, also of those inside functions."""
    for file, source in _sources(packages):
        for node in ast.walk(ast.parse(source, file)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield file, node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                # A relative import stays in its package; STYLE wants absolute ones all the same.
                module = node.module if node.level == 0 and node.module else file
                # `from shunt import keys` names a room only in what it takes.
                names = [a.name for a in node.names] if module in PACKAGES else []
                for name in names or [""]:
                    yield file, node.lineno, f"{module}.{name}" if name else module


def _sources(packages: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def _defined_names(file: str, source: str) -> Iterator[str]:
    yield from Path(file).with_suffix("").parts
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+", name)]


def _top(module: str) -> str:
    return re.split(r"[./]", module, maxsplit=1)[0]


def _room(module: str) -> str:
    """The second name of a module or file; empty for a package's own `__init__`."""
    parts = re.split(r"[./]", module.removesuffix(".py"))
    return parts[1] if len(parts) > 1 and parts[1] != "__init__" else ""
