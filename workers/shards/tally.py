"""What this worker has done since it started: the numbers of its status."""

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    rows_finished: int = 0
    rows_failed: int = 0
    output_tokens: int = 0
    resumed_generations: int = 0
    resumed_tokens: int = 0
    engine_deaths: int = 0
    segments: int = 0
    segment_bytes: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
