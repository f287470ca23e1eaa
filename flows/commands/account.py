"""`shunt aws`: prepare an account, look at it, clear it. Nothing is changed without `--yes`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.offers import Region
from flows.exit_code import ExitCode
from flows.screen.words import console as console_of
from flows.surroundings import REPOSITORY
from placement.catalogue.snapshot import ON_DEMAND_REGION
from shunt.aws.account.bundle import make_bundle
from shunt.aws.account.check import caller, check_account, check_notices
from shunt.aws.account.notice_parts import NoticeDesk
from shunt.aws.account.run_identity import identities, remove_identity
from shunt.aws.account.setup import (
    AccountSettings,
    Services,
    Step,
    notice_removals,
    notice_steps,
    perform,
    setup_steps,
    teardown_steps,
)
from shunt.aws.account.stack import stack_template
from shunt.aws.api import ASK_RETRY, AwsApi, client_of
from shunt.aws.money.offerings import Desk, look
from shunt.aws.money.price_list import PRICE_LIST_REGION
from shunt.aws.nodes.inventory import list_nodes
from shunt.errors import JobError

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only say it.")]
DEPLOYMENT_FILES = REPOSITORY / "deployments" / "aws"
_MARKS = {"ok": "ok      ", "wrong": "missing ", "unknown": "unknown "}

aws = typer.Typer(no_args_is_help=True, help="Prepare an AWS account, look at it, clear it.")


@aws.command("setup")
def aws_setup(
    bucket: Annotated[str, typer.Option(help="Bucket of the runs, in the same region.")],
    image: Annotated[str, typer.Option(help="AMI with the GPU driver, or resolve:ssm:PARAMETER.")],
    region: Region = ON_DEMAND_REGION,
    prefix: Annotated[str, typer.Option(help="Of the store in the bucket.")] = "",
    install: Annotated[
        bool, typer.Option(help="The image has no worker environment: nodes install the lock.")
    ] = False,
    root_device: Annotated[
        str, typer.Option(help="Of the image; unset: as an AMI says, else /dev/xvda.")
    ] = "",
    volume_gb: Annotated[int, typer.Option(min=8, help="Root volume, at least the image's.")] = 100,
    vpc: Annotated[str, typer.Option(help="Of the security group; unset: the default VPC.")] = "",
    security_group: Annotated[str, typer.Option(help="Use this one, make none.")] = "",
    pipelines: Annotated[
        bool, typer.Option(help="Let nodes talk to each other: pipelines over several nodes.")
    ] = False,
    notices: Annotated[
        bool, typer.Option(help="Also a queue of spot notices, for all runs of the region.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Make roles, policies, a security group and the launch template of the nodes."""
    services = _services(region)
    settings = AccountSettings(
        directory=DEPLOYMENT_FILES,
        bucket=bucket,
        image=image,
        prefix=f"{prefix.strip('/')}/" if prefix.strip("/") else "",
        vpc=vpc,
        security_group=security_group,
        pipelines=pipelines,
        root_device=root_device,
        volume_gb=volume_gb,
        bundle=make_bundle(REPOSITORY) if install else None,
    )
    steps = setup_steps(services, settings)
    if not notices:
        _go(steps, yes=yes)
        return
    desk = _notice_desk(services)
    _go([*steps, *notice_steps(desk)], yes=yes)
    if url := desk.queue_url():
        typer.echo(f"for job files: fleet.ec2.notice_queue_url: {url}")


@aws.command("teardown")
def aws_teardown(region: Region = ON_DEMAND_REGION, yes: Yes = False) -> None:
    """Remove what setup made, and the roles of runs. Refuses while nodes of ours exist."""
    services = _services(region)
    left = list_nodes(services.ec2)
    if left:
        raise JobError(f"{len(left)} nodes still exist; end them first: shunt reap")
    console = console_of()
    for run_id in identities(services):
        console.print(f"{'removing' if yes else 'will remove'} the role of run {run_id}")
        if yes:
            remove_identity(services, run_id)
    _go([*notice_removals(_notice_desk(services)), *teardown_steps(services)], yes=yes)
    console.print("left: AWS's own roles for spot and EC2 Fleet; runs and bundles in the bucket")


@aws.command("doctor")
def aws_doctor(
    region: Region = ON_DEMAND_REGION,
    bucket: Annotated[str, typer.Option(help="Look at this bucket too.")] = "",
    notices: Annotated[bool, typer.Option(help="Look at the queue of notices too.")] = False,
) -> None:
    """Say what of the account is missing: permissions, quotas, setup. Changes nothing.

    Exit codes: 0 all is well; 1 something is missing or could not be looked at.
    """
    services = _services(region)
    pricing = _api("pricing", PRICE_LIST_REGION)
    desk = Desk(services.ec2, _api("service-quotas", region), pricing)
    sheet = look(desk, region=region, now=datetime.now(UTC))
    console, bad = console_of(), 0
    queue = check_notices(_notice_desk(services)) if notices else ()
    for finding in chain(check_account(services, sheet, bucket=bucket), queue):
        bad += finding.verdict != "ok"
        remedy = f": {finding.remedy}" if finding.remedy else ""
        line = f"{_MARKS[finding.verdict]} {finding.what}{remedy}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    told = "line needs a look" if bad == 1 else "lines need a look"
    console.print(f"{bad} {told}" if bad else "all is well")
    if bad:
        raise typer.Exit(ExitCode.FAILED)


@aws.command("template")
def aws_template(
    out: Annotated[Path | None, typer.Option(help="Write it here.")] = None,
) -> None:
    """Print what setup makes as a CloudFormation template, for accounts that want a stack."""
    text = stack_template(DEPLOYMENT_FILES)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text)


def _go(steps: Sequence[Step], *, yes: bool) -> None:
    console = console_of()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for step in steps:
        if step.done:
            say(f"nothing to do: {step.what}")
        elif not yes:
            say(f"will {_verb(step)}: {step.what}")
    if yes:
        told = perform(steps, told=lambda step: say(f"{_DONE[_verb(step)]}: {step.what}"))
        say(f"{told} {'step' if told == 1 else 'steps'} done")
    else:
        say("nothing was changed; add --yes")


_DONE = {"make": "made", "change": "changed", "remove": "removed"}


def _verb(step: Step) -> str:
    return "remove" if step.removes else "change" if step.state == "differs" else "make"


def _services(region: str) -> Services:
    return Services(
        ec2=_api("ec2", region),
        iam=_api("iam", region),
        s3=_api("s3", region),
        account=caller(_api("sts", region)),
        region=region,
    )


def _notice_desk(services: Services) -> NoticeDesk:
    region = services.region
    apis = _api("sqs", region), _api("events", region)
    return NoticeDesk(*apis, services.account, region, DEPLOYMENT_FILES)


def _api(service: str, region: str) -> AwsApi:
    return AwsApi(client_of(service, region), retry=ASK_RETRY)
