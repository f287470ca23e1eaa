"""Which parts of a plan a node runs. Pure."""

from dataclasses import dataclass

from shunt.plan.plan import Pipeline, Plan


@dataclass(frozen=True, slots=True)
class Part:
    """What one slot has of one pipeline."""

    pipeline: Pipeline
    slot: str

    @property
    def heads(self) -> bool:
        """Whether the pipeline begins here."""
        return self.pipeline.slots[0] == self.slot

    @property
    def number(self) -> int:
        """The part's first GPU on the node: no two parts have the same."""
        return next(s.first_gpu for s in self.pipeline.stages if s.slot == self.slot)

    def like(self, other: object) -> bool:
        """Whether a process of the one serves for the other: names and predictions may differ."""
        return isinstance(other, Part) and self._layout == other._layout

    @property
    def _layout(self) -> tuple[object, ...]:
        stages = tuple((s.slot, s.first_gpu, s.tp, s.num_layers) for s in self.pipeline.stages)
        return self.slot, self.pipeline.max_num_seqs, stages


def parts_of(plan: Plan, slot: str) -> list[Part]:
    """In the order of their GPUs; empty where the plan does not want the slot."""
    parts = [Part(p, slot) for p in plan.pipelines if slot in p.slots]
    return sorted(parts, key=lambda part: part.number)
