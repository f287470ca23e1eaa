"""Whatever text stands for YAML: one sentence, with the place, and never a silent guess."""

from pathlib import Path

import pytest

from shunt.errors import JobError
from shunt.job.yaml_text import read_yaml, read_yaml_file, yaml_value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n\tb: 1", "t:2:1: is not valid YAML: a tab; indent with spaces"),
        ("a: b: c", "t:1:5: is not valid YAML: a second ':' here"),
        ("a: 1\nb", "t:2:2: is not valid YAML: a ':' is missing after the key"),
        ("template: {{ text }}", "t:1:12: is not valid YAML: a value that begins with { or"),
        ("a: *b", "t:1:4: is not valid YAML: a value that begins with * must stand in quotes"),
        ("a: !b c", "t:1:4: is not valid YAML: a value that begins with ! or ="),
        ("a: @b", "t:1:4: is not valid YAML: a value that begins with this character"),
        ("a: 'b", "t:1:6: is not valid YAML: a quote is opened and never closed"),
        ("a: {b: 1", "t:1:9: is not valid YAML: a bracket is opened and never closed"),
        ("a: [b c: d e: f]", "t:1:13: is not valid YAML: a ',' or the closing bracket"),
        ("a:\n  - b\n c: 1", "t:3:2: is not valid YAML: this does not fit what stands above"),
        ("a: 1\n---\nb: 2", "t:2:1: is not valid YAML: a second document begins"),
        (r'a: "\d"', "t:1:6: is not valid YAML: a backslash in double quotes"),
        ("a: 1\nb: \x07", r"t:2: is not valid YAML: a character that is not text (U+0007)"),
        ("a: !!int b", "t: is not valid YAML: invalid literal"),
        ("a: &b [*b]", "t:1:4: holds itself"),
        ("a: {b: 1, b: 2}", "t:1:11: b: stands at line 1 too; remove one"),
        ("a:\n- b: 1\n  b: 2", "t:3:3: b: stands at line 2 too; remove one"),
        ("on: 1", "t:1:1: the key on must stand in quotes"),
        ("[" * 3000, "t: is nested too deep"),
        ("just words", "t: must be a mapping"),
        ("", "t: must be a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(JobError) as raised:
        read_yaml(text, "t", expected="a mapping")
    assert str(raised.value).startswith(told)


def test_text_that_grows_without_end_is_refused() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(JobError, match="more than 100000 values"):
        read_yaml("\n".join(["a0: &a0 [x]", *levels]), "t", expected="a mapping")


def test_anchors_and_merges_are_kept_and_instants_stay_text() -> None:
    text = "base: &b {x: 1}\nmade: {<<: *b, y: 2026-12-01}"
    tree, places = read_yaml(text, "t", expected="a mapping")
    assert tree["made"] == {"x": 1, "y": "2026-12-01"}
    assert places.name(("made", "y")) == "t:2:16"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: caf\xe9")
    for name, told in (("latin.yaml", "is not UTF-8 text"), ("", "cannot be read")):
        with pytest.raises(JobError, match=told):
            read_yaml_file(tmp_path / name, expected="a mapping")
    assert yaml_value("[1, x]", "--set a") == [1, "x"]
