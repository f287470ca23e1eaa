"""Write the prompt files of this folder: `python examples/prompts/make_demo.py`.

Deterministic, so that a change of a prompt is a readable diff of the file. Each kind of row is one
function below; `demo.jsonl` is their rows, dealt out so that kinds and lengths mix.
"""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODEL = "SmolLM2-135M-Instruct"

FACTS = {
    "geography": [
        "What is the capital of France?",
        "Which river flows through Cairo?",
        "Name three countries that border Germany.",
        "On which continent is Kenya?",
        "What is the highest mountain on Earth?",
        "Which ocean lies between Europe and North America?",
        "Name a city in Japan other than Tokyo.",
        "What is a fjord?",
    ],
    "science": [
        "What do plants need for photosynthesis?",
        "At what temperature does water boil at sea level?",
        "Why is the sky blue? Answer in one sentence.",
        "What is the chemical symbol of gold?",
        "How many legs does a spider have?",
        "What does a thermometer measure?",
        "Which planet is closest to the Sun?",
        "What is the difference between weather and climate?",
    ],
    "language": [
        "What is the plural of 'mouse'?",
        "Give a synonym of 'quick'.",
        "What is the past tense of 'to go'?",
        "Is 'run' a noun, a verb or both?",
        "Give the opposite of 'generous'.",
        "What is an adjective?",
        "Correct this sentence: 'He don't like apples.'",
        "How do you say 'thank you' in Spanish?",
    ],
    "art": [
        "Who painted the Mona Lisa?",
        "How many strings does a violin have?",
        "What is a sonnet?",
        "Name a play by Shakespeare.",
        "What does a conductor of an orchestra do?",
        "Which three colours are called primary?",
        "What is a fresco?",
        "Name an instrument that is played with sticks.",
    ],
    "animals": [
        "What do you call a young cat?",
        "How do bats find their way in the dark?",
        "Which bird cannot fly and lives in Antarctica?",
        "What do cows eat?",
        "Do fish sleep?",
        "Name two animals that build dams or nests.",
        "How long does an elephant carry its young?",
        "Why do dogs wag their tails?",
    ],
    "daily life": [
        "How many minutes are there in two hours?",
        "What can I cook with eggs, flour and milk?",
        "Which colour do you get from blue and yellow?",
        "How do I remove a coffee stain from a shirt?",
        "Name two board games.",
        "What is a good present for a gardener?",
        "How often should I water a cactus?",
        "What should I pack for a day at the beach?",
    ],
}

EXPLAINED = {
    "computing": [
        "a compiler",
        "a hash table",
        "version control",
        "the internet",
        "a database index",
    ],
    "nature": ["tides", "migration of birds", "volcanoes", "how bees make honey", "rainbows"],
    "history": ["the printing press", "the Silk Road", "Roman aqueducts", "the first railways"],
    "economy": ["inflation", "compound interest", "supply and demand", "insurance"],
    "music": ["a chord", "rhythm", "how a violin makes sound"],
}
AUDIENCES = ["a child of eight", "a curious adult", "a student before an exam"]

OPENINGS = {
    "story": [
        "The lighthouse keeper had not spoken to anyone for forty days when",
        "Once upon a time, in a village where nobody owned a clock,",
        "The last train of the night was empty except for",
        "It was the smallest dragon in the valley, and",
        "When Ada opened the old radio, she found",
    ],
    "essay": [
        "The most important thing about learning a new language is",
        "Cities should plant more trees because",
        "A good teacher is someone who",
        "The three main causes of traffic jams are",
        "Reading aloud to children matters because",
    ],
    "recipe": [
        "To make a simple tomato soup, first",
        "Ingredients for pancakes:\n-",
        "The secret of good bread is",
    ],
    "code": [
        "def is_prime(n):\n    ",
        "# Count the words in a text file\nimport",
        "SELECT name, price FROM products WHERE",
    ],
    "dialogue": [
        "Customer: My parcel has not arrived.\nAgent:",
        "Doctor: What brings you here today?\nPatient:",
        "Q: Why do cats purr?\nA:",
        "Interviewer: Tell me about your last project.\nCandidate:",
    ],
}

LONG_TASKS = {
    "letter": [
        "Write a letter to a neighbour who plays the trumpet at midnight. Be kind.",
        "Write a letter of application for a job in a public library.",
        "Write a letter to my future self about the year that has just ended.",
    ],
    "story": [
        "Tell a story about a robot that learns to bake bread.",
        "Tell a story about two rivers that meet.",
        "Tell a story in which a map turns out to be wrong.",
        "Tell a story about the first snow in a desert town.",
    ],
    "plan": [
        "Plan three days in Lisbon for a family with two children.",
        "Make a plan for learning to swim within two months.",
        "Make a weekly menu for a student with little money.",
        "Describe step by step how to organise a street festival.",
    ],
    "review": [
        "Write a review of a restaurant where the soup was better than the service.",
        "Write a review of a book about the history of bridges.",
        "Compare travelling by train and travelling by plane.",
    ],
}

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 1, "maximum": 120},
        "profession": {"type": "string", "maxLength": 24},
    },
    "required": ["name", "age", "profession"],
    "additionalProperties": False,
}
SENTIMENT = {
    "type": "object",
    "properties": {
        "sentiment": {"enum": ["positive", "neutral", "negative"]},
        "reason": {"type": "string", "maxLength": 80},
    },
    "required": ["sentiment", "reason"],
    "additionalProperties": False,
}
EVENT = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "weekday": {"enum": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]},
        "hour": {"type": "integer", "minimum": 0, "maximum": 23},
    },
    "required": ["title", "weekday", "hour"],
    "additionalProperties": False,
}
JSON_TASKS = {
    "extract person": (
        PERSON,
        [
            "Maria Silva, 34, has been a nurse in Porto for ten years.",
            "At 61, the carpenter Jonas Berg still opens his shop at six.",
            "Our new colleague is Wei Chen (27), an electrical engineer.",
            "Captain Aisha Bello turned 45 on board her ship.",
            "The baker's name is Tom Reed; he is 52.",
            "Twelve-year-old Lena Novak wants to be an astronaut.",
            "Professor Ravi Iyer, 70, teaches his last course this term.",
            "Sam Okafor, aged 19, drives a tram in the mornings.",
        ],
    ),
    "sentiment": (
        SENTIMENT,
        [
            "The battery lasts two days and charges in minutes. I am delighted.",
            "It arrived broken, and nobody answers the telephone.",
            "It is a kettle. It boils water.",
            "I wanted to love this film, but I fell asleep twice.",
            "Best pizza in town, and the waiter sang for us!",
            "The room was clean. The street was loud.",
            "Never again: three hours late and no apology.",
            "My daughter has worn these shoes every day since her birthday.",
        ],
    ),
    "calendar": (
        EVENT,
        [
            "Let us have lunch on Tuesday at noon.",
            "The choir rehearses every Thursday at seven in the evening.",
            "Dentist, Friday, nine o'clock.",
            "Football with the neighbours on Sunday at 3 pm.",
            "The bakery wants the order on Monday before eight.",
            "Film night: Saturday, 9 pm, at Olga's.",
        ],
    ),
}

HANDBOOK = (
    "You answer questions of customers of Larch & Daughters, a shop that repairs bicycles. Facts:"
    " the shop opens from Tuesday to Saturday, from 9 to 18; on Saturdays it closes at 14. A "
    "small service costs 45 euros and takes one day, a full service costs 120 euros and takes "
    "three days. Flat tyres are mended while you wait, for 15 euros. Electric bicycles are "
    "repaired except for their batteries, which go back to the maker. Rental bicycles cost 12 "
    "euros a day. Parts have a warranty of two years, labour of six months. Payment by card or in"
    " cash. Answer in at most two sentences."
)
CUSTOMER_QUESTIONS = [
    "Are you open on Mondays?",
    "When do you close on Saturday?",
    "What does a full service cost?",
    "How long does a small service take?",
    "My tyre is flat. Can I wait for the repair?",
    "Do you repair the battery of an electric bicycle?",
    "How much is a rental bicycle for three days?",
    "How long is the warranty on parts?",
    "Can I pay by card?",
    "The brake you repaired four months ago squeaks again. Is that covered?",
    "Can I bring my bicycle at eight in the morning?",
    "Which service do you advise after a winter of daily rides?",
    "Do you rent out bicycles on Sundays?",
    "What is the cheapest repair that you offer?",
    "I need my bicycle back by Thursday. When must I bring it for a full service?",
    "Do you sell helmets?",
    "Who owns the shop?",
    "Is labour covered for two years as well?",
    "Can I rent an electric bicycle?",
    "How much are two flat tyres?",
]
ARTICLE = (
    "The town of Weidenau has decided to close its main street to cars for one summer. From June "
    "to September, buses, bicycles and people on foot may use it, and deliveries are allowed "
    "until ten in the morning. The council expects that shops will gain customers, as happened in"
    " two towns nearby; the chamber of commerce fears the opposite and has asked for free parking"
    " at the station. A counting station will record how many people pass each hour. In October "
    "the council will publish the figures and vote on whether the street stays closed for good."
)
ARTICLE_QUESTIONS = [
    "Summarise the text in one sentence.",
    "Who is against the plan, and what do they fear?",
    "Until when are deliveries allowed?",
    "What happens in October?",
    "Write a headline for the text.",
    "List three facts from the text.",
    "Is the closure permanent?",
    "What does the counting station do?",
    "Write a question that a journalist might ask the mayor.",
    "Rewrite the first sentence for children.",
]


def facts() -> Iterator[dict[str, Any]]:
    """Short questions with short, greedy answers."""
    for topic, questions in FACTS.items():
        for question in questions:
            yield _chat(topic, question, {"max_tokens": 40})


def explanations() -> Iterator[dict[str, Any]]:
    """One subject for several readers, sampled with a seed."""
    pairs = [(topic, subject) for topic, subjects in EXPLAINED.items() for subject in subjects]
    for seed, ((topic, subject), audience) in enumerate(product(pairs, AUDIENCES)):
        sampling = {"max_tokens": 144, "temperature": 0.7, "top_p": 0.9, "seed": seed}
        yield _chat(topic, f"Explain {subject} to {audience}.", sampling)


def completions() -> Iterator[dict[str, Any]]:
    """Plain text to go on from; each twice, greedy and sampled, some with a stop string."""
    for topic, openings in OPENINGS.items():
        for seed, opening in enumerate(openings):
            stop = {"stop": ["\n\n"]} if topic in ("dialogue", "code") else {}
            yield {"topic": topic, "prompt": opening, "sampling": {"max_tokens": 96, **stop}}
            sampled = {"temperature": 0.9, "seed": seed, "repetition_penalty": 1.1, **stop}
            yield {"topic": topic, "prompt": opening, "sampling": {"max_tokens": 112, **sampled}}


def long_texts() -> Iterator[dict[str, Any]]:
    """Few rows with long answers: they decide how long the tail of the batch is."""
    for topic, tasks in LONG_TASKS.items():
        for seed, task in enumerate(tasks):
            sampling = {"max_tokens": 448, "temperature": 0.8, "top_p": 0.95, "seed": seed}
            yield _chat(topic, task, sampling)


def json_answers() -> Iterator[dict[str, Any]]:
    """Answers that a JSON schema constrains, each greedy and sampled."""
    for topic, (schema, texts) in JSON_TASKS.items():
        fields = ", ".join(schema["properties"])
        for seed, text in enumerate(texts):
            sampling = {"max_tokens": 96, "structured_outputs": {"json": schema}}
            task = f"Read the text and answer with a JSON object ({fields}).\n\n{text}"
            yield _chat(topic, task, sampling)
            yield _chat(topic, task, sampling | {"temperature": 0.7, "seed": seed})


def shared_prefixes() -> Iterator[dict[str, Any]]:
    """Many questions on one long text: the engine can keep what they share."""
    for question in CUSTOMER_QUESTIONS:
        yield _chat("support", question, {"max_tokens": 80}, system=HANDBOOK)
    for question in ARTICLE_QUESTIONS:
        yield _chat("article", f"{ARTICLE}\n\n{question}", {"max_tokens": 80})


def demo_rows() -> list[dict[str, Any]]:
    """All kinds, interleaved by their place within their kind; ids number the result."""
    kinds = [facts, explanations, completions, long_texts, json_answers, shared_prefixes]
    placed: list[tuple[float, int, dict[str, Any]]] = []
    for number, kind in enumerate(kinds):
        rows = list(kind())
        placed += [((i + 0.5) / len(rows), number, row) for i, row in enumerate(rows)]
    placed.sort(key=lambda entry: entry[:2])
    return [{"id": f"demo-{i:03d}", **row} for i, (_, _, row) in enumerate(placed)]


def openai_batch() -> Iterator[dict[str, Any]]:
    """Twenty lines as OpenAI's batch endpoint takes them."""
    questions = [question for questions in FACTS.values() for question in questions][:12]
    for i, question in enumerate(questions):
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": question}],
            "max_completion_tokens" if i % 2 else "max_tokens": 32,
            "temperature": 0,
        }
        yield _batch_line(i, "/v1/chat/completions", body)
    openings = [opening for openings in OPENINGS.values() for opening in openings][:8]
    for i, opening in enumerate(openings, start=len(questions)):
        body = {"model": MODEL, "prompt": opening, "max_tokens": 48, "temperature": 0.8, "seed": i}
        yield _batch_line(i, "/v1/completions", body)


def _batch_line(number: int, url: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": f"request-{number:02d}", "method": "POST", "url": url, "body": body}


def _chat(
    topic: str, content: str, sampling: dict[str, Any], *, system: str | None = None
) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": content})
    return {"topic": topic, "messages": messages, "sampling": sampling}


def _write(name: str, rows: list[dict[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / name).write_text("".join(lines), encoding="utf-8")
    print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    _write("demo.jsonl", demo_rows())
    _write("openai_batch.jsonl", list(openai_batch()))
