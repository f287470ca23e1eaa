"""Calls of tools in an answer, read by vLLM's own parser of the model's syntax."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue
from vllm import AsyncLLMEngine, SamplingParams
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager
from vllm.parser.abstract_parser import Parser

log = logging.getLogger(__name__)


class CallReader:
    """The parser of one model. `told` is what the chat template was told: tools and the rest."""

    def __init__(self, name: str, llm: AsyncLLMEngine) -> None:
        """Raises `TypeError` where the model's tokenizer lacks the tokens of that syntax."""
        tokenizer = llm.renderer.tokenizer
        assert tokenizer is not None  # vLLM is told to load it
        self._tokenizer = tokenizer
        self._model = llm.vllm_config.model_config
        parser = ParserManager.get_parser(
            tool_parser_name=name,
            enable_auto_tools=True,
            model_name=self._model.model,
            tokenizer=tokenizer,
        )
        assert parser is not None  # of a name that is known
        self._parser_class: type[Parser] = parser

    def keep_marks(self, params: SamplingParams, told: Mapping[str, JsonValue]) -> None:
        """Have the text hold the special tokens that the parser looks for."""
        request = _request(told)
        adjusted = self._parser(request, told).adjust_request(request)
        params.skip_special_tokens = params.skip_special_tokens and adjusted.skip_special_tokens

    def message(
        self,
        told: Mapping[str, JsonValue],
        prompt_token_ids: Sequence[int],
        text: str,
        token_ids: Sequence[int],
    ) -> str:
        """JSON of the answer's `content` and of its `calls`, each with name and arguments, as
        vLLM's server would give them; empty where the parser fails over the text."""
        request = _request(told)
        parser = self._parser(request, told)
        parser.set_prompt_token_ids(prompt_token_ids)
        try:
            _, content, calls = parser.parse(
                text, request, enable_auto_tools=True, model_output_token_ids=token_ids
            )
        except Exception:  # parsers of many hands, over whatever a model wrote
            log.exception("the parser of tool calls failed; the answer stays text")
            return ""
        named = [{"name": call.name, "arguments": call.arguments} for call in calls or ()]
        return json.dumps({"content": content, "calls": named}, ensure_ascii=False)

    def _parser(self, request: ChatCompletionRequest, told: Mapping[str, JsonValue]) -> Parser:
        values = {name: value for name, value in told.items() if name != "tools"}
        tools: Any = request.tools  # a list of its own members' type
        return self._parser_class(
            self._tokenizer, tools, chat_template_kwargs=values, model_config=self._model
        )


def _request(told: Mapping[str, JsonValue]) -> ChatCompletionRequest:
    asked: dict[str, Any] = {"messages": [], "tools": told["tools"], "tool_choice": "auto"}
    return ChatCompletionRequest.model_validate(asked)
