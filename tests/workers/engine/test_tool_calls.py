"""Calls of tools that the model chose, by vLLM's own parser, also after a move."""

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from shunt.checkpoint.generation import Finish
from shunt.checkpoint.request import Request
from shunt.job.sampling import StructuredOutput
from shunt.job.tool_parsers import TOOL_CALL_PARSERS
from workers.testing.moves import cut

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

CLOCK = {"type": "function", "function": {"name": "clock", "description": None, "parameters": None}}
CALL = 'So: <tool_call>\n{"name": "clock", "arguments": {"zone": "Köln"}}\n</tool_call>'


async def test_a_call_is_read_and_the_same_after_a_move(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    """A grammar has the small model write what another would of itself."""
    one = StructuredOutput(choice=[CALL])
    request = new_request("What time is it?", structured_outputs=one, max_tokens=80)
    request = replace(request, calls_of={"tools": [CLOCK]})
    whole = await engine.generate(request)
    assert whole.finish.text == CALL
    assert json.loads(whole.finish.message) == {
        "content": "So: ",
        "calls": [{"name": "clock", "arguments": '{"zone": "Köln"}'}],
    }
    for point in (7, len(whole.token_ids)):
        moved = await engine.generate(
            replace(request, request_id=f"moved-{point}.0", saved=cut(whole, point))
        )
        assert moved.num_resumes == 1
        assert moved.finish == whole.finish


async def test_an_answer_without_a_call_is_text(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    request = new_request("Say hello.", max_tokens=8)
    plain = await engine.generate(request)
    assert plain.finish.message == ""
    asked = replace(request, request_id="asked.0", calls_of={"tools": [CLOCK], "thinking": True})
    answer = await engine.generate(asked)
    assert json.loads(answer.finish.message) == {"content": plain.finish.text, "calls": []}
    assert answer.token_ids == plain.token_ids


async def test_a_parser_that_does_not_fit_the_model_is_told(engine: Any) -> None:
    """Before a row is run."""
    from workers.engine.private.tool_calls import CallReader

    with pytest.raises(TypeError, match="--tool-call-parser jamba cannot be used"):
        CallReader("jamba", engine._llm)


async def test_marks_are_kept_and_a_parser_that_fails_leaves_the_text(engine: Any) -> None:
    from vllm import SamplingParams

    from workers.engine.private.tool_calls import CallReader

    def parse(*_arguments: object, **_named: object) -> None:
        raise IndexError

    reader = CallReader("hermes", engine._llm)
    params = SamplingParams()
    reader.keep_marks(params, {"tools": [CLOCK]})
    assert not params.skip_special_tokens, "marks of calls are special tokens in some models"
    broken = SimpleNamespace(parse=parse, set_prompt_token_ids=lambda _ids: None)
    reader._parser = lambda _request, _told: broken  # type: ignore[method-assign, assignment, return-value]
    assert reader.message({"tools": [CLOCK]}, [1], "x", [2]) == ""
    assert Finish("stop", None, "x").message == ""


async def test_the_names_are_those_of_vllm() -> None:
    from vllm.tool_parsers import ToolParserManager

    known = set(ToolParserManager.list_registered())
    assert known - {"openai"} == TOOL_CALL_PARSERS
