"""The flow of deployments: its parameters are the form."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.prefect.form import Answers, Machines, More, Places, Stops, What, job_of
from flows.prefect.generate import failed_state, run_job
from shunt.errors import ShuntError


@flow(name="generate", flow_run_name=lambda: f"{flow_run.parameters['what'].name}")
def generate(
    what: What,
    answers: Answers = Answers(),  # noqa: B008 (frozen defaults of the form)
    places: Places = Places(),  # noqa: B008
    machines: Machines = Machines(),  # noqa: B008
    stops: Stops = Stops(),  # noqa: B008
    more: More = More(),  # noqa: B008
) -> State[None]:
    """Generate every row of a job; started again, it goes on where it stopped.

    Args:
        what: Which model answers which prompts.
        answers: How answers are sampled.
        places: Where the run and its results are kept.
        machines: Who does the work.
        stops: When to stop early.
        more: Everything else, as a job file or its text.
    """
    try:
        job = job_of(what, answers, places, machines, stops, more)
    except ShuntError as error:
        return failed_state(error)
    return run_job(job, what.first_rows or None)
