"""The job file: what to generate, from what, with what, and where the results go."""

from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from shunt.errors import ShuntError
from shunt.job.sampling import Sampling
from shunt.job.tool_parsers import TOOL_CALL_PARSERS
from shunt.plan.plan import Pipeline
from shunt.store.config import EndpointUrl, StoreConfig
from shunt.store.opening import bucket_of, directory_of

OnDemandPolicy = Literal["never", "at-deadline", "head"]
"""`head`: the first node of a pipeline over several nodes is on-demand; else as `at-deadline`."""


class _Section(BaseModel):
    """A part of the job file: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineOptions(_Section):
    """How vLLM is started. Unset: vLLM's own default."""

    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    """Sequences that the engine runs at once."""
    max_num_batched_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of one engine step; a prompt that is longer is prefilled in chunks."""
    enforce_eager: bool = False
    """Start faster and run slower: no compilation, no CUDA graphs."""
    enable_prefix_caching: bool = True
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    pipeline_parallel_size: Annotated[int, Field(ge=1)] = 1
    pipeline: Pipeline | None = None
    """One of a plan's (`shunt plan --json`), in place of the two sizes above and of max_num_seqs:
    layers and tensor parallelism of each stage. All its slots are processes of the worker's
    machine."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the device's memory (on CPU: of the machine's) that one engine may take; unset:
    0.9, divided among the workers of a local fleet."""
    cpu_kv_cache_gib: Annotated[int, Field(ge=1)] = 1
    """KV cache of the CPU back end; has no meaning on a GPU."""
    extra: dict[str, JsonValue] = {}
    """Any other field of vLLM's AsyncEngineArgs, under its own name."""

    @property
    def num_gpus(self) -> int:
        """That one worker's engine runs on."""
        if self.pipeline is not None:
            return sum(stage.tp for stage in self.pipeline.stages)
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        sizes = self.tensor_parallel_size, self.pipeline_parallel_size
        if self.pipeline is not None and sizes != (1, 1):
            raise ValueError(
                "pipeline says how the model is split; remove tensor_parallel_size and "
                "pipeline_parallel_size"
            )
        return self


class Model(_Section):
    """The model and how it is loaded."""

    path: str
    """Local directory in Hugging Face layout, `s3://bucket/prefix` with such a directory, or the id
    of a model on the Hugging Face hub. Nodes fetch what is not a directory."""
    revision: str | None = None
    """Of the hub: branch, tag or commit; resolved to one commit when the run is prepared."""
    token_env: str | None = None
    """Name of the environment variable that holds the hub's token, for gated models."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len_tokens: Annotated[int, Field(ge=2)] | None = None
    """Context length; unset: what the model's config.json says."""
    generation_config: Literal["auto", "vllm"] = "auto"
    """The model's own sampling defaults (generation_config.json): `auto` takes them where row and
    job say nothing, as vLLM's server does; `vllm` leaves them out."""
    adapters: dict[str, str] = {}
    """LoRA adapters by the name that prompts use: local directories."""
    tool_call_parser: str | None = None
    """vLLM's parser of the model's own calls of tools (`hermes` for Qwen 2.5), as its server takes
    it: with it, `tool_choice: auto` of OpenAI batch files is served."""
    engine_kind: Literal["vllm", "fake"] = "vllm"
    """`fake` is a deterministic engine without a model, for drills and tests."""
    fake_tokens_per_s: Annotated[float, Field(gt=0)] | None = None
    """Speed of each request in the fake engine; unset: as fast as it can."""
    engine: EngineOptions = EngineOptions()

    @field_validator("tool_call_parser")
    @classmethod
    def _parser_is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in TOOL_CALL_PARSERS:
            raise ValueError(f"must be one of {', '.join(sorted(TOOL_CALL_PARSERS))}")
        return name


class Columns(_Section):
    """Which columns of the input mean what. A column that is absent is not used."""

    id: str | None = None
    """Unset: `custom_id` or `id` where the rows have one, otherwise ids are made from positions."""
    prompt: str = "prompt"
    messages: str = "messages"
    token_ids: str = "token_ids"
    sampling: str = "sampling"
    """An object of sampling parameters of this row alone."""


_SECRETS = {"key", "secret", "token", "password", "account_key", "sas_token", "connection_string"}
"""Options by which file systems of fsspec take secrets."""


class Input(_Section):
    """The prompts."""

    path: str | list[str]
    """Files, globs or s3:// URIs. A list is read in its order, what a glob finds by name."""
    format: Literal["auto", "jsonl", "parquet", "csv", "openai-batch"] = "auto"
    """`auto` goes by the name: .jsonl, .jsonl.gz, .jsonl.zst, .parquet, .csv, .tsv; a JSONL file
    whose first row has `custom_id` and `body` is an OpenAI batch file."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Between the fields of a CSV; unset: a comma, or a tab in a `.tsv`."""
    columns: Columns = Columns()
    template: str | None = None
    """Jinja2 text over the row's columns; its result is the prompt."""
    system: str | None = None
    """With it, prompt texts become chats of this system message and the prompt as user message."""
    chat: bool = False
    """Make a chat with one user message of each prompt text."""
    add_special_tokens: bool = True
    """Put around a plain prompt what the model's tokenizer puts there (a BOS token, say). Off where
    the texts hold it already. Chats have it from their template."""
    endpoint_url: str | None = None
    """Of an S3 server that is not AWS."""
    storage_options: dict[str, JsonValue] = {}
    """Of the file system (fsspec), for paths with a scheme: `{anon: true}` and
    `{requester_pays: true}` for S3, `{profile: NAME}` of the AWS configuration."""

    @field_validator("storage_options")
    @classmethod
    def _holds_no_secret(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if secret := sorted(options.keys() & _SECRETS):
            raise ValueError(
                f"{', '.join(secret)}: secrets are never written down; they come from the AWS "
                "configuration (AWS_PROFILE) or the environment"
            )
        return options

    @property
    def as_chat(self) -> bool:
        return self.chat or self.system is not None


def bare_place(path: str) -> str:
    """A directory or URI without spaces around it and slashes behind it, which are no part of any
    name."""
    path = path.strip()
    return path if path.endswith("://") else path.rstrip("/") or path[:1]


class Output(_Section):
    """The result files."""

    path: str = "results"
    """Directory or `s3://bucket/prefix`; `{run_id}` in it is replaced."""
    endpoint_url: EndpointUrl = None
    """Of an S3 server that is not AWS. Unset: the store's own, for results in its bucket."""
    formats: Annotated[list[Literal["parquet", "jsonl", "dataset"]], Field(min_length=1)] = [
        "parquet",
        "jsonl",
    ]
    """`dataset`: a folder as the Hugging Face hub has them, of Parquet files of bounded size."""
    max_file_mb: Annotated[int, Field(ge=1)] = 512
    """Of each Parquet file of a `dataset`."""
    origin: bool = False
    """Say of each row which file and line it came from, in `input_file` and `input_line`."""

    @field_validator("path")
    @classmethod
    def _names_a_place(cls, path: str) -> str:
        path = bare_place(path)
        try:
            if directory_of(path) is None:
                bucket_of(path.replace("{run_id}", "run"))
        except ShuntError as error:
            raise ValueError(str(error)) from error
        return path


class Interruption(_Section):
    """A worker of the local fleet to be taken away on purpose."""

    after_s: Annotated[float, Field(ge=0)]
    """Seconds from the start of the fleet."""
    worker: Annotated[int, Field(ge=0)]
    notice_s: Annotated[float, Field(ge=0)] | None = None
    """SIGTERM, and SIGKILL so many seconds later; unset: SIGKILL without notice."""


class Ec2(_Section):
    """Where the nodes of `kind: ec2` are bought, and how."""

    region: str
    subnets: Annotated[dict[str, str], Field(min_length=1)]
    """Subnet by availability zone. Nodes are bought in these zones only."""
    instance_types: list[str] = []
    """Any of these may fill a place: EC2 takes the cheapest that it has plenty of. Empty: types,
    zones and number of nodes are those of the plan that `plan` asks for."""
    launch_template: str = "shunt-worker"
    """As `shunt aws setup` makes it."""
    role_per_run: bool = True
    """Nodes get a role that reaches this run's prefix alone, made for the run and removed after it.
    Off: the role of the launch template, which reaches every run of the bucket."""
    placement_groups: bool = True
    """Put the nodes of a pipeline near each other, in a cluster placement group of their zone. Off
    where types are wanted that cannot be in one."""
    on_demand: OnDemandPolicy = "never"
    """`at-deadline`: on-demand nodes once spot nodes would miss `limits.deadline`."""
    on_demand_usd_per_hour: dict[str, Annotated[float, Field(gt=0)]] = {}
    """On-demand prices of this region; unset: those of the shipped catalogue."""
    startup_s: Annotated[float, Field(ge=0)] = 240.0
    """From a launch to the first token: what an on-demand node needs of the slack."""
    notice_queue_url: str | None = None
    """SQS queue that EventBridge fills with spot notices (`shunt aws setup --notices`). Runs may
    share it."""
    replace_at_rebalance: bool = False
    """Replace a node at the provider's early advice, before there is any notice."""
    silent_s: Annotated[float, Field(gt=0)] = 180.0
    """A node whose worker is not heard of for so long is replaced and ended."""
    boot_limit_s: Annotated[float, Field(gt=0)] = 1200.0
    """The same for a node whose worker was never heard of."""
    observe_interval_s: Annotated[float, Field(gt=0)] = 5.0
    """How often EC2 is asked. Teardown and spend go by it too."""
    max_node_hours: Annotated[float, Field(gt=0)] = 24.0
    """A node ends itself after so long, or ten minutes after `limits.deadline`, whatever happens
    to whoever launched it."""


class Fleet(_Section):
    """The nodes."""

    kind: Literal["local", "ec2", "joined"] = "local"
    """`local`: processes of this machine; `ec2`: nodes that cost money, described by `ec2`;
    `joined`: workers that others start, by `shunt worker RUN`, and that come and go."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Workers with an engine each; on EC2 nodes, which have a worker for each GPU that it needs.
    Has no effect for `kind: joined`."""
    max_crashes: Annotated[int, Field(ge=0)] = 3
    """Failures of a worker in a row, without progress of the run, before its place is given up."""
    worker_python: str | None = None
    """Interpreter of the worker environment; unset: `.venv/worker` beside the code."""
    interruptions: list[Interruption] = []
    ec2: Ec2 | None = None
    """Needed for `kind: ec2`, and has no effect otherwise."""

    @model_validator(mode="after")
    def _workers_exist(self) -> Self:
        for interruption in self.interruptions:
            if interruption.worker >= self.workers:
                raise ValueError(
                    f"interruptions name worker {interruption.worker}, but workers are numbered "
                    f"0 to {self.workers - 1}"
                )
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "local":
            return self
        if self.kind == "ec2" and self.ec2 is None:
            raise ValueError("kind ec2 needs the section fleet.ec2: region, subnets, ...")
        if self.interruptions or self.worker_python:
            raise ValueError(
                "interruptions and worker_python are of the local fleet; remove them, or set "
                "kind: local"
            )
        return self


class ErrorPolicy(_Section):
    """What bad rows mean for the run."""

    strict: bool = False
    """Refuse to start when preflight finds a bad row."""
    max_error_rows: Annotated[int, Field(ge=0)] | None = None
    """More error rows than this make the run end with exit code 3."""
    max_error_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The same as a share of all rows; used when `max_error_rows` is unset."""
    broken_structure: Literal["keep", "error"] = "keep"
    """What becomes of an answer that breaks its structured-output constraint: results say so in a
    column, or the row is an error row. Answers cut at max_tokens are neither."""
    count_cut: Literal["none", "structured", "all"] = "none"
    """Which answers that were cut at max_tokens count as error rows in the two keys above: none,
    those that were to keep to a schema, a pattern or a grammar, or all."""
    max_engine_deaths_per_prompt: Annotated[int, Field(ge=1)] = 2
    """Engines that a prompt may kill at one token before it is isolated."""


class Limits(_Section):
    """Where to stop, with what is done saved. A local fleet has only the deadline."""

    max_cost_usd: Annotated[float, Field(gt=0)] | None = None
    """Of the run's nodes, over all invocations; its nodes end before it is passed."""
    deadline: AwareDatetime | None = None


class Job(_Section):
    """A job file. The same job over the same input is the same run, and resumes it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    """Letters, digits, `-` and `_`: the first part of the run id."""
    model: Model
    input: Input
    output: Output = Output()
    sampling: Sampling = Sampling()
    """Defaults; a row's own parameters go over them."""
    store: StoreConfig = StoreConfig(uri="runs")
    """Where the run keeps its state."""
    fleet: Fleet = Fleet()
    checkpoint_interval_s: Annotated[float, Field(gt=0)] = 10.0
    """Tokens are saved at least so often (or every sixteenth of the shard's age, if longer)."""
    checkpoint_tokens: Annotated[int, Field(ge=1)] = 4096
    """Save sooner once so many new tokens of a shard are waiting."""
    lease_term_s: Annotated[float, Field(ge=1)] = 30.0
    """A worker that has not been heard of for so long loses its shards."""
    shard_prompts: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Prompts per shard: the unit that one worker takes at a time."""
    reuse: bool = True
    """Generate only what is new: a row that a finished run of this name and store has answered
    takes that answer, and equal rows of a dataset are generated once."""
    errors: ErrorPolicy = ErrorPolicy()
    limits: Limits = Limits()
    plan: dict[str, JsonValue] | None = None
    """What `shunt plan` plans with; its own model checks it."""

    @model_validator(mode="after")
    def _nodes_are_known(self) -> Self:
        ec2 = self.fleet.ec2 if self.fleet.kind == "ec2" else None
        if ec2 is not None and not ec2.instance_types and self.plan is None:
            raise ValueError("fleet.ec2.instance_types is empty: name types, or add a plan section")
        return self

    @model_validator(mode="after")
    def _nobody_pays_for_who_joins(self) -> Self:
        if self.fleet.kind == "joined" and self.limits.max_cost_usd is not None:
            raise ValueError(
                "limits.max_cost_usd: what machines that join cost is not known; set "
                "limits.deadline, or remove it"
            )
        return self
