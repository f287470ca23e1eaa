"""`shunt offers`: what can be bought now, from AWS, from the last look, or from what is shipped."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.screen.words import console as console_of
from placement.catalogue.snapshot import ON_DEMAND_REGION, shipped_sheet
from shunt.aws.api import ASK_RETRY, AwsApi, client_of
from shunt.aws.errors import AwsError
from shunt.aws.money.offerings import Desk, look
from shunt.aws.money.price_list import PRICE_LIST_REGION
from shunt.cache_folder import cache_folder
from shunt.errors import InputError
from shunt.plan.offering_sheet import OfferingSheet, keep_sheet, read_sheet

Region = Annotated[str, typer.Option(help="AWS region.", envvar="AWS_REGION")]

MAX_AGE_S = 600.0
"""Spot prices move over hours; a sheet that lacks something is asked for again at once."""
_WIDTH = 100
LIVE, OFFLINE = "live", "offline"


def offers(
    region: Region = ON_DEMAND_REGION,
    types: Annotated[list[str] | None, typer.Option("--type", help="Instance type.")] = None,
    offline: Annotated[
        bool, typer.Option(help="Ask nobody: the last look, or the snapshot that is shipped.")
    ] = False,
    refresh: Annotated[bool, typer.Option(help="Ask AWS, however young the last look is.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the sheet, for shunt plan --offers FILE.")
    ] = False,
) -> None:
    """Show what EC2 sells: GPU types, spot prices per zone, on-demand prices, quotas, scores."""
    now = datetime.now(UTC)
    sheet = offering_sheet(OFFLINE if offline else LIVE, region, now=now, refresh=refresh)
    if types:
        sheet = sheet.only(frozenset(types))
    if as_json:
        typer.echo(sheet.model_dump_json(indent=2))
        return
    _show(sheet, now)


def offering_sheet(
    source: str, region: str, *, now: datetime, refresh: bool = False
) -> OfferingSheet:
    """The sheet of `live`, `offline`, or of the file of that name. Raises `InputError`."""
    if source not in (LIVE, OFFLINE):
        return read_sheet(Path(source))
    path = cache_folder(os.environ) / f"offers-{region}.json"
    kept = _kept(path)
    if source == OFFLINE:
        return kept or shipped_sheet(region)
    if kept is not None and not kept.missing and not refresh and kept.younger(MAX_AGE_S, now):
        return kept
    sheet = _asked(region, now)
    if sheet.prices:
        keep_sheet(path, sheet)
        return sheet
    instead = kept or shipped_sheet(region)
    told = (*sheet.missing, f"shown instead: {instead.source}, {instead.age(now)}")
    return instead.model_copy(update={"missing": told})


def one_line(sheet: OfferingSheet, now: datetime) -> str:
    """Where the numbers come from, and how old they are."""
    return f"{sheet.region}, {sheet.age(now)}, from {sheet.source}"


def _asked(region: str, now: datetime) -> OfferingSheet:
    """Also where there is nobody to ask as: a sheet that says so."""
    try:
        desk = Desk(
            ec2=AwsApi(client_of("ec2", region), retry=ASK_RETRY),
            quotas=AwsApi(client_of("service-quotas", region), retry=ASK_RETRY),
            pricing=AwsApi(client_of("pricing", PRICE_LIST_REGION), retry=ASK_RETRY),
        )
    except AwsError as error:
        return OfferingSheet(region=region, taken_at=now, missing=(f"nothing shown; {error}",))
    return look(desk, region=region, now=now)


def _kept(path: Path) -> OfferingSheet | None:
    """An unreadable file is as none: it is asked for again."""
    try:
        return read_sheet(path)
    except InputError:
        return None


def _show(sheet: OfferingSheet, now: datetime) -> None:
    console = Console(width=max(_WIDTH, console_of().width))
    table = Table("type", "GPUs", "zone", "spot USD/h", "on demand", "quota, vCPU", "score")
    types = {t.instance_type: t for t in sheet.types}
    spot = sorted(sheet.prices, key=lambda p: (p.instance_type, p.usd_per_hour))
    rows = [(p.instance_type, p.zone, f"{p.usd_per_hour:.4f}") for p in spot]
    unsold = sorted(set(types) & set(sheet.on_demand) - {p.instance_type for p in spot})
    for name, zone, usd in [*rows, *((name, "", "") for name in unsold)]:
        known = types.get(name)
        quota = sheet.quota_vcpus(name, "spot")
        table.add_row(
            name,
            f"{known.gpu_count} x {known.gpu}" if known else "",
            zone,
            usd,
            f"{sheet.on_demand[name]:.4f}" if name in sheet.on_demand else "",
            "" if quota is None else f"{quota:g}",
            str(sheet.scores.get(zone, "")),
        )
    console.print(table)
    if sheet.scores:
        console.print(f"score: of 10, advice only, for {', '.join(sheet.score_types)} together")
    for line in sheet.missing:
        console.print(line, markup=False, soft_wrap=True)
    console.print(one_line(sheet, now), markup=False, soft_wrap=True)


__all__ = ["LIVE", "OFFLINE", "Region", "offering_sheet", "offers", "one_line"]
