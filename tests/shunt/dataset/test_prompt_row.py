"""What a prompt is made of, and that no row can end more than itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from shunt.dataset.shard import prompts_of
from shunt.errors import JobError
from tests.shunt.dataset.rows import cut, make_job, renderer


def prompt_of(tmp_path: Path, row: dict[str, Any], **sections: Any) -> Any:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    job = make_job(path, **sections)
    [table], _ = cut(job)
    [prompt] = prompts_of(table, defaults=job.sampling)
    return prompt


def test_a_template_makes_the_prompt_of_any_columns(tmp_path: Path) -> None:
    prompt = prompt_of(tmp_path, {"a": 1, "b": "x"}, input={"template": "{{ a + 1 }} {{ b }}\n"})
    assert prompt.text == "2 x\n"


@pytest.mark.parametrize(
    "template",
    ["{{ missing }}", "{{ 1 // n }}", "{{ n.a.b }}", "{{ range(10**9) }}", "{{ n|join }}",
     "{{ '%d' % 'x' }}", "{{ ''.__class__.__mro__ }}"],
)  # fmt: skip
def test_a_template_that_fails_over_a_row_ends_that_row(tmp_path: Path, template: str) -> None:
    prompt = prompt_of(tmp_path, {"n": 0}, input={"template": template})
    assert prompt.error.code == "missing_prompt"
    assert prompt.error.message.startswith("rows.jsonl:1: input.template: ")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ 'x' * 10000000000 }}", "repeats a text"),
        ("{{ 10000000000 * n }}", "repeats a text"),
        ("{{ '%999999999s' % n }}", "width of 999999999"),
        ("{{ '{:999999999}'.format(n) }}", "width of 999999999"),
        ("{{ '%999999999s'|format(n) }}", "width of 999999999"),
        ("{{ n|center(1000000000) }}", "width of 1,000,000,000"),
        ("{{ n.rjust(1000000000) }}", "width of 1,000,000,000"),
        ("{{ 9 ** 999999999 }}", "power of 999,999,999"),
        ("{% for i in range(5000) %}{% for j in range(5000) %}{% endfor %}{% endfor %}", "ranges"),
        ("{% for i in range(3000) %}{{ n * 5000 }}{% endfor %}", "over 10,000,000 characters"),
    ],
)
def test_a_template_is_bounded_in_size_and_steps(tmp_path: Path, template: str, told: str) -> None:
    prompt = prompt_of(tmp_path, {"n": "x"}, input={"template": template})
    assert prompt.error.code == "missing_prompt"
    assert told in prompt.error.message


def test_a_template_may_count_and_repeat(tmp_path: Path) -> None:
    template = (
        "{% for i in range(3) %}{{ '-' * n }}{{ '%3d' % i }}{% endfor %}{{ range(9)|length }}"
        "{{ '{:3}'.format(n) }}"
    )
    prompt = prompt_of(tmp_path, {"n": 2}, input={"template": template})
    assert prompt.text == "--  0--  1--  29  2"


def test_a_template_that_does_not_compile_is_a_wrong_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"input\.template: line 1"):
        prompt_of(tmp_path, {"n": 0}, input={"template": "{{ n"})


def test_a_chat_is_made_of_a_text(tmp_path: Path) -> None:
    prompt = prompt_of(tmp_path, {"prompt": "hi"}, input={"system": "Be brief."})
    assert prompt.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    )


def test_own_parameters_go_over_the_defaults(tmp_path: Path) -> None:
    row = {"prompt": "hi", "sampling": {"max_tokens": 3, "top_p": None}}
    prompt = prompt_of(tmp_path, row, sampling={"max_tokens": 9, "top_p": 0.5})
    assert (prompt.sampling.max_tokens, prompt.sampling.top_p) == (3, 0.5)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"token_ids": [2**31]}, "missing_prompt"),
        ({"token_ids": [1.0]}, "missing_prompt"),
        ({"token_ids": [True]}, "missing_prompt"),
        ({"token_ids": []}, "empty_prompt"),
        ({"prompt": 5}, "missing_prompt"),
        ({"prompt": " \n"}, "empty_prompt"),
        ({"messages": [{"role": "user", "content": " "}]}, "empty_prompt"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "invalid_messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "unsupported_parameter",
        ),
        ({"prompt": "x", "sampling": []}, "invalid_parameter"),
        ({"prompt": "x", "sampling": {"adapter": "a"}}, "invalid_parameter"),
        ({"prompt": "x", "sampling": {"structured_outputs": {"json": "3"}}}, "invalid_schema"),
        (
            {"prompt": "x", "sampling": {"structured_outputs": {"json": {"$schema": 5}}}},
            "invalid_schema",
        ),
        ({"prompt": "x", "sampling": {"structured_outputs": {"json": "{"}}}, "invalid_schema"),
        ({"prompt": "x", "sampling": {"structured_outputs": {"choice": []}}}, "invalid_schema"),
    ],
)
def test_a_bad_row_has_its_code(tmp_path: Path, row: dict[str, Any], code: str) -> None:
    prompt = prompt_of(tmp_path, {"id": "own", **row})
    assert prompt.error.code == code
    assert prompt.prompt_id == "own"


def test_text_parts_of_a_message_are_kept_and_rendered_as_lines(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    prompt = prompt_of(tmp_path, {"messages": [{"role": "user", "content": parts}]})
    assert prompt.messages == ({"role": "user", "content": parts},)
    assert bytes(i - 1 for i in renderer().render(prompt)).decode() == "<user>a\nb"


@pytest.mark.parametrize(
    ("row", "prompt_id"),
    [
        ({"id": "a"}, "a"),
        ({"id": 7}, "7"),
        ({"id": "a", "custom_id": "b"}, "b"),
        ({"id": "", "custom_id": None}, "row-00000000"),
        ({"id": 10**30}, str(10**30)),
        ({}, "row-00000000"),
    ],
)
def test_the_id_is_the_rows_own_or_made_of_its_position(
    tmp_path: Path, row: dict[str, Any], prompt_id: str
) -> None:
    assert prompt_of(tmp_path, {"prompt": "x", **row}).prompt_id == prompt_id


def test_a_configured_id_is_needed(tmp_path: Path) -> None:
    columns = {"columns": {"id": "key"}}
    assert prompt_of(tmp_path, {"prompt": "x", "key": "k"}, input=columns).prompt_id == "k"
    error = prompt_of(tmp_path, {"prompt": "x", "id": "k"}, input=columns).error
    assert (error.code, error.message) == (
        "missing_id",
        "rows.jsonl:1: key: is missing; the row has prompt, id",
    )


def test_the_model_of_a_request_may_name_an_adapter(tmp_path: Path) -> None:
    row = {
        "custom_id": "c",
        "url": "/v1/completions",
        "body": {"model": "polite", "prompt": "x"},
    }
    adapted = prompt_of(tmp_path, row, model={"adapters": {"polite": "/adapters/polite"}})
    assert adapted.sampling.adapter == "polite"
    assert prompt_of(tmp_path, row).sampling.adapter is None
