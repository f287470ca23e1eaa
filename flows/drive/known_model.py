"""What the control side knows of a job's model before anything runs: by it rows are read."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from flows.surroundings import grammar_compiler
from shunt.dataset.rendering import Renderer, renderer_of
from shunt.job.job import Job
from shunt.model.generation_config import sampling_defaults
from shunt.model.listing import ModelListing
from shunt.run.fetched_model import control_copy, resolve_model
from shunt.structure.backend import Compiler


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model, as preflight and preparation ask it."""

    listing: ModelListing | None
    """Its files, where nodes fetch them."""
    renderer: Renderer
    card: Mapping[str, JsonValue]
    """What it says of sampling itself."""
    compiler: Compiler


@contextmanager
def known_model(
    job: Job, environment: Mapping[str, str], *, clock: datetime
) -> Generator[KnownModel]:
    """Find the model and fetch what the control side needs of it. `clock` is what its template is
    told. Raises `JobError`."""
    listing = resolve_model(job, environment)
    here = job if listing is None else control_copy(job, listing, environment)
    card = {} if job.model.engine_kind == "fake" else sampling_defaults(here.model.path)
    renderer = renderer_of(here, clock=clock)
    with grammar_compiler(here, environment) as compiler:
        yield KnownModel(listing, renderer, card, compiler)
