"""The file that `shunt deploy` applies: work pools, deployments, automations."""

from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from shunt.errors import JobError
from shunt.job.mistakes import mistakes_of
from shunt.job.yaml_text import read_yaml_file


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pool(_Section):
    """Where flow runs are started. The GPUs of a run are its own affair, not a work pool's."""

    name: str
    type: Literal["process", "docker", "kubernetes", "ecs"] = "process"
    """Anything but `process` needs Prefect's worker of that kind where the pool is served."""
    image: str = ""
    """With this repository and the control environment in it; for pools of containers."""
    directory: str = ""
    """Where the repository is in the image. Of a process pool: this repository."""
    variables: dict[str, JsonValue] = {}
    """Any other job variable of the pool's type: `cluster`, `namespace`, `cpu` and so on."""

    @model_validator(mode="after")
    def _has_an_image(self) -> Self:
        if self.type != "process" and not (self.image and self.directory):
            raise ValueError(
                f"pool {self.name} runs containers: give image, and directory (where the "
                "repository is in it)"
            )
        return self


class Deployment(_Section):
    """A form and, where there is a schedule, when it is filled in by itself."""

    name: Annotated[str, Field(min_length=1)]
    pool: str
    description: str = ""
    job: str
    """Job file, relative to this file: the form is filled with it."""
    cron: str | None = None
    """Minute, hour, day, month, weekday."""
    timezone: str = "UTC"
    """Of `cron`, as in the IANA database: daylight saving time is kept."""
    interval_s: Annotated[float, Field(gt=0)] | None = None
    active: bool = True
    """Of a schedule that is new. One that a person switched on or off stays as it is."""
    env: dict[str, str] = {}
    """Environment variables of its flow runs."""

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.cron is not None and self.interval_s is not None:
            raise ValueError(f"deployment {self.name}: give cron or interval_s, not both")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(
                f"deployment {self.name}: timezone {self.timezone} is not known; write it as "
                "Europe/Berlin"
            ) from error
        return self


class Automations(_Section):
    """What a person is told of, and when. Without a block nothing is sent, and events are kept."""

    notify: str = ""
    """Notification block of Prefect, as `slack-webhook/ops` (type, then name). Empty: none."""
    storm_interruptions: Annotated[int, Field(ge=1)] = 5
    """So many interruptions of one run within `storm_s` are a storm."""
    storm_s: Annotated[float, Field(gt=0)] = 600.0
    stuck_s: Annotated[float, Field(ge=600)] = 3600.0
    """A run that made no token for so long is stuck."""


class DeploymentFile(_Section):
    """All of it."""

    pools: Annotated[tuple[Pool, ...], Field(min_length=1)]
    deployments: Annotated[tuple[Deployment, ...], Field(min_length=1)]
    automations: Automations = Automations()

    @model_validator(mode="after")
    def _pools_are_known(self) -> Self:
        pools = {pool.name for pool in self.pools}
        for deployment in self.deployments:
            if deployment.pool not in pools:
                raise ValueError(
                    f"deployment {deployment.name}: pool {deployment.pool} is not among the pools "
                    f"of the file ({', '.join(sorted(pools))})"
                )
        return self

    def pool_of(self, deployment: Deployment) -> Pool:
        return next(pool for pool in self.pools if pool.name == deployment.pool)


def load_deployments(path: Path) -> DeploymentFile:
    """Raises `JobError` with a line per mistake."""
    tree, places = read_yaml_file(path, expected="a mapping with pools and deployments")
    places.page = "docs/scheduled-jobs.md"
    try:
        return DeploymentFile.model_validate(tree)
    except ValidationError as error:
        raise JobError("\n".join(mistakes_of(error, tree, DeploymentFile, places))) from error
