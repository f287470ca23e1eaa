"""Puts the tables of `benchmarks/results/` into README and docs: `python -m benchmarks.tables`.

The glossary, made from `docs/words.csv`, is one of them. A page says `<!-- table: NAME -->` and
`<!-- /table -->`; what stands between is made anew. With
`--check` nothing is written, and a page that is out of date gives exit code 1.
"""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
WORDS = ROOT / "docs" / "words.csv"
_GLOSSARY = re.compile(r"(<!-- glossary -->\n).*?(<!-- /glossary -->)", re.DOTALL)
_MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write, or with `--check` compare."""
    stale = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    if "--check" in arguments:
        for page in stale:
            sys.stderr.write(
                f"{page}: its tables are out of date; run python -m benchmarks.tables\n"
            )
        return 1 if stale else 0
    for page in stale:
        page.write_text(filled(page.read_text()))
    return 0


def filled(text: str) -> str:
    """The page with every table made from its results."""
    text = _GLOSSARY.sub(lambda m: f"{m[1]}{glossary()}{m[2]}", text)
    return _MARK.sub(lambda m: f"{m[1]}{table(m[2])}{m[3]}", text)


def glossary() -> str:
    """Every word with its meaning and the page that tells more, in the order of the alphabet."""
    with WORDS.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["word"].lower())
    lines = ["| word | meaning | more |", "|---|---|---|"]
    lines += [f"| {r['word']} | {r['meaning']} | [{r['page']}]({r['page']}) |" for r in rows]
    return "\n".join([*lines, ""])


def table(name: str) -> str:
    """One benchmark as Markdown, with date, machine and command."""
    record: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    lines = ["| | value | spread | reference | target | met |", "|---|---|---|---|---|---|"]
    lines += [_line(row) for row in record["rows"]]
    where = f"{record['date'][:10]}, {record['machine']}, `{record['command']}`"
    return "\n".join([*lines, "", f"*{where}*", ""])


def _line(row: dict[str, Any]) -> str:
    spread = row["spread"]
    cells = [
        row["metric"],
        f"{_number(row['value'])} {row['unit']}",
        "" if spread is None else f"{_number(spread[0])} to {_number(spread[1])}",
        "" if row["reference"] is None else _number(row["reference"]),
        row["target"] or "",
        "" if row["met"] is None else "yes" if row["met"] else "**missed**",
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
