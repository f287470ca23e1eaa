"""The error tree. One base; one branch per question that a caller asks.

ShuntError
|- JobError            the job file or the command line is wrong          (exit 2)
|- InputError          the dataset cannot be read or, in strict mode, has bad rows (exit 2)
|- StoreError          the object store refused or failed                 (shunt.store.errors)
|- RunError            the run is not what the caller thought
|  |- RunMissing       no manifest under this run id
|  |- RunIncomplete    asked to collect or verify, but prompts are still open
|- Fenced              a newer epoch owns the shard; stop writing to it
|- CorruptSegment      a stored object fails its checksum or its format version
|- EngineDied          the inference engine is gone; build a new one
|- RequestAborted      the engine lives, and dropped one request        (admitted again)
|- RequestRefused      the engine will never accept this request          (becomes an error row)
"""


class ShuntError(Exception):
    """Base of all errors that shunt raises on purpose."""


class JobError(ShuntError):
    """The job file or an option of the command line was refused."""


class InputError(ShuntError):
    """The dataset could not be used."""


class RunError(ShuntError):
    """The run was not in the state that the caller needs."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(f"run {run_id}: {message}")
        self.run_id = run_id


class RunMissing(RunError):
    """No manifest was found under this run id."""


class RunIncomplete(RunError):
    """Some prompts had no terminal row yet."""


class Fenced(ShuntError):
    """A newer epoch owned the shard, so this owner had to stop writing."""

    def __init__(self, shard_id: str, *, epoch: int, newer_epoch: int) -> None:
        super().__init__(f"shard {shard_id}: epoch {epoch} was fenced by epoch {newer_epoch}")
        self.shard_id = shard_id
        self.epoch = epoch
        self.newer_epoch = newer_epoch


class CorruptSegment(ShuntError):
    """A stored object failed its checksum or had an unknown format version."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key


class EngineDied(ShuntError):
    """The inference engine was lost; its saved tokens were not."""


class RequestAborted(ShuntError):
    """The engine dropped one request and lives on. It is no death: nobody else is in doubt."""


class RequestRefused(ShuntError):
    """The engine could never run this request; `code` is a row error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
