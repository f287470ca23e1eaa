"""`shunt model`: a model's files, put where nodes read them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.run import Endpoint
from flows.screen.words import console as console_of
from shunt.errors import JobError
from shunt.model.fetching import fetch
from shunt.model.hub import HUB_URL, HubSource
from shunt.model.listing import ModelFile, ModelListing
from shunt.model.pushing import push
from shunt.model.source import DirectorySource
from shunt.run.fetched_model import HUB, S3, model_cache
from shunt.store.opening import open_store

model = typer.Typer(no_args_is_help=True, help="Put models where nodes read them.")


@model.callback()
def _model() -> None:
    """Keeps `push` a command of its own while it is the only one."""


@model.command("push")
def model_push(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="Directory, or id on the hub.")],
    target: Annotated[str, typer.Argument(metavar="S3URI", help="s3://bucket/prefix of the copy.")],
    revision: Annotated[str, typer.Option(help="Of the hub: branch, tag or commit.")] = "main",
    token_env: Annotated[
        str, typer.Option(help="Environment variable that holds the hub's token.")
    ] = "",
    endpoint_url: Endpoint = None,
) -> None:
    """Copy a model into a bucket, with a digest of each file. Repeat it to go on where it stopped.

    Nodes of a job with `fleet.kind: ec2` may read what is under `weights/` of the store's prefix.
    """
    if not target.startswith(S3):
        raise JobError(f"{target}: name s3://bucket/prefix, the place of the copy")
    directory, listing = _here(source, revision, os.environ.get(token_env, ""))
    console = console_of()

    def told(file: ModelFile, sent: bool) -> None:
        what = "sent" if sent else "there"
        console.print(f"{what:6} {file.name} ({file.num_bytes} bytes)", markup=False)

    index = push(directory, listing, open_store(target, endpoint_url=endpoint_url), told=told)
    console.print(
        f"{len(index.files)} files, {index.num_bytes / 1e9:.2f} GB; for job files: "
        f"model.path: {target}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _here(source: str, revision: str, token: str) -> tuple[Path, ModelListing]:
    """The model's directory on this machine, fetched first where it is the hub's."""
    if Path(source).is_dir():
        return Path(source), DirectorySource(Path(source)).listing()
    url = os.environ.get(HUB) or HUB_URL
    listing = HubSource(source, revision=revision, token=token, url=url).listing()
    pinned = HubSource(source, revision=listing.commit, token=token, url=url)
    return fetch(pinned, listing, model_cache(os.environ)), listing
