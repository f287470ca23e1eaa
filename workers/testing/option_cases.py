"""One sampling per class of options: what a moved generation is tried with."""

from collections.abc import Callable, Mapping

from shunt.job.sampling import RepetitionDetection, Sampling, StructuredOutput

PROMPTS = (
    "Describe the capital of France in a short paragraph.",
    "List five animals and one fact about each.",
    "Write a short story about a robot who learns to paint.",
)

JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 16},
        "age": {"type": "integer", "minimum": 1000, "maximum": 99999},
        "tags": {
            "type": "array",
            "items": {"type": "string", "maxLength": 8},
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
REGEX = r"(\d{3}-\d{4}, ){4}end"
GRAMMAR = 'root ::= "[" item ("," item){5} "]"\nitem ::= [0-9] [0-9] [a-f]'
STRUCTURAL_TAG = (
    '{"type": "structural_tag", "format": {"type": "tag", "begin": "<n>", "end": "</n>",'
    ' "content": {"type": "regex", "pattern": "[0-9]{12}"}}}'
)

MAX_TOKENS = 40

Case = Callable[[int, str], Sampling]
"""From the prompt's number and the text of its greedy generation to a sampling."""


def _case(**fields: object) -> Case:
    def sampling(number: int, text: str) -> Sampling:
        given = dict(fields)
        if given.pop("seeded", False):
            given["seed"] = 1000 + number + int(given.pop("choice", 0))  # type: ignore[call-overload]
        if given.pop("stop_in_text", False):
            given["stop"] = [stop_in(text)]
        return Sampling.model_validate({"max_tokens": MAX_TOKENS} | given)

    return sampling


def stop_in(text: str) -> str:
    """A string of two words' ends, late in `text`: no single token makes it."""
    middle = text.index(" ", len(text) * 2 // 3)
    return text[middle - 3 : middle + 4]


def _structured(**kind: object) -> dict[str, object]:
    return {"structured_outputs": StructuredOutput.model_validate(kind)}


CASES: Mapping[str, Case] = {
    "greedy": _case(),
    "ignore_eos": _case(ignore_eos=True),
    "temperature": _case(temperature=1.0, seeded=True),
    "top_p": _case(temperature=0.9, top_p=0.9, seeded=True),
    "top_k": _case(temperature=0.9, top_k=20, seeded=True),
    "min_p": _case(temperature=1.2, min_p=0.05, seeded=True),
    "repetition_penalty": _case(repetition_penalty=1.3),
    "presence_penalty": _case(presence_penalty=1.5),
    "frequency_penalty": _case(frequency_penalty=1.2),
    "penalties, sampled": _case(
        temperature=0.8, presence_penalty=0.8, frequency_penalty=0.5, seeded=True
    ),
    "min_tokens": _case(min_tokens=32, logit_bias={2: 12.0}),
    "min_tokens and stop": _case(min_tokens=20, stop=["the", " a "]),
    "stop": _case(stop_in_text=True),
    "stop, included": _case(stop_in_text=True, include_stop_str_in_output=True),
    "stop_token_ids": _case(stop_token_ids=[30, 28], min_tokens=24),
    "logprobs": _case(logprobs=5),
    "logprobs, sampled": _case(logprobs=5, temperature=1.0, seeded=True),
    "logprobs of the token alone": _case(logprobs=0, presence_penalty=0.5),
    "logprob_token_ids": _case(logprob_token_ids=[28, 30, 253]),
    "prompt_logprobs": _case(prompt_logprobs=2, logprobs=0),
    "logit_bias": _case(logit_bias={260: 3.0, 253: -3.0, 30: -2.0}),
    "bad_words": _case(bad_words=["Paris", "the city", "robot named", "a short", "and the"]),
    "allowed_token_ids": _case(allowed_token_ids=list(range(20, 1020))),
    "json": _case(**_structured(json=JSON_SCHEMA), max_tokens=80),
    "json, sampled": _case(
        **_structured(json=JSON_SCHEMA), max_tokens=80, temperature=1.0, seeded=True
    ),
    "json_object": _case(**_structured(json_object=True)),
    "regex": _case(**_structured(regex=REGEX), max_tokens=64),
    "choice": _case(
        **_structured(choice=["a rather long first choice", "a rather long second choice"])
    ),
    "grammar": _case(**_structured(grammar=GRAMMAR), temperature=0.7, seeded=True),
    "structural_tag": _case(**_structured(structural_tag=STRUCTURAL_TAG)),
    "first of two choices": _case(temperature=1.0, seeded=True),
    "second of two choices": _case(temperature=1.0, seeded=True, choice=1),
    "repetition_detection": _case(
        logit_bias={260: 100.0},
        repetition_detection=RepetitionDetection(max_pattern_size=2, min_count=9),
    ),
    "characters split over tokens": _case(temperature=2.0, seeded=True, logprobs=2),
    "special tokens shown": _case(
        skip_special_tokens=False, ignore_eos=True, temperature=1.0, seeded=True
    ),
    "special tokens unspaced": _case(
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
        ignore_eos=True,
        logit_bias={1: 8.0, 2: 8.0},
        temperature=1.0,
        seeded=True,
    ),
}
"""By name. Seeds, stops and schemas are fixed, so that every run tries the same."""
