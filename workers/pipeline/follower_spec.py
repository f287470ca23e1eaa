"""What the process of a follower is told, as JSON on its command line."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from workers.engine.config import EngineConfig
from workers.pipeline.stage_map import StageMap


@dataclass(frozen=True, slots=True)
class FollowerSpec:
    """The head's engine settings, and the stages as this node sees them."""

    config: EngineConfig
    stages: StageMap
    device: str
    """Empty: what vLLM finds on the node."""
    deadline_s: float

    def as_json(self) -> str:
        return json.dumps(
            {
                "config": asdict(self.config),
                "stages": self.stages.as_additional_config(),
                "device": self.device,
                "deadline_s": self.deadline_s,
            }
        )

    @classmethod
    def of_json(cls, text: str) -> Self:
        fields: dict[str, Any] = json.loads(text)
        return cls(
            config=EngineConfig(**fields["config"]),
            stages=StageMap.of_config(fields["stages"]),
            device=fields["device"],
            deadline_s=fields["deadline_s"],
        )
