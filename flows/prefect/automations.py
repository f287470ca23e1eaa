"""Automations as code: what a person is told of. They act on the events of `run_events`."""

from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import ActionTypes, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows.prefect.deployment_file import Automations
from shunt.errors import JobError

_RUNS: dict[str, str | list[str]] = {"prefect.resource.id": "shunt.run.*"}
_EACH = {"prefect.resource.id"}
_STATES = ("Failed", "Crashed", "Refused", "StoreFailed", "TooManyErrorRows")
_BODY = "{{ event.resource.name }}: {{ event.event }} {{ event.payload }}"


def apply_automations(client: SyncPrefectClient, settings: Automations) -> list[str]:
    """Make or renew each; a line for each. Raises `JobError` for a block that is missing."""
    told: list[str] = []
    for automation in automations_of(settings, _actions(client, settings.notify)):
        there = client.read_automations_by_name(automation.name)
        if there:
            client.update_automation(there[0].id, automation)
        else:
            client.create_automation(automation)
        told.append(f"automation {automation.name}: {'renewed' if there else 'made'}")
    return told


def automations_of(settings: Automations, actions: list[ActionTypes]) -> list[AutomationCore]:
    """Budget passed, interruption storm, stuck run, failed run."""
    limit = EventTrigger(
        expect={"shunt.limit.reached"}, match=_RUNS, for_each=_EACH, posture=Posture.Reactive
    )
    storm = EventTrigger(
        expect={"shunt.worker.interrupted"},
        match=_RUNS,
        for_each=_EACH,
        posture=Posture.Reactive,
        threshold=settings.storm_interruptions,
        within=timedelta(seconds=settings.storm_s),
    )
    stuck = EventTrigger(
        after={"shunt.run.progressed"},
        expect={"shunt.run.progressed", "shunt.run.ended"},
        match=_RUNS,
        for_each=_EACH,
        posture=Posture.Proactive,
        within=timedelta(seconds=settings.stuck_s),
    )
    failed = EventTrigger(
        expect={f"prefect.flow-run.{state}" for state in _STATES},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": "generate"},
        for_each=_EACH,
        posture=Posture.Reactive,
    )
    described = {
        "shunt: limit reached": ("The budget or the deadline ended a run for now.", limit),
        "shunt: interruption storm": ("Many workers of one run were lost at once.", storm),
        "shunt: stuck run": ("A run made no token for long.", stuck),
        "shunt: failed run": ("A flow run failed, crashed or was refused.", failed),
    }
    return [
        AutomationCore(name=name, description=what, enabled=True, trigger=trigger, actions=actions)
        for name, (what, trigger) in described.items()
    ]


def _actions(client: SyncPrefectClient, notify: str) -> list[ActionTypes]:
    if not notify:
        return [DoNothing()]
    kind, _, name = notify.partition("/")
    try:
        block = client.read_block_document_by_name(name, kind)
    except ObjectNotFound as error:
        raise JobError(
            f"automations.notify {notify}: no such block on the server; make it on the page "
            "Blocks, or leave notify out"
        ) from error
    return [SendNotification(block_document_id=block.id, subject="shunt", body=_BODY)]
