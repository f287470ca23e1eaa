"""`batch_output.jsonl` and `batch_errors.jsonl`: results as OpenAI's batch API writes them."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shunt.dataset.openai_batch import CHAT_URL
from shunt.dataset.whole_text import whole_text
from shunt.results.openai_body import BY_NUMBER, Tokens, answer_body
from shunt.results.outcome import Outcome


@dataclass(frozen=True, slots=True)
class BatchFile:
    """What all lines of a run have in common."""

    run_id: str
    created_at: datetime
    model: str
    """Named where a request names none."""
    tokens: Tokens = BY_NUMBER

    def line(self, row: str | None, outcome: Outcome) -> str:
        """The result line of one request; an outcome with an error gives an error line."""
        request: dict[str, Any] = json.loads(row) if row else {}
        line: dict[str, Any] = {
            "id": f"batch_req_{self.run_id}_{outcome.index}",
            "custom_id": outcome.prompt_id,
            "response": None,
            "error": None,
        }
        if outcome.error is not None:
            line["error"] = {
                "code": outcome.error.code.value,
                "message": whole_text(outcome.error.message),
            }
        else:
            line["response"] = {
                "status_code": 200,
                "request_id": f"req_{self.run_id}_{outcome.index}",
                "body": answer_body(
                    request.get("body") or {},
                    outcome,
                    chat=request.get("url") == CHAT_URL,
                    created_at=self.created_at,
                    model=self.model,
                    tokens=self.tokens,
                ),
            }
        return json.dumps(line, ensure_ascii=False)
