"""Which grammar back end a job's engine gets, and which rows it then cannot enforce.

vLLM picks one back end per engine, by the first structured request that it sees. So that no row
depends on the order of rows, it is settled here, once the last row was read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from shunt.job.sampling import StructuredOutput
from shunt.structure.backend import CANDIDATES, Compiler, NoCompiler
from shunt.structure.constraint import NoConstraint, check_constraint, schema_of
from shunt.structure.schema_rules import unkept

_MAX_VERDICTS = 100_000
"""Remembered; more distinct constraints are looked at again when they come back."""

Verdict = Mapping[str, str]
"""Back end -> why it cannot enforce a constraint; empty where it can."""


@dataclass(slots=True)
class Grammars:
    """The constraints of a job's rows, as they are read."""

    compiler: Compiler = field(default_factory=NoCompiler)
    candidates: tuple[str, ...] = CANDIDATES
    _verdicts: dict[str, Verdict] = field(default_factory=dict[str, Verdict])
    _doubtful: dict[int, tuple[str, Verdict]] = field(
        default_factory=dict[int, tuple[str, Verdict]]
    )
    _seen: bool = False

    @property
    def seen(self) -> bool:
        """Whether any row has a constraint."""
        return self._seen

    def verdict(self, structure: StructuredOutput) -> Verdict:
        """What each candidate says. Raises `NoConstraint` where none takes it."""
        self._seen = True
        key = structure.model_dump_json(by_alias=True, exclude_none=True)
        verdict = self._verdicts.get(key)
        if verdict is None:
            check_constraint(structure)
            verdict = {name: self._problem(name, structure) for name in self.candidates}
            if len(self._verdicts) < _MAX_VERDICTS:
                self._verdicts[key] = verdict
        if all(verdict.values()):
            raise NoConstraint(f"{_name(structure)}: {_all_of(verdict)}")
        return verdict

    def is_doubtful(self, structure: StructuredOutput) -> bool:
        """Whether some candidate refuses it. Raises `NoConstraint`."""
        return any(self.verdict(structure).values())

    def admit(self, index: int, place: str, structure: StructuredOutput) -> None:
        """Note the row's constraint. Raises `NoConstraint`. The same row may come twice."""
        verdict = self.verdict(structure)
        if any(verdict.values()):
            problem = {name: f"{_name(structure)}: {why}" for name, why in verdict.items() if why}
            self._doubtful[index] = (place, problem)

    def settle(self) -> str:
        """The back end that refuses the fewest rows; of equals, the first. Empty: none is needed,
        or the job names one."""
        if not self._seen or len(self.candidates) == 1:
            return ""
        refused = dict.fromkeys(self.candidates, 0)
        for _, problem in self._doubtful.values():
            for name in problem:
                refused[name] += 1
        return min(self.candidates, key=lambda name: refused[name])

    def refused(self, backend: str) -> Iterator[tuple[int, str]]:
        """(row, why with its place) of the rows that the back end cannot enforce, in order."""
        name = backend or self.candidates[0]
        for index, (place, problem) in sorted(self._doubtful.items()):
            if why := problem.get(name):
                others = [other for other in self.candidates if other not in problem]
                taken = f" ({', '.join(others)} would; a job has one back end)" if others else ""
                yield index, f"{place}: {why}{taken}"

    def _problem(self, backend: str, structure: StructuredOutput) -> str:
        if structure.json_schema is not None and (why := unkept(backend, schema_of(structure))):
            return why
        return self.compiler.problem(backend, structure)


def _name(structure: StructuredOutput) -> str:
    given = structure.model_dump(by_alias=True, exclude_none=True)
    kinds = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
    return f"structured_outputs.{next(kind for kind in kinds if kind in given)}"


def _all_of(verdict: Verdict) -> str:
    reasons = dict.fromkeys(verdict.values())
    return "; ".join(reasons)
